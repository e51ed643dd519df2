"""VISIT's daily forcing text (such as LHP_ERA5.txt): 19 whitespace-separated fields a day, read and written exactly.

The text of every field is kept as it stands, so a file that is read and written again is the same to the byte in
every line that was not changed. Field order: specification section 6; units in FIELD_UNITS.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError, existing_file, writing

FIELD_UNITS = {
    "year": "", "day": "", "tmean_2m": "K", "tmax_2m": "K", "tmin_2m": "K", "spfh_2m": "kg kg-1",
    "prate_sfc": "kg m-2 s-1", "dswrf_sfc": "W m-2", "tcdc_clm": "percent", "tmp_sfc": "K", "tmp10_soil": "K",
    "tmp200_soil": "K", "tmp300_soil": "K", "soilw10": "volume share", "soilw200": "volume share", "u_wind": "m s-1",
    "v_wind": "m s-1", "snow": "kg m-2", "pressure": "Pa",
}  # fmt: skip
FIELDS = tuple(FIELD_UNITS)


@dataclass(frozen=True)
class Forcing:
    """A forcing file: lines (day,) as text without line end; values (day, 19) float64 in the order of FIELDS and the
    units of FIELD_UNITS; dates (day,) datetime64[D]; first_day 0 or 1 is the number of 1 January; newline the line end.
    """

    path: Path
    lines: list[str]
    values: np.ndarray
    dates: np.ndarray
    first_day: int
    newline: str
    ends_with_newline: bool

    def column(self, name: str) -> np.ndarray:
        """One field, (day,), in the unit FIELD_UNITS[name]."""
        return self.values[:, FIELDS.index(name)]

    def weather_table(self) -> pd.DataFrame:
        """Table with `date`, VISIT's nine variables (units.METEOROLOGY), pressure (Pa); wind is that of (u, v)."""
        return pd.DataFrame({
            "date": self.dates,
            "tmp_sfc": self.column("tmp_sfc"), "tmp_2m": self.column("tmean_2m"),
            "tmp10_soil": self.column("tmp10_soil"), "tmp200_soil": self.column("tmp200_soil"),
            "dswrf_sfc": self.column("dswrf_sfc"), "tcdc_clm": self.column("tcdc_clm"),
            "prate_sfc": self.column("prate_sfc"), "spfh_2m": self.column("spfh_2m"),
            "wind_10m": np.hypot(self.column("u_wind"), self.column("v_wind")), "pressure": self.column("pressure"),
        })  # fmt: skip


def looks_like_forcing(fields: list[str]) -> bool:
    """True when a line's fields are those of a forcing text: 19 of them, the third a temperature, not a month."""
    try:
        return len(fields) == len(FIELDS) and float(fields[2]) > 12
    except ValueError:
        return False


def read_forcing(path: str | Path, first_day: int | None = None) -> Forcing:
    """Read a forcing text. first_day: number that the file gives 1 January, 0 or 1 (None: told from the numbers).

    UserError on mixed line ends, a wrong number of fields, a field that is no number, or days that do not exist.
    """
    path = existing_file(path, "give VISIT's forcing text, such as LHP_ERA5.txt")
    return parse_forcing(path, path.read_bytes(), first_day)


def parse_forcing(path: Path, content: bytes, first_day: int | None = None) -> Forcing:
    """read_forcing for content already in memory; `path` is only named in errors."""
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not plain text; expected VISIT's forcing text") from None
    newline = "\r\n" if "\r\n" in text else "\n"
    if text.count("\n") != text.count(newline):
        raise UserError(f"{path}: mixes line ends of Windows and Unix; save it with one kind")
    lines = text.split(newline)
    ends_with_newline = bool(lines) and lines[-1] == ""
    if ends_with_newline:
        lines.pop()
    if not lines:
        raise UserError(f"{path}: is empty; expected {len(FIELDS)} fields a day")
    values = np.empty((len(lines), len(FIELDS)))
    for number, line in enumerate(lines):
        fields = line.split()
        if len(fields) != len(FIELDS):
            raise UserError(
                f"{path}: line {number + 1} has {len(fields)} fields, expected {len(FIELDS)} ({' '.join(FIELDS)})"
            )
        try:
            values[number] = [float(field) for field in fields]
        except ValueError as error:
            raise UserError(f"{path}: line {number + 1}: {error}; every field must be a number") from None
    if not np.isfinite(values).all():
        row, column = (int(index) for index in np.argwhere(~np.isfinite(values))[0])
        raise UserError(
            f"{path}: line {row + 1}: {FIELDS[column]} is {values[row, column]}; every field must be a number"
        )
    dates, first_day = _dates(path, values[:, 0], values[:, 1], first_day)
    return Forcing(path, lines, values, dates, first_day, newline, ends_with_newline)


