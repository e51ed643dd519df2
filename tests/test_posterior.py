"""Posteriors against known ones: linear-Gaussian, by quadrature, with several fluxes, of days in a gap."""

from types import SimpleNamespace

import arviz
import numpy as np
import pytest
import torch
from linear_emulator import (
    NOISE,
    QUIET,
    TRUTH,
    UNBOUNDED,
    LinearEmulator,
    design_matrix,
    inverter,
    problem,
    scalers,
    window_data,
)

from calibration.common.command_line import UserError
from calibration.inversion import mcmc, randomized_likelihood
from calibration.inversion.posterior import save_arviz
from calibration.inversion.randomized_likelihood import Mode, metropolis, randomized_minima


def analytic_posterior(model, future, y):
    """Mean and covariance of the scaled parameters with a standard normal prior."""
    design = design_matrix(model, future[0])
    covariance = np.linalg.inv(design.T @ design / NOISE**2 + np.eye(3))
    return covariance @ design.T @ y[0, :, 2] / NOISE**2, covariance


@pytest.mark.parametrize("method", ["gauss_newton", "adam"])
def test_linear_gaussian_posterior_is_exact(method):
    model = LinearEmulator()
    context, future, y, mask = problem(model)
    static, _ = scalers()
    config = {**UNBOUNDED, "method": method, "samples": 20000, "lr": 0.1, "max_iters": 600}
    estimate, info = inverter(model, config).invert(static.mean, context, future, y, mask)
    mean, covariance = analytic_posterior(model, future, y)
    sd = np.sqrt(np.diag(covariance))
    assert np.abs((estimate - static.mean) / static.scale - mean).max() < 0.01 * sd.min()
    posterior = info["posterior"]
    np.testing.assert_allclose(posterior.covariance, covariance, rtol=1e-3)
    np.testing.assert_allclose(posterior.latent.std(axis=0), sd, rtol=0.03)


def sampled(**config):
    """Info of an inversion of the linear emulator with --posterior mcmc, the true mean and covariance."""
    model = LinearEmulator()
    context, future, y, mask = problem(model)
    static, _ = scalers()
    asked = inverter(model, {**UNBOUNDED, "posterior": "mcmc", **config})
    _, info = asked.invert(static.mean, context, future, y, mask)
    return (info, *analytic_posterior(model, future, y))


def test_mcmc_agrees_with_the_analytic_posterior_and_says_how_it_converged(tmp_path):
    info, mean, covariance = sampled()
    posterior, sd = info["posterior"], np.sqrt(np.diag(covariance))
    assert posterior.diagnostics.converged and posterior.method == "MCMC"
    assert posterior.diagnostics.effective.min() >= 400 and posterior.diagnostics.r_hat.max() < 1.01
    assert (np.abs(posterior.latent.mean(axis=0) - mean) < 0.15 * sd).all()  # three standard errors of 400 samples
    np.testing.assert_allclose(posterior.latent.std(axis=0), sd, rtol=0.11)
    assert any("MCMC converged" in note for note in info["notes"])
    dates = np.datetime64("2020-01-01") + np.arange(2)
    save_arviz(tmp_path / "posterior.nc", posterior, {"true_nep": np.zeros((4, 2))}, dates, {"nep": np.zeros(2)})
    read = arviz.from_netcdf(tmp_path / "posterior.nc").posterior
    assert read.sizes["chain"] == 4 and read.attrs["converged"] == 1
    assert (arviz.rhat(read).to_array() < 1.05).all()


def test_chains_that_have_no_time_leave_the_draws(monkeypatch):
    info, _, _ = sampled(mcmc_minutes=1e-4)  # not even tempering ends
    plain, _, _ = sampled(posterior="draws")
    np.testing.assert_array_equal(info["posterior"].latent, plain["posterior"].latent)
    assert any("TEMPERING NOT FINISHED, the randomized draws stand" in note for note in info["notes"])
    assert not any("MCMC" in note for note in info["notes"])
    monkeypatch.setattr(mcmc, "EFFECTIVE", 10**7)  # this posterior is so easy that forty steps would do
    monkeypatch.setattr(mcmc.Chains, "run", lambda self, seconds, say, run=mcmc.Chains.run: run(self, 0.01, say))
    info, _, _ = sampled()
    assert not info["posterior"].diagnostics.converged and info["posterior"].chains is None
    assert info["posterior"].method == "tempered"
    assert any("MCMC NOT CONVERGED, the draws before it stand" in note for note in info["notes"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"mcmc_minutes": 0.0}, "mcmc_minutes is 0.0, allowed is a number above 0"),
        ({"posterior": "nuts"}, "posterior is 'nuts', allowed is draws, tempered, mcmc"),
        ({"method": "ensemble"}, "posterior is 'mcmc', allowed is draws with method ensemble"),
        ({"lambda_prior": 0.1}, "posterior is 'mcmc', allowed is draws where lambda_prior is a number"),
    ],
)
def test_what_mcmc_cannot_be_asked_for(config, message):
    with pytest.raises(UserError, match=message):
        sampled(**config)


