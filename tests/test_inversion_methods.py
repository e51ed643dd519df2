"""The inversion against problems whose answer is known: linear-Gaussian posteriors, equal costs, bounds and ties."""

import numpy as np
import pytest
import torch
from linear_emulator import CONTEXT, PARAMETERS, LinearEmulator, design_matrix, scalers, window_data

from canopy_equilibrium import REST, at_rest, read_days
from command_line import UserError
from inverse_estimator import StaticParameterInverter
from parameters import catalogue, make_space
from static_features import LHP_DAY
from units import DYNAMIC_FEATURES

NOISE = 0.004
QUIET = {"error_model": {"observation_sd": NOISE, "emulator": False, "discrepancy": False}}
UNBOUNDED = {**QUIET, "clip_raw_params": {"enabled": False}}
TRUTH = np.array([0.5, -1.0, 0.3])  # scaled


def problem(model, days=60, seed=1, noise=NOISE):
    """Window arrays of one linear problem: context, future, y_obs, mask."""
    context, future = window_data(days)
    nep = design_matrix(model, future[0]) @ TRUTH
    nep = nep + noise * np.random.default_rng(seed).standard_normal(days)
    y = np.zeros((1, days, 4))
    y[0, :, 2] = nep
    return context, future, y, np.ones((1, days))


def inverter(model, config, **options):
    static, dynamic = scalers()
    return StaticParameterInverter(model, static, dynamic, config, "cpu", PARAMETERS, **options)


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


def test_methods_reach_the_same_cost_on_a_bounded_nonlinear_problem():
    model = LinearEmulator(curvature=0.2)
    context, future, y, mask = problem(model, noise=0.02)
    static, _ = scalers()
    space = make_space(
        [(n, m - s, m + s) for n, m, s in zip(PARAMETERS, static.mean, 2 * static.scale, strict=True)], "t"
    )
    costs = {}
    for method in ("gauss_newton", "adam"):
        config = {**QUIET, "bounds_file": "emulator", "method": method, "max_iters": 800, "lr": 0.05}
        estimate, info = inverter(model, config, space=space).invert(static.mean, context, future, y, mask)
        costs[method] = info["best_loss"]
        assert ((estimate > space.lower) & (estimate < space.upper)).all()
    assert costs["adam"] == pytest.approx(costs["gauss_newton"], rel=0.01)


def test_the_contracts_loss_is_minimised_and_reported_at_the_best_iterate():
    """lambda_prior as a number: masked MSE + lambda x mean squared scaled distance, solved by hand."""
    model = LinearEmulator()
    context, future, y, mask = problem(model)
    mask[0, 40:] = 0
    static, _ = scalers()
    design = design_matrix(model, future[0])[:40]
    weight = 0.05
    matrix = design.T @ design / 40 + weight / 3 * np.eye(3)
    expected = np.linalg.solve(matrix, design.T @ y[0, :40, 2] / 40)
    loss = np.mean((y[0, :40, 2] - design @ expected) ** 2) + weight * np.mean(expected**2)
    for method in ("gauss_newton", "adam"):
        config = {"lambda_prior": weight, "method": method, "clip_raw_params": {"enabled": False}, "max_iters": 800}
        estimate, info = inverter(model, config).invert(static.mean, context, future, y, mask)
        np.testing.assert_allclose((estimate - static.mean) / static.scale, expected, atol=2e-3)
        assert info["best_loss"] == pytest.approx(loss, rel=1e-3)
        assert info["best_loss"] == min(info["loss_history"])
        assert info["posterior"] is None


def test_unit_of_the_flux_does_not_matter():
    """Inverting in g C m-2 day-1 (fluxes and errors x 100) gives the same parameters."""
    answers = []
    for unit in (1.0, 100.0):
        model = LinearEmulator(unit=unit)
        context, future, y, mask = problem(model, noise=NOISE * unit)
        static, _ = scalers()
        errors = {"observation_sd": NOISE * unit, "emulator": False, "discrepancy": False}
        config = {"error_model": errors, "clip_raw_params": {"enabled": False}}
        answers.append(inverter(model, config).invert(static.mean, context, future, y, mask)[0])
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5)


def test_default_bounds_are_the_prior_plus_minus_30_percent():
    model = LinearEmulator()
    context, future, y, mask = problem(model)
    y *= 50  # pulls the parameters far away
    static, _ = scalers()
    config = {**QUIET, "method": "gauss_newton"}
    estimate, info = inverter(model, config).invert(static.mean, context, future, y, mask)
    assert (np.abs(estimate / static.mean - 1) <= 0.3 + 1e-9).all()
    assert info["at_bounds"]
    free, _ = inverter(model, config).invert(static.mean, context, future, y, mask, unconstrained=True)
    assert np.abs(free / static.mean - 1).max() > 1.0


