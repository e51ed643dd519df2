"""Covariances of the error model by their definitions, entry by entry, and what is taken for unknown at the start."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_error_model import START, correlated, error_sample, observations

from calibration.emulator.error import EmulatorErrors
from calibration.inversion.config import ErrorModelConfig
from calibration.inversion.data import Observations
from calibration.inversion.emulator_covariance import WEIGHTS, empirical_weight, emulator_covariance, is_restless
from calibration.inversion.error_model import ErrorModel, Hyper, day_to_day_sd, make_error_model, run_scale

NONE = np.datetime64("NaT", "D")


def scattered(dates, stretch, target, targets=("nep", "gpp"), value=None, sd=None) -> Observations:
    """Entries of given dates (None: unknown), stretches and targets; entry i is day i // 2 of its stretch."""
    dates = np.array([NONE if date is None else START + date for date in dates], dtype="datetime64[D]")
    count = len(dates)
    return Observations(
        np.zeros(count) if value is None else np.asarray(value, dtype=float),
        np.full(count, np.nan) if sd is None else np.asarray(sd, dtype=float),
        np.array(stretch), np.arange(count) // 2, np.array(target), dates, targets,
    )  # fmt: skip


def model_of(given: Observations, hyper: Hyper, emulator=None, weights=(1.0, 1.0)) -> ErrorModel:
    return ErrorModel(given, emulator, np.array(weights), hyper, True)


HYPER = Hyper(np.array([0.003, 0.005]), 2.0, np.array([0.004, 0.006]), 10.0)


def test_the_parts_add_up_entry_by_entry():
    given = scattered([0, 3, 3, 7, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 0], sd=[np.nan, 0.01, np.nan, 0.02, np.nan])
    emulator = 1e-6 * (np.eye(5) + 0.5)
    model = model_of(given, HYPER, emulator, (1.0, 4.0))
    variance = np.array([0.003, 0.01, 0.005, 0.02, 0.003]) ** 2
    np.testing.assert_allclose(model.observation_variance, variance, rtol=1e-12)
    days, share = [0, 3, 3, 7, 0], [1.0, 1.0, 4.0, 4.0, 1.0]
    for i in range(5):
        for j in range(5):
            slow = HYPER.discrepancy_sd[given.target[i]] ** 2 * np.exp(-abs(days[i] - days[j]) / 10.0)
            wanted = 4.0 * emulator[i, j] + (slow if given.target[i] == given.target[j] else 0.0)
            wanted += variance[i] if i == j else 0.0
            assert model.unweighted()[i, j] == pytest.approx(wanted, rel=1e-6)
            assert model.covariance()[i, j] == pytest.approx(wanted / np.sqrt(share[i] * share[j]), rel=1e-6)
    factor = model.factor()
    np.testing.assert_allclose(factor @ factor.T, model.covariance(), rtol=1e-9, atol=1e-18)
    assert (np.triu(factor, 1) == 0).all()


def test_a_discrepancy_of_one_flux_alone_counts():
    hyper = replace(HYPER, discrepancy_sd=np.array([0.0, 0.006]))
    slow = model_of(scattered([0, 0], [0, 0], [0, 1]), hyper).unweighted()
    np.testing.assert_allclose(np.diag(slow), [9e-6, 25e-6 + 36e-6], rtol=1e-6)
    none = model_of(scattered([0, 0], [0, 0], [0, 1]), replace(HYPER, discrepancy_sd=np.zeros(2))).unweighted()
    np.testing.assert_allclose(np.diag(none), [9e-6, 25e-6], rtol=1e-6)


def test_days_without_dates_hang_together_inside_their_stretch_only():
    given = scattered([None, None, None, None], [0, 0, 0, 1], [0, 0, 0, 0], ("nep",))  # days 0 0 1 1 of their stretches
    hyper = Hyper(np.array([0.003]), 1.0, np.array([0.004]), 10.0)
    slow = model_of(given, hyper, weights=(1.0,)).discrepancy
    np.testing.assert_allclose(slow[0], [16e-6, 16e-6, 16e-6 * np.exp(-0.1), 0.0])
    dated = model_of(scattered([0, 2], [0, 1], [0, 0], ("nep",)), hyper, weights=(1.0,)).discrepancy
    assert dated[0, 1] == pytest.approx(16e-6 * np.exp(-0.2))  # the date counts, not the stretch
    mixed = model_of(scattered([0, None], [0, 1], [0, 0], ("nep",)), hyper, weights=(1.0,)).discrepancy
    assert mixed[0, 1] == 0 == mixed[1, 0]


