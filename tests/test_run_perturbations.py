"""Ensembles: the draw, the files, interruption and resuming, refusal of other settings, a Dask cluster on loopback."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import run_perturbations
from calibration.common.command_line import REPOSITORY, UserError
from calibration.common.parameters import make_space, read_ranges
from calibration.common.sites import load_site
from calibration.engines.perturbation import draw
from calibration.ensembles.files import load_ensemble, read_log
from calibration.visit.simulator import simulate
from calibration.weather.daily import generate_weather, read_weather, write_weather_csv

RUNS = 24  # enough that an interruption falls between the first and the last
SCRIPT = str(REPOSITORY / "run_perturbations.py")


@pytest.fixture(scope="module")
def weather_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weather") / "weather.csv"
    write_weather_csv(path, generate_weather(load_site(), "2011-01-01", "2012-12-31", seed=3))
    return path


def arguments_for(directory, weather_file, *more, runs=RUNS, jobs=1):
    return [
        "--n-samples", str(runs), "--seed", "7", "--weather", str(weather_file), "--start", "2012-01-01", "--end",
        "2012-12-31", "--jobs", str(jobs), "--output-dir", str(directory), *more,
    ]  # fmt: skip


def run_here(monkeypatch, arguments):
    """run_perturbations.main() in this process: no second import of everything."""
    monkeypatch.setattr(sys, "argv", [SCRIPT, *arguments])
    return run_perturbations.main()


def start(arguments, **options):
    return subprocess.Popen(
        [sys.executable, SCRIPT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, weather_file):
    directory = tmp_path_factory.mktemp("ensemble") / "data"
    process = start(arguments_for(directory, weather_file))
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert f"{RUNS} of {RUNS} runs succeeded, 0 failed (0 were there already)" in output
    assert f"dead forests (mean GPP below 1 Mg C ha-1 year-1): 0 of {RUNS}" in output
    return directory


def contents(directory):
    """Everything that decides the result: without wall times and the binary copy's file times."""
    found = {path.name: path.read_bytes() for path in directory.glob("LHP_*.txt")}
    for name in ("parameter_summary.csv", "parameter_log.json"):
        found[name] = (directory / name).read_bytes()
    results = pd.read_csv(directory / "experiment_results.csv").drop(columns="seconds")
    found["experiment_results.csv"] = results.to_csv().encode()
    with np.load(directory / "ensemble.npz") as archive:
        for name in ("sample_ids", "dates", "fluxes", "dynamic"):
            found[f"ensemble.npz/{name}"] = archive[name].tobytes()
    return found


# ---- the draw


def test_draw_is_a_seeded_latin_hypercube_of_the_prior():
    space = read_ranges()
    values = draw(space, 50, seed=1)
    unit = space.physical_to_unit(values)
    assert (np.sort(np.floor(unit * 50).astype(int), axis=0) == np.arange(50)[:, None]).all()  # one in each stratum
    assert (values == draw(space, 50, seed=1)).all() and (values != draw(space, 50, seed=2)).all()
    assert (values[:, space.names.index("tree_alloc_ass")] <= values[:, space.names.index("tree_alloc_abg")]).all()
    space.check(values)


# ---- what is written


def test_files_of_an_ensemble(uninterrupted, weather_file):
    files = sorted(uninterrupted.glob("LHP_*_daily_*.txt"))
    assert [path.name[-8:] for path in files] == [f"{i:04d}.txt" for i in range(RUNS)]
    table = pd.read_csv(uninterrupted / "parameter_summary.csv")
    space = read_ranges()
    assert list(table.columns) == ["sample_id", *space.names] and len(table) == RUNS
    log = json.loads((uninterrupted / "parameter_log.json").read_text())
    assert log["settings"]["seed"] == 7 and log["settings"]["n_samples"] == RUNS
    assert log["samples"]["3"] == table.iloc[3, 1:].to_dict()
    assert log["weather_source"] == str(weather_file) and "numpy" in log["versions"]
    results = pd.read_csv(uninterrupted / "experiment_results.csv")
    assert results.status.tolist() == ["ok"] * RUNS and (results.seconds > 0).all()

    loaded = load_ensemble(uninterrupted)
    assert (loaded.parameters == table[list(space.names)].to_numpy()).all()
    assert str(loaded.dates[0]) == "2012-01-01" and len(loaded.dates) == 366
    weather = read_weather(weather_file).between("2012-01-01", "2012-12-31")
    np.testing.assert_allclose(loaded.dynamic, weather.values, rtol=1e-8)
    annual = loaded.fluxes.mean(axis=1, dtype=np.float64) * 365.25
    np.testing.assert_allclose(results[["mean_gpp", "mean_npp", "mean_nep", "mean_rh"]], annual, rtol=1e-5)


