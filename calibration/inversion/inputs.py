"""Where an inversion's data come from: an ensemble run (simulation) or a window file (observation), and the prior."""

from datetime import date
from pathlib import Path

import numpy as np

from calibration.common.command_line import UserError, warn
from calibration.emulator.trained import Emulator
from calibration.ensembles.files import Ensemble
from calibration.ensembles.labels import load_labelled, read_labelled_summary
from calibration.inversion.data import DAY, Stretch, keep_days, stretch_from_arrays, stretches_from_windows
from calibration.tower.windows import Windows, load_windows
from dataset import day_slice, window_starts

# What is said where the observations are the process model's own fluxes; measured in docs/method.md.
TOO_NARROW = (
    "The observations carry no noise, and 90 percent intervals then hold only about 86 percent of the true values (30 "
    "days, 36 parameters): take them as too narrow"
)
WITHOUT_NOISE = (
    f"{TOO_NARROW}, or set error_model.observation_sd in the inversion's YAML to a tower's noise, such as 0.005 (they "
    "then hold 91 percent)."
)


def prior_parameters(
    emulator: Emulator, data_dir: str | Path | None, sample_id: int | None = None
) -> tuple[np.ndarray, str]:
    """The prior vector (parameter,) in the emulator's order, physical, and a word on where it comes from.

    Default: the mean of data_dir/parameter_summary.csv; without that file the mean of the training vectors, without
    a data_dir the middle of the ranges. With `sample_id` that run's parameters. UserError on an unknown sample or a
    parameter missing from the file.
    """
    if data_dir is None:
        if sample_id is not None:
            raise UserError("--obs-prior-sample is a run of an ensemble; give its folder with --data-dir")
        return emulator.space.unit_to_physical(np.full(len(emulator.space), 0.5)), "middle of the ranges"
    path = Path(data_dir) / "parameter_summary.csv"
    if not path.is_file():
        if sample_id is not None:
            raise UserError(f"{path}: no such file, so the prior cannot be sample {sample_id}; give --data-dir")
        return emulator.training_parameters.mean(axis=0), "mean of the emulator's training vectors"
    ids, names, values = read_labelled_summary(data_dir, emulator.configuration.data)
    values = in_order(emulator, names, values, path)
    if sample_id is None:
        return values.mean(axis=0), "mean of parameter_summary.csv"
    row = sample_row(ids, sample_id, path)
    return values[row], f"sample {sample_id} of parameter_summary.csv"


def sample_row(ids: np.ndarray, sample_id: int, path: Path) -> int:
    """Row of a sample id. UserError that says which exist."""
    rows = np.flatnonzero(ids == sample_id)
    if not len(rows):
        raise UserError(f"{path}: has no sample {sample_id}; it holds {len(ids)} samples, {ids.min()} to {ids.max()}")
    return int(rows[0])


def in_order(emulator: Emulator, names, values: np.ndarray, path: Path) -> np.ndarray:
    """Columns of values (run, parameter) in the emulator's order; UserError names a missing one."""
    missing = [name for name in emulator.parameter_names if name not in names]
    if missing:
        own = emulator.shown.get(missing[0])
        label = f" (in its label map: {own})" if own else ""
        raise UserError(
            f"{path}: has no column {missing[0]}, which the emulator in {emulator.directory} needs{label}; "
            "use the ensemble that it was trained on, or train again"
        )
    return values[:, [list(names).index(name) for name in emulator.parameter_names]]


def load_matching_ensemble(emulator: Emulator, data_dir: str | Path) -> Ensemble:
    """The ensemble with its columns in the emulator's order."""
    ensemble = load_labelled(data_dir, emulator.configuration.data)
    values = in_order(emulator, ensemble.parameter_names, ensemble.parameters, Path(data_dir) / "parameter_summary.csv")
    return Ensemble(
        ensemble.directory, ensemble.sample_ids, ensemble.dates, ensemble.dynamic, ensemble.fluxes, values,
        emulator.parameter_names,
    )  # fmt: skip


def simulation_window(
    emulator: Emulator, ensemble: Ensemble, sample_id: int, window_index: int
) -> tuple[Stretch, np.ndarray]:
    """One window of a run's fluxes and the run's true parameters (parameter,).

    Windows start on every day of the emulator's test period (0 = its first), as in evaluate_model.py; an ensemble
    without that period is used as a whole. UserError on an unknown sample or a window index out of range.
    """
    row = sample_row(ensemble.sample_ids, sample_id, ensemble.directory / "parameter_summary.csv")
    context, horizon = emulator.configuration.evaluation.context_days, emulator.configuration.evaluation.horizon_days
    period = day_slice(ensemble.dates, *test_period(emulator, ensemble))
    starts = window_starts(period, context, horizon)
    if not len(starts):
        raise UserError(
            f"{ensemble.directory}: {len(ensemble.dates)} days hold no window of {context} + {horizon} days; "
            "make a longer ensemble"
        )
    if not 0 <= window_index < len(starts):
        raise UserError(
            f"--window-index {window_index} is out of range: the period {ensemble.dates[period][0]} to "
            f"{ensemble.dates[period][-1]} has windows 0 to {len(starts) - 1}"
        )
    first = int(starts[window_index])
    return run_stretch(emulator, ensemble, row, first, horizon), ensemble.parameters[row]


