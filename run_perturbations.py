"""Run an ensemble of the process model over a Latin hypercube of its parameters, in VISIT's file format.

    python run_perturbations.py --n-samples 180 --seed 2025 --output-dir data
    python run_perturbations.py --weather era5_daily.csv --jobs 2            # real weather
    python run_perturbations.py --engine command --command-template './visit {parameters}' \\
        --parameter-template visit_lhp.par                                    # your own VISIT

Leaves LHP_<stamp>_daily_<NNNN>.txt per run, parameter_summary.csv, experiment_results.csv, parameter_log.json and a
binary copy ensemble.npz. Interrupted (Ctrl-C, kill, power), the same command continues: finished runs are kept.
A failed run is listed in experiment_results.csv and stops nothing; exit code 1 only when no run succeeded.
"""

import argparse
import hashlib
import platform
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import joblib
import numba
import numpy as np
import pandas as pd
import scipy

from calibration.common.command_line import (
    REPOSITORY,
    UserError,
    iso_date,
    make_parser,
    output_folder,
    progress,
    run,
    warn,
)
from calibration.common.parameters import DEFAULT_RANGES, ParameterSpace, catalogue, read_ranges
from calibration.common.sites import DEFAULT_SITE, Site, load_site
from calibration.ensembles.engines import (
    BuiltinEngine,
    CommandEngine,
    add_command_arguments,
    command_engine,
    weather_hash,
)
from calibration.ensembles.files import load_ensemble
from calibration.ensembles.perturbation import DEAD, connect, draw, run_all
from calibration.ensembles.writer import Design, EnsembleWriter
from calibration.weather.daily import Weather, generate_weather, read_weather

MOST_DEAD = 0.02  # share of dead forests above which the ranges are called implausible


def main() -> int:
    arguments = parse_arguments()
    site = load_site(arguments.site)
    space = read_ranges(arguments.ranges)
    values = draw(space, arguments.n_samples, arguments.seed)
    weather = choose_weather(arguments, site)
    period = choose_period(arguments, site, weather)
    engine = make_engine(arguments, site, space, weather, period)
    design = describe(arguments, site, space, values, weather, period, engine)
    jobs = arguments.jobs or joblib.cpu_count()
    client = connect(arguments.dask_scheduler) if arguments.dask_scheduler else None
    writer = EnsembleWriter(Path(arguments.output_dir), design, not arguments.no_text, arguments.columns)
    writer.start(arguments.overwrite)
    kept = writer.finished(jobs)
    pending = [sample for sample in range(arguments.n_samples) if sample not in set(kept)]
    begin = time.perf_counter()
    try:
        with progress(total=arguments.n_samples, initial=len(kept), desc="runs", unit="run") as bar:
            for result in run_all(engine, pending, space.names, values, jobs, client):
                writer.save(result)
                bar.update()
    except KeyboardInterrupt:
        writer.save_results()
        print(f"stopped after {len(writer.rows)} of {arguments.n_samples} runs; the same command continues")
        raise
    table = writer.finish()
    return report(table, len(kept), time.perf_counter() - begin, writer.directory, design, arguments.columns)


