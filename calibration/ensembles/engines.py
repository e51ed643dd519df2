"""Engines of run_perturbations.py: what turns parameter values into daily fluxes.

  builtin   the process model of this repository (visit_simulator.py), several runs in one call
  command   the user's own VISIT binary, one run a call, in a private working directory

An engine is sent to worker processes, returns every run's result or the reason why there is none, and never writes
into the ensemble's folder: that is the parent's job, so workers need not share a disk with it.
"""

import argparse
import hashlib
import os
import shlex
import shutil
import signal
import string
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from calibration.common.command_line import UserError, existing_file
from calibration.common.parameters import CATALOGUE_FILE
from calibration.common.sites import Site
from calibration.visit.parameter_file import Slot, fill_template, find_slot, read_slots, write_parameter_file
from calibration.weather.daily import Weather
from calibration.weather.daily_text import parse_daily_file, round_as_written

__all__ = ["BuiltinEngine", "CommandEngine", "RunResult", "read_slots", "write_parameter_file"]

PLACEHOLDERS = ("workdir", "parameters", "sample_id", "weather", "start", "end", "cwd")
DEFAULT_PARAMETER_NAME = "parameters.txt"
LOG_TAIL = 200_000  # bytes of a run's log that are kept


@dataclass(frozen=True)
class RunResult:
    """One run: fluxes (day, 4) float64 GPP NPP NEP Rh in Mg C ha-1 day-1, or None and a message that says why."""

    sample_id: int
    fluxes: np.ndarray | None
    seconds: float
    message: str = ""
    text: bytes | None = None  # the daily file as the user's VISIT wrote it
    log: bytes = b""


@dataclass(frozen=True)
class BuiltinEngine:
    """visit_simulator.simulate over the whole `weather`; of the result the days start to end are kept."""

    weather: Weather
    site: Site
    spinup: str  # fast | full
    start: np.datetime64
    end: np.datetime64
    batch: int = 8  # most runs a call

    def run(self, sample_ids: Sequence[int], values: Mapping[str, np.ndarray]) -> list[RunResult]:
        """Results of `sample_ids` with parameters name -> (run,) in physical units."""
        from calibration.visit.simulator import simulate  # compiled code: only workers that run it should load it

        begin = time.perf_counter()
        first = int((self.start - self.weather.dates[0]).astype(int))
        days = slice(first, int((self.end - self.weather.dates[0]).astype(int)) + 1)
        try:
            result = simulate(values, self.weather, self.site, spinup=self.spinup, jobs=1)
        except (ArithmeticError, ValueError, UserError) as error:
            if len(sample_ids) == 1:
                return [RunResult(sample_ids[0], None, time.perf_counter() - begin, f"{error}")]
            # one of them is to blame: the others must not suffer
            single = [({name: column[[i]] for name, column in values.items()}) for i in range(len(sample_ids))]
            return [self.run([sample], value)[0] for sample, value in zip(sample_ids, single, strict=True)]
        seconds = (time.perf_counter() - begin) / len(sample_ids)
        fluxes = np.stack([result.gpp, result.npp, result.nep], axis=2)[:, days]
        fluxes = round_as_written(fluxes)
        fluxes = np.concatenate([fluxes, (fluxes[..., 1] - fluxes[..., 2])[..., None]], axis=2)
        return [
            RunResult(sample, run, seconds)
            if np.isfinite(run).all()
            else RunResult(sample, None, seconds, "the fluxes are not finite with these parameters")
            for sample, run in zip(sample_ids, fluxes, strict=True)
        ]