def test_period(emulator: Emulator, ensemble: Ensemble) -> tuple[str, str]:
    """First and last day of the emulator's test period, or of the ensemble where it lacks that period."""
    splits = emulator.config.get("splits") or {}
    first, last = splits.get("test") or emulator.configuration.splits.test
    days = day_slice(ensemble.dates, str(first), str(last))
    context, horizon = emulator.configuration.evaluation.context_days, emulator.configuration.evaluation.horizon_days
    if len(window_starts(days, context, horizon)):
        return str(first), str(last)
    return str(ensemble.dates[0]), str(ensemble.dates[-1])


def run_stretch(emulator: Emulator, ensemble: Ensemble, row: int, first: int, days: int) -> Stretch:
    """`days` days of a run from day index `first`, all observed, with the context before them."""
    context = emulator.configuration.evaluation.context_days
    weather = emulator.dynamic_scaler.transform(ensemble.dynamic[first - context : first + days])
    fluxes = ensemble.fluxes[row, first : first + days].astype(np.float64)
    return stretch_from_arrays(
        weather[:context], weather[context:], fluxes, np.ones(days), start=ensemble.dates[first]
    )  # fmt: skip


def choose_windows(
    windows: Windows, path: Path, index: int | None, first: date | None, last: date | None, step: int, most: int | None
) -> np.ndarray:
    """Indices of the windows of a range of start dates (inclusive, every `step`-th, `most` at most) or of one index.

    UserError when the index is out of range or no window starts in the range.
    """
    start, end = windows.window_start.min(), windows.window_start.max()
    if first is None and last is None:
        index = index or 0
        if not 0 <= index < len(windows):
            raise UserError(f"--obs-index {index} is out of range: {path} holds windows 0 to {len(windows) - 1}")
        return np.array([index])
    low = np.datetime64(first) if first is not None else start
    high = np.datetime64(last) if last is not None else max(end, low)
    if low > high:
        if first is None:
            raise UserError(f"--obs-range-end {high} lies before {low}, the first start of a window of {path}")
        raise UserError(f"--obs-range-start {low} lies after --obs-range-end {high}")
    chosen = np.flatnonzero((windows.window_start >= low) & (windows.window_start <= high))
    if not len(chosen):
        raise UserError(f"no window of {path} starts between {low} and {high}; its windows start {start} to {end}")
    chosen = chosen[np.argsort(windows.window_start[chosen], kind="stable")][:: max(1, step)]
    return chosen if most is None else chosen[: max(1, most)]


def observation_stretches(
    emulator: Emulator,
    path: str | Path,
    index: int | None,
    first: date | None,
    last: date | None,
    step: int = 1,
    most: int | None = None,
    holdout: tuple[date, date] | None = None,
    rescale: bool = False,
) -> tuple[list[Stretch], list[Stretch], int]:
    """Stretches with the days to fit, stretches with the days held out, and the number of windows chosen.

    With a range only days inside it count (the last window reaches beyond). Held-out days are taken out of the fit;
    windows that start in the hold-out period are read for them.
    """
    path = Path(path)
    windows = load_windows(path, emulator.feature_names, emulator.dynamic_scaler, rescale=rescale)
    chosen = choose_windows(windows, path, index, first, last, step, most)
    count = len(chosen)
    held = np.zeros(0, dtype=int)
    if holdout is not None:
        begin, end = (np.datetime64(day) for day in holdout)
        held = np.flatnonzero(
            (windows.window_start >= begin - DAY * (windows.horizon - 1)) & (windows.window_start <= end)
        )
        held = np.setdiff1d(held, chosen)
    stretches = stretches_from_windows(windows.select(np.concatenate([chosen, held])))
    low = np.datetime64(first) if first is not None else windows.window_start[chosen].min()
    last_day = windows.dates[chosen].max()
    high = min(np.datetime64(last), last_day) if last is not None else last_day
    inside = keep_days(stretches, lambda dates: (dates >= low) & (dates <= high))
    if holdout is None:
        return inside, [], count
    fitted = keep_days(inside, lambda dates: (dates < begin) | (dates > end))
    apart = keep_days(stretches, lambda dates: (dates >= begin) & (dates <= end))
    if not any(stretch.mask.any() for stretch in apart):
        warn(f"no valid observation between {begin} and {end} in {path}: nothing is held out")
    return fitted, apart, count
