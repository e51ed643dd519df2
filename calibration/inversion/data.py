"""What an inversion is fitted to: stretches of weather with the observed days inside them.

Windows of 30 days that follow or overlap each other are merged into one long stretch (context + all days) whenever
their weather agrees, so that the emulator runs once over each day instead of seven times. A day counts once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibration.common.command_line import UserError, warn
from calibration.common.units import TARGETS, er_from_gpp_nep
from calibration.inversion.config import TARGET_COMBINATIONS
from calibration.tower.windows import Windows

OBSERVABLE = (*TARGETS, "er")  # columns of observed fluxes: a tower's ER has its own error, it is not GPP - NEP
DAY = np.timedelta64(1, "D")
# Scaled weather of two windows on one day may differ by float32 rounding and printed digits, not by more.
WEATHER_TOLERANCE = 5e-3
BLOCK_DAYS = 60


@dataclass(frozen=True)
class Stretch:
    """Consecutive days: `context` days of warm-up, then `day` days of which some are observed."""

    dynamic: np.ndarray  # (context + day, feature) scaled weather and CO2
    context: int
    observed: np.ndarray  # (day, 5) Mg C ha-1 day-1, order OBSERVABLE; NaN where there is none
    mask: np.ndarray  # (day, 5) bool, True = counts
    sd: np.ndarray  # (day, 5) observation error, Mg C ha-1 day-1; NaN where unknown
    dates: np.ndarray | None  # (day,) datetime64[D]; None if unknown

    @property
    def days(self) -> int:
        """Days after the context."""
        return len(self.observed)

    @property
    def all_dates(self) -> np.ndarray | None:
        """(context + day,) dates of the weather, None if unknown."""
        return None if self.dates is None else self.dates[0] + DAY * np.arange(-self.context, self.days)


@dataclass(frozen=True)
class Observations:
    """The observed values of all targets as one vector; entry i is day `day[i]` of stretch `stretch[i]`."""

    value: np.ndarray  # (entry,) Mg C ha-1 day-1
    sd: np.ndarray  # (entry,) observation error, Mg C ha-1 day-1, NaN where unknown
    stretch: np.ndarray  # (entry,) index
    day: np.ndarray  # (entry,) day after the context
    target: np.ndarray  # (entry,) index into `targets`
    date: np.ndarray  # (entry,) datetime64[D], NaT where unknown
    targets: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.value)

    def of(self, target: str) -> np.ndarray:
        """(entry,) bool: which entries belong to `target`."""
        return self.target == self.targets.index(target)

    @property
    def day_number(self) -> np.ndarray:
        """(entry,) days since 1970, or the day inside its stretch where the date is unknown."""
        known = ~np.isnat(self.date)
        return np.where(known, self.date.astype("datetime64[D]").astype(np.int64), self.day)

    @property
    def comparable(self) -> np.ndarray:
        """(entry, entry) bool: whether the days between two entries are known: both dated, or of one stretch."""
        dated = ~np.isnat(self.date)
        return (dated[:, None] & dated[None, :]) | (self.stretch[:, None] == self.stretch[None, :])

    @property
    def spread(self) -> np.ndarray:
        """(target,) standard deviation of each target's values, Mg C ha-1 day-1, above 0."""
        return np.array([max(self.value[self.of(target)].std(), 1e-6) for target in self.targets])

    def subset(self, keep: np.ndarray) -> "Observations":
        """The entries of an index array or mask."""
        names = ("value", "sd", "stretch", "day", "target", "date")
        return replace(self, **{name: getattr(self, name)[keep] for name in names})

    def blocks(self, most: int) -> np.ndarray:
        """Indices of entries in evenly spaced blocks of 60 days, about `most` entries at most."""
        if len(self) <= most:
            return np.arange(len(self))
        block = self.day_number // BLOCK_DAYS + 10**6 * self.stretch
        names = np.unique(block)
        wanted = max(1, int(len(names) * most / len(self)))
        chosen = names[np.linspace(0, len(names) - 1, wanted).round().astype(int)]
        return np.flatnonzero(np.isin(block, chosen))


