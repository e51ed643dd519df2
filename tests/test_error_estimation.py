"""What is estimated of the error model is the most probable value, by the definition of the posterior written again."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from test_error_model import correlated, error_sample, observations

from calibration.inversion.config import ErrorModelConfig
from calibration.inversion.error_estimation import estimate_hyper, unknown_parts
from calibration.inversion.error_model import day_to_day_sd, make_error_model


def minus_log_posterior(model, hyper, residual, jacobian, discrepancy=True) -> float:
    """-log N(residual; 0, covariance + J J') - log prior of `hyper`, up to a constant.

    Priors: log noise normal about the scatter from day to day (sd 1.5), log emulator scale normal, sd of the
    discrepancy exponential (rate 3 over the sd of the data), log of its time normal about 30 days (sd 0.7).
    """
    given = model.observations
    covariance = replace(model, hyper=hyper).unweighted() + jacobian @ jacobian.T
    value = 0.5 * residual @ np.linalg.solve(covariance, residual) + 0.5 * np.linalg.slogdet(covariance)[1]
    for t, target in enumerate(given.targets):
        here = given.of(target)
        if np.isnan(given.sd[here]).any():
            scatter = day_to_day_sd(given.value[here], given.date[here])
            value += 0.5 * (np.log(hyper.observation_sd[t] / scatter) / 1.5) ** 2
        if discrepancy:
            value += 3 * hyper.discrepancy_sd[t] / given.spread[t]
    if model.emulator is not None:
        centre, width = model.scale_prior
        value += 0.5 * ((np.log(hyper.emulator_scale) - centre) / width) ** 2
    if discrepancy:
        value += 0.5 * (np.log(hyper.discrepancy_days / 30) / 0.7) ** 2
    return value


def with_logs(hyper, x, parts):
    """`hyper` with exp(x) in the places `parts`: (field, target or None)."""
    for (name, target), log in zip(parts, x, strict=True):
        if target is None:
            hyper = replace(hyper, **{name: float(np.exp(log))})
        else:
            numbers = getattr(hyper, name).copy()
            numbers[target] = np.exp(log)
            hyper = replace(hyper, **{name: numbers})
    return hyper


def most_probable(model, start, residual, jacobian, parts, discrepancy=True):
    """The best `hyper` and minus its log posterior, by a search that uses no slopes."""
    first = [np.log(getattr(start, name) if t is None else getattr(start, name)[t]) for name, t in parts]
    found = minimize(
        lambda x: minus_log_posterior(model, with_logs(start, x, parts), residual, jacobian, discrepancy), first,
        method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-8, "maxiter": 4000, "maxfev": 4000},
    )  # fmt: skip
    return with_logs(start, found.x, parts), found.fun


NOISE, SCALE, SLOW, DAYS = ("observation_sd", 0), ("emulator_scale", None), ("discrepancy_sd", 0), (
    "discrepancy_days", None)  # fmt: skip


@pytest.mark.parametrize("noise", [0.0003, 0.005])
def test_noise_beside_parameters_that_explain_part_of_it(noise):
    rng = np.random.default_rng(1)
    data = observations(12, value=noise * rng.standard_normal(12) + 0.01 * rng.standard_normal())
    model, jacobian = make_error_model(data, None, ErrorModelConfig(discrepancy=False)), np.full((12, 1), 0.01)
    found = estimate_hyper(model, data.value, jacobian).hyper
    wanted, _ = most_probable(model, replace(model.hyper, emulator_scale=1.0), data.value, jacobian, [NOISE], False)
    assert found.observation_sd[0] == pytest.approx(wanted.observation_sd[0], rel=1e-3)
    assert found.emulator_scale == 1 and (found.discrepancy_sd == 0).all()


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_scale_of_the_emulators_error(factor):
    data = observations(40, value=factor * correlated(1, 40, 0.002, 0.8, 4)[0], sd=0.0005)
    model = make_error_model(data, error_sample(40, 60), ErrorModelConfig(discrepancy=False))
    found = estimate_hyper(model, data.value, np.zeros((40, 1))).hyper
    wanted, _ = most_probable(model, model.hyper, data.value, np.zeros((40, 1)), [SCALE], False)
    assert found.emulator_scale == pytest.approx(wanted.emulator_scale, rel=1e-3)


def slow_data(days=80, sd=0.01, seed=9, noise=0.004):
    value = noise * np.random.default_rng(8).standard_normal(days) + correlated(1, days, sd, np.exp(-1 / 12), seed)[0]
    return observations(days, value=value)


def test_all_parts_of_two_fluxes_at_once():
    one, two = slow_data(60), slow_data(60, 0.03, 4, 0.01)
    data = observations(60, ("nep", "gpp"), value=np.concatenate([one.value, two.value]))
    data = replace(data, sd=np.where((data.target == 1) & (data.day < 20), 0.01, np.nan))
    model = make_error_model(data, error_sample(30, 70), ErrorModelConfig())
    jacobian = 0.002 * np.random.default_rng(1).standard_normal((120, 2))
    found = estimate_hyper(model, data.value, jacobian).hyper
    parts = [NOISE, ("observation_sd", 1), SCALE, SLOW, ("discrepancy_sd", 1), DAYS]
    assert [(row.part, row.target) for row in unknown_parts(model)] == parts
    best = minus_log_posterior(model, found, data.value, jacobian)
    for i, part in enumerate(parts):  # the slope is zero in every direction, and it is a minimum
        now = np.log(getattr(found, part[0]) if part[1] is None else getattr(found, part[0])[part[1]])
        up, down = (
            minus_log_posterior(model, with_logs(found, [now + s], [part]), data.value, jacobian) for s in (0.05, -0.05)
        )
        assert abs(up - down) / 0.1 < 0.02, parts[i]
        assert min(up, down) > best - 1e-3, parts[i]


@pytest.mark.parametrize("seed", [1, 4, 5, 9, 17, 28, 29, 35, 38])  # gains of 0 to 12, five of them of 1.4 to 4
def test_a_discrepancy_stays_where_it_gains_three(seed):
    """Slow misfits around the size at which evidence begins: whether one stays is what the gain says."""
    data = slow_data(40, 0.0025 + 0.0004 * (seed % 12), seed)
    model, none = make_error_model(data, None, ErrorModelConfig()), np.zeros((40, 1))
    start = replace(model.hyper, discrepancy_sd=0.3 * data.spread)
    _, with_slow = most_probable(model, start, data.value, none, [NOISE, SLOW, DAYS])
    bare = replace(model.hyper, discrepancy_sd=np.zeros(1))
    _, without = most_probable(model, bare, data.value, none, [NOISE], discrepancy=False)
    gain = without - with_slow
    assert abs(gain - 3) > 0.02, "choose other data: too close to tell"
    assert (estimate_hyper(model, data.value, none).hyper.discrepancy_sd[0] > 0) == (gain > 3)


@pytest.mark.parametrize(("share", "stays"), [(0.99, False), (1.01, True)])
def test_a_discrepancy_stays_where_noise_does_not_explain_the_misfit_of_the_fit(share, stays):
    """By chi square: its mean and three of its standard deviations."""
    days, sd = 50, 0.005
    noise = sd * np.random.default_rng(3).standard_normal(days) + correlated(1, days, 0.002, 0.8, 4)[0]
    data = observations(days, value=noise, sd=sd)
    model, none = make_error_model(data, error_sample(40, 60), ErrorModelConfig()), np.zeros((days, 1))
    bare = estimate_hyper(replace(model, estimate_discrepancy=False), data.value, none).unweighted()
    white = np.full(days, np.sqrt(share * (days + 3 * np.sqrt(2 * days)) / days))
    misfit = np.linalg.cholesky(bare) @ white  # its squares, whitened, add up to `share` of what is allowed
    assert estimate_hyper(model, data.value, none).hyper.discrepancy_sd[0] == 0
    assert (estimate_hyper(model, data.value, none, misfit).hyper.discrepancy_sd[0] > 0) == stays


def test_where_the_search_ends():
    """Limits: the emulator's scale 0.5 and e^1.5 about its prior, noise and discrepancy 0.001 to 3 of the data's sd."""
    still = observations(30, value=np.full(30, 1e-9), sd=1e-5)
    model = make_error_model(still, error_sample(40, 40), ErrorModelConfig(discrepancy=False))
    scale = estimate_hyper(replace(model, scale_prior=(0.0, 1.0)), still.value, np.zeros((30, 1))).hyper.emulator_scale
    assert scale == pytest.approx(0.5)
    low = replace(model, scale_prior=(1.2, 1.0))
    assert estimate_hyper(low, still.value, np.zeros((30, 1))).hyper.emulator_scale == pytest.approx(np.exp(-0.3))
    wild = observations(30, value=1e3 * error_sample(1, 30, seed=7).error[0, :, 2], sd=1e-5)
    model = make_error_model(wild, error_sample(40, 40), ErrorModelConfig(discrepancy=False))
    for centre, most in ((0.2, np.exp(1.7)), (-2.0, np.exp(1.5) / 2)):
        high = estimate_hyper(replace(model, scale_prior=(centre, 1.0)), wild.value, np.zeros((30, 1))).hyper
        assert high.emulator_scale == pytest.approx(most)
    data = observations(30)
    rows = {row.part: row for row in unknown_parts(make_error_model(data, None, ErrorModelConfig()))}
    for part in ("observation_sd", "discrepancy_sd"):
        np.testing.assert_allclose(np.exp(rows[part].limits), [1e-3 * data.spread[0], 3 * data.spread[0]])
    np.testing.assert_allclose(np.exp(rows["discrepancy_days"].limits), [3, 200])
    assert rows["discrepancy_sd"].start == pytest.approx(0.1 * data.spread[0])


def test_with_nothing_unknown_nothing_changes():
    data = observations(20, sd=0.5)
    model = make_error_model(data, None, ErrorModelConfig(discrepancy=False))
    found = estimate_hyper(model, data.value, np.zeros((20, 1)))
    assert unknown_parts(model) == [] and found.observations is model.observations
    assert found.hyper.emulator_scale == 1 and (found.hyper.discrepancy_sd == 0).all()
    np.testing.assert_array_equal(found.hyper.observation_sd, model.hyper.observation_sd)
    # a discrepancy is then compared with the bare posterior, and stays where the misfit is slow
    slow = slow_data(60, noise=0.0)
    slow = replace(slow, sd=np.full(60, 0.002))
    model = make_error_model(slow, None, ErrorModelConfig())
    assert estimate_hyper(model, slow.value, np.zeros((60, 1))).hyper.discrepancy_sd[0] > 0.003


def test_of_a_long_record_evenly_spaced_blocks_are_used():
    """1200 days: the estimate is that of blocks of days, about 450 entries, with all that belongs."""
    data = slow_data(1200)
    rng = np.random.default_rng(0)
    jacobian = 0.003 * rng.standard_normal((1200, 2))
    model = make_error_model(data, error_sample(20, 1300), ErrorModelConfig())
    found = estimate_hyper(model, data.value, jacobian, data.value)
    keep = data.blocks(450)
    assert 300 < len(keep) <= 480
    part = replace(model, observations=data.subset(keep), emulator=model.emulator[np.ix_(keep, keep)])
    again = estimate_hyper(part, data.value[keep], jacobian[keep], data.value[keep])
    assert found.hyper.discrepancy_days == pytest.approx(again.hyper.discrepancy_days)
    np.testing.assert_allclose(found.hyper.observation_sd, again.hyper.observation_sd)
    assert len(found.observations) == 1200 and found.emulator.shape == (1200, 1200)  # the model itself keeps all
