"""The examples in docstrings run and are true; the entry points of the packages have one."""

import doctest
import importlib

import pytest

from extras.draw_architecture import SHARED, modules

ENTRY_POINTS = {
    "calibration.common.sites": "other_constants",
    "calibration.common.parameters": "make_space",
    "calibration.common.units": "nee_g_m2_to_nep_mg_ha",
    "calibration.weather.daily": "generate_weather",
    "calibration.visit.simulator": "simulate",
    "calibration.network.static_features": "logarithmic_parameters",
    "calibration.ensembles.files": "load_ensemble",
    "calibration.engines.visit_output": "complete_fluxes",
    "calibration.tower.meteorology": "wind_at_10m",
    "calibration.tower.observation_csv": "longest_gap",
    "calibration.emulator.error": "autocorrelation",
    "calibration.exploration.information": "sd_ratios",
    "calibration.reports.content": "shown",
    "calibration.inversion.config": "make_inversion_config",
    "calibration.inversion.solvers": "solver_of",
    "inverse_estimator": "StaticParameterInverter",
    "model": "create_model",
    "calibration.workflows.window_changes": "change_test",
    "calibration.conflict.misfit": "misfit_parts",
    "calibration.judgement.fit": "scores",
}
NAMES = [".".join(path.with_suffix("").parts) for path in modules() if len(path.parts) == 3 or path.stem in SHARED]


@pytest.mark.parametrize("name", [*NAMES, "extras.draw_architecture"])
def test_examples_are_true(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0, f"python -m doctest shows them: {name}"


@pytest.mark.parametrize(("module", "name"), ENTRY_POINTS.items())
def test_entry_points_have_an_example(module, name):
    tests = doctest.DocTestFinder(recurse=False).find(getattr(importlib.import_module(module), name), name)
    assert any(test.examples for test in tests)
