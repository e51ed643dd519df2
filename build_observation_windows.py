"""Weather and observed NEP -> windows (.npz) for the inversion, scaled with the emulator's own scaler.

    python build_observation_windows.py --daily data/weather.csv --obs observations/nep_obs.csv \\
        --start 2012-01-01 --end 2016-12-31 --output observations/obs_windows.npz

The weather may be a VISIT daily file, a weather CSV or VISIT's forcing text. Windows start every day (--stride 1) or
lie end to end (--stride 30). Every target day lies between --start and --end; the context before may reach back
further. A window needs --min-valid valid days and no gap above --max-gap.
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import (
    REPOSITORY,
    UserError,
    iso_date,
    make_parser,
    run,
    warn,
    write_csv,
    write_json,
)
from calibration.common.provenance import write_record
from calibration.common.reproduction import add_reproduce
from calibration.common.sites import load_site
from calibration.common.units import CONTEXT_DAYS, DYNAMIC_FEATURES, FLUX_UNIT
from calibration.tower.observation_csv import read_observations
from calibration.tower.window_building import (
    ABOUT_CO2,
    CO2,
    build_windows,
    trained_range,
    valid_by_month,
    weather_used,
)
from calibration.tower.windows import DAY, Windows
from calibration.weather.daily import read_weather


def main() -> None:
    begin = time.perf_counter()
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
    add("--context-len", type=int, default=CONTEXT_DAYS, help="days of weather before each window")
    add("--prediction-len", type=int, default=30, help="days of each window")
    add("--min-valid", type=float, default=1, help="valid NEP days a window needs; below 1: share of its days")
    add("--max-gap", type=int, default=None, help="longest run of days without valid NEP in a window; default: any")
    add("--stride", type=int, default=1, help="days between window starts: 1 every day, 30 tiles without overlap")
    add("--first-day", type=int, choices=(0, 1), default=None, help="forcing text only: number of its 1 January")
    add("--site", help="site YAML: latitude for CO2, where the weather has no a_co2 (default: LHP's, which is said)")
    add("--output", default=str(REPOSITORY / "observations" / "obs_windows.npz"), help=".npz to write")
    add("--report", action="store_true", help="also write report.html on the output's folder (make_report.py)")
    add_reproduce(parser, "--output")
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
    site = load_site(arguments.site) if arguments.site else None
    weather = read_weather(arguments.daily, site, arguments.first_day)
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
    seen = weather_used(weather, used, scaler.names, low, high)
    for row in seen[seen["days_outside"] > 0].itertuples():
        warn(
            f"{row.variable}: {row.days_outside} of {row.days} days ({row.lowest:.5g} to {row.highest:.5g} {row.unit}) "
            f"lie outside {meaning} ({row.trained_low:.5g} to {row.trained_high:.5g})"
            + (f". {ABOUT_CO2}" if row.variable == CO2 else ": the emulator extrapolates there")
        )
    windows.save(arguments.output)
    leave_summary(arguments, windows, seen, meaning, scaler_path)
    say(arguments, windows, start, observed)
    output = Path(arguments.output)
    write_record(output.parent, begin, {
        "weather": arguments.daily, "observations": arguments.obs, "scaler": scaler_path, "emulator": emulator,
        "site": arguments.site,
    }, output.name)  # fmt: skip
    if arguments.report:
        from calibration.reports.kinds import report_on  # slow to import: loaded only where it is needed

        print(f"report: {report_on(Path(arguments.output).parent)}")


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


def leave_summary(arguments, windows: Windows, seen: pd.DataFrame, meaning: str, scaler: Path) -> None:
    """Beside the windows, for the report: choices and counts, valid days by month, the weather that they use."""
    output = Path(arguments.output)
    days = np.unique(windows.dates[windows.obs_mask])
    write_csv(output.with_name(f"{output.stem}_observed.csv"), valid_by_month(windows), float_format="%.6g")
    write_csv(output.with_name(f"{output.stem}_weather.csv"), seen, float_format="%.6g")
    write_json(output.with_name(f"{output.stem}_facts.json"), {
        "input": arguments.daily, "observations": arguments.obs, "scaler": str(scaler), "windows": len(windows),
        "context_days": windows.context, "window_days": windows.horizon, "stride": arguments.stride,
        "min_valid": arguments.min_valid, "max_gap": arguments.max_gap, "first_start": str(windows.window_start[0]),
        "last_start": str(windows.window_start[-1]), "observed_days": len(days),
        "first_observed": str(days[0]) if len(days) else None, "last_observed": str(days[-1]) if len(days) else None,
        "carried": carried(windows), "trained_range": meaning,
    })  # fmt: skip


def carried(windows: Windows) -> list[str]:
    """What is observed beside NEP."""
    return [name for name, has in (
        ("GPP", windows.y_mask[:, :, windows.target_names.index("gpp")].any()),
        ("ER", windows.er_obs is not None), ("error of NEP", windows.obs_sd is not None),
    ) if has]  # fmt: skip


def say(arguments, windows: Windows, start, observed: pd.DataFrame) -> None:
    """Print what was made: windows, observed days, and fluxes beside NEP."""
    days = np.unique(windows.dates[windows.obs_mask])
    print(f"wrote {arguments.output}: {len(windows)} windows of {windows.horizon} days after {windows.context} days of "
          f"context, starting {windows.window_start[0]} to {windows.window_start[-1]}")  # fmt: skip
    if windows.window_start[0] > np.datetime64(pd.Timestamp(start).date()):
        print(f"  the first window starts after {pd.Timestamp(start).date()}: context or valid days are lacking before")
    covered, valid = (np.unique(array.astype("datetime64[Y]").astype(str)) for array in (windows.dates, days))
    observed_years = sorted({str(day)[:4] for day in observed["date"].astype(str)})
    left_out = [year for year in observed_years if year not in covered]
    if left_out:
        print(f"  no window in {', '.join(left_out)}: too few valid days, or no weather or context there")
    empty = [year for year in covered if year not in valid]
    if empty:
        print(f"  no valid day in {', '.join(empty)}")
    nep = windows.nep()[windows.obs_mask]
    if len(days):
        print(
            f"  {len(days)} valid NEP days, {days[0]} to {days[-1]}; mean {nep.mean():.4f}, sd {nep.std():.4f} "
            f"{FLUX_UNIT} over all windows"
        )
    extra = carried(windows)
    if extra:
        print(f"  also carried: {', '.join(extra)}")


if __name__ == "__main__":
    run(main)
