"""Run an ensemble of the process model over a Latin hypercube of its parameters, in VISIT's file format.

    python run_perturbations.py --n-samples 180 --seed 2025 --output-dir data
    python run_perturbations.py --weather era5_daily.csv --jobs 2            # real weather
    python run_perturbations.py --run-folder CODE_LHP                        # your own VISIT

Leaves LHP_<stamp>_daily_<NNNN>.txt per run, parameter_summary.csv, experiment_results.csv, parameter_log.json and a
binary copy ensemble.npz. Interrupted (Ctrl-C, kill, power), the same command continues: finished runs are kept.
A failed run is listed in experiment_results.csv and stops nothing; exit code 1 only when no run succeeded.
"""

import argparse
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import joblib
import numba
import numpy as np
import pandas as pd
import scipy

from calibration.common.command_line import (
    REPOSITORY,
    UserError,
    add_quiet,
    closing,
    iso_date,
    make_parser,
    output_folder,
    progress,
    run,
    warn,
)
from calibration.common.parameters import DEFAULT_RANGES, ParameterSpace, catalogue, implausible, read_ranges
from calibration.common.provenance import write_record
from calibration.common.reproduction import add_reproduce
from calibration.common.sites import DEFAULT_SITE, Site, load_site, say_default, with_variant
from calibration.common.units import DEAD
from calibration.engines.builtin import BuiltinEngine, RunResult
from calibration.engines.cluster import connect
from calibration.engines.command import FolderEngine, ProgramEngine
from calibration.engines.perturbation import draw, run_all
from calibration.engines.run_folder import RunFolder, folder_weather
from calibration.engines.trial import expected_gpp, try_out
from calibration.engines.writer import Design, EnsembleWriter
from calibration.ensembles.files import load_ensemble
from calibration.visit.forcing import check_model_holds
from calibration.weather.daily import Weather, generate_weather, read_weather, weather_hash
from calibration.workflows.users_visit import add_command_arguments, command_engine, users_folder

MOST_DEAD = 0.02  # share of dead forests above which the ranges are called implausible


def main() -> int:
    arguments = parse_arguments()
    site = with_variant(load_site(arguments.site), arguments.variant)
    space = read_ranges(arguments.ranges)
    values = draw(space, arguments.n_samples, arguments.seed)
    if doubt := implausible(space.names, values):
        warn(f"{arguments.ranges}: {doubt}")
    folder, weather = choose_weather(arguments, site)
    period = choose_period(arguments, site, weather, folder)
    engine = make_engine(arguments, site, space, weather, period, folder)
    design = design_of(arguments, site, space, values, weather, period, engine)
    jobs = arguments.jobs or joblib.cpu_count()
    client = connect(arguments.dask_scheduler) if arguments.dask_scheduler else None
    # files that were written here have the columns of this repository, whatever the program's own have
    columns = arguments.columns if design.dynamic is None else None
    writer = EnsembleWriter(Path(arguments.output_dir), design, not arguments.no_text, columns)
    writer.check(arguments.overwrite)
    say_default(site, arguments.run_folder or arguments.weather)
    if isinstance(engine, ProgramEngine) and not writer.continues(arguments.overwrite):
        first_try(engine, writer, weather, site, jobs, client)
    writer.start(arguments.overwrite)
    kept = writer.finished(jobs)
    pending = [sample for sample in range(arguments.n_samples) if sample not in set(kept)]
    begin = time.perf_counter()
    try:
        with progress(total=arguments.n_samples, initial=len(kept), desc="runs", unit="run") as bar:
            for result in run_all(engine, pending, space.names, values, jobs, client):
                writer.save(result)
                bar.update()
    except UserError:
        writer.save_results()
        raise
    except KeyboardInterrupt:
        writer.save_results()
        print(f"stopped after {len(writer.rows)} of {arguments.n_samples} runs; the same command continues")
        raise
    table = writer.finish()
    write_record(writer.directory, begin, {
        "ranges": arguments.ranges, "weather": arguments.weather, "site": arguments.site,
    }, seed=arguments.seed)  # fmt: skip
    code = report(table, len(kept), time.perf_counter() - begin, writer.directory, design, columns)
    if arguments.report and not code:
        from calibration.reports.kinds import report_on  # slow to import: loaded only where it is needed

        print(f"report: {report_on(writer.directory)}")
    closing(writer.directory, f"python train.py --data-dir {writer.directory}" if not code else "")
    return code


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
    add("--variant", nargs="+", metavar="NAME[=VALUE]", help="another version of VISIT than the site YAML's, see there")
    add("--spinup", choices=("fast", "full"), default="fast", help="full: all 2010 years, as VISIT does; far slower")
    add("--no-text", action="store_true", help="only the binary copy (14 times smaller): no daily text files")
    add_quiet(parser)
    add("--report", action="store_true", help="also write report.html: all on one page (make_report.py)")
    add("--overwrite", action="store_true", help="replace an ensemble with other settings in --output-dir")
    add("--engine", choices=("builtin", "command"), help="the process model here, or your own VISIT (default: builtin, "
        "or command with --run-folder)")  # fmt: skip
    add_command_arguments(parser.add_argument_group("--engine command: every run in a private working directory"))
    add_reproduce(parser, "--output-dir")
    arguments = parser.parse_args()
    if arguments.engine == "builtin" and arguments.run_folder:
        raise UserError("--engine builtin is the process model here, --run-folder your own VISIT; leave one out")
    arguments.engine = arguments.engine or ("command" if arguments.run_folder else "builtin")
    if arguments.n_samples < 1:
        raise UserError(f"--n-samples is {arguments.n_samples}; it must be 1 or more")
    if arguments.seed < 0:
        raise UserError(f"--seed is {arguments.seed}; it must be 0 or more")
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UserError(f"--jobs is {arguments.jobs}; it must be 1 or more")
    output_folder(arguments.output_dir, "--output-dir")
    return arguments


