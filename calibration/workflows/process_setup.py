"""What an inversion needs to know beside the model that it inverts, where there is no emulator to ask."""

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

from calibration.common.command_line import ARCHIVE_ERRORS, UserError, existing_file, read_arrays
from calibration.common.configuration import Configuration, load_configuration
from calibration.common.parameters import DEFAULT_RANGES, ParameterSpace, make_space, read_ranges
from calibration.common.scalers import Scaler
from calibration.common.units import DYNAMIC_FEATURES, TARGETS
from calibration.emulator.trained import space_entries
from calibration.ensembles.files import read_log
from calibration.ensembles.labels import read_labelled_summary
from calibration.inversion.config import EMULATOR_RANGES, InversionConfig, resolve_bounds_file
from calibration.inversion.data import Stretch, day_index, keep_days, stretch_from_arrays
from calibration.tower.observation_csv import ER_COLUMN, GPP_COLUMN, NEP_SD_COLUMN, read_observations
from calibration.weather.daily import Weather


@dataclass(frozen=True)
class ProcessSetup:
    """Parameters, ranges and scaling of an inversion of the process model; read like an emulator.trained.Emulator."""

    directory: Path  # file or folder that the parameters come from
    configuration: Configuration
    space: ParameterSpace
    dynamic_scaler: Scaler
    training_parameters: np.ndarray  # (1, P) physical: the prior where no ensemble gives one
    errors: None = None
    labels: None = None
    shown: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """In the order of the ranges."""
        return self.space.names

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Weather and CO2 in the order of windows."""
        return self.dynamic_scaler.names

    def check_ranges(self, parameters: np.ndarray) -> None:
        """Nothing was trained, so that nothing is extrapolated."""


def process_setup(
    config: InversionConfig, config_path: str | Path, data_dir: str | Path | None, windows: str | Path | None
) -> ProcessSetup:
    """Parameters and ranges of an ensemble (data_dir), of the configuration's bounds_file, or of range_of_paras.csv.

    windows: a window file, whose own scaler is taken; None: weather in physical units.
    """
    configuration = load_configuration()
    if data_dir is not None:
        source = Path(data_dir)
        _, names, values = read_labelled_summary(source, configuration.data)
        space = make_space([tuple(e) for e in space_entries(names, values, read_log(source))], source)
    else:
        bounds = resolve_bounds_file(config, config_path)
        source = DEFAULT_RANGES if bounds in (None, EMULATOR_RANGES) else Path(bounds)
        space = read_ranges(source)
    middle = space.unit_to_physical(np.full((1, len(space)), 0.5))
    scaler = Scaler(DYNAMIC_FEATURES, np.zeros(len(DYNAMIC_FEATURES)), np.ones(len(DYNAMIC_FEATURES)))
    return ProcessSetup(source, configuration, space, scaler if windows is None else window_scaler(windows), middle)


def window_scaler(path: str | Path) -> Scaler:
    """The scaler that a window file was made with. UserError where the file does not hold it."""
    path = existing_file(path, "make it with build_observation_windows.py, or give --obs NEP.csv and --weather W.csv")
    try:
        found = read_arrays(path, ("feature_names", "scaler_mean", "scaler_scale"))
    except ARCHIVE_ERRORS:
        raise UserError(
            f"{path}: does not say which scaler it was made with, so that its weather cannot be read without its "
            "emulator; give --artifacts-dir, or --obs NEP.csv and --weather W.csv in its place"
        ) from None
    names = tuple(str(name) for name in np.atleast_1d(found["feature_names"]))
    return Scaler(names, np.float64(found["scaler_mean"]), np.float64(found["scaler_scale"]))


def observed_stretches(
    weather: Weather,
    path: str | Path,
    scaler: Scaler,
    context: int = 0,
    first: date | None = None,
    last: date | None = None,
    holdout: tuple[date, date] | None = None,
) -> tuple[list[Stretch], list[Stretch]]:
    """The days of an observation CSV from `first` to `last` (inclusive) as one stretch, and that of the held-out days.

    weather: physical, over all these days and `context` days before. UserError where it does not cover them.
    """
    table = read_observations(path)
    dates = table["date"].to_numpy().astype("datetime64[D]")
    good = table["obs_mask"].to_numpy(dtype=bool)
    if not good.any():
        raise UserError(f"{path}: no valid observation (obs_mask is 0 on all {len(good)} days)")
    low = np.datetime64(first) if first is not None else dates[good][0]
    high = np.datetime64(last) if last is not None else dates[good][-1]
    if holdout is not None:
        low_all, high_all = min(low, np.datetime64(holdout[0])), max(high, np.datetime64(holdout[1]))
    else:
        low_all, high_all = low, high
    if low > high:
        raise UserError(f"{path}: the first day {low} lies after the last day {high}; its valid days are "
                        f"{dates[good][0]} to {dates[good][-1]}")  # fmt: skip
    begin, end = day_index(np.array([low_all, high_all]), weather.dates[0])
    if begin < context or end >= len(weather):
        raise UserError(
            f"{path}: the days {low_all} to {high_all} are not covered by {weather.source}, which holds "
            f"{weather.dates[0]} to {weather.dates[-1]}{f' ({context} days of them before the first)' * (context > 0)};"
            " give longer weather, or fewer days with --obs-range-start and --obs-range-end"
        )
    days = end - begin + 1
    at = day_index(dates, low_all)
    inside = (at >= 0) & (at < days)

    def on_days(name: str) -> np.ndarray:
        """A column of the table on the days of the stretch (day,), NaN where it has none."""
        values = np.full(days, np.nan)
        if name in table:
            values[at[inside]] = table[name].to_numpy(dtype=float)[inside]
        return values

    valid = np.zeros(days, dtype=bool)
    valid[at[inside]] = good[inside]
    observed = np.full((days, len(TARGETS)), np.nan)
    observed[:, TARGETS.index("nep")] = on_days("nep_mg_ha")
    observed[:, TARGETS.index("gpp")] = np.where(valid, on_days(GPP_COLUMN), np.nan)
    order = [DYNAMIC_FEATURES.index(name) for name in scaler.names]
    scaled = scaler.transform(weather.values[begin - context : end + 1][:, order])
    stretch = stretch_from_arrays(
        scaled[:context], scaled[context:], observed, valid[:, None] & np.isfinite(observed), on_days(NEP_SD_COLUMN),
        str(low_all), np.where(valid, on_days(ER_COLUMN), np.nan) if ER_COLUMN in table else None,
    )  # fmt: skip
    held = []
    if holdout is not None:
        away = (np.datetime64(holdout[0]), np.datetime64(holdout[1]))
        held = keep_days([stretch], lambda day: (day >= away[0]) & (day <= away[1]))
        stretch = keep_days([stretch], lambda day: (day < away[0]) | (day > away[1]))[0]
    return keep_days([stretch], lambda day: (day >= low) & (day <= high)), held
