"""The demo: all its steps run, small; its folder means the caller's; what it did not make is left alone."""

import json
import sys
from html import unescape
from types import SimpleNamespace

import pandas as pd
import pytest
from script_calls import script

from calibration.common.command_line import REPOSITORY, UserError
from calibration.reports import inversion
from extras import run_demo

FIGURES = (
    "artifacts/evaluation_rmse.png", "results/year/nep_comparison.png", "results/year/identifiability.png",
    "results/window/loss_history.png", "results/window/prior_conflict.png",
)  # fmt: skip


def step_here(command, stdout=None, **_):
    """subprocess.run() of a step, in this process: the first and the last step keep one of their own."""
    done = script(*command[1:])
    if hasattr(stdout, "write"):
        stdout.write(done.stdout + done.stderr)
    return SimpleNamespace(returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Folder and output of a small demo that was started elsewhere with a relative folder."""
    start, real = tmp_path_factory.mktemp("caller"), run_demo.subprocess.run
    own = ("weather.py", "plot_param_scatter.py", "make_report.py")

    def step(command, **options):
        return (real if command[1] in own else step_here)(command, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(start)
        patch.setattr(run_demo, "subprocess", SimpleNamespace(run=step, STDOUT=run_demo.subprocess.STDOUT))
        done = script("extras/run_demo.py", "--small", "--runs", "8", "--folder", "mine")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return start / "mine", done.stdout


def test_every_step_leaves_what_it_promises_in_the_callers_folder(demo):
    folder, output = demo
    assert not (REPOSITORY / "mine").exists()
    assert ("\n" + output).count("\n[") == len(run_demo.demo_steps(folder, 8, "recommended", 1)) == 12
    lines = output.replace(str(folder), "demo").splitlines()
    assert len(lines) <= 45 and max(map(len, lines)) <= 130, "a screenful"
    log = (folder / run_demo.LOG).read_text(encoding="utf-8")
    assert log.count("$ python ") == 12 and "Warning" not in log, "a library's warnings are not the user's business"
    assert [name for name in FIGURES if (folder / name).stat().st_size < 5000] == []
    assert len(list(folder.glob("results/recovery/*overview.png"))) == 1
    assert len(list(folder.glob("results/recovery/*norm_scatter.png"))) == 1


def test_the_closing_screen_says_what_the_files_say(demo):
    folder, output = demo
    summary = (folder / "summary.txt").read_text()
    assert summary.strip() in output
    assert output.splitlines()[-1].startswith(f"Open {folder / 'report.html'} in a browser")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(words in page for words in ("The emulator", "Inversion: year", "Recovery of a known run"))
    runs = pd.read_csv(folder / "data" / "experiment_results.csv")
    assert f"{(runs['status'] == 'ok').sum()} of 8 runs, mean GPP {runs['mean_gpp'].mean():.1f}" in summary
    assert "The tower is made up: daily NEP" in page
    assert page.index('href="#s1">Inversion: year') < page.index("The ensemble")
    unseen = json.loads((folder / "artifacts" / "evaluation.json").read_text())["unseen"]
    line = next(line.split() for line in summary.splitlines() if line.strip().startswith("unseen"))
    expected = [unseen[flux]["r2"] for flux in ("gpp", "npp", "nep", "rh")] + [1000 * unseen["nep"]["rmse"]]
    assert [float(value) for value in line[1:]] == pytest.approx(expected, abs=6e-4)
    year = (folder / "results" / "year" / "inversion_summary.txt").read_text()
    assert year.partition(":")[0] in summary and "simulator against the data, NEP" in year
    truth = json.loads((folder / "observations" / "tower_truth.json").read_text())["parameters"]
    table = pd.read_csv(folder / "results" / "year" / "posterior_summary.csv").set_index("param_name")
    inside = sum(table.low_90[name] <= value <= table.high_90[name] for name, value in truth.items())
    assert f"{inside} of {len(truth)} true parameters lie inside" in summary
    assert f"{inside} of {len(truth)} lie inside their" in page


def test_the_page_shows_the_towers_true_parameters(demo):
    """The tower is made up, so they are known; no inversion was given them."""
    folder, _ = demo
    truth = json.loads((folder / "observations" / "tower_truth.json").read_text())["parameters"]
    for name in run_demo.INVERSIONS:
        (table,) = [block for block in inversion.section(folder / "results" / name).blocks
                    if block.kind == "table" and block.headers[0] == "parameter"]  # fmt: skip
        column = list(table.headers).index("true")
        assert {row[0]: row[column] for row in table.rows} == pytest.approx(truth)
        assert "tower_truth" not in (folder / "results" / name / "test_inversion_record.json").read_text()


def test_the_page_ends_with_the_steps_their_seconds_and_seeds(demo):
    folder, _ = demo
    steps = pd.read_csv(folder / "steps.csv").set_index("script")
    made = run_demo.demo_steps(folder, 8, "recommended", 1)
    assert list(steps.index) == [step.arguments[0] for step in made] and (steps["seconds"] >= 0).all()
    assert steps.loc["weather.py", "seed"] == 1 and steps.loc["extras/make_synthetic_tower.py", "seed"] == 1001
    record = json.loads((folder / "artifacts" / "train_record.json").read_text())
    assert steps.loc["train.py", "seed"] == record["seed"]
    train = steps.loc["train.py", "command"]
    assert train == record["command"] and "RECOVERY_CSV" not in "".join(steps["command"])
    assert pd.isna(steps.loc["prepare_observation_nep.py", "seed"])
    page = (folder / "report.html").read_text(encoding="utf-8")
    last = page[page.index('<section id="steps">') : page.index('<section id="words">')]
    assert page.index('<section id="s7">') < page.index('<section id="steps">')
    assert [title for title in steps["step"] if title not in unescape(last)] == []
    assert [command for command in steps["command"] if command not in unescape(last)] == []
    assert f"{steps['seconds'].sum():.0f} seconds in all" in last


def test_the_readmes_pictures_are_drawn_from_it(demo, tmp_path):
    folder, _ = demo
    done = script("extras/draw_readme_pictures.py", "--folder", folder, "--output-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"emulator.png", "nep.png", "parameters.png"}
    assert 3000 < sum(path.stat().st_size for path in tmp_path.iterdir()) < 500_000


@pytest.mark.parametrize("name", ["file", "folder"])
def test_what_the_demo_did_not_make_is_left_alone(monkeypatch, tmp_path, name):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "runs.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run_demo.py", "--folder", str(tmp_path / name)])
    with pytest.raises(UserError, match="is a file; give a folder|holds files that the demo did not make"):
        run_demo.main()
    assert (tmp_path / "folder" / "runs.txt").read_text() == (tmp_path / "file").read_text() == "mine"