@dataclass(frozen=True)
class CommandEngine:
    """The user's VISIT: `template` is a command line whose placeholders are filled for every run.

    {workdir} the private working directory (also the current one), {parameters} the parameter file written for this
    run, {sample_id}, {weather} the --weather file, {start} {end} the period (YYYY-MM-DD), {cwd} the directory in which
    run_perturbations.py was started. No shell is involved: for pipes or loops use bash -c '...'.
    """

    template: str
    parameter_template: Path  # VISIT's baseline parameter file
    slots: Mapping[str, Slot]
    dates: np.ndarray  # (day,) datetime64[D] that every output file must have
    weather: str = ""
    parameter_name: str = DEFAULT_PARAMETER_NAME  # name of the written parameter file in the working directory
    output_pattern: str = "*daily*.txt"
    inputs: tuple[Path, ...] = ()  # files and folders linked into every working directory
    timeout: float = 3600.0  # s
    columns: tuple[str, ...] | None = None
    scratch: Path | None = None  # where working directories are made; None: the system's temporary folder
    cwd: Path = field(default_factory=Path.cwd)
    batch: int = 1

    def check(self, names: Sequence[str]) -> None:
        """UserError, before anything runs, on an unknown placeholder, a missing program or an unexpected baseline."""
        known = dict.fromkeys(PLACEHOLDERS, "x")
        try:
            tokens = shlex.split(self.template)
            used = {key for token in tokens for _, key, _, _ in string.Formatter().parse(token) if key is not None}
            [token.format_map(known) for token in tokens]
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(
                f"--command-template {self.template!r}: {error} is no placeholder; known are "
                f"{' '.join('{' + name + '}' for name in PLACEHOLDERS)}; write literal braces as {{{{ and }}}}"
            ) from None
        if not tokens:
            raise UserError("--command-template is empty; give the command that runs your VISIT")
        if "parameters" not in used and self.parameter_name == DEFAULT_PARAMETER_NAME:
            raise UserError(
                "--command-template has no {parameters}, the file written for each run; add it, or say with "
                "--parameter-name under which name your VISIT reads it from its working directory"
            )
        name = Path(self.parameter_name)
        if name.is_absolute() or ".." in name.parts or not name.name:  # runs side by side would share that file
            raise UserError(
                f"--parameter-name {self.parameter_name!r} lies outside the run's private working directory; give a "
                "name inside it, such as parameters.txt"
            )
        program = self._command(tokens, known)[0]
        if "{" not in tokens[0] and shutil.which(program) is None:
            raise UserError(f"--command-template: program {program} is not found or not executable; check its path")
        baseline = {name: find_slot(name, self.slots).baseline for name in names}
        fill_template(self.parameter_template, baseline, self.slots)

    def run(self, sample_ids: Sequence[int], values: Mapping[str, np.ndarray]) -> list[RunResult]:
        """Results of `sample_ids` with parameters name -> (run,) in physical units."""
        return [
            self._run_one(sample, {name: float(column[i]) for name, column in values.items()})
            for i, sample in enumerate(sample_ids)
        ]

    def _command(self, tokens: Sequence[str], values: Mapping[str, str]) -> list[str]:
        command = [token.format_map(values) for token in tokens]
        # a path like ./visit means the caller's directory, not the run's private one
        if os.sep in command[0] and not os.path.isabs(command[0]):
            command[0] = str(self.cwd / command[0])
        return command

    def _run_one(self, sample: int, values: dict[str, float]) -> RunResult:
        begin = time.perf_counter()
        workdir = Path(tempfile.mkdtemp(prefix=f"visit_{sample:04d}_", dir=self.scratch))
        try:
            fluxes, text, message, log = self._run_in(workdir, sample, values)
        finally:
            shutil.rmtree(workdir, ignore_errors=True)
        return RunResult(sample, fluxes, time.perf_counter() - begin, message, text, log[-LOG_TAIL:])

    def _run_in(
        self, workdir: Path, sample: int, values: dict[str, float]
    ) -> tuple[np.ndarray | None, bytes | None, str, bytes]:
        parameters = workdir / self.parameter_name
        try:
            write_parameter_file(self.parameter_template, values, parameters, self.slots)
            for source in self.inputs:
                (workdir / source.name).symlink_to(source.resolve())
        except (OSError, UserError) as error:
            return None, None, f"{error}", b""
        before = set(workdir.rglob("*"))
        fill = {
            "workdir": str(workdir), "parameters": str(parameters), "sample_id": str(sample), "cwd": str(self.cwd),
            "weather": self.weather, "start": str(self.dates[0]), "end": str(self.dates[-1]),
        }  # fmt: skip
        log = workdir / ".log"
        with log.open("wb") as handle:
            message = _execute(self._command(shlex.split(self.template), fill), workdir, handle, self.timeout)
        record = log.read_bytes()
        if message:
            return None, None, message, record
        outputs = [path for path in workdir.rglob(self.output_pattern) if path not in before and path.is_file()]
        if len(outputs) != 1:
            found = ", ".join(path.name for path in outputs) or "none"
            message = f"{len(outputs)} output files match {self.output_pattern} ({found}), expected one"
            return None, None, message, record
        content = outputs[0].read_bytes()
        try:
            run = parse_daily_file(Path(outputs[0].name), content, self.columns)
        except UserError as error:
            return None, None, f"{error}", record
        if len(run.dates) != len(self.dates) or run.dates[0] != self.dates[0]:
            return None, None, (
                f"{outputs[0].name}: {len(run.dates)} days, {run.dates[0]} to {run.dates[-1]}, expected "
                f"{len(self.dates)}, {self.dates[0]} to {self.dates[-1]} (--start, --end)"
            ), record  # fmt: skip
        return run.fluxes, content, "", record