def test_copy_equals_the_text(uninterrupted):
    copy, text = load_ensemble(uninterrupted), load_ensemble(uninterrupted, cache=False)
    assert (copy.fluxes == text.fluxes).all()
    np.testing.assert_allclose(copy.dynamic, text.dynamic, rtol=1e-15)


def test_the_period_is_cut_out_of_a_run_over_the_whole_weather(uninterrupted, weather_file):
    loaded = load_ensemble(uninterrupted)
    values = dict(zip(loaded.parameter_names, loaded.parameters[2], strict=True))
    whole = simulate(pd.DataFrame([values]), read_weather(weather_file), load_site())
    np.testing.assert_allclose(loaded.fluxes[2, :, 0], whole.gpp[0, 365:], rtol=1e-6)
    np.testing.assert_allclose(loaded.fluxes[2, :, 2], whole.nep[0, 365:], atol=1e-8)


def test_ranges_are_remembered_with_their_ties(uninterrupted):
    noted, expected = read_log(uninterrupted)["settings"]["ranges"], read_ranges()
    space = make_space([(name, of["min"], of.get("max", of.get("max_from"))) for name, of in noted.items()], "the log")
    assert space.names == expected.names and space.tied_to == expected.tied_to
    assert (space.lower == expected.lower).all() and (space.upper == expected.upper).all()


# ---- interruption


def wait_for_files(process, directory, pattern, count):
    for _ in range(1200):
        if len(list(directory.glob(pattern))) >= count or process.poll() is not None:
            return
        time.sleep(0.05)


def children_of(pid):
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listing.splitlines() if int(line.split()[1]) == pid]


def test_killed_and_taken_up_again(uninterrupted, tmp_path, weather_file):
    directory = tmp_path / "data"
    arguments = arguments_for(directory, weather_file, jobs=2)
    process = start(arguments)
    wait_for_files(process, directory, "LHP_*_daily_*.txt", 2)
    workers = children_of(process.pid)
    process.kill()
    process.communicate()
    finished = {path.name: path.stat().st_mtime_ns for path in directory.glob("LHP_*_daily_*.txt")}
    assert 2 <= len(finished) < RUNS
    with pytest.raises(UserError, match=r"has no file \*_daily_00"):
        load_ensemble(directory)

    process = start(arguments)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert f"{RUNS} of {RUNS} runs succeeded, 0 failed ({len(finished)} were there already)" in output
    assert contents(directory) == contents(uninterrupted)
    for name, written in finished.items():
        assert (directory / name).stat().st_mtime_ns == written  # not run again
    for worker in workers:  # nobody is left behind
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


def test_ctrl_c_says_how_to_go_on(uninterrupted, tmp_path, weather_file, monkeypatch, capsys):
    directory = tmp_path / "data"
    # tests that were themselves started in the background ignore Ctrl-C, and what they start inherits that
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = start(arguments_for(directory, weather_file, "--no-text", jobs=2), start_new_session=True, **heard)
    wait_for_files(process, directory, "parts/*.npy", 1)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate()
    assert process.returncode == 130 and errors.splitlines()[-1] == "interrupted"
    assert f"of {RUNS} runs; the same command continues" in output
    parts = len(list((directory / "parts").glob("[0-9]*.npy")))  # not one that was being written

    assert run_here(monkeypatch, arguments_for(directory, weather_file, "--no-text")) == 0
    assert f"({parts} were there already)" in capsys.readouterr().out
    assert sorted(path.name for path in directory.iterdir() if path.name != ".lock") == [
        "ensemble.npz", "experiment_results.csv", "parameter_log.json", "parameter_summary.csv",
        "run_perturbations_record.json",
    ]  # fmt: skip
    with_text, without = load_ensemble(uninterrupted), load_ensemble(directory)
    assert (with_text.fluxes == without.fluxes).all() and (with_text.parameters == without.parameters).all()
    assert run_here(monkeypatch, arguments_for(directory, weather_file, "--no-text")) == 0
    assert f"({RUNS} were there already)" in capsys.readouterr().out


