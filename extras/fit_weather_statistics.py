"""Statistics of a site's weather for the generator: monthly quantiles and correlations from a daily weather file.

    python extras/fit_weather_statistics.py --weather my_era5.csv --site configs/sites/mysite.yaml

writes the JSON that `weather:` in the site's YAML names; one that is there already is replaced only when --output names
it. At least one full year; five or more make good statistics.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the packages, wherever it is started

from calibration.common.command_line import UserError, make_parser, not_an_input, run
from calibration.common.sites import DEFAULT_SITE, load_site, say_default
from calibration.weather.daily import read_weather
from calibration.weather.generator import fit_statistics, save_statistics


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--weather", required=True, help="weather CSV, VISIT daily file or forcing text, VISIT's units")
    parser.add_argument("--site", default=str(DEFAULT_SITE), help="site YAML (latitude; names the output)")
    parser.add_argument("--output", default=None, help="JSON to write (default: the file that the site's YAML names)")
    parser.add_argument("--source", default=None, help="words on where the weather is from, kept in the JSON")
    arguments = parser.parse_args()

    site = load_site(arguments.site)
    output = Path(arguments.output) if arguments.output else site.weather_statistics
    if not arguments.output and output.exists():  # a copied YAML still names the statistics of the first site
        raise UserError(
            f"{output}: is there already; change `weather:` in {site.path}, or replace it with --output {output}"
        )
    not_an_input(output, arguments.weather, arguments.site)
    weather = read_weather(arguments.weather, site)
    say_default(site, arguments.weather)
    span = f"{weather.dates[0]} to {weather.dates[-1]}"
    source = arguments.source or f"{Path(arguments.weather).name}, {span}"
    statistics = fit_statistics(weather.values, weather.dates, site.latitude, source)
    save_statistics(output, statistics)
    print(f"wrote {output}: statistics of {len(weather)} days, {span}")


if __name__ == "__main__":
    run(main)
