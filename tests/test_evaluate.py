"""Skill measures, baselines, the emulator's error model and evaluate_model.py."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from emulator_examples import tiny_ensemble, write_ensemble
from script_calls import script

from calibration.common import skill
from calibration.common.configuration import load_configuration
from calibration.common.parameters import read_ranges
from calibration.common.units import TARGETS
from calibration.emulator.baselines import NAMES, Baselines
from calibration.emulator.error import autocorrelation, coverage, load_errors, nearest_distance, split_error, summarise
from dataset import prepare


@pytest.fixture(scope="module")
def trained(tiny_training, tmp_path_factory):
    """(ensemble folder, artifacts folder) of a tiny training; an evaluation writes into the second."""
    out = tmp_path_factory.mktemp("trained") / "artifacts"
    shutil.copytree(tiny_training / "artifacts", out)
    return tiny_training / "data", out


# ---- skill -----------------------------------------------------------------------------------------------------------


def test_measures_have_their_known_answers():
    truth = np.array([[1.0, 2.0, 3.0], [11.0, 12.0, 13.0]])
    assert skill.r2(truth, truth) == 1.0 and skill.r2(np.full_like(truth, truth.mean()), truth) == pytest.approx(0.0)
    shifted = truth + 1.0
    assert skill.rmse(shifted, truth) == 1.0
    # pooled R2 is flattered by the spread between runs, within-run NSE is not
    assert skill.r2(shifted, truth) == pytest.approx(1 - 6 / 154) and np.allclose(
        skill.nse_by_run(shifted, truth), -0.5
    )
    assert skill.mape(shifted, truth) == pytest.approx(100 * np.mean(1 / truth))
    near_zero = np.array([[1e-9, 1.0]])
    assert skill.mape(near_zero + 0.1, near_zero) == pytest.approx(10.0)
    assert set(skill.skill(shifted, truth, 0.5)) == set(skill.METRICS)


def test_baselines_are_what_they_say():
    ensemble = tiny_ensemble()
    data = prepare(ensemble, load_configuration().splits)
    baselines, days = Baselines(data), data.periods["test"]
    runs = np.array([data.seen[0], data.unseen[0]])
    shape = (2, days.stop - days.start, 4)
    last = baselines.predict("persistence", runs, days)
    assert np.array_equal(last[:, 0], ensemble.fluxes[runs, days.start - 1]) and np.array_equal(last[:, 0], last[:, -1])
    train = ensemble.fluxes[data.seen][:, data.periods["train"]]
    assert np.allclose(baselines.predict("constant", runs, days)[1, 5], train.mean(axis=(0, 1)), atol=1e-6)
    climatology = baselines.predict("climatology", runs, days)
    own = ensemble.fluxes[runs[0], data.periods["train"]]
    assert np.allclose(climatology[0, 100], own[85:116].mean(axis=0), atol=1e-5)  # 31 days around the day of year
    assert np.allclose(climatology[1, 100], train[:, 85:116].mean(axis=(0, 1)), atol=1e-5)
    assert baselines.predict("arx", runs, days).shape == shape


def test_arx_reproduces_a_linear_world():
    ensemble = tiny_ensemble(runs=6)
    data = prepare(ensemble, load_configuration().splits)
    flux = np.zeros((6, len(data.dynamic), 4), dtype=np.float32)
    for day in range(1, flux.shape[1]):
        flux[:, day] = 0.7 * flux[:, day - 1] + 0.3 * data.dynamic[day, 4].item() + 0.2 * data.static[:, :1].numpy()
    data.fluxes[:] = __import__("torch").as_tensor(flux)
    days = data.periods["test"]
    expected = data.target_scaler.inverse(flux[data.unseen][:, days])
    assert np.allclose(Baselines(data).predict("arx", data.unseen, days), expected, atol=5e-4)


# ---- error model -----------------------------------------------------------------------------------------------------


def test_error_parts_add_up_and_find_what_was_put_in():
    rng = np.random.default_rng(0)
    dates = np.arange("2010-01-01", "2014-01-01", dtype="datetime64[D]")
    error = rng.normal(0, 3.0, (200, 1)) + rng.normal(0, 1.0, (200, len(dates)))
    run_mean, seasonal, daily = split_error(error, dates)
    assert run_mean**2 + seasonal**2 + daily**2 == pytest.approx((error**2).mean(), rel=1e-9)
    assert run_mean == pytest.approx(3.0, rel=0.15) and daily == pytest.approx(1.0, rel=0.05)
    assert seasonal == pytest.approx(np.sqrt(1 / 30.4), rel=0.1)  # what noise leaves in monthly means


def test_autocorrelation_of_a_known_process():
    rng = np.random.default_rng(1)
    error = np.zeros((50, 2000))
    for day in range(1, 2000):
        error[:, day] = 0.8 * error[:, day - 1] + rng.normal(size=50)
    result = autocorrelation(error)
    assert len(result) == 366 and result[0] == 1.0
    assert np.allclose(result[1:8], 0.8 ** np.arange(1, 8), atol=0.03)
    assert len(autocorrelation(error[:, :10])) == 10


def test_coverage_of_the_band_is_checked_on_other_runs():
    rng = np.random.default_rng(2)
    assert coverage(rng.normal(size=(40, 500))) == pytest.approx(0.9, abs=0.01)
    heavy = rng.standard_t(3, size=(40, 500))
    assert coverage(heavy) == pytest.approx(0.9, abs=0.01)
    assert np.isnan(coverage(rng.normal(size=(1, 500))))
    summary = summarise(heavy.astype(np.float32), np.arange("2010-01-01", "2011-05-16", dtype="datetime64[D]"),
                        rng.random(40), slice(100, 200))  # fmt: skip
    assert summary["band90"] < 1.645 * summary["sd"] and summary["kurtosis"] > 3


def test_distance_to_the_nearest_training_vector():
    space = read_ranges()
    unit = np.random.default_rng(0).random((20, len(space)))
    training = space.unit_to_physical(unit)
    assert np.allclose(nearest_distance(space, training[:3], training), 0.0, atol=1e-6)
    near = unit[:1].copy()
    near[0, 2] += 0.1 if near[0, 2] < 0.5 else -0.1
    assert nearest_distance(space, space.unit_to_physical(near), training)[0] == pytest.approx(
        0.1 / np.sqrt(len(space)), rel=1e-5
    )


def test_training_leaves_errors_of_unseen_runs(trained):
    _, out = trained
    errors = load_errors(out)
    assert errors.error.shape == (1, 1096 - 180, 4) and errors.parameters.shape == (1, 5)
    assert str(errors.dates[0]) == "2015-06-30"
    summary = errors.summary
    assert summary["test_period"] == ["2017-01-01", "2017-12-31"] and "autocorrelation" in summary["meaning"]
    for i, name in enumerate(TARGETS):
        flux = summary["fluxes"][name]
        assert flux["sd"] == pytest.approx(np.sqrt((errors.error[..., i].astype(float) ** 2).mean()), rel=1e-5)
        assert len(flux["autocorrelation"]) == 366


# ---- evaluate_model.py -----------------------------------------------------------------------------------------------


def test_script_writes_the_contract_table_beside_baselines(trained):
    data, out = trained
    done = script("evaluate_model.py", "--artifacts-dir", out, "--window-stride", 60)
    assert done.returncode == 0, done.stderr
    evaluation = json.loads((out / "evaluation.json").read_text())
    assert set(evaluation) == {"seen", "unseen"}
    for split in evaluation.values():
        assert set(split) == set(TARGETS)
        for metrics in split.values():
            assert set(skill.METRICS) <= set(metrics) and set(metrics["baselines"]) == set(NAMES)
            assert all(np.isfinite(metrics[name]) for name in skill.METRICS)
            assert all(set(row) == set(skill.METRICS) for row in metrics["baselines"].values())
    for name in ("scatter_seen", "scatter_unseen", "nep_series", "rmse", "lead_time"):
        assert (out / f"evaluation_{name}.png").stat().st_size > 5000
    worst = pd.read_csv(out / "evaluation_worst_runs.csv")
    assert (
        list(worst.columns[-5:]) == ["tree_pmax", "tree_lue", "soil_sr_lf", "my_parameter", "c3_sla"]
        and len(worst) == 1
    )
    table = pd.read_csv(out / "evaluation.csv")
    assert len(table) == 2 * 4 * (1 + len(NAMES))
    assert pd.read_csv(out / "evaluation_lead_time.csv")["lead_days"].iloc[-1] >= 365


def test_scores_are_those_of_the_emulator_on_the_test_year(trained):
    from calibration.emulator.trained import load_emulator
    from calibration.ensembles.files import load_ensemble

    data, out = trained
    script("evaluate_model.py", "--artifacts-dir", out, "--window-stride", 60, "--no-figures")
    emulator, ensemble = load_emulator(out), load_ensemble(data)
    run = int(np.flatnonzero(ensemble.sample_ids == emulator.config["data"]["unseen_sample_ids"][0])[0])
    first = int(np.flatnonzero(ensemble.dates == np.datetime64("2017-01-01"))[0])
    predicted = emulator.predict(ensemble.parameters[run], ensemble.dynamic[first - 180 :])[0]
    expected = np.sqrt(((predicted - ensemble.fluxes[run, first:]).astype(float) ** 2).mean(axis=0))
    evaluation = json.loads((out / "evaluation.json").read_text())["unseen"]
    assert np.allclose([evaluation[name]["rmse"] for name in TARGETS], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: write_ensemble(root, tiny_ensemble(seed=9)), "not the ensemble that"),
        (lambda root: write_ensemble(root, tiny_ensemble(runs=4)), "is missing"),
        (lambda root: root / "nothing", "no ensemble there"),
    ],
)
def test_another_ensemble_is_refused(trained, tmp_path, make, message):
    _, out = trained
    done = script(
        "evaluate_model.py",
        "--artifacts-dir",
        out,
        "--data-dir",
        make(tmp_path / "other"),
        "--output-dir",
        tmp_path / "o",
    )
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "o").exists()