@pytest.fixture
def copied(uninterrupted, tmp_path):
    directory = tmp_path / "data"
    directory.mkdir()
    for path in uninterrupted.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    return directory


def test_a_damaged_finished_run_is_made_again(uninterrupted, copied, weather_file, monkeypatch, capsys):
    damaged = sorted(copied.glob("LHP_*.txt"))[4]
    damaged.write_bytes(damaged.read_bytes()[:10_000])
    assert run_here(monkeypatch, arguments_for(copied, weather_file)) == 0
    assert f"({RUNS - 1} were there already)" in capsys.readouterr().out
    assert contents(copied) == contents(uninterrupted)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seed", "8"], r"other settings \(seed: 7 there, 8 now\)"),
        (["--n-samples", "7"], rf"n_samples: {RUNS} there, 7 now"),
        (["--end", "2012-11-30"], r"end: 2012-12-31 there, 2012-11-30 now"),
        (["--spinup", "full"], r"spinup: fast there, full now"),
        (["--ranges", "RANGES"], r"ranges.tree_sla.max: 255.0 there, 250.0 now"),
        (["--weather", "WEATHER"], r"weather.sha256"),
        (["--site", "SITE"], r"site.lower_capacity: 477.0 there, 800.0 now"),
    ],
)
def test_other_settings_are_refused(copied, tmp_path, weather_file, monkeypatch, more, message):
    ranges = (REPOSITORY / "configs" / "range_of_paras.csv").read_text()
    (tmp_path / "RANGES").write_text(ranges.replace('"tree_sla", 85, 255', '"tree_sla", 85, 250'))
    site = (REPOSITORY / "configs" / "sites" / "lhp.yaml").read_text()
    (tmp_path / "SITE").write_text(site.replace("lower_capacity: 477.0", "lower_capacity: 800.0"))
    table = pd.read_csv(weather_file)
    table.loc[400, "tcdc_clm"] = 50.0
    table.to_csv(tmp_path / "WEATHER", index=False)
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in copied.iterdir()}
    with pytest.raises(UserError, match=message) as error:
        run_here(monkeypatch, arguments_for(copied, weather_file, *more))
    assert "--output-dir" in str(error.value)
    assert {path: path.stat().st_mtime_ns for path in copied.iterdir()} == before


def test_overwrite_begins_anew(copied, weather_file, monkeypatch):
    old = {path.name for path in copied.glob("LHP_*.txt")}
    assert run_here(monkeypatch, arguments_for(copied, weather_file, "--seed", "8", "--overwrite", runs=2)) == 0
    new = {path.name for path in copied.glob("LHP_*.txt")}
    assert len(new) == 2 and not new & old
    assert load_ensemble(copied).sample_ids.tolist() == [0, 1]


def test_overwrite_spares_what_others_made(copied, weather_file, monkeypatch):
    (copied / "LHP_20250101_daily_0099.txt").write_text("a run of the user's own VISIT")
    before = sorted(copied.iterdir())
    with pytest.raises(UserError, match=r"0099.txt: is not of the ensemble that --overwrite replaces \(1 such files\)"):
        run_here(monkeypatch, arguments_for(copied, weather_file, "--seed", "8", "--overwrite"))
    assert sorted(copied.iterdir()) == before


