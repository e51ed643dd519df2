"""The process model inverted itself: runs that are kept, slopes that spare runs, days of a CSV, and bad requests."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from script_calls import script
from standin_visit import made_weather, make_run_folder

from calibration.common.command_line import UserError
from calibration.common.parameters import catalogue, make_space, read_ranges
from calibration.common.sites import load_site
from calibration.common.units import DYNAMIC_FEATURES
from calibration.inversion.config import make_inversion_config
from calibration.inversion.data import Stretch, stretch_from_arrays
from calibration.inversion.methods import gauss_newton, starting_points
from calibration.judgement.judge import Case
from calibration.judgement.simulator_check import ProcessModel, simulate_vectors
from calibration.weather.daily import generate_weather
from calibration.workflows.process_forward import KeptRuns, ProcessForward
from calibration.workflows.process_inverter import SAME_COST, ProcessInverter, announce, expected_runs, kept_runs
from calibration.workflows.process_setup import observed_stretches, process_setup
from calibration.workflows.stand_in import StandIn

DAYS = 60
SPACE = make_space([(f"p{i}", 0.0, 1.0) for i in range(12)], "test")


@pytest.fixture(scope="module")
def forest_weather():
    return generate_weather(load_site(), "2012-01-01", "2012-12-31", seed=1)


def curved_forest(weather, asked):
    """A process model of twelve parameters whose slopes change by tens of percent over the ranges."""
    wave = np.sin(np.arange(len(weather))[None] / np.arange(2, 14)[:, None])

    def runs(values):
        """Fluxes of each run; how many were asked for is noted."""
        asked.append(len(values))
        for i, value in enumerate(values):
            nep = 0.03 + 0.02 * (value - 0.5) @ wave + 0.02 * ((value[:6] - 0.5) * (value[6:] - 0.5)) @ wave[:6]
            yield i, np.stack([2 * nep, 1.5 * nep, nep, 0.5 * nep], axis=1)

    return ProcessModel(weather, runs, {"model": "curved forest", "weather": "w"})


def observed(weather, model, truth):
    flux = model.run(truth[None])[0, 100 : 100 + DAYS]
    noise = 0.002 * np.random.default_rng(3).standard_normal(flux.shape)
    return [stretch_from_arrays(
        np.zeros((0, 10)), np.zeros((DAYS, 10)), flux + noise, np.ones(DAYS), start=str(weather.dates[100])
    )]  # fmt: skip


def inverter_of(weather, folder=None):
    asked: list[int] = []
    model = curved_forest(weather, asked)
    truth = np.linspace(0.2, 0.8, len(SPACE))
    stretches = observed(weather, model, truth)
    asked.clear()
    errors = {"observation_sd": 0.002, "discrepancy": False}
    config = make_inversion_config({"bounds_file": "emulator", "error_model": errors, "starts": 4})
    return ProcessInverter(kept_runs(model, SPACE.names, stretches, folder), SPACE, config), stretches, truth, asked


def test_the_stand_in_leads_to_the_minimum_of_full_differences(forest_weather):
    inverter, stretches, _, asked = inverter_of(forest_weather)
    prior = np.full(len(SPACE), 0.5)
    here = inverter.invert_stretches(prior, stretches).fit
    made = sum(asked)
    full = inverter.problem(prior, stretches)
    there = gauss_newton(full, starting_points(full, 4, 1), inverter.config)
    assert here.cost == pytest.approx(there.cost, abs=SAME_COST)
    stacked = full.least_squares(there.u[None], there.predicted[None], there.jacobian[None])[1][0]
    assert np.linalg.norm(stacked @ (here.u - there.u)) < np.sqrt(2 * SAME_COST)  # posterior sds, over all directions
    assert here.cost == pytest.approx(full.costs(here.u[None])[0][0], rel=1e-9)  # a run, not what stood in for it
    assert made < 0.6 * (sum(asked) - made) + 4 * inverter.config.randomized_draws  # the draws are not in the other


def test_every_draw_is_a_run_that_goes_down_its_own_cost(forest_weather):
    inverter, stretches, _, _ = inverter_of(forest_weather)
    result = inverter.invert_stretches(np.full(len(SPACE), 0.5), stretches)
    made = inverter.runs.made
    costs = result.problem.costs(result.posterior.latent)[0]
    assert inverter.runs.made == made  # all of them known
    # a draw's cost: the best one, and half a chi-squared variate of as many directions as there are parameters
    assert np.median(costs) - result.fit.cost == pytest.approx(len(SPACE) / 2, abs=2.5)
    assert any("stand-in" in note for note in result.notes)


def test_members_of_the_ensemble_method_are_runs(forest_weather):
    inverter, stretches, truth, _ = inverter_of(forest_weather)
    inverter = inverter.with_config(replace(inverter.config, method="ensemble"))
    few, many = expected_runs(inverter.config, len(SPACE))
    result = inverter.invert_stretches(np.full(len(SPACE), 0.5), stretches)
    made = inverter.runs.made
    result.problem.costs(result.posterior.latent)
    assert inverter.runs.made == made <= many and made > few / 2
    low, high = result.posterior.interval()
    assert np.mean((truth > low) & (truth < high)) >= 0.7


@pytest.mark.parametrize("content, said", [
    ({"randomized_draws": 0}, "every start ended was run; the samples of the posterior are those of the stand-in"),
    ({"posterior": "mcmc", "mcmc_minutes": 0.02}, "the chains moved on the stand-in"),
])  # fmt: skip
def test_what_was_not_run_is_said(forest_weather, content, said):
    inverter, stretches, _, _ = inverter_of(forest_weather)
    result = inverter.with_config(replace(inverter.config, **content)).invert_stretches(
        np.full(len(SPACE), 0.5), stretches
    )
    assert any(said in note for note in result.notes)


def test_closed_forms_and_runs_stand_in_for_the_process_model():
    space = read_ranges().subset(("tree_lue", "tree_pmax", "tree_topt", "soil_sr_lf"))
    site = load_site()
    weather = generate_weather(site, "2011-01-01", "2012-12-31", seed=1)

    def runs(values):
        """The built-in process model."""
        yield from enumerate(simulate_vectors(values, space.names, weather, site))

    nothing = np.full((60, 5), np.nan)
    days = Stretch(np.zeros((60, 10)), 0, nothing, np.isfinite(nothing), nothing, weather.dates[400:460])
    model = ProcessModel(weather, runs, {"model": "built-in"}, site)
    kept = kept_runs(model, space.names, [days], None)
    values = space.unit_to_physical(np.random.default_rng(0).random((30, len(space))))
    stand_in, truth = StandIn(kept, [days], space, len(space)), ProcessForward(kept, [days])

    def error(rows):
        """Root mean square errors (run,) of GPP, NPP, NEP and Rh together, Mg C ha-1 day-1."""
        vectors = torch.as_tensor(values[rows])
        return (stand_in(vectors)[0] - truth_of[rows]).square().mean(dim=(1, 2)).sqrt().numpy()

    truth_of = truth(torch.as_tensor(values[24:]))[0]
    truth_of = torch.cat([truth(torch.as_tensor(values[:24]))[0], truth_of])
    kept.asked = dict(list(kept.asked.items())[6:])  # the first six asked for are the unseen ones
    unseen, taught = slice(24, 30), slice(0, 24)
    alone = error(unseen)
    assert np.median(alone) < 0.004  # fluxes are about 0.05 to 0.1
    stand_in.learn()
    assert (error(unseen) < alone).all() and np.median(error(unseen)) < 0.8 * np.median(alone)
    assert error(taught).max() < 1e-4


def test_an_inversion_covers_the_truth_and_repeats_no_run_when_it_is_taken_up_again(forest_weather, tmp_path):
    inverter, stretches, truth, asked = inverter_of(forest_weather, tmp_path)
    prior = np.full(len(SPACE), 0.5)
    first = inverter.invert_stretches(prior, stretches)
    low, high = first.posterior.interval()
    assert np.mean((truth > low) & (truth < high)) >= 0.7
    assert np.median(first.posterior.sd_ratio) < 0.7  # the slowest waves look alike in sixty days
    assert sum(asked) == inverter.runs.made

    again, stretches, _, asked = inverter_of(forest_weather, tmp_path)
    second = again.invert_stretches(prior, stretches)
    assert sum(asked) == 0
    assert np.array_equal(first.posterior.physical, second.posterior.physical)


def test_what_is_said_beforehand_holds_the_runs_that_are_made(forest_weather):
    inverter, stretches, _, _ = inverter_of(forest_weather)
    few, many = expected_runs(inverter.config, len(SPACE))
    said: list[str] = []
    announce(inverter.runs, inverter.config, SPACE, len(SPACE), said.append)
    assert f"curved forest: {few} to {many} runs ahead" in said[0] and "s a run" in said[0]
    inverter.invert_stretches(np.full(len(SPACE), 0.5), stretches)
    assert 0.3 * few < inverter.runs.made <= many


def test_half_a_record_is_made_again_and_other_runs_are_refused(forest_weather, tmp_path):
    asked: list[int] = []
    model = curved_forest(forest_weather, asked)
    days = forest_weather.dates[10], forest_weather.dates[19]
    values = np.random.default_rng(0).random((5, len(SPACE)))
    made = KeptRuns(model, SPACE.names, *days, tmp_path)(values)
    with (tmp_path / "runs.bin").open("r+b") as handle:
        handle.truncate((tmp_path / "runs.bin").stat().st_size - 7)
    asked.clear()
    store = KeptRuns(model, SPACE.names, *days, tmp_path)
    assert np.array_equal(store(values), made)
    assert asked == [1]
    assert store.tally() == "1 made, 4 kept from before"
    other = ProcessModel(model.weather, model.runs, {"model": "curved forest", "weather": "another"})
    with pytest.raises(UserError, match="other weather than now"):
        KeptRuns(other, SPACE.names, *days, tmp_path)


def test_a_failed_run_costs_its_direction_only(forest_weather):
    inverter, stretches, _, _ = inverter_of(forest_weather)
    whole = inverter.runs.model.runs

    def without_large_first(values):
        """Runs with a large first parameter fail."""
        return ((i, flux) for i, flux in whole(values) if values[i, 0] < 0.55)

    inverter.runs.model = ProcessModel(forest_weather, without_large_first, inverter.runs.model.identity)
    result = inverter.invert_stretches(np.full(len(SPACE), 0.5), stretches)
    assert np.isfinite(result.posterior.physical).all() and result.optimized[0] < 0.55
    assert inverter.runs.failed > 0


def write_csv(path, first, days):
    dates = pd.date_range(first, periods=days)
    nep = 0.01 * np.arange(days)
    table = pd.DataFrame({"date": dates.strftime("%Y-%m-%d"), "nee_gcm2": -100 * nep, "nep_mg_ha": nep, "obs_mask": 1})
    table.loc[1, "obs_mask"] = 0
    table.to_csv(path, index=False)
    return path


def test_days_of_a_csv_become_a_stretch(forest_weather, tmp_path):
    path = write_csv(tmp_path / "nep.csv", "2012-03-01", 6)
    scaler = process_setup(make_inversion_config({}), "c.yaml", None, None).dynamic_scaler
    assert scaler.names == DYNAMIC_FEATURES
    (stretch,), held = observed_stretches(forest_weather, path, scaler)
    assert stretch.mask[:, 2].tolist() == [True, False, True, True, True, True] and held == []
    assert not stretch.mask[:, 0].any()
    day = pd.Timestamp("2012-03-05").date(), pd.Timestamp("2012-03-06").date()
    (stretch,), (held,) = observed_stretches(forest_weather, path, scaler, holdout=day)
    assert held.mask[:, 2].sum() == 2 and stretch.mask[:, 2].sum() == 3
    late = write_csv(tmp_path / "late.csv", "2012-12-30", 6)
    with pytest.raises(UserError, match=r"late.csv: the days 2012-12-30 to 2013-01-04 are not covered by"):
        observed_stretches(forest_weather, late, scaler)


def test_the_prior_is_the_middle_of_the_ranges(forest_weather):
    setup = process_setup(make_inversion_config({}), "c.yaml", None, None)
    assert len(setup.parameter_names) == 36
    assert setup.space.physical_to_unit(setup.training_parameters) == pytest.approx(0.5)


@pytest.mark.parametrize("content, message", [
    ({"method": "adam"}, "follows gradients"),
    ({"posterior": "tempered"}, "some 20000 runs, for the emulator alone; use draws"),
    ({"lambda_prior": 0.1}, "lambda_prior: null"),
])  # fmt: skip
def test_what_needs_an_emulator_is_refused(forest_weather, content, message):
    inverter, _, _, _ = inverter_of(forest_weather)
    with pytest.raises(UserError, match=message):
        ProcessInverter(inverter.runs, SPACE, make_inversion_config(content), "c.yaml")


@pytest.mark.parametrize("arguments, message", [
    (["--model", "command"], "--run-folder or --command-template"),
    (["--model", "simulator", "--run-folder", "x"], "--model command"),
    (["--model", "simulator", "--verify"], "needs neither"),
    (["--model", "simulator", "--unconstrained"], "needs bounds"),
    (["--model", "simulator", "--obs", "x.csv"], "give --weather"),
    (["--model", "simulator", "--obs-npz", "none.npz"], "no such file"),
    (["--obs", "x.csv"], "--model simulator"),
])  # fmt: skip
def test_flags_that_do_not_go_together(monkeypatch, tmp_path, arguments, message):
    import test_inversion

    monkeypatch.setattr("sys.argv", ["test_inversion.py", *arguments, "--result-dir", str(tmp_path / "r")])
    with pytest.raises(UserError, match=message):
        test_inversion.main()


def test_the_model_line_names_no_path_of_the_machine():
    import test_inversion

    setup = process_setup(make_inversion_config({}), "c.yaml", None, None)
    arguments = SimpleNamespace(model="simulator", mode="observation", unconstrained=False)
    facts = test_inversion.facts_of(arguments, Case([], [], "days", 1), "middle", setup)
    assert facts["model"] == "simulator, the process model itself; parameters of configs/range_of_paras.csv"


@pytest.mark.parametrize("verdict", ["FITS AND IS INFORMATIVE", "CONFLICTS WITH THE MODEL"])
def test_nothing_is_advised_that_this_model_refuses(verdict):
    import test_inversion

    judgement = SimpleNamespace(result=object(), verdict=verdict)
    for model, advised in (("simulator", False), ("emulator", True)):
        arguments = SimpleNamespace(model=model, diagnose=False, verify=False)
        assert ("--" in test_inversion.following(arguments, judgement)) == advised


@pytest.fixture
def own_visit(tmp_path):
    """Flags that judge parameters by a user's VISIT, whose climate file is longer than its run; no --weather."""
    folder = make_run_folder(tmp_path / "CODE", weather=made_weather("2011-01-01", "2012-12-31"))
    settings = folder / "setting.txt"
    settings.write_text(settings.read_text().replace("EYEAR\t2012", "EYEAR\t2011"))
    (tmp_path / "ranges.csv").write_text('0: "tree_lue", 0.03, 0.07\n1: "tree_lc0", 5e-5, 1.4e-4\n')
    (tmp_path / "c.yaml").write_text(f"bounds_file: {tmp_path / 'ranges.csv'}\n")
    snapshot = {"names": ["tree_lue", "tree_lc0"], "prior": [0.05, 1e-4], "optimized": [0.04, 6e-5], "metadata": {}}
    (tmp_path / "snapshot.json").write_text(json.dumps(snapshot))
    return ["--model", "command", "--run-folder", folder, "--config", tmp_path / "c.yaml", "--param-load",
            tmp_path / "snapshot.json", "--result-dir", tmp_path / "r", "--no-plots"]  # fmt: skip


