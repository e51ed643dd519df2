"""The spin-up of VISIT: the weather's whole years, repeated until 2010 years have passed.

`full` integrates every day of every sample, one sample after another, as VISIT does. `fast` reaches the same state
sooner, by two means and without approximating the vegetation:

Eight samples run side by side (visit/kernel.py), and each leaves when its vegetation and water come back to a state
they were in at the end of an earlier loop. They need not come to rest: a suppressed layer keeps living on its reserves
for some loops and off them for others. But from then on everything they do has been seen, so the state at the end is
one that was passed. Soil carbon does not act back on them, and over one loop it is a linear map of its own pools, so
the remaining loops are nine numbers multiplied by a matrix. Where the active humus could run empty (its exports then
stop, which is not linear) the soil must come back too, and where nothing comes back all loops are integrated.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numba import njit

from calibration.visit.forcing import DAYS_PER_SPINUP_YEAR, EXPORTS_FROM_YEAR, DailyForcing
from calibration.visit.kernel import LANES, NEVER, lanes, run_days, samples
from calibration.visit.layout import DOC, LITTER, SOIL_ROW, STATE, start_state

NO_SERIES, NO_TABLE = np.zeros((0, 0, 0)), np.zeros((0, 0))
# A state counts as come back when vegetation, water and DOC agree to this share twice running, without drifting apart.
# At 1e-6 two of 500 forests left their cycle again later (day-to-day decisions are all or nothing); at 1e-8 none.
RETURN_TOLERANCE = 1e-8
SMALLEST = 1e-6  # Mg C ha-1, mm: pools below are compared absolutely
HISTORY = 128  # loops that a sample remembers
LIVING = np.array([i for i in range(len(STATE)) if not LITTER <= i < DOC])

_compile = njit(cache=True, nogil=True, error_model="numpy")


@dataclass(frozen=True)
class Loop:
    """One spin-up loop's forcing and how often it is run."""

    forcing: DailyForcing
    loops: int

    def exports_from(self, loop: int) -> int:
        """Index of the first day of `loop` (from 0) on which DOC and erosion leave the active humus."""
        return max((EXPORTS_FROM_YEAR - 1 - loop * self.forcing.years) * DAYS_PER_SPINUP_YEAR, 0)


def warm_up(parameters: np.ndarray, ground: np.ndarray, loop: Loop, count: int = 1) -> np.ndarray:
    """State (lanes) of `count` samples after VISIT's warm-up pass: one year of water only, with all carbon held."""
    state = lanes(start_state(ground)[None])
    days = loop.forcing.days[:DAYS_PER_SPINUP_YEAR]
    never = np.full(count, NEVER)
    run_days(parameters, ground, days, state, never, True, NO_SERIES, NO_SERIES, NO_TABLE, None)
    return state


def full(rows: np.ndarray, ground: np.ndarray, loop: Loop) -> np.ndarray:
    """State (sample, len(STATE)) after every day of the spin-up; rows: (1 or up to LANES samples, PARAMETER_ROWS)."""
    count = 1 if len(rows) == 1 else LANES
    parameters = lanes(rows)
    state = warm_up(parameters, ground, loop, count)
    for number in range(loop.loops):
        exports = np.full(count, loop.exports_from(number))
        run_days(parameters, ground, loop.forcing.days, state, exports, False, NO_SERIES, NO_SERIES, NO_TABLE, None)
    return samples(state)[: len(rows)].copy()


def trace(row: np.ndarray, ground: np.ndarray, loop: Loop) -> tuple[np.ndarray, np.ndarray]:
    """One sample's full spin-up, year by year: GPP, NPP, ER, NEP, Rh sums (year, 5) and mean pools (year, state)."""
    parameters = lanes(row[None])
    state = warm_up(parameters, ground, loop)
    years, length = loop.forcing.years, loop.forcing.length
    sums, means = np.empty((loop.loops * years, 5)), np.empty((loop.loops * years, len(STATE)))
    fluxes, pools = np.empty((1, length, 5)), np.empty((1, length, len(STATE)))
    for number in range(loop.loops):
        exports = np.full(1, loop.exports_from(number))
        run_days(parameters, ground, loop.forcing.days, state, exports, False, fluxes, pools, NO_TABLE, None)
        here = slice(number * years, (number + 1) * years)
        sums[here] = fluxes.reshape(years, DAYS_PER_SPINUP_YEAR, -1).sum(axis=1)
        means[here] = pools.reshape(years, DAYS_PER_SPINUP_YEAR, -1).mean(axis=1)
    return sums, means


