"""A daily table of a flux tower: text of any encoding and line end -> days and columns of numbers, or a refusal.

Read are comma-, semicolon- or tab-separated files with one row a day and a column TIMESTAMP (YYYYMMDD, a local day that
is never shifted), as JapanFlux, FLUXNET2015, ICOS and AmeriFlux publish them. Refused, with the reason: half-hourly,
hourly, weekly, monthly and yearly files, days that are repeated, out of order or do not exist, two sites in one file.
"""

import csv
import io
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError, existing_file

# Text that stands for 'no value'; numbers at or below MISSING_BELOW (-9999, -9999.9, -99999) mean the same.
MISSING_TEXT = {"", "na", "n/a", "nan", "null", "none", "-", "--", "#n/a", "#na", "#value!", "#div/0!"}
MISSING_BELOW = -9990.0
SITE_COLUMNS = ("SITE_ID", "SITE", "SITEID", "SITE_NAME", "STATION")
LARGE_FILE, SNIFFED = 30_000_000, 200_000  # bytes
DAILY_HINT = "give the network's daily file (its name has _DD_)"


@dataclass
class TowerFile:
    """One daily file.

    dates: (day,) datetime64[D], strictly rising, gaps possible; line: (day,) line numbers in the file; units: texts by
    column, from a second header line or from names like NEE (gC m-2 d-1).
    """

    path: Path
    columns: list[str]
    dates: np.ndarray
    line: np.ndarray
    units: dict[str, str] = field(default_factory=dict)
    encoding: str = "UTF-8"
    _table: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def numbers(self, name: str) -> np.ndarray:
        """One column, (day,) float64, NaN for empty cells and missing codes; UserError on text or a doubled column."""
        if name not in self.columns:
            raise UserError(f"{self.path}: has no column {name}; {self.similar(name)}")
        if self.columns.count(name) > 1:
            raise UserError(
                f"{self.path}: has {self.columns.count(name)} columns named {name}; remove or rename all but one"
            )
        series = self._table.iloc[:, self.columns.index(name)]
        if series.dtype.kind in "iufb":
            values = series.to_numpy(dtype=float)
        else:
            text = series.fillna("").astype(str).str.strip()
            values = pd.to_numeric(text, errors="coerce").to_numpy(dtype=float)
            wrong = np.isnan(values) & ~text.str.lower().isin(MISSING_TEXT).to_numpy()
            if wrong.any():
                row = int(wrong.argmax())
                raise UserError(
                    f"{self.path}: line {self.line[row]}: {name} is '{text.iloc[row]}', expected a number "
                    "with a decimal point, or -9999 or an empty cell where it is missing"
                )
        return np.where(np.isfinite(values) & (values > MISSING_BELOW), values, np.nan)

    def similar(self, name: str, limit: int = 12) -> str:
        """Words that list the columns with the same beginning as `name` (or the first ones)."""
        stem = name.split("_")[0].upper()
        close = [column for column in self.columns if column.upper().startswith(stem)]
        shown = (close or self.columns)[:limit]
        more = "" if len(close or self.columns) <= limit else ", ..."
        return f"{'similar ones are' if close else 'found'} {', '.join(shown)}{more}"


def read_tower_file(path: str | Path) -> TowerFile:
    """Read a daily tower file; UserError names file, line and reason for everything that is refused (see above)."""
    path = existing_file(path, "give the daily CSV of a flux tower")
    if path.stat().st_size > LARGE_FILE:  # a half-hourly file of many years is refused from its first lines
        with path.open("rb") as handle:
            _parse(path, handle.read(SNIFFED).rpartition(b"\n")[0])
    return _parse(path, path.read_bytes())