def test_ties_hold_and_fixed_parameters_stay():
    model = LinearEmulator()
    context, future, y, mask = problem(model)
    space = make_space([("a", 0.2, "b"), ("b", 1.0, 3.0), ("c", 2.0, 4.0)], "test")
    prior = np.array([0.8, 2.0, 3.0])
    y *= 30
    config = {**QUIET, "bounds_file": "emulator", "samples": 500}
    estimate, info = inverter(model, config, space=space).invert(prior, context, future, y, mask)
    samples = info["posterior"].physical
    assert (samples[:, 0] <= samples[:, 1] + 1e-12).all() and estimate[0] <= estimate[1]
    estimate, info = inverter(model, config, space=space).invert(prior, context, future, y, mask, fix=["a", "c"])
    np.testing.assert_array_equal(estimate[[0, 2]], prior[[0, 2]])
    assert (info["posterior"].physical[:, 1] >= prior[0]).all(), "a fixed tied parameter must stay below its reference"
    with pytest.raises(UserError, match="unknown parameter 'nothing'"):
        inverter(model, config, space=space).invert(prior, context, future, y, mask, free=["nothing"])


def test_bounds_that_exclude_the_prior_are_refused(tmp_path):
    bounds = tmp_path / "bounds.yaml"
    bounds.write_text("parameter_bounds: {a: {min: 0, max: 0.5}, b: {min: 1, max: 3}, c: {min: 2, max: 4}}\n")
    model = LinearEmulator()
    context, future, y, mask = problem(model)
    config = {**QUIET, "bounds_file": str(bounds)}
    with pytest.raises(UserError, match="bounds exclude the prior: a is 1, allowed is 0 to 0.5"):
        inverter(model, config).invert([1.0, 2.0, 3.0], context, future, y, mask)


def test_dropout_is_off_weights_are_frozen_and_the_result_repeats_bitwise():
    model = LinearEmulator().train()
    before = model.mixing.detach().clone()
    context, future, y, mask = problem(model)
    static, _ = scalers()
    first, one = inverter(model, {**UNBOUNDED, "method": "adam"}).invert(static.mean, context, future, y, mask)
    second, two = inverter(model, {**UNBOUNDED, "method": "adam"}).invert(static.mean, context, future, y, mask)
    assert not model.training and not model.mixing.requires_grad and torch.equal(before, model.mixing)
    np.testing.assert_array_equal(first, second)
    assert one["loss_history"] == two["loss_history"]


def test_history_ends_at_the_estimate():
    model = LinearEmulator()
    context, future, y, mask = problem(model)
    static, _ = scalers()
    config = {**UNBOUNDED, "starts": 1}
    estimate, info = inverter(model, config).invert(static.mean, context, future, y, mask, record_history=True)
    np.testing.assert_allclose(info["param_history"][-1], estimate)
    np.testing.assert_allclose(info["param_history"][0], static.mean)
    assert info["prediction_optimized"].shape == (1, 60, 4)
    assert np.all(np.diff(info["loss_history"]) <= 0)


def test_days_covered_twice_count_once():
    """The same observations as one long window, as tiles and as daily overlapping windows: the same estimate."""
    model = LinearEmulator()
    days, horizon = 30, 10
    rng = np.random.default_rng(5)
    weather = rng.standard_normal((CONTEXT + days, 4)).astype(np.float32)
    y = np.zeros((days, 4))
    y[:, 2] = design_matrix(model, weather[CONTEXT:]) @ TRUTH + NOISE * rng.standard_normal(days)
    dates = np.datetime64("2012-01-01") + np.arange(days)

    def cut(starts, length):
        return (
            np.stack([weather[s : s + CONTEXT] for s in starts]),
            np.stack([weather[s + CONTEXT : s + CONTEXT + length] for s in starts]),
            np.stack([y[s : s + length] for s in starts]),
            np.ones((len(starts), length)),
        )

    static, _ = scalers()
    answers, counts = [], []
    for starts, length in (([0], days), ([0, 10, 20], horizon), (range(21), horizon)):
        estimate, info = inverter(model, UNBOUNDED).invert(
            static.mean, *cut(list(starts), length), window_start=dates[list(starts)].astype(str)
        )
        answers.append(estimate)
        counts.append(len(info["result"].problem.observations))
    assert counts == [days, days, days]
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-6)
    np.testing.assert_allclose(answers[2], answers[0], rtol=1e-6)


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


@pytest.mark.parametrize("method", ["gauss_newton", "adam"])
def test_a_prediction_that_is_not_finite_names_window_and_day(method):
    model = LinearEmulator()
    context, future, y, mask = problem(model)
    future[0, 7, 0] = np.nan
    static, _ = scalers()
    with pytest.raises(UserError, match=r"nep is not finite at the prior: window 0, day 7 \(2012-01-08\)"):
        inverter(model, {**UNBOUNDED, "method": method}).invert(
            static.mean, context, future, y, mask, window_start=["2012-01-01"]
        )


