"""One daily text file of VISIT, in and out.

Whitespace-separated, no header, one row a day: year doy month day (doy counts from 0), nine weather columns, a_co2,
gpp npp er nep, then parameter columns that are ignored. Units: units.UNITS.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError, existing_file, writing
from calibration.common.parameters import catalogue
from calibration.common.units import (
    CALENDAR,
    DAILY_COLUMNS,
    DYNAMIC_FEATURES,
    FILE_FLUXES,
    POSSIBLE,
    UNITS,
    rh_from_npp_nep,
)
from calibration.weather.sentinel import advice, set_rounding

KINDS = (
    "alloc_ass", "alloc_abg", "sla", "lue", "pmax", "topt", "tmin", "tmax", "rmf0", "qTf0", "qTc0", "qTr0",
    "lf0", "lc0", "lr0",
)  # fmt: skip
SOIL_NAMES = ("soil_sr_lf", "soil_sr_lc", "soil_sr_lr", "soil_f_co2_lf", "soil_f_co2_lc", "soil_f_co2_lr")
# The 51 trailing columns of VISIT's files. The C4 floor has cover 0 at this site and no parameters here: written as 0.
PARAMETER_COLUMNS = (*(f"{layer}_{kind}" for layer in ("tree", "c3", "c4") for kind in KINDS), *SOIL_NAMES)
LARGEST_FLUX = 5.0  # Mg C ha-1 day-1; beyond it a file is in other units (g C m-2) or holds -9999
DIGITS = 9  # significant digits in the text: NEP = GPP - ER then holds to 1e-9


# ---- writing


def daily_template(dates: np.ndarray, dynamic: np.ndarray) -> str:
    """The part of a daily file that all runs share, as a printf template; see write_daily_file for the arguments."""
    stamps = pd.DatetimeIndex(dates)
    calendar = zip(stamps.year, stamps.day_of_year - 1, stamps.month, stamps.day, strict=True)
    number = f"%.{DIGITS}g"
    weather, fluxes = " ".join([number] * len(DYNAMIC_FEATURES)), " ".join([number] * len(FILE_FLUXES))
    rows = zip(calendar, np.asarray(dynamic, dtype=np.float64).tolist(), strict=True)
    # the tab marks where daily_text puts the parameters, which are the same on all days
    return "".join(f"{y} {doy} {m} {d} {weather % tuple(row)} {fluxes}\t\n" for (y, doy, m, d), row in rows)


def daily_text(template: str, fluxes: np.ndarray, parameters: Mapping[str, float] | None = None) -> str:
    """The text of one daily file.

    template: from daily_template. fluxes: (day, 4) GPP NPP NEP Rh, Mg C ha-1 day-1; the ER column is GPP - NEP.
    parameters: name -> value for the trailing columns; a missing one is written at its LHP baseline.
    """
    gpp, npp, nep = np.asarray(fluxes, dtype=np.float64)[:, :3].T
    values = np.stack([gpp, npp, gpp - nep, nep], axis=1)
    parameters = parameters or {}
    known = catalogue()
    suffix = " ".join(
        f"{parameters.get(name, known[name].baseline if name in known else 0.0):.7g}" for name in PARAMETER_COLUMNS
    )
    return (template % tuple(values.ravel().tolist())).replace("\t", " " + suffix)


def write_daily_file(
    path: str | Path, dates: np.ndarray, dynamic: np.ndarray, fluxes: np.ndarray,
    parameters: Mapping[str, float] | None = None, template: str | None = None,
) -> None:  # fmt: skip
    """Write one run as a VISIT daily text file, atomically.

    dates: (day,) datetime64[D]. dynamic: (day, 10) in the order and units of units.DYNAMIC_FEATURES.
    fluxes: (day, 4) in the order of units.TARGETS, Mg C ha-1 day-1. parameters: name -> value (default: baseline).
    template: daily_template(dates, dynamic), given when many runs share one weather.
    """
    template = template or daily_template(dates, dynamic)
    with writing(path) as temporary:
        temporary.write_text(daily_text(template, fluxes, parameters), encoding="ascii")


def round_as_written(values: np.ndarray) -> np.ndarray:
    """`values` rounded to the digits that the text files hold, so that the binary copy has the same content."""
    values = np.asarray(values, dtype=np.float64)
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log10(np.abs(values)))
    scale = 10.0 ** (DIGITS - 1 - np.where(np.isfinite(exponent), np.maximum(exponent, -200.0), 0.0))
    return np.rint(values * scale) / scale


# ---- reading one file

PAGES_AS_BLANKS = bytes.maketrans(b"\v\f", b"  ")  # Fortran's carriage control: new pages
CONTROL = re.compile(rb"[\x01-\x08\x0e-\x1f]")


@dataclass(frozen=True)
class DailyFile:
    """One run of VISIT as read from its text file."""

    path: Path
    dates: np.ndarray  # (day,) datetime64[D], consecutive
    dynamic: np.ndarray  # (day, 10) float64, order and units of units.DYNAMIC_FEATURES
    fluxes: np.ndarray  # (day, 4) float64, order of units.TARGETS, Mg C ha-1 day-1; (day, 0) if not asked for
    width: int  # columns in the file


def read_daily_file(path: str | Path, columns: Sequence[str] | None = None, fluxes: bool = True) -> DailyFile:
    """Read and check one daily text file; Rh = NPP - NEP.

    columns: the names of the file's leading columns in order (default units.DAILY_COLUMNS, or the header row if the
    file has one); names that are not needed may be anything. fluxes: False for a file that holds only weather.
    Raises UserError naming file, line and column when the file is cut short, has a wrong number of columns, a value
    that is no finite number or is impossible in its unit, or dates that do not follow each other.
    """
    path = existing_file(path)
    content = path.read_bytes()
    return parse_daily_file(path, content, columns, fluxes)


def parse_daily_file(
    path: Path, content: bytes, columns: Sequence[str] | None = None, fluxes: bool = True
) -> DailyFile:
    """read_daily_file for content already in memory; `path` is only named in errors."""
    values, lines, width = parse_columns(
        path, content, columns, lambda names, width: _wanted_columns(path, names, width, fluxes)
    )
    check_values(path, values, lines)
    dates = dates_of(path, values, lines)
    dynamic = np.stack([values[name] for name in DYNAMIC_FEATURES], axis=1)
    targets = np.empty((len(dates), 0))
    if fluxes:
        rh = rh_from_npp_nep(values["npp"], values["nep"])
        targets = np.stack([values["gpp"], values["npp"], values["nep"], rh], axis=1)
    return DailyFile(path, dates, dynamic, targets, width)


def parse_columns(
    path: Path, content: bytes, columns: Sequence[str] | None, pick: Callable[[list[str], int], dict[str, int]]
) -> tuple[dict[str, np.ndarray], np.ndarray, int]:
    """The columns that `pick(names, width)` chooses (name -> position) of a text table, its rows' lines, its width.

    Columns are separated by blanks or commas; `columns`: names of the leading ones in order (default: a header row's,
    else units.DAILY_COLUMNS). Returns name -> (row,) float64 and lines (row,) from 0. UserError as in read_daily_file.
    """
    if b"\0" in content:
        raise UserError(f"{path}: not a text file (it holds zero bytes); run this sample again")
    content = content.rstrip(b" \t\r\n\v\f\x1a").translate(PAGES_AS_BLANKS)  # 0x1a: the end of a file of DOS
    other = CONTROL.search(content)  # pandas takes them for text, the eye for blanks
    if other:
        line = content.count(b"\n", 0, other.start()) + 1
        raise UserError(f"{path}, line {line}: holds the control byte {other[0][0]:#04x}; run this sample again")
    if b"\r" in content:  # pandas takes each for the end of a line
        lone = b" " if b"\n" in content else b"\n"
        content = content.replace(b"\r\n", b"\n").replace(b"\r", lone)
    content = _plain(path, content)
    counts, lines = _tokens_per_line(content)
    if len(counts) == 0:
        raise UserError(f"{path}: the file is empty; run this sample again")
    names, header = _column_names(path, content, columns, lines[0])
    if header:
        counts, lines = counts[1:], lines[1:]
    if len(counts) == 0:
        raise UserError(f"{path}: there are no rows below the header; run this sample again")
    width = int(np.bincount(counts).argmax())
    if (counts != width).any():
        row = int(np.argmax(counts != width))
        cut = "; the file looks cut short" if row == len(counts) - 1 else ""
        raise UserError(
            f"{path}, line {lines[row] + 1}: {counts[row]} columns where the other rows have {width}{cut}; "
            "run this sample again"
        )
    wanted = pick(names, width)
    table = _numbers(path, content, lines, list(wanted.values()), header)
    values = dict(zip(wanted, table.T, strict=True))
    for name in DYNAMIC_FEATURES:
        if name in values:
            values[name] = set_rounding(name, values[name])
    return values, lines, width


def _plain(path: Path, content: bytes) -> bytes:
    """The content with comment lines above the rows blanked, and commas or semicolons between fields as blanks.

    Lines keep their numbers. UserError where commas could be decimals.
    """
    start = content.find(b"\xef\xbb\xbf") + 3 if content.startswith(b"\xef\xbb\xbf") else 0
    position, rows = start, []
    while position < len(content):  # comments above the rows; a header may begin with # too
        end = content.find(b"\n", position)
        end = len(content) if end < 0 else end
        line = content[position:end].strip()
        if line and not line.startswith(b"#"):
            rows.append(line)
            break
        if line and b"year" not in line.lower():
            content = content[:position] + b" " * (end - position) + content[end:]
        position = end + 1
    first = rows[0] if rows else b""
    separator = max((b",", b";"), key=first.count)
    if first.count(separator) < len(CALENDAR):
        return content
    if separator == b";":
        content = content.replace(b",", b".") if b"," in content and b"." not in content else content
    elif len(first.split()) > 1 and b", " not in first:
        raise UserError(f"{path}: has commas inside its fields, separated by blanks; write numbers with decimal points")
    return content.replace(separator, b" ")


# Fortran's 1.2D-01, and 1.2-101 where an exponent of three digits leaves no room for its letter.
FORTRAN = (
    (re.compile(rb"(?<=[\d.])[dD](?=[+-]?\d)"), b"E"),
    (re.compile(rb"(?<=\d)([+-]\d{3})(?=\s|$)"), rb"E\1"),
)


def _tokens_per_line(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Number of whitespace-separated fields of every line that is not blank, and the line's index from 0."""
    data = np.frombuffer(content + b"\n", dtype=np.uint8)
    blank = data <= 32
    first = ~blank
    first[1:] &= blank[:-1]
    ends = np.flatnonzero(data == 10)
    counts = np.add.reduceat(first.view(np.uint8), np.r_[0, ends[:-1]], dtype=np.int64)
    lines = np.flatnonzero(counts)
    return counts[lines], lines