def test_ensemble_method_agrees_with_the_analytic_posterior():
    model = LinearEmulator()
    context, future, y, mask = problem(model)
    static, _ = scalers()
    config = {**UNBOUNDED, "method": "ensemble", "ensemble": {"members": 1000, "iterations": 3}}
    _, info = inverter(model, config).invert(static.mean, context, future, y, mask)
    mean, covariance = analytic_posterior(model, future, y)
    samples = info["posterior"].latent
    sd = np.sqrt(np.diag(covariance))
    assert (np.abs(samples.mean(axis=0) - mean) < 0.15 * sd).all()
    np.testing.assert_allclose(samples.std(axis=0), sd, rtol=0.15)


def test_offset_is_estimated_along():
    model = LinearEmulator()
    context, future, y, mask = problem(model)
    y[0, :, 2] += 0.02
    static, _ = scalers()
    config = {**UNBOUNDED, "nuisance": "offset"}
    estimate, info = inverter(model, config).invert(static.mean, context, future, y, mask)
    assert info["offsets"]["nep"] == pytest.approx(0.02, abs=4 * NOISE / np.sqrt(60))
    np.testing.assert_allclose((estimate - static.mean) / static.scale, TRUTH, atol=0.5)


def test_several_targets_sharpen_the_posterior_and_er_is_gpp_minus_nep():
    model = LinearEmulator()
    context, future, y, mask = problem(model)
    nep = y[0, :, 2].copy()
    y[0] = np.stack([2 * nep, 3 * nep, nep, 2 * nep], axis=-1)
    static, _ = scalers()
    ratios = []
    for target in ("nep", "nep,gpp,er"):
        _, info = inverter(model, {**UNBOUNDED, "target_variable": target}).invert(
            static.mean, context, future, y, mask
        )
        ratios.append(np.sqrt(np.diag(info["posterior"].covariance)))
    observations = info["result"].problem.observations
    np.testing.assert_allclose(observations.value[observations.of("er")], nep)
    np.testing.assert_allclose(
        ratios[1] / ratios[0], np.sqrt(1 / 6), rtol=0.1
    )  # weights 1 + 4 + 1 when the prior is weak


def test_starts_that_disagree_are_called_multimodal():
    class TwoValleys(LinearEmulator):
        def simulate(self, static_x, dynamic_x, warmup):
            return super().simulate(static_x.square() - 1, dynamic_x, warmup)

    model = TwoValleys()
    context, future = window_data(60)
    y = np.zeros((1, 60, 4))  # both +1 and -1 fit each parameter
    static, _ = scalers()
    config = {**UNBOUNDED, "starts": 12}
    _, info = inverter(model, config).invert(static.mean + 0.1 * static.scale, context, future, y, np.ones((1, 60)))
    assert info["multimodal"]
    assert any("multimodal" in note and "--posterior tempered says more" in note for note in info["notes"])
    assert len(info["result"].posterior.modes) > 2


def test_the_true_flux_between_observed_days_is_predicted_from_the_correlated_error():
    """Predictive draws of days in a gap follow the conditional normal of a correlated emulator error."""
    from dataclasses import replace

    from calibration.emulator.error import EmulatorErrors
    from calibration.inversion.posterior import predictive_samples

    model = LinearEmulator()
    context, future, y, mask = problem(model, days=60, noise=0.0)
    static, _ = scalers()
    rng = np.random.default_rng(0)
    runs = 400  # errors that are constant in time: what is wrong on observed days is as wrong in the gap
    error = np.zeros((runs, 400, 4), dtype=np.float32)
    error[:, :, 2] = 0.01 * rng.standard_normal((runs, 1))
    sample = EmulatorErrors(np.datetime64("2012-01-01") + np.arange(400), error)
    y[0, :, 2] += 0.015  # the emulator is wrong by a constant
    mask[0, 20:40] = 0
    config = {"clip_raw_params": {"enabled": False}, "error_model": {"observation_sd": 0.001, "discrepancy": False}}
    _, info = inverter(model, config, errors=sample).invert(
        static.mean, context, future, y, mask, window_start=["2012-01-01"]
    )
    result = info["result"]
    latent = np.repeat(result.fit.u[None], 400, axis=0)
    draws = predictive_samples(result.problem, sample, latent, "nep", 1)
    gap = draws[:, 20:40]
    np.testing.assert_allclose(gap.mean(axis=0), y[0, 20:40, 2], atol=0.001)
    assert gap.std(axis=0).max() < 0.002, "the observed days pin the constant down"
    nothing = replace(result.problem.error_model, emulator=None)
    result.problem.set_error_model(nothing)
    plain = predictive_samples(result.problem, None, latent, "nep", 1)
    assert np.abs(plain[0, 20:40] - y[0, 20:40, 2]).mean() > 0.01


