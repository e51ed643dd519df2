"""VISIT's parameters: names, units, slots, baselines, ranges and ties, and the one place that converts spaces.

Three spaces, one bijection:
  physical   what the user sees, in the units of configs/visit_parameters.csv
  unit       position inside the range, 0 to 1; a tied parameter is a share of the way to its reference
  latent     standard normal z, unit = Phi(z); a uniform prior over the range is exactly N(0, 1) here
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calibration.common.command_line import REPOSITORY, UserError, existing_file, notice
from calibration.common.yaml_file import read_yaml

if TYPE_CHECKING:  # takes two seconds to import: an ensemble's processes do without
    import torch

CATALOGUE_FILE = REPOSITORY / "configs" / "visit_parameters.csv"
DEFAULT_RANGES = REPOSITORY / "configs" / "range_of_paras.csv"
# A value exactly on a bound has infinite z; it is placed here, 3e-7 of the range inside.
LATENT_LIMIT = 5.0
# Legal and yet no forest: an albedo above this is that of fresh snow.
PLAUSIBLE = {"tree_albedo": 0.6, "c3_albedo": 0.6}
UNUSED = "unused_"  # before the label of a column that no slot of the process model took (ensembles/labels.py)


@dataclass(frozen=True)
class Parameter:
    """One VISIT parameter: its line (slot) in VISIT's parameter file, LHP baseline and physically legal range."""

    name: str
    slot: int | None
    baseline: float
    minimum: float
    maximum: float
    unit: str
    meaning: str


@cache
def catalogue() -> dict[str, Parameter]:
    """Every parameter that the process model reads, by name, in the order of VISIT's parameter file."""
    with CATALOGUE_FILE.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    return {
        row["name"]: Parameter(
            row["name"], int(row["slot"]) if row["slot"] else None, float(row["baseline"]),
            float(row["minimum"]), float(row["maximum"]), row["unit"], row["meaning"],
        )
        for row in rows
    }  # fmt: skip


@cache
def _canonical_names() -> dict[str, str]:
    return {name.lower(): name for name in catalogue()}


def canonical_name(name: str) -> str | None:
    """The catalogue's spelling of a parameter name in any case (tree_qtf0 -> tree_qTf0), or None if unknown."""
    return _canonical_names().get(name.lower())


def implausible(names: Sequence[str], values: np.ndarray) -> str:
    """What VISIT accepts and no leaf has, in words ('' if nothing); values (run, P) physical."""
    found = [
        f"{name} up to {column.max():g} (above {PLAUSIBLE[name]:g})"
        for name, column in zip(names, np.atleast_2d(values).T, strict=True)
        if name in PLAUSIBLE and column.max() > PLAUSIBLE[name]
    ]
    return f"implausible values, simulated as they are: {', '.join(found)}" if found else ""


def in_model(names: Sequence[str]) -> list[int]:
    """Indices of the names that are not those of columns without a slot: what a process model is given."""
    return [i for i, name in enumerate(names) if not name.startswith(UNUSED)]