def _column_names(path: Path, content: bytes, columns: Sequence[str] | None, first_line: int) -> tuple[list[str], bool]:
    """Names of the leading columns (lower case), and whether the first line is a header."""
    first = content.split(b"\n", first_line + 1)[first_line].decode("utf-8", "replace").lstrip("\ufeff#").split()
    try:
        [float(field) for field in first[: len(CALENDAR)]]
    except ValueError:
        header = [field.strip("\"',").lower() for field in first]
        if columns is None or set(CALENDAR[:1]) <= set(header):
            return header, True
        return [name.lower() for name in columns], True
    return [name.lower() for name in columns or DAILY_COLUMNS], False


def _wanted_columns(path: Path, names: list[str], width: int, fluxes: bool) -> dict[str, int]:
    """Position of every column that is read: the date, the weather and (if asked for) GPP, NPP, ER, NEP."""
    day = ["month", "day"] if {"month", "day"} <= set(names) else ["doy"]
    wanted = ["year", *day, *DYNAMIC_FEATURES, *(("gpp", "npp", "nep") if fluxes else ())]
    wanted += [name for name in ("doy", "er") if name in names and name not in wanted and (fluxes or name == "doy")]
    for name in wanted:
        if names.count(name) != 1:
            state = "missing" if name not in names else f"listed {names.count(name)} times"
            raise UserError(
                f"{path}: column '{name}' is {state} in {' '.join(names[:24])}; give the file's column order"
            )
    position = {name: names.index(name) for name in wanted}
    last = max(position, key=position.__getitem__)
    if position[last] >= width:
        raise UserError(
            f"{path}: {width} columns, expected at least {position[last] + 1} ({' '.join(names[: position[last] + 1])})"
        )
    return position


