"""What a prediction must beat: constant, persistence, climatology, a linear ARX model, and the mean of a run by a
Gaussian process or by gradient boosting with the climatology's course of the year; on the same days.

All of them may use more than the emulator where that makes them stronger: persistence and ARX start from the run's true
flux on the day before (which no proposed parameter vector has).
"""

import numpy as np
import torch

from calibration.common.units import TARGETS
from calibration.network.run_means import RunMeans
from dataset import TrainingData

NAMES = ("constant", "persistence", "climatology", "arx", "gaussian_process", "boosting")
HALF_WINDOW = 15  # days: climatology is a running mean of the day-of-year means
RIDGE = 1e-3
ARX_ROWS = 200_000


class Baselines:
    """Baselines fitted on seen runs in the training period; predictions for any runs over any stretch of days."""

    def __init__(self, data: TrainingData) -> None:
        self.data = data
        truth = data.truth(data.seen, data.periods["train"])  # (run, day, 4)
        self.mean = truth.mean(axis=(0, 1), dtype=np.float64)
        self.all_climatology = _climatology(
            truth.mean(axis=0, dtype=np.float64)[None], self._day_of_year(data.periods["train"])
        )[0]
        self._fit_arx(truth)
        self._fit_run_means(truth.mean(axis=1, dtype=np.float64))

    def _day_of_year(self, days: slice) -> np.ndarray:
        dates = self.data.ensemble.dates[days]
        return (dates - dates.astype("datetime64[Y]")).astype(int)

    def constant(self, runs: np.ndarray, days: slice) -> np.ndarray:
        """Training mean over seen runs."""
        return np.broadcast_to(self.mean, (len(runs), days.stop - days.start, len(TARGETS))).astype(np.float32)

    def persistence(self, runs: np.ndarray, days: slice) -> np.ndarray:
        """The run's own true flux on the day before the stretch, kept."""
        last = self.data.truth(runs, slice(days.start - 1, days.start))
        return np.repeat(last, days.stop - days.start, axis=1)

    def climatology(self, runs: np.ndarray, days: slice) -> np.ndarray:
        """Smoothed day-of-year mean: of the run's own training years if it is seen, else of all seen runs."""
        doy = self._day_of_year(days)
        result = np.repeat(self.all_climatology[doy][None], len(runs), axis=0).astype(np.float32)
        own = np.isin(runs, self.data.seen)
        if own.any():
            truth = self.data.truth(runs[own], self.data.periods["train"])
            result[own] = _climatology(truth, self._day_of_year(self.data.periods["train"]))[:, doy]
        return result

    def arx(self, runs: np.ndarray, days: slice) -> np.ndarray:
        """Linear in yesterday's fluxes, weather and parameters; starts from the truth of the day before, then free."""
        flux = self._scaled_truth(runs, slice(days.start - 1, days.start))[:, 0]
        static = self.data.static[runs].cpu().numpy() @ self.arx_static + self.arx_intercept
        weather = self.data.dynamic[days].cpu().numpy() @ self.arx_weather
        result = np.empty((len(runs), len(weather), len(TARGETS)), dtype=np.float32)
        for day, forcing in enumerate(weather):
            flux = np.clip(flux @ self.arx_flux + forcing + static, -1e3, 1e3)
            result[:, day] = flux
        return self.data.target_scaler.inverse(result).astype(np.float32)

    def gaussian_process(self, runs: np.ndarray, days: slice) -> np.ndarray:
        """A Gaussian process' mean of the run (network/run_means.py), with the climatology of all seen runs."""
        return self._around(self.by_process[runs], days)

    def boosting(self, runs: np.ndarray, days: slice) -> np.ndarray:
        """The same with gradient boosting (scikit-learn's, 300 trees of depth 3, rate 0.05, half of the runs each)."""
        return self._around(self.by_boosting[runs], days)

    def _around(self, means: np.ndarray, days: slice) -> np.ndarray:
        """Means (run, 4) with the course of the year of all seen runs, (run, day, 4)."""
        anomaly = self.all_climatology[self._day_of_year(days)] - self.mean
        return (means[:, None] + anomaly).astype(np.float32)

    def _fit_run_means(self, means: np.ndarray) -> None:
        """Learn the mean fluxes (seen run, 4) over the training period from the parameters; predict them for all."""
        static, seen = self.data.static.cpu().numpy().astype(np.float64), self.data.seen
        process = RunMeans(static.shape[1], len(seen))
        process.fit(static[seen], self.data.target_scaler.transform(means))
        with torch.no_grad():
            found = process(torch.as_tensor(static, dtype=torch.float32)).numpy()
        self.by_process = self.data.target_scaler.inverse(found)
        from sklearn.ensemble import GradientBoostingRegressor  # a second's import that only an evaluation needs

        trees = {"n_estimators": 300, "learning_rate": 0.05, "max_depth": 3, "subsample": 0.5, "random_state": 0}
        self.by_boosting = np.stack(
            [GradientBoostingRegressor(**trees).fit(static[seen], mean).predict(static) for mean in means.T], axis=1
        )

    def predict(self, name: str, runs: np.ndarray, days: slice) -> np.ndarray:
        """Baseline `name` for runs (run,) over days -> (run, day, 4) Mg C ha-1 day-1."""
        return getattr(self, name)(runs, days)

    def _scaled_truth(self, runs: np.ndarray, days: slice) -> np.ndarray:
        return self.data.fluxes[runs][:, days].cpu().numpy()

    def _fit_arx(self, truth: np.ndarray) -> None:
        """Ridge regression y(d) = A y(d-1) + B x(d) + C s + b on scaled values, a random sample of run-days."""
        data, days = self.data, self.data.periods["train"]
        rng = np.random.default_rng(0)
        count = min(ARX_ROWS, len(data.seen) * (days.stop - days.start - 1))
        runs = data.seen[rng.integers(len(data.seen), size=count)]
        day = rng.integers(days.start + 1, days.stop, size=count)
        fluxes, dynamic, static = data.fluxes.cpu().numpy(), data.dynamic.cpu().numpy(), data.static.cpu().numpy()
        inputs = np.concatenate(
            [fluxes[runs, day - 1], dynamic[day], static[runs], np.ones((count, 1), np.float32)], axis=1
        )
        normal = inputs.T @ inputs / count + RIDGE * np.eye(inputs.shape[1], dtype=np.float32)
        weights = np.linalg.solve(normal, inputs.T @ fluxes[runs, day] / count)
        split = np.cumsum([len(TARGETS), dynamic.shape[1], static.shape[1]])
        self.arx_flux, self.arx_weather, self.arx_static, self.arx_intercept = np.split(weights, split)


def _climatology(values: np.ndarray, day_of_year: np.ndarray) -> np.ndarray:
    """values (run, day, 4) with day_of_year (day,) 0-365 -> running mean of day-of-year means (run, 366, 4)."""
    sums = np.zeros((len(values), 366, values.shape[2]))
    counts = np.bincount(day_of_year, minlength=366).astype(float)
    order = np.argsort(day_of_year, kind="stable")
    present = np.flatnonzero(counts)
    first = np.searchsorted(day_of_year[order], present)
    sums[:, present] = np.add.reduceat(values[:, order].astype(np.float64), first, axis=1)
    kernel = [(np.arange(366) + shift) % 366 for shift in range(-HALF_WINDOW, HALF_WINDOW + 1)]
    total = sum(counts[index] for index in kernel)
    smooth = sum(sums[:, index] for index in kernel) / np.maximum(total, 1)[:, None]
    empty = total == 0  # a short record: days of the year it never saw get its mean
    smooth[:, empty] = values.mean(axis=1, dtype=np.float64)[:, None]
    return smooth
