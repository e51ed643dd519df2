"""The emulator's error as data: how wrong it is on parameter vectors it has never seen, and how its errors hang
together.

An inversion that ignores this is overconfident: errors of neighbouring days are alike, and part of them is constant
within a run. train.py writes emulator_error.json (numbers, with their meaning) and emulator_error.npz (the errors).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.common.command_line import ARCHIVE_ERRORS, UserError, read_arrays, read_json, write_json, writing
from calibration.common.units import FLUX_UNIT, TARGETS
from calibration.ensembles.rest import runs_at_rest

if TYPE_CHECKING:
    from calibration.common.parameters import ParameterSpace
    from calibration.emulator.trained import Emulator
    from dataset import TrainingData

ERROR_JSON, ERROR_NPZ = "emulator_error.json", "emulator_error.npz"
MAX_LAG = 365  # days
MAX_RUNS = 200  # of the unseen runs; keeps the file near 10 MB
MEANING = {
    "error": "emulator - VISIT on runs whose parameters were never trained on, free running from 180 days of context, "
             "all days of `period` (weather of the training years included: that is what an inversion meets)",
    "runs": "runs behind the numbers: `kept_back` ones that training never sees, then `cross_fitted` ones, each "
            "predicted by a further network that was trained without it and a fifth of the others "
            "(emulator/cross_fit.py; its errors are a little larger than the emulator's)",
    "bias": "mean error", "sd": "root mean square error",
    "run_mean_sd": "rms of the error's mean over a run; sd^2 = run_mean_sd^2 + seasonal_sd^2 + daily_sd^2",
    "seasonal_sd": "rms of calendar-month means of the error within a run, about its run mean",
    "daily_sd": "rms of what remains",
    "autocorrelation": "mean of e(d) e(d + lag) over the mean of e^2, lag 0..365 days, run mean included: its "
    "far end is "
                       "the share of errors that are constant within a run",
    "autocorrelation_within_run": "the same after removing each run's mean",
    "kurtosis": "fourth moment over squared variance; 3 for a normal distribution",
    "band90": "half width that holds 90 percent of the errors: narrower than 1.645 sd, as the tails are heavy",
    "coverage90": "share of errors inside a band90 estimated without the run (5 groups of runs in turn)",
    "distance": "rms error of a run = exp(intercept + slope x distance); distance to the nearest training "
    "vector, unit space, "
                "root mean square over parameters; correlation is that of ln(rms) with distance, over unseen runs",
    "not_at_rest": "runs that are not at rest as the others are (ensembles/rest.py); sd_at_rest and sd_not_at_rest: sd "
                   "of each kind, where there are both. An inversion whose estimate is not at rest takes their error",
    "test_sd": "root mean square error over the test period alone",
}  # fmt: skip


@dataclass(frozen=True)
class EmulatorErrors:
    """Errors (emulator - VISIT) of unseen runs, Mg C ha-1 day-1, fluxes in units.TARGETS order."""

    dates: np.ndarray  # (day,) datetime64[D]
    error: np.ndarray  # (run, day, 4) float32
    parameters: np.ndarray | None = None  # (run, P) physical
    distance: np.ndarray | None = None  # (run,) to the nearest training vector, unit space, rms over parameters
    summary: dict[str, Any] = field(default_factory=dict)  # emulator_error.json
    at_rest: np.ndarray | None = None  # (run,) bool, ensembles.rest; None: not known

    @property
    def runs(self) -> int:
        """Number of unseen runs."""
        return len(self.error)

    def of(self, runs: np.ndarray) -> "EmulatorErrors":
        """Those of some of the runs, (run,) bool."""
        known = {name: getattr(self, name) for name in ("error", "parameters", "distance", "at_rest")}
        return replace(self, **{name: None if values is None else values[runs] for name, values in known.items()})


def nearest_distance(space: "ParameterSpace", parameters: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Distance (run,) of parameters (run, P) to the nearest of training (n, P): unit space, rms over parameters."""
    a, b = np.clip(space.physical_to_unit(parameters), -1, 2), np.clip(space.physical_to_unit(training), -1, 2)
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares.min(axis=1), 0.0) / a.shape[1])


