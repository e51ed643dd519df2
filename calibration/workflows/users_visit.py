"""The user's VISIT from the command line: its flags, and the engine that they name."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calibration.common.command_line import UserError, existing_file
from calibration.common.parameters import CATALOGUE_FILE
from calibration.common.sites import Site
from calibration.common.units import DYNAMIC_FEATURES
from calibration.engines.command import DEFAULT_PARAMETER_NAME, PLACEHOLDERS, CommandEngine, FolderEngine
from calibration.engines.run_folder import RunFolder, read_run_folder, with_forcing
from calibration.engines.visit_output import FLUX_UNITS, OutputFormat
from calibration.visit.parameter_file import read_slots
from calibration.weather.daily import Weather


def add_command_arguments(group) -> None:
    """Add the flags of a user's VISIT to `group` (argparse): what command_engine reads."""
    add = group.add_argument
    add("--run-folder", help="folder in which your VISIT is started: each run works in a private copy of it")
    add("--parameter-file", help="parameter file in that folder which is replaced (default: setting.txt's PARAF)")
    add("--program", help="VISIT's binary in that folder (default: its only executable)")
    add("--leave-out", nargs="+", default=[], metavar="GLOB", help="files in that folder that no run needs")
    add("--write-forcing", action="store_true", help="write the climate file of every run from --weather")
    add("--columns", nargs="+", help="column names of VISIT's daily file in order (default: VISIT's, or its header's)")
    add("--flux-unit", choices=sorted(FLUX_UNITS), default="Mg_ha", help="unit of the fluxes in it, carbon per day")
    add("--output-pattern", help="glob of the daily file (default: *daily*.txt or *_E02.csv)")
    add("--slots", default=str(CATALOGUE_FILE), help="CSV name,slot,baseline; a file with others is refused")
    add("--timeout", type=float, default=3600.0, help="seconds after which a run is killed and counts as failed")
    filled = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    add("--command-template", help=f"instead of --run-folder: command line (no shell), in which are filled: {filled}")
    add("--parameter-template", "--visit-template", help="VISIT's baseline parameter file for that command")
    add("--parameter-name", default=DEFAULT_PARAMETER_NAME, help="name of the written file in the working dir")
    add("--command-input", action="append", default=[], help="file to link into the working directory; repeatable")


def users_folder(arguments: argparse.Namespace, weather: Weather | None, site: Site) -> RunFolder:
    """--run-folder of the command line, with the climate file that its runs get. UserError when it cannot be run."""
    if arguments.command_template:
        raise UserError("--run-folder and --command-template are two ways to run your VISIT; give one of them")
    if arguments.command_input or arguments.parameter_template:
        raise UserError("--command-input and --parameter-template belong to --command-template; leave them out")
    folder = read_run_folder(arguments.run_folder, arguments.program, arguments.parameter_file, arguments.leave_out)
    if arguments.write_forcing and weather is None:
        raise UserError("--write-forcing needs --weather FILE, from which the climate file is written; add it")
    return with_forcing(folder, weather, site) if arguments.write_forcing else folder


def baseline_file(arguments: argparse.Namespace) -> Path | None:
    """VISIT's baseline parameter file of the command line, None when there is none."""
    if arguments.run_folder:
        folder = read_run_folder(arguments.run_folder, arguments.program, arguments.parameter_file, arguments.leave_out)
        return folder.source(folder.parameter_file)
    return Path(arguments.parameter_template) if arguments.parameter_template else None


def command_engine(
    arguments: argparse.Namespace, dates: np.ndarray, names: Sequence[str], folder: RunFolder | None = None,
    weather: np.ndarray | None = None,
) -> FolderEngine | CommandEngine:  # fmt: skip
    """The user's VISIT of the command line for these days (day,) and parameters, checked before anything runs.

    folder: of --run-folder. weather: (day, 10) on those days in the units of units.UNITS, None: the program prints it.
    """
    if not arguments.timeout > 0:
        raise UserError(f"--timeout is {arguments.timeout:g} s; it must be above 0")
    columns = tuple(name.lower() for name in arguments.columns) if arguments.columns else None
    slots = read_slots(arguments.slots)
    if folder is not None:
        output = OutputFormat(dates, weather, arguments.output_pattern, columns, arguments.flux_unit)
        engine = FolderEngine(folder, slots, output, arguments.timeout)
        engine.check(names)
        return engine
    if not arguments.parameter_template:
        raise UserError("--command-template needs --parameter-template, VISIT's baseline parameter file; see --help")
    if "{weather}" in arguments.command_template and not arguments.weather:
        raise UserError("--command-template has {weather}, but no --weather FILE is given; add it")
    inputs = tuple(Path(path).absolute() for path in arguments.command_input)
    for path in inputs:
        if not path.exists():
            raise UserError(f"--command-input {path}: no such file or folder; check the path")
    template = existing_file(arguments.parameter_template, "give VISIT's baseline parameter file").absolute()
    output = OutputFormat(dates, weather, arguments.output_pattern, columns, arguments.flux_unit, keep=weather is None)
    missing = [name for name in DYNAMIC_FEATURES if output.keep and columns and name not in columns]
    if missing:
        raise UserError(
            f"--columns has no {missing[0]}: where VISIT does not print its weather, give it with --weather FILE"
        )
    if output.keep and arguments.flux_unit != "Mg_ha":
        raise UserError("--flux-unit needs --weather FILE, from which the daily files are written anew; add it")
    engine = CommandEngine(
        arguments.command_template, template, slots, output,
        str(Path(arguments.weather).absolute()) if arguments.weather else "", arguments.parameter_name, inputs,
        arguments.timeout,
    )  # fmt: skip
    engine.check(names)
    return engine