def _numbers(path: Path, content: bytes, lines: np.ndarray, positions: list[int], header: bool) -> np.ndarray:
    """(row, column) float64 of the columns at `positions`; UserError where a field is not a number."""
    options = dict(sep=r"\s+", header=None, skiprows=int(lines[0]) if header else 0, usecols=sorted(positions))
    try:
        frame = pd.read_csv(io.BytesIO(content), dtype=np.float64, engine="c", **options)
    except ValueError:
        plain = content
        for pattern, exponent in FORTRAN:
            plain = pattern.sub(exponent, plain)
        if plain != content:
            return _numbers(path, plain, lines, positions, header)
        try:
            text = pd.read_csv(io.BytesIO(content), dtype=str, engine="c", encoding_errors="replace", **options)
        except ValueError as error:  # pandas' own, and that a quote ate the fields that follow it
            raise UserError(f"{path}: not readable as a table ({error}); run this sample again") from None
        for column in text:
            bad = pd.to_numeric(text[column], errors="coerce").isna()
            if bad.any():
                row = int(bad.to_numpy().argmax())
                found = text[column].iloc[row]
                stars = isinstance(found, str) and set(found) <= set("*+-.")
                what = (
                    "a Fortran number too large for its field: write it with more digits in the model's output format"
                    if stars else "correct it in the model's output, or leave this sample out"
                )  # fmt: skip
                raise UserError(
                    f"{path}, line {lines[row] + 1}, column {column + 1}: {found!r} is not a number; {what}"
                ) from None
        raise UserError(f"{path}: not readable as a table of numbers; run this sample again") from None
    return frame[positions].to_numpy()


