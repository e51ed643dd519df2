"""Daily weather of a site: read from a file (CSV, VISIT daily file, VISIT forcing text), or generated.

    python weather.py --output data/weather.csv --start 2010-01-01 --end 2019-12-31 --seed 2025

writes a CSV with `date` and the ten inputs of VISIT in VISIT's units (common/units.py), from the weather generator.
`python weather.py --check MY.csv` reads and checks a file of your own; `--convert IN --output OUT` rewrites one: named
OUT.txt it is VISIT's 19-column forcing text (pressure included), else a CSV. IN may be either, or a VISIT daily file.
"""

import time
from pathlib import Path

from calibration.common.command_line import REPOSITORY, iso_date, make_parser, not_an_input, run, warn
from calibration.common.provenance import write_record
from calibration.common.reproduction import add_reproduce
from calibration.common.sites import DEFAULT_SITE, load_site, say_default
from calibration.common.units import DYNAMIC_FEATURES, UNITS
from calibration.weather.daily import doubts, generate_weather, read_weather, write_weather


def main() -> None:
    begin = time.perf_counter()
    parser = make_parser(__doc__)
    parser.add_argument("--output", default=str(REPOSITORY / "data" / "weather.csv"), help="weather CSV to write")
    parser.add_argument("--start", type=iso_date, help="first day, YYYY-MM-DD (default: the site's period)")
    parser.add_argument("--end", type=iso_date, help="last day, YYYY-MM-DD, included (default: the site's)")
    parser.add_argument("--seed", type=int, default=2025, help="the same seed gives the same weather")
    parser.add_argument("--site", default=str(DEFAULT_SITE), help="site YAML (latitude, statistics of the weather)")
    parser.add_argument("--check", metavar="FILE", help="check a weather file of your own instead; writes nothing")
    parser.add_argument("--convert", metavar="FILE", help="weather file to rewrite as --output, instead of making one")
    add_reproduce(parser, "--output")
    arguments = parser.parse_args()
    if arguments.convert:
        not_an_input(arguments.output, arguments.convert)

    site = load_site(arguments.site)
    if arguments.check:
        weather = read_weather(arguments.check, site)
        print(f"{arguments.check}: {len(weather)} days, {weather.dates[0]} to {weather.dates[-1]}, readable")
    elif arguments.convert:
        weather = read_weather(arguments.convert, site).between(arguments.start, arguments.end)
        write_weather(arguments.output, weather, site)
        print(f"wrote {arguments.output}: {len(weather)} days, {weather.dates[0]} to {weather.dates[-1]}")
    else:
        start, end = arguments.start or site.period["start"], arguments.end or site.period["end"]
        weather = generate_weather(site, start, end, arguments.seed)
        write_weather(arguments.output, weather, site)
        print(f"wrote {arguments.output}: {len(weather)} days, {start} to {end}, {weather.source}")
    if not arguments.check:
        output, seed = Path(arguments.output), None if arguments.convert else arguments.seed
        inputs = {"weather": arguments.convert, "site": arguments.site}
        write_record(output.parent, begin, inputs, output.name, seed=seed)
    for name, low, mean, high in zip(
        DYNAMIC_FEATURES, weather.values.min(0), weather.values.mean(0), weather.values.max(0), strict=True
    ):
        print(f"  {name:12s} {mean:11.5g} ({low:.5g} to {high:.5g}) {UNITS[name]}")
    say_default(site, arguments.check or arguments.convert)
    for doubt in doubts(weather, site):
        warn(doubt)


if __name__ == "__main__":
    run(main)
