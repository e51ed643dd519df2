"""VISIT's own parameter file: values written by slot, never without checking what was there before.

VISIT reads white-space separated tokens: version, date, a divider 9999999, then values and more dividers. A slot is
the place of a token (from 0; the first divider has slot 2), which is also its line where each has its own. In one
published ensemble eight of 36 parameters went into the slot next to the right one, and nothing noticed. So a value is
replaced only where the expected baseline is found.
"""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from calibration.common.command_line import UserError, existing_file, writing
from calibration.common.parameters import CATALOGUE_FILE, canonical_name

NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?(?![\w.])")
DIVIDER, FIRST_DIVIDER = "9999999", 2  # slot of the first
TOLERANCE = 1e-5  # relative; baseline files print a few digits


@dataclass(frozen=True)
class Slot:
    """Where a parameter lives: place `slot` (from 0) in the parameter file, and the baseline expected there."""

    name: str
    slot: int
    baseline: float


def read_slots(path: str | Path = CATALOGUE_FILE) -> dict[str, Slot]:
    """Name-to-slot table from a CSV with columns name, slot, baseline (more are ignored, rows without slot skipped).

    Raises UserError naming the line on a missing column, a bad number, or a slot or name that is there twice.
    """
    path = existing_file(path, "give the name-to-slot CSV with --slots")
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.DictReader(handle))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as CSV ({error}); the columns are name,slot,baseline") from None
    slots: dict[str, Slot] = {}
    for number, row in enumerate(rows, start=2):
        missing = [column for column in ("name", "slot", "baseline") if row.get(column) is None]
        if missing:
            raise UserError(f"{path}: column '{missing[0]}' is missing; the columns are name,slot,baseline")
        if not row["slot"].strip():
            continue
        try:
            line = float(row["slot"])  # spreadsheets write 12.0
            if line != int(line) or line < 0:
                raise ValueError
            slot = Slot(canonical_name(row["name"]) or row["name"], int(line), float(row["baseline"]))
        except (ValueError, OverflowError):
            raise UserError(
                f"{path}, line {number}: slot {row['slot']!r} and baseline {row['baseline']!r}; expected a line number "
                "(from 0) and a number"
            ) from None
        for other in slots.values():
            if slot.name == other.name or slot.slot == other.slot:
                raise UserError(
                    f"{path}, line {number}: {slot.name} at slot {slot.slot} repeats {other.name} at slot "
                    f"{other.slot}; keep one"
                )
        slots[slot.name] = slot
    if not slots:
        raise UserError(f"{path}: holds no row with a slot; see configs/visit_parameters.csv")
    return slots


def write_parameter_file(
    template_path: str | Path | None, values: Mapping[str, float], output_path: str | Path,
    slots: Mapping[str, Slot] | None = None,
) -> None:  # fmt: skip
    """Write a VISIT parameter file: `template_path` with the number of each slot replaced.

    values: name -> value in the units of configs/visit_parameters.csv. slots: from read_slots (default: LHP's).
    Without a template, a CSV name,slot,value is written instead.
    Raises UserError when a name has no slot, or the slot holds another value than the expected baseline or its line
    names another parameter: then nothing is written.
    """
    slots = slots or read_slots()
    places = {name: find_slot(name, slots) for name in values}
    if template_path is None:
        rows = [f"{name},{places[name].slot},{float(value)!r}\n" for name, value in values.items()]
        content = ("name,slot,value\n" + "".join(rows)).encode()
    else:
        template = existing_file(template_path, "give VISIT's baseline parameter file")
        content = fill_template(template, template.read_bytes(), values, slots)
    with writing(output_path) as temporary:
        temporary.write_bytes(content)


def fill_template(path: Path, content: bytes, values: Mapping[str, float], slots: Mapping[str, Slot]) -> bytes:
    """`content` of a baseline file with `values` in their slots, all else the same to the byte; `path` is only named.

    See write_parameter_file for what is checked.
    """
    # comments in any encoding and line ends of any kind come back as the bytes they were
    text = content.decode("utf-8", "surrogateescape")
    tokens = _tokens(text, slots)
    changes = []
    for name, value in values.items():
        place = find_slot(name, slots)
        token = checked_number(path, tokens, place, slots)
        changes.append((token.start, token.end, f"{float(value):.10g}"))
    for start, end, number in sorted(changes, reverse=True):
        text = text[:start] + number + text[end:]
    return text.encode("utf-8", "surrogateescape")


