"""VISIT's carbon and water cycle at one site, re-implemented from its published equations and compiled.

    python visit_simulator.py --runs RUNS.csv --weather WEATHER.csv --summary OUT.csv [--daily-dir DIR]

RUNS.csv has `sample_id` and any subset of VISIT's parameters (any case; a missing one keeps its LHP baseline, see
configs/visit_parameters.csv for units). OUT.csv gets one row a run: mean_* and sd_annual_* of the annual sums over
whole calendar years, Mg C ha-1 year-1, and sd_daily_* of the daily values, Mg C ha-1 day-1 (population sd).
"""

import time
from pathlib import Path

from calibration.common.command_line import (
    UserError,
    make_parser,
    not_an_input,
    output_folder,
    run,
    write_csv,
)
from calibration.common.provenance import write_record
from calibration.common.reproduction import add_reproduce
from calibration.common.sites import DEFAULT_SITE, load_site, say_default, with_variant
from calibration.visit.simulator import SPINUPS, read_runs, simulate, write_daily_files
from calibration.weather.daily import read_weather


def main() -> int:
    begin = time.perf_counter()
    parser = make_parser(__doc__)
    parser.add_argument("--runs", required=True, help="CSV with sample_id and parameter columns, one row a run")
    parser.add_argument(
        "--weather",
        required=True,
        help="daily weather: CSV, VISIT daily file or forcing text (K, W m-2, "
        "percent, kg m-2 s-1, kg kg-1, m s-1); must hold at least one whole calendar year",
    )
    parser.add_argument("--summary", required=True, help="CSV to write, one row a run, Mg C ha-1 year-1")
    parser.add_argument("--daily-dir", help="also write every run as a VISIT daily text file into this folder")
    parser.add_argument("--site", default=str(DEFAULT_SITE), help="YAML with the site's constants")
    parser.add_argument(
        "--spinup",
        choices=SPINUPS,
        default="fast",
        help="full: all 2010 years; fast: the same state to 0.1 percent, sooner",
    )
    parser.add_argument("--variant", nargs="+", metavar="NAME[=VALUE]", help="another version of VISIT: site YAML")
    parser.add_argument("--old-runoff", action="store_true", help="runoff of the upper soil as in VISIT before 2014")
    parser.add_argument("--jobs", type=int, default=0, help="threads; 0 takes all cores")
    add_reproduce(parser, "--summary")
    arguments = parser.parse_args()
    if arguments.jobs < 0:
        raise UserError(f"--jobs is {arguments.jobs}, allowed is 0 (all cores) or more")
    not_an_input(arguments.summary, arguments.runs, arguments.weather, flag="--summary")
    if arguments.daily_dir:
        output_folder(arguments.daily_dir, "--daily-dir")
    site = with_variant(load_site(arguments.site), arguments.variant)
    table, values = read_runs(arguments.runs)
    weather = read_weather(arguments.weather, site)
    say_default(site, arguments.weather)
    start = time.perf_counter()
    result = simulate(
        values, weather, site, spinup=arguments.spinup, jobs=arguments.jobs or None, progress=True,
        old_runoff=arguments.old_runoff,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    summary = result.summary()
    summary.insert(0, "sample_id", table["sample_id"].to_numpy())
    if arguments.daily_dir:
        stamp = time.strftime("%Y%m%d%H%M%S")
        write_daily_files(Path(arguments.daily_dir), result, weather, values, table["sample_id"].tolist(), site, stamp)
    write_csv(arguments.summary, summary, float_format="%.8g")
    output, inputs = Path(arguments.summary), {"runs": arguments.runs, "weather": arguments.weather}
    write_record(output.parent, begin, {**inputs, "site": arguments.site}, output.name)
    print(
        f"{len(table)} runs, {weather.dates[0]} to {weather.dates[-1]}, {arguments.spinup} spin-up: {seconds:.1f} s; "
        f"mean over runs GPP {summary['mean_GPP'].mean():.2f}, NPP {summary['mean_NPP'].mean():.2f}, "
        f"ER {summary['mean_ER'].mean():.2f}, NEP {summary['mean_NEP'].mean():.3f} Mg C ha-1 year-1; "
        f"written: {arguments.summary}"
    )
    return 0


if __name__ == "__main__":
    run(main)
