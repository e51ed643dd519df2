"""Refinement: simulator runs at the posterior correct the emulator; --refine and --verify with either process model."""

import json
import sys
import textwrap
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from linear_emulator import CONTEXT, FEATURES, PARAMETERS, SPACE, LinearEmulator, emulate, scalers
from script_calls import call, process, script
from standin_visit import make_run_folder

import test_inversion
from calibration.common.command_line import UserError
from calibration.common.parameters import catalogue
from calibration.common.sites import DEFAULT_SITE, Variant, load_site
from calibration.emulator.error import EmulatorErrors
from calibration.ensembles.files import load_ensemble
from calibration.inversion.data import stretch_from_arrays
from calibration.judgement.refine import FEWEST, Refinement, RunStore, check_runs, local_correction, posterior_draws
from calibration.judgement.simulator_check import ProcessModel, site_of, verify_estimate
from calibration.weather.daily import Weather
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


@pytest.mark.parametrize(("share", "truth", "best"), [(0.4, (0.8, -0.7, 0.5), 0), (0.45, (0.3, 0.2, -0.4), 1)])
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


def test_a_weather_that_is_not_given_is_not_handed_to_the_users_visit(own_visit, tmp_path, capsys):
    command = ["--command-template", f"{own_visit.folder}/visit {{parameters}} {{weather}}", *own_visit.command[2:]]
    assert call(test_inversion.main, *own_visit.flags, "--result-dir", tmp_path, "--verify", *command) == 2
    assert "no --weather FILE is given" in capsys.readouterr().err


def test_verify_of_a_flux_that_was_not_fitted(own_visit, tmp_path):
    """NEP of an ensemble run is always known, and judged first."""
    made = invert(own_visit, tmp_path, "--targets", "gpp", "--verify", *own_visit.command)
    assert made.returncode == 0, made.stderr
    assert "simulator with the same parameters, NEP" in (tmp_path / "inversion_summary.txt").read_text()


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


TRIAL = 3  # runs before the first one

# --- the scripts -----------------------------------------------------------------------------------------------------

# Three years of daily output from a parameter file read by line number; every run leaves a line in `counter`.
FAKE_VISIT = """\
    #!{python}
    import datetime, math, sys
    lines = open(sys.argv[1]).read().splitlines()
    lue, lc0 = float(lines[12].split()[0]), float(lines[37].split()[0])
    open("{counter}", "a").write("run\\n")
    with open("VISIT_daily_out.txt", "w") as out:
        for n in range(1096):
            day = datetime.date(2011, 1, 1) + datetime.timedelta(n)
            doy = day.timetuple().tm_yday - 1
            wave = math.sin(n / 7)
            row = [300.5, 299.5 + wave, 300.2, 300.1, 200 + 40 * math.cos(n / 11), 40, 1e-4, 0.0185, 1.2, 400]
            gpp = lue * (2 + 0.3 * math.cos(n / 11))
            npp = 0.4 * gpp
            nep = npp - (0.03 + 100 * lc0 * (1 + 0.2 * wave))
            print(day.year, doy, day.month, day.day, *row, gpp, npp, gpp - nep, nep, file=out)
"""