def test_randomized_minima_bend_the_posterior_towards_the_exact_one():
    """Exact by quadrature: a model with a cubic bend, three parameters, wide posterior."""
    curvature, noise = 0.5, 0.03
    model = LinearEmulator(curvature=curvature)
    context, future = window_data(30)
    design, static = design_matrix(model, future[0]), scalers()[0]

    def bent(scaled):
        return scaled + curvature * scaled**3

    y = np.zeros((1, 30, 4))
    y[0, :, 2] = design @ bent(np.array([0.9, -0.4, 0.6])) + noise * np.random.default_rng(1).standard_normal(30)
    axis = np.linspace(-4, 4, 61)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    log = -0.5 * np.sum((y[0, :, 2] - bent(grid) @ design.T) ** 2, axis=1) / noise**2 - 0.5 * np.sum(grid**2, axis=1)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = weight @ grid
    sd = np.sqrt(weight @ (grid - mean) ** 2)
    misfit = weight @ np.sum((y[0, :, 2] - bent(grid) @ design.T) ** 2, axis=1)
    distance = []
    for draws in (0, 128):
        config = {**UNBOUNDED, "error_model": {**QUIET["error_model"], "observation_sd": noise}}
        config |= {"randomized_draws": draws, "samples": 4000}
        _, info = inverter(model, config).invert(static.mean, context, future, y, np.ones((1, 30)))
        samples = info["posterior"].latent
        shift = np.abs((samples.mean(axis=0) - mean) / sd).max()
        distance.append((shift, np.abs(samples.std(axis=0) / sd - 1).max()))
    assert distance[1][0] < distance[0][0] and distance[1][1] < distance[0][1], distance
    assert distance[1][0] < 0.3 and distance[1][1] < 0.3, distance
    # The samples are the minima: each of them fits the data as well as the posterior says.
    predicted = bent((info["posterior"].physical - static.mean) / static.scale) @ design.T
    assert len(predicted) == 128
    np.testing.assert_allclose(np.sum((y[0, :, 2] - predicted) ** 2, axis=1).mean(), misfit, rtol=0.05)


def narrow_valley(sd: float = 0.05):
    """Two parameters of which the data see only u1 - u0^2 = 0.3, within `sd`: a bent valley."""

    def predict(u):
        return (u[:, 1] - u[:, 0] ** 2)[:, None]

    value = torch.tensor([0.3])

    def costs(u):
        return 0.5 * np.sum(u**2, axis=1) + 0.5 * ((0.3 - predict(u)[:, 0]) / sd) ** 2, predict(u)

    problem = SimpleNamespace(
        latent=SimpleNamespace(limit=4.0), prior=np.zeros(2), value=value, whiten=lambda x: x / sd, costs=costs
    )
    u = np.array([0.0, 0.3 / (1 + sd**2)])  # the lowest cost
    jacobian = np.array([[0.0, 1.0]]) / sd
    factor = np.linalg.inv(np.linalg.cholesky(jacobian.T @ jacobian + np.eye(2))).T
    return problem, Mode(u, costs(u[None])[0][0], predict(u[None])[0], jacobian, factor)


def test_draws_astray_find_their_way_into_a_narrow_valley(monkeypatch):
    problem, mode = narrow_valley()
    axis = np.linspace(-4, 4, 1601)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    weight = np.exp(-problem.costs(grid)[0])
    weight /= weight.sum()
    sd = np.sqrt(weight @ grid**2 - (weight @ grid) ** 2)

    def draws():
        """Share of draws that miss the data by more than 4 sd, and sd of the draws over the exact one."""
        u = randomized_minima(problem, [mode], [400], np.random.default_rng(3))[0]
        misfit = np.abs(0.3 - problem.costs(u)[1][:, 0]) / 0.05
        return (misfit > 4).mean(), np.abs(np.log(u.std(axis=0) / sd)).max()

    astray, apart = draws()
    monkeypatch.setattr(randomized_likelihood, "ROUNDS", 0)
    astray_before, apart_before = draws()
    assert astray_before > 0.04 and apart_before > 0.5, "the valley must be hard for this test to tell anything"
    assert astray < 0.005 and apart < 0.25, (astray, apart)