def autocorrelation(error: np.ndarray, max_lag: int = MAX_LAG) -> np.ndarray:
    """Autocorrelation (lag 0..max_lag,) of error (run, day) about zero, pooled over runs; shorter if there are fewer
    days.

    >>> autocorrelation(np.array([[1.0, -1.0, 1.0, -1.0]]), max_lag=2).round(6).tolist()
    [1.0, -1.0, 1.0]
    """
    runs, days = error.shape
    size = 2 ** int(np.ceil(np.log2(2 * days)))
    power = np.abs(np.fft.rfft(error.astype(np.float64), size, axis=1)) ** 2
    covariance = np.fft.irfft(power.sum(axis=0), size)[: min(max_lag, days - 1) + 1]
    covariance = covariance / (runs * (days - np.arange(len(covariance))))
    return covariance / max(covariance[0], 1e-30)


def split_error(error: np.ndarray, dates: np.ndarray) -> tuple[float, float, float]:
    """(run_mean_sd, seasonal_sd, daily_sd) of error (run, day); squares add up to the mean square."""
    error = error.astype(np.float64)
    run_mean = error.mean(axis=1, keepdims=True)
    within = error - run_mean
    month = np.unique(dates.astype("datetime64[M]"), return_inverse=True)[1]
    days = np.bincount(month)
    seasonal = np.stack([np.bincount(month, row) / days for row in within])[:, month]
    return tuple(float(np.sqrt((part**2).mean())) for part in (run_mean, seasonal, within - seasonal))


def coverage(error: np.ndarray, folds: int = 5) -> float:
    """Share of error (run, day) inside the 90 percent band estimated from the other groups of runs; NaN-free, 0-1."""
    runs = len(error)
    folds = min(folds, runs)
    if folds < 2:
        return float("nan")
    inside = 0
    for fold in range(folds):
        held = np.arange(runs) % folds == fold
        inside += (np.abs(error[held]) <= np.quantile(np.abs(error[~held]), 0.9)).sum()
    return inside / error.size


def summarise(error: np.ndarray, dates: np.ndarray, distance: np.ndarray, test: slice) -> dict[str, Any]:
    """Numbers of one flux for emulator_error.json: error (run, day), dates (day,), distance (run,), test days."""
    run_mean, seasonal, daily = split_error(error, dates)
    values = error.astype(np.float64)
    rms = np.sqrt((values**2).mean(axis=1))
    log_rms = np.log(np.maximum(rms, 1e-30))
    if len(rms) > 2 and distance.std() > 1e-9:
        slope, intercept = np.polyfit(distance, log_rms, 1)
        correlation = float(np.corrcoef(distance, log_rms)[0, 1])
    else:
        slope, intercept, correlation = 0.0, float(log_rms.mean()), 0.0
    covered = coverage(error)
    centred = values - values.mean()
    within = values - values.mean(axis=1, keepdims=True)
    return {
        "bias": float(values.mean()), "sd": float(np.sqrt((values**2).mean())), "run_mean_sd": run_mean,
        "seasonal_sd": seasonal, "daily_sd": daily, "test_sd": float(np.sqrt((values[:, test] ** 2).mean())),
        "kurtosis": float((centred**4).mean() / max((centred**2).mean() ** 2, 1e-300)),
        "band90": float(np.quantile(np.abs(values), 0.9)), "coverage90": covered if np.isfinite(covered) else None,
        "distance": {"slope": float(slope), "intercept": float(intercept), "correlation": correlation,
                     "smallest": float(distance.min()), "largest": float(distance.max())},
        "autocorrelation": [round(float(v), 5) for v in autocorrelation(error)],
        "autocorrelation_within_run": [round(float(v), 5) for v in autocorrelation(within)],
    }  # fmt: skip


