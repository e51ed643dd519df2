"""--refine and --verify of test_inversion.py with the user's VISIT, in a folder of its own, and on a cluster."""

import json
import sys
import textwrap
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from script_calls import call, process, script
from standin_visit import make_run_folder

import test_inversion
from calibration.common.command_line import UserError
from calibration.common.parameters import catalogue
from calibration.common.sites import DEFAULT_SITE, Variant, load_site
from calibration.ensembles.files import load_ensemble
from calibration.judgement.simulator_check import site_of
from calibration.weather.daily import Weather

TRIAL = 3  # runs before the first one

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


def test_a_weather_that_is_not_given_is_not_handed_to_the_users_visit(own_visit, tmp_path, capsys):
    command = ["--command-template", f"{own_visit.folder}/visit {{parameters}} {{weather}}", *own_visit.command[2:]]
    assert call(test_inversion.main, *own_visit.flags, "--result-dir", tmp_path, "--verify", *command) == 2
    assert "no --weather FILE is given" in capsys.readouterr().err


def test_verify_of_a_flux_that_was_not_fitted(own_visit, tmp_path):
    """NEP of an ensemble run is always known, and judged first."""
    made = invert(own_visit, tmp_path, "--targets", "gpp", "--verify", *own_visit.command)
    assert made.returncode == 0, made.stderr
    assert "simulator with the same parameters, NEP" in (tmp_path / "inversion_summary.txt").read_text()
