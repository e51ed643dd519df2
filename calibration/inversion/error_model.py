"""The error model of an inversion: what separates the emulator's prediction from the observation.

covariance = observation error^2 + emulator error covariance + model discrepancy, over all observed entries.
  observation   white; per day where the data give it, else one standard deviation a target, estimated with the fit
  emulator      measured on runs the emulator never saw: covariance on the same dates, shrunk towards a stationary one
  discrepancy   what neither explains: sd^2 exp(-lag / days) a target, estimated with the fit
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from calibration.inversion.config import ErrorModelConfig
from calibration.inversion.data import Observations, combine_fluxes
from calibration.inversion.emulator_covariance import EmulatorErrorSample, empirical_weight, emulator_covariance

# Estimating the hyper-parameters costs a Cholesky factor a try; blocks of days up to this many entries are enough.
ENTRIES_FOR_ESTIMATION = 450
SCALE_SPREAD = 0.35  # sd of log(emulator error of a run / rms of all), at least
LEAST_SCALE = 0.5  # on the emulator error: 36 parameters fit a short record that has no noise better than they should
SCALE_RUNS = 10  # runs needed to measure that
DISCREPANCY_RATE = 3.0  # exponential prior of the discrepancy's sd over the data's: none unless the data ask for it
DISCREPANCY_EVIDENCE = 3.0  # gain in log posterior that a discrepancy has to bring: chance alone brings it rarely
DISCREPANCY_DAYS = 30.0  # prior median of the discrepancy's correlation time
NOISE_SPREAD = 1.5  # sd of log(observation error / day-to-day scatter), prior
DAYS_SPREAD = 0.7  # sd of log(discrepancy's correlation time), prior
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

    def covariance(self) -> np.ndarray:
        """(entry, entry), (Mg C ha-1 day-1)^2, target weights included."""
        scale = 1 / np.sqrt(self.weights[self.observations.target])
        return _covariance(self.observations, self.emulator, self.hyper) * np.outer(scale, scale)

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
        covariance = _covariance(self.observations, self.emulator, self.hyper)
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
    sample: EmulatorErrorSample | None,
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
        guess.append(config.observation_sd or _day_to_day_sd(observations.value[here], observations.date[here]))
    if config.observation_sd is not None:
        observations = replace(
            observations, sd=np.where(np.isfinite(observations.sd), observations.sd, config.observation_sd)
        )
    spread = np.array([max(observations.value[observations.of(t)].std(), 1e-6) for t in observations.targets])
    hyper = Hyper(np.array(guess), float(np.exp(scale_prior[0])), 0.01 * spread * config.discrepancy, DISCREPANCY_DAYS)
    weights = np.ones(len(observations.targets)) if weights is None else np.asarray(weights, dtype=np.float64)
    return ErrorModel(observations, emulator, weights, hyper, config.discrepancy, weight, scale_prior)


def run_scale(sample: EmulatorErrorSample, target: str) -> tuple[float, float]:
    """Mean and sd of log(rms error of a run / rms over all runs): most runs are predicted better than the rms says, a
    few much worse (heavy tails).
    """
    if sample.runs < SCALE_RUNS:
        return 0.0, SCALE_SPREAD
    error = combine_fluxes(sample.error, target)
    rms = np.sqrt(np.mean(error.astype(np.float64) ** 2, axis=1))
    ratio = np.log(np.maximum(rms, 1e-12) / np.sqrt(np.mean(rms**2)))
    return float(ratio.mean()), float(np.clip(ratio.std(), SCALE_SPREAD, 1.0))


def estimate_hyper(
    model: ErrorModel, residual: np.ndarray, jacobian: np.ndarray, misfit: np.ndarray | None = None
) -> ErrorModel:
    """The error model with its unknown parts at their most probable values, parameters integrated out.

    residual: (entry,) y - f(u) + J (u - prior), the data as a linear function of the parameters sees them;
    jacobian: (entry, latent) df/du, Mg C ha-1 day-1 a prior sd. Maximises the marginal likelihood
    N(residual; 0, covariance + J J') (Laplace, type II) with weak priors; at most 60 L-BFGS-B iterations. A
    discrepancy stays only where it gains DISCREPANCY_EVIDENCE: one that chance suggests widens every band elsewhere.
    It also stays where `misfit` (entry,), y - f(u) itself, is too large for the rest: the linear model may promise a
    fit that bounds and bends of the true one forbid.
    """
    found, value = _most_probable(model, residual, jacobian)
    if model.estimate_discrepancy:
        plain, plain_value = _most_probable(replace(model, estimate_discrepancy=False), residual, jacobian)
        if plain_value < value + DISCREPANCY_EVIDENCE and (misfit is None or _explains(model, plain, misfit)):
            found = plain
    return replace(model, hyper=found)


def _explains(model: ErrorModel, hyper: Hyper, misfit: np.ndarray) -> bool:
    """Whether the squared, whitened misfit is what chi-square allows (mean + 3 standard deviations)."""
    keep = model.observations.blocks(ENTRIES_FOR_ESTIMATION)
    emulator = None if model.emulator is None else model.emulator[np.ix_(keep, keep)]
    factor = cholesky(_covariance(model.observations.subset(keep), emulator, hyper), lower=True)
    white = solve_triangular(factor, misfit[keep], lower=True)
    return bool(white @ white <= len(white) + 3 * np.sqrt(2 * len(white)))


def _most_probable(model: ErrorModel, residual: np.ndarray, jacobian: np.ndarray) -> tuple[Hyper, float]:
    """The unknown parts at their most probable values, and minus the log posterior there."""
    keep = model.observations.blocks(ENTRIES_FOR_ESTIMATION)
    observations = model.observations.subset(keep)
    emulator = None if model.emulator is None else model.emulator[np.ix_(keep, keep)]
    residual, jacobian = residual[keep], jacobian[keep]
    explained = jacobian @ jacobian.T
    unknown = np.array([np.isnan(observations.sd[observations.of(t)]).any() for t in observations.targets])
    spread = np.array([max(observations.value[observations.of(t)].std(), 1e-6) for t in observations.targets])
    first = model.hyper
    targets = len(observations.targets)

    def unpack(x: np.ndarray) -> Hyper:
        """Hyper-parameters from the optimiser's unconstrained vector x: logarithms, in the order of x0."""
        x = list(x)
        sd = np.array([np.exp(x.pop(0)) if unknown[t] else first.observation_sd[t] for t in range(targets)])
        scale = np.exp(x.pop(0)) if emulator is not None else 1.0
        if not model.estimate_discrepancy:
            return Hyper(sd, scale, np.zeros(targets), first.discrepancy_days)
        return Hyper(sd, scale, np.exp(np.array(x[:targets])), float(np.exp(x[targets])))

    day = observations.day_number
    lag = np.abs(day[:, None] - day[None, :])
    start_sd = np.array([
        _day_to_day_sd(observations.value[observations.of(t)], observations.date[observations.of(t)])
        for t in observations.targets
    ])  # fmt: skip

    def negative_log_posterior(x: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient; d/dp of the likelihood is sum(G * dK/dp), G = (K^-1 - a a') / 2, a = K^-1 residual."""
        hyper = unpack(x)
        covariance = _covariance(observations, emulator, hyper) + explained
        try:
            factor = cholesky(covariance, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            return 1e12, np.zeros(len(x))
        white = cho_solve((factor, True), residual, check_finite=False)
        value = 0.5 * residual @ white + np.log(np.diag(factor)).sum()
        inverse = cho_solve((factor, True), np.eye(len(residual)), check_finite=False)
        sensitivity = 0.5 * (inverse - np.outer(white, white))
        gradient = []
        for t in np.flatnonzero(unknown):
            here = observations.of(observations.targets[t]) & np.isnan(observations.sd)
            distance = np.log(hyper.observation_sd[t] / start_sd[t]) / NOISE_SPREAD
            value += 0.5 * distance**2
            slope = 2 * hyper.observation_sd[t] ** 2 * np.diag(sensitivity)[here].sum()
            gradient.append(slope + distance / NOISE_SPREAD)
        if emulator is not None:
            distance = (np.log(hyper.emulator_scale) - model.scale_prior[0]) / model.scale_prior[1]
            value += 0.5 * distance**2
            slope = 2 * hyper.emulator_scale**2 * np.sum(sensitivity * emulator)
            gradient.append(slope + distance / model.scale_prior[1])
        if model.estimate_discrepancy:
            weighted = sensitivity * discrepancy_covariance(observations, hyper)
            ratio = hyper.discrepancy_sd / spread
            value += DISCREPANCY_RATE * np.sum(ratio)
            for t, target in enumerate(observations.targets):
                here = observations.of(target)
                gradient.append(2 * weighted[np.ix_(here, here)].sum() + DISCREPANCY_RATE * ratio[t])
            distance = np.log(hyper.discrepancy_days / DISCREPANCY_DAYS) / DAYS_SPREAD
            value += 0.5 * distance**2
            slope = np.sum(weighted * lag) / hyper.discrepancy_days
            gradient.append(slope + distance / DAYS_SPREAD)
        return float(value), np.array(gradient)

    x0, bounds = [], []
    for t in np.flatnonzero(unknown):
        x0.append(np.log(first.observation_sd[t]))
        bounds.append((np.log(1e-3 * spread[t]), np.log(3 * spread[t])))
    if emulator is not None:
        x0.append(np.log(first.emulator_scale))
        least = max(model.scale_prior[0] - 1.5, np.log(LEAST_SCALE))
        bounds.append((least, max(model.scale_prior[0], least) + 1.5))
    if model.estimate_discrepancy:
        x0 += list(np.log(np.maximum(first.discrepancy_sd, 0.1 * spread)))
        bounds += [(np.log(1e-3 * s), np.log(3 * s)) for s in spread]
        x0.append(np.log(first.discrepancy_days))
        bounds.append((np.log(3.0), np.log(200.0)))
    if not x0:
        return unpack(np.empty(0)), negative_log_posterior(np.empty(0))[0]
    x0 = np.clip(x0, [low for low, _ in bounds], [high for _, high in bounds])
    options = {"maxiter": 60, "ftol": 1e-7}
    result = minimize(negative_log_posterior, x0, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return unpack(result.x), float(result.fun)


def discrepancy_covariance(observations: Observations, hyper: Hyper) -> np.ndarray:
    """(entry, entry): sd^2 exp(-lag / days) between entries of one target."""
    day = observations.day_number
    lag = np.abs(day[:, None] - day[None, :])
    dated = ~np.isnat(observations.date)
    together = (observations.target[:, None] == observations.target[None, :]) & (
        dated[:, None] | (observations.stretch[:, None] == observations.stretch[None, :])
    )
    variance = hyper.discrepancy_sd[observations.target] ** 2
    return np.where(together, variance[:, None] * np.exp(-lag / hyper.discrepancy_days), 0.0)


def _covariance(observations: Observations, emulator: np.ndarray | None, hyper: Hyper) -> np.ndarray:
    given = observations.sd**2
    variance = np.where(np.isfinite(given), given, hyper.observation_sd[observations.target] ** 2)
    covariance = np.diag(variance + FLOOR)
    if emulator is not None:
        covariance += hyper.emulator_scale**2 * emulator
    if np.any(hyper.discrepancy_sd > 0):
        covariance += discrepancy_covariance(observations, hyper)
    return covariance


def _day_to_day_sd(value: np.ndarray, date: np.ndarray) -> float:
    """A first guess of white noise, Mg C ha-1 day-1: sd of differences between consecutive entries / sqrt(2)."""
    if len(value) < 3:
        return max(float(np.abs(value).mean()), 1e-3)
    return max(float(np.diff(value).std() / np.sqrt(2)), 1e-5)