@dataclass(frozen=True)
class ParameterSpace:
    """An ordered set of parameters with bounds; `upper[i]` counts only where `tied_to[i]` < 0.

    A tied parameter's maximum is the value of parameter `tied_to[i]`, so its unit value is the share of the way from
    its own minimum to that value: ties hold by construction, nothing is clipped.
    """

    names: tuple[str, ...]
    lower: np.ndarray  # (parameter,) physical
    upper: np.ndarray  # (parameter,) physical; for a tied one: the highest its reference allows
    tied_to: tuple[int, ...]  # index of the reference, -1 if free

    def __post_init__(self) -> None:
        object.__setattr__(self, "_order", _resolution_order(self.names, self.tied_to))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def width(self) -> np.ndarray:
        """(parameter,) physical width of each range; a tied range has its widest. Scales errors to 0-1."""
        return self.upper - self.lower

    def subset(self, names: Sequence[str]) -> "ParameterSpace":
        """The space of `names` in that order. UserError if one is unknown or lacks its reference."""
        missing = [name for name in names if name not in self.names]
        if missing:
            raise UserError(f"parameter {missing[0]} has no range; known are {', '.join(self.names)}")
        index = [self.names.index(name) for name in names]
        for i in index:
            if self.tied_to[i] >= 0 and self.names[self.tied_to[i]] not in names:
                reference = self.names[self.tied_to[i]]
                raise UserError(f"{self.names[i]} is bounded by {reference}, which is not among {', '.join(names)}")
        tied = tuple(names.index(self.names[self.tied_to[i]]) if self.tied_to[i] >= 0 else -1 for i in index)
        return ParameterSpace(tuple(names), self.lower[index], self.upper[index], tied)

    def unit_to_physical(self, unit: np.ndarray) -> np.ndarray:
        """unit (..., parameter) in 0-1 -> physical (..., parameter)."""
        unit = np.asarray(unit, dtype=np.float64)
        return np.stack(self._columns(unit, self.lower, self.upper), axis=-1)

    def physical_to_unit(self, physical: np.ndarray) -> np.ndarray:
        """physical (..., parameter) -> unit (..., parameter); outside 0-1 where a value is out of bounds.

        A range of zero width (minimum = maximum, or a reference at the tied minimum) gives 0.5.
        """
        physical = np.asarray(physical, dtype=np.float64)
        high = self._upper_bounds(physical)
        width = high - self.lower
        with np.errstate(divide="ignore", invalid="ignore"):
            unit = (physical - self.lower) / width
        return np.where(width == 0, 0.5, unit)

    def latent_to_physical(self, latent: "torch.Tensor") -> "torch.Tensor":
        """latent z (..., parameter) -> physical (..., parameter), differentiable, same dtype and device."""
        import torch

        unit = torch.special.ndtr(latent)
        lower, upper = (torch.as_tensor(x, dtype=unit.dtype, device=unit.device) for x in (self.lower, self.upper))
        return torch.stack(self._columns(unit, lower, upper), dim=-1)

    def physical_to_latent(self, physical: np.ndarray) -> np.ndarray:
        """physical (..., parameter) -> latent z (..., parameter), values at a bound at +-LATENT_LIMIT.

        UserError, naming the parameter, value and range, when a value lies outside its bounds.
        """
        import torch

        self.check(physical)
        unit = torch.as_tensor(np.clip(self.physical_to_unit(physical), 0.0, 1.0))
        return torch.special.ndtri(unit).clamp(-LATENT_LIMIT, LATENT_LIMIT).numpy()

    def check(self, physical: np.ndarray, where: str = "value") -> None:
        """UserError naming the first parameter of physical (..., parameter) outside its bounds, or NaN.

        A value may pass a bound by 1e-9 of the larger bound: what a text file's digits leave.
        """
        physical = np.atleast_2d(np.asarray(physical, dtype=np.float64))
        high = self._upper_bounds(physical)
        slack = 1e-9 * np.maximum(np.abs(self.lower), np.abs(self.upper)) + 1e-15
        bad = ~((physical >= self.lower - slack) & (physical <= high + slack))  # NaN is bad too
        if bad.any():
            row, i = np.argwhere(bad)[0]
            raise UserError(
                f"{where}: {self.names[i]} is {physical[row, i]:g}, allowed is {self.lower[i]:g} to {high[row, i]:g}"
                f"{' (= ' + self.names[self.tied_to[i]] + ')' if self.tied_to[i] >= 0 else ''}; "
                "change the value or widen its bounds"
            )

    def _upper_bounds(self, physical: np.ndarray) -> np.ndarray:
        high = np.broadcast_to(self.upper, physical.shape).copy()
        for i, reference in enumerate(self.tied_to):
            if reference >= 0:
                high[..., i] = physical[..., reference]
        return high

    def _columns(self, unit, lower, upper) -> list:
        """The columns of physical values of unit (..., parameter), all three NumPy or all three torch."""
        columns: list = [None] * len(self.names)
        for i in self._order:
            reference = self.tied_to[i]
            high = columns[reference] if reference >= 0 else upper[i]
            columns[i] = lower[i] + unit[..., i] * (high - lower[i])
        return columns


def _resolution_order(names: Sequence[str], tied_to: Sequence[int]) -> list[int]:
    """Indices so that every reference comes before what it bounds. UserError on a cycle."""
    order: list[int] = []
    for start in range(len(names)):
        chain: list[int] = []
        i = start
        while i >= 0 and i not in order:
            if i in chain:
                cycle = " -> ".join(names[j] for j in [*chain[chain.index(i) :], i])
                raise UserError(f"the bounds refer to each other in a circle: {cycle}; give one of them a number")
            chain.append(i)
            i = tied_to[i]
        order.extend(reversed(chain))
    return order