def _dates(path: Path, years: np.ndarray, days: np.ndarray, first_day: int | None) -> tuple[np.ndarray, int]:
    for name, series, low, high in (("year", years, 1000, 9999), ("day", days, 0, 366)):
        bad = (series != np.round(series)) | (series < low) | (series > high)
        if bad.any():
            row = int(bad.argmax())
            raise UserError(
                f"{path}: line {row + 1}: {name} is {series[row]:g}, allowed are whole numbers {low} to {high}"
            )
    starts = years.astype(int).astype(str).astype("datetime64[Y]")
    length = ((starts + np.timedelta64(1, "Y")).astype("datetime64[D]") - starts.astype("datetime64[D]")).astype(int)
    if first_day is None:
        if days.min() == 0:
            first_day = 0
        elif (days >= length).any() or days[0] == 1:
            first_day = 1
        else:
            raise UserError(
                f"{path}: days run from {days.min():g} to {days.max():g}, which leaves open whether 1 January "
                "is day 0 or day 1; say it with --first-day 0 or --first-day 1 (to a script without that flag give a "
                "file that begins on 1 January)"
            )
    elif first_day not in (0, 1):
        raise UserError(f"first day {first_day}: 1 January is day 0 or day 1")
    index = days.astype(int) - first_day
    bad = (index < 0) | (index >= length)
    if bad.any():
        row = int(bad.argmax())
        raise UserError(
            f"{path}: line {row + 1}: day {days[row]:g} does not exist in {years[row]:g}, "
            f"where days run from {first_day} to {length[row] - 1 + first_day}"
        )
    return starts.astype("datetime64[D]") + index, first_day


def write_forcing(path: str | Path, forcing: Forcing, lines: list[str] | None = None) -> None:
    """Write a forcing text (lines: as `forcing.lines`, changed or not); unchanged lines are the same to the byte."""
    text = forcing.newline.join(forcing.lines if lines is None else lines)
    with writing(path) as temporary:
        temporary.write_bytes((text + (forcing.newline if forcing.ends_with_newline else "")).encode("ascii"))


def text_of(dates: np.ndarray, values: np.ndarray, pressure: np.ndarray, like: Forcing | None = None) -> bytes:
    """A forcing text of the given weather, so that reading gives the weather back.

    dates: (day,) datetime64[D]; values: (day, 9 or more) in the order and units of units.METEOROLOGY; pressure: (day,)
    Pa. like: gives, on the days it has, the fields that `values` lacks, and the number of 1 January (else 1).
    """
    t_surface, t_air, t_soil, t_deep, shortwave, cloud, rain, humidity, wind = values[:, :9].T
    years = dates.astype("datetime64[Y]")
    first_day = like.first_day if like is not None else 1
    columns = {
        "year": years.astype(int) + 1970, "day": (dates - years.astype("datetime64[D]")).astype(int) + first_day,
        "tmean_2m": t_air, "tmax_2m": t_air, "tmin_2m": t_air, "spfh_2m": humidity, "prate_sfc": rain,
        "dswrf_sfc": shortwave, "tcdc_clm": cloud, "tmp_sfc": t_surface, "tmp10_soil": t_soil, "tmp200_soil": t_deep,
        "tmp300_soil": t_deep, "u_wind": wind, "pressure": pressure,
    }  # fmt: skip
    table = np.stack([columns.get(name, np.zeros(len(dates))) for name in FIELDS], axis=1).astype(np.float64)
    if like is not None:
        _, ours, theirs = np.intersect1d(dates, like.dates, return_indices=True)
        for name in ("tmax_2m", "tmin_2m"):  # their distance from the mean
            spread = like.column(name)[theirs] - like.column("tmean_2m")[theirs]
            table[ours, FIELDS.index(name)] += spread
        for name in ("tmp300_soil", "soilw10", "soilw200", "snow"):
            table[ours, FIELDS.index(name)] = like.column(name)[theirs]
    rows = (f"{row[0]:.0f} {row[1]:.0f} " + " ".join(f"{value:.9g}" for value in row[2:]) for row in table.tolist())
    return ("\n".join(rows) + "\n").encode("ascii")
