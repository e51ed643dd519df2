"""What is looked at in a run: sums of NEP, GPP and Rh over a year and over 30 days, and the daily NEP of a tower."""

from dataclasses import dataclass

import numpy as np

from calibration.common.command_line import UserError
from calibration.common.units import FLUX_LABELS, TARGETS

SUMMED = ("nep", "gpp", "rh")
SPANS = {"annual": 365, "30-day": 30}  # days


@dataclass(frozen=True)
class Period:
    """The days that are looked at: all spans begin at `first` (index into `dates`) and the longest has `days` days.

    dates: (day,) datetime64[D] of the weather.
    """

    dates: np.ndarray
    first: int
    days: int

    @property
    def start(self) -> np.datetime64:
        """The first day looked at."""
        return self.dates[self.first]

    def within(self, warmup: int) -> slice:
        """The days with `warmup` days before them."""
        return slice(self.first - warmup, self.first + self.days)


def choose_period(dates: np.ndarray, start: np.datetime64 | None, days: int, warmup: int) -> Period:
    """`days` days (365 at least) from `start`, with `warmup` days of weather before them.

    start None: the last 1 January from which they fit, else the last such day. UserError when they do not fit.
    """
    days = max(days, *SPANS.values())
    last = len(dates) - days
    if last < warmup:
        raise UserError(
            f"the weather has {len(dates)} days, {days} days after {warmup} days of warm-up are asked for: give a "
            "longer weather or fewer --days"
        )
    if start is None:
        new_year = np.flatnonzero(dates == dates.astype("datetime64[Y]"))
        fitting = new_year[(new_year >= warmup) & (new_year <= last)]
        return Period(dates, int(fitting[-1] if len(fitting) else last), days)
    first = int((start - dates[0]).astype(int))
    if not warmup <= first <= last:
        raise UserError(
            f"--start {start}: {days} days from there do not fit, with {warmup} days before them, into the weather of "
            f"{dates[0]} to {dates[-1]}; choose a start from {dates[warmup]} to {dates[last]}, or fewer --days"
        )
    return Period(dates, first, days)


def sums(fluxes: np.ndarray) -> dict[str, np.ndarray]:
    """fluxes (run, day, 4), Mg C ha-1 day-1 in the order of units.TARGETS -> 'annual NEP' and so on: (run,).

    Mg C ha-1 over the span's days, which are the first ones of `fluxes`.
    """
    return {
        f"{span} {FLUX_LABELS[flux]}": fluxes[:, :days, TARGETS.index(flux)].sum(axis=1, dtype=np.float64)
        for span, days in SPANS.items()
        for flux in SUMMED
    }