def day_index(dates: np.ndarray, first: np.datetime64) -> np.ndarray:
    """Days (day,) int from `first` to `dates` (day,).

    >>> day_index(np.array(["2012-03-01"], dtype="datetime64[D]"), np.datetime64("2012-02-28")).tolist()
    [2]
    """
    return ((dates - first) / DAY).astype(int)


def combine_fluxes(fluxes, target: str):
    """The flux `target` from the emulator's four outputs: (..., 4) -> (...); array or tensor, unit unchanged."""
    weights = TARGET_COMBINATIONS[target]
    return sum(weight * fluxes[..., i] for i, weight in enumerate(weights) if weight)


def stretch_from_arrays(dynamic, future, observed, mask, sd=None, start=None, er=None) -> Stretch:
    """One window as a stretch: dynamic (context, feature), future (day, feature) scaled; observed (day, 4) in
    Mg C ha-1 day-1; mask (day,) for all fluxes or (day, 4); sd (day,) error of NEP or None; start 'YYYY-MM-DD' of the
    first day or None; er (day,) observed ecosystem respiration, NaN where unknown, or None for GPP - NEP.
    """
    dynamic, future = np.asarray(dynamic, dtype=np.float32), np.asarray(future, dtype=np.float32)
    observed = np.asarray(observed, dtype=np.float64)
    days = len(future)
    if observed.shape != (days, len(TARGETS)):
        raise UserError(f"y_obs is {observed.shape}, expected {(days, len(TARGETS))} for a window of {days} days")
    mask = np.asarray(mask)
    if mask.shape not in ((days,), observed.shape):
        raise UserError(f"obs_mask is {mask.shape}, expected {(days,)} or {observed.shape}")
    mask = np.broadcast_to((mask if mask.ndim == 2 else mask[:, None]) > 0.5, observed.shape) & np.isfinite(observed)
    gpp, nep = TARGETS.index("gpp"), TARGETS.index("nep")
    if er is None:
        er, er_mask = er_from_gpp_nep(observed[:, gpp], observed[:, nep]), mask[:, gpp] & mask[:, nep]
    else:
        er = np.asarray(er, dtype=np.float64)
        er_mask = np.isfinite(er)
    all_sd = np.full((days, len(OBSERVABLE)), np.nan)
    if sd is not None:
        # A window file gives the error of NEP only: no tower product has one for the other fluxes.
        sd = np.asarray(sd, dtype=np.float64)
        all_sd[:, nep] = np.where(sd > 0, sd, np.nan)
    dates = None if start is None else np.datetime64(str(start), "D") + DAY * np.arange(days)
    return Stretch(
        np.concatenate([dynamic, future]), len(dynamic), np.column_stack([observed, er]),
        np.column_stack([mask, er_mask]), all_sd, dates,
    )  # fmt: skip


def stretches_from_windows(windows: Windows) -> list[Stretch]:
    """The windows as merged stretches (see merge_stretches)."""
    single = [
        stretch_from_arrays(
            windows.context_x[i], windows.future_known[i], windows.y_obs[i], windows.y_mask[i],
            None if windows.obs_sd is None else windows.obs_sd[i], windows.window_start[i],
            None if windows.er_obs is None else windows.er_obs[i],
        )
        for i in range(len(windows))
    ]  # fmt: skip
    return merge_stretches(single)


def merge_stretches(stretches: Sequence[Stretch]) -> list[Stretch]:
    """Merge dated stretches whose weather is consecutive and agrees; a day covered twice counts once.

    Stretches without dates are returned as they are. Values of a day that disagree between windows are averaged, with
    a warning.
    """
    if any(stretch.dates is None for stretch in stretches):
        return list(stretches)
    merged: list[Stretch] = []
    for stretch in sorted(stretches, key=lambda item: item.dates[0]):
        if merged and _continues(merged[-1], stretch):
            merged[-1] = _join(merged[-1], stretch)
        else:
            merged.append(stretch)
    return _count_days_once(merged)


