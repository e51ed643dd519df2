"""Daily weather of a site: the Weather series, reading it from any file that users have, checking and generating it."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import (
    UserError,
    existing_file,
    write_csv,
)
from calibration.common.sites import Site, load_site
from calibration.common.units import CO2, DYNAMIC_FEATURES, METEOROLOGY, POSSIBLE, SECONDS_PER_DAY, UNITS, ZERO_CELSIUS
from calibration.weather import forcing_file as visit_forcing_file
from calibration.weather.atmosphere import (
    air_pressure,
    background_co2,
    q_from_vapour_pressure,
    saturation_vapour_pressure,
    top_of_atmosphere_daily,
)
from calibration.weather.generator import generate_values

HINTS = {
    "prate_sfc": "; precipitation is a rate in kg m-2 s-1 here: mm day-1 / 86400",
    "tmp_2m": "; temperatures are in K here: deg C + 273.15",
    "spfh_2m": "; specific humidity is in kg kg-1 here: g kg-1 / 1000",
}
for _name in ("tmp_sfc", "tmp10_soil", "tmp200_soil"):
    HINTS[_name] = HINTS["tmp_2m"]


@dataclass(frozen=True)
class Weather:
    """Consecutive days of VISIT's ten inputs.

    dates: (day,) datetime64[D]; values: (day, 10) float64 in the order of units.DYNAMIC_FEATURES and the units of
    units.UNITS (K, W m-2, percent, kg m-2 s-1, kg kg-1, m s-1, ppmv); source: file or generator it came from.
    """

    dates: np.ndarray
    values: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.dates)

    @property
    def doy0(self) -> np.ndarray:
        """Day of the year counted from 0, (day,) int."""
        return day_of_year0(self.dates)

    def column(self, name: str) -> np.ndarray:
        """One variable, (day,), in the unit units.UNITS[name]. KeyError if the name is none of the ten."""
        if name not in DYNAMIC_FEATURES:
            raise KeyError(f"{name}; known are {', '.join(DYNAMIC_FEATURES)}")
        return self.values[:, DYNAMIC_FEATURES.index(name)]

    def between(self, start, end) -> "Weather":
        """The days from start to end, both included (date, datetime64 or 'YYYY-MM-DD'; None: the first, last day).

        UserError when the weather does not cover them.
        """
        first = self.dates[0] if start is None else np.datetime64(start, "D")
        last = self.dates[-1] if end is None else np.datetime64(end, "D")
        if first > last:
            raise UserError(f"start {first} is after end {last}; give them in order")
        if first < self.dates[0] or last > self.dates[-1]:
            raise UserError(
                f"{self.source}: holds {self.dates[0]} to {self.dates[-1]}, but {first} to {last} is asked for; "
                "choose days inside, or give a longer weather file"
            )
        keep = slice(int((first - self.dates[0]).astype(int)), int((last - self.dates[0]).astype(int)) + 1)
        return Weather(self.dates[keep], self.values[keep], self.source)

    def frame(self) -> pd.DataFrame:
        """Table with column `date` and the ten variables, in VISIT's units."""
        table = pd.DataFrame(self.values, columns=list(DYNAMIC_FEATURES))
        table.insert(0, "date", self.dates.astype(str))
        return table


def day_of_year0(dates: np.ndarray) -> np.ndarray:
    """Day of the year counted from 0 (29 February counts), (day,) int, of datetime64[D] dates."""
    return (dates - dates.astype("datetime64[Y]").astype("datetime64[D]")).astype(int)


def calendar_year(dates: np.ndarray) -> np.ndarray:
    """Calendar year, (day,) int, of datetime64[D] dates."""
    return dates.astype("datetime64[Y]").astype(int) + 1970


def site_co2(site: Site, dates: np.ndarray) -> np.ndarray:
    """Background CO2 at the site, (day,) ppmv, by VISIT's formula (atmosphere.background_co2)."""
    return np.asarray(background_co2(site.latitude, calendar_year(dates), day_of_year0(dates)), dtype=float)


def generate_weather(site: Site, start, end, seed: int) -> Weather:
    """Made-up weather with the site's statistics (weather/generator.py), start to end included, repeatable by seed.

    >>> from calibration.common.sites import load_site
    >>> made = generate_weather(load_site(), "2012-02-28", "2012-03-01", seed=1)
    >>> str(made.dates[1]), made.values.shape
    ('2012-02-29', (3, 10))
    """
    first, last = np.datetime64(start, "D"), np.datetime64(end, "D")
    if first > last:
        raise UserError(f"start {first} is after end {last}; give them in order")
    if seed < 0:
        raise UserError(f"seed is {seed}, allowed is 0 or more")
    dates = np.arange(first, last + 1)
    values = np.column_stack([generate_values(site, dates, seed), site_co2(site, dates)])
    # Seven significant digits, as in VISIT's own files: a file written and read back is the same weather exactly.
    values = np.vectorize(lambda value: float(f"{value:.7g}"))(values)
    return Weather(dates, values, f"generated weather (site {site.name}, seed {seed})")