def add_command_arguments(group) -> None:
    """Add the flags of a user's VISIT to `group` (argparse): what command_engine reads."""
    add = group.add_argument
    filled = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    add("--command-template", help=f"command line (no shell), in which are filled: {filled}")
    add(
        "--parameter-template", "--visit-template",
        help="VISIT's baseline parameter file; a slot is a line of it, counted from 0",
    )  # fmt: skip
    add("--slots", default=str(CATALOGUE_FILE), help="CSV name,slot,baseline; a file with others is refused")
    add("--parameter-name", default=DEFAULT_PARAMETER_NAME, help="name of the written file in the working dir")
    add("--output-pattern", default="*daily*.txt", help="glob of the one daily file that a run writes")
    add("--columns", nargs="+", help="column names of that file in order (default: VISIT's)")
    add("--command-input", action="append", default=[], help="file to link into the working directory; repeatable")
    add("--timeout", type=float, default=3600.0, help="seconds after which a run is killed and counts as failed")


def command_engine(arguments: argparse.Namespace, dates: np.ndarray, names: Sequence[str]) -> CommandEngine:
    """The user's VISIT of the command line for these days (day,) and parameters, checked before anything runs."""
    if not arguments.parameter_template:
        raise UserError("--command-template needs --parameter-template, VISIT's baseline parameter file; see --help")
    if "{weather}" in arguments.command_template and not arguments.weather:
        raise UserError("--command-template has {weather}, but no --weather FILE is given; add it")
    if not arguments.timeout > 0:
        raise UserError(f"--timeout is {arguments.timeout:g} s; it must be above 0")
    inputs = tuple(Path(path).absolute() for path in arguments.command_input)
    for path in inputs:
        if not path.exists():
            raise UserError(f"--command-input {path}: no such file or folder; check the path")
    template = existing_file(arguments.parameter_template, "give VISIT's baseline parameter file").absolute()
    engine = CommandEngine(
        arguments.command_template, template, read_slots(arguments.slots), dates,
        str(Path(arguments.weather).absolute()) if arguments.weather else "", arguments.parameter_name,
        arguments.output_pattern, inputs, arguments.timeout, tuple(arguments.columns) if arguments.columns else None,
    )  # fmt: skip
    engine.check(names)
    return engine


_running: set[int] = set()  # programs of this process that have not ended


def _kill_group(pid: int) -> None:
    """Kill a program started by _execute together with everything that it started."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _execute(command: list[str], workdir: Path, log, timeout: float) -> str:
    """Run a command in `workdir`, output into `log`; '' on success, else why it failed. Kills what it started."""
    try:
        process = subprocess.Popen(
            command, cwd=workdir, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        return f"cannot start {command[0]}: {error.strerror}"
    _running.add(process.pid)
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        return f"timeout: still running after {timeout:g} s"
    finally:
        # the whole group: a wrapper script's children too, also when this process is interrupted
        if process.poll() is None:
            _kill_group(process.pid)
        process.wait()
        _running.discard(process.pid)
    if code < 0:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"exit code {code}" if code else ""


def weather_hash(weather: Weather) -> str:
    """SHA-256 of days and values: tells whether an ensemble was made with this weather."""
    days = weather.dates.astype("datetime64[D]").astype(np.int64)
    return hashlib.sha256(days.tobytes() + np.ascontiguousarray(weather.values, dtype=np.float64).tobytes()).hexdigest()


def prepare_worker(parent: int) -> None:
    """Make this worker process leave Ctrl-C to process `parent`, and end when that is gone, even by kill -9.

    The program that the worker waits for ends with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        """End this worker, and the program it waits for, once its parent is gone."""
        while os.getppid() == parent:
            time.sleep(0.5)
        for pid in list(_running):
            _kill_group(pid)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def as_columns(names: Sequence[str], values: np.ndarray) -> dict[str, np.ndarray]:
    """name -> (run,) from values (run, parameter)."""
    return {name: values[:, i] for i, name in enumerate(names)}