def test_a_run_folders_climate_file_is_the_weather_where_none_is_given(own_visit, tmp_path):
    done = script("test_inversion.py", *own_visit, "--obs", write_csv(tmp_path / "nep.csv", "2011-03-01", 20))
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "r" / "nep_comparison.csv")
    warmth = made_weather("2011-01-01", "2012-12-31").column("tmp_2m")[59:79]
    soil = 0.0003 * catalogue()["soil_sr_lf"].baseline  # the stand-in's formula: see PROGRAM in standin_visit.py
    gpp = 2.3 * 0.04 * (1 + 0.1 * np.sin(np.arange(59, 79) / 58)) * warmth / 300
    assert table["optimized"].to_numpy() == pytest.approx(0.35 * gpp - 6e-5 - soil, rel=1e-3)
    late = script("test_inversion.py", *own_visit, "--obs", write_csv(tmp_path / "late.csv", "2012-03-01", 20))
    assert late.returncode == 2 and "the process model's runs only 2011-01-01 to 2011-12-31" in late.stderr
    assert "CODE/INPUT/LHP_ERA5.txt" in late.stderr


def test_a_climate_file_that_does_not_tell_the_weather_asks_for_it(own_visit, tmp_path):
    flags = [*own_visit, "--obs", write_csv(tmp_path / "nep.csv", "2011-03-01", 20)]
    done = script("test_inversion.py", *flags, "--write-forcing")
    assert done.returncode == 2 and "give --weather FILE too" in done.stderr
    (tmp_path / "CODE" / "INPUT" / "LHP_ERA5.txt").write_bytes(b"\x00binary of another version")
    done = script("test_inversion.py", *flags)
    assert done.returncode == 2 and "no 19-column forcing text" in done.stderr and "--weather FILE" in done.stderr


def test_an_emulator_of_another_parameter_list_is_refused(tiny_training, monkeypatch, tmp_path):
    import test_inversion

    monkeypatch.setattr("sys.argv", [
        "test_inversion.py", "--model", "simulator", "--artifacts-dir", str(tiny_training / "artifacts"), "--obs",
        str(write_csv(tmp_path / "nep.csv", "2016-03-01", 6)), "--weather", "w.csv", "--result-dir",
        str(tmp_path / "r"),
    ])  # fmt: skip
    with pytest.raises(UserError, match="has the parameter my_parameter, which the built-in process model does not"):
        test_inversion.main()