def choose_weather(arguments: argparse.Namespace, site: Site) -> tuple[RunFolder | None, Weather | None]:
    """The run folder of the user's VISIT, if there is one, and the weather of the runs.

    That is the weather file's, the folder's, or generated over the site's period; None where only a command knows it.
    """
    weather = read_weather(arguments.weather, site) if arguments.weather else None
    if arguments.run_folder:
        folder = users_folder(arguments, weather, site)
        if Path(arguments.output_dir).resolve().is_relative_to(folder.path.resolve()):
            raise UserError(f"--output-dir {arguments.output_dir}: lies in the run folder, which stays as it is")
        return folder, folder_weather(folder, weather, site)
    if weather is None and arguments.engine == "builtin":
        # the spin-up needs whole years, so a short --start to --end is cut out of the site's period
        start = min(filter(None, (arguments.start, site.period["start"])))
        end = max(filter(None, (arguments.end, site.period["end"])))
        weather = generate_weather(site, start, end, arguments.seed)
    return None, weather


def choose_period(
    arguments: argparse.Namespace, site: Site, weather: Weather | None, folder: RunFolder | None
) -> np.ndarray:
    """(day,) datetime64[D]: the days of the output."""
    if folder is not None:
        first, last = folder.period
        return weather.between(arguments.start or first, arguments.end or last).dates
    if weather is not None:
        return weather.between(arguments.start, arguments.end).dates
    first, last = arguments.start or site.period["start"], arguments.end or site.period["end"]
    if first > last:
        raise UserError(f"--start {first} is after --end {last}; give them in order")
    return np.arange(np.datetime64(first), np.datetime64(last) + 1)


def make_engine(
    arguments: argparse.Namespace, site: Site, space: ParameterSpace, weather: Weather | None, period: np.ndarray,
    folder: RunFolder | None,
) -> BuiltinEngine | ProgramEngine:  # fmt: skip
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
        check_model_holds(site, weather.pressure)
        return BuiltinEngine(weather, site, arguments.spinup, period[0], period[-1])
    if folder is None and not arguments.command_template:
        raise UserError("--engine command needs --run-folder, your VISIT's folder, or --command-template; see --help")
    if folder is None and arguments.no_text:
        raise UserError("--no-text goes with --engine builtin or --run-folder: a command's own files are kept")
    days = weather.between(period[0], period[-1]).values if weather is not None else None
    return command_engine(arguments, period, space.names, folder, days)


def first_try(
    engine: ProgramEngine, writer: EnsembleWriter, weather: Weather | None, site: Site, jobs: int, client
) -> None:
    """Three runs that tell whether the set-up is right; UserError when it is not, and the log of the trial is kept."""
    names, values = writer.design.names, writer.design.values
    logs: list[bytes] = []

    def run(rows: np.ndarray) -> list[RunResult]:
        """Results of three runs, under ids that the ensemble does not have."""
        samples = [len(values) + i for i in range(len(rows))]
        results = {r.sample_id: r for r in run_all(engine, samples, names, np.vstack([values, rows]), jobs, client)}
        logs.extend(b"--- trial run %d\n" % i + results[sample].log for i, sample in enumerate(samples))
        return [results[sample] for sample in samples]

    expected = expected_gpp(weather, site, names)
    try:
        trial = try_out(engine, names, values, run, expected)
        changed = engine.folder.changed() if isinstance(engine, FolderEngine) else []
        if changed:
            raise UserError(
                f"{engine.folder.path}: {', '.join(changed[:3])} changed during the trial; if your VISIT writes there "
                "by an absolute path, make it relative: runs side by side would disturb each other"
            )
    finally:
        if logs:
            writer.keep_log("trial.log", b"".join(logs))
    print(f"trial: three runs are as they should be, {trial.seconds:.1f} s a run")
    if trial.note:
        warn(f"trial: {trial.note}")


def design_of(
    arguments: argparse.Namespace, site: Site, space: ParameterSpace, values: np.ndarray, weather: Weather | None,
    period: np.ndarray, engine: BuiltinEngine | ProgramEngine,
) -> Design:  # fmt: skip
    """What decides the result (compared when an interrupted ensemble is continued), and what is only recorded."""
    ranges = {
        name: {"min": float(low)} | ({"max_from": space.names[tied]} if tied >= 0 else {"max": float(high)})
        for name, low, high, tied in zip(space.names, space.lower, space.upper, space.tied_to, strict=True)
    }
    settings = {
        "seed": arguments.seed, "n_samples": arguments.n_samples, "start": str(period[0]), "end": str(period[-1]),
        "engine": arguments.engine, "text": not arguments.no_text, "site": site.constants,
        "weather": {"first": None, "last": None, "sha256": None},
    }  # fmt: skip
    dynamic = None
    if weather is not None:
        first = int((period[0] - weather.dates[0]).astype(int))
        settings["weather"] = {
            "first": str(weather.dates[0]), "last": str(weather.dates[-1]),
            "sha256": weather_hash(weather, site.variant.pressure == "forcing"),
        }  # fmt: skip
        dynamic = weather.values[first : first + len(period)]
    if isinstance(engine, ProgramEngine):
        settings["command"] = engine.identity(space.names)
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
        f"{len(good)} of {len(table)} runs succeeded, {len(failed)} failed ({kept} were there already), {seconds:.0f} s"
    )
    for row in failed.head(3).itertuples():
        print(f"  sample {row.sample_id} failed: {row.message}")
    if len(failed) > 3:
        print("  ... all messages are in experiment_results.csv")
    if good.empty:
        return 1
    if design.dynamic is None:
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
