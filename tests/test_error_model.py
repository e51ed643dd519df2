"""Error model and judgement: covariances, estimated parts, baselines, conflict, verdict."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from calibration.common.parameters import make_space
from calibration.common.scalers import Scaler
from calibration.emulator.error import EmulatorErrors
from calibration.inversion.config import ErrorModelConfig
from calibration.inversion.data import Observations, stretch_from_arrays
from calibration.inversion.emulator_covariance import emulator_covariance, restless_errors
from calibration.inversion.error_estimation import estimate_hyper
from calibration.inversion.error_model import SCALE_SPREAD, make_error_model, run_scale
from calibration.judgement.fit import (
    Conflict,
    climatology_baseline,
    prior_conflict,
    residual_autocorrelation,
    scores,
    skill_table,
    verdict,
)  # fmt: skip
from inverse_estimator import StaticParameterInverter

START = np.datetime64("2012-01-01")


def observations(days: int, targets=("nep",), value=None, sd=None, seed=0) -> Observations:
    count = days * len(targets)
    rng = np.random.default_rng(seed)
    day = np.tile(np.arange(days), len(targets))
    return Observations(
        rng.standard_normal(count) if value is None else value,
        np.full(count, np.nan) if sd is None else np.full(count, sd),
        np.zeros(count, dtype=int), day, np.repeat(np.arange(len(targets)), days), START + day, tuple(targets),
    )  # fmt: skip


def correlated(runs: int, days: int, sd: float, memory: float, seed: int) -> np.ndarray:
    """AR(1) series (run, day) with standard deviation sd and lag-1 correlation `memory`."""
    rng = np.random.default_rng(seed)
    series = np.empty((runs, days))
    series[:, 0] = rng.standard_normal(runs)
    for day in range(1, days):
        series[:, day] = memory * series[:, day - 1] + np.sqrt(1 - memory**2) * rng.standard_normal(runs)
    return sd * series


def error_sample(runs=300, days=400, sd=0.002, memory=0.8, seed=1) -> EmulatorErrors:
    nep = correlated(runs, days, sd, memory, seed)
    error = np.stack([2 * nep, nep, nep, 0 * nep], axis=-1).astype(np.float32)
    return EmulatorErrors(START + np.arange(days), error)


def test_emulator_covariance_has_the_sample_variance_and_autocorrelation():
    covariance = emulator_covariance(error_sample(), observations(100))
    assert np.diag(covariance).mean() == pytest.approx(0.002**2, rel=0.1)
    lag_one = np.diag(covariance, 1).mean() / np.diag(covariance).mean()
    assert lag_one == pytest.approx(0.8, abs=0.05)
    assert np.linalg.eigvalsh(covariance).min() > -1e-15


def test_days_outside_the_sample_use_the_stationary_covariance():
    sample = error_sample()
    far = observations(60)
    far = Observations(
        far.value, far.sd, far.stretch, far.day, far.target, far.date + np.timedelta64(900, "D"), ("nep",)
    )
    covariance = emulator_covariance(sample, far)
    for lag in (0, 1, 10):  # the same value all along each diagonal
        assert np.ptp(np.diag(covariance, lag)) < 1e-18
    assert covariance[0, 0] == pytest.approx(0.002**2, rel=0.1)


def test_er_is_gpp_minus_nep_in_the_emulator_covariance():
    sample = error_sample()  # GPP error = 2 x NEP error, so ER error = NEP error
    covariance = emulator_covariance(sample, observations(20, ("nep", "er")))
    np.testing.assert_allclose(covariance[:20, :20], covariance[20:, 20:], rtol=1e-5)
    np.testing.assert_allclose(covariance[:20, :20], covariance[:20, 20:], rtol=1e-5)


def test_white_errors_count_fully_and_correlated_ones_do_not():
    config = ErrorModelConfig(observation_sd=0.001, discrepancy=False)
    white = make_error_model(observations(200), None, config).shares()["nep"]
    assert white["effective_observations"] == pytest.approx(200, rel=1e-6)
    assert white["observation_share"] == pytest.approx(1.0)
    slow = make_error_model(observations(200), error_sample(memory=0.95), config).shares()["nep"]
    assert slow["effective_observations"] < 40
    assert slow["emulator_share"] == pytest.approx(0.8, abs=0.05)
    assert sum(slow[f"{part}_share"] for part in ("observation", "emulator", "discrepancy")) == pytest.approx(1.0)


def test_given_daily_errors_are_used_and_missing_ones_estimated():
    given = observations(300)
    sd = np.where(np.arange(300) < 100, 0.5, np.nan)
    rng = np.random.default_rng(3)
    value = rng.standard_normal(300) * np.where(np.isfinite(sd), 0.5, 0.02)
    given = Observations(value, sd, given.stretch, given.day, given.target, given.date, given.targets)
    model = make_error_model(given, None, ErrorModelConfig(discrepancy=False))
    model = estimate_hyper(model, value, np.zeros((300, 1)))
    np.testing.assert_allclose(model.observation_variance[:100], 0.25)
    assert np.sqrt(model.observation_variance[150]) == pytest.approx(0.02, rel=0.15)


def test_noise_and_slow_misfit_are_told_apart():
    """White noise 0.005 plus a discrepancy of 0.01 with 20 days memory: both are found from residuals."""
    noise = 0.005 * np.random.default_rng(8).standard_normal(500)
    slow = correlated(1, 500, 0.01, np.exp(-1 / 20), 9)[0]
    data = observations(500, value=noise + slow)
    model = estimate_hyper(make_error_model(data, None, ErrorModelConfig()), data.value, np.zeros((500, 1)))
    assert model.hyper.observation_sd[0] == pytest.approx(0.005, rel=0.2)
    assert model.hyper.discrepancy_sd[0] == pytest.approx(0.01, rel=0.5)
    clean = observations(500, value=noise)
    model = estimate_hyper(make_error_model(clean, None, ErrorModelConfig()), clean.value, np.zeros((500, 1)))
    assert model.hyper.discrepancy_sd[0] < 0.0015


def test_a_worse_emulator_than_measured_is_noticed():
    data = observations(300, value=correlated(1, 300, 0.006, 0.8, 4)[0], sd=0.0005)
    model = make_error_model(data, error_sample(), ErrorModelConfig(discrepancy=False))
    model = estimate_hyper(model, data.value, np.zeros((300, 1)))
    assert 1.8 < model.hyper.emulator_scale < 3.5  # truly 3, held back by the prior around 1


def test_heavy_tails_of_unseen_runs_set_the_prior_of_the_emulators_scale():
    """Most runs are predicted better than the rms error says: a factor exp(spread x normal) on each run's error."""
    sample, spread = error_sample(days=200), 0.7
    factors = np.exp(spread * np.random.default_rng(2).standard_normal(sample.runs))
    heavy = EmulatorErrors(sample.dates, sample.error * factors[:, None, None].astype(np.float32))
    centre, sd = run_scale(heavy, "nep")
    assert centre == pytest.approx(-(spread**2), abs=0.15) and sd == pytest.approx(spread, abs=0.12)
    even, narrow = run_scale(sample, "nep")
    assert abs(even) < 0.05 and narrow == SCALE_SPREAD
    assert run_scale(EmulatorErrors(heavy.dates, heavy.error[:5]), "nep") == (0.0, SCALE_SPREAD)
    model = make_error_model(observations(60), heavy, ErrorModelConfig())
    assert model.hyper.emulator_scale == pytest.approx(np.exp(centre))