def test_no_valid_day_and_a_mask_that_removes_a_whole_flux():
    model = LinearEmulator()
    context, future, y, mask = problem(model)
    static, _ = scalers()
    with pytest.raises(UserError, match="no valid observation of nep"):
        inverter(model, UNBOUNDED).invert(static.mean, context, future, y, 0 * mask)
    by_flux = np.ones((1, 60, 4))
    by_flux[:, :, 0] = 0
    with pytest.raises(UserError, match="no valid observation of gpp.*or leave gpp out of the targets"):
        inverter(model, {**UNBOUNDED, "target_variable": "nep,gpp"}).invert(static.mean, context, future, y, by_flux)


def test_fewer_days_than_parameters_is_allowed_and_said():
    model = LinearEmulator()
    context, future, y, mask = problem(model)
    mask[0, 2:] = 0
    static, _ = scalers()
    estimate, info = inverter(model, UNBOUNDED).invert(static.mean, context, future, y, mask)
    assert "2 valid observations for 3 free parameters" in info["notes"][0]
    assert np.isfinite(estimate).all()


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
    assert info["multimodal"] and any("multimodal" in note for note in info["notes"])
    assert len(info["result"].posterior.modes) > 2


def test_a_cost_that_cannot_fall_says_why():
    model = LinearEmulator()
    context, future, y, mask = problem(model)
    static, _ = scalers()
    config = {**UNBOUNDED, "gauss_newton": {"max_iterations": 1}, "starts": 1}
    _, info = inverter(model, config).invert(static.mean, context, future, y, mask)
    assert info["reasons"] == ["iteration budget used up"]
    _, info = inverter(model, UNBOUNDED).invert(static.mean, context, future, y, mask)
    assert set(info["reasons"]) <= {"converged", "no damping lowers the cost any more", "joined another start"}


def test_the_true_flux_between_observed_days_is_predicted_from_the_correlated_error():
    """Predictive draws of days in a gap follow the conditional normal of a correlated emulator error."""
    from dataclasses import replace

    from emulator_covariance import EmulatorErrorSample
    from posterior import predictive_samples

    model = LinearEmulator()
    context, future, y, mask = problem(model, days=60, noise=0.0)
    static, _ = scalers()
    rng = np.random.default_rng(0)
    runs = 400  # errors that are constant in time: what is wrong on observed days is as wrong in the gap
    error = np.zeros((runs, 400, 4), dtype=np.float32)
    error[:, :, 2] = 0.01 * rng.standard_normal((runs, 1))
    sample = EmulatorErrorSample(error, np.datetime64("2012-01-01") + np.arange(400))
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


def test_leaf_area_at_rest_has_no_bends():
    """Gauss-Newton steps along the slope: a slope that jumps from one grid cell to the next ends a search early."""
    days = LHP_DAY.repeat(96, 1)
    days[:, DYNAMIC_FEATURES.index("tcdc_clm")] = torch.linspace(5, 95, 96)
    extra = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0]).repeat(96, 1)
    typical = read_days(days[None].double(), extra[None].double(), torch.tensor(4.2))
    for name in ("tree_lue", "tree_sla", "tree_lf0"):
        values = {n: torch.full((161, 1), p.baseline, dtype=torch.double) for n, p in catalogue().items()}
        values[name] = values[name] * torch.linspace(0.9, 1.2, 161)[:, None]
        packed, _ = at_rest(values, typical)
        slope = torch.diff(torch.log(packed[:, REST.index("tree_leaf_area")]))
        jump = (torch.diff(slope).abs() / slope.abs().mean()).max()
        assert jump < 0.25, f"{name}: the slope of leaf area jumps by {jump:.2f} of its mean"


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
    # The last samples are the minima: each of them fits the data as well as the posterior says.
    predicted = bent((info["posterior"].physical - static.mean) / static.scale) @ design.T
    assert len(predicted) == 128
    np.testing.assert_allclose(np.sum((y[0, :, 2] - predicted) ** 2, axis=1).mean(), misfit, rtol=0.05)


def test_every_start_is_reported_though_those_that_end_together_go_on_as_one():
    model = LinearEmulator()
    context, future, y, mask = problem(model)
    config = {"starts": 5, "clip_raw_params": {"enabled": False}, "error_model": {"emulator": False}}
    _, info = inverter(model, config).invert(scalers()[0].mean, context, future, y, mask)
    assert len(info["reasons"]) == len(info["start_losses"]) == 5 and not info["multimodal"]
    assert info["reasons"].count("joined another start") == 4
    np.testing.assert_allclose(info["start_losses"], info["best_loss"], atol=1e-3)