def test_draws_of_a_linear_model_take_no_steps_further():
    """Where the model is linear the first step is exact, whatever the number of modes that the draws start from."""
    runs = []

    def costs(u):
        runs.append(len(u))
        return 0.5 * np.sum(u**2, axis=1) + 0.5 * ((1.0 - u[:, 0]) / 0.5) ** 2, u[:, :1]

    problem = SimpleNamespace(
        latent=SimpleNamespace(limit=6.0), prior=np.zeros(2), value=torch.tensor([1.0]), whiten=lambda x: x / 0.5,
        costs=costs,
    )  # fmt: skip
    jacobian = np.array([[2.0, 0.0]])
    factor = np.linalg.inv(np.linalg.cholesky(jacobian.T @ jacobian + np.eye(2))).T
    mode = Mode(np.array([0.8, 0.0]), 0.4, np.array([0.8]), jacobian, factor)
    u = randomized_minima(problem, [mode, mode, mode], [60, 0, 40], np.random.default_rng(0))[0]
    assert runs == [100]
    np.testing.assert_allclose(u.mean(axis=0), [0.8, 0.0], atol=1e-9)
    np.testing.assert_allclose(np.cov(u[:60], rowvar=False, bias=True), mode.covariance, atol=1e-6)


def bent_problem(value: list[float], sd: float = 0.3):
    """Two parameters seen through products of them; the problem, its mode, exact mean and sd by quadrature."""

    def predict(u):
        return np.stack([u[:, 0] + 0.6 * u[:, 0] * u[:, 1], u[:, 1] - 0.5 * u[:, 0] ** 2], axis=1)

    def costs(u):
        predicted = predict(u)
        misfit = (np.array(value) - predicted) / sd
        return 0.5 * np.sum(u**2, axis=1) + 0.5 * np.sum(misfit**2, axis=1), predicted

    problem = SimpleNamespace(
        latent=SimpleNamespace(limit=4.0), prior=np.zeros(2), value=torch.tensor(value, dtype=torch.float64),
        whiten=lambda x: x / sd, costs=costs,
    )  # fmt: skip
    axis = np.linspace(-4, 4, 801)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    cost = costs(grid)[0]
    weight = np.exp(-cost)
    weight /= weight.sum()
    u = grid[cost.argmin()]
    difference = 1e-4 * np.eye(2)
    jacobian = (predict(u + difference) - predict(u - difference)).T / 2e-4 / sd
    factor = np.linalg.inv(np.linalg.cholesky(jacobian.T @ jacobian + np.eye(2))).T
    mode, mean = Mode(u, cost.min(), predict(u[None])[0], jacobian, factor), weight @ grid
    return problem, mode, mean, np.sqrt(weight @ (grid - mean) ** 2)


def test_metropolis_steps_bring_bent_draws_to_the_exact_posterior():
    problem, mode, mean, sd = bent_problem([1.0, -1.0])
    before = randomized_minima(problem, [mode], [1500], np.random.default_rng(0))[0]
    after = metropolis(problem, [mode], before, np.random.default_rng(1))
    assert np.abs((before.mean(axis=0) - mean) / sd).max() > 0.2, "the minima must be off or this tells nothing"
    assert np.abs((after.mean(axis=0) - mean) / sd).max() < 0.08  # three sds of 1500 independent draws
    assert np.abs(np.log(after.std(axis=0) / sd)).max() < 0.06


def test_metropolis_steps_are_exact_whatever_the_quadratic_model_is_worth(monkeypatch):
    """A model that was told nothing true proposes badly, and the steps still keep the posterior as it is."""
    problem, mode, mean, sd = bent_problem([1.0, -1.0])
    rng = np.random.default_rng(2)
    everywhere = mode.u + rng.standard_normal((60_000, 2))
    log = -problem.costs(everywhere)[0] + 0.5 * np.sum((everywhere - mode.u) ** 2, axis=1)
    exact = everywhere[rng.choice(len(log), 3000, p=np.exp(log - log.max()) / np.exp(log - log.max()).sum())]
    wrong = lambda self, z: np.ones((len(z), 1))  # noqa: E731  no bends at all
    monkeypatch.setattr(randomized_likelihood._Quadratic, "_products", wrong)
    monkeypatch.setattr(randomized_likelihood, "ASTRAY", 0.0)
    after = metropolis(problem, [mode], exact, np.random.default_rng(3))
    assert (after != exact).any(axis=1).mean() > 0.2
    assert np.abs((after.mean(axis=0) - mean) / sd).max() < 0.08 and np.abs(np.log(after.std(axis=0) / sd)).max() < 0.08


def test_draws_that_are_right_stay_and_take_no_runs():
    problem, mode, _, _ = bent_problem([0.5, 0.5])
    before = randomized_minima(problem, [mode], [400], np.random.default_rng(0))[0]
    after = metropolis(problem, [mode], before, np.random.default_rng(1))
    np.testing.assert_array_equal(after, before)
    few = metropolis(problem, [mode], before[:20], np.random.default_rng(1))
    np.testing.assert_array_equal(few, before[:20])