def test_no_slow_misfit_is_invented_for_white_noise():
    found = []
    for seed in range(10):
        given = observations(60, value=0.005 * np.random.default_rng(seed).standard_normal(60), sd=0.005)
        model = estimate_hyper(make_error_model(given, None, ErrorModelConfig()), given.value, np.zeros((60, 1)))
        found.append(model.hyper.discrepancy_sd[0])
    assert np.median(found) < 1e-4, found


def test_gradient_of_the_marginal_likelihood(monkeypatch):
    """The analytic gradient that the optimiser gets equals finite differences of the value."""
    from calibration.inversion import error_estimation

    sizes = []

    def check(function, x0, jac, method, bounds, options):
        point = np.asarray(x0) + 0.1
        value, gradient = function(point)
        steps = 1e-5 * np.eye(len(point))
        numeric = [(function(point + s)[0] - function(point - s)[0]) / 2e-5 for s in steps]
        np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-4)
        sizes.append(len(point))
        return type("Result", (), {"x": point, "fun": value})

    monkeypatch.setattr(error_estimation, "minimize", check)
    data = observations(60, ("nep", "gpp"), value=0.01 * np.random.default_rng(0).standard_normal(120))
    model = make_error_model(data, error_sample(), ErrorModelConfig())
    jacobian = 0.002 * np.random.default_rng(1).standard_normal((120, 3))
    estimate_hyper(model, data.value, jacobian)
    assert sizes == [2 + 1 + 2 + 1, 2 + 1]  # with a discrepancy of each flux and its time, and without


