"""VISIT's own parameter file: values written by slot (line), never without checking what was there before.

In one published ensemble eight of 36 parameters went into the line next to the right one, and nothing noticed. So a
value is replaced only where the expected baseline is found.
"""

import csv
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from calibration.common.command_line import UserError, existing_file, writing
from calibration.common.parameters import CATALOGUE_FILE, canonical_name

NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?(?![\w.])")
TOLERANCE = 1e-5  # relative; baseline files print a few digits


@dataclass(frozen=True)
class Slot:
    """Where a parameter lives: line `slot` (from 0) of the parameter file, and the baseline expected there."""

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
    """Write a VISIT parameter file: `template_path` with the first number of each slot's line replaced.

    values: name -> value in the units of configs/visit_parameters.csv. slots: from read_slots (default: LHP's).
    Without a template, a CSV name,slot,value is written instead.
    Raises UserError when a name has no slot, or the line holds another value than the expected baseline or names
    another parameter: then nothing is written.
    """
    slots = slots or read_slots()
    places = {name: find_slot(name, slots) for name in values}
    if template_path is None:
        rows = [f"{name},{places[name].slot},{float(value)!r}\n" for name, value in values.items()]
        text = "name,slot,value\n" + "".join(rows)
    else:
        text = fill_template(existing_file(template_path, "give VISIT's baseline parameter file"), values, slots)
    with writing(output_path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))


def fill_template(template_path: Path, values: Mapping[str, float], slots: Mapping[str, Slot]) -> str:
    """Text of the baseline file with `values` in their slots; see write_parameter_file."""
    # comments in any encoding and line ends of any kind come back as the bytes they were
    text = template_path.read_bytes().decode("utf-8", "surrogateescape")
    lines = io.StringIO(text, newline="").readlines()
    for name, value in values.items():
        place = find_slot(name, slots)
        number = checked_number(template_path, lines, place, slots)
        line = lines[place.slot]
        lines[place.slot] = line[: number.start()] + f"{float(value):.10g}" + line[number.end() :]
    return "".join(lines)


def find_slot(name: str, slots: Mapping[str, Slot]) -> Slot:
    """The slot of a parameter (any case). UserError when it has none."""
    place = slots.get(canonical_name(name) or name)
    if place is None:
        raise UserError(f"parameter {name} has no slot in VISIT's parameter file; leave it out of the ranges")
    return place


def checked_number(path: Path, lines: list[str], place: Slot, slots: Mapping[str, Slot]) -> re.Match:
    """The number on the slot's line, after checking that it is the baseline. UserError says what was found instead."""
    where = f"{path}, slot {place.slot} (line {place.slot + 1})"
    expected = f"expected the baseline {place.baseline:g} of {place.name}"
    advice = "check the name-to-slot CSV against this file before running anything"
    if place.slot >= len(lines):
        raise UserError(f"{path}: {len(lines)} lines, but {place.name} is at slot {place.slot}; {advice}")
    line = lines[place.slot]
    number = NUMBER.search(line)
    if number is None:
        raise UserError(f"{where}: {line.strip()!r} holds no number, {expected}; {advice}")
    found = float(number[0].lower().replace("d", "e"))
    if not math.isclose(found, place.baseline, rel_tol=TOLERANCE, abs_tol=1e-12):
        same = [slot.name for slot in slots.values() if math.isclose(found, slot.baseline, rel_tol=TOLERANCE)]
        near = [name for name in same if abs(slots[name].slot - place.slot) <= 2]
        hint = f" ({found:g} is the baseline of {near[0]}, slot {slots[near[0]].slot})" if near else ""
        raise UserError(f"{where}: found {found:g}, {expected}{hint}; {advice}")
    words = {canonical_name(word) for word in re.findall(r"[A-Za-z]\w+", line)} - {None}
    if words and place.name not in words:
        raise UserError(f"{where}: the line names {sorted(words)[0]}, {expected}; {advice}")
    return number