def test_a_perfect_observation_leaves_a_covariance_that_can_be_factored():
    given = observations(5, sd=0.0)
    plain = Hyper(np.array([1.0]), 1.0, np.zeros(1), 30.0)
    model = model_of(given, plain, np.zeros((5, 5)), (1.0,))
    assert 0 < np.diag(model.factor()).max() < 1e-5  # Mg C ha-1 day-1: far below any error


def test_shares_of_the_variance_and_effective_observations_have_their_closed_forms():
    """White variance a and one error b common to all n entries: n (a + b) / (a + n b) independent observations."""
    n, a, b = 50, 9e-6, 4e-6
    hyper = Hyper(np.array([3e-3]), 2.0, np.zeros(1), 30.0)
    found = model_of(observations(n), hyper, np.full((n, n), b / 4), (1.0,)).shares()["nep"]
    assert found["observations"] == n
    assert found["effective_observations"] == pytest.approx(n * (a + b) / (a + n * b), rel=1e-5)
    assert (found["observation_sd"], found["emulator_sd"]) == (pytest.approx(3e-3), pytest.approx(2e-3))
    assert (found["observation_share"], found["emulator_share"]) == (pytest.approx(9 / 13), pytest.approx(4 / 13))
    assert found["discrepancy_sd"] == 0 == found["discrepancy_share"]
    # Errors that cancel would fix a mean better than independent ones: not counted as more than there are.
    cancelling = 1e-6 * (np.eye(2) - 0.9 * np.eye(2)[::-1])
    assert model_of(observations(2), replace(hyper, emulator_scale=1.0, observation_sd=np.array([1e-4])), cancelling,
                    (1.0,)).shares()["nep"]["effective_observations"] == 2  # fmt: skip


def test_shares_of_each_flux_are_its_own():
    found = model_of(observations(40, ("nep", "gpp")), HYPER).shares()
    for target, white, slow in (("nep", 0.003, 0.004), ("gpp", 0.005, 0.006)):
        assert found[target]["observation_sd"] == pytest.approx(white)
        assert found[target]["discrepancy_sd"] == pytest.approx(slow)
        assert found[target]["emulator_sd"] == 0
        assert found[target]["discrepancy_share"] == pytest.approx(slow**2 / (white**2 + slow**2))


# --- what is assumed before anything is estimated -----------------------------------------------------------------


def test_without_a_measured_emulator_nothing_is_assumed_of_its_error():
    given = observations(30, ("nep", "gpp"))
    one = EmulatorErrors(START + np.arange(40), np.full((1, 40, 4), 0.01, dtype=np.float32))
    for sample, config in ((None, {}), (error_sample(20, 40), {"emulator": False}), (one, {})):
        model = make_error_model(given, sample, ErrorModelConfig(**config))
        assert model.emulator is None and model.emulator_weight == 0
        assert model.scale_prior == (0, 0.35) and model.hyper.emulator_scale == 1
    two = make_error_model(given, error_sample(2, 40), ErrorModelConfig())
    assert two.emulator.shape == (60, 60)
    np.testing.assert_array_equal(two.weights, [1, 1])


def test_the_start_is_the_scatter_of_the_days_and_a_small_discrepancy():
    given = observations(200, ("nep", "gpp"))
    given = replace(given, value=given.value * np.repeat([0.01, 0.03], 200), sd=np.where(given.day < 9, 0.5, np.nan))
    model = make_error_model(given, None, ErrorModelConfig())
    np.testing.assert_allclose(model.hyper.observation_sd, [0.01, 0.03], rtol=0.15)
    np.testing.assert_allclose(model.hyper.discrepancy_sd, 0.01 * given.spread)
    assert model.hyper.discrepancy_days == 30 and model.estimate_discrepancy
    known = make_error_model(given, None, ErrorModelConfig(observation_sd=0.02, discrepancy=False))
    assert (known.hyper.discrepancy_sd == 0).all() and not known.estimate_discrepancy
    np.testing.assert_array_equal(known.observations.sd, np.where(given.day < 9, 0.5, 0.02))  # given ones stay
    np.testing.assert_array_equal(known.hyper.observation_sd, [0.02, 0.02])


def test_scatter_from_day_to_day():
    assert day_to_day_sd(np.array([0.0, 1.0, 0.0, 1.0]), None) == pytest.approx(np.sqrt(8 / 9) / np.sqrt(2))
    assert day_to_day_sd(np.array([0.0, 1.0, 3.0]), None) == pytest.approx(0.5 / np.sqrt(2))  # three are enough
    assert day_to_day_sd(np.array([-0.2, 0.4]), None) == pytest.approx(0.3)  # two say how large it may be
    assert day_to_day_sd(np.array([0.0, 0.0]), None) == 1e-3
    assert day_to_day_sd(np.full(9, 0.5), None) == 1e-5  # never 0


