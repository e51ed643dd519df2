"""What a worker process leaves when the process that started it is killed, whatever it was doing then."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from waiting import waited

from calibration.common.command_line import REPOSITORY

WORKER = """
import multiprocessing, os, sys, time
from pathlib import Path
from calibration.engines.processes import execute, prepare_worker, working_directory

def filling(workdir):  # a copy of a big folder, which makes its folders as it goes
    for i in range(1500):
        (workdir / f"part{i % 7}").mkdir(parents=True, exist_ok=True)
        (workdir / f"part{i % 7}" / f"file{i}").write_text("x")
        time.sleep(0.001)

def running(workdir):  # many short programs, one after the other; one that starts late would stay
    while True:
        execute(["sh", "-c", f"kill -0 {parent} && sleep 0.05 || sleep 900"], workdir, None, 1000.0)

def waiting(workdir):
    execute(["sh", "-c", "trap '' TERM; sleep 900; sleep 901"], workdir, None, 1000.0)

def work(deed, scratch):
    prepare_worker(parent)
    while True:
        with working_directory("x", scratch) as workdir:
            (workdir / "begun").write_text("")
            globals()[deed](workdir)

if __name__ == "__main__":
    parent = os.getpid()
    multiprocessing.get_context("fork").Process(target=work, args=(sys.argv[1], Path(sys.argv[2]))).start()
    time.sleep(600)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("deed", ["filling", "running", "waiting"])
def test_a_killed_parent_leaves_no_folder_and_no_program(deed, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "parent.py").write_text(WORKER)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py"), deed, str(scratch)], env=environment)
    assert waited(lambda: any(scratch.glob("visit_*/begun")), 60)
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    assert waited(lambda: not working_in(scratch), 30)
    assert not list(scratch.iterdir())


def working_in(folder):
    """Commands of this machine that name `folder` or work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            place = str((process / "cwd").readlink())
        except OSError:
            continue
        if str(folder) in command or place.startswith(str(folder)):
            found.append(command)
    return found
