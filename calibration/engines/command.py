"""The user's own VISIT: started in a private copy of its run folder, or by a command line with placeholders."""

import hashlib
import os
import re
import shlex
import shutil
import string
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from calibration.common.command_line import UserError
from calibration.engines.builtin import RunResult
from calibration.engines.processes import execute, working_directory, writes_only_in
from calibration.engines.run_folder import RunFolder, file_state
from calibration.engines.visit_output import OutputFormat, last_words
from calibration.visit.parameter_file import Slot, fill_template, find_slot, write_parameter_file

PLACEHOLDERS = ("workdir", "parameters", "sample_id", "weather", "start", "end", "cwd")
DEFAULT_PARAMETER_NAME = "parameters.txt"
LOG_TAIL = 200_000  # bytes of a failed run's log that are kept
LOG = ".log"
SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "csh", "tcsh", "fish", "busybox")
UNSAFE_IN_SHELL = r"[^\w./:,+=@%-]"


class ProgramEngine:
    """What engines of a user's program share: a run is staged, executed, and its daily file read.

    A subclass stages a run in an empty working directory and says what to execute there.
    """

    batch = 1
    timeout: float
    scratch: Path | None
    output: OutputFormat
    slots: Mapping[str, Slot]
    confined = False  # to its working directory

    def run(self, sample_ids: Sequence[int], values: Mapping[str, np.ndarray]) -> list[RunResult]:
        """Results of `sample_ids` with parameters name -> (run,) in physical units."""
        return [
            self._run_one(sample, {name: float(column[i]) for name, column in values.items()})
            for i, sample in enumerate(sample_ids)
        ]

    def baseline(self, names: Sequence[str]) -> np.ndarray:
        """(parameter,) the values that the baseline parameter file holds."""
        return np.array([find_slot(name, self.slots).baseline for name in names])

    def stage(self, workdir: Path, sample: int, values: Mapping[str, float]) -> tuple[list[str], dict]:
        """Fill `workdir` for a run; returns the command and the state of what lies there (see file_state)."""
        raise NotImplementedError

    def identity(self, names: Sequence[str]) -> dict:
        """What decides the results beside the parameters, JSON-able."""
        raise NotImplementedError

    def _output_identity(self, names: Sequence[str]) -> dict:
        return {
            "slots": {name: self.slots[name].slot for name in names if name in self.slots},
            "output": f"{self.output.pattern or 'default names'}, {self.output.unit}",
            "columns": " ".join(self.output.columns or ["default"]),
        }

    def _run_one(self, sample: int, values: dict[str, float]) -> RunResult:
        begin = time.perf_counter()
        log, said = b"", ""
        try:
            with working_directory(f"{sample:04d}", self.scratch) as workdir:
                command, staged = self.stage(workdir, sample, values)
                log, message = self._execute(command, workdir)
                said = self._last_words(log)
                if message:
                    raise UserError(message)
                skipped = {workdir / LOG, *(path for path, state in staged.items() if _state(path) == state)}
                written = [path for path in workdir.rglob("*") if path not in skipped and path.is_file()]
                output = self.output.find(written, workdir)
                said = ""  # the program did its part
                content = output.read_bytes()
                fluxes = self.output.read(Path(output.name), content)
        except (OSError, UserError) as error:
            log = log[-LOG_TAIL:] or b"(no output)\n"
            return RunResult(sample, None, time.perf_counter() - begin, f"{error}{said}", log=log)
        text = content if self.output.keep else None
        return RunResult(sample, fluxes, time.perf_counter() - begin, text=text, log=log[-LOG_TAIL:])

    def _last_words(self, log: bytes) -> str:
        """The end of a message about a failed run."""
        said = last_words(log)
        if self.confined and "Permission denied" in said:
            said += " (a run may write in its own copy of the folder only)"
        return f"; its last words: {said}" if said else "; it said nothing"

    def _execute(self, command: Sequence[str], workdir: Path) -> tuple[bytes, str]:
        """What the program said, and why it failed ('' if it did not)."""
        restrict, handle = writes_only_in([workdir]) if self.confined else (None, -1)
        log = workdir / LOG
        try:
            with log.open("wb") as stream:
                message = execute(command, workdir, stream, self.timeout, restrict)
        finally:
            if handle >= 0:
                os.close(handle)
        return log.read_bytes(), message


def _state(path: Path) -> tuple[int, int, int] | None:
    return file_state(path) if path.is_file() else None


@dataclass(frozen=True)
class FolderEngine(ProgramEngine):
    """VISIT as it is usually run: without arguments, in a copy of its folder with the parameter file replaced."""

    folder: RunFolder
    slots: Mapping[str, Slot]
    output: OutputFormat
    timeout: float = 3600.0  # s
    scratch: Path | None = None  # where working directories are made; None: the system's temporary folder
    confined: bool = True

    def check(self, names: Sequence[str]) -> None:
        """UserError, before anything runs, on a parameter file that does not hold the expected baseline."""
        self._parameters(dict(zip(names, self.baseline(names).tolist(), strict=True)))

    def _parameters(self, values: Mapping[str, float]) -> bytes:
        name = self.folder.parameter_file
        return fill_template(self.folder.source(name), self.folder.files[name], values, self.slots)

    def stage(self, workdir: Path, sample: int, values: Mapping[str, float]) -> tuple[list[str], dict]:
        """A copy of the folder; the parameter file counts as staged too, so it is never taken for output."""
        there = self.folder.stage(workdir, {self.folder.parameter_file: self._parameters(values)})
        return [str(workdir / self.folder.program)], there

    def identity(self, names: Sequence[str]) -> dict:
        """See ProgramEngine."""
        return {"run_folder": self.folder.identity()} | self._output_identity(names)