def estimate_errors(
    emulator: "Emulator", data: "TrainingData", warmup: int | None = None,
    further: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]] = (),
) -> EmulatorErrors:  # fmt: skip
    """Run the emulator over all days of (at most MAX_RUNS) unseen runs and describe its errors.

    `further`: (kept runs, left-out runs, errors) of cross_fit.cross_fit() with the same `warmup`, added to them.
    """
    warmup = emulator.configuration.evaluation.context_days if warmup is None else warmup
    warmup = min(warmup, data.periods["test"].start)
    ensemble, runs = data.ensemble, data.unseen[:MAX_RUNS]
    rest, behind = runs_at_rest(ensemble), [runs]
    parameters = ensemble.parameters[runs]
    predicted = emulator.predict(parameters, ensemble.dynamic, warmup, check_ranges=False)
    error = predicted - ensemble.fluxes[runs][:, warmup:]
    dates = ensemble.dates[warmup:]
    distance = nearest_distance(emulator.space, parameters, emulator.training_parameters)
    for kept, left_out, more in further:
        there = ensemble.parameters[left_out]
        behind.append(left_out)
        distance = np.append(distance, nearest_distance(emulator.space, there, ensemble.parameters[kept]))
        parameters, error = np.concatenate([parameters, there]), np.concatenate([error, more])
    test = slice(data.periods["test"].start - warmup, data.periods["test"].stop - warmup)
    summary = {
        "unit": FLUX_UNIT, "runs": len(error), "kept_back": len(runs), "cross_fitted": len(error) - len(runs),
        "period": [str(dates[0]), str(dates[-1])],
        "test_period": [str(dates[test][0]), str(dates[test][-1])], "meaning": MEANING,
        "fluxes": {name: summarise(error[:, :, i], dates, distance, test) for i, name in enumerate(TARGETS)},
    }  # fmt: skip
    rest = rest[np.concatenate(behind)]
    summary["not_at_rest"] = int((~rest).sum())
    if rest.any() and not rest.all():
        for i, name in enumerate(TARGETS):
            for key, runs in (("sd_at_rest", rest), ("sd_not_at_rest", ~rest)):
                summary["fluxes"][name][key] = float(np.sqrt((error[runs, :, i].astype(np.float64) ** 2).mean()))
    return EmulatorErrors(dates, error, parameters, distance, summary, rest)


def save_errors(directory: str | Path, errors: EmulatorErrors) -> None:
    """Write emulator_error.npz and emulator_error.json into a trained emulator's folder."""
    directory = Path(directory)
    with writing(directory / ERROR_NPZ) as temporary:
        np.savez_compressed(
            temporary, dates=np.datetime_as_string(errors.dates, unit="D"), error=errors.error.astype(np.float32),
            parameters=errors.parameters, distance=errors.distance,
            **({} if errors.at_rest is None else {"at_rest": errors.at_rest}),
        )  # fmt: skip
    write_json(directory / ERROR_JSON, errors.summary)


def load_errors(directory: str | Path) -> EmulatorErrors | None:
    """The error files of a trained emulator's folder, or None when there are none."""
    directory = Path(directory)
    if not (directory / ERROR_NPZ).is_file() or not (directory / ERROR_JSON).is_file():
        return None
    try:
        arrays = read_arrays(directory / ERROR_NPZ)
        return EmulatorErrors(
            arrays["dates"].astype("datetime64[D]"), arrays["error"], arrays["parameters"], arrays["distance"],
            read_json(directory / ERROR_JSON), arrays.get("at_rest"),
        )  # fmt: skip
    except ARCHIVE_ERRORS as error:
        raise UserError(f"{directory / ERROR_NPZ}: not readable ({error}); run train.py again") from None
