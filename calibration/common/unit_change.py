"""Does a daily series change its unit on some day? A factor of 8 or more from one day to the next that stays.

Seasons, harvests, rains and thaws change the size of values too, but not from one day to the next and not by scaling:
the values after a change of unit are those before it times a number, with the same share of negative ones and the same
spread. A step that other years show at the same time of year is a season. What the benchmark makes of it:
benchmarks/benchmark_unit_jumps.py.
"""

from dataclasses import dataclass

import numpy as np

FEWEST, FEWEST_BESIDE = 16, 6  # values that are not zero, in all and on either side
WIDTHS = (8, 12, 18, 27, 40)  # values on each side of a day that are compared
# Steps of a series that scatters little (light, pressure, respiration) and of one that scatters much (rain, NEE): over
# the width and over the days next to the cut; the largest of all; of everything near, against a spike.
QUIET_STEPS = (np.log(3.8), np.log(6.5), np.log(1.5))
NOISY_STEPS = (np.log(5.5), np.log(7.0), np.log(4.8))
CHANCE = np.log(1.3)  # by which few days may exceed many
CERTAIN = 3.6  # standard errors that a step of a noisy series must have
NOISY = 0.45  # scatter of log |value| from day to day
HUGE_STEP = np.log(40.0)  # from one day to the next, with hardly an overlap: shape and season need not be asked
NO_WEATHER = np.log(60.0)  # with whatever overlap
BEYOND_OTHER_YEARS = np.log(2.2)  # what must be left of the step when the same step of other years is taken off
LASTING = 45  # values on each side that must have changed their size
SHAPE = 2.05  # distance between the distributions before (scaled) and after, over the root of their number
SIGNS = 0.3  # difference between the shares of negative values that is still scaling
NARROW, SHIFT = 0.25, 0.5  # of log |value|
NEAR = 0.55  # share of the step that lies between the few days before and the few days after
SEASON = 25  # days by which the same season's step may come earlier or later in another year
NEAR_DAYS = 5  # beside a cut, whose light is looked at
QUANTILE = 0.7  # of |value|, the size of values: the median of values about zero is noisy


@dataclass(frozen=True)
class UnitChange:
    """A change of unit: its first day and the factor by which values became larger."""

    day: np.datetime64
    ratio: float


def find_unit_change(values: np.ndarray, dates: np.ndarray) -> UnitChange | None:
    """The clearest change of unit of a series, or None.

    values: (day,) in any unit, NaN where missing; zeros say nothing about a unit. dates: (day,) datetime64[D], rising.
    """
    keep = ~np.isnan(values) & (values != 0)
    x, days = np.asarray(values, dtype=float)[keep], dates[keep]
    if len(x) < FEWEST:
        return None
    size = np.log(np.abs(x))
    noisy = _scatter(size) > NOISY or np.mean(x < 0) > 0.05  # what crosses zero is noisy in some season
    width = _width(size, NOISY_STEPS[0] if noisy else QUIET_STEPS[1])
    step = _steps(size, width)
    candidates = _peaks(step, width)
    for at in candidates:
        cut = _sharpest(size, at, width)
        found = _judge(x, size, days, cut, width, step, noisy)
        if found is not None:
            return UnitChange(days[cut], float(np.exp(found)))
    return None


def find_light_change(values: np.ndarray, dates: np.ndarray) -> UnitChange | None:
    """find_unit_change for shortwave: the dusk and dawn of a polar winter are no change of unit.

    A change must begin or end in the light: at a tenth of the bright days of the series, or of that side of the change
    where it holds most of a year.
    """
    found = find_unit_change(values, dates)
    if found is None or abs(np.log(found.ratio)) >= HUGE_STEP:
        return found
    known = ~np.isnan(values)
    for side in (known & (dates < found.day), known & (dates >= found.day)):
        part = values[side]
        beside = part[-2 * NEAR_DAYS :] if dates[side][-1] < found.day else part[: 2 * NEAR_DAYS]
        bright = np.quantile(part if np.ptp(dates[side]).astype(int) > 300 else values[known], 0.95)
        if np.median(beside) >= 0.1 * bright:
            return found
    return None


def _scatter(size: np.ndarray) -> float:
    """Scatter of log |value| about its running median of nine values."""
    middle = np.median(np.lib.stride_tricks.sliding_window_view(size, 9), axis=1)
    return float(1.4826 * np.median(np.abs(size[4:-4] - middle)))


def _level(size: np.ndarray) -> float:
    return float(np.quantile(size, QUANTILE))


