"""A daily table of a flux tower: text of any encoding and line end -> days and columns of numbers, or a refusal.

Read are tables with any separator and one row a day, with a column TIMESTAMP (YYYYMMDD, a local day that is never
shifted), a date, or year, month and day, as JapanFlux, FLUXNET2015, ICOS, AmeriFlux, OzFlux and AsiaFlux publish them.
Lines of metadata before the header and rows of units below it are skipped, and said. Refused, with the reason:
half-hourly, hourly, weekly, monthly and yearly files, days that are repeated, out of order or do not exist, two sites
in one file.
"""

import csv
import io
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError, existing_file
from calibration.common.units import without_missing_codes
from calibration.tower.days import dates_of_rows, one_site, rising

# Text that stands for 'no value'; what numbers do: common/units.py.
MISSING_TEXT = {"", "na", "n/a", "nan", "null", "none", "-", "--", ".", "#n/a", "#na", "#value!", "#div/0!"}
SEPARATORS = ",;\t|"
TIME_COLUMNS = ("TIMESTAMP", "TIMESTAMP_START", "DATE", "DATETIME", "DATE_TIME", "TIME", "YEAR", "YYYY")
NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?")
LINES_BEFORE_HEADER = 100  # lines among which the header is looked for
LARGE_FILE, SNIFFED = 30_000_000, 200_000  # bytes


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
    notes: list[str] = field(default_factory=list)
    _table: pd.DataFrame = field(default_factory=pd.DataFrame)
    _separator: str = ","

    def find(self, name: str) -> str | None:
        """The column of this name: in its own spelling, else the only one with it in any case, else None."""
        if name in self.columns:
            return name
        same = [column for column in dict.fromkeys(self.columns) if column.upper() == name.upper()]
        return same[0] if len(same) == 1 else None

    def __contains__(self, name: str) -> bool:
        return self.find(name) is not None

    def count(self, name: str) -> int:
        """How many columns have exactly this name."""
        return self.columns.count(name)

    def described(self, what: str) -> list[str]:
        """Lines for the user: that it is `what`, its extent, and what was skipped in reading."""
        extent = f"{self.dates[0]} to {self.dates[-1]} ({len(self.dates)} days)"
        return [f"{self.path}: {what}, {len(self.columns)} columns, {extent}", *(f"  {note}" for note in self.notes)]

    def numbers(self, name: str) -> np.ndarray:
        """One column, (day,) float64, NaN for empty cells and missing codes; UserError on text or a doubled column."""
        name = self.find(name) or name
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
            if self._separator != "," and _no_decimal_point(text):  # decimal commas throughout
                text = text.str.replace(r"^([-+]?\d*),(\d+)$", r"\1.\2", regex=True)
            values = pd.to_numeric(text, errors="coerce").to_numpy(dtype=float)
            wrong = np.isnan(values) & ~text.str.lower().isin(MISSING_TEXT).to_numpy()
            if wrong.any():
                row = int(wrong.argmax())
                raise UserError(
                    f"{self.path}: line {self.line[row]}: {name} is '{text.iloc[row]}', expected a number "
                    "with a decimal point, or -9999 or an empty cell where it is missing"
                )
        return without_missing_codes(values)

    def similar(self, name: str, limit: int = 12) -> str:
        """Words that list the columns with the same beginning as `name` (or the first ones)."""
        stem = name.split("_")[0].upper()
        close = [column for column in self.columns if column.upper().startswith(stem)]
        shown = (close or self.columns)[:limit]
        more = "" if len(close or self.columns) <= limit else ", ..."
        return f"{'similar ones are' if close else 'found'} {', '.join(shown)}{more}"


def _no_decimal_point(text: pd.Series) -> bool:
    """Whether no cell but missing codes (-9999.0) has a decimal point."""
    dotted = pd.to_numeric(text[text.str.contains(r"\d\.\d")], errors="coerce").to_numpy(dtype=float)
    return bool(np.isnan(without_missing_codes(dotted)).all())


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
    lines, separator, columns, units, notes = _header(path, lines)
    while lines and not lines[-1][1].strip(f'{separator}" \t'):  # rows of separators, as spreadsheets leave them
        lines.pop()
    if not lines:
        raise UserError(f"{path}: has a header but no rows; expected one row a day")
    while _is_unit_row(lines[0][1], separator, columns):
        cells = [cell.strip() for cell in next(csv.reader([lines[0][1]], delimiter=separator))]
        units = dict(zip(columns, cells, strict=False)) | units
        lines = lines[1:]
        if not lines:
            raise UserError(f"{path}: has a header and units but no rows; expected one row a day")
    table = _table(path, lines, separator, len(columns))
    line = np.array([number for number, _ in lines])
    dates = dates_of_rows(path, table, columns, line)
    one_site(path, table, columns)
    rising(path, dates, line)
    return TowerFile(path, columns, dates, line, units, encoding, notes, table, separator)


def _header(path: Path, lines: list[tuple[int, str]]):
    """Lines below the header, separator, names, units in brackets behind names, and what was skipped, in words."""
    if not lines:
        raise UserError(f"{path}: is empty; expected a header line and one row a day")
    at = next((k for k in range(min(len(lines), LINES_BEFORE_HEADER)) if _has_time_column(lines[k][1])), None)
    notes = []
    if at is None:
        at = next((k for k, (_, line) in enumerate(lines) if not line.lstrip().startswith("#")), None)
        if at is None:
            raise UserError(f"{path}: is empty; expected a header line and one row a day")
    elif any(not line.lstrip().startswith("#") for _, line in lines[:at]):
        notes.append(f"{at} line{'s' if at > 1 else ''} of metadata before the header (line {lines[at][0]}) skipped")
    header = lines[at][1].lstrip("#").strip(" ")
    below = lines[at + 1 :]
    separator = max(SEPARATORS, key=header.count)
    if header.count(separator) == 0 and len(header.split()) > 1:  # columns by blanks
        separator, header = "\t", "\t".join(header.split())
        below = [(number, "\t".join(line.split())) for number, line in below]
    columns = [name.strip().strip('"').strip() for name in next(csv.reader([header], delimiter=separator))]
    if columns and columns[-1] == "":
        columns.pop()
    units = {}
    for index, name in enumerate(columns):  # NEE (gC m-2 d-1), NEE [umol m-2 s-1]
        match = re.fullmatch(r"(\w+)\s*[(\[](.+)[)\]]", name)
        if match:
            columns[index] = match[1]
            units[match[1]] = match[2]
    return below, separator, columns, units, notes


def _has_time_column(line: str) -> bool:
    """Whether a line is a header: several names, one of them a time's."""
    text = line.lstrip("# ")
    separator = max(SEPARATORS, key=text.count)
    cells = text.split(separator) if text.count(separator) else text.split()
    names = [re.sub(r"\s*[(\[].*$", "", cell.strip().strip('"').strip()).upper() for cell in cells]
    return len(names) > 1 and any(name in TIME_COLUMNS for name in names) and len(set(names)) > 1


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


def _is_unit_row(line: str, separator: str, columns: list[str]) -> bool:
    """A line of units below the header: no date, no number but "1" (a flag's unit), not all missing codes."""
    cells = [cell.strip().strip('"').lower() for cell in line.split(separator)]
    if cells == [name.lower() for name in columns]:
        return False  # the header again
    if any(re.match(r"\d{4}[-/]", cell) or (NUMBER.fullmatch(cell) and cell != "1") for cell in cells):
        return False
    return any(cell not in MISSING_TEXT and cell != "1" for cell in cells)


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
