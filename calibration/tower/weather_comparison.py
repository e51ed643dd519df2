"""Tower weather against ERA5: bias and correlation by month, and ERA5 adjusted to the tower."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError, warn
from calibration.common.units import METEOROLOGY, POSSIBLE, SECONDS_PER_DAY, UNITS
from calibration.tower.meteorology import ERA5, NONE, Meteorology
from calibration.weather.daily import Weather
from calibration.weather.sentinel import LARGEST_RATIO, disagreement

ADDITIVE = ("tmp_sfc", "tmp_2m", "tmp10_soil", "tmp200_soil", "tcdc_clm")
FEWEST_DAYS = 20  # common days (of a month, for monthly) below which nothing is adjusted
RAIN = "prate_sfc"


def compare(met: Meteorology, era5: Weather) -> pd.DataFrame:
    """One row by variable and month (1-12 and 'all'), over days that both have.

    Columns: variable, unit, month, days, mean_tower, mean_era5, bias (tower - ERA5), correlation, rmse. Rain is shown
    in mm day-1, everything else in VISIT's units. Variables that the tower lacks are left out.
    """
    index = (met.dates - era5.dates[0]).astype(int)
    inside = (index >= 0) & (index < len(era5))
    months = met.dates[inside].astype("datetime64[M]").astype(int) % 12 + 1
    rows = []
    for column, name in enumerate(METEOROLOGY):
        factor, unit = (SECONDS_PER_DAY, "mm day-1") if name == RAIN else (1.0, UNITS[name])
        tower = met.values[inside, column] * factor
        other = era5.values[index[inside], column] * factor
        if np.isnan(tower).all():
            continue
        for month in [*range(1, 13), "all"]:
            both = ~np.isnan(tower) & ((months == month) if month != "all" else True)
            rows.append({"variable": name, "unit": unit, "month": str(month), **_statistics(tower[both], other[both])})
    return pd.DataFrame(rows)


def _statistics(tower: np.ndarray, other: np.ndarray) -> dict[str, float]:
    if not len(tower):
        return {"days": 0, **dict.fromkeys(("mean_tower", "mean_era5", "bias", "correlation", "rmse"), np.nan)}
    spread = len(tower) > 2 and tower.std() > 0 and other.std() > 0
    return {
        "days": len(tower), "mean_tower": tower.mean(), "mean_era5": other.mean(), "bias": (tower - other).mean(),
        "correlation": np.corrcoef(tower, other)[0, 1] if spread else np.nan,
        "rmse": np.sqrt(np.mean((tower - other) ** 2)),
    }  # fmt: skip


def era5_adjustment(tower: np.ndarray, era5: np.ndarray, dates: np.ndarray, how: str) -> np.ndarray:
    """ERA5 moved to the tower's mean on common days, (day, 9) in VISIT's units.

    tower: (day, 9), NaN where it has none; era5: (day, 9); how: 'none', 'mean' (one number a variable) or 'monthly'
    (one a calendar month). Temperatures and cloud by difference, the others by ratio, within limits. A variable
    or month with fewer than 20 common days, or a ratio beyond 3, stays as it is.
    """
    adjusted = np.array(era5, dtype=float)
    if how == "none":
        return adjusted
    months = dates.astype("datetime64[M]").astype(int) % 12
    groups = [months == month for month in range(12)] if how == "monthly" else [np.ones(len(dates), dtype=bool)]
    for column, name in enumerate(METEOROLOGY):
        low, high = POSSIBLE[name]
        for days in groups:
            both = days & ~np.isnan(tower[:, column])
            if both.sum() < FEWEST_DAYS:
                continue
            own, other = tower[both, column].mean(), era5[both, column].mean()
            if name in ADDITIVE:
                adjusted[days, column] = era5[days, column] + (own - other)
            elif other > 0 and 1 / LARGEST_RATIO < own / other < LARGEST_RATIO:
                adjusted[days, column] = era5[days, column] * (own / other)
        adjusted[:, column] = np.clip(adjusted[:, column], low, high)
    return adjusted


def check_agreement(tower: np.ndarray, era5: Weather, trusted: Sequence[str] = (), refuse: bool = True) -> None:
    """UserError (refuse=False: a warning) where ERA5 differs from the tower as another unit would make it.

    tower: (day, 9) on ERA5's days, NaN where it has none; trusted: variables of which the user says that ERA5 is right.
    """
    for column, name in enumerate(METEOROLOGY):
        found = disagreement(name, tower[:, column], era5.values[:, column])
        if found is None:
            continue
        words, certain = found
        message = f"{era5.source}: {name} {words} at the tower on common days"
        if refuse and certain and name not in trusted:
            raise UserError(
                f"{message}; bring it to {UNITS[name]}, or say with --trust-era5 {name} that the difference is real"
            )
        warn(message)


def warn_of_disagreement(met: Meteorology, era5: Weather) -> None:
    """Warn where ERA5 and the tower differ as in another unit, for a comparison that fills nothing."""
    index = (met.dates - era5.dates[0]).astype(int)
    inside = (index >= 0) & (index < len(era5))
    tower = np.full((len(era5), len(METEOROLOGY)), np.nan)
    tower[index[inside]] = met.values[inside]
    check_agreement(tower, era5, refuse=False)


def fill_with_era5(met: Meteorology, era5: Weather, adjust: str, trusted: Sequence[str] = ()) -> Meteorology:
    """The ERA5 file's days with the tower's values where it has some and adjusted ERA5 elsewhere.

    adjust: 'none', 'mean' or 'monthly' (era5_adjustment); trusted: see check_agreement. Tower days outside
    ERA5 are dropped with a warning: soil temperatures are known from ERA5 only. UserError when the two have no day in
    common, or when ERA5 is in another unit.
    """
    index = (met.dates - era5.dates[0]).astype(int)
    inside = (index >= 0) & (index < len(era5))
    if not inside.any():
        raise UserError(
            f"{era5.source}: holds {era5.dates[0]} to {era5.dates[-1]}, the tower {met.dates[0]} to {met.dates[-1]}: "
            "no day in common; give ERA5 of the tower's years"
        )
    if not inside.all():
        warn(f"{int((~inside).sum())} tower days lie outside {era5.source} and are left out")
    tower = np.full((len(era5), len(METEOROLOGY)), np.nan)
    source = np.full(tower.shape, NONE, dtype=met.source.dtype)
    tower[index[inside]], source[index[inside]] = met.values[inside], met.source[inside]
    check_agreement(tower, era5, trusted)
    filling = era5_adjustment(tower, era5.values[:, : len(METEOROLOGY)], era5.dates, adjust)
    gap = np.isnan(tower)
    return Meteorology(era5.dates, np.where(gap, filling, tower), np.where(gap, ERA5, source), met.notes)