def _continues(first: Stretch, second: Stretch) -> bool:
    """Whether `second` starts (context included) no later than the day after `first` and shares its weather."""
    a, b = first.all_dates, second.all_dates
    if b[0] > a[-1] + DAY or b[0] < a[0]:
        return False
    shift = int((b[0] - a[0]) / DAY)
    overlap = min(len(a) - shift, len(b))
    difference = first.dynamic[shift : shift + overlap] - second.dynamic[:overlap]
    return bool(np.all(np.abs(difference) < WEATHER_TOLERANCE)) if overlap else True


def _join(first: Stretch, second: Stretch) -> Stretch:
    a, b = first.all_dates, second.all_dates
    shift = int((b[0] - a[0]) / DAY)
    dynamic = np.concatenate([first.dynamic, second.dynamic[max(0, len(a) - shift) :]])
    days = len(dynamic) - first.context
    shape = (2, days, len(OBSERVABLE))
    observed, sd, mask = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    for k, (part, at) in enumerate(((first, 0), (second, shift + second.context - first.context))):
        observed[k, at : at + part.days], sd[k, at : at + part.days] = part.observed, part.sd
        mask[k, at : at + part.days] = part.mask
    both = mask[0] & mask[1]
    if np.any(np.abs(observed[0] - observed[1])[both] > 1e-6):
        day = first.dates[0] + DAY * int(np.argwhere(both & (np.abs(observed[0] - observed[1]) > 1e-6))[0, 0])
        warn(f"windows give different observations of one day (first on {day}); their mean is used")
    # Masked days keep their value (figures show them), valid ones win over masked ones.
    mean = np.where(both, 0.5 * (np.nan_to_num(observed[0]) + np.nan_to_num(observed[1])), np.nan)
    value = np.where(both, mean, np.where(mask[1] | np.isnan(observed[0]), observed[1], observed[0]))
    error = np.where(mask[0] | np.isnan(sd[1]), sd[0], sd[1])
    dates = first.dates[0] + DAY * np.arange(days)
    return Stretch(dynamic, first.context, value, mask.any(axis=0), error, dates)


def _count_days_once(stretches: list[Stretch]) -> list[Stretch]:
    """Mask the days of later stretches that an earlier one has observed already (weather disagreed, no merge)."""
    seen: dict[np.datetime64, np.ndarray] = {}
    result = []
    for stretch in stretches:
        mask = stretch.mask.copy()
        for i in np.flatnonzero(mask.any(axis=1)):
            earlier = seen.get(stretch.dates[i], np.zeros(len(OBSERVABLE), dtype=bool))
            mask[i] &= ~earlier
            seen[stretch.dates[i]] = earlier | mask[i]
        result.append(replace(stretch, mask=mask))
    return result


def keep_days(stretches: Sequence[Stretch], keep) -> list[Stretch]:
    """The stretches with the mask kept only where keep(dates (day,)) is True; undated ones unchanged."""
    result = []
    for stretch in stretches:
        if stretch.dates is not None:
            stretch = replace(stretch, mask=stretch.mask & np.asarray(keep(stretch.dates))[:, None])
        result.append(stretch)
    return result


def observation_vector(stretches: Sequence[Stretch], targets: Sequence[str]) -> Observations:
    """All valid observations of `targets` as one vector. UserError when a target has no valid day."""
    value, sd, index, day, which, date = [], [], [], [], [], []
    for t, target in enumerate(targets):
        column = OBSERVABLE.index(target)
        count = 0
        for s, stretch in enumerate(stretches):
            valid = np.flatnonzero(stretch.mask[:, column])
            count += len(valid)
            value.append(stretch.observed[valid, column])
            sd.append(stretch.sd[valid, column])
            index.append(np.full(len(valid), s))
            day.append(valid)
            which.append(np.full(len(valid), t))
            nat = np.full(len(valid), np.datetime64("NaT", "D"), dtype="datetime64[D]")
            date.append(nat if stretch.dates is None else stretch.dates[valid])
        if not count:
            raise UserError(
                f"no valid observation of {target} in the chosen windows (its mask removes every day); choose other "
                f"windows or dates{', or leave ' + target + ' out of the targets' if len(targets) > 1 else ''}"
            )
    return Observations(
        np.concatenate(value), np.concatenate(sd), np.concatenate(index), np.concatenate(day), np.concatenate(which),
        np.concatenate(date), tuple(targets),
    )  # fmt: skip
