"""Your own VISIT from its run folder to an ensemble: what is found, and every way of being wrong refused."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from script_calls import script
from standin_visit import made_weather, make_run_folder, parameter_file
from waiting import waited

import run_perturbations
from calibration.common.command_line import REPOSITORY, UserError
from calibration.common.parameters import catalogue
from calibration.common.sites import DEFAULT_SITE, load_site
from calibration.engines.processes import version
from calibration.engines.run_folder import read_run_folder
from calibration.engines.visit_output import OutputFormat, complete_fluxes
from calibration.ensembles.files import load_ensemble
from calibration.visit.parameter_file import fill_template, read_slots
from calibration.weather.daily import read_weather, write_weather, write_weather_csv

SHORT = "year doy gpp npp nep".split()


@pytest.fixture(scope="module")
def weather():
    return made_weather("2011-01-01", "2011-12-31")


@pytest.fixture
def make(tmp_path, weather):
    """Makes a run folder in tmp_path."""
    return lambda *naming, **behaviour: make_run_folder(tmp_path / "CODE", *naming, weather=weather, **behaviour)


@pytest.fixture
def ensemble(tmp_path, monkeypatch, capsys):
    """Runs run_perturbations.main() in this process; returns exit code or message, and what it printed."""

    def call(*arguments, ranges='0: "tree_lue", 0.03, 0.07\n1: "tree_lc0", 5e-5, 1.4e-4\n', runs=4):
        (tmp_path / "ranges.csv").write_text(ranges)
        monkeypatch.setattr(
            sys, "argv",
            ["x", "--run-folder", str(tmp_path / "CODE"), "--n-samples", str(runs), "--jobs", "1", "--ranges",
             str(tmp_path / "ranges.csv"), "--output-dir", str(tmp_path / "data"), *map(str, arguments)],
        )  # fmt: skip
        try:
            code = run_perturbations.main()
        except UserError as error:
            code = " ".join(str(error).split())
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---- it works


@pytest.mark.parametrize(
    ("naming", "more", "flags"),
    [("txt", {}, []), ("csv", {"columns": SHORT, "scale": 100.0}, ["--columns", *SHORT, "--flux-unit", "g_m2"])],
)
def test_from_a_run_folder_to_an_ensemble_by_one_command(make, ensemble, tmp_path, weather, naming, more, flags):
    before = contents(make(naming, **more))
    code, said = ensemble(*flags)
    assert code == 0 and "4 of 4 runs succeeded" in said and "trial: three runs are as they should be" in said
    loaded = load_ensemble(tmp_path / "data")
    np.testing.assert_allclose(loaded.dynamic, weather.values, rtol=1e-6)
    lue, lc0 = loaded.parameters.T
    np.testing.assert_allclose(loaded.fluxes[:, 0, 0], 2.3 * lue * weather.values[0, 1] / 300, rtol=1e-4)
    np.testing.assert_allclose(loaded.fluxes[:, 0, 1], 0.35 * loaded.fluxes[:, 0, 0] - lc0, rtol=1e-4)
    assert contents(tmp_path / "CODE") == before
    assert sorted(path.name for path in (tmp_path / "data" / "logs").iterdir()) == ["trial.log"]
    assert ensemble(*flags)[1].startswith("4 of 4 runs succeeded, 0 failed (4 were there already)"), "no second trial"


def test_the_process_model_behind_a_run_folder_has_the_labels_of_its_ensemble(make, ensemble, tmp_path, monkeypatch):
    """The stand-in computes with visit_simulator: the values reached their slots, and check_ensemble.py agrees."""
    import check_ensemble

    make(simulator=True)
    assert ensemble("--jobs", "2", runs=3)[0] == 0
    report = tmp_path / "report.json"
    arguments = ["--data-dir", str(tmp_path / "data"), "--runs", "3", "--report", str(report)]
    monkeypatch.setattr(sys, "argv", ["x", *arguments])
    assert check_ensemble.main() == 0
    assert json.loads(report.read_text())["verdict"] == "agrees"


def test_whatever_the_binary_writes_the_users_folder_stays(make, ensemble, tmp_path):
    if not version():
        pytest.skip("this kernel has no Landlock: absolute paths are not kept off")
    target = tmp_path / "CODE" / "setting.txt"
    before = contents(make(deed="write inputs", absolute=[str(target), str(tmp_path / "CODE" / "INPUT" / "new")]))
    code, _ = ensemble()
    assert code == 0 and contents(tmp_path / "CODE") == before
    assert "Permission denied" in (tmp_path / "data" / "logs" / "trial.log").read_text()


def test_files_that_setting_names_elsewhere_are_copied_too(make, ensemble, tmp_path):
    folder = make()
    (folder / "INPUT" / "LHP_ERA5.txt").rename(tmp_path / "weather.txt")
    setting = folder / "setting.txt"
    setting.write_text(setting.read_text().replace("INPUT/LHP_ERA5.txt", str(tmp_path / "weather.txt")))
    assert read_run_folder(folder).settings["CLIMF"] == "OUTSIDE/CLIMF_weather.txt"
    assert ensemble(runs=2)[0] == 0


def test_a_deciduous_forest_is_for_your_own_visit_and_refused_by_the_process_model(make, ensemble, tmp_path, weather):
    site, own = tmp_path / "site.yaml", tmp_path / "weather.csv"
    site.write_text(DEFAULT_SITE.read_text().replace("forest: evergreen", "forest: deciduous"))
    write_weather_csv(own, weather)
    make()
    assert ensemble("--site", site, runs=2)[0] == 0
    here = ["--n-samples", 2, "--site", site, "--weather", own, "--output-dir", tmp_path / "built_in"]
    done = script("run_perturbations.py", *here)
    assert done.returncode == 2 and "site.yaml: forest is 'deciduous'" in done.stderr
    assert "no leaf fall by season" in done.stderr and not (tmp_path / "built_in").exists()


# ---- every way of being wrong is refused


@pytest.mark.parametrize(
    ("behaviour", "flags", "message"),
    [
        ({"deed": "crash"}, [], "trial run with the baseline failed.*exit code 1; its last words: .*Spin-up 1 of 201 "
         r"\| Too much light for tree 2: pool below zero"),
        ({"deed": "signal"}, [], r"killed by signal 11 \(SIGSEGV\)"),
        ({"deed": "hang"}, ["--timeout", "1"], "timeout: still running after 1 s; its last words: VISIT: Veg"),
        ({"deed": "nothing"}, [], r"no daily file: .*the run wrote LHP_v2_annual.txt \(11 bytes\), LHP_v2_need"),
        ({"deed": "half"}, [], "LHP_v2_daily.txt, line 181: 3 columns where the other rows have 18"),
        ({"days": 200}, [], "200 days, 2011-01-01 to 2011-07-19, expected 365, 2011-01-01 to 2011-12-31"),
        ({"crash above": 0.0521}, [], "trial run with other parameters failed.*pool below zero"),
        ({"digits": 1}, [], "the binary does not read the parameters you gave it: .* gave the same output; "
         "INPUT/parameter_LHP.txt was replaced: name the file"),
        ({"columns": SHORT}, [], "5 columns, expected at least 18 .*--columns"),
        ({"columns": ["year", "doy", "rh", "npp"]}, ["--columns", "year", "doy", "rh", "npp"],
         r"missing are gpp \(print gpp, or npp and ra, or nep and er\)"),
        ({"scale": 100.0}, [], "gpp is 11.* expected -5 to 5 .*see --flux-unit"),
        ({"scale": 0.1}, [], "as kg C m-2 day-1 fits: give --flux-unit kg_m2"),
        ({"columns": [*SHORT, "tmp_2m"], "offset": 1.0}, ["--columns", *SHORT, "tmp_2m"],
         r"tmp_2m on 2011-01-01 is .* in the weather it is .*your VISIT reads other weather"),
    ],
)  # fmt: skip
def test_a_wrong_set_up_is_refused_by_the_trial(make, ensemble, tmp_path, behaviour, flags, message):
    make(**behaviour)
    ranges = '0: "tree_lue", 0.0525, 0.0535\n' if set(behaviour) & {"digits", "crash above"} else None
    said, _ = ensemble(*flags, **({"ranges": ranges} if ranges else {}))
    assert pd.Series([said]).str.contains(message).all(), said
    assert not (tmp_path / "data" / "parameter_log.json").exists()


def test_another_parameter_file_with_a_fixed_name_is_pointed_out(make, ensemble, tmp_path):
    folder = make(parameters="INPUT/parameter_S1b.txt")
    (folder / "INPUT" / "parameter_S1b.txt").write_bytes(parameter_file())
    said, _ = ensemble()
    assert "INPUT/parameter_LHP.txt was replaced, but the folder holds INPUT/parameter_S1b.txt too: name" in said
    assert ensemble("--parameter-file", "INPUT/parameter_S1b.txt")[0] == 0


def test_identical_runs_stop_an_ensemble(make, ensemble, tmp_path):
    make(digits=3)
    said, _ = ensemble(ranges='0: "tree_lue", 0.048, 0.06\n', runs=30)
    assert "have different parameters and identical output" in str(said)
    again, _ = ensemble(ranges='0: "tree_lue", 0.048, 0.06\n', runs=30)
    assert "have different parameters and identical output" in str(again), "also when it is taken up again"


def test_a_run_that_fails_later_stops_nothing_and_leaves_its_log(make, ensemble, tmp_path):
    make(**{"crash above": 0.065})
    code, said = ensemble(runs=8)
    assert code == 0 and "7 of 8 runs succeeded, 1 failed" in said and "pool below zero" in said
    failed = pd.read_csv(tmp_path / "data" / "experiment_results.csv").query("status == 'failed'")
    logs = {path.name for path in (tmp_path / "data" / "logs").iterdir()}
    assert logs == {"trial.log", f"sample_{failed.sample_id.iloc[0]:04d}.log"}


def test_a_binary_that_is_random_is_said_to_be(make, ensemble):
    make(noise=1e-6)
    code, said = ensemble(runs=2)
    assert code == 0 and "two runs with the same parameters differ by gpp" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda code: (code / "setting.txt").unlink(), "holds no setting.txt"),
        (lambda code: (code / "INPUT" / "site_LHP.txt").unlink(), "SITEF names INPUT/site_LHP.txt, which is not there"),
        (lambda code: edit(code / "setting.txt", "PARAF", "X"), "key PARAF is missing or not in its place"),
        (lambda code: edit(code / "setting.txt", "BYEAR\t2011", "BYEAR x"), "BYEAR is 'x', expected a year"),
        (lambda code: edit(code / "setting.txt", "EYEAR\t2011", "EYEAR 2012"), "2011-01-01 to 2012-12-31 is asked for"),
        (lambda code: (code / "visit").chmod(0o644), "holds no executable program; run make there first"),
        (lambda code: (code / "run.sh").write_text("#!/bin/sh\n") and (code / "run.sh").chmod(0o755),
         "holds 2 programs (run.sh, visit); say which with --program"),
        (lambda code: edit(code / "INPUT" / "parameter_LHP.txt", "0.052", "0.06"),
         "slot 12 (line 13): found 0.06, expected the baseline 0.052 of tree_lue"),
        (lambda code: (code / "INPUT" / "LHP_ERA5.txt").write_text("a\n"), "is no 19-column forcing text"),
    ],
)  # fmt: skip
def test_unfit_folders_are_refused_before_anything_runs(make, ensemble, tmp_path, change, message):
    change(make())
    said, _ = ensemble()
    assert message in str(said)
    assert not (tmp_path / "data").exists()


def edit(path, before, after):
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--command-template", "./visit"], "two ways to run your VISIT"),
        (["--write-forcing"], "--write-forcing needs --weather FILE"),
        (["--engine", "builtin"], "leave one out"),
        (["--parameter-file", "INPUT/absent.txt"], "--parameter-file INPUT/absent.txt: no such file in"),
        (["--output-dir", "CODE/data"], "lies in the run folder, which stays as it is"),
    ],
)
def test_flags_that_do_not_go_together(make, ensemble, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    make()
    assert message in str(ensemble(*flags)[0])


@pytest.mark.parametrize(
    ("place", "before", "after", "shown"),
    [
        ("setting.txt", "SPUPT\t2000", "SPUPT\t100", "SPUPT: 2000 there, 100 now"),
        ("INPUT/site_LHP.txt", "150", "200", "files.INPUT/site_LHP.txt"),
        ("visit", "Finished", "Ready", "program: visit"),
        ("INPUT/parameter_LHP.txt", "20190401", "20200401", "parameter_file: INPUT/parameter_LHP.txt"),
    ],
)
def test_a_changed_set_up_is_not_mixed_in(make, ensemble, tmp_path, place, before, after, shown):
    folder = make()
    assert ensemble(runs=2)[0] == 0
    edit(folder / place, before, after)
    said, _ = ensemble(runs=2)
    assert "holds an ensemble with other settings (command.run_folder." in said and shown in said


# ---- weather


def test_the_weather_must_be_that_of_the_binary_or_is_written_for_it(make, ensemble, tmp_path, weather):
    make()
    other = made_weather("2011-01-01", "2011-12-31")
    other.values[7, 1] += 0.5
    write_weather_csv(tmp_path / "other.csv", other)
    said, _ = ensemble("--weather", tmp_path / "other.csv")
    assert "tmp_2m on 2011-01-08 is" in said and "--write-forcing" in said
    assert ensemble("--weather", tmp_path / "other.csv", "--write-forcing", runs=2)[0] == 0
    np.testing.assert_allclose(load_ensemble(tmp_path / "data").dynamic, other.values, rtol=1e-6)


def test_weather_converts_both_ways(tmp_path, weather, monkeypatch):
    import weather as script

    pressure = np.linspace(99000.0, 101000.0, len(weather))
    text, table = tmp_path / "forcing.txt", tmp_path / "weather.csv"
    write_weather(text, type(weather)(weather.dates, weather.values, "here", pressure), load_site())
    assert len(text.read_text().split("\n")[0].split()) == 19
    for source, target in ((text, table), (table, tmp_path / "again.txt")):
        monkeypatch.setattr(sys, "argv", ["x", "--convert", str(source), "--output", str(target)])
        script.main()
        read = read_weather(target)
        np.testing.assert_allclose(read.values, weather.values, rtol=2e-7)
        np.testing.assert_allclose(read.pressure, pressure, rtol=1e-7)


# ---- what is read


def test_fluxes_follow_from_the_identities():
    rng = np.random.default_rng(1)
    gpp, ra, rh = rng.random((3, 5))
    full = {"gpp": gpp, "npp": gpp - ra, "ra": ra, "rh": rh, "er": ra + rh, "nep": gpp - ra - rh, "nee": ra + rh - gpp}
    for given in map(str.split, ("gpp npp nep", "npp ra rh", "nee er rh", "gpp er rh", "gpp ra rh")):
        found = complete_fluxes({name: full[name] for name in given})
        for name in ("gpp", "npp", "nep", "rh"):
            np.testing.assert_allclose(found[name], full[name], atol=1e-12, err_msg=f"{name} from {given}")
    assert "npp" not in complete_fluxes({"gpp": gpp, "nep": gpp})


def test_a_header_row_names_the_columns(tmp_path, weather):
    rows = "\n".join(f"2011,{i},{0.1 + i / 1e4:.6f},0.05,0.01" for i in range(365))
    fluxes = OutputFormat(weather.dates, weather.values).read(tmp_path, f"YEAR,DOY,GPP,NPP,NEP\n{rows}\n".encode())
    np.testing.assert_allclose(fluxes[[0, 100]], [[0.1, 0.05, 0.01, 0.04], [0.11, 0.05, 0.01, 0.04]])


@pytest.mark.parametrize(
    "options",
    [{}, {"tokens_a_line": 5}, {"newline": "\r\n"}, {"comments": True}, {"tokens_a_line": 3, "newline": "\r\n"}],
)
def test_values_reach_their_slots_however_the_tokens_stand(tmp_path, options):
    slots = read_slots()
    values = {name: slot.baseline * 1.01 + 1e-4 for name, slot in slots.items()}
    content = fill_template(tmp_path, parameter_file(**options), values, slots)
    words = re.findall(rb"(?<!\S)[-+.\de]+(?!\S)", content)
    for name, slot in slots.items():
        assert float(words[slot.slot]) == pytest.approx(values[name], rel=1e-9), name
    assert content.count(b"\r\n") == parameter_file(**options).count(b"\r\n")
    assert len(slots) == sum(p.slot is not None for p in catalogue().values())


def test_version_and_date_on_one_line(tmp_path):
    content = parameter_file().replace(b"3.1\n20190401\n", b"version 3.1 of 2019-04-01\n")
    new = fill_template(tmp_path, content, {"tree_lue": 0.061}, read_slots()).split(b"\n")
    assert new[11] == b"0.061" and new[10] == content.split(b"\n")[10]


# ---- interruption


def test_kill_9_leaves_no_half_run_and_nothing_in_the_users_folder(make, tmp_path):
    before = contents(make(deed="hang"))
    (tmp_path / "scratch").mkdir()
    command = [
        sys.executable, str(REPOSITORY / "run_perturbations.py"), "--run-folder", str(tmp_path / "CODE"), "--jobs", "2",
        "--output-dir", str(tmp_path / "data"),
    ]  # fmt: skip
    process = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(tmp_path / "scratch")})
    staged = (tmp_path / "scratch").glob
    assert waited(lambda: len(list(staged("visit_*/visit"))) >= 1, 60)
    process.kill()
    process.wait()
    assert waited(lambda: not list(staged("visit_*")), 30)
    assert contents(tmp_path / "CODE") == before and not list(tmp_path.glob("data/*_daily_*"))