def make_space(entries: Sequence[tuple[str, float, float | str]], source: str | Path) -> ParameterSpace:
    """Build a space from (name, min, max or name of the reference); `source` names the file in errors.

    >>> space = make_space([("leaf", 0.0, "above"), ("above", 0.5, 0.9)], "an example")
    >>> space.unit_to_physical(np.array([0.5, 1.0])).round(6).tolist()  # half of the way to what lies above ground
    [0.45, 0.9]
    """
    names = [name for name, _, _ in entries]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{source}: parameter {name} is listed {names.count(name)} times; keep one line")
    tied = []
    for name, _, high in entries:
        if isinstance(high, str) and high not in names:
            raise UserError(
                f"{source}: the maximum of {name} refers to '{high}', which has no range in this file; "
                "add its line or give a number"
            )
        tied.append(names.index(high) if isinstance(high, str) else -1)
    try:
        order = _resolution_order(names, tied)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    lower = np.array([low for _, low, _ in entries], dtype=np.float64)
    upper = np.empty(len(entries))
    lowest_upper = np.empty(len(entries))  # a reference may sit at its own minimum: the tied range must exist there too
    for i in order:
        high = entries[i][2]
        upper[i] = upper[tied[i]] if isinstance(high, str) else high
        lowest_upper[i] = lower[tied[i]] if isinstance(high, str) else upper[i]
        if not (np.isfinite(lower[i]) and np.isfinite(upper[i])):
            raise UserError(f"{source}: the range of {names[i]} is {lower[i]} to {upper[i]}; both must be finite")
        if lower[i] > lowest_upper[i]:
            bound = f"{high} can be as low as {lowest_upper[i]:g}" if isinstance(high, str) else f"maximum {upper[i]:g}"
            raise UserError(f"{source}: {names[i]} has minimum {lower[i]:g} above its maximum ({bound}); correct one")
    return ParameterSpace(tuple(names), lower, upper, tuple(tied))


def read_ranges(path: str | Path = DEFAULT_RANGES) -> ParameterSpace:
    """Read a range_of_paras.csv or a parameter_bounds YAML (by suffix) into one ParameterSpace.

    Raises UserError with the file, line and value on a cycle, an unknown reference, min above max or a bad number.
    """
    path = existing_file(path, "see configs/range_of_paras.csv for the format")
    entries = _yaml_entries(path) if path.suffix in (".yaml", ".yml") else _csv_entries(path)
    if not entries:
        raise UserError(f'{path}: holds no range; a line looks like 0: "tree_sla", 85, 255')
    return make_space(entries, path)


def _number(value: object, path: Path, place: str, what: str) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UserError(f"{path}, {place}: {what} is {value!r}, expected a number; correct it") from None


def _csv_entries(path: Path) -> list[tuple[str, float, float | str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not readable as UTF-8 text ({error}); save it as UTF-8") from None
    entries: list[tuple[str, float, float | str]] = []
    understood = []
    for number, line in enumerate(lines, start=1):
        line = line.split("#", 1)[0].strip()
        numbered = re.match(r"\s*\d+\s*[:,]", line)
        parts = [part.strip() for part in re.sub(r"^\s*\d+\s*[:,]", "", line).split(",")]
        if len(parts) == 4 and not entries and not numbered and _is_header(parts[1:]):
            parts = parts[1:]  # index, name, minimum, maximum
        if len(parts) != 3 or not all(parts):
            if any(parts):
                understood.append(f"line {number} has no three fields and is skipped")
            continue  # the format allows stray lines without three fields
        if not entries and not numbered and _is_header(parts):
            understood.append(f"line {number} ({line}) is taken for a header")
            continue
        name, low, high = (part.strip("\"' ") for part in parts)
        place = f"line {number}"
        maximum: float | str = high if re.fullmatch(r"[A-Za-z_]\w*", high) and high.lower() not in ("nan", "inf") else (
            _number(high, path, place, f"the maximum of {name}")
        )  # fmt: skip
        entries.append((name, _number(low, path, place, f"the minimum of {name}"), maximum))
    if understood and entries:
        tied = sum(isinstance(high, str) for _, _, high in entries)
        more = f" and {len(understood) - 3} more lines" if len(understood) > 3 else ""
        notice(
            f"{path}: {len(entries)} ranges read, {tied} with another parameter as maximum; "
            f"{', '.join(understood[:3])}{more}"
        )
    return entries


def _is_header(parts: list[str]) -> bool:
    """Whether name, minimum and maximum of a line are all words: the titles of the columns."""
    words = [part.strip("\"' ") for part in parts]
    return all(re.fullmatch(r"[A-Za-z_][\w .()/-]*", word) for word in words) and "nan" not in map(str.lower, words)


def _yaml_entries(path: Path) -> list[tuple[str, float, float | str]]:
    content = read_yaml(path)
    if not (isinstance(content, dict) and set(content) == {"parameter_bounds"}) or not isinstance(
        content["parameter_bounds"], Mapping
    ):
        raise UserError(f"{path}: expected one key 'parameter_bounds' with name: {{min, max | max_from}} below it")
    entries: list[tuple[str, float, float | str]] = []
    for name, bound in content["parameter_bounds"].items():
        if not isinstance(bound, Mapping) or set(bound) not in ({"min", "max"}, {"min", "max_from"}):
            raise UserError(f"{path}: {name} must hold min and either max or max_from, got {bound!r}")
        high = str(bound["max_from"]) if "max_from" in bound else _number(bound["max"], path, name, "max")
        entries.append((str(name), _number(bound["min"], path, name, "min"), high))
    return entries
