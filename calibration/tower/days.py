"""The days of a tower file's rows: one existing local day a row, in order, of one site, or a refusal."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError

TIME_NAMES = ("TIMESTAMP", "TIMESTAMP_START", "DATE", "DATETIME", "DATE_TIME", "TIME")
SITE_COLUMNS = ("SITE_ID", "SITE", "SITEID", "SITE_NAME", "STATION")
DAILY_HINT = "give the network's daily file (its name has _DD_)"


def dates_of_rows(path: Path, table: pd.DataFrame, columns: list[str], line: np.ndarray) -> np.ndarray:
    """(day,) datetime64[D] of the rows; UserError on everything that is not one existing day a row."""
    upper = [name.upper() for name in columns]
    name = next((name for name in TIME_NAMES if name in upper), None)
    if name is None and {"YEAR", "YYYY"} & set(upper):
        return _calendar(path, table, upper, line)
    if name is None:
        shown = ", ".join(columns[:12]) + (", ..." if len(columns) > 12 else "")
        raise UserError(f"{path}: has no column TIMESTAMP (YYYYMMDD); found {shown}; {DAILY_HINT}")
    text = _time_text(table.iloc[:, upper.index(name)])
    digits = text.str.replace(r"^(\d{4})[-/](\d{1,2})[-/](\d{1,2})", _compact, regex=True)
    digits = digits.str.replace(r"[T :]", "", regex=True)
    length = digits.str.len()
    plain = digits.str.fullmatch(r"\d+").fillna(False)
    if not plain.all():
        row = int((~plain).to_numpy().argmax())
        if text.iloc[row].upper() == name:
            raise UserError(f"{path}: line {line[row]} repeats the header: two files in one; give one site's file")
        raise UserError(f"{path}: line {line[row]}: {name} is '{text.iloc[row]}', expected a day as YYYYMMDD")
    kind = int(length.mode().iloc[0])
    if kind in (10, 12, 14):
        return _midnights(path, name, digits, kind, line)
    other = {4: "yearly", 6: "monthly"}.get(kind)
    if other:
        raise UserError(f"{path}: {name} is like {text.iloc[0]}, so this is a {other} file; {DAILY_HINT}")
    dates = pd.to_datetime(digits, format="%Y%m%d", errors="coerce")
    wrong = (length != 8).to_numpy() | dates.isna().to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{path}: line {line[row]}: {name} is '{text.iloc[row]}', a day that does not exist; expected YYYYMMDD"
        )
    dates = dates.to_numpy().astype("datetime64[D]")
    if name == "TIMESTAMP_START" and "TIMESTAMP_END" in upper:
        ends = pd.to_datetime(_time_text(table.iloc[:, upper.index("TIMESTAMP_END")]), format="%Y%m%d", errors="coerce")
        span = (ends.to_numpy().astype("datetime64[D]") - dates).astype(float)
        if np.nanmax(span, initial=0) > 1:
            raise UserError(
                f"{path}: rows span {int(np.nanmax(span)) + 1} days, so this is a weekly file; {DAILY_HINT}"
            )
    return dates


def _calendar(path: Path, table: pd.DataFrame, upper: list[str], line: np.ndarray) -> np.ndarray:
    """Days from columns year, month and day, or year and day of the year (whose first number must show itself)."""

    def whole(*names: str) -> np.ndarray | None:
        """The first of these columns, (day,) int, or None; UserError where it is no whole number."""
        name = next((name for name in names if name in upper), None)
        if name is None:
            return None
        values = pd.to_numeric(table.iloc[:, upper.index(name)], errors="coerce").to_numpy(dtype=float)
        wrong = ~(np.isfinite(values) & (values == np.floor(values)))
        if wrong.any():
            row = int(wrong.argmax())
            found = table.iloc[row, upper.index(name)]
            raise UserError(f"{path}: line {line[row]}: {name} is '{found}', expected a whole number")
        return values.astype(int)

    if any(name in upper for name in ("HOUR", "HH", "HRMIN", "HOUR_MIN")):
        raise UserError(f"{path}: has a column of hours, so this is no daily file; {DAILY_HINT}")
    year, month, day = whole("YEAR", "YYYY"), whole("MONTH", "MO", "MM", "MON"), whole("DAY", "DD", "DOM")
    if month is not None and day is not None:
        text = pd.Series(year).astype(str).str.zfill(4) + pd.Series(month).astype(str).str.zfill(2)
        dates = pd.to_datetime(text + pd.Series(day).astype(str).str.zfill(2), format="%Y%m%d", errors="coerce")
        if dates.isna().any():
            row = int(dates.isna().to_numpy().argmax())
            found = f"{year[row]}-{month[row]}-{day[row]}"
            raise UserError(f"{path}: line {line[row]}: {found} is a day that does not exist")
        return dates.to_numpy().astype("datetime64[D]")
    number = whole("DOY", "DAY_OF_YEAR", "JDAY", "JULIANDAY", "JD")
    if number is None:
        raise UserError(
            f"{path}: has a year but neither month and day nor the day of the year; give TIMESTAMP (YYYYMMDD)"
        )
    january = (year - 1970).astype("datetime64[Y]").astype("datetime64[D]")
    length = ((year - 1969).astype("datetime64[Y]").astype("datetime64[D]") - january).astype(int)
    new_year = np.diff(year, prepend=year[0]) == 1
    if (number == 0).any():
        first = 0
    elif (number == length).any() or (number[new_year] == 1).any():
        first = 1
    else:
        raise UserError(
            f"{path}: the day of the year runs from {number.min()} to {number.max()}, which leaves open whether 1 "
            "January is day 0 or day 1; give a column TIMESTAMP (YYYYMMDD)"
        )
    wrong = (number < first) | (number - first >= length)
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(f"{path}: line {line[row]}: day {number[row]} does not exist in {year[row]}")
    return january + (number - first)


def _compact(match: re.Match) -> str:
    return match[1] + match[2].zfill(2) + match[3].zfill(2)


def _time_text(series: pd.Series) -> pd.Series:
    """The time column as text, '20120101' also where a spreadsheet made 20120101.0 of it."""
    if series.dtype.kind == "f":
        text = series.map(
            lambda value: "" if pd.isna(value) else f"{value:.0f}" if float(value).is_integer() else str(value)
        )
        return text.astype(str)
    return series.fillna("").astype(str).str.strip().str.replace(r"\.0+$", "", regex=True)


def _midnights(path: Path, name: str, digits: pd.Series, kind: int, line: np.ndarray) -> np.ndarray:
    """Days of a time column with hours and minutes: accepted only if every row is a midnight, else refused."""
    times = pd.to_datetime(digits.str.ljust(14, "0"), format="%Y%m%d%H%M%S", errors="coerce")
    if times.isna().any():
        row = int(times.isna().to_numpy().argmax())
        raise UserError(f"{path}: line {line[row]}: {name} is '{digits.iloc[row]}', a time that does not exist")
    midnight = times == times.dt.normalize()
    if not midnight.all():
        step = times.diff().median()
        minutes = 0 if pd.isna(step) else round(step.total_seconds() / 60)
        what = {30: "a half-hourly file", 60: "an hourly file"}.get(minutes, "not a daily file")
        raise UserError(
            f"{path}: {name} steps by {minutes} minutes, so this is {what}, where fluxes are umol m-2 s-1 and gaps are "
            f"unfilled; {DAILY_HINT}"
        )
    return times.to_numpy().astype("datetime64[D]")


def one_site(path: Path, table: pd.DataFrame, columns: list[str]) -> None:
    """UserError when a site column names more than one site."""
    for index, name in enumerate(columns):
        if name.upper() in SITE_COLUMNS:
            sites = table.iloc[:, index].dropna().astype(str).str.strip().unique()
            if len(sites) > 1:
                raise UserError(
                    f"{path}: column {name} holds {len(sites)} sites ({', '.join(sites[:3])}); give one site's file"
                )


def rising(path: Path, dates: np.ndarray, line: np.ndarray) -> None:
    """UserError, naming the file's line (day,), unless each of dates (day,) comes after the one before."""
    steps = np.diff(dates).astype(int)
    if (steps > 0).all():
        return
    per_day = np.unique(dates, return_counts=True)[1]
    if len(dates) >= 24 and np.median(per_day) in (24, 48):
        raise UserError(
            f"{path}: each day is there {int(np.median(per_day))} times, "
            f"so this is a half-hourly or hourly file; {DAILY_HINT}"
        )
    row = int((steps <= 0).argmax()) + 1
    if (dates[:row] == dates[row]).any():
        what = "is there twice"
    else:
        what = f"comes after {dates[row - 1]}, out of order"
    blocks = int((steps <= 0).sum()) + 1
    joined = "; two sites or files in one?" if blocks == 2 and steps[row - 1] < -1 and len(dates) - row > 1 else ""
    raise UserError(
        f"{path}: line {line[row]}: {dates[row]} {what}{joined}; "
        "every day may be there once, in order: sort or clean the file"
    )
