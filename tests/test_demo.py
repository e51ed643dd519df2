"""The demo's folder means the caller's, although its steps run in the repository."""

import sys

import pytest

from calibration.common.command_line import REPOSITORY, UserError
from extras import run_demo


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """run_demo.main() without its steps; returns their command lines."""
    seen = []
    monkeypatch.setattr(run_demo, "run_step", lambda step, *_: seen.append(step.arguments) or 0.0)
    monkeypatch.setattr(run_demo, "summary", lambda *_: "done")
    monkeypatch.chdir(tmp_path)
    return seen


def test_a_relative_folder_is_the_callers(steps, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["run_demo.py", "--folder", "mine"])
    assert run_demo.main() == 0
    assert (tmp_path / "mine" / "summary.txt").read_text() == "done\n" and not (REPOSITORY / "mine").exists()
    assert f"--output={tmp_path / 'mine' / 'weather.csv'}" in steps[0]


@pytest.mark.parametrize("name", ["file", "folder"])
def test_what_the_demo_did_not_make_is_left_alone(steps, monkeypatch, tmp_path, name):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "runs.txt").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["run_demo.py", "--folder", str(tmp_path / name)])
    with pytest.raises(UserError, match="is a file; give a folder|holds files that the demo did not make"):
        run_demo.main()
    assert (tmp_path / "folder" / "runs.txt").read_text() == (tmp_path / "file").read_text() == "mine" and not steps
