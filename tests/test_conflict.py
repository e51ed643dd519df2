"""What conflicts, the best that any parameters reach, and the quick looks of --diagnose."""

import json
from dataclasses import replace
from types import SimpleNamespace

import linear_emulator as linear
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import lsq_linear
from test_inversion_scripts import observed, run_script, trained  # noqa: F401  (a fixture)

import test_inversion as inversion_script
from calibration.common.command_line import UserError
from calibration.common.parameters import make_space
from calibration.common.scalers import Scaler
from calibration.common.sites import Variant, load_site
from calibration.common.units import DYNAMIC_FEATURES
from calibration.conflict import looks
from calibration.conflict.reach import best_inside_bounds
from calibration.emulator.trained import load_emulator
from calibration.inversion.data import merge_stretches, stretch_from_arrays
from calibration.judgement.judge import Case
from calibration.judgement.simulator_check import simulate_vectors
from calibration.reports import inversion as page
from calibration.tower.windows import load_windows
from calibration.visit import forcing
from calibration.weather.daily import generate_weather, write_weather_csv
from inverse_estimator import StaticParameterInverter

BOUNDED = {**linear.QUIET, "bounds_file": "emulator"}
PRIOR = linear.scalers()[0].mean


def conflicting(config, constant=0.0):
    """The inverter, its result and its stretches for parameters outside the bounds, and the design matrix."""
    model = linear.LinearEmulator()
    context, future = linear.window_data(60)
    design = linear.design_matrix(model, future[0])
    nep = design @ np.array([4.0, -1.0, 0.3]) + constant
    y = np.zeros((1, 60, 4))
    y[0, :, 2] = nep
    inverter = linear.inverter(model, config, space=linear.SPACE)
    stretches = [stretch_from_arrays(context[0], future[0], y[0], np.ones(60), start="2012-01-01")]
    return inverter, inverter.invert_stretches(PRIOR, stretches), stretches, design, nep


def test_best_inside_the_bounds_is_bounded_least_squares():
    noisy = {**BOUNDED, "error_model": {"observation_sd": 0.05, "emulator": False, "discrepancy": False}}
    inverter, result, stretches, design, nep = conflicting(noisy)
    reach = best_inside_bounds(inverter, result, stretches, "nep")
    exact = lsq_linear(design, nep, bounds=(-2, 2), tol=1e-12)
    rmse = np.sqrt(np.mean(exact.fun**2))
    assert reach.rmse == pytest.approx(rmse, rel=2e-3)
    assert reach.offset is None and linear.SPACE.physical_to_unit(reach.parameters)[0] == pytest.approx(1, abs=1e-3)
    estimate = np.sqrt(np.mean((result.fit.predicted - nep) ** 2))
    assert reach.rmse < 0.9 * estimate, "the prior holds the estimate back"
    assert f"RMSE {rmse:.4f}"[:9] in reach.sentence(estimate, 0.1) and f"estimate {estimate:.4f}" in reach.sentence(
        estimate, 0.1
    )


def test_with_an_offset_the_constant_is_free_and_without_bounds_there_is_no_best():
    inverter, result, stretches, design, nep = conflicting({**BOUNDED, "nuisance": "offset"}, constant=0.05)
    reach = best_inside_bounds(inverter, result, stretches, "nep")
    bounds = ([-2, -2, -2, -np.inf], [2, 2, 2, np.inf])
    exact = lsq_linear(np.column_stack([design, np.ones(60)]), nep, bounds=bounds, tol=1e-12)
    assert reach.rmse == pytest.approx(np.sqrt(np.mean(exact.fun**2)), rel=2e-3)
    assert reach.offset == pytest.approx(exact.x[3], abs=2e-3)
    inverter, result, stretches, *_ = conflicting(linear.UNBOUNDED)
    assert best_inside_bounds(inverter, result, stretches, "nep") is None
    assert best_inside_bounds(inverter, result, stretches, "gpp") is None


class Flat(torch.nn.Module):
    """NEP of every day: 0.01 times the first scaled parameter; GPP twice, NPP one and a half times that."""

    def simulate(self, static_x, dynamic_x, warmup):
        days = dynamic_x.shape[-2] - warmup
        nep = 0.01 * static_x[:, :1].expand(-1, days)
        return torch.stack([2 * nep, 1.5 * nep, nep, 0.5 * nep], dim=-1)


def test_looks_with_the_process_model_find_the_change_that_made_the_data(monkeypatch):
    monkeypatch.setattr(forcing, "SPINUP_YEARS", 200)  # of the data and of the looks alike: some dozens of runs
    names, site = ("tree_pmax", "tree_lue"), load_site()
    weather = generate_weather(site, "2012-01-01", "2012-12-31", seed=1)
    prior = np.array([[18.0, 0.05]])
    other = replace(site, variant=replace(Variant(), exports_in_nep=True))
    ours, theirs = (simulate_vectors(prior, names, weather, at, 1)[0] for at in (site, other))
    days = slice(200, 260)
    y = (theirs - ours)[days].astype(np.float64)  # the emulator says zero at the prior
    space = make_space([("tree_pmax", 17.9, 18.1), ("tree_lue", 0.04, 0.06)], "test")
    static, dynamic = Scaler(names, prior[0], np.array([4.0, 0.01])), Scaler(("x",), np.zeros(1), np.ones(1))
    inverter = StaticParameterInverter(Flat(), static, dynamic, BOUNDED, "cpu", names, space=space)
    stretch = stretch_from_arrays(np.zeros((5, 1)), np.zeros((60, 1)), y, np.ones(60), start=weather.dates[200])
    problem = inverter.problem(prior[0], [stretch])
    u = problem.prior
    fit = SimpleNamespace(u=u, predicted=problem.costs(u[None])[1][0])
    result = SimpleNamespace(
        names=names, optimized=prior[0], prior=prior[0], problem=problem, fit=fit, config=inverter.config
    )
    found = looks.Conflicting(None, inverter, Case([stretch], [], "test", 1), result, None, "nep")
    table = looks.looks_table(looks.process_looks(found, weather, site, 1)).set_index("look")
    assert list(table.index) == [looks.RELAXED, looks.MORE, looks.VARIANT]
    assert table.loc[looks.VARIANT, "change"] == "export of dissolved and eroded carbon counted in NEP"
    assert table.loc[looks.VARIANT, "rmse"] < 1e-6 < 0.1 * np.abs(y[:, 2]).mean()
    assert (table["best_rmse"] <= table["rmse"] + 1e-9).all()
    assert "--variant" in table.loc[looks.VARIANT, "next"] and "relaxed" in table.loc[looks.RELAXED, "next"]