@dataclass(frozen=True)
class CommandEngine(ProgramEngine):
    """The user's VISIT behind a command line: `template` has placeholders that are filled for every run.

    {workdir} the private working directory (also the current one), {parameters} the parameter file written for this
    run, {sample_id}, {weather} the --weather file, {start} {end} the period (YYYY-MM-DD), {cwd} the directory in which
    run_perturbations.py was started. No shell is involved: for pipes or loops use bash -c '...'.
    """

    template: str
    parameter_template: Path  # VISIT's baseline parameter file
    slots: Mapping[str, Slot]
    output: OutputFormat
    weather: str = ""
    parameter_name: str = DEFAULT_PARAMETER_NAME  # name of the written parameter file in the working directory
    inputs: tuple[Path, ...] = ()  # files and folders linked into every working directory
    timeout: float = 3600.0  # s
    scratch: Path | None = None  # where working directories are made; None: the system's temporary folder
    cwd: Path = field(default_factory=Path.cwd)

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
                "--parameter-name under which name your VISIT reads it from its working directory; a VISIT that reads "
                "setting.txt needs --run-folder instead"
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
        self._check_shell(tokens)
        baseline = dict(zip(names, self.baseline(names).tolist(), strict=True))
        fill_template(self.parameter_template, self.parameter_template.read_bytes(), baseline, self.slots)

    def _check_shell(self, tokens: Sequence[str]) -> None:
        """UserError where a path would become part of what a shell (bash -c '...') reads, with signs it interprets."""
        if Path(tokens[0]).name not in SHELLS:
            return
        workdir = self.scratch or Path(tempfile.gettempdir())
        values = {"cwd": str(self.cwd), "weather": self.weather, "workdir": str(workdir)}
        values["parameters"] = str(workdir / self.parameter_name)
        for word in tokens[1:]:
            for key in (key for _, key, _, _ in string.Formatter().parse(word) if key in values):
                unsafe = re.search(UNSAFE_IN_SHELL, values[key])
                if unsafe and word != f"{{{key}}}":
                    raise UserError(
                        f"--command-template: {tokens[0]} would read {{{key}}}, {values[key]!r}, as part of its "
                        f"program, where {unsafe[0]!r} has a meaning of its own; hand it over as an argument: "
                        f"{tokens[0]} -c 'visit \"$1\"' {tokens[0]} {{{key}}}"
                    )

    def _command(self, tokens: Sequence[str], values: Mapping[str, str]) -> list[str]:
        command = [token.format_map(values) for token in tokens]
        # a path like ./visit means the caller's directory, not the run's private one
        if os.sep in command[0] and not os.path.isabs(command[0]):
            command[0] = str(self.cwd / command[0])
        return command

    def stage(self, workdir: Path, sample: int, values: Mapping[str, float]) -> tuple[list[str], dict]:
        """The written parameter file, and links to the inputs."""
        parameters = workdir / self.parameter_name
        write_parameter_file(self.parameter_template, values, parameters, self.slots)
        for source in self.inputs:
            (workdir / source.name).symlink_to(source.resolve())
        fill = {
            "workdir": str(workdir), "parameters": str(parameters), "sample_id": str(sample), "cwd": str(self.cwd),
            "weather": self.weather, "start": str(self.output.dates[0]), "end": str(self.output.dates[-1]),
        }  # fmt: skip
        there = {path: file_state(path) for path in workdir.rglob("*") if path.is_file()}
        return self._command(shlex.split(self.template), fill), there

    def identity(self, names: Sequence[str]) -> dict:
        """See ProgramEngine. Every file that the command line names counts: a program may be `python wrapper.py`."""
        fill = dict.fromkeys(PLACEHOLDERS, "") | {"cwd": str(self.cwd)}
        command = self._command(shlex.split(self.template), fill)
        program = shutil.which(command[0])
        named = [Path(program)] if program else []
        named += [self.cwd / word for word in command[1:] if word and (self.cwd / word).is_file()]
        return {
            "template": self.template, "output_pattern": self.output.pattern or "default names",
            "parameter_file_sha256": _content(self.parameter_template), "parameter_name": self.parameter_name,
            "program": {path.name: _content(path) for path in named},
            "inputs": {path.name: _content(path) for path in self.inputs},
        } | self._output_identity(names)  # fmt: skip


def _content(path: Path) -> str:
    """SHA-256 of a file's bytes; of a folder, of the names and bytes of all files below it."""
    total = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(file.relative_to(path).as_posix().encode() + b"\0" + file.read_bytes())
    return total.hexdigest()
