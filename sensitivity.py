"""Which parameters do the fluxes respond to, and which could a tower of this length inform? Before any inversion.

    python sensitivity.py                                     # Morris and Sobol, emulator and process model
    python sensitivity.py --method sobol --models emulator    # the emulator alone
    python sensitivity.py --days 30 365 --noise 0.01          # another tower

Elementary effects (Morris) and variance shares (Sobol) of annual and 30-day sums of NEP, GPP and Rh with respect to
the emulator's parameters over its trained ranges, for emulator and process model on the same runs, with 95 percent
confidence. Leaves sensitivity_summary.txt (the answer in its first line), sensitivity.json, CSV tables and figures.
Where the runs of the real VISIT are present, their elementary effects are compared with the process model's.
"""

import argparse
import time

import numpy as np

from calibration.common.command_line import (
    REPOSITORY,
    UserError,
    add_quiet,
    closing,
    iso_date,
    make_parser,
    one_thread,
    output_folder,
    progress,
    run,
    warn,
)
from calibration.common.figure_style import FORMATS, use_format
from calibration.common.parameters import catalogue, in_model
from calibration.common.provenance import write_record
from calibration.common.reproduction import add_reproduce
from calibration.common.sites import Site
from calibration.common.units import CONTEXT_DAYS, DYNAMIC_FEATURES
from calibration.emulator.trained import Emulator, load_emulator
from calibration.exploration.analysis import Analysis, Findings, FluxModel, compare_with_visit
from calibration.exploration.design import METHODS
from calibration.exploration.fluxes import Period, choose_period
from calibration.exploration.reference import moves, read_reference
from calibration.judgement.simulator_check import driving_weather, simulate_vectors, site_of
from calibration.weather.daily import Weather, read_weather

MODELS = ("emulator", "process_model")
LENGTHS = (30, 365, 1826)  # days of a tower's record
SHARED = REPOSITORY.parent / "shared" / "data"


def main() -> int:
    arguments = parse_arguments()
    begin = time.perf_counter()
    directory = output_folder(arguments.result_dir, "--result-dir")
    one_thread()
    emulator = load_emulator(arguments.artifacts_dir, arguments.device)
    data = arguments.data_dir or emulator.data_directory
    site = site_of(arguments.site, data)
    weather = driving_weather(arguments.weather, data, site, emulator)
    start = None if arguments.start is None else np.datetime64(arguments.start)
    lengths = arguments.days or [days for days in LENGTHS if days <= len(weather) - CONTEXT_DAYS] or [LENGTHS[0]]
    period = choose_period(weather.dates, start, max(lengths), CONTEXT_DAYS)
    real = None if arguments.reference is None else read_reference(arguments.reference)
    if real is not None:
        moves(real, arguments.reference)  # a table that is no Morris design is refused before the work
    models = flux_models(arguments, emulator, weather, site, period)

    def bar(label: str, runs: int):
        """A progress bar over runs."""
        return progress(total=runs, desc=label, unit="run")

    analysis, found = Analysis(emulator.space, models, period.days, arguments.seed, bar), Findings()
    if "morris" in arguments.method:
        analysis.morris(arguments.trajectories, lengths, arguments.noise, found)
    if "sobol" in arguments.method:
        analysis.sobol(arguments.samples, arguments.process_samples, found)
    if real is not None and "process_model" in models:
        from calibration.visit.simulator import simulate  # compiled code: loaded only where it is needed

        their_weather = read_weather(arguments.reference_weather, site)
        ours = simulate(real, their_weather, site, jobs=arguments.jobs).summary()
        compare_with_visit(real, ours, arguments.reference, found)
    found.facts |= {
        "start": str(period.start), "days": lengths, "noise": arguments.noise, "seed": arguments.seed,
        "models": list(models), "parameters": list(emulator.parameter_names), "weather": weather.source,
        "emulator": str(emulator.directory), "seconds": round(time.perf_counter() - begin, 1),
    }  # fmt: skip
    use_format(arguments.figure_format)
    found.write(directory)
    print("\n".join(found.lines))
    write_record(directory, begin, {
        "emulator": arguments.artifacts_dir, "ensemble": data,
        "weather": arguments.weather, "real VISIT's runs": arguments.reference,
    }, seed=arguments.seed)  # fmt: skip
    if arguments.report:
        from calibration.reports.kinds import report_on  # slow to import: loaded only where it is needed

        print(f"report: {report_on(directory)}")
    said = [found.facts["answer"]] if arguments.quiet and "answer" in found.facts else []
    closing(directory, f"python make_report.py {directory}", *said, f"{time.perf_counter() - begin:.0f} s")
    return 0