def test_a_users_own_ensemble_is_never_touched(copied, weather_file, monkeypatch):
    (copied / "parameter_log.json").unlink()
    before = sorted(copied.iterdir())
    for more in ([], ["--overwrite"]):
        with pytest.raises(UserError, match=r"this script did not make \(no parameter_log.json\)"):
            run_here(monkeypatch, arguments_for(copied, weather_file, *more))
    assert sorted(copied.iterdir()) == before


def test_two_at_once_in_one_folder_are_refused(copied, weather_file, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    with (copied / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another run_perturbations.py is writing here"):
            run_here(monkeypatch, arguments_for(copied, weather_file))


# ---- failures and bad input


def test_a_failing_run_stops_nothing(tmp_path, weather_file, monkeypatch, capsys):
    def sometimes(parameters, *arguments, **options):
        result = simulate(parameters, *arguments, **options)
        result.fluxes[np.asarray(parameters["tree_sla"]) > 170.0] = np.nan
        return result

    monkeypatch.setattr("calibration.visit.simulator.simulate", sometimes)
    assert run_here(monkeypatch, arguments_for(tmp_path / "data", weather_file, runs=6)) == 0
    assert "3 of 6 runs succeeded, 3 failed" in capsys.readouterr().out  # half of a Latin hypercube is above the middle
    results = pd.read_csv(tmp_path / "data" / "experiment_results.csv")
    assert (results.message[results.status == "failed"] == "the fluxes are not finite with these parameters").all()
    assert len(load_ensemble(tmp_path / "data").sample_ids) == 3

    broken = "calibration.visit.simulator.simulate"
    monkeypatch.setattr(broken, lambda *_, **__: (_ for _ in ()).throw(ValueError("no luck")))
    assert run_here(monkeypatch, arguments_for(tmp_path / "none", weather_file, runs=6)) == 1
    output = capsys.readouterr().out
    assert "0 of 6 runs succeeded, 6 failed" in output and "sample 0 failed: no luck" in output


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--n-samples", "0"], "--n-samples is 0; it must be 1 or more"),
        (["--jobs", "0"], "--jobs is 0"),
        (["--start", "2009-01-01"], "2009-01-01 to 2012-12-31 is asked for"),
        (["--weather", "absent.csv"], "absent.csv: no such file"),
        (["--output-dir", "wide.csv"], "--output-dir wide.csv: it is a file; give a folder"),
        (["--ranges", "wide.csv"], "tree_lue ranges from 0.02 to 0.5, legal is 0.005 to 0.12 mol mol-1; narrow"),
        (["--ranges", "unknown.csv"], "the process model has no parameter tree_wings"),
        (["--ranges", "cycle.csv"], "refer to each other in a circle"),
        (["--engine", "command"], "--engine command needs --run-folder"),
        (["--dask-scheduler", "tcp://127.0.0.1:9"], "no scheduler with workers answers"),
    ],
)
def test_bad_input_writes_nothing(tmp_path, weather_file, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("calibration.engines.cluster.CONNECT_SECONDS", 1)
    (tmp_path / "wide.csv").write_text('0: "tree_lue", 0.02, 0.5\n')
    (tmp_path / "unknown.csv").write_text('0: "tree_wings", 0.02, 0.5\n')
    (tmp_path / "cycle.csv").write_text('0: "tree_lue", 0.02, tree_sla\n1: "tree_sla", 30, tree_lue\n')
    with pytest.raises(UserError, match=message):
        run_here(monkeypatch, arguments_for(tmp_path / "data", weather_file, *more))
    assert not (tmp_path / "data").exists()


# ---- a cluster


def test_dask_cluster_gives_the_same_ensemble(uninterrupted, tmp_path, weather_file, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)  # workers start outside the repository
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    )
    with cluster:
        process = start(arguments_for(tmp_path / "data", weather_file, "--dask-scheduler", cluster.scheduler_address))
        output, errors = process.communicate(timeout=120)
        with distributed.Client(cluster) as client:
            pids = set(client.run(os.getpid).values())
    assert process.returncode == 0, errors
    assert len(pids) == 2 and os.getpid() not in pids
    assert f"{RUNS} of {RUNS} runs succeeded" in output
    assert contents(tmp_path / "data") == contents(uninterrupted)
