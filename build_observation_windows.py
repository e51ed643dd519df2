"""Weather and observed NEP -> windows (.npz) for the inversion, scaled with the emulator's own scaler.

    python build_observation_windows.py --daily data/weather.csv --obs observations/nep_obs.csv \\
        --start 2012-01-01 --end 2016-12-31 --output observations/obs_windows.npz

The weather may be a VISIT daily file, a weather CSV or VISIT's forcing text. Windows start every day (--stride 1) or
lie end to end (--stride 30). Every target day lies between --start and --end; the context before may reach back
further. A window needs --min-valid valid days and no gap above --max-gap.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from calibration.common.command_line import REPOSITORY, UserError, iso_date, make_parser, read_json, run, warn
from calibration.common.sites import DEFAULT_SITE, load_site
from calibration.common.units import DYNAMIC_FEATURES, FLUX_UNIT, TARGETS, UNITS
from calibration.tower.observation_csv import ER_COLUMN, GPP_COLUMN, NEP_SD_COLUMN, read_observations
from calibration.tower.summary import longest_gap
from calibration.tower.windows import Windows
from calibration.weather.daily import Weather, read_weather

DAY = np.timedelta64(1, "D")
# Without the training weather's own range, more than this many scales from its mean counts as outside.
OUTSIDE_SCALES = 5.0


def build_windows(
    weather: Weather,
    observed: pd.DataFrame,
    scaler,
    start=None,
    end=None,
    context: int = 180,
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
    starts = np.arange(first, last + DAY, stride)
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


def main() -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add(
        "--daily",
        default=str(REPOSITORY / "data" / "weather.csv"),
        help="weather: VISIT daily file, weather CSV, or VISIT's 19-column forcing text; VISIT's units",
    )
    add("--obs", default=str(REPOSITORY / "observations" / "nep_obs.csv"), help="CSV of prepare_observation_nep.py")
    add("--artifacts-dir", default=str(REPOSITORY / "artifacts"), help="the trained emulator (its scaler, its ranges)")
    add(
        "--scaler", default=None, help="scaler .json or .pkl; default: scaler_dynamic of --artifacts-dir, else of data/"
    )
    add("--start", type=iso_date, default=None, help="first target day, YYYY-MM-DD; default: the first observed one")
    add("--end", type=iso_date, default=None, help="last target day, included; default: the last observed one")
    add("--context-len", type=int, default=180, help="days of weather before each window")
    add("--prediction-len", type=int, default=30, help="days of each window")
    add("--min-valid", type=float, default=1, help="valid NEP days a window needs; below 1: share of its days")
    add("--max-gap", type=int, default=None, help="longest run of days without valid NEP in a window; default: any")
    add("--stride", type=int, default=1, help="days between window starts: 1 every day, 30 tiles without overlap")
    add("--first-day", type=int, choices=(0, 1), default=None, help="forcing text only: number of its 1 January")
    add("--site", default=str(DEFAULT_SITE), help="site YAML (latitude for CO2, where the weather has no a_co2)")
    add("--output", default=str(REPOSITORY / "observations" / "obs_windows.npz"), help=".npz to write")
    arguments = parser.parse_args()
    min_valid = check_lengths(arguments)
    from calibration.common.scalers import (
        load_scaler,  # torch and scikit-learn take seconds to import: --help need not wait
    )

    artifacts = Path(arguments.artifacts_dir)
    scaler_path = Path(arguments.scaler) if arguments.scaler else default_scaler(artifacts)
    scaler = load_scaler(scaler_path, names=DYNAMIC_FEATURES)
    unknown = [name for name in scaler.names if name not in DYNAMIC_FEATURES]
    if unknown:
        raise UserError(
            f"{scaler_path}: scales {unknown[0]}, which is no weather variable "
            f"({', '.join(DYNAMIC_FEATURES)}); give the emulator's scaler_dynamic"
        )
    weather = read_weather(arguments.daily, load_site(arguments.site), arguments.first_day)
    observed = read_observations(arguments.obs)
    if not observed["obs_mask"].any():
        raise UserError(
            f"{arguments.obs}: no valid observation (obs_mask is 0 on all {len(observed)} days); "
            "relax --qc-threshold of prepare_observation_nep.py"
        )
    start, end = arguments.start or observed["date"].iloc[0], arguments.end or observed["date"].iloc[-1]
    windows = build_windows(
        weather, observed, scaler, pd.Timestamp(start).date(), pd.Timestamp(end).date(), arguments.context_len,
        arguments.prediction_len, arguments.stride, min_valid, arguments.max_gap, arguments.obs,
    )  # fmt: skip
    used = (weather.dates >= windows.window_start[0] - DAY * windows.context) & (weather.dates <= windows.dates[-1, -1])
    # a scaler that lies in an emulator's folder belongs to that emulator, and so do the ranges to compare with
    emulator = scaler_path.parent if (scaler_path.parent / "config.json").is_file() else artifacts
    low, high, meaning = trained_range(emulator, scaler)
    for name, count in outside_training(weather, used, scaler.names, low, high).items():
        values = weather.column(name)[used]
        at = scaler.names.index(name)
        warn(
            f"{name}: {count} of {used.sum()} days ({values.min():.5g} to {values.max():.5g} {UNITS[name]}) lie "
            f"outside {meaning} ({low[at]:.5g} to {high[at]:.5g}): the emulator extrapolates there"
        )
    windows.save(arguments.output)
    report(arguments, windows, start)


def default_scaler(artifacts: Path) -> Path:
    """The emulator's own scaler, or the one in data/ where no emulator is trained yet."""
    path, other = artifacts / "scaler_dynamic.json", REPOSITORY / "data" / "scaler_dynamic.json"
    found = any(path.with_suffix(suffix).is_file() for suffix in (".json", ".pkl"))
    return path if found or not any(other.with_suffix(suffix).is_file() for suffix in (".json", ".pkl")) else other


