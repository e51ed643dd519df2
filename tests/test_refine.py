"""Refinement: simulator runs at the posterior correct the emulator."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from linear_emulator import CONTEXT, FEATURES, PARAMETERS, SPACE, LinearEmulator, emulate, scalers

from calibration.common.command_line import UserError
from calibration.emulator.error import EmulatorErrors
from calibration.ensembles.files import load_ensemble
from calibration.inversion.data import stretch_from_arrays
from calibration.judgement.refine import FEWEST, Refinement, RunStore, check_runs, local_correction, posterior_draws
from calibration.judgement.simulator_check import ProcessModel, verify_estimate
from inverse_estimator import StaticParameterInverter

DAYS = 420
DATES = np.datetime64("2012-01-01") + np.arange(DAYS)
static, dynamic = scalers()


def test_correction_is_the_newest_mean_and_the_scatter_of_all_rounds():
    rng = np.random.default_rng(4)
    first, newest, new = 0.05 + 0.01 * rng.standard_normal((3, 60, 50, 4))
    newest, new = newest - 0.03, new - 0.03
    correction = local_correction([first, newest])
    assert np.abs(correction.bias.numpy() - newest.mean(axis=0)).max() < 1e-12
    assert correction.left_over.shape == (120, 50, 4)
    left_out = newest[7] - np.delete(newest, 7, axis=0).mean(axis=0)
    np.testing.assert_allclose(correction.left_over[67], left_out, rtol=1e-4, atol=1e-8)
    left = new - correction.bias.numpy()
    ratio = np.sqrt(np.mean(correction.left_over**2) / np.mean(left**2))
    assert 0.95 < ratio < 1.05, "leave-one-out errors must tell the size of the error at new points"


NOISE = 0.003


class Days:
    """Weather of the linear emulator's features."""

    def __init__(self, values, dates) -> None:
        self.values, self.dates = values, dates

    def __len__(self) -> int:
        return len(self.dates)


def scene(change, truth):
    """An emulator (made by `change` of the simulator's mixing matrix), the inversions with it (`raw`) and with the
    simulator itself (`gold`) of data with `truth` (scaled), and a refinement that has not begun.
    """
    emulator, simulator = LinearEmulator(), LinearEmulator()
    with torch.no_grad():
        emulator.mixing.copy_(change(emulator.mixing))
    weather = np.random.default_rng(2).standard_normal((DAYS, FEATURES))
    observed = emulate(simulator, (static.mean + static.scale * np.array(truth))[None], weather)[0, :100].astype(float)
    observed += NOISE * np.random.default_rng(3).standard_normal(observed.shape)
    stretch = stretch_from_arrays(
        weather[:CONTEXT], weather[CONTEXT : CONTEXT + 100], observed, np.ones(100), start=DATES[CONTEXT]
    )
    draws = SPACE.unit_to_physical(np.random.default_rng(5).random((40, 3)))
    error = emulate(emulator, draws, weather) - emulate(simulator, draws, weather)
    config = {
        "bounds_file": "emulator", "starts": 2,
        "error_model": {"observation_sd": NOISE, "discrepancy": False},
    }  # fmt: skip

    def inverter(model, errors):
        return StaticParameterInverter(model, static, dynamic, config, "cpu", PARAMETERS, space=SPACE, errors=errors)

    def simulate(values):
        fluxes = emulate(simulator, values, weather)
        return np.concatenate([np.zeros((len(values), CONTEXT, 4)), fluxes], axis=1)

    with_emulator = inverter(emulator, EmulatorErrors(DATES[CONTEXT:], error))
    return SimpleNamespace(
        gold=inverter(simulator, None).invert_stretches(static.mean, [stretch]),
        raw=with_emulator.invert_stretches(static.mean, [stretch]), stretches=[stretch], observed=observed,
        refinement=Refinement(with_emulator, simulate, Days(weather, DATES), CONTEXT, list(range(FEATURES))),
    )  # fmt: skip


@pytest.fixture
def biased():
    """An emulator that errs so that its estimate is posterior standard deviations away from the simulator's own."""
    noise = torch.randn(FEATURES, len(PARAMETERS), generator=torch.Generator().manual_seed(1))
    made = scene(lambda mixing: mixing + 0.3 * noise, (0.8, -0.7, 0.5))
    made.sd = made.gold.posterior.latent.std(axis=0)
    assert np.abs((made.raw.fit.u - made.gold.fit.u) / made.sd).max() > 1.0, "the raw emulator must be wrong"
    return made


def test_refinement_finds_the_answer_of_the_simulator_where_the_emulator_is_biased(biased):
    refined, _, table = biased.refinement.run(biased.raw, biased.stretches, 20)
    apart = np.abs(refined.fit.u - biased.gold.fit.u)
    assert apart.max() < 0.1  # of a prior sd, the number
    assert (apart / biased.sd).max() < 0.5
    assert table["error_after"].iloc[-1] < 0.2 * NOISE and table["error_at_estimate"].iloc[-1] < 0.2 * NOISE
    np.testing.assert_allclose(refined.posterior.latent.std(axis=0), biased.sd, rtol=0.25)


