"""Daily weather of a site: the Weather series, reading it from any file that users have, checking and generating it."""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import (
    UserError,
    existing_file,
    notice,
    write_csv,
    writing,
)
from calibration.common.sites import Site, load_site
from calibration.common.units import CO2, DYNAMIC_FEATURES, METEOROLOGY, ZERO_CELSIUS, without_missing_codes
from calibration.weather import forcing_file as visit_forcing_file
from calibration.weather.atmosphere import (
    air_pressure,
    background_co2,
    q_from_vapour_pressure,
    saturation_vapour_pressure,
    top_of_atmosphere_daily,
)
from calibration.weather.generator import generate_values
from calibration.weather.sentinel import check_weather

PRESSURE = "pressure"  # optional column, Pa
POSSIBLE_PRESSURE = (40000.0, 110000.0)
SEPARATORS = ",;\t|"


@dataclass(frozen=True)
class Weather:
    """Consecutive days of VISIT's ten inputs.

    dates: (day,) datetime64[D]; values: (day, 10) float64 in the order of units.DYNAMIC_FEATURES and the units of
    units.UNITS (K, W m-2, percent, kg m-2 s-1, kg kg-1, m s-1, ppmv); source: file or generator it came from;
    pressure: (day,) air pressure at the surface, Pa, where the source has it (VISIT's forcing text), else None.
    """

    dates: np.ndarray
    values: np.ndarray
    source: str
    pressure: np.ndarray | None = None

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
        pressure = None if self.pressure is None else self.pressure[keep]
        return Weather(self.dates[keep], self.values[keep], self.source, pressure)

    def frame(self) -> pd.DataFrame:
        """Table with column `date` and the ten variables, in VISIT's units, and `pressure` (Pa) where it is known."""
        table = pd.DataFrame(self.values, columns=list(DYNAMIC_FEATURES))
        if self.pressure is not None:
            table[PRESSURE] = self.pressure
        table.insert(0, "date", self.dates.astype(str))
        return table


def day_of_year0(dates: np.ndarray) -> np.ndarray:
    """Day of the year counted from 0 (29 February counts), (day,) int, of datetime64[D] dates."""
    return (dates - dates.astype("datetime64[Y]").astype("datetime64[D]")).astype(int)


def calendar_year(dates: np.ndarray) -> np.ndarray:
    """Calendar year, (day,) int, of datetime64[D] dates."""
    return dates.astype("datetime64[Y]").astype(int) + 1970


def weather_hash(weather: Weather, pressure: bool = False) -> str:
    """SHA-256 of days and values (and pressure, where it counts): was an ensemble made with this weather?"""
    days = weather.dates.astype("datetime64[D]").astype(np.int64)
    content = days.tobytes() + np.ascontiguousarray(weather.values, dtype=np.float64).tobytes()
    if pressure and weather.pressure is not None:
        content += np.ascontiguousarray(weather.pressure, dtype=np.float64).tobytes()
    return hashlib.sha256(content).hexdigest()


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
    dates = np.arange(first, last + np.timedelta64(1, "D"))
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
    return weather_of(_read_table(path, first_day), str(path), site)


def weather_of(table: pd.DataFrame, source: str, site: Site | None = None) -> Weather:
    """Checked weather from a table with `date`, the variables by name, perhaps a_co2 and pressure; see read_weather."""
    dates = table["date"].to_numpy().astype("datetime64[D]")
    check_consecutive(dates, source)
    if CO2 not in table:
        if site is None:
            site = load_site()
            notice(f"{source}: a_co2 is computed for site {site.name} (default; --site FILE for another)")
        table[CO2] = site_co2(site, dates)
    values = table[list(DYNAMIC_FEATURES)].to_numpy(dtype=float)
    values = check_weather(values, dates, source)
    pressure = table[PRESSURE].to_numpy(dtype=float) if PRESSURE in table else None
    if pressure is not None:
        check_pressure(pressure, dates, source)
    return Weather(dates, np.ascontiguousarray(values), source, pressure)


def check_pressure(pressure: np.ndarray, dates: np.ndarray, source: str) -> None:
    """UserError on an air pressure (day,) in Pa that is none."""
    low, high = POSSIBLE_PRESSURE
    bad = ~((pressure >= low) & (pressure <= high))
    if bad.any():
        day = int(bad.argmax())
        raise UserError(
            f"{source}: {PRESSURE} on {dates[day]} is {pressure[day]:g}, allowed is {low:g} to {high:g} Pa "
            f"({int(bad.sum())} such days); hPa times 100 are Pa"
        )


def write_weather(path: str | Path, weather: Weather, site: Site) -> None:
    """Write a weather CSV, or VISIT's 19-column forcing text where the name ends in .txt."""
    if Path(path).suffix.lower() != ".txt":
        return write_weather_csv(path, weather)
    with writing(path) as temporary:
        temporary.write_bytes(forcing_text(weather, site))


def forcing_text(weather: Weather, site: Site, like: visit_forcing_file.Forcing | None = None) -> bytes:
    """VISIT's 19-column forcing text; fields that the weather lacks are those of `like` on the same day.

    Without it: maximum and minimum temperature as the mean, 300 cm soil temperature as 10-200 cm, no snow, dry soil
    (VISIT computes both), pressure from the site's altitude.
    """
    celsius = weather.column("tmp_2m") - ZERO_CELSIUS
    pressure = weather.pressure if weather.pressure is not None else 100.0 * air_pressure(site.altitude, celsius)
    return visit_forcing_file.text_of(weather.dates, weather.values, pressure, like)


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
    separator = max(SEPARATORS, key=first_line.count)
    named = any(word.strip('" ').lower() == "date" for word in first_line.split(separator))
    if "," in first_line or (first_line.count(separator) and (named or separator != "\t")):
        return _read_csv(path, first_line, separator)
    fields = first_line.split()
    if visit_forcing_file.looks_like_forcing(fields):
        return visit_forcing_file.read_forcing(path, first_day).weather_table()
    return _read_daily(path)


def _read_csv(path: Path, header: str, separator: str) -> pd.DataFrame:
    names = [name.strip().lower() for name in next(csv.reader([header], delimiter=separator, skipinitialspace=True))]
    for name in ("date", *DYNAMIC_FEATURES):
        if names.count(name) > 1:
            raise UserError(f"{path}: has {names.count(name)} columns {name}; keep one")
    try:
        table = pd.read_csv(path, encoding="utf-8-sig", skipinitialspace=True, sep=separator, index_col=False)
    except (pd.errors.ParserError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path}: not readable as CSV ({error})") from None
    if table.empty:
        raise UserError(f"{path}: has a header but no rows; expected one row a day")
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
    values = table[names].apply(lambda column: without_missing_codes(pd.to_numeric(_points(column), errors="coerce")))
    if PRESSURE in table:  # 99999 is a missing code, but also a pressure in Pa
        values[PRESSURE] = pd.to_numeric(_points(table[PRESSURE]), errors="coerce").astype(float)
    return pd.concat([table[["date"]], values], axis=1)


def _points(column: pd.Series) -> pd.Series:
    """A column of text whose numbers all have decimal commas, with decimal points; anything else as it is."""
    if column.dtype.kind in "iufb":
        return column
    text = column.astype(str)
    commas = text.str.fullmatch(r"\s*[-+]?\d*,\d+(e[-+]?\d+)?\s*", case=False)
    return (
        text.str.replace(",", ".", regex=False)
        if commas.any() and not text.str.contains(".", regex=False).any()
        else column
    )


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