def write_weather_csv(path: str | Path, weather: Weather) -> None:
    """Write `date` and the ten variables as CSV; numbers are printed so that reading gives them back exactly."""
    write_csv(path, weather.frame())


def read_weather(path: str | Path, site: Site | None = None, first_day: int | None = None) -> Weather:
    """Read a weather CSV (`date` and columns by name, in any case), a VISIT daily file, or VISIT's forcing text.

    The kind is told from the content. A missing `a_co2` is filled by VISIT's formula for the site's latitude
    (site None: configs/sites/lhp.yaml). first_day: 0 or 1, how a forcing text numbers 1 January (None: found out).
    UserError on a missing column, a day missing, repeated or out of order, a NaN, or a value that is physically
    impossible in VISIT's units (a wrong unit).
    """
    path = existing_file(path, "make one with weather.py, or give your own")
    table = _read_table(path, first_day)
    dates = table["date"].to_numpy().astype("datetime64[D]")
    check_consecutive(dates, str(path))
    if CO2 not in table:
        table[CO2] = site_co2(site or load_site(), dates)
    values = table[list(DYNAMIC_FEATURES)].to_numpy(dtype=float)
    check_values(values, dates, str(path))
    return Weather(dates, np.ascontiguousarray(values), str(path))


def check_consecutive(dates: np.ndarray, source: str) -> None:
    """UserError naming the first pair of days that is not consecutive; dates: (day,) datetime64[D]."""
    if len(dates) == 0:
        raise UserError(f"{source}: holds no days")
    if np.isnat(dates).any():
        raise UserError(f"{source}: row {int(np.isnat(dates).argmax()) + 1} has no date; expected YYYY-MM-DD")
    steps = np.diff(dates).astype(int)
    if (steps != 1).any():
        at = int((steps != 1).argmax())
        problem = "repeats" if steps[at] == 0 else "steps back from" if steps[at] < 0 else "leaves a gap after"
        raise UserError(
            f"{source}: row {at + 2} is {dates[at + 1]}, which {problem} {dates[at]}; "
            "every day must be there once and in order"
        )


def check_values(values: np.ndarray, dates: np.ndarray, source: str) -> None:
    """UserError on NaN or a value outside units.POSSIBLE; values: (day, 10) in VISIT's order and units."""
    for column, name in enumerate(DYNAMIC_FEATURES):
        series = values[:, column]
        low, high = POSSIBLE[name]
        bad = ~((series >= low) & (series <= high))
        if bad.any():
            day = int(bad.argmax())
            found = "empty or not a number" if np.isnan(series[day]) else f"{series[day]:g}"
            raise UserError(
                f"{source}: {name} on {dates[day]} is {found}, allowed is {low:g} to {high:g} {UNITS[name]} "
                f"({int(bad.sum())} such days){HINTS.get(name, '')}"
            )
    cloud = values[:, DYNAMIC_FEATURES.index("tcdc_clm")]
    if len(cloud) >= 30 and 0 < cloud.max() <= 1.0:
        raise UserError(
            f"{source}: tcdc_clm never exceeds {cloud.max():g}, so it looks like a 0-1 share; "
            "cloud is in percent here: multiply the column by 100"
        )
    rain = values[:, DYNAMIC_FEATURES.index("prate_sfc")]
    if len(rain) >= 30 and rain.mean() * SECONDS_PER_DAY > 150.0:
        raise UserError(
            f"{source}: prate_sfc averages {rain.mean():g} kg m-2 s-1, which is {rain.mean() * SECONDS_PER_DAY:.0f} mm "
            "day-1; it looks like another unit: divide mm day-1 by 86400"
        )


def _read_table(path: Path, first_day: int | None) -> pd.DataFrame:
    """Table with `date` (datetime64[D]) and VISIT's variables by name, whichever of the three kinds the file is."""
    try:
        with path.open(encoding="utf-8-sig") as handle:
            first_line = handle.readline().strip()
    except UnicodeDecodeError:
        raise UserError(
            f"{path}: is not a text file; expected a weather CSV, VISIT daily file or forcing text"
        ) from None
    if not first_line:
        raise UserError(f"{path}: is empty or begins with an empty line; expected a weather file")
    if "," in first_line:
        return _read_csv(path, first_line)
    fields = first_line.split()
    if visit_forcing_file.looks_like_forcing(fields):
        return visit_forcing_file.read_forcing(path, first_day).weather_table()
    return _read_daily(path)


