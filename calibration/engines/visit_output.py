"""The daily output of a user's VISIT: which of the files that a run left it is, and what its columns hold.

Which columns are printed is code that users edit, so their names can be given; weather that is not printed comes from
the forcing, fluxes that are not printed follow from the identities NEP = NPP - Rh = GPP - ER and GPP = NPP + Ra, and
what does not follow is listed. Everything leaves here in the units of common/units.py.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.common.command_line import UserError
from calibration.common.units import DAILY_COLUMNS, DYNAMIC_FEATURES, G_M2_PER_MG_HA
from calibration.weather.daily_text import check_values, dates_of, parse_columns, parse_daily_file

# name of --flux-unit -> Mg C ha-1 day-1 in one of it, and how it is written
FLUX_UNITS = {
    "Mg_ha": (1.0, "Mg C ha-1 day-1"), "g_m2": (1.0 / G_M2_PER_MG_HA, "g C m-2 day-1"),
    "kg_m2": (1000.0 / G_M2_PER_MG_HA, "kg C m-2 day-1"),
}  # fmt: skip
FLUX_NAMES = ("gpp", "npp", "er", "nep", "rh", "ra", "nee")
# Left over of earlier runs: both public namings of the daily file, and what is written beside it.
EARLIER_OUTPUT = re.compile(r".*_((nee)?daily|annual|spin\w*|e\d\d)\.(txt|csv)", re.IGNORECASE)
DAILY_NAME = re.compile(r"(?!.*needaily).*daily.*\.txt|.*_e02\.csv", re.IGNORECASE)
# How far printed weather may lie from the forcing: half of the last digit of a sparing printf, in units.UNITS.
PRINTED = {"prate_sfc": 1e-6, "spfh_2m": 1e-5, "wind_10m": 5e-3, "tcdc_clm": 5e-2, "dswrf_sfc": 5e-2, "a_co2": 5e-2}
PRINTED_KELVIN = 5e-3


@dataclass(frozen=True)
class OutputFormat:
    """What is known of the daily file before it is there.

    dates: (day,) datetime64[D] that are wanted. weather: (day, 10) in the order and units of units.DYNAMIC_FEATURES
    on those days, or None: then the file must print it. pattern: glob of the file, None: VISIT's two namings. columns:
    as in read_daily_file. unit: key of FLUX_UNITS. keep: the file is kept as it is, so it must be a complete daily
    file in the units of this repository, of just these days.
    """

    dates: np.ndarray
    weather: np.ndarray | None = None
    pattern: str | None = None
    columns: tuple[str, ...] | None = None
    unit: str = "Mg_ha"
    keep: bool = False

    def find(self, written: Sequence[Path], folder: Path) -> Path:
        """The daily file among the files that a run wrote. UserError lists what it wrote instead."""
        # an empty file is no output: VISIT leaves an empty *_needaily.txt beside the daily one
        full = [path for path in written if path.stat().st_size > 0]
        wanted = self.pattern or "*daily*.txt or *_E02.csv"
        found = [path for path in full if (path.match(wanted) if self.pattern else DAILY_NAME.fullmatch(path.name))]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(sorted(str(path.relative_to(folder)) for path in found))
            raise UserError(
                f"{len(found)} output files match {wanted} ({names}), expected one; say which with --output-pattern"
            )
        shown = [f"{path.relative_to(folder)} ({path.stat().st_size} bytes)" for path in sorted(written)]
        appeared = ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")
        raise UserError(
            f"no daily file: 0 output files match {wanted}, expected one; the run wrote {appeared or 'none'}; "
            "if one of them is the daily file, name it with --output-pattern"
        )

    def read(self, path: Path, content: bytes) -> np.ndarray:
        """(day, 4) GPP NPP NEP Rh, Mg C ha-1 day-1, on `dates`; `path` is only named in errors.

        UserError on a damaged file, other days or other weather than wanted, or columns from which the four fluxes
        do not follow.
        """
        if self.keep:
            run = parse_daily_file(path, content, self.columns)
            if len(run.dates) != len(self.dates) or run.dates[0] != self.dates[0]:
                raise UserError(self._other_days(path, run.dates))
            return run.fluxes
        names = list(self.columns or DAILY_COLUMNS)
        values, lines, _ = parse_columns(path, content, names, lambda names, width: self._pick(path, names, width))
        factor = FLUX_UNITS[self.unit][0]
        values = {name: column * factor if name in FLUX_NAMES else column for name, column in values.items()}
        try:
            check_values(path, values, lines)
        except UserError as error:
            hint = f" (fluxes were taken for {FLUX_UNITS[self.unit][1]}; see --flux-unit)"
            raise UserError(f"{error}{hint if 'Mg C' in str(error) else ''}") from None
        dates = dates_of(path, values, lines)
        first = int((self.dates[0] - dates[0]).astype(int))
        days = slice(first, first + len(self.dates))
        if first < 0 or days.stop > len(dates):
            raise UserError(self._other_days(path, dates))
        self._same_weather(path, {name: values[name][days] for name in DYNAMIC_FEATURES if name in values})
        fluxes = complete_fluxes({name: values[name][days] for name in FLUX_NAMES if name in values})
        return np.stack([fluxes[name] for name in ("gpp", "npp", "nep", "rh")], axis=1)

    def _other_days(self, path: Path, dates: np.ndarray) -> str:
        return (
            f"{path}: {len(dates)} days, {dates[0]} to {dates[-1]}, expected {len(self.dates)}, {self.dates[0]} to "
            f"{self.dates[-1]} (--start, --end)"
        )

    def _pick(self, path: Path, names: list[str], width: int) -> dict[str, int]:
        """Positions of the date, of the weather and fluxes that are printed; UserError lists what is missing."""
        day = ["month", "day"] if {"month", "day"} <= set(names) else ["doy"]
        needed = ["year", *day, *(() if self.weather is not None else DYNAMIC_FEATURES)]
        missing = [name for name in needed if name not in names]
        printed = [name for name in FLUX_NAMES if name in names]
        lacking = [name for name in ("gpp", "npp", "nep") if name not in _derivable(printed)]
        if missing or lacking:
            wanting = ", ".join(missing + [f"{name} ({_ways(name)})" for name in lacking])
            raise UserError(
                f"{path}: missing are {wanting}; found were {' '.join(names[:24])}; print them, or name the columns "
                "as they stand with --columns"
            )
        wanted = [*needed, *(name for name in DYNAMIC_FEATURES if name in names and name not in needed), *printed]
        if "doy" in names and "doy" not in wanted:
            wanted.append("doy")
        twice = [name for name in wanted if names.count(name) > 1]
        if twice:
            raise UserError(f"{path}: column '{twice[0]}' is listed {names.count(twice[0])} times; name it once")
        position = {name: names.index(name) for name in wanted}
        last = max(position, key=position.__getitem__)
        if position[last] >= width:
            raise UserError(
                f"{path}: {width} columns, expected at least {position[last] + 1} "
                f"({' '.join(names[: position[last] + 1])}); name the file's own columns with --columns"
            )
        return position

    def _same_weather(self, path: Path, printed: Mapping[str, np.ndarray]) -> None:
        """UserError when the file prints other weather than the run is supposed to have had."""
        if self.weather is None:
            return
        for name, column in printed.items():
            wanted = self.weather[:, DYNAMIC_FEATURES.index(name)]
            apart = np.abs(column - wanted) > PRINTED.get(name, PRINTED_KELVIN) + 1e-3 * np.abs(wanted) * (
                name in PRINTED
            )
            if apart.any():
                day = int(apart.argmax())
                raise UserError(
                    f"{path}: {name} on {self.dates[day]} is {column[day]:g}, in the weather it is {wanted[day]:g} "
                    f"({apart.mean():.0%} of the days differ); your VISIT reads other weather, or its columns are "
                    "others (--columns)"
                )


def _derivable(names: Sequence[str]) -> set[str]:
    """Names of the fluxes that follow from those of `names`."""
    return set(complete_fluxes({name: np.zeros(1) for name in names}))


def complete_fluxes(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All fluxes that follow from the given ones, name -> (day,), in the given unit.

    Identities: NEP = NPP - Rh = GPP - ER = -NEE, GPP = NPP + Ra, ER = Ra + Rh. Rh = NPP - NEP always, as the contract
    has it: where exports of carbon count in NEP, that is not what is printed as Rh.

    >>> found = complete_fluxes({"gpp": np.array([5.0]), "npp": np.array([2.0]), "er": np.array([4.5])})
    >>> found["nep"].tolist(), found["rh"].tolist()
    ([0.5], [1.5])
    """
    f = dict(given)
    rules = (
        ("nep", ("nee",), lambda nee: -nee), ("nep", ("gpp", "er"), np.subtract), ("npp", ("gpp", "ra"), np.subtract),
        ("gpp", ("npp", "ra"), np.add), ("nep", ("npp", "rh"), np.subtract), ("gpp", ("nep", "er"), np.add),
        ("er", ("ra", "rh"), np.add), ("npp", ("nep", "rh"), np.add), ("ra", ("er", "rh"), np.subtract),
    )  # fmt: skip
    for _ in rules:
        for name, sources, rule in rules:
            if name not in f and all(source in f for source in sources):
                f[name] = rule(*(f[source] for source in sources))
    if {"npp", "nep"} <= set(f):
        f["rh"] = f["npp"] - f["nep"]
    return f


def _ways(name: str) -> str:
    """How a flux can be had, in words."""
    return {
        "gpp": "print gpp, or npp and ra, or nep and er", "npp": "print npp, or gpp and ra, or nep and rh",
        "nep": "print nep or nee, or npp and rh, or gpp and er",
    }[name]  # fmt: skip


def last_words(log: bytes, lines: int = 3) -> str:
    """The last lines of a program's output as one, at most 300 characters; '' if it said nothing."""
    said = [line.strip() for line in log.decode("utf-8", "replace").splitlines() if line.strip()]
    return " | ".join(said[-lines:])[-300:]