def _steps(size: np.ndarray, width: int) -> np.ndarray:
    """(value,) log ratio of the size of the `width` values from each on to the `width` before; fewer at the ends.

    NaN where fewer than a third of them (at least FEWEST_BESIDE) are there.
    """
    n, least = len(size), min(width, max(FEWEST_BESIDE, width // 3))
    level = np.quantile(np.lib.stride_tricks.sliding_window_view(size, width), QUANTILE, axis=1)
    step = np.full(n, np.nan)
    step[width : n - width + 1] = level[width:] - level[: n - 2 * width + 1]
    for k in range(least, width):
        step[k] = level[k] - _level(size[:k]) if k + width <= n else np.nan
        step[n - k] = _level(size[n - k :]) - level[n - k - width] if n - k - width >= 0 else np.nan
    return step


def _width(size: np.ndarray, step_to_tell: float) -> int:
    """The fewest values that tell a step from the scatter of this series."""
    for width in WIDTHS:
        if 2 * width > len(size):
            break
        step = _steps(size, width)
        spread = 1.4826 * np.nanmedian(np.abs(step - np.nanmedian(step)))
        if 4.0 * spread < step_to_tell:
            return width
    return min(WIDTHS[-1], len(size) // 2)


def _peaks(step: np.ndarray, width: int) -> list[int]:
    """Days of the largest steps, `width` apart, the largest first."""
    found, rest = [], np.where(np.isnan(step), 0.0, np.abs(step))
    while len(found) < 8 and rest.max() >= QUIET_STEPS[0]:
        at = int(rest.argmax())
        found.append(at)
        rest[max(0, at - width) : at + width + 1] = 0.0
    return found


def _sharpest(size: np.ndarray, at: int, width: int) -> int:
    """The day within the step at which before and after fit two levels best."""
    reach = max(6, width // 2)
    low, high = max(at - width - reach, 0), min(at + width + reach, len(size))
    best, where = np.inf, at
    for cut in range(max(at - reach, low + 5), min(at + reach + 1, high - 4)):
        before, after = size[low:cut], size[cut:high]
        cost = np.abs(before - np.median(before)).sum() + np.abs(after - np.median(after)).sum()
        if cost < best:
            best, where = cost, cut
    return where


def _judge(x, size, days, cut: int, width: int, steps: np.ndarray, noisy: bool) -> float | None:
    """The log ratio at a cut if it is a change of unit, else None."""
    n = len(size)
    w = min(max(width, 18) if noisy else width, cut, n - cut)
    if w < FEWEST_BESIDE:
        return None
    step = _level(size[cut : cut + w]) - _level(size[cut - w : cut])
    sign = np.sign(step)
    few = max(5, w // 3)
    near = sign * (_level(size[cut : cut + few]) - _level(size[cut - few : cut]))
    long = min(LASTING, cut, n - cut)
    lasting = sign * (_level(size[cut : cut + long]) - _level(size[cut - long : cut]))
    smallest, clear, stays = NOISY_STEPS if noisy else QUIET_STEPS
    if abs(step) < smallest or lasting < stays or near < max(QUIET_STEPS[0], NEAR * abs(step)):
        return None
    if max(abs(step), near - CHANCE, lasting) < clear or (max(abs(step), near) < HUGE_STEP and w < 8):
        return None
    before, after = size[cut - w : cut], size[cut : cut + w]
    apart = np.quantile(after, 0.2) > before.max() if sign > 0 else np.quantile(before, 0.2) > after.max()
    if min(abs(step), near) >= HUGE_STEP and (apart or min(abs(step), near, lasting) >= NO_WEATHER):
        return step
    if noisy:
        scatter = np.sqrt(0.5 * (before.var() + after.var()))
        # 1.2: the standard error of this quantile of log |normal|, in those of its mean
        if min(abs(step), lasting) < CERTAIN * 1.2 * scatter * np.sqrt(2 / w):
            return None
    # Scaling keeps the share of negative values and the spread.
    wide = min(max(w, 16), cut, n - cut)
    before, after = x[cut - wide : cut], x[cut : cut + wide]
    if abs(np.mean(before < 0) - np.mean(after < 0)) > SIGNS:
        return None
    if _distance(before, after, step) > SHAPE / np.sqrt(wide):
        return None
    if max(abs(step), near) - _same_season(days, cut, steps, sign) < BEYOND_OTHER_YEARS:
        return None
    return step


def _distance(before: np.ndarray, after: np.ndarray, step: float) -> float:
    """Largest difference between the cumulative distributions (Kolmogorov and Smirnov) after the best scaling.

    The scaling may differ from exp(step) by half, as scatter and season leave it. Narrow ones (pressure) have no shape.
    """
    if max(np.log(np.abs(part)).std() for part in (before, after)) < NARROW:
        return 0.0
    b = np.sort(after)
    best = 1.0
    for shift in np.linspace(-SHIFT, SHIFT, 9):
        a = np.sort(before * np.exp(step + shift))
        both = np.concatenate([a, b])
        gap = np.searchsorted(a, both, "right") / len(a) - np.searchsorted(b, both, "right") / len(b)
        best = min(best, float(np.abs(gap).max()))
    return best


def _same_season(days: np.ndarray, cut: int, steps: np.ndarray, sign: float) -> float:
    """The step in the same direction that other years show at this time of year (their median); 0 without any."""
    year = days.astype("datetime64[Y]").astype(int)
    doy = (days - days.astype("datetime64[Y]")).astype(int)
    away = np.abs((doy - doy[cut] + 183) % 366 - 183)
    found = []
    for other in np.unique(year):
        near = (year == other) & (away <= SEASON) & ~np.isnan(steps)
        if other != year[cut] and abs((days[near] - days[cut]).astype(int)).min(initial=9999) > 200 and near.sum() >= 5:
            found.append(max(0.0, float((sign * steps[near]).max())))
    return float(np.median(found)) if found else 0.0
