"""Recovery studies and refinement against a simulator that is known, and their statistics."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from linear_emulator import CONTEXT, FEATURES, PARAMETERS, SPACE, LinearEmulator, emulate, scalers
from scipy.stats import binomtest

from calibration.common.command_line import UserError
from calibration.common.parameters import read_ranges
from calibration.common.units import DYNAMIC_FEATURES, POSSIBLE
from calibration.judgement import recovery_study, simulator_check
from calibration.judgement.recovery_figures import coverage_figure, rank_figure, skill_figure
from calibration.judgement.recovery_statistics import (
    STUDY_WITHOUT_NOISE,
    coverage_sentence,
    outside_by_chance,
    rank_counts,
    rank_test,
    study_summary,
    wilson_interval,
)
from calibration.judgement.recovery_study import Study, run_study, write_study
from calibration.reports.content import CAREFUL, Table
from calibration.reports.recovery import study_section
from calibration.weather.daily import Weather
from inverse_estimator import StaticParameterInverter

DAYS = 420
DATES = np.datetime64("2012-01-01") + np.arange(DAYS)
FEATURE_NAMES = DYNAMIC_FEATURES[:FEATURES]
MIDDLE = np.array([(low + high) / 2 for low, high in POSSIBLE.values()])
static, dynamic = scalers()
dynamic = replace(dynamic, names=FEATURE_NAMES, mean=MIDDLE[:FEATURES])


class Simulator:
    """The linear emulator as the process model under `weather`; counts its runs."""

    def __init__(self, model: LinearEmulator, weather: Weather) -> None:
        self.model, self.weather, self.runs = model, weather, []

    def __call__(self, parameters, jobs=None):
        self.runs.append(len(parameters))
        fluxes = emulate(self.model, parameters, dynamic.transform(self.weather.values[:, :FEATURES]))
        return np.concatenate([np.zeros((len(parameters), CONTEXT, 4)), fluxes], axis=1)


@pytest.fixture
def study(tmp_path):
    """An emulator that is the simulator, reading four columns of a weather, and a function that runs a study."""
    model = LinearEmulator()
    values = MIDDLE + np.random.default_rng(0).standard_normal((DAYS, len(MIDDLE))) * (np.arange(10) < FEATURES)
    weather = Weather(DATES, values, "test")
    simulate = Simulator(model, weather)
    emulator = SimpleNamespace(
        model=model, parameter_names=PARAMETERS, feature_names=FEATURE_NAMES, dynamic_scaler=dynamic, shown={},
        configuration=SimpleNamespace(evaluation=SimpleNamespace(context_days=CONTEXT)),
    )  # fmt: skip
    config = {"bounds_file": "emulator", "starts": 2, "error_model": {"discrepancy": False, "emulator": False}}
    inverter = StaticParameterInverter(model, static, dynamic, config, "cpu", PARAMETERS, space=SPACE)
    directory = tmp_path / "study"

    def run(cases=4, overwrite=False, dask_scheduler=None, **changes):
        options = Study(cases, **{"span": 40, "noise": 0.02, "gaps": 0.25, **changes})
        summary, results = run_study(
            options, directory, emulator, inverter, weather, simulate, overwrite, 1, dask_scheduler
        )
        write_study(directory, summary, results, PARAMETERS, plots=False)
        return json.loads((directory / "recovery_study.json").read_text())

    return SimpleNamespace(run=run, calls=simulate.runs, directory=directory)


def test_a_study_is_calibrated_where_the_model_is_right(study):
    summary = study.run(cases=60)
    for key in ("cases", "span_days", "noise", "coverage_90", "range_error_prior", "range_error_estimated",
                "annual_nep_coverage_90"):  # fmt: skip
        assert key in summary
    assert (summary["cases"], summary["span_days"], summary["noise"]) == (60, 40, 0.02)
    assert 0.82 <= summary["coverage_90"] <= 0.97  # 180 intervals: sampling sd 0.022
    assert summary["range_error_estimated"] < 0.8 * summary["range_error_prior"]
    assert set(summary["parameters"]) == set(PARAMETERS)
    assert summary["rank_rejected"] == [] and summary["worse_than_prior"] == []
    table = pd.read_csv(study.directory / "recovery_cases.csv")
    assert len(table) == 60 and (table["observations"] == 30).all()
    assert len(pd.read_csv(study.directory / "recovery_parameters.csv")) == len(PARAMETERS)


def test_an_interrupted_study_continues_and_gives_the_same(study):
    whole = study.run(cases=6)
    removed = study.directory / "cases" / "case_0003.json"
    kept = (study.directory / "cases" / "case_0002.json").stat().st_mtime_ns
    before = json.loads(removed.read_text())
    removed.unlink()
    calls = len(study.calls)
    again = study.run(cases=6)
    after = json.loads(removed.read_text())
    assert len(study.calls) == calls, "truths are not simulated twice"
    assert (study.directory / "cases" / "case_0002.json").stat().st_mtime_ns == kept
    assert {**after, "seconds": 0} == {**before, "seconds": 0}
    assert again["coverage_90"] == whole["coverage_90"]
    more = study.run(cases=8)  # more cases of the same study keep those that are there
    assert more["cases"] == 8
    assert (study.directory / "cases" / "case_0002.json").stat().st_mtime_ns == kept
    with pytest.raises(UserError, match="holds a study with another noise"):
        study.run(cases=6, noise=0.01)
    assert study.run(cases=2, noise=0.01, overwrite=True)["noise"] == 0.01


def test_a_study_on_a_cluster_gives_the_same(study):
    distributed = pytest.importorskip("distributed")
    here = study.run(cases=3)
    for case in (study.directory / "cases").iterdir():
        case.unlink()
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as local:
        there = study.run(cases=3, dask_scheduler=local.scheduler_address)
    assert there["parameters"] == here["parameters"] and there["coverage_90"] == here["coverage_90"]


def test_a_span_longer_than_the_weather_is_refused(study):
    with pytest.raises(UserError, match="--span 800: needs 5 \\+ 800 days of weather, there are 420"):
        study.run(span=800)


def test_truths_fill_every_range_evenly_and_stay_when_more_are_asked():
    space = read_ranges()
    found = recovery_study.case_vectors(SimpleNamespace(space=space), 100, 7)
    np.testing.assert_array_equal(found[:24], recovery_study.case_vectors(SimpleNamespace(space=space), 24, 7))
    np.testing.assert_array_equal(found[:1], recovery_study.case_vectors(SimpleNamespace(space=space), 1, 7))
    unit = space.physical_to_unit(found)
    independent = np.random.default_rng(0).random(unit.shape)
    assert np.abs(unit.mean(axis=0) - 0.5).max() < 0.02 < np.abs(independent.mean(axis=0) - 0.5).max()
    assert np.abs(unit.std(axis=0) * np.sqrt(12) - 1).max() < 0.05
    assert (recovery_study.case_vectors(SimpleNamespace(space=space), 24, 8) != found[:24]).mean() > 0.9


def test_gaps_have_the_asked_share_and_leave_a_day():
    rng = np.random.default_rng(1)
    assert recovery_study.gap_days(100, 0.3, rng).sum() == 30
    assert recovery_study.gap_days(1, 0.9, rng).sum() == 0
    assert recovery_study.gap_days(30, 0.99, rng).sum() == 29


def test_rank_histograms_tell_calibrated_from_overconfident():
    rng = np.random.default_rng(0)
    assert rank_counts(np.arange(100)).tolist() == [10] * 10
    assert rank_test(rng.integers(0, 100, 200)) > 0.01
    assert rank_test(np.where(rng.random(200) < 0.5, 0, 99)) < 1e-6


SETTINGS = {"span_days": 30, "noise": 0.005, "targets": ["nep"], "gaps": 0.0}


def made_case(error, inside, annual):
    """The result of a case of two parameters."""
    return {
        "true": [0.0, 0.0], "prior": [1.0, 1.0], "estimated": [error, 1.0], "inside_90": [inside, True],
        "z": [0.5, 0.0], "rank": [50, 20], "sd_ratio": [0.4, 1.0], "range_error_prior": [0.5, 0.5],
        "range_error_estimated": [error / 2, 0.5], "range_error_mode": [error / 2, 0.5],
        "annual_nep": {"true": annual, "mean": 1.0, "low_90": 0.0, "high_90": 2.0}, "directions": 2,
        "emulator_scale": 1.0, "seconds": 1.0,
    }  # fmt: skip


def test_statistics_of_hand_made_cases():
    summary = study_summary([made_case(0.2, True, 1.5), made_case(0.2, False, 3.0)], ["x", "y"], SETTINGS)
    assert summary["coverage_90"] == 0.75 and summary["annual_nep_coverage_90"] == 0.5
    assert summary["parameters"]["x"]["skill"] == pytest.approx(0.8)
    assert summary["parameters"]["y"]["skill"] == pytest.approx(0.0)
    assert summary["informed_names"] == ["x"] and summary["range_error_prior"] == 0.5
    assert summary["covered_too_rarely"] == [] and "label" not in summary["parameters"]["x"]
    assert "too rarely: none; too often: none" in coverage_sentence(summary)  # two cases say nothing
    assert summary["notes"] == []
    quiet = study_summary([made_case(0.2, True, 1.5)], ["x", "y"], SETTINGS | {"noise": 0.0})
    assert quiet["notes"] == [STUDY_WITHOUT_NOISE]
    told = {"noise": 0.0, "noise_known": False, "config": {"error_model": {"observation_sd": 0.005}}}
    assert study_summary([made_case(0.2, True, 1.5)], ["x", "y"], SETTINGS | told)["notes"] == []


def test_the_sampling_error_of_a_coverage_is_wilsons():
    hits = np.array([0, 1, 17, 54, 60])
    low, high = wilson_interval(hits, 60)
    for k, *bounds in zip(hits, low, high, strict=True):
        assert bounds == pytest.approx(list(binomtest(int(k), 60).proportion_ci(0.95, "wilson")), abs=1e-6)


@pytest.mark.parametrize("cases", [20, 100])
def test_as_many_are_outside_by_chance_as_draws_say(cases):
    low, high = wilson_interval(np.random.default_rng(0).binomial(cases, 0.9, 200_000), cases)
    share = np.mean((low > 0.9) | (high < 0.9))  # sampling sd 0.0005
    assert outside_by_chance(36, cases) == pytest.approx(36 * share, abs=36 * 0.002)


@pytest.fixture(scope="module")
def uneven():
    """A study of 100 cases: x is covered in 80, y in all of them; x is a column that is labelled wrong."""
    results = [made_case(0.2, i % 10 < 8, 1.5) for i in range(100)]
    return study_summary(results, ["x", "y"], SETTINGS, {"x": "tree_lf0 (slot 37, x)"}), results


def test_parameters_outside_are_named_with_both_labels(uneven):
    summary, _ = uneven
    assert summary["covered_too_rarely"] == ["x"] and summary["covered_too_often"] == ["y"]
    assert coverage_sentence(summary) == (
        "covered too rarely: tree_lf0 (slot 37, x) 0.80 (0.711 to 0.867); too often: y 1.00 (0.963 to 1.000) (95 "
        "percent interval of the coverage excludes 0.90; chance alone would leave 0.1 of 2 parameters outside)"
    )


def test_the_figure_of_coverage_has_a_bar_a_parameter_and_both_labels(uneven):
    summary, _ = uneven
    axes = coverage_figure(summary, ["x", "y"]).axes[0]
    bars = [segment for collection in axes.collections for segment in collection.get_segments()]
    spans = {int(y): (low, high) for (low, y), (high, _) in bars}
    assert spans[1] == pytest.approx((0.711, 0.867), abs=1e-3) and spans[0] == pytest.approx((0.963, 1), abs=1e-3)
    labels = ["tree_lf0 (slot 37, x)", "y"]
    assert [t.get_text() for t in axes.get_yticklabels()] == labels
    assert [t.get_text() for t in skill_figure(summary, ["x", "y"]).axes[0].get_yticklabels()] == labels
    assert [a.get_title() or a.get_title("left") for a in rank_figure(summary, ["x", "y"]).axes[:2]] == [
        "tree_lf0\n(slot 37, x)", "y"
    ]  # fmt: skip


def test_the_tables_and_the_report_of_a_study_say_it_too(uneven, tmp_path):
    summary, results = uneven
    for item in results:
        item |= {"case": 0, "start": "2012-01-01", "observations": 30, "modes": 1, "cost": 1.0, "iterations": 3}
    write_study(tmp_path, summary, results, ["x", "y"], plots=False)
    table = pd.read_csv(tmp_path / "recovery_parameters.csv", index_col="param_name")
    assert table.loc["x", ["coverage_low_95", "coverage_high_95"]].tolist() == pytest.approx([0.711, 0.867], abs=1e-3)
    assert table["label"].tolist() == ["tree_lf0 (slot 37, x)", "y"]
    section = study_section(tmp_path)
    assert any(coverage_sentence(summary) in line for line in section.meaning)
    words = f"{100 * summary['coverage_90']:.0f} percent of the true values"
    assert section.verdict.startswith(f"CALIBRATED ON AVERAGE ONLY: {words}") and section.tone == CAREFUL
    assert "Informed in the median case: tree_lf0 (slot 37, x)." in section.meaning
    (rows,) = [block for block in section.blocks if isinstance(block, Table)]
    assert rows.rows[0][0] == "tree_lf0 (slot 37, x)" and rows.rows[0][2:4] == pytest.approx([0.711, 0.867], abs=1e-3)


def test_days_of_stretches_are_cut_out_by_date():
    fluxes = np.arange(2 * 30 * 4, dtype=float).reshape(2, 30, 4)
    dates = np.datetime64("2015-01-01") + np.arange(30)
    stretches = [SimpleNamespace(dates=dates[3:6]), SimpleNamespace(dates=dates[20:21])]
    np.testing.assert_array_equal(simulator_check.on_stretches(fluxes, dates, stretches), fluxes[:, [3, 4, 5, 20]])
