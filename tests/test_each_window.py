"""test_inversion.py --each-window: the test of change on known answers, the script on a tiny emulator, bad input."""

import numpy as np
import pandas as pd
import pytest
from script_calls import script

from calibration.ensembles.files import load_ensemble
from calibration.weather.daily import Weather, write_weather_csv
from calibration.workflows.window_changes import ALPHA, change_test, separate_windows

WINDOWS, DAYS, SIZE, DRAWS = 8, 30, 6, 1500


def linear_windows(rng, slopes, truth):
    """Posterior means and covariances of windows with slopes (window, day, size), unit noise, prior N(0, 1).

    truth: (draw, window, size). Returns (draw, window, size) and (window, size, size).
    """
    noise = rng.standard_normal((len(truth), *slopes.shape[:2]))
    observed = np.einsum("wds,kws->kwd", slopes, truth) + noise
    covariance = np.linalg.inv(np.einsum("wds,wdt->wst", slopes, slopes) + np.eye(slopes.shape[2]))
    return np.einsum("wst,wdt,kwd->kws", covariance, slopes, observed), covariance


def alarms(means, covariance, candidates):
    """(draw, candidate) bool at ALPHA, uncorrected."""
    found = [change_test(mean, covariance, np.zeros(SIZE), candidates) for mean in means]
    return np.array([changes.p[candidates] < ALPHA for changes in found])


@pytest.fixture(scope="module")
def seasonal_slopes():
    """(window, day, size): what a window informs of a parameter comes and goes with the season, and changes sign."""
    rng = np.random.default_rng(3)
    season = np.cos(2 * np.pi * (np.arange(WINDOWS)[:, None] / WINDOWS + np.arange(SIZE) / SIZE))
    return 0.4 * rng.standard_normal((DAYS, SIZE)) + 0.3 * season[:, None, :]


@pytest.mark.parametrize("others", ["constant", "changing"])
def test_false_alarms_are_as_rare_as_stated(seasonal_slopes, others):
    rng = np.random.default_rng(1)
    truth = np.repeat(rng.standard_normal((DRAWS, 1, SIZE)), WINDOWS, axis=1)
    candidates = np.ones(SIZE, dtype=bool)
    if others == "changing":  # of parameter 0 it is said that it does not change, whatever the others do
        truth[:, :, 1:] = rng.standard_normal((DRAWS, WINDOWS, SIZE - 1))
        candidates[1:] = False
    found = alarms(*linear_windows(rng, seasonal_slopes, truth), candidates)
    error = np.sqrt(ALPHA * (1 - ALPHA) / DRAWS)
    assert (found.mean(axis=0) < ALPHA + 3 * error).all() and found.mean() > 0.5 * ALPHA


def test_opposite_pull_of_a_shared_parameter_is_no_change():
    """Two windows whose data know only a + b and a - b: treating b as free in each would sound the alarm too often."""
    rng = np.random.default_rng(2)
    slopes = np.zeros((2, DAYS, SIZE))
    slopes[:, :, 0], slopes[:, :, 1:] = 0.4, 0.4 * np.array([1.0, -1.0])[:, None, None]
    truth = np.repeat(rng.standard_normal((DRAWS, 1, SIZE)), 2, axis=1)
    means, covariance = linear_windows(rng, slopes, truth)
    first = np.eye(SIZE, dtype=bool)[0]
    assert alarms(means, covariance, first).mean() < ALPHA + 3 * np.sqrt(ALPHA / DRAWS)
    variance = covariance[:, 0, 0]
    estimate = means[:, :, 0] / (1 - variance)
    naive = (estimate[:, 0] - estimate[:, 1]) ** 2 / np.sum(variance / (1 - variance))
    assert np.mean(naive > 3.84) > 2 * ALPHA


