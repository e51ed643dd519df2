"""Tower weather -> VISIT's nine daily variables, with the source of every value beside them.

    python prepare_observation_meteorology.py --input FLX_XX-Yyy_FULLSET_DD.csv --output observations/met_obs.csv \\
        --wind-height 46 --roughness 2.0 --fill era5 --era5 data/weather.csv

tmp_2m and tmp_sfc come from TA (+273.15 K), dswrf_sfc from SW_IN, prate_sfc from P (mm day-1 / 86400), wind_10m from WS
(log profile to 10 m if a sensor height is given), spfh_2m from TA, VPD and PA. Soil temperatures and cloud are ERA5's
(cloud can be estimated from shortwave with --cloud estimate). Without --fill, what the tower lacks stays empty. With
--fill era5 the ERA5 file's days are all filled, adjusted to the tower on the days that both have, and the output is a
weather file for build_observation_windows.py.
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import (
    REPOSITORY,
    UserError,
    iso_date,
    make_parser,
    not_an_input,
    run,
    write_csv,
    write_json,
)
from calibration.common.provenance import write_record
from calibration.common.reproduction import add_reproduce
from calibration.common.sites import Site, load_site
from calibration.common.units import METEOROLOGY
from calibration.tower.file import read_tower_file
from calibration.tower.layouts import HIGH, LAYOUTS, LOW, recognise
from calibration.tower.meteorology import Meteorology, between, check_rain, from_tower, lacking, write_meteorology
from calibration.tower.weather_columns import TowerWeather, parse_units
from calibration.tower.weather_comparison import compare, fill_with_era5, warn_of_disagreement
from calibration.weather.atmosphere import air_pressure
from calibration.weather.daily import Weather, read_weather


def main() -> None:
    begin = time.perf_counter()
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--input", required=True, help="daily CSV of the tower, as the network publishes it")
    add(
        "--output", default=str(REPOSITORY / "observations" / "met_obs.csv"), help="weather CSV to write, VISIT's units"
    )
    add("--start", type=iso_date, help="first day, YYYY-MM-DD (default: the file's)")
    add("--end", type=iso_date, help="last day, included, YYYY-MM-DD (default: the file's)")
    add("--layout", choices=["auto", *LAYOUTS], default="auto", help="network of the file")
    add("--qc-threshold", type=float, default=0.5, help="worst daily flag kept: at least (share), at most (mean flag)")
    add("--qc-best", choices=[LOW, HIGH], help="which end of the flags is best (default: by layout and values)")
    add("--no-qc", action="store_true", help="use every value, whatever its flag")
    add(
        "--unit",
        action="append",
        default=[],
        metavar="VARIABLE=UNIT",
        help="a tower variable's unit, such as VPD=kPa or TA=K (default: by magnitude)",
    )
    add("--site", help="site YAML: heights for the wind, altitude where PA is missing, latitude for cloud")
    add(
        "--wind-height", type=float, help="height of the anemometer, m (default: the site's, else no height correction)"
    )
    add("--roughness", type=float, help="roughness length, m (default: the site's)")
    add("--cloud", choices=["era5", "estimate"], default="era5", help="cloud from ERA5, or estimated from shortwave")
    add("--era5", help="ERA5 at the site: weather CSV, VISIT daily file or forcing text, VISIT's units")
    add("--first-day", type=int, choices=(0, 1), help="forcing text only: number of its 1 January")
    add("--fill", choices=["none", "era5"], default="none", help="fill what the tower lacks from --era5")
    add(
        "--adjust",
        choices=["none", "mean", "monthly"],
        default="mean",
        help="adjust ERA5 to the tower on common days: temperatures by difference, the rest by ratio",
    )
    add(
        "--trust-era5",
        action="append",
        default=[],
        choices=METEOROLOGY,
        metavar="VARIABLE",
        help="fill this variable although ERA5 and the tower differ as in another unit (repeatable)",
    )
    add("--no-figure", action="store_true", help="write no figure")
    add("--report", action="store_true", help="also write report.html on the output's folder (make_report.py)")
    add_reproduce(parser, "--output")
    arguments = parser.parse_args()
    not_an_input(arguments.output, arguments.input, arguments.era5)
    if arguments.fill == "era5" and not arguments.era5:
        raise UserError("--fill era5 needs --era5 FILE: a weather CSV, VISIT daily file or forcing text of the site")

    if not 0 <= arguments.qc_threshold <= 3:
        raise UserError(
            f"--qc-threshold is {arguments.qc_threshold:g}, allowed is 0 to 1 (share) or 0 to 3 (mean flag)"
        )

    site = load_site(arguments.site) if arguments.site else None
    met, forcing, missing = read_both(arguments, site)
    check_rain(met, forcing)
    comparison = compare(met, forcing) if forcing is not None else None
    if comparison is not None and arguments.fill == "none":
        warn_of_disagreement(met, forcing)
    tower_days = {name: int((~np.isnan(met.values[:, i])).sum()) for i, name in enumerate(METEOROLOGY)}
    if arguments.fill == "era5":
        met = between(
            fill_with_era5(met, forcing, arguments.adjust, arguments.trust_era5), arguments.start, arguments.end
        )
    output = Path(arguments.output)
    sidecar = write_meteorology(output, met)
    write_json(output.with_name(f"{output.stem}_choices.json"), {
        "input": str(arguments.input), "era5": arguments.era5, "fill": arguments.fill, "adjust": arguments.adjust,
        "columns": met.notes, "lacking": missing, "tower_days": tower_days,
        "values_by_source": {str(word) or "none": int(count)
                             for word, count in zip(*np.unique(met.source, return_counts=True), strict=True)},
    })  # fmt: skip
    print(f"wrote {output}: {len(met.dates)} days, {met.dates[0]} to {met.dates[-1]}; sources in {sidecar.name}")
    for variable, note in met.notes.items():
        print(f"  {variable}: {note}")
    if arguments.fill == "none":
        for line in missing:
            print(f"  {line}")
    if comparison is not None:
        write_comparison(output, comparison, arguments.no_figure)
    inputs = {"tower file": arguments.input, "ERA5": arguments.era5, "site": arguments.site}
    write_record(output.parent, begin, inputs, output.name)
    if arguments.report:
        from calibration.reports.kinds import report_on  # slow to import: loaded only where it is needed

        print(f"report: {report_on(output.parent)}")


def read_both(arguments, site: Site | None) -> tuple[Meteorology, Weather | None, list[str]]:
    """The tower's nine variables from --start to --end, ERA5 if given, and what the tower lacks, in words."""
    forcing = read_weather(arguments.era5, site, arguments.first_day) if arguments.era5 else None
    tower = read_tower_file(arguments.input)
    layout = recognise(tower) if arguments.layout == "auto" else LAYOUTS[arguments.layout]
    print("\n".join(tower.described(layout.title)))
    threshold = None if arguments.no_qc else arguments.qc_threshold
    weather = TowerWeather(tower, layout, threshold, arguments.qc_best, parse_units(arguments.unit))
    height = arguments.wind_height if arguments.wind_height is not None else site and site.wind_height
    roughness = arguments.roughness if arguments.roughness is not None else site and site.roughness
    if height is not None and roughness is None:
        raise UserError("--wind-height needs --roughness (m, about a tenth of the canopy's height) or --site")
    if roughness is not None and height is None:
        raise UserError("--roughness needs --wind-height (m, of the anemometer) or --site")
    celsius = weather["TA"][~np.isnan(weather["TA"])]
    pressure = float(air_pressure(site.altitude, celsius.mean())) / 10 if site and len(celsius) else None
    met = from_tower(
        weather, height, roughness, arguments.cloud == "estimate", site.latitude if site else None, pressure
    )
    if np.isnan(met.values).all():
        raise UserError(f"{tower.path}: has no weather: none of TA_F, SW_IN_F, P_F, WS_F, VPD_F holds a usable value")
    return between(met, arguments.start, arguments.end), forcing, lacking(met, weather)


def write_comparison(output: Path, comparison: pd.DataFrame, no_figure: bool) -> None:
    """The table tower against ERA5 by month, its figure, and one line a variable."""
    write_csv(output.with_name(f"{output.stem}_comparison.csv"), comparison, float_format="%.6g")
    if not no_figure:
        from calibration.common.figure_style import save_figure  # matplotlib is slow to import
        from calibration.tower.figures import comparison_figure

        save_figure(comparison_figure(comparison), output.with_name(f"{output.stem}_comparison.png"))
    print("tower against ERA5 on common days:")
    whole = comparison[comparison["month"] == "all"].drop(columns="month")
    print(whole.to_string(index=False, float_format=lambda value: f"{value:.4g}"))


if __name__ == "__main__":
    run(main)
