"""The spin-up of VISIT: the weather's whole years, repeated until 2010 years have passed.

`full` integrates every day of it, as VISIT does.
"""

from dataclasses import dataclass

import numpy as np

from visit_forcing import DAYS_PER_SPINUP_YEAR, EXPORTS_FROM_YEAR, Forcing
from visit_kernel import STATE, run_days, start_state

NONE = np.zeros((0, 0))
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Loop:
    """One spin-up loop's forcing and how often it is run."""

    forcing: Forcing
    loops: int

    def exports_from(self, loop: int) -> int:
        """Index of the first day of `loop` (from 0) on which DOC and erosion leave the active humus."""
        first = (EXPORTS_FROM_YEAR - 1 - loop * self.forcing.years) * DAYS_PER_SPINUP_YEAR
        return max(first, 0)


def warm_up(rows: tuple[np.ndarray, ...], loop: Loop) -> np.ndarray:
    """State after VISIT's warm-up pass: the first year's water and conductance, with all carbon held."""
    state = start_state(rows[3])
    run_days(rows, loop.forcing.days[:DAYS_PER_SPINUP_YEAR], state, NEVER, True, NONE, NONE, NONE, NONE)
    return state


def full(rows: tuple[np.ndarray, ...], loop: Loop) -> np.ndarray:
    """State (len(STATE),) after every day of the spin-up. rows: the parameter rows of run_days."""
    state = warm_up(rows, loop)
    for number in range(loop.loops):
        run_days(rows, loop.forcing.days, state, loop.exports_from(number), False, NONE, NONE, NONE, NONE)
    return state


def trace(rows: tuple[np.ndarray, ...], loop: Loop) -> tuple[np.ndarray, np.ndarray]:
    """The full spin-up year by year: annual GPP, NPP, ER, NEP, Rh (year, 5) and mean pools (year, len(STATE))."""
    state = warm_up(rows, loop)
    years = loop.loops * loop.forcing.years
    fluxes, means = np.empty((years, 5)), np.empty((years, len(STATE)))
    daily, pools = np.empty((loop.forcing.length, 5)), np.empty((loop.forcing.length, len(STATE)))
    for number in range(loop.loops):
        run_days(rows, loop.forcing.days, state, loop.exports_from(number), False, daily, pools, NONE, NONE)
        here = slice(number * loop.forcing.years, (number + 1) * loop.forcing.years)
        fluxes[here] = daily.reshape(loop.forcing.years, DAYS_PER_SPINUP_YEAR, -1).sum(axis=1)
        means[here] = pools.reshape(loop.forcing.years, DAYS_PER_SPINUP_YEAR, -1).mean(axis=1)
    return fluxes, means


def fast(rows: tuple[np.ndarray, ...], loop: Loop) -> np.ndarray:
    """As full."""
    return full(rows, loop)