def _parse(path: Path, content: bytes) -> TowerFile:
    text, encoding = _decode(path, content)
    lines = [
        (number, line)
        for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1)
        if line.strip()
    ]
    while lines and lines[0][1].lstrip().startswith("#"):  # AmeriFlux BASE and others begin with comments
        lines.pop(0)
    if not lines:
        raise UserError(f"{path}: is empty; expected a header line and one row a day")
    header = lines[0][1]
    separator = max(",;\t", key=header.count)
    columns = [name.strip().strip('"').strip() for name in next(csv.reader([header], delimiter=separator))]
    if columns and columns[-1] == "":
        columns.pop()
    units = {}
    for index, name in enumerate(columns):  # NEE (gC m-2 d-1), NEE [umol m-2 s-1]
        match = re.fullmatch(r"(\w+)\s*[(\[](.+)[)\]]", name)
        if match:
            columns[index] = match[1]
            units[match[1]] = match[2]
    lines = lines[1:]
    while lines and not lines[-1][1].strip(f'{separator}" \t'):  # rows of separators, as spreadsheets leave them
        lines.pop()
    if not lines:
        raise UserError(f"{path}: has a header but no rows; expected one row a day")
    if _is_unit_row(lines[0][1], separator):
        cells = [cell.strip() for cell in next(csv.reader([lines[0][1]], delimiter=separator))]
        units |= dict(zip(columns, cells, strict=False))
        lines = lines[1:]
        if not lines:
            raise UserError(f"{path}: has a header and units but no rows; expected one row a day")
    table = _table(path, lines, separator, len(columns))
    line = np.array([number for number, _ in lines])
    dates = _dates(path, table, columns, line)
    _one_site(path, table, columns)
    _rising(path, dates, line)
    return TowerFile(path, columns, dates, line, units, encoding, table)


def _decode(path: Path, content: bytes) -> tuple[str, str]:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ("utf-16",)
    else:
        encodings = ("utf-8-sig", "cp932", "latin-1")
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\x00" in text:
            break
        return text, encoding
    raise UserError(f"{path}: is not a text file; expected the daily CSV of a flux tower")


def _is_unit_row(line: str, separator: str) -> bool:
    """A second header line: no cell is a number, and not all are missing codes."""
    cells = [cell.strip().strip('"').lower() for cell in line.split(separator)]
    if any(re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", cell) or re.match(r"\d{4}[-/]", cell) for cell in cells):
        return False
    return any(cell not in MISSING_TEXT for cell in cells)


def _table(path: Path, lines: list[tuple[int, str]], separator: str, width: int) -> pd.DataFrame:
    quoted = any('"' in line for _, line in lines)
    for number, line in lines:
        count = len(next(csv.reader([line], delimiter=separator))) if quoted else line.count(separator) + 1
        if count != width and not (count == width + 1 and line.rstrip(" ").endswith(separator)):
            raise UserError(
                f"{path}: line {number} has {count} fields, the header has {width}; the file is damaged or cut short: "
                "download it again"
            )
    text = "\n".join(line for _, line in lines)
    try:
        return pd.read_csv(
            io.StringIO(text), sep=separator, header=None, names=range(width), usecols=range(width), index_col=False,
            low_memory=False, skip_blank_lines=False,
        )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: not readable as a table ({error}); expected one row a day") from None


def _dates(path: Path, table: pd.DataFrame, columns: list[str], line: np.ndarray) -> np.ndarray:
    """(day,) datetime64[D] of the rows; UserError on everything that is not one existing day a row."""
    upper = [name.upper() for name in columns]
    if "TIMESTAMP" in upper:
        name = "TIMESTAMP"
    elif "TIMESTAMP_START" in upper:
        name = "TIMESTAMP_START"
    else:
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


def _one_site(path: Path, table: pd.DataFrame, columns: list[str]) -> None:
    for index, name in enumerate(columns):
        if name.upper() in SITE_COLUMNS:
            sites = table.iloc[:, index].dropna().astype(str).str.strip().unique()
            if len(sites) > 1:
                raise UserError(
                    f"{path}: column {name} holds {len(sites)} sites ({', '.join(sites[:3])}); give one site's file"
                )


def _rising(path: Path, dates: np.ndarray, line: np.ndarray) -> None:
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