def check_lengths(arguments) -> int:
    """UserError on a length that makes no window; returns --min-valid in days."""
    for flag, least in (("context_len", 1), ("prediction_len", 1), ("stride", 1), ("min_valid", 0)):
        if not getattr(arguments, flag) >= least:
            raise UserError(f"--{flag.replace('_', '-')} is {getattr(arguments, flag):g}, allowed is {least} or more")
    if arguments.max_gap is not None and arguments.max_gap < 0:
        raise UserError(f"--max-gap is {arguments.max_gap}, allowed is 0 or more")
    share = 0 < arguments.min_valid < 1
    days = int(np.ceil(arguments.min_valid * arguments.prediction_len)) if share else arguments.min_valid
    if days > arguments.prediction_len:
        raise UserError(
            f"--min-valid {days:g} is more than the {arguments.prediction_len} days of a window; "
            "lower it or raise --prediction-len"
        )
    if days != int(days):
        raise UserError(f"--min-valid is {days:g}, allowed are whole days, or a share of the window below 1")
    return int(days)


def report(arguments, windows: Windows, start) -> None:
    """Print what was made: windows, observed days, and fluxes beside NEP."""
    days = np.unique(windows.dates[windows.obs_mask])
    print(f"wrote {arguments.output}: {len(windows)} windows of {windows.horizon} days after {windows.context} days of "
          f"context, starting {windows.window_start[0]} to {windows.window_start[-1]}")  # fmt: skip
    if windows.window_start[0] > np.datetime64(pd.Timestamp(start).date()):
        print(f"  the first window starts after {pd.Timestamp(start).date()}: context or valid days are lacking before")
    nep = windows.nep()[windows.obs_mask]
    if len(days):
        print(
            f"  {len(days)} valid NEP days, {days[0]} to {days[-1]}; mean {nep.mean():.4f}, sd {nep.std():.4f} "
            f"{FLUX_UNIT} over all windows"
        )
    extra = [name for name, has in (
        ("GPP", windows.y_mask[:, :, windows.target_names.index("gpp")].any()),
        ("ER", windows.er_obs is not None), ("error of NEP", windows.obs_sd is not None),
    ) if has]  # fmt: skip
    if extra:
        print(f"  also carried: {', '.join(extra)}")


if __name__ == "__main__":
    run(main)
