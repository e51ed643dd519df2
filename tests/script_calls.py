"""Scripts of the repository as tests call them: in this process, where what they import is there already.

A process of its own costs four seconds of imports; that scripts work in one is what test_demo.py shows.
"""

import importlib
import io
import os
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import matplotlib as mpl
import torch

from calibration.common import command_line
from calibration.common.command_line import REPOSITORY, run


class Done(NamedTuple):
    """How a script ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


def run_script(module, *arguments) -> int:
    """A script's main() in this process; what it raises leaves, unlike with call()."""
    before, sys.argv = sys.argv, [module.__name__, *map(str, arguments)]
    try:
        return module.main()
    finally:
        sys.argv = before


def call(main, *arguments: object) -> int:
    """Run a script's main() with these arguments as its command line; returns the exit code.

    What a script sets for its whole process (threads, format of figures, warnings, --quiet) is set back.
    """
    before, output, threads = sys.argv, sys.stdout, torch.get_num_threads()
    sys.argv = [f"{main.__module__}.py", *map(str, arguments)]
    torch.set_num_threads(1)
    try:
        with mpl.rc_context(), warnings.catch_warnings():
            run(main)
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv, sys.stdout, command_line._Voice.last_words = before, output, None
        torch.set_num_threads(threads)
    raise AssertionError("run() always exits")


def script(name: str, *arguments: object) -> Done:
    """Run a script by its file's name (train.py, extras/run_demo.py)."""
    module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = call(module.main, *arguments)
    return Done(code, out.getvalue(), err.getvalue())


def process(name: str, *arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """Run a script in a process of its own, on one thread; `launcher`: what Python runs it with."""
    command = [sys.executable, *launcher, str(REPOSITORY / name), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