def test_a_change_is_found_and_laid_to_its_parameter(seasonal_slopes):
    rng = np.random.default_rng(4)
    truth = np.repeat(rng.standard_normal((200, 1, SIZE)), WINDOWS, axis=1)
    truth[:, WINDOWS // 2 :, 2] += 2.0
    found = alarms(*linear_windows(rng, seasonal_slopes, truth), np.ones(SIZE, dtype=bool)).mean(axis=0)
    assert found[2] > 0.9 and np.delete(found, 2).max() < 0.3


def test_the_shared_prior_is_no_agreement():
    """Two windows, one parameter: m = 0.5 and -0.5 with v = 0.5 are x = 1 and -1 of variance 1 without the prior."""
    covariance = np.full((2, 1, 1), 0.5)
    changes = change_test(np.array([[0.5], [-0.5]]), covariance, np.zeros(1), np.array([True]))
    assert changes.statistic[0] == pytest.approx(2.0) and changes.p[0] == pytest.approx(0.1573, abs=1e-4)
    # The prior's mean is where it is: estimates that lie beside it alike do not differ.
    beside = change_test(np.array([[1.5], [0.5]]), covariance, np.ones(1), np.array([True]))
    assert beside.statistic[0] == pytest.approx(2.0)


def test_windows_that_say_nothing_take_no_part():
    covariance = np.array([0.5, 0.999, 0.5])[:, None, None]
    changes = change_test(np.array([[0.5], [3.0], [0.5]]), covariance, np.zeros(1), np.array([True]))
    assert changes.windows[0] == 2 and changes.statistic[0] == pytest.approx(0.0) and not changes.found[0]
    alone = change_test(np.array([[0.5], [3.0]]), covariance[:2], np.zeros(1), np.array([True]))
    assert np.isnan(alone.p[0]) and not alone.found[0]


def test_separate_windows_share_no_day():
    days = np.datetime64("2012-01-01") + np.arange(0, 60, 10)
    order = np.array([3, 0, 5, 1, 4, 2])  # in any order
    chosen = order[separate_windows(days[order], days[order] + np.timedelta64(29, "D"))]
    assert chosen.tolist() == [0, 3]


@pytest.fixture(scope="module")
def windows(tiny_training, tmp_path_factory):
    """A window file of a run that the tiny emulator was trained on: 90 days, windows of 30 from day to day."""
    root = tmp_path_factory.mktemp("windows")
    ensemble = load_ensemble(tiny_training / "data")
    write_weather_csv(root / "w.csv", Weather(ensemble.dates, ensemble.dynamic, "test"))
    days = pd.Series(ensemble.dates[-90:]).dt.strftime("%Y-%m-%d")
    nep = ensemble.fluxes[0, -90:, 2].astype(np.float64)
    table = {"date": days, "nee_gcm2": -100 * nep, "nee_source": "NEE", "nee_qc": 0.0, "nep_mg_ha": nep, "obs_mask": 1}
    pd.DataFrame(table).to_csv(root / "nep.csv", index=False)
    made = script(
        "build_observation_windows.py", "--daily", root / "w.csv", "--obs", root / "nep.csv", "--artifacts-dir",
        tiny_training / "artifacts", "--output", root / "w.npz", "--start", days.iloc[0], "--end", days.iloc[-1],
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return ["--obs-npz", root / "w.npz", "--data-dir", tiny_training / "data", "--artifacts-dir",
            tiny_training / "artifacts", "--starts", 1]  # fmt: skip


def test_every_window_has_its_estimate_and_the_summary_its_verdict(windows, tmp_path):
    done = script("test_inversion.py", "--each-window", *windows, "--obs-range-step", 30, "--result-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "each_window.csv")
    assert table["window"].nunique() == 3 and (table["valid_days"] == 30).all()
    assert (table["low_90"] <= table["high_90"]).all() and (table["rmse"] >= 0).all()
    test = pd.read_csv(tmp_path / "each_window_test.csv")
    assert set(test["param_name"]) == set(table["param_name"]) and (test["windows"] <= 3).all()
    verdict = (tmp_path / "each_window_summary.txt").read_text().splitlines()[0]
    assert verdict.split(":")[0] in ("CHANGES ALONG TIME", "NO CHANGE SHOWN", "NOT TESTED") and verdict in done.stdout
    assert (tmp_path / "each_window.png").stat().st_size > 5000 and (tmp_path / "test_inversion_record.json").is_file()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--obs-index", 1], "--obs-index belongs to one inversion"),
        (["--verify"], "--verify belongs to one inversion"),
        (["--refine", 20], "--refine belongs to one inversion"),
        (["--report"], "--report belongs to one inversion"),
        (["--posterior", "mcmc"], "leave out posterior mcmc"),
        (["--mode", "simulation"], "leave out --model, --mode"),
        (["--model", "simulator"], "leave out --model, --mode"),
    ],
)
def test_flags_of_one_inversion_are_refused(windows, tmp_path, more, words):
    done = script("test_inversion.py", "--each-window", *windows, *more, "--result-dir", tmp_path / "out")
    assert done.returncode == 2 and words in done.stderr and not (tmp_path / "out").exists()