def test_an_answer_that_exploits_an_error_of_the_emulator_gives_way(biased, capsys):
    refinement = biased.refinement
    gold, raw = (refinement.answer(result, refinement.inverter) for result in (biased.gold, biased.raw))
    errors = [refinement.error_at_estimate(answer, biased.stretches) for answer in (gold, raw)]
    assert errors[0] < 1e-6 and errors[1] > 0.5 * NOISE, "of the simulator's own answer, and of the emulator's"
    assert refinement.nearest_to_the_data([gold, raw], biased.stretches) is gold
    assert "gives way" in capsys.readouterr().err
    assert refinement.nearest_to_the_data([raw, gold], biased.stretches) is gold
    assert "kept all the same" in capsys.readouterr().err
    failed = replace(gold, fluxes=np.full_like(gold.fluxes, np.nan))
    assert refinement.nearest_to_the_data([failed, raw], biased.stretches) is raw


@pytest.mark.parametrize(("share", "truth", "best"), [(0.4, (0.8, -0.7, 0.5), 0), (0.44, (-0.4, 0.9, -0.2), 1)])
def test_where_rounds_lead_away_the_answer_that_fits_is_returned(share, truth, best, capsys):
    """An emulator that answers to parameters less than half as much as the simulator: every correction overshoots, and
    the last estimate is the worst. The answer, and the inverter that gave it, are those of the round that fits best.
    """
    made, estimates = scene(lambda mixing: share * mixing, truth), []
    simulate = made.refinement.simulate

    def watched(values):
        if len(values) == 1:  # the estimate of a round; draws come many at a time
            estimates.append(values[0])
        return simulate(values)

    made.refinement.simulate = watched
    result, inverter, table = made.refinement.run(made.raw, made.stretches, 20)
    misfit = [np.mean((simulate(e[None])[0, CONTEXT : CONTEXT + 100, 2] - made.observed[:, 2]) ** 2) for e in estimates]
    assert len(misfit) == 5 and int(np.argmin(misfit)) == best and misfit[-1] > 2 * misfit[best]
    np.testing.assert_array_equal(result.optimized, estimates[best])
    assert table["kept"].tolist() == [number == best for number in range(1, 5)]
    assert f"fits the data best after round {best}" in capsys.readouterr().err
    if best:
        bias = local_correction(made.refinement.errors[:best]).bias
        assert torch.equal(inverter.bias.flux, bias) and torch.equal(result.problem.forward.bias[0], bias[:100])
    else:
        assert result is made.raw and inverter is made.refinement.inverter and inverter.bias is None


def test_a_simulator_that_fails_at_estimates_is_no_error_of_the_emulator(biased, capsys):
    simulate = biased.refinement.simulate
    biased.refinement.simulate = lambda values: simulate(values) * (np.nan if len(values) == 1 else 1.0)
    result, _, table = biased.refinement.run(biased.raw, biased.stretches, 20)
    assert np.abs(result.fit.u - biased.gold.fit.u).max() < 0.1 and table["kept"].iloc[-1]
    errors = capsys.readouterr().err
    assert "fails at the estimate" in errors and "emulator errs" not in errors


def test_too_few_runs_leave_the_answer_before(biased, capsys):
    biased.refinement.simulate = lambda values: np.full((len(values), DAYS, 4), np.nan)
    result, inverter, table = biased.refinement.run(biased.raw, biased.stretches, 20)
    assert result is biased.raw and inverter is biased.refinement.inverter and table.empty
    assert "0 of 20 simulator runs" in capsys.readouterr().err


def test_verify_says_when_a_fit_owes_something_to_the_emulator(capsys):
    dates = np.datetime64("2015-01-01") + np.arange(40)
    stretch, weather = SimpleNamespace(dates=dates[10:]), SimpleNamespace(dates=dates)
    model = ProcessModel(weather, lambda values: iter([(0, np.full((40, 4), 0.02))]), {})
    result = SimpleNamespace(
        optimized=np.zeros(2), offsets={}, problem=SimpleNamespace(is_likelihood=True),
        error_model=SimpleNamespace(shares=lambda: {"nep": {"emulator_sd": 0.001}}),
    )  # fmt: skip
    for apart, warned in ((0.002, False), (0.004, True)):
        flux = np.full(30, 0.02 + apart) + 1e-9 * np.arange(30)
        judged = SimpleNamespace(target="nep", optimized=flux, observed=flux, valid=np.ones(30, dtype=bool))
        series, lines = verify_estimate(model, result, [stretch], judged)
        np.testing.assert_allclose(series, 0.02)
        assert f"RMSE {apart:.5f}" in lines["simulator with the same parameters, NEP"]
        assert ("4 times what the error model takes it for" in capsys.readouterr().err) == warned
    failing = ProcessModel(weather, lambda values: iter([]), {})
    series, lines = verify_estimate(failing, result, [stretch], judged)
    assert series is None and "the run failed" in next(iter(lines.values()))