def sample_of(sizes, seed=5) -> EmulatorErrors:
    """Runs whose rms error of NEP is `sizes` to the digit."""
    nep = np.random.default_rng(seed).standard_normal((len(sizes), 50))
    nep *= np.array(sizes)[:, None] / np.sqrt(np.mean(nep**2, axis=1, keepdims=True))
    return EmulatorErrors(START + np.arange(50), np.repeat(nep[..., None], 4, axis=2))


def test_the_scale_of_unseen_runs_by_its_definition():
    sizes = 0.002 * np.exp(0.6 * np.linspace(-1.5, 1.5, 10))
    ratio = np.log(sizes / np.sqrt(np.mean(sizes**2)))
    assert run_scale(sample_of(sizes), "nep") == pytest.approx((ratio.mean(), ratio.std()))
    assert run_scale(sample_of(sizes[:9]), "nep") == (0, 0.35)  # ten runs are needed
    assert run_scale(sample_of([0.002] * 10), "nep")[1] == 0.35
    centre, spread = run_scale(sample_of([0.002] * 9 + [0.0]), "nep")  # one run without any error
    assert np.isfinite(centre) and spread == 1


# --- the emulator's error -------------------------------------------------------------------------------------------


def nonstationary(runs=6, days=12, seed=4) -> EmulatorErrors:
    error = 0.002 * np.random.default_rng(seed).standard_normal((runs, days, 4)) * np.linspace(0.2, 2, days)[:, None]
    return EmulatorErrors(START + np.arange(days), error)


def stationary_by_hand(sample, given, i, j) -> float:
    """Mean over runs of e_a(d) e_b(d') over all pairs of days with the lag of entries i and j, divided by all days."""
    columns = {
        "nep": sample.error[..., 2],
        "gpp": sample.error[..., 0],
        "er": sample.error[..., 0] - sample.error[..., 2],
    }
    a, b = (columns[given.targets[given.target[k]]] for k in (i, j))
    lag = int(given.day_number[i] - given.day_number[j])
    days = a.shape[1]
    pairs = [(d, d - lag) for d in range(days) if 0 <= d - lag < days]
    return sum((a[:, d] * b[:, e]).sum() for d, e in pairs) / (len(a) * days)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_covariance_is_a_mixture_of_same_dates_and_same_lags(weight):
    sample = nonstationary()
    given = scattered([0, 4, 11, 4, 9], [0, 0, 1, 1, 1], [0, 0, 0, 1, 1], ("nep", "er"))  # the last day is known too
    found = emulator_covariance(sample, given, weight)
    columns = np.stack([sample.error[:, d, 2] if t == 0 else sample.error[:, d, 0] - sample.error[:, d, 2]
                        for d, t in zip((0, 4, 11, 4, 9), given.target, strict=True)], axis=1)  # fmt: skip
    for i in range(5):
        for j in range(5):
            wanted = weight * np.mean(columns[:, i] * columns[:, j])
            wanted += (1 - weight) * stationary_by_hand(sample, given, i, j)
            assert found[i, j] == pytest.approx(wanted, rel=1e-9, abs=1e-18)


@pytest.mark.parametrize("outside", [-1, 12])
def test_one_day_outside_the_measured_ones_leaves_the_lags_alone(outside):
    sample, given = nonstationary(), scattered([3, outside], [0, 0], [0, 0])
    found = emulator_covariance(sample, given, 1.0)
    assert found[0, 0] == pytest.approx(np.mean(sample.error[..., 2] ** 2))
    assert found[0, 1] == pytest.approx(stationary_by_hand(sample, given, 0, 1))
    assert empirical_weight(sample, given) == 0


def test_days_that_are_too_far_apart_or_in_other_stretches_have_nothing_in_common():
    sample = nonstationary()
    far = emulator_covariance(sample, scattered([-40, -29, -28], [0, 0, 0], [0, 0, 0]))
    assert far[0, 1] != 0 and far[0, 2] == 0  # lags of 11 and 12 days, 12 are measured
    undated = scattered([None, None, None, None], [0, 0, 1, 1], [0, 0, 0, 0])  # days 0 0 1 1
    found = emulator_covariance(sample, undated, 1.0)  # the share of known dates cannot be had
    assert found[0, 1] == pytest.approx(np.mean(sample.error[..., 2] ** 2)) and found[2, 3] == found[0, 1]
    assert (found[:2, 2:] == 0).all() and (found[2:, :2] == 0).all()
    assert empirical_weight(sample, undated) == 0


