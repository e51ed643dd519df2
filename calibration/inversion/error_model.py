"""The error model of an inversion: what separates the emulator's prediction from the observation.

covariance = observation error^2 + emulator error covariance + model discrepancy, over all observed entries.
  observation   white; per day where the data give it, else one standard deviation a target, estimated with the fit
  emulator      measured on runs the emulator never saw: covariance on the same dates, shrunk towards a stationary one
  discrepancy   what neither explains: sd^2 exp(-lag / days) a target, estimated with the fit
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_solve, cholesky

from calibration.emulator.error import EmulatorErrors
from calibration.inversion.config import ErrorModelConfig
from calibration.inversion.data import Observations, combine_fluxes
from calibration.inversion.emulator_covariance import empirical_weight, emulator_covariance

SCALE_SPREAD = 0.35  # sd of log(emulator error of a run / rms of all), at least
SCALE_RUNS = 10  # runs needed to measure that
DISCREPANCY_DAYS = 30.0  # prior median of the discrepancy's correlation time
FLOOR = 1e-12  # (Mg C ha-1 day-1)^2, keeps the covariance positive definite


@dataclass(frozen=True)
class Hyper:
    """What is estimated with the fit; standard deviations in Mg C ha-1 day-1."""

    observation_sd: np.ndarray  # (target,)
    emulator_scale: float  # factor on the emulator error's sd
    discrepancy_sd: np.ndarray  # (target,)
    discrepancy_days: float  # e-folding time


@dataclass(frozen=True)
class ErrorModel:
    """Covariance of (observation - prediction) over the entries of `observations`."""

    observations: Observations
    emulator: np.ndarray | None  # (entry, entry) covariance of the emulator's error
    weights: np.ndarray  # (target,) factor on a target's share of the cost: divides its variances
    hyper: Hyper
    estimate_discrepancy: bool
    emulator_weight: float = 0.0  # share of the empirical covariance in `emulator`
    scale_prior: tuple[float, float] = (0.0, SCALE_SPREAD)  # mean and sd of log(emulator_scale)

    @property
    def observation_variance(self) -> np.ndarray:
        """(entry,) observation error variance: the given one, else the estimate."""
        given = self.observations.sd**2
        return np.where(np.isfinite(given), given, self.hyper.observation_sd[self.observations.target] ** 2)

    @property
    def discrepancy(self) -> np.ndarray:
        """(entry, entry) covariance of the model discrepancy."""
        return discrepancy_covariance(self.observations, self.hyper)

    def unweighted(self) -> np.ndarray:
        """(entry, entry) sum of all parts, (Mg C ha-1 day-1)^2."""
        covariance = np.diag(self.observation_variance + FLOOR)
        if self.emulator is not None:
            covariance += self.hyper.emulator_scale**2 * self.emulator
        if np.any(self.hyper.discrepancy_sd > 0):
            covariance += self.discrepancy
        return covariance

    def covariance(self) -> np.ndarray:
        """(entry, entry), (Mg C ha-1 day-1)^2, target weights included."""
        scale = 1 / np.sqrt(self.weights[self.observations.target])
        return self.unweighted() * np.outer(scale, scale)

    def factor(self) -> np.ndarray:
        """Lower Cholesky factor (entry, entry) of the covariance."""
        return cholesky(self.covariance(), lower=True)

    def shares(self) -> dict[str, dict[str, float]]:
        """By target: mean sd of each part (Mg C ha-1 day-1), share of the variance, number of observations and the
        effective number, i.e. how many independent observations of the same error would fix a mean equally well.
        """
        parts = {
            "observation": self.observation_variance,
            "emulator": np.zeros(len(self.observations))
            if self.emulator is None
            else self.hyper.emulator_scale**2 * np.diag(self.emulator),
            "discrepancy": np.diag(self.discrepancy),
        }
        total = sum(parts.values())
        covariance = self.unweighted()
        report: dict[str, dict[str, float]] = {}
        for target in self.observations.targets:
            here = self.observations.of(target)
            ones = np.ones(here.sum())
            factor = cholesky(covariance[np.ix_(here, here)], lower=True)
            effective = total[here].mean() * float(ones @ cho_solve((factor, True), ones))
            report[target] = {"observations": int(here.sum()), "effective_observations": min(effective, here.sum())}
            for name, part in parts.items():
                report[target][f"{name}_sd"] = float(np.sqrt(part[here].mean()))
                report[target][f"{name}_share"] = float(part[here].mean() / total[here].mean())
        return report


def make_error_model(
    observations: Observations,
    sample: EmulatorErrors | None,
    config: ErrorModelConfig,
    weights: Sequence[float] | None = None,
) -> ErrorModel:
    """The error model before anything is estimated; `sample` None leaves the emulator's error out."""
    emulator, weight, scale_prior = None, 0.0, (0.0, SCALE_SPREAD)
    if sample is not None and config.emulator and sample.runs > 1:
        weight = empirical_weight(sample, observations)
        emulator = emulator_covariance(sample, observations, weight)
        scale_prior = run_scale(sample, observations.targets[0])
    guess = []
    for target in observations.targets:
        here = observations.of(target)
        guess.append(config.observation_sd or day_to_day_sd(observations.value[here], observations.date[here]))
    if config.observation_sd is not None:
        observations = replace(
            observations, sd=np.where(np.isfinite(observations.sd), observations.sd, config.observation_sd)
        )
    slow = 0.01 * observations.spread * config.discrepancy
    hyper = Hyper(np.array(guess), float(np.exp(scale_prior[0])), slow, DISCREPANCY_DAYS)
    weights = np.ones(len(observations.targets)) if weights is None else np.asarray(weights, dtype=np.float64)
    return ErrorModel(observations, emulator, weights, hyper, config.discrepancy, weight, scale_prior)


def run_scale(sample: EmulatorErrors, target: str) -> tuple[float, float]:
    """Mean and sd of log(rms error of a run / rms over all runs): most runs are predicted better than the rms says, a
    few much worse (heavy tails).
    """
    if sample.runs < SCALE_RUNS:
        return 0.0, SCALE_SPREAD
    error = combine_fluxes(sample.error, target)
    rms = np.sqrt(np.mean(error.astype(np.float64) ** 2, axis=1))
    ratio = np.log(np.maximum(rms, 1e-12) / np.sqrt(np.mean(rms**2)))
    return float(ratio.mean()), float(np.clip(ratio.std(), SCALE_SPREAD, 1.0))


def day_lags(observations: Observations) -> np.ndarray:
    """(entry, entry) days between entries, 0 or more."""
    day = observations.day_number
    return np.abs(day[:, None] - day[None, :])


def discrepancy_covariance(observations: Observations, hyper: Hyper) -> np.ndarray:
    """(entry, entry): sd^2 exp(-lag / days) between entries of one target."""
    lag = day_lags(observations)
    together = (observations.target[:, None] == observations.target[None, :]) & observations.comparable
    variance = hyper.discrepancy_sd[observations.target] ** 2
    return np.where(together, variance[:, None] * np.exp(-lag / hyper.discrepancy_days), 0.0)


def day_to_day_sd(value: np.ndarray, date: np.ndarray) -> float:
    """A first guess of white noise, Mg C ha-1 day-1: sd of differences between consecutive entries / sqrt(2)."""
    if len(value) < 3:
        return max(float(np.abs(value).mean()), 1e-3)
    return max(float(np.diff(value).std() / np.sqrt(2)), 1e-5)