@pytest.fixture(scope="module")
def own_visit(tmp_path_factory):
    """A user's VISIT, its baseline parameter file, an ensemble of eight of its runs and an emulator of them."""
    folder = tmp_path_factory.mktemp("own")
    program = folder / "visit"
    program.write_text(textwrap.dedent(FAKE_VISIT).format(python=sys.executable, counter=folder / "counter"))
    program.chmod(0o755)
    lines = [f"0.0  # line {i}\n" for i in range(140)]
    for parameter in catalogue().values():
        if parameter.slot is not None:
            lines[parameter.slot] = f"{parameter.baseline:<12g}{parameter.name}  in {parameter.unit}\n"
    (folder / "lhp.par").write_text("".join(lines))
    (folder / "ranges.csv").write_text('0: "tree_lue", 0.03, 0.07\n1: "tree_lc0", 5e-5, 1e-4\n')
    command = [
        "--command-template", f"{program} {{parameters}}", "--parameter-template", folder / "lhp.par", "--jobs", 1,
    ]  # fmt: skip
    made = script(
        "run_perturbations.py", "--engine", "command", "--n-samples", 8, "--start", "2011-01-01", "--end", "2013-12-31",
        "--ranges", folder / "ranges.csv", "--output-dir", folder / "data", *command,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    made = script(
        "train.py", "--data-dir", folder / "data", "--artifacts-dir", folder / "artifacts", "--epochs", 2,
        "--labels", "trust",
        "--steps-per-epoch", 4, "--batch-size", 8, "--device", "cpu", "--error-runs", 0, "--hidden-size", 8,
        "--num-layers", 1, "--train-period", 2011, 2011, "--validation-period", 2012, 2012, "--test-period", 2013, 2013,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    (folder / "fast.yaml").write_text(
        "starts: 2\nsamples: 300\nrandomized_draws: 20\nbounds_file: emulator\ngauss_newton: {max_iterations: 4}\n"
    )
    flags = ["--data-dir", folder / "data", "--artifacts-dir", folder / "artifacts", "--config", folder / "fast.yaml"]
    return SimpleNamespace(folder=folder, command=command, flags=[*flags, "--no-plots"])


def invert(own_visit, results, *arguments):
    return script("test_inversion.py", *own_visit.flags, "--result-dir", results, "--sample-id", 1, *arguments)


@pytest.fixture(scope="module")
def refined(own_visit, tmp_path_factory):
    """The result folder of --refine and --verify with the user's VISIT, the command and how often VISIT ran."""
    folder, arguments = tmp_path_factory.mktemp("refined"), ["--refine", 20, "--verify", *own_visit.command]
    before = runs_of(own_visit)
    made = invert(own_visit, folder, *arguments)
    assert made.returncode == 0, made.stderr
    assert "refinement round 1: 20 runs" in made.stdout
    return SimpleNamespace(folder=folder, arguments=arguments, runs=runs_of(own_visit) - before)


def runs_of(own_visit):
    return (own_visit.folder / "counter").read_text().count("\n")


def test_files_of_refine_and_verify_with_the_users_visit(own_visit, refined):
    table = pd.read_csv(refined.folder / "refinement.csv")
    assert (table["error_after"] < table["error_before"]).all(), "of runs left out: what is learned is not by heart"
    # and two with the last estimate, of --refine and --verify
    assert refined.runs <= table["runs"].iloc[-1] + 2 + TRIAL  # an estimate that comes back is not run again
    assert (
        f"the answer is that of round {table['round'][table['kept']].max()}"
        in (refined.folder / "inversion_summary.txt").read_text()
    )
    ensemble = load_ensemble(refined.folder / "refinement")
    assert ensemble.parameter_names == ("tree_lue", "tree_lc0") and len(ensemble.sample_ids) == refined.runs - 1 - TRIAL
    snapshot = json.loads((refined.folder / "params_snapshot.json").read_text())
    estimate = dict(zip(snapshot["names"], snapshot["optimized"], strict=True))
    written = (refined.folder / "visit_parameters.txt").read_text().splitlines()
    assert float(written[12].split()[0]) == pytest.approx(estimate["tree_lue"], rel=1e-5)


def test_refinement_that_is_taken_up_again_repeats_no_run(own_visit, refined):
    first, before = pd.read_csv(refined.folder / "refinement.csv"), runs_of(own_visit)
    made = invert(own_visit, refined.folder, *refined.arguments)
    assert made.returncode == 0, made.stderr
    assert runs_of(own_visit) - before == 1 + TRIAL, "only the run with the estimate, of --verify"
    pd.testing.assert_frame_equal(pd.read_csv(refined.folder / "refinement.csv"), first)
    other = invert(own_visit, refined.folder, "--refine", 20)
    assert other.returncode == 2 and "holds simulator runs with another model than now" in other.stderr


def test_refined_emulator_is_nearer_to_the_process_model_at_the_estimate(own_visit, refined, tmp_path):
    made = invert(own_visit, tmp_path, "--verify", *own_visit.command)
    assert made.returncode == 0, made.stderr
    rmse = []
    for folder in (tmp_path, refined.folder):
        nep = pd.read_csv(folder / "nep_comparison.csv")
        rmse.append(np.sqrt(np.mean((nep["optimized"] - nep["simulator"]) ** 2)))
    assert rmse[1] < 0.5 * rmse[0], rmse


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--refine", 3], "--refine is 3; it must be 0 (off) or 20 or more"),
        (["--refine", 20, "--unconstrained"], "--refine draws from the posterior, which --unconstrained leaves out"),
        (["--command-template", "./visit {parameters}"], "is what --refine and --verify run, and --model"),
        (["--verify", "--run-folder", "absent"], "absent: no such folder"),
        (["--refine", 20, "--command-template", "./visit {parameters}"], "needs --parameter-template"),
        (["--verify", "--weather", "absent.csv"], "absent.csv"),
        (["--verify", "--parameter-template", "absent.par"], "absent.par"),
        (["--verify", "--columns", "a", "b"], "belong to your own VISIT; give --run-folder too"),
    ],
)
def test_bad_requests_are_refused_before_the_inversion(own_visit, tmp_path, capsys, arguments, message):
    assert call(test_inversion.main, *own_visit.flags, "--result-dir", tmp_path, *arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_a_forgotten_site_is_refused_and_another_one_said(tmp_path, capsys):
    """The process model of --verify must stand where the ensemble's runs were made."""
    (tmp_path / "parameter_log.json").write_text('{"settings": {"site": {"latitude": 61.8}}}')
    with pytest.raises(UserError, match="made with latitude 61.8, lhp.yaml says 4.2; give the ensemble's site"):
        site_of(None, tmp_path)
    assert site_of(str(DEFAULT_SITE), tmp_path).latitude == 4.2
    assert "made with latitude 61.8" in capsys.readouterr().err
    assert site_of(None, tmp_path / "without_a_log").name == "LHP"
    assert "notice: site: LHP (default; --site FILE for another), for" in capsys.readouterr().err


def test_another_version_of_visit_than_the_ensembles_is_refused_too(tmp_path, capsys):
    """--verify with a built-in model that counts NEP otherwise would blame the emulator."""
    log, own = tmp_path / "parameter_log.json", {"settings": {"site": load_site().constants}}
    log.write_text(json.dumps(own))
    assert site_of(None, tmp_path).variant == Variant()
    own["settings"]["site"]["variant"] = asdict(Variant(exports_in_nep=True))
    log.write_text(json.dumps(own))
    with pytest.raises(UserError, match="made with variant .*'exports_in_nep': True.*, lhp.yaml says"):
        site_of(None, tmp_path)
    text = DEFAULT_SITE.read_text(encoding="utf-8").replace("exports_in_nep: false", "exports_in_nep: true")
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    assert site_of(str(tmp_path / "mine.yaml"), tmp_path).variant.exports_in_nep
    assert capsys.readouterr().err == "", "it is the ensemble's: nothing to say"
    log.write_text('["a list of runs, as earlier scripts wrote it"]')
    assert site_of(None, tmp_path).name == "LHP"


def test_the_same_with_a_run_folder_and_on_a_cluster(own_visit, tmp_path):
    """--refine and --verify with VISIT's own folder, its runs on a cluster that knows nothing of this repository."""
    distributed = pytest.importorskip("distributed")
    ensemble = load_ensemble(own_visit.folder / "data")
    make_run_folder(tmp_path / "CODE", weather=Weather(ensemble.dates, ensemble.dynamic, "the emulator's"))
    arguments = ["--refine", 20, "--verify", "--run-folder", tmp_path / "CODE"]
    flags = [*own_visit.flags, "--result-dir", tmp_path / "results", "--sample-id", 1, *arguments]
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as local:
        made = process("test_inversion.py", *flags, "--dask-scheduler", local.scheduler_address)
    assert made.returncode == 0, made.stderr
    nep = pd.read_csv(tmp_path / "results" / "nep_comparison.csv")
    estimate = json.loads((tmp_path / "results" / "params_snapshot.json").read_text())
    lue, lc0 = (estimate["optimized"][estimate["names"].index(name)] for name in ("tree_lue", "tree_lc0"))
    assert np.isfinite(nep["simulator"]).all()
    assert len(load_ensemble(tmp_path / "results" / "refinement").sample_ids) >= 20
    written = (tmp_path / "results" / "visit_parameters.txt").read_text().split()
    assert [float(written[slot]) for slot in (12, 37)] == pytest.approx([lue, lc0], rel=1e-5)

    site = tmp_path / "CODE" / "INPUT" / "site_LHP.txt"
    site.write_text("4.2 114.04 300\n")
    other = invert(own_visit, tmp_path / "results", *arguments)
    assert other.returncode == 2 and "holds simulator runs with another run_folder than now" in other.stderr