def test_errors_bound_to_dates_are_taken_from_the_dates_and_others_from_the_lags():
    days = 60
    given = observations(days)
    stationary = EmulatorErrors(
        START + np.arange(days), np.repeat(correlated(12, days, 0.002, 0.6, 3)[..., None], 4, 2)
    )
    assert empirical_weight(stationary, given) <= 0.1  # twelve runs tell nothing of sixty days
    shape = np.where(np.arange(days) % 7 == 0, 1.0, 0.02)  # wrong on the same days in every run
    factor = np.random.default_rng(0).standard_normal((40, 1))
    bound = 0.002 * shape * (factor + 0.02 * np.random.default_rng(1).standard_normal((40, days)))
    bound = EmulatorErrors(START + np.arange(days), np.repeat(bound[..., None], 4, axis=2))
    assert empirical_weight(bound, given) >= 0.8
    assert {empirical_weight(one, given) for one in (bound, stationary)} <= set(WEIGHTS)
    one_run, two_runs = (EmulatorErrors(bound.dates, bound.error[:count]) for count in (1, 2))
    assert empirical_weight(one_run, given) == 0 and empirical_weight(two_runs, given) >= 0.5
    # what is left to choose is chosen
    np.testing.assert_array_equal(
        emulator_covariance(bound, given), emulator_covariance(bound, given, empirical_weight(bound, given))
    )
    assert make_error_model(given, bound, ErrorModelConfig()).emulator_weight == empirical_weight(bound, given)


def likelihood_of_the_left_out(sample: EmulatorErrors, given: Observations, weight: float) -> float:
    """Log likelihood of each fourth of the runs, by the covariance of the others with a scale of its own."""
    nugget = 0.01 * np.mean(sample.error[..., 2] ** 2) * np.eye(len(given))
    total = 0.0
    for fold in range(4):
        out = np.arange(sample.runs) % 4 == fold
        covariance = emulator_covariance(EmulatorErrors(sample.dates, sample.error[~out]), given, weight) + nugget
        test = sample.error[out][:, given.day, 2]
        scale = np.mean([e @ np.linalg.solve(covariance, e) for e in test]) / len(given)
        total -= 0.5 * test.size * np.log(scale) + 0.5 * out.sum() * np.linalg.slogdet(covariance)[1]
    return total


@pytest.mark.parametrize("seed", range(6))
def test_the_share_of_the_dates_is_the_most_likely_one_for_runs_left_out(seed):
    days = 20
    shape = np.linspace(0.3, 1.5, days) ** (seed % 3)
    error = shape * correlated(10 + 2 * seed, days, 0.002, 0.5, seed)
    sample = EmulatorErrors(START + np.arange(days), np.repeat(error[..., None], 4, axis=2))
    given = observations(days)
    best = max(WEIGHTS, key=lambda weight: likelihood_of_the_left_out(sample, given, weight))
    assert empirical_weight(sample, given) == best


@pytest.mark.parametrize(("nep", "wanted"), [(0.013, False), (0.5, True), (-0.5, True)])
def test_a_forest_is_judged_beside_those_at_rest_under_the_same_weather(nep, wanted):
    """Parameters are NEP and GPP themselves; runs not at rest are left out of the comparison."""
    rng = np.random.default_rng(0)
    rest = np.arange(90) % 2 == 0
    parameters = np.column_stack([np.where(rest, rng.normal(0.01, 0.002, 90), rng.normal(0, 9, 90)), np.ones(90)])
    sample = EmulatorErrors(START + np.arange(3), np.zeros((90, 3, 4)), parameters, at_rest=rest)
    seen = []

    def forward(physical: torch.Tensor) -> list[torch.Tensor]:
        seen.append(len(physical))
        flux = torch.stack([physical[:, 1], physical[:, 1], physical[:, 0], physical[:, 1]], dim=-1)
        # two stretches; the second has three days, which count as much as the one of the first
        return [flux[:, None], flux[:, None].repeat(1, 3, 1)]

    assert is_restless(forward, sample, np.array([nep, 1.0])) == wanted
    assert seen[0] == 45 + 1  # all at rest, as they are fewer than 60, and the forest itself


def test_of_many_runs_sixty_from_first_to_last_are_compared():
    numbers = np.linspace(0.01, 0.012, 200)[:, None]
    sample = EmulatorErrors(START + np.arange(3), np.zeros((200, 3, 4)), numbers, at_rest=np.arange(200) != 7)
    seen = []

    def forward(physical: torch.Tensor) -> list[torch.Tensor]:
        seen.append(physical[:, 0].numpy())
        return [torch.stack([torch.ones(len(physical))] * 2 + [physical[:, 0]] * 2, dim=-1)[:, None]]

    assert not is_restless(forward, sample, np.array([0.011]))
    assert len(seen[0]) == 60 + 1 and (np.diff(seen[0][:60]) > 0).all()
    assert (seen[0][0], seen[0][59], seen[0][60]) == (numbers[0, 0], numbers[-1, 0], 0.011)