def example_posterior(draws):
    latent = SimpleNamespace(free=np.arange(2), limit=2.0, physical_array=lambda u: np.pad(u, ((0, 0), (0, 1))))
    physical = np.random.default_rng(0).standard_normal((draws, 3))
    posterior = SimpleNamespace(physical=physical, modes=np.zeros((1, 3)), covariance=9.0 * np.eye(3))
    return SimpleNamespace(posterior=posterior, problem=SimpleNamespace(latent=latent), optimized=np.full(3, 7.0))


def test_draws_are_the_estimate_and_then_different_draws():
    result = example_posterior(20)
    draws = posterior_draws(result, 11, seed=1)
    assert draws.shape == (11, 3) and (draws[0] == 7).all()
    assert len(np.unique(draws[:, 0])) == 11
    assert np.isin(draws[1:], result.posterior.physical).all()


def test_more_runs_than_draws_come_from_the_gaussian_within_the_bounds():
    result = example_posterior(20)
    draws = posterior_draws(result, 200, seed=1)
    assert draws.shape == (200, 3)
    np.testing.assert_array_equal(np.sort(draws[1:21, 0]), np.sort(result.posterior.physical[:, 0]))
    more = draws[21:]
    assert np.abs(more).max() == 2 and (more[:, 2] == 0).all(), "clipped to the latent limit; the third is an offset"
    assert 1 < more[:, 0].std() < 3


def test_few_or_no_runs():
    check_runs(0)
    check_runs(2 * FEWEST)
    with pytest.raises(UserError, match="--refine is 3; it must be 0 .off. or 20 or more"):
        check_runs(3)
    with pytest.raises(UserError, match="--refine is -1"):
        check_runs(-1)


def test_a_process_model_that_fails_nearly_always_is_named():
    fluxes = np.full((30, DAYS, 4), np.nan)
    fluxes[: FEWEST - 1] = 0
    refinement = Refinement(None, None, SimpleNamespace(dates=DATES), CONTEXT, list(range(FEATURES)))
    with pytest.raises(UserError, match=f"{FEWEST - 1} of 30 simulator runs .* succeeded"):
        refinement.add(np.zeros((30, 3)), fluxes)


# --- kept runs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path):
    """A folder of kept runs, its names, vectors, a process model that counts its runs (tree_pmax > 25 fails)."""
    dates = np.datetime64("2015-01-01") + np.arange(40)
    possible = np.tile([300, 300, 300, 300, 200, 50, 1e-4, 0.018, 1.5, 400.0], (40, 1))
    weather, calls = SimpleNamespace(dates=dates, values=possible), []

    def runs(values):
        calls.append(len(values))
        for i, value in enumerate(values):
            if value[0] > 25:
                continue
            if value[0] < 10:
                raise KeyboardInterrupt
            yield i, 0.01 * np.ones((40, 4)) * np.array([4.0, 3.0, 1.0, 2.0])

    return SimpleNamespace(
        directory=tmp_path / "refinement", names=("tree_pmax", "tree_lue"), calls=calls,
        vectors=np.array([[20.0, 0.05], [28.0, 0.06]]), model=ProcessModel(weather, runs, {"model": "a"}),
    )  # fmt: skip


def test_runs_are_kept_and_reused(kept):
    first = RunStore(kept.directory, kept.names, kept.model).simulate(kept.vectors)
    assert np.isfinite(first[0]).all() and np.isnan(first[1]).all()
    again = RunStore(kept.directory, kept.names, kept.model)
    np.testing.assert_allclose(again.simulate(kept.vectors[:1]), first[:1], rtol=1e-6)
    assert kept.calls == [2], "a run that is there is not made again"
    ensemble = load_ensemble(kept.directory)
    assert ensemble.parameter_names == kept.names and ensemble.fluxes.shape == (1, 40, 4)


def test_an_interrupted_round_keeps_the_runs_that_had_ended(kept):
    with pytest.raises(KeyboardInterrupt):
        RunStore(kept.directory, kept.names, kept.model).simulate(np.array([[20.0, 0.05], [5.0, 0.05]]))
    RunStore(kept.directory, kept.names, kept.model).simulate(np.array([[20.0, 0.05], [21.0, 0.05]]))
    assert kept.calls == [2, 1]


def test_runs_of_another_process_model_are_not_reused(kept):
    RunStore(kept.directory, kept.names, kept.model).simulate(kept.vectors)
    with pytest.raises(UserError, match="holds simulator runs with another parameters than now"):
        RunStore(kept.directory, ("tree_pmax",), kept.model)
    with pytest.raises(UserError, match="refinement: holds simulator runs with another model than now; remove"):
        RunStore(kept.directory, kept.names, ProcessModel(kept.model.weather, kept.model.runs, {"model": "b"}))
    (kept.directory / "refinement.json").unlink()
    with pytest.raises(UserError, match="refinement.json"):
        RunStore(kept.directory, kept.names, kept.model)