def flux_models(
    arguments: argparse.Namespace, emulator: Emulator, weather: Weather, site: Site, period: Period
) -> dict[str, FluxModel]:
    """The models of the command line; without the process model, said, where it lacks a parameter of the emulator."""
    order = [DYNAMIC_FEATURES.index(name) for name in emulator.feature_names]

    def emulated(values: np.ndarray, days: int) -> np.ndarray:
        """values (run, parameter) physical -> (run, days, 4) Mg C ha-1 day-1 by the emulator."""
        span = weather.values[period.first - CONTEXT_DAYS : period.first + days][:, order]
        return emulator.predict(values, span, CONTEXT_DAYS, check_ranges=False)

    def simulated(values: np.ndarray, days: int) -> np.ndarray:
        """The same by the process model."""
        made = simulate_vectors(values, emulator.parameter_names, weather, site, arguments.jobs)
        return made[:, period.first : period.first + days]

    models = {"emulator": emulated, "process_model": simulated}
    names = emulator.parameter_names
    unknown = [names[i] for i in in_model(names) if names[i] not in catalogue()]
    if unknown and "process_model" in arguments.models:
        if "emulator" not in arguments.models:
            raise UserError(f"the built-in process model has no parameter {unknown[0]}; use --models emulator")
        warn(f"the built-in process model has no parameter {unknown[0]}: the emulator alone is analysed")
        return {"emulator": emulated}
    return {name: models[name] for name in MODELS if name in arguments.models}


def parse_arguments() -> argparse.Namespace:
    """The command line, checked as far as it can be without reading files."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--artifacts-dir", default=str(REPOSITORY / "artifacts"), help="trained emulator: parameters and their ranges")
    add("--data-dir", help="ensemble whose weather drives both models (default: that of the emulator's training)")
    add("--weather", help="another weather file, VISIT's units (default: that of --data-dir)")
    add("--result-dir", default=str(REPOSITORY / "results" / "sensitivity"), help="folder for tables and figures")
    add("--site", help="site YAML (default: configs/sites/lhp.yaml)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1 (the emulator)")
    add("--jobs", type=int, help="threads of the process model (default: all cores)")
    add("--method", nargs="+", choices=METHODS, default=list(METHODS), help="which analyses")
    add("--models", nargs="+", choices=MODELS, default=list(MODELS), help="which models")
    add("--trajectories", type=int, default=20, help="Morris: trajectories of one run more than there are parameters")
    add("--samples", type=int, default=1024, help="Sobol, emulator: base samples (a power of 2)")
    add("--process-samples", type=int, default=64, help="Sobol, process model: the first of these samples")
    add("--start", type=iso_date, help="first day looked at, YYYY-MM-DD (default: the last 1 January that fits)")
    add("--days", type=int, nargs="+", help="lengths of the tower's record, days (default: 30 365 1826, as they fit)")
    add("--noise", type=float, default=0.005, help="sd of a day's observation error, Mg C ha-1 day-1")
    add("--seed", type=int, default=2025, help="seed of designs and of confidence intervals")
    add("--reference", help="real VISIT's Morris runs to compare with (default: those in ../shared/data, if there)")
    add("--reference-weather", help="their weather (default: beside them)")
    add("--figure-format", choices=FORMATS, default="png", help="pdf or svg for a paper")
    add("--report", action="store_true", help="also write report.html: all on one page (make_report.py)")
    add_quiet(parser)
    add_reproduce(parser, "--result-dir")
    arguments = parser.parse_args()
    arguments.days = sorted(set(arguments.days or []))
    if arguments.days and arguments.days[0] < 2:
        raise UserError(f"--days holds {arguments.days[0]}; a tower's record has 2 days or more")
    if not (np.isfinite(arguments.noise) and arguments.noise > 0):
        raise UserError(f"--noise is {arguments.noise}; it must be above 0 (Mg C ha-1 day-1)")
    for flag, least in (("seed", 0), ("jobs", 1), ("trajectories", 2), ("samples", 4), ("process_samples", 4)):
        value = getattr(arguments, flag)
        if value is not None and value < least:
            raise UserError(f"--{flag.replace('_', '-')} is {value}; it must be {least} or more")
    for flag in ("samples", "process_samples"):
        if getattr(arguments, flag) & (getattr(arguments, flag) - 1):
            raise UserError(f"--{flag.replace('_', '-')} is {getattr(arguments, flag)}; it must be a power of 2")
    if (arguments.reference is None) != (arguments.reference_weather is None):
        raise UserError("--reference and --reference-weather belong together; give both")
    if arguments.reference is None:
        runs = SHARED / "visit_reference" / "visit_lhp_morris_runs.csv"
        weather = SHARED / "lhp" / "era5_daily_filled_2010_2019.csv"
        if runs.is_file() and weather.is_file():
            arguments.reference, arguments.reference_weather = str(runs), str(weather)
    return arguments


if __name__ == "__main__":
    run(main)