@pytest.mark.parametrize(("days", "slow_sd", "wanted"), [(30, 0.0, False), (365, 0.0, False), (365, 0.006, True)])
def test_a_discrepancy_needs_evidence(days, slow_sd, wanted):
    """White noise of the known sd suggests none (8 data sets); a slow misfit is found in every one."""
    found = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        slow = slow_sd * np.convolve(rng.standard_normal(days + 40), np.ones(40) / np.sqrt(40), "valid")[:days]
        data = observations(days, ("nep",), value=slow + 0.005 * rng.standard_normal(days), sd=0.005)
        model = make_error_model(data, None, ErrorModelConfig())
        found.append(estimate_hyper(model, data.value, np.zeros((days, 1))).hyper.discrepancy_sd[0] > 0)
    assert all(found) if wanted else not any(found), found


def test_a_misfit_that_only_the_linear_model_explains_keeps_the_discrepancy():
    """A constant misfit that the Jacobian could remove, but that the fit left: noise does not explain it."""
    rng = np.random.default_rng(0)
    misfit = 0.02 + 0.005 * rng.standard_normal(30)
    data = observations(30, ("nep",), value=misfit, sd=0.005)
    model = make_error_model(data, None, ErrorModelConfig())
    jacobian = np.full((30, 1), 0.02)  # one prior sd would remove it
    assert estimate_hyper(model, misfit, jacobian).hyper.discrepancy_sd[0] == 0
    assert estimate_hyper(model, misfit, jacobian, misfit - 0.02).hyper.discrepancy_sd[0] == 0
    assert estimate_hyper(model, misfit, jacobian, misfit).hyper.discrepancy_sd[0] > 0


def test_target_weights_divide_the_variance():
    config = ErrorModelConfig(observation_sd=0.001, discrepancy=False)
    plain = make_error_model(observations(5, ("nep", "gpp")), None, config).covariance()
    weighted = make_error_model(observations(5, ("nep", "gpp")), None, config, [1.0, 4.0]).covariance()
    np.testing.assert_allclose(np.diag(weighted), np.diag(plain) / np.repeat([1, 4], 5))


# --- judgement --------------------------------------------------------------------------------------------------------


def test_scores_of_known_series():
    observed = np.array([1.0, 2.0, 3.0, 4.0])
    perfect = scores(observed, observed)
    assert perfect["rmse"] == 0 and perfect["r2"] == 1 and perfect["correlation"] == pytest.approx(1)
    mean = scores(observed, np.full(4, 2.5))
    assert mean["r2"] == 0 and mean["rmse"] == pytest.approx(np.sqrt(1.25)) and np.isnan(mean["correlation"])
    assert scores(observed, observed + 1)["bias"] == 1
    assert np.isnan(scores(np.ones(3), np.ones(3))["r2"])


def test_baselines_are_fitted_on_fitted_days_only():
    dates = START + np.arange(730)
    season = 0.02 * np.sin(2 * np.pi * np.arange(730) / 365.25)
    fitted = np.arange(730) < 365
    table = skill_table(dates, season, fitted, {"optimized": season})
    assert table.loc[("holdout", "optimized"), "rmse"] == 0
    assert table.loc[("holdout", "climatology"), "rmse"] < 0.003
    assert table.loc[("holdout", "constant"), "rmse"] == pytest.approx(0.02 / np.sqrt(2), rel=0.02)
    moved = climatology_baseline(dates[:365], season[:365], dates[:365] + np.timedelta64(365, "D"))
    np.testing.assert_allclose(moved[:300], climatology_baseline(dates[:365], season[:365], dates[:300]), atol=1e-3)


def test_residual_autocorrelation_skips_gaps():
    series = correlated(1, 3000, 1.0, 0.7, 5)[0]
    keep = np.random.default_rng(0).random(3000) > 0.3
    found = residual_autocorrelation((START + np.arange(3000))[keep], series[keep])
    assert found[1] == pytest.approx(0.7, abs=0.06)
    assert abs(found[30]) < 0.1


def test_conflict_is_found_by_month_and_absent_when_the_prior_agrees():
    rng = np.random.default_rng(2)
    dates = START + np.arange(91)
    flux = 0.01 * rng.standard_normal((200, 1)) + np.zeros((200, 91))
    noisy = flux + 0.005 * rng.standard_normal((200, 91))
    agreeing = noisy[0]
    good = prior_conflict(dates, agreeing, noisy[1:], flux[1:])
    assert not good.exists and good.months == []
    shifted = agreeing.copy()
    shifted[31:60] += 0.06  # February only
    bad = prior_conflict(dates, shifted, noisy[1:], flux[1:])
    assert bad.months == ["2012-02"] and bad.exists
    assert list(bad.table["days"]) == [31, 29, 31]