def parse_arguments() -> argparse.Namespace:
    """The command line, checked as far as it can be without reading files."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--n-samples", type=int, default=180, help="number of runs in the Latin hypercube")
    add("--seed", type=int, default=2025, help="seed of the draw (and of generated weather): same seed, same ensemble")
    add("--ranges", default=str(DEFAULT_RANGES), help="range_of_paras.csv or bounds YAML, physical units")
    add("--weather", help="weather file: CSV, VISIT daily file or VISIT forcing text (default: generated for the site)")
    add("--start", type=iso_date, help="first day of the output, YYYY-MM-DD (default: of the weather)")
    add("--end", type=iso_date, help="last day of the output, YYYY-MM-DD, included (default: of the weather)")
    add("--output-dir", default=str(REPOSITORY / "data"), help="folder of the ensemble")
    add("--jobs", type=int, help="worker processes on this machine (default: all cores)")
    add("--dask-scheduler", help="address of a Dask scheduler, tcp://host:8786: runs there instead of on this machine")
    add("--site", default=str(DEFAULT_SITE), help="site YAML")
    add("--spinup", choices=("fast", "full"), default="fast", help="full: all 2010 years, as VISIT does; far slower")
    add("--no-text", action="store_true", help="only the binary copy (14 times smaller): no daily text files")
    add("--overwrite", action="store_true", help="replace an ensemble with other settings in --output-dir")
    add("--engine", choices=("builtin", "command"), default="builtin", help="the process model here, or your own VISIT")
    add_command_arguments(parser.add_argument_group("--engine command: every run in a private working directory"))
    arguments = parser.parse_args()
    if arguments.n_samples < 1:
        raise UserError(f"--n-samples is {arguments.n_samples}; it must be 1 or more")
    if arguments.seed < 0:
        raise UserError(f"--seed is {arguments.seed}; it must be 0 or more")
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UserError(f"--jobs is {arguments.jobs}; it must be 1 or more")
    output_folder(arguments.output_dir, "--output-dir")
    return arguments


def choose_weather(arguments: argparse.Namespace, site: Site) -> Weather | None:
    """The weather file, or generated weather over the site's period; None where only the user's VISIT knows it."""
    if arguments.weather:
        return read_weather(arguments.weather, site)
    if arguments.engine == "command":
        return None
    # the spin-up needs whole years, so a short --start to --end is cut out of the site's period
    start = min(filter(None, (arguments.start, site.period["start"])))
    end = max(filter(None, (arguments.end, site.period["end"])))
    return generate_weather(site, start, end, arguments.seed)


def choose_period(arguments: argparse.Namespace, site: Site, weather: Weather | None) -> np.ndarray:
    """(day,) datetime64[D]: the days of the output."""
    if weather is not None:
        return weather.between(arguments.start, arguments.end).dates
    first, last = arguments.start or site.period["start"], arguments.end or site.period["end"]
    if first > last:
        raise UserError(f"--start {first} is after --end {last}; give them in order")
    return np.arange(np.datetime64(first), np.datetime64(last) + 1)


def make_engine(
    arguments: argparse.Namespace, site: Site, space: ParameterSpace, weather: Weather | None, period: np.ndarray
) -> BuiltinEngine | CommandEngine:
    """The engine, checked before anything is written."""
    if arguments.engine == "builtin":
        unknown = [name for name in space.names if name not in catalogue()]
        if unknown:
            raise UserError(f"{arguments.ranges}: the process model has no parameter {unknown[0]}; correct its name")
        legal = catalogue()
        for name, low, high in zip(space.names, space.lower, space.upper, strict=True):
            if low < legal[name].minimum or high > legal[name].maximum:
                raise UserError(
                    f"{arguments.ranges}: {name} ranges from {low:g} to {high:g}, legal is {legal[name].minimum:g} to "
                    f"{legal[name].maximum:g} {legal[name].unit}; narrow the range"
                )
        return BuiltinEngine(weather, site, arguments.spinup, period[0], period[-1])
    if not arguments.command_template:
        raise UserError("--engine command needs --command-template; see --help")
    if arguments.no_text:
        raise UserError("--no-text goes with --engine builtin only: the files of your VISIT are kept as they are")
    return command_engine(arguments, period, space.names)


def describe(
    arguments: argparse.Namespace, site: Site, space: ParameterSpace, values: np.ndarray, weather: Weather | None,
    period: np.ndarray, engine: BuiltinEngine | CommandEngine,
) -> Design:  # fmt: skip
    """What decides the result (compared when an interrupted ensemble is continued), and what is only recorded."""
    ranges = {
        name: {"min": float(low)} | ({"max_from": space.names[tied]} if tied >= 0 else {"max": float(high)})
        for name, low, high, tied in zip(space.names, space.lower, space.upper, space.tied_to, strict=True)
    }
    constants = {field.name: getattr(site, field.name) for field in fields(site)}
    constants = {name: value for name, value in constants.items() if name not in ("path", "period", "weather")}
    settings = {
        "seed": arguments.seed, "n_samples": arguments.n_samples, "start": str(period[0]), "end": str(period[-1]),
        "engine": arguments.engine, "text": not arguments.no_text, "site": constants,
        "weather": {"first": None, "last": None, "sha256": None},
    }  # fmt: skip
    dynamic = None
    if weather is not None:
        first = int((period[0] - weather.dates[0]).astype(int))
        settings["weather"] = {
            "first": str(weather.dates[0]), "last": str(weather.dates[-1]),
            "sha256": weather_hash(weather),
        }  # fmt: skip
        dynamic = weather.values[first : first + len(period)] if arguments.engine == "builtin" else None
    if isinstance(engine, CommandEngine):
        settings["command"] = {
            "template": engine.template, "output_pattern": engine.output_pattern,
            "parameter_file_sha256": hashlib.sha256(engine.parameter_template.read_bytes()).hexdigest(),
            "slots": {name: engine.slots[name].slot for name in space.names},
        }  # fmt: skip
    else:
        settings["spinup"] = arguments.spinup
    settings["ranges"] = ranges
    notes = {
        "ranges_file": str(arguments.ranges), "weather_source": weather.source if weather else "the user's VISIT",
        "weather_generated": weather is not None and not arguments.weather, "site_file": str(site.path),
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__,
                     "numba": numba.__version__, "joblib": joblib.__version__},
        "units": "values in the units of configs/visit_parameters.csv",
    }  # fmt: skip
    return Design(settings, notes, space.names, values, period, dynamic, site.file_prefix)


def report(
    table: pd.DataFrame, kept: int, seconds: float, directory: Path, design: Design, columns: Sequence[str] | None
) -> int:
    """Print what came of the ensemble; returns the exit code."""
    good = table[table["status"] == "ok"]
    failed = table[table["status"] == "failed"]
    print(
        f"{len(good)} of {len(table)} runs succeeded, {len(failed)} failed ({kept} were there already), "
        f"{seconds:.0f} s -> {directory}"
    )
    for row in failed.head(3).itertuples():
        print(f"  sample {row.sample_id} failed: {row.message}")
    if len(failed) > 3:
        print("  ... all messages are in experiment_results.csv")
    if good.empty:
        return 1
    if design.settings["engine"] == "command":
        load_ensemble(directory, columns)  # checks that the runs agree with each other, and leaves the binary copy
    dead = int((good["mean_gpp"] < DEAD).sum())
    print(f"dead forests (mean GPP below {DEAD:g} Mg C ha-1 year-1): {dead} of {len(good)} ({dead / len(good):.1%})")
    for name, label in (("mean_gpp", "GPP"), ("mean_nep", "NEP")):
        low, middle, high = good[name].quantile([0.05, 0.5, 0.95])
        print(f"mean {label}: {middle:.2f} ({low:.2f} to {high:.2f} in 90% of runs) Mg C ha-1 year-1")
    if dead > MOST_DEAD * len(good):
        warn(f"{dead / len(good):.0%} of the forests are dead: the ranges reach beyond what is plausible; narrow them")
    return 0


if __name__ == "__main__":
    run(main)
