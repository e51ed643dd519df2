"""What a report is made of, free of HTML: sections with a verdict, figures, tables that sort, facts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

GOOD, CAREFUL, BAD, NEUTRAL = "good", "careful", "bad", "neutral"  # tones of a verdict
DIGITS = 4  # significant digits of a number in a table
NOTHING = 1e-12  # rounding of sums that are zero


@dataclass(frozen=True)
class Picture:
    """A figure file of the result, with a caption that says what to look for."""

    path: Path
    caption: str
    alt: str
    kind: str = "picture"


@dataclass(frozen=True)
class Interactive:
    """A Bokeh figure: zoomed, panned and hovered in the browser."""

    figure: Any
    caption: str
    alt: str
    kind: str = "interactive"


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers; the reader sorts them by any column. `marked`: row numbers to highlight."""

    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str
    marked: frozenset[int] = frozenset()
    kind: str = "table"

    def cells(self) -> list[list[tuple[str, str]]]:
        """(text, value to sort by) of every cell."""
        return [[(shown(value), sortable(value)) for value in row] for row in self.rows]

    def numeric(self) -> list[bool]:
        """By column: whether it holds numbers (right-aligned)."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.headers)
        return [any(is_number(value) for value in column) for column in columns]


@dataclass(frozen=True)
class Facts:
    """Names and values: a command, versions, seeds, hashes."""

    title: str
    items: Sequence[tuple[str, str]]
    kind: str = "facts"


@dataclass(frozen=True)
class Text:
    """A file's text as it is, or a paragraph (`paragraph` True)."""

    text: str
    title: str = ""
    paragraph: bool = False
    kind: str = "text"


Block = Picture | Interactive | Table | Facts | Text


@dataclass
class Section:
    """One result: its verdict in a sentence, what that means, what there is to see, and how it was made."""

    title: str
    verdict: str
    tone: str
    meaning: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    made: list[Block] = field(default_factory=list)


def is_number(value: Any) -> bool:
    """Whether a cell is a number (no bool)."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_)


def shown(value: Any) -> str:
    """A cell as text: four significant digits, a dash where nothing is known.

    >>> shown(0.0123456), shown(float("nan")), shown(True)
    ('0.01235', '–', 'yes')
    """
    if value is None or (is_number(value) and not np.isfinite(value)):
        return "\N{EN DASH}"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(value)
    if is_number(value) and abs(value) < NOTHING:
        return "0"
    return f"{value:.{DIGITS}g}" if is_number(value) else str(value)


def sortable(value: Any) -> str:
    """What a cell is sorted by: the whole number where it is one, else its text."""
    if is_number(value):
        return repr(float(value)) if np.isfinite(value) else ""
    return "" if value is None else str(value)


def table_of(frame: pd.DataFrame, caption: str, names: dict[str, str], marked: frozenset[int] = frozenset()) -> Table:
    """A table of the columns `names` (column -> header) of a data frame."""
    rows = [[None if value is pd.NA else value for value in row] for row in frame[list(names)].itertuples(index=False)]
    return Table(list(names.values()), rows, caption, marked)