def find_slot(name: str, slots: Mapping[str, Slot]) -> Slot:
    """The slot of a parameter (any case). UserError when it has none."""
    place = slots.get(canonical_name(name) or name)
    if place is None:
        raise UserError(f"parameter {name} has no slot in VISIT's parameter file; leave it out of the ranges")
    return place


@dataclass(frozen=True)
class Token:
    """What stands in a slot: where in the text, on which line (from 0), and the line if nothing else stands there."""

    start: int
    end: int
    text: str
    line: int
    whole_line: str = ""


def _tokens(text: str, slots: Mapping[str, Slot]) -> list[Token]:
    """The tokens by slot: one a line, or in sequence from the first divider on; whichever finds more baselines."""
    lines = io.StringIO(text, newline="").readlines()
    starts = [0, *accumulate(len(line) for line in lines)]
    by_line = []
    for i, line in enumerate(lines):
        number = NUMBER.search(line)
        start, end = number.span() if number else (0, 0)
        by_line.append(Token(starts[i] + start, starts[i] + end, line[start:end] if number else "", i, line))
    sequence: list[Token] = []
    begun = False
    for i, line in enumerate(lines):
        for word in re.finditer(r"\S+", line):
            if word[0] == DIVIDER and not begun:
                begun, sequence = True, [Token(0, 0, "", 0)] * FIRST_DIVIDER  # version and date: any number of words
            elif begun and not NUMBER.fullmatch(word[0]):
                break  # a comment
            sequence.append(Token(starts[i] + word.start(), starts[i] + word.end(), word[0], i))
    found = [sum(_is(tokens, slot) for slot in slots.values()) for tokens in (by_line, sequence)]
    return sequence if found[1] > found[0] else by_line


def _value(token: Token) -> float:
    return float(token.text.lower().replace("d", "e"))


def _is(tokens: Sequence[Token], slot: Slot) -> bool:
    """Whether a slot holds its baseline."""
    if slot.slot >= len(tokens) or not NUMBER.fullmatch(tokens[slot.slot].text):
        return False
    return math.isclose(_value(tokens[slot.slot]), slot.baseline, rel_tol=TOLERANCE, abs_tol=1e-12)


def checked_number(path: Path, tokens: Sequence[Token], place: Slot, slots: Mapping[str, Slot]) -> Token:
    """What is in a slot, after checking that it is the baseline. UserError says what was found instead."""
    expected = f"expected the baseline {place.baseline:g} of {place.name}"
    advice = "check the name-to-slot CSV against this file before running anything"
    if place.slot >= len(tokens):
        kind = "lines" if all(token.whole_line for token in tokens) else "values"
        raise UserError(f"{path}: {len(tokens)} {kind}, but {place.name} is at slot {place.slot}; {advice}")
    token = tokens[place.slot]
    where = f"{path}, slot {place.slot} (line {token.line + 1})"
    if not NUMBER.fullmatch(token.text):
        raise UserError(f"{where}: {(token.whole_line or token.text).strip()!r} holds no number, {expected}; {advice}")
    found = _value(token)
    if not _is(tokens, place):
        same = [slot.name for slot in slots.values() if math.isclose(found, slot.baseline, rel_tol=TOLERANCE)]
        near = [name for name in same if abs(slots[name].slot - place.slot) <= 2]
        hint = f" ({found:g} is the baseline of {near[0]}, slot {slots[near[0]].slot})" if near else ""
        raise UserError(f"{where}: found {found:g}, {expected}{hint}; {advice}")
    words = {canonical_name(word) for word in re.findall(r"[A-Za-z]\w+", token.whole_line)} - {None}
    if words and place.name not in words:
        raise UserError(f"{where}: the line names {sorted(words)[0]}, {expected}; {advice}")
    return token