def spin_up(
    rows: np.ndarray, ground: np.ndarray, loop: Loop, kind: str, jobs: int, done: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Spin up every sample in `jobs` threads; `done(n)` is called when n more samples are finished.

    rows: (run, PARAMETER_ROWS); kind: "full" or "fast". Returns the states (run, len(STATE)) and the number of loops
    that were integrated day by day (run,). Threads take samples from one queue, so that a slow one holds up nobody.
    """
    if kind == "fast":  # parameters without effect are not in the rows, so a design often repeats a row
        rows, twin, copies = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
        twin = twin.ravel()
    else:
        twin, copies = np.arange(len(rows)), np.ones(len(rows), dtype=int)
    states = np.empty((len(rows), len(STATE)))
    loops = np.full(len(rows), loop.loops)
    queue = deque(range(len(rows)))

    def full_worker() -> None:
        """Spin up run after run of the queue by full years of days."""
        while queue:
            try:
                i = queue.popleft()
            except IndexError:
                return
            states[i] = full(rows[i : i + 1], ground, loop)[0]
            done(copies[i])

    def fast_worker() -> None:
        """Spin up runs of the queue in lanes, by the fast method."""
        _Fast(rows, ground, loop, queue, states, loops, lambda i: done(copies[i])).work()

    with ThreadPoolExecutor(jobs) as pool:
        workers = [pool.submit(full_worker if kind == "full" else fast_worker) for _ in range(jobs)]
        try:
            for worker in workers:
                worker.result()
        finally:
            queue.clear()  # after an error or Ctrl-C the other threads end with the sample they are at
    return states[twin], loops[twin]


class _Fast:
    """One thread of the fast spin-up: LANES samples at different loops side by side, refilled from the queue."""

    def __init__(self, rows, ground, loop, queue, states, loops, done):
        self.rows, self.ground, self.loop, self.queue = rows, ground, loop, queue
        self.states, self.loops, self.done = states, loops, done
        self.sample = [-1] * LANES  # which sample a lane holds, -1: none
        self.number = np.zeros(LANES, dtype=np.int64)  # loops that a lane has behind it
        self.history = np.empty((LANES, HISTORY, len(STATE)))
        self.least_active = np.empty((LANES, HISTORY))  # smallest active humus in each remembered loop
        self.match = np.zeros((LANES, 2))  # period and distance of the last return, 0: none
        self.parameters = lanes(rows[:1])
        self.state = lanes(start_state(ground)[None])
        self.drive = np.empty((loop.forcing.length, 3 * LANES))
        # exports must be on in every remembered loop, since the soil's map is taken from them
        self.first_remembered = -(-(EXPORTS_FROM_YEAR - 1) // loop.forcing.years)

    def work(self) -> None:
        """Fill the lanes from the queue and advance them until both are empty."""
        days = self.loop.forcing.days
        while True:
            for lane in range(LANES):
                if self.sample[lane] < 0:
                    self._fill(lane)
            active = [lane for lane in range(LANES) if self.sample[lane] >= 0]
            if not active:
                return
            if len(active) == 1:
                self._move(active[0], 0)
                active = [0]
            exports = np.array([self.loop.exports_from(number) for number in self.number])
            exports = exports[:1] if len(active) == 1 else exports
            run_days(
                self.parameters, self.ground, days, self.state, exports, False, NO_SERIES, NO_SERIES, self.drive, None
            )
            least_active = _smallest(self.drive)
            for lane in active:
                self._after_loop(lane, least_active[lane])

    def _fill(self, lane: int) -> None:
        try:
            i = self.queue.popleft()
        except IndexError:
            return
        parameters = lanes(self.rows[i : i + 1])
        samples(self.parameters)[lane] = self.rows[i]
        samples(self.state)[lane] = samples(warm_up(parameters, self.ground, self.loop))[0]
        self.sample[lane], self.number[lane], self.match[lane] = i, 0, 0

    def _move(self, lane: int, to: int) -> None:
        if lane == to:
            return
        for table in (
            samples(self.parameters),
            samples(self.state),
            self.number,
            self.history,
            self.least_active,
            self.match,
        ):
            table[to] = table[lane]
        self.sample[to], self.sample[lane] = self.sample[lane], -1

    def _after_loop(self, lane: int, least_active: float) -> None:
        """Remember the lane's state; finish its sample if the spin-up is over or its future is known."""
        number, state = self.number[lane], samples(self.state)[lane].copy()
        self.number[lane] += 1
        if number + 1 == self.loop.loops:
            self._finish(lane, state)
            return
        remembered = number - self.first_remembered
        if remembered < 0:
            return
        self.history[lane, remembered % HISTORY] = state
        self.least_active[lane, remembered % HISTORY] = least_active
        period, distance = _nearest(self.history[lane], remembered, LIVING, SMALLEST)
        before_period, before_distance = self.match[lane]
        self.match[lane] = (period, distance) if distance < RETURN_TOLERANCE else 0
        if distance < RETURN_TOLERANCE and period == before_period and distance <= 1.5 * before_distance + 1e-13:
            final = self._continue(lane, remembered, period)
            if final is not None:
                self._finish(lane, final)

    def _continue(self, lane: int, remembered: int, period: int) -> np.ndarray | None:
        """State at the end of the spin-up, from a cycle of `period` loops; None where soil carbon is not linear."""
        slots = (remembered - period + np.arange(period + 1)) % HISTORY
        cycle = self.history[lane, slots]  # cycle[0] and cycle[period] are the same living state
        remaining = self.loop.loops - self.number[lane]
        state = cycle[remaining % period or period].copy()
        pools = cycle[:, LITTER:DOC]
        if (np.abs(pools[-1] - pools[0]) <= RETURN_TOLERANCE * pools[-1] + 1e-12).all():
            return state
        soil = samples(self.parameters)[lane, SOIL_ROW:]
        matrix = soil_map(soil, self.drive[:, lane], self.drive[:, LANES + lane])
        gains = pools[1:] - pools[:-1] @ matrix.T
        final, emptied = _iterate(matrix, pools, gains, self.least_active[lane, slots[1:]], soil, remaining)
        if emptied:
            return None
        state[LITTER:DOC] = final
        return state

    def _finish(self, lane: int, state: np.ndarray) -> None:
        i = self.sample[lane]
        self.states[i], self.loops[i] = state, self.number[lane]
        self.sample[lane] = -1
        self.done(i)


@_compile
def _nearest(history, newest, living, smallest):
    """How many loops ago the state in slot `newest` was met most closely, and the largest relative difference.

    Of loops that are closer than a tenth of each other's distance the most recent counts (the shortest period).
    """
    slots = len(history)
    now = history[newest % slots]
    best_period, best = 0, np.inf
    for back in range(1, min(newest, slots - 1) + 1):
        then = history[(newest - back) % slots]
        distance = 0.0
        for i in living:
            distance = max(distance, abs(now[i] - then[i]) / (abs(now[i]) + smallest))
            if distance >= 0.1 * best:
                break
        if distance < 0.1 * best:
            best_period, best = back, distance
            if best < 1e-12:
                break
    return best_period, best


@_compile
def _smallest(drive):
    """(LANES,) smallest active humus of each lane in a loop; drive: see run_days."""
    least = np.full(LANES, np.inf)
    for d in range(drive.shape[0]):
        for k in range(LANES):
            least[k] = min(least[k], drive[d, 2 * LANES + k])
    return least


@_compile
def soil_map(soil, factor_litter, factor_humus):
    """(9, 9) linear map of the soil pools over one loop without litterfall or exports.

    soil: Soil parameters; factor_litter, factor_humus: (day,) decay factors. Order of pools: tree leaf, stem, root
    litter, C3 leaf, stem, root litter, active, intermediate, passive humus.
    """
    rates, respired, shares = soil[1:4], soil[11:14], soil[14:17]
    kept = np.ones(3)  # of a litter pool
    left = np.ones(3)  # of a humus pool
    formed = np.zeros((3, 3))  # humus pool y from one unit of litter kind x
    for d in range(len(factor_litter)):
        for y in range(3):
            stays = 1.0 - soil[4 + y] * factor_humus[d]
            left[y] *= stays
            for x in range(3):
                humified = (1.0 - respired[x]) * rates[x] * factor_litter[d] * kept[x]
                formed[y, x] = formed[y, x] * stays + shares[y] * humified
        for x in range(3):
            kept[x] *= 1.0 - rates[x] * factor_litter[d]
    matrix = np.zeros((9, 9))
    for x in range(3):
        matrix[x, x] = matrix[x + 3, x + 3] = kept[x]
        for y in range(3):
            matrix[6 + y, x] = matrix[6 + y, x + 3] = formed[y, x]
            matrix[6 + y, 6 + y] = left[y]
    return matrix


@_compile
def _iterate(matrix, cycle, gains, least_active, soil, loops):
    """Soil pools (9,) after `loops` more loops, and whether the active humus could run empty in one of them.

    cycle: (period + 1, 9) pools at the ends of the loops passed; gains: (period, 9) what litterfall and exports add in
    each loop; least_active: (period,) smallest active humus in each. A loop that starts with less carbon than the one
    passed has at most so much less active humus as it lacks, counting litter by its humified share.
    """
    period = len(gains)
    pools = cycle[period].copy()
    for n in range(loops):
        passed = cycle[n % period]
        lack = max(passed[6] - pools[6], 0.0)
        for x in range(6):
            lack += soil[14] * (1.0 - soil[11 + x % 3]) * max(passed[x] - pools[x], 0.0)
        if least_active[n % period] <= lack:
            return pools, True
        pools = matrix @ pools + gains[n % period]
    return pools, False