def test_parameters_that_could_be_varied_are_not_those_that_are():
    changes = looks.other_parameters(("tree_pmax", "soil_kml"))
    names = [name for change in changes for name in change]
    assert "tree_lue" in names and not {"tree_pmax", "soil_kml", "tree_phenoltype", "tree_dcd"} & set(names)
    assert [change["soil_sr_ha"] for change in changes if "soil_sr_ha" in change] == [0.125, 0.375]


@pytest.fixture(scope="module")
def towed(trained, tmp_path_factory):  # noqa: F811
    """The windows of a tower that takes up 0.05 Mg C ha-1 day-1 more than the model can."""
    folder = tmp_path_factory.mktemp("towed")
    emulator = load_emulator(trained / "artifacts")
    windows = load_windows(trained / "windows.npz", emulator.feature_names, emulator.dynamic_scaler)
    shift = np.array([0, 0, 0.05, 0], dtype=np.float32)  # NEP
    replace(windows, y_obs=windows.y_obs + shift).save(folder / "windows.npz")
    return folder


def test_diagnose_tables_what_would_change_a_conflict(trained, towed, tmp_path, capsys):  # noqa: F811
    weather = generate_weather(load_site(), "2016-01-01", "2017-12-31", seed=9)
    write_weather_csv(tmp_path / "met_obs.csv", weather)
    results = tmp_path / "why"
    observed(
        trained, results, "--obs-npz", towed / "windows.npz", "--obs-range-start", "2017-01-01", "--obs-range-end",
        "2017-06-30", "--holdout-start", "2017-07-01", "--holdout-end", "2017-09-30", "--diagnose", "--free",
        "tree_pmax", "tree_lue", "--tower-weather", tmp_path / "met_obs.csv",
    )  # fmt: skip
    table = pd.read_csv(results / "diagnosis.csv").set_index("look")
    assert list(table.index) == [looks.AS_IT_IS, looks.OFFSET, looks.FREED, looks.WEATHER]
    assert (table["best_rmse"] <= table["rmse"] + 1e-6).all() and table["holdout_rmse"].notna().all()
    assert table.loc[looks.OFFSET, "rmse"] < 0.3 * table.loc[looks.AS_IT_IS, "rmse"]
    assert float(table.loc[looks.OFFSET, "change"]) == pytest.approx(0.05, abs=0.02)
    skill = pd.read_csv(results / "skill.csv").set_index(["days", "model"])
    assert table.loc[looks.AS_IT_IS, "rmse"] == pytest.approx(skill.loc[("fitted", "optimized"), "rmse"])
    summary = (results / "inversion_summary.txt").read_text()
    assert summary.startswith("CONFLICTS WITH THE MODEL") and "what conflicts: mean 9" in summary
    assert "best that any parameters inside the bounds reach: NEP RMSE" in summary
    assert f"the most comes from {table['best_rmse'].idxmin()}" in summary
    best = json.loads((results / "params_snapshot.json").read_text())["metadata"]["best_inside_bounds"]
    assert best["rmse"] == pytest.approx(table.loc[looks.AS_IT_IS, "best_rmse"])
    said = capsys.readouterr().out
    assert said.count("CONFLICTS") == 1 and said.splitlines()[-1].startswith("next: ")
    section = page.section(results)
    assert any("what changed" in getattr(block, "headers", ()) for block in section.blocks)
    assert any(f"RMSE {best['rmse']:.4f}" in line for line in section.meaning)
    assert any(f"{table['best_rmse'].idxmin()} (" in line for line in section.meaning)


def test_other_weather_takes_the_days_that_it_has():
    rng = np.random.default_rng(0)
    scaler = Scaler(DYNAMIC_FEATURES, np.zeros(10), np.full(10, 2.0))
    emulator = SimpleNamespace(feature_names=DYNAMIC_FEATURES, dynamic_scaler=scaler)
    stretch = stretch_from_arrays(
        rng.random((5, 10)), rng.random((30, 10)), np.zeros((30, 4)), np.ones(30), start="2012-01-06"
    )
    weather = generate_weather(load_site(), "2012-01-20", "2012-12-31", seed=1)
    (changed,), days = looks.other_weather(merge_stretches([stretch]), weather, emulator)
    assert days == 5 + 30 - 19  # 1 January to 4 February, less 1 to 19 January
    assert np.array_equal(changed.dynamic[:19], stretch.dynamic[:19])
    assert changed.dynamic[19:] == pytest.approx(weather.values[:16] / 2, rel=1e-6)


def test_flags_that_need_each_other(trained, tmp_path):  # noqa: F811
    with pytest.raises(UserError, match="give --diagnose too"):
        run_script(inversion_script, "--tower-weather", "x.csv")
    with pytest.raises(UserError, match="--diagnose belong to an inversion"):
        run_script(inversion_script, "--param-load", "x.json", "--diagnose")
