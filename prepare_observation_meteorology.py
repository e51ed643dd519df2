"""Tower weather -> VISIT's nine daily variables, with the source of every value beside them.

    python prepare_observation_meteorology.py --input FLX_XX-Yyy_FULLSET_DD.csv --output observations/met_obs.csv \\
        --wind-height 46 --roughness 2.0 --fill era5 --era5 data/weather.csv

tmp_2m and tmp_sfc come from TA (+273.15 K), dswrf_sfc from SW_IN, prate_sfc from P (mm day-1 / 86400), wind_10m from WS
(log profile to 10 m if a sensor height is given), spfh_2m from TA, VPD and PA. Soil temperatures and cloud are ERA5's
(cloud can be estimated from shortwave with --cloud estimate). Without --fill, what the tower lacks stays empty. With
--fill era5 the ERA5 file's days are all filled, adjusted to the tower on the days that both have, and the output is a
weather file for build_observation_windows.py.
"""

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
    warn,
    write_json,
    writing,
)
from calibration.common.sites import Site, load_site
from calibration.common.units import METEOROLOGY, SECONDS_PER_DAY
from calibration.tower.file import read_tower_file
from calibration.tower.layouts import HIGH, LAYOUTS, LOW, recognise
from calibration.tower.meteorology import ERA5, NONE, UNIT_CHOICES, Meteorology, TowerWeather, from_tower, sidecar_path
from calibration.tower.weather_comparison import compare, era5_adjustment
from calibration.weather.atmosphere import air_pressure
from calibration.weather.daily import Weather, read_weather

SUSPICIOUS_RAIN = 100.0  # mm day-1; more is checked against ERA5


def fill_with_era5(met: Meteorology, era5: Weather, adjust: str) -> Meteorology:
    """The ERA5 file's days with the tower's values where it has some and adjusted ERA5 elsewhere.

    adjust: 'none', 'mean' or 'monthly' (weather_comparison.era5_adjustment). Tower days outside ERA5 are dropped with a
    warning: soil temperatures are known from ERA5 only. UserError when the two have no day in common.
    """
    index = (met.dates - era5.dates[0]).astype(int)
    inside = (index >= 0) & (index < len(era5))
    if not inside.any():
        raise UserError(
            f"{era5.source}: holds {era5.dates[0]} to {era5.dates[-1]}, the tower {met.dates[0]} to {met.dates[-1]}: "
            "no day in common; give ERA5 of the tower's years"
        )
    if not inside.all():
        warn(f"{int((~inside).sum())} tower days lie outside {era5.source} and are left out")
    tower = np.full((len(era5), len(METEOROLOGY)), np.nan)
    source = np.full(tower.shape, NONE, dtype=met.source.dtype)
    tower[index[inside]], source[index[inside]] = met.values[inside], met.source[inside]
    filling = era5_adjustment(tower, era5.values[:, : len(METEOROLOGY)], era5.dates, adjust)
    gap = np.isnan(tower)
    return Meteorology(era5.dates, np.where(gap, filling, tower), np.where(gap, ERA5, source), met.notes)


def write_meteorology(output: Path, met: Meteorology) -> Path:
    """Write date + nine variables, and the sidecar of sources (same columns, words); returns the sidecar's path."""
    days = met.dates.astype(str)
    table = pd.DataFrame(met.values, columns=list(METEOROLOGY))
    table.insert(0, "date", days)
    sources = pd.DataFrame(met.source, columns=list(METEOROLOGY))
    sources.insert(0, "date", days)
    sidecar = sidecar_path(output)
    with writing(sidecar) as temporary:  # first: a weather file without it would pass for all measured
        sources.to_csv(temporary, index=False)
    with writing(output) as temporary:
        table.to_csv(temporary, index=False, float_format="%.8g")
    return sidecar


def parse_units(texts: list[str]) -> dict[str, str]:
    """['VPD=kPa'] -> {'VPD': 'kPa'}; UserError on an unknown variable or unit."""
    units = {}
    for text in texts:
        name, _, unit = text.partition("=")
        if name not in UNIT_CHOICES or unit not in UNIT_CHOICES[name]:
            known = "; ".join(f"{key}={'|'.join(values)}" for key, values in UNIT_CHOICES.items())
            raise UserError(f"--unit {text} is unknown; allowed are {known}")
        units[name] = unit
    return units


