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

from inversion_config import TARGET_COMBINATIONS, ErrorModelConfig
from inversion_data import DAY, Observations

# Estimating the hyper-parameters costs a Cholesky factor a try; blocks of days up to this many entries are enough.
ENTRIES_FOR_ESTIMATION = 450
ENTRIES_FOR_WEIGHT = 300
WEIGHTS = np.array([0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95])
BLOCK_DAYS = 60
EMULATOR_SCALE_SPREAD = 0.35  # sd of log(emulator error here / on average), prior; heavy tails of unseen runs
DISCREPANCY_DAYS = 30.0  # prior median of the discrepancy's correlation time
NOISE_SPREAD = 1.5  # sd of log(observation error / day-to-day scatter), prior
DAYS_SPREAD = 0.7  # sd of log(discrepancy's correlation time), prior
FLOOR = 1e-12  # (Mg C ha-1 day-1)^2, keeps the covariance positive definite


@dataclass(frozen=True)
class EmulatorErrorSample:
    """The emulator's errors on runs it never saw: error (run, day, 4) Mg C ha-1 day-1, dates (day,) datetime64[D]."""

    error: np.ndarray
    dates: np.ndarray

    @property
    def runs(self) -> int:
        """Number of unseen runs."""
        return len(self.error)


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

    @property
    def observation_variance(self) -> np.ndarray:
        """(entry,) observation error variance: the given one, else the estimate."""
        given = self.observations.sd**2
        return np.where(np.isfinite(given), given, self.hyper.observation_sd[self.observations.target] ** 2)

    @property
    def discrepancy(self) -> np.ndarray:
        """(entry, entry) covariance of the model discrepancy."""
        return _discrepancy(self.observations, self.hyper)

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
    emulator, weight = None, 0.0
    if sample is not None and config.emulator and sample.runs > 1:
        weight = empirical_weight(sample, observations)
        emulator = emulator_covariance(sample, observations, weight)
    guess = []
    for target in observations.targets:
        here = observations.of(target)
        guess.append(config.observation_sd or _day_to_day_sd(observations.value[here], observations.date[here]))
    if config.observation_sd is not None:
        observations = replace(
            observations, sd=np.where(np.isfinite(observations.sd), observations.sd, config.observation_sd)
        )
    spread = np.array([max(observations.value[observations.of(t)].std(), 1e-6) for t in observations.targets])
    hyper = Hyper(np.array(guess), 1.0, 0.01 * spread * config.discrepancy, DISCREPANCY_DAYS)
    weights = np.ones(len(observations.targets)) if weights is None else np.asarray(weights, dtype=np.float64)
    return ErrorModel(observations, emulator, weights, hyper, config.discrepancy, weight)


