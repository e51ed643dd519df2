"""The inversion against problems whose answer is known: equal costs, bounds and ties, bad input."""

import numpy as np
import pytest
import torch
from linear_emulator import (
    CONTEXT,
    NOISE,
    PARAMETERS,
    QUIET,
    TRUTH,
    UNBOUNDED,
    LinearEmulator,
    design_matrix,
    inverter,
    problem,
    scalers,
)

from calibration.common.command_line import UserError
from calibration.common.parameters import make_space


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


def test_a_cost_that_cannot_fall_says_why():
    model = LinearEmulator()
    context, future, y, mask = problem(model)
    static, _ = scalers()
    config = {**UNBOUNDED, "gauss_newton": {"max_iterations": 1}, "starts": 1}
    _, info = inverter(model, config).invert(static.mean, context, future, y, mask)
    assert info["reasons"] == ["iteration budget used up"]
    _, info = inverter(model, UNBOUNDED).invert(static.mean, context, future, y, mask)
    assert set(info["reasons"]) <= {"converged", "no damping lowers the cost any more", "joined another start"}


def test_every_start_is_reported_though_those_that_end_together_go_on_as_one():
    model = LinearEmulator()
    context, future, y, mask = problem(model)
    config = {"starts": 5, "clip_raw_params": {"enabled": False}, "error_model": {"emulator": False}}
    _, info = inverter(model, config).invert(scalers()[0].mean, context, future, y, mask)
    assert len(info["reasons"]) == len(info["start_losses"]) == 5 and not info["multimodal"]
    assert info["reasons"].count("joined another start") == 4
    np.testing.assert_allclose(info["start_losses"], info["best_loss"], atol=1e-3)
