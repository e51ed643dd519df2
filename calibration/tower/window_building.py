"""Weather and observed NEP -> windows for the inversion, and how far their weather leaves what an emulator has seen."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from calibration.common.command_line import UserError, read_json
from calibration.common.units import CONTEXT_DAYS, DYNAMIC_FEATURES, TARGETS, UNITS
from calibration.tower.observation_csv import ER_COLUMN, GPP_COLUMN, NEP_SD_COLUMN, longest_gap
from calibration.tower.windows import Windows
from calibration.weather.daily import Weather

DAY = np.timedelta64(1, "D")
# Without the training weather's own range, more than this many scales from its mean counts as outside.
OUTSIDE_SCALES = 5.0
CO2 = "a_co2"
ABOUT_CO2 = (
    "CO2 rises, so a year after the training lies above its range. With a first guess, as by default, CO2 acts through "
    "VISIT's closed forms, which hold there too; a network without it extrapolates."
)


def build_windows(
    weather: Weather,
    observed: pd.DataFrame,
    scaler,
    start=None,
    end=None,
    context: int = CONTEXT_DAYS,
    horizon: int = 30,
    stride: int = 1,
    min_valid: int = 1,
    max_gap: int | None = None,
    source: str = "the observations",
) -> Windows:
    """Windows whose target days all lie in start..end and whose context the weather covers.

    observed: from read_observations (days that it lacks are masked); scaler: .names (emulator's features), .mean,
    .scale; stride: days between starts (1: daily, horizon: tiling); min_valid: valid NEP days a window needs;
    max_gap: longest run of days without a valid one that a window may hold (None: any); source: the observations' file,
    for messages. UserError when none is left.
    """
    missing = [name for name in scaler.names if name not in DYNAMIC_FEATURES]
    if missing:
        raise UserError(
            f"the scaler's feature {', '.join(missing)} is none of the weather's {', '.join(DYNAMIC_FEATURES)}"
        )
    days = len(weather)
    if days < context + horizon:
        raise UserError(
            f"{weather.source}: {days} days, but one window needs {context} of context and {horizon} of horizon; "
            "give a longer weather file or a shorter --context-len"
        )
    first = max(weather.dates[context], weather.dates[0] if start is None else np.datetime64(start, "D"))
    last = min(weather.dates[-1], weather.dates[-1] if end is None else np.datetime64(end, "D")) - DAY * (horizon - 1)
    if first > last:
        raise UserError(
            f"{weather.source}: no window of {horizon} days fits; with {context} days of context before and {horizon} "
            f"days of horizon the first day may be {weather.dates[context]} to {weather.dates[days - horizon]}, "
            f"asked for are days {start or weather.dates[0]} to {end or weather.dates[-1]}"
        )
    starts = np.arange(first, last + DAY, stride * DAY)
    by_day = {
        name: _on_days(observed, name, weather.dates) for name in ("nep_mg_ha", GPP_COLUMN, ER_COLUMN, NEP_SD_COLUMN)
    }
    nep = np.where(_on_days(observed, "obs_mask", weather.dates) == 1.0, by_day["nep_mg_ha"], np.nan)

    index = (starts - weather.dates[0]).astype(int)
    valid = sliding_window_view(~np.isnan(nep), horizon)[index]  # (start, horizon)
    keep = valid.sum(axis=1) >= min_valid
    if max_gap is not None:
        keep &= longest_gap(valid) <= max_gap
    if not keep.any():
        rule = f"at least {min_valid} valid days" + ("" if max_gap is None else f" and no gap above {max_gap} days")
        raise UserError(
            f"{source}: no window with {rule} among {len(starts)} starts from {starts[0]} to {starts[-1]} "
            f"(best has {int(valid.sum(axis=1).max())} valid days); lower --min-valid, or check the observations' dates"
        )
    starts, index, valid = starts[keep], index[keep], valid[keep]

    order = [DYNAMIC_FEATURES.index(name) for name in scaler.names]
    scaled = ((weather.values[:, order] - scaler.mean) / scaler.scale).astype(np.float32)
    stretches = sliding_window_view(scaled, context + horizon, axis=0)[index - context].transpose(0, 2, 1)

    y_obs = np.full((len(starts), horizon, len(TARGETS)), np.nan, dtype=np.float32)
    y_obs[:, :, TARGETS.index("nep")] = sliding_window_view(nep, horizon)[index]
    if GPP_COLUMN in observed:
        # GPP and ER have no quality flag of their own: they count where NEE is good, from which they are made.
        gpp = np.where(np.isnan(nep), np.nan, by_day[GPP_COLUMN])
        y_obs[:, :, TARGETS.index("gpp")] = sliding_window_view(gpp, horizon)[index]
    by_day[ER_COLUMN] = np.where(np.isnan(nep), np.nan, by_day[ER_COLUMN])
    optional = {
        field: sliding_window_view(by_day[name], horizon)[index].astype(np.float32) if name in observed else None
        for field, name in (("obs_sd", NEP_SD_COLUMN), ("er_obs", ER_COLUMN))
    }
    return Windows(
        np.ascontiguousarray(stretches[:, :context]), np.ascontiguousarray(stretches[:, context:]), y_obs, valid,
        ~np.isnan(y_obs), starts, tuple(scaler.names), TARGETS, np.asarray(scaler.mean), np.asarray(scaler.scale),
        **optional,
    )  # fmt: skip


def _on_days(observed: pd.DataFrame, name: str, dates: np.ndarray) -> np.ndarray:
    """A column of the observations on the weather's days, (day,) float64, NaN where there is none."""
    values = np.full(len(dates), np.nan)
    if name in observed:
        index = (observed["date"].to_numpy().astype("datetime64[D]") - dates[0]).astype(int)
        inside = (index >= 0) & (index < len(dates))
        values[index[inside]] = observed[name].to_numpy(dtype=float)[inside]
    return values


def outside_training(weather: Weather, days: np.ndarray, names, low: np.ndarray, high: np.ndarray) -> dict[str, int]:
    """Number of days whose weather lies outside low..high, by variable (only those with some).

    days: (day,) bool, the days that windows use; low, high: (feature,) in the physical units of `names`.
    """
    counts = {}
    for name, least, most in zip(names, low, high, strict=True):
        # The margin is a thousandth of the range: rounding in a file's digits is not extrapolation.
        margin = 1e-3 * (most - least)
        values = weather.column(name)[days]
        count = int(((values < least - margin) | (values > most + margin)).sum())
        if count:
            counts[name] = count
    return counts


def weather_used(weather: Weather, days: np.ndarray, names, low: np.ndarray, high: np.ndarray) -> pd.DataFrame:
    """variable, unit, lowest, highest, trained_low, trained_high (physical units), days, days_outside; a row a name.

    days: (day,) bool, the days that windows use; low, high: (feature,), see outside_training().
    """
    outside = outside_training(weather, days, names, low, high)
    rows = []
    for name, least, most in zip(names, low, high, strict=True):
        values = weather.column(name)[days]
        rows.append({
            "variable": name, "unit": UNITS[name], "lowest": values.min(), "highest": values.max(),
            "trained_low": least, "trained_high": most, "days": int(days.sum()), "days_outside": outside.get(name, 0),
        })  # fmt: skip
    return pd.DataFrame(rows)


def valid_by_month(windows: Windows) -> pd.DataFrame:
    """month, days, valid_days, mean_nep_mg_ha (Mg C ha-1 day-1), windows (that start in it); a day counts once."""
    table = pd.DataFrame({
        "date": windows.dates.ravel(), "valid": windows.obs_mask.ravel(), "nep": windows.nep().ravel().astype(float),
    }).drop_duplicates("date").sort_values("date")  # fmt: skip
    table["month"] = table["date"].to_numpy().astype("datetime64[M]").astype(str)
    table["nep"] = table["nep"].where(table["valid"])
    grouped = table.groupby("month")
    starts = pd.Series(windows.window_start.astype("datetime64[M]").astype(str)).value_counts()
    counts = pd.DataFrame({
        "days": grouped.size(), "valid_days": grouped["valid"].sum(), "mean_nep_mg_ha": grouped["nep"].mean(),
    })  # fmt: skip
    return counts.assign(windows=starts.reindex(counts.index, fill_value=0)).reset_index()


def trained_range(artifacts: Path, scaler) -> tuple[np.ndarray, np.ndarray, str]:
    """Low and high (feature,) of the weather that the emulator was trained on, in physical units, and in words.

    From `feature_ranges` {name: [low, high]} in the artifacts' config.json; without it, five scales around the mean.
    """
    path = artifacts / "config.json"
    ranges = read_json(path).get("feature_ranges") if path.is_file() else None
    if isinstance(ranges, dict) and set(scaler.names) <= set(ranges):
        low, high = np.array([ranges[name] for name in scaler.names], dtype=float).T
        return low, high, "the range of the weather that the emulator was trained on"
    low, high = scaler.mean - OUTSIDE_SCALES * scaler.scale, scaler.mean + OUTSIDE_SCALES * scaler.scale
    return low, high, f"{OUTSIDE_SCALES:g} standard deviations around the mean of the emulator's training weather"