def estimate_hyper(model: ErrorModel, residual: np.ndarray, jacobian: np.ndarray) -> ErrorModel:
    """The error model with its unknown parts at their most probable values, parameters integrated out.

    residual: (entry,) y - f(u) + J (u - prior), the data as a linear function of the parameters sees them;
    jacobian: (entry, latent) df/du, Mg C ha-1 day-1 a prior sd. Maximises the marginal likelihood
    N(residual; 0, covariance + J J') (Laplace, type II) with weak priors; at most 60 L-BFGS-B iterations.
    """
    keep = _blocks(model.observations)
    observations = _subset(model.observations, keep)
    emulator = None if model.emulator is None else model.emulator[np.ix_(keep, keep)]
    residual, jacobian = residual[keep], jacobian[keep]
    explained = jacobian @ jacobian.T
    unknown = np.array([np.isnan(observations.sd[observations.of(t)]).any() for t in observations.targets])
    spread = np.array([max(observations.value[observations.of(t)].std(), 1e-6) for t in observations.targets])
    first = model.hyper
    targets = len(observations.targets)

    def unpack(x: np.ndarray) -> Hyper:
        x = list(x)
        sd = np.array([np.exp(x.pop(0)) if unknown[t] else first.observation_sd[t] for t in range(targets)])
        scale = np.exp(x.pop(0)) if emulator is not None else 1.0
        if not model.estimate_discrepancy:
            return Hyper(sd, scale, np.zeros(targets), first.discrepancy_days)
        return Hyper(sd, scale, np.exp(np.array(x[:targets])), float(np.exp(x[targets])))

    day = _day_numbers(observations)
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
            distance = np.log(hyper.emulator_scale) / EMULATOR_SCALE_SPREAD
            value += 0.5 * distance**2
            slope = 2 * hyper.emulator_scale**2 * np.sum(sensitivity * emulator)
            gradient.append(slope + distance / EMULATOR_SCALE_SPREAD)
        if model.estimate_discrepancy:
            weighted = sensitivity * _discrepancy(observations, hyper)
            ratio = hyper.discrepancy_sd / spread
            value += 0.5 * np.sum(ratio**2)
            for t, target in enumerate(observations.targets):
                here = observations.of(target)
                gradient.append(2 * weighted[np.ix_(here, here)].sum() + ratio[t] ** 2)
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
        bounds.append((-1.5, 1.5))
    if model.estimate_discrepancy:
        x0 += list(np.log(np.maximum(first.discrepancy_sd, 0.1 * spread)))
        bounds += [(np.log(1e-3 * s), np.log(3 * s)) for s in spread]
        x0.append(np.log(first.discrepancy_days))
        bounds.append((np.log(3.0), np.log(200.0)))
    if not x0:
        return model
    x0 = np.clip(x0, [low for low, _ in bounds], [high for _, high in bounds])
    options = {"maxiter": 60, "ftol": 1e-7}
    result = minimize(negative_log_posterior, x0, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return replace(model, hyper=unpack(result.x))


def emulator_covariance(
    sample: EmulatorErrorSample, observations: Observations, weight: float | None = None
) -> np.ndarray:
    """(entry, entry) second moment of the emulator's error over the observed entries, Mg2 C ha-2 day-2.

    Mean of the empirical one on the same dates (share `weight`, default empirical_weight) and the stationary one of
    the same runs; entirely stationary where an entry lies outside the sample's dates.
    """
    error = np.stack([_combine(sample.error, t) for t in observations.targets], axis=-1)  # (run, day, target)
    position = _positions(sample, observations)
    known = position >= 0
    if not known.all():
        return _stationary_covariance(error, observations)
    if weight is None:
        weight = empirical_weight(sample, observations)
    return _mixed_covariance(error, position, observations, weight)


def empirical_weight(sample: EmulatorErrorSample, observations: Observations) -> float:
    """Share of the empirical covariance that predicts left-out runs best, by four-fold cross-validation.

    The empirical covariance knows on which days the emulator errs, but from few runs its small eigenvalues are far
    too small: the likelihood of runs that it has not seen decides (Ledoit and Wolf 2004 for the idea of shrinkage).
    """
    keep = _blocks(observations, ENTRIES_FOR_WEIGHT)
    observations = _subset(observations, keep)
    position = _positions(sample, observations)
    folds = min(4, sample.runs)
    if folds < 2 or (position < 0).any():
        return 0.0
    error = np.stack([_combine(sample.error, t) for t in observations.targets], axis=-1)
    nugget = 0.01 * np.mean(error**2) * np.eye(len(observations))  # ER = GPP - NEP makes the matrix singular
    likelihood = np.zeros(len(WEIGHTS))
    for fold in range(folds):
        left_out = np.arange(sample.runs) % folds == fold
        test = error[left_out][:, position, observations.target]
        stationary = _mixed_covariance(error[~left_out], position, observations, 0.0) + nugget
        empirical = _mixed_covariance(error[~left_out], position, observations, 1.0) + nugget
        for k, weight in enumerate(WEIGHTS):
            factor = cholesky((1 - weight) * stationary + weight * empirical, lower=True)
            white = solve_triangular(factor, test.T, lower=True)
            # The scale is estimated with every fit, so only the shape of the covariance is judged.
            count = white.size
            likelihood[k] -= 0.5 * count * np.log(np.mean(white**2)) + left_out.sum() * np.log(np.diag(factor)).sum()
    return float(WEIGHTS[int(np.argmax(likelihood))])


def _positions(sample: EmulatorErrorSample, observations: Observations) -> np.ndarray:
    """(entry,) index into the sample's days, -1 where the date is unknown or outside."""
    dated = ~np.isnat(observations.date)
    offset = np.where(dated, observations.date, sample.dates[0]) - sample.dates[0]
    position = (offset / DAY).astype(int)
    return np.where(dated & (position >= 0) & (position < len(sample.dates)), position, -1)


def _mixed_covariance(error, position, observations, weight: float) -> np.ndarray:
    covariance = np.zeros((len(observations), len(observations)))
    if weight < 1:
        covariance += (1 - weight) * _stationary_covariance(error, observations)
    if weight > 0:
        columns = error[:, position, observations.target]  # (run, entry)
        covariance += weight * (columns.T @ columns) / len(columns)
    return covariance


def _combine(fluxes: np.ndarray, target: str) -> np.ndarray:
    return fluxes.astype(np.float64) @ np.asarray(TARGET_COMBINATIONS[target])


def _stationary_covariance(error: np.ndarray, observations: Observations) -> np.ndarray:
    """Autocovariance by lag, averaged over runs and days (divided by all days, so that it is positive definite)."""
    days = error.shape[1]
    spectrum = np.fft.rfft(error, n=2 * days, axis=1)
    cross = np.einsum("rfa,rfb->fab", spectrum, spectrum.conj()) / (len(error) * days)
    lagged = np.fft.irfft(cross, n=2 * days, axis=0)  # (lag modulo 2 days, target, target)
    day = _day_numbers(observations)
    lag = day[:, None] - day[None, :]
    same = (observations.stretch[:, None] == observations.stretch[None, :]) | np.isfinite(
        observations.date.astype("datetime64[D]").astype(float)
    )[:, None]
    inside = (np.abs(lag) < days) & same
    values = lagged[
        np.where(inside, lag, 0).astype(int) % (2 * days),
        observations.target[:, None], observations.target[None, :],
    ]  # fmt: skip
    return np.where(inside, values, 0.0)


def _day_numbers(observations: Observations) -> np.ndarray:
    """(entry,) days since 1970, or the day inside its stretch where the date is unknown."""
    known = ~np.isnat(observations.date)
    return np.where(known, observations.date.astype("datetime64[D]").astype(np.int64), observations.day)


def _discrepancy(observations: Observations, hyper: Hyper) -> np.ndarray:
    day = _day_numbers(observations)
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
        covariance += _discrepancy(observations, hyper)
    return covariance


def _day_to_day_sd(value: np.ndarray, date: np.ndarray) -> float:
    """A first guess of white noise, Mg C ha-1 day-1: sd of differences between consecutive entries / sqrt(2)."""
    if len(value) < 3:
        return max(float(np.abs(value).mean()), 1e-3)
    return max(float(np.diff(value).std() / np.sqrt(2)), 1e-5)


def _blocks(observations: Observations, most: int = ENTRIES_FOR_ESTIMATION) -> np.ndarray:
    """Indices of entries in evenly spaced blocks of days, `most` at most (about)."""
    total = len(observations)
    if total <= most:
        return np.arange(total)
    block = _day_numbers(observations) // BLOCK_DAYS + 10**6 * observations.stretch
    names = np.unique(block)
    wanted = max(1, int(len(names) * most / total))
    chosen = names[np.linspace(0, len(names) - 1, wanted).round().astype(int)]
    return np.flatnonzero(np.isin(block, chosen))


def _subset(observations: Observations, keep: np.ndarray) -> Observations:
    return replace(
        observations,
        **{name: getattr(observations, name)[keep] for name in ("value", "sd", "stretch", "day", "target", "date")},
    )