def _table(r2: float) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples([("fitted", "optimized")])
    return pd.DataFrame([{"r2": r2, "rmse": 0.01}], index=index)


def test_verdict_has_three_outcomes():
    none = Conflict(pd.DataFrame({"month": [], "conflict": []}), 0.04, 0.5)
    assert verdict(_table(0.8), none, ["tree_pmax"], [], 0.0).startswith("FITS AND IS INFORMATIVE")
    assert "tree_pmax" in verdict(_table(0.8), none, ["tree_pmax"], [], 0.0)
    assert verdict(_table(0.8), none, [], [], 0.0).startswith("FITS BUT IS UNINFORMATIVE")
    assert verdict(_table(-0.2), none, ["a"], [], 0.0).startswith("CONFLICTS WITH THE MODEL")
    far = Conflict(pd.DataFrame({"month": [], "conflict": []}), 0.6, 11.0)
    assert verdict(_table(0.8), far, ["a"], [], 0.0).startswith("CONFLICTS WITH THE MODEL")
    assert verdict(_table(0.8), none, ["a"], ["p", "q", "r"], 0.0).startswith("CONFLICTS WITH THE MODEL")
    assert verdict(_table(0.8), none, ["a"], [], 0.8).startswith("CONFLICTS WITH THE MODEL")
    # Slow misfit of the size of the emulator's own error is the emulator's, not the model's.
    assert verdict(_table(0.8), none, ["a"], [], 0.8, discrepancy_ratio=1.5).startswith("FITS AND IS INFORMATIVE")


class _Forest(torch.nn.Module):
    """NEP = 0.01 a, whatever the day; GPP 0.1 Mg C ha-1 day-1."""

    def simulate(self, static_x, dynamic_x, warmup):
        nep = 0.01 * static_x[:, :1].expand(-1, dynamic_x.shape[-2] - warmup)
        gpp = torch.full_like(nep, 0.1)
        return torch.stack([gpp, 0.4 * gpp, nep, 0.4 * gpp - nep], dim=-1)


@pytest.mark.parametrize(("truth", "sd", "words"), [(0.05, 0.0042, 0), (3.0, 0.01, 1)])
def test_a_forest_that_is_not_at_rest_has_the_error_of_its_kind(truth, sd, words):
    rng, days = np.random.default_rng(2), 40
    rest = np.arange(36) < 30
    a = np.where(rest, 0.1, 3.0) * rng.standard_normal(36)
    error = correlated(36, days, 1.0, 0.5, seed=3) * np.where(rest, 0.001, 0.01)[:, None]
    sample = EmulatorErrors(
        START + np.arange(days), np.repeat(error[..., None], 4, axis=2).astype(np.float32), a[:, None], at_rest=rest
    )
    space = make_space([("a", -5.0, 5.0)], "test")
    static, dynamic = Scaler(("a",), np.zeros(1), np.ones(1)), Scaler(("x",), np.zeros(1), np.ones(1))
    config = {"bounds_file": "emulator", "error_model": {"observation_sd": 0.001, "discrepancy": False}}
    inverter = StaticParameterInverter(_Forest(), static, dynamic, config, space=space, errors=sample)
    y = np.zeros((days, 4))
    y[:, 2] = 0.01 * truth + 0.001 * rng.standard_normal(days)
    stretch = stretch_from_arrays(np.zeros((5, 1)), np.zeros((days, 1)), y, np.ones(days), start=START)
    result = inverter.invert_stretches(np.zeros(1), [stretch])
    assert result.optimized[0] == pytest.approx(truth, abs=1.0)
    assert np.sqrt(np.diag(result.problem.error_model.emulator).mean()) == pytest.approx(sd, rel=0.3)
    assert sum("not at rest" in note for note in result.notes) == words


def test_too_few_restless_runs_have_no_error_of_their_own():
    sample = error_sample(runs=20, days=10)
    assert restless_errors(None) is None and restless_errors(sample) is None
    assert restless_errors(replace(sample, at_rest=np.arange(20) >= 4)) is None
    assert restless_errors(replace(sample, at_rest=np.arange(20) >= 5)).runs == 5