def check_values(path: Path, values: dict[str, np.ndarray], lines: np.ndarray) -> None:
    """UserError on the first value that is not finite or lies outside what its unit allows."""
    for name, column in values.items():
        low, high = POSSIBLE.get(name, (-LARGEST_FLUX, LARGEST_FLUX) if name in UNITS else (-1.0, 1e5))
        bad = ~((column >= low) & (column <= high))  # NaN is bad too
        if bad.any():
            row = int(bad.argmax())
            finite = np.isfinite(column)
            what = "the model failed here: leave this sample out, or look at its parameters"
            if finite[row]:
                hint = advice(name, column[finite]) if name in UNITS and np.mean(bad) > 0.02 else ""
                what = f"check the unit and the column order{hint}"
            raise UserError(
                f"{path}, line {lines[row] + 1}: {name} is {column[row]:g}, expected {low:g} to {high:g} "
                f"{UNITS.get(name, '')}; {what}"
            )


def dates_of(path: Path, values: dict[str, np.ndarray], lines: np.ndarray) -> np.ndarray:
    """(day,) datetime64[D] from the calendar columns; UserError unless they are real, agree and follow each other."""
    frame = {name: values[name] for name in CALENDAR if name in values}
    year = values["year"].astype(int)
    january = (year - 1970).astype("datetime64[Y]").astype("datetime64[D]")
    if "month" in frame:
        months = (year - 1970).astype("datetime64[Y]").astype("datetime64[M]") + (frame["month"].astype(int) - 1)
        dates = months.astype("datetime64[D]") + (frame["day"].astype(int) - 1)
        wrong = dates.astype("datetime64[M]") != months
        wrong |= dates.astype("datetime64[Y]") != (year - 1970).astype("datetime64[Y]")
        if "doy" in frame:
            wrong |= (dates - january).astype(int) != frame["doy"].astype(int)
    else:
        dates = january + frame["doy"].astype(int)
        wrong = dates.astype("datetime64[Y]") != (year - 1970).astype("datetime64[Y]")
    wrong |= np.any([column != np.floor(column) for column in frame.values()], axis=0)
    if wrong.any():
        row = int(wrong.argmax())
        leap_day = "month" in frame and ((frame["month"] == 2) & (frame["day"] >= 29)).any()
        if {"doy", "month"} <= set(frame) and not leap_day and _late_by_one(dates, january, frame["doy"], wrong):
            raise UserError(_CALENDAR_OF_365.format(path=path, line=lines[row] + 1, day=dates[row]))
        found = ", ".join(f"{name} {column[row]:g}" for name, column in frame.items())
        raise UserError(f"{path}, line {lines[row] + 1}: {found} is no date (doy counts from 0); correct the calendar")
    step = np.diff(dates).astype(int)
    if (step != 1).any():
        row = int((step != 1).argmax())
        if step[row] == 2 and str(dates[row]).endswith("-02-28"):
            raise UserError(_CALENDAR_OF_365.format(path=path, line=lines[row + 1] + 1, day=dates[row + 1]))
        kind = "repeated" if step[row] == 0 else "missing" if step[row] > 1 else "out of order"
        raise UserError(
            f"{path}, line {lines[row + 1] + 1}: {dates[row + 1]} follows {dates[row]}, a day is {kind}; expected "
            f"{dates[row] + np.timedelta64(1, 'D')}; check the output period, or how the file was put together"
        )
    return dates


_CALENDAR_OF_365 = (
    "{path}, line {line}: 29 February is missing before {day}: a 365-day calendar, but days are counted by the real "
    "one; write leap days, or add them as copies of 28 February"
)


def _late_by_one(dates: np.ndarray, january: np.ndarray, doy: np.ndarray, wrong: np.ndarray) -> bool:
    """Whether all wrong rows are days after February that are counted as if there were no 29 February."""
    late = (dates - january).astype(int) - doy
    return bool((late[wrong] == 1).all() and (doy[wrong] >= 59).all())