def check_rain(met: Meteorology, era5: Weather | None) -> None:
    """Warn of days of extreme rain: a quality flag does not catch them."""
    rain = met.values[:, METEOROLOGY.index("prate_sfc")] * SECONDS_PER_DAY
    for day in np.flatnonzero(rain > SUSPICIOUS_RAIN)[:5]:
        beside = ""
        if era5 is not None:
            at = int((met.dates[day] - era5.dates[0]).astype(int))
            if 0 <= at < len(era5):
                other = era5.column("prate_sfc")[at] * SECONDS_PER_DAY
                if other > 0.3 * rain[day]:
                    continue
                beside = f" (ERA5 has {other:.0f})"
        warn(f"rain on {met.dates[day]} is {rain[day]:.0f} mm{beside}; quality flags do not catch outliers: check it")


def main() -> None:
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
    add("--no-figure", action="store_true", help="write no figure")
    arguments = parser.parse_args()
    not_an_input(arguments.output, arguments.input, arguments.era5)
    if arguments.fill == "era5" and not arguments.era5:
        raise UserError("--fill era5 needs --era5 FILE: a weather CSV, VISIT daily file or forcing text of the site")

    if not 0 <= arguments.qc_threshold <= 3:
        raise UserError(
            f"--qc-threshold is {arguments.qc_threshold:g}, allowed is 0 to 1 (share) or 0 to 3 (mean flag)"
        )

    site = load_site(arguments.site) if arguments.site else None
    met, forcing = read_both(arguments, site)
    check_rain(met, forcing)
    comparison = compare(met, forcing) if forcing is not None else None
    tower_days = {name: int((~np.isnan(met.values[:, i])).sum()) for i, name in enumerate(METEOROLOGY)}
    if arguments.fill == "era5":
        met = between(fill_with_era5(met, forcing, arguments.adjust), arguments.start, arguments.end)
    output = Path(arguments.output)
    sidecar = write_meteorology(output, met)
    write_json(output.with_name(f"{output.stem}_choices.json"), {
        "input": str(arguments.input), "era5": arguments.era5, "fill": arguments.fill, "adjust": arguments.adjust,
        "columns": met.notes, "tower_days": tower_days,
        "values_by_source": {str(word) or "none": int(count)
                             for word, count in zip(*np.unique(met.source, return_counts=True), strict=True)},
    })  # fmt: skip
    print(f"wrote {output}: {len(met.dates)} days, {met.dates[0]} to {met.dates[-1]}; sources in {sidecar.name}")
    for variable, note in met.notes.items():
        print(f"  {variable}: {note}")
    if comparison is not None:
        write_comparison(output, comparison, arguments.no_figure)


def read_both(arguments, site: Site | None) -> tuple[Meteorology, Weather | None]:
    """The tower's nine variables from --start to --end, and ERA5 if given."""
    forcing = read_weather(arguments.era5, site, arguments.first_day) if arguments.era5 else None
    tower = read_tower_file(arguments.input)
    layout = recognise(tower) if arguments.layout == "auto" else LAYOUTS[arguments.layout]
    print(f"{tower.path}: {layout.title}, {tower.dates[0]} to {tower.dates[-1]} ({len(tower.dates)} days)")
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
    return between(met, arguments.start, arguments.end), forcing


def between(met: Meteorology, start, end) -> Meteorology:
    """The days from start to end (dates or None)."""
    keep = np.ones(len(met.dates), dtype=bool)
    if start is not None:
        keep &= met.dates >= np.datetime64(start, "D")
    if end is not None:
        keep &= met.dates <= np.datetime64(end, "D")
    if not keep.any():
        raise UserError(f"no day from {start} to {end}; the weather runs from {met.dates[0]} to {met.dates[-1]}")
    return Meteorology(met.dates[keep], met.values[keep], met.source[keep], met.notes)


def write_comparison(output: Path, comparison: pd.DataFrame, no_figure: bool) -> None:
    """The table tower against ERA5 by month, its figure, and one line a variable."""
    with writing(output.with_name(f"{output.stem}_comparison.csv")) as temporary:
        comparison.to_csv(temporary, index=False, float_format="%.6g")
    if not no_figure:
        from calibration.tower.figures import comparison_figure, save_figure  # matplotlib is slow to import

        save_figure(comparison_figure(comparison), output.with_name(f"{output.stem}_comparison.png"))
    print("tower against ERA5 on common days:")
    whole = comparison[comparison["month"] == "all"].drop(columns="month")
    print(whole.to_string(index=False, float_format=lambda value: f"{value:.4g}"))


if __name__ == "__main__":
    run(main)