def _read_csv(path: Path, header: str) -> pd.DataFrame:
    names = [name.strip().lower() for name in next(csv.reader([header], skipinitialspace=True))]
    for name in ("date", *DYNAMIC_FEATURES):
        if names.count(name) > 1:
            raise UserError(f"{path}: has {names.count(name)} columns {name}; keep one")
    try:
        table = pd.read_csv(path, encoding="utf-8-sig", skipinitialspace=True)
    except (pd.errors.ParserError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path}: not readable as CSV ({error})") from None
    table.columns = [str(name).strip().lower() for name in table.columns]
    if "date" not in table:
        if {"year", "month", "day"} <= set(table.columns):
            table["date"] = _calendar_dates(path, table)
        else:
            raise UserError(f"{path}: has no column 'date'; found {', '.join(table.columns[:15])}")
    else:
        text = table["date"].astype(str).str.strip()
        table["date"] = pd.to_datetime(text, format="%Y-%m-%d", errors="coerce")
        _refuse_bad_dates(path, table["date"], text)
    return _numeric(path, table)


def _read_daily(path: Path) -> pd.DataFrame:
    """A VISIT daily output file, with or without a header row; its fluxes and parameters are not looked at."""
    from calibration.weather.daily_text import (
        read_daily_file,  # it imports torch by way of the parameters: slow, and rarely needed
    )

    daily = read_daily_file(path, fluxes=False)
    return pd.DataFrame({"date": daily.dates, **dict(zip(DYNAMIC_FEATURES, daily.dynamic.T, strict=True))})


def _calendar_dates(path: Path, table: pd.DataFrame) -> pd.Series:
    calendar = table[["year", "month", "day"]].apply(pd.to_numeric, errors="coerce")
    # pandas builds the text first, so a NaN or a fraction becomes NaT here and is reported with its row.
    whole = calendar.notna().all(axis=1) & (calendar == calendar.round()).all(axis=1)
    text = pd.Series("", index=table.index)
    filled = calendar[whole].astype(int)
    text[whole] = (
        filled["year"].astype(str).str.zfill(4) + "-" + filled["month"].astype(str).str.zfill(2)
        + "-" + filled["day"].astype(str).str.zfill(2)
    )  # fmt: skip
    dates = pd.to_datetime(text, format="%Y-%m-%d", errors="coerce")
    _refuse_bad_dates(path, dates, calendar.astype(str).agg("-".join, axis=1))
    return dates


def _refuse_bad_dates(path: Path, dates: pd.Series, text: pd.Series) -> None:
    """UserError naming the line of the first unreadable date below a header line."""
    if dates.isna().any():
        row = int(dates.isna().to_numpy().argmax())
        raise UserError(f"{path}: line {row + 2} has the date '{text.iloc[row]}'; expected YYYY-MM-DD")


def _numeric(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Keep `date` and VISIT's variables as float64; UserError names the missing ones."""
    missing = [name for name in METEOROLOGY if name not in table]
    if missing:
        raise UserError(
            f"{path}: has no column {', '.join(missing)}; a weather file needs date and {', '.join(METEOROLOGY)} "
            f"(a_co2 is computed when absent)"
        )
    names = [name for name in DYNAMIC_FEATURES if name in table]
    values = table[names].apply(pd.to_numeric, errors="coerce").astype(float)
    return pd.concat([table[["date"]], values], axis=1)


def doubts(weather: Weather, site: Site) -> list[str]:
    """What is possible by unit but not by physics, in words: more light than above the air, supersaturation."""
    celsius = weather.column("tmp_2m") - ZERO_CELSIUS
    saturated = q_from_vapour_pressure(saturation_vapour_pressure(celsius), air_pressure(site.altitude, celsius))
    limits = {
        "dswrf_sfc": ("above the top of the atmosphere", top_of_atmosphere_daily(site.latitude, weather.doy0)),
        "spfh_2m": ("more than 5 % above saturation", 1.05 * saturated),
    }
    return [
        f"{name} is {what} on {int((weather.column(name) > limit).sum())} of {len(weather)} days"
        for name, (what, limit) in limits.items()
        if (weather.column(name) > limit).any()
    ]
