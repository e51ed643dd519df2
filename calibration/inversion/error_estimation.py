"""Estimating the error model's unknown parts with the fit: their most probable values, parameters integrated out.

What is unknown stands in one table (`unknown_parts`), a row a number, all as logarithms: where the optimiser starts,
its bounds, the prior, and how the likelihood changes with it. Nothing else knows the order of the rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from calibration.inversion.error_model import (
    DISCREPANCY_DAYS,
    ErrorModel,
    Hyper,
    day_lags,
    day_to_day_sd,
)

# Estimating the hyper-parameters costs a Cholesky factor a try; blocks of days up to this many entries are enough.
ENTRIES_FOR_ESTIMATION = 450
LEAST_SCALE = 0.5  # on the emulator error: 36 parameters fit a short record that has no noise better than they should
SCALE_WIDTH = 1.5  # half width of the search around the prior's log(emulator scale)
DISCREPANCY_RATE = 3.0  # exponential prior of the discrepancy's sd over the data's: none unless the data ask for it
DISCREPANCY_EVIDENCE = 3.0  # gain in log posterior that a discrepancy has to bring: chance alone brings it rarely
NOISE_SPREAD = 1.5  # sd of log(observation error / day-to-day scatter), prior
DAYS_SPREAD = 0.7  # sd of log(discrepancy's correlation time), prior
SD_RANGE = (1e-3, 3.0)  # of a standard deviation that is looked for, over that of the data
DAYS_RANGE = (3.0, 200.0)  # of the discrepancy's correlation time
OPTIMISER = {"maxiter": 60, "ftol": 1e-7}


@dataclass(frozen=True)
class Slopes:
    """What derivatives of the likelihood are made of, at one point.

    sensitivity: (entry, entry) (K^-1 - a a') / 2 with a = K^-1 residual, K the covariance, so that the slope along p
    is sum(sensitivity * dK/dp); slow: (entry, entry) sensitivity times covariance of the discrepancy, entry by entry.
    """

    hyper: Hyper
    sensitivity: np.ndarray
    slow: np.ndarray


@dataclass(frozen=True)
class Unknown:
    """A number of the error model that is estimated; x is its natural logarithm."""

    part: str  # field of Hyper
    target: int | None  # its entry of that field, None for a field that is a number
    start: float  # the number itself
    limits: tuple[float, float]  # of x
    prior: Callable[[float], tuple[float, float]]  # x -> minus log prior, its slope along x
    slope: Callable[[Slopes], float]  # of minus log likelihood along x


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


def unknown_parts(model: ErrorModel) -> list[Unknown]:
    """The table of what is estimated: observation error and discrepancy by target, emulator's scale, time scale."""
    observations, spread = model.observations, model.observations.spread
    sd_limits = [(np.log(SD_RANGE[0] * s), np.log(SD_RANGE[1] * s)) for s in spread]
    table = []
    for t, target in enumerate(observations.targets):
        here = observations.of(target)
        if np.isnan(observations.sd[here]).any():
            guess = day_to_day_sd(observations.value[here], observations.date[here])
            table.append(Unknown(
                "observation_sd", t, model.hyper.observation_sd[t], sd_limits[t],
                _normal(np.log(guess), NOISE_SPREAD), _observation_slope(here & np.isnan(observations.sd), t),
            ))  # fmt: skip
    if model.emulator is not None:
        centre, width = model.scale_prior
        least = max(centre - SCALE_WIDTH, np.log(LEAST_SCALE))
        table.append(Unknown(
            "emulator_scale", None, model.hyper.emulator_scale, (least, max(centre, least) + SCALE_WIDTH),
            _normal(centre, width),
            lambda at: 2 * at.hyper.emulator_scale**2 * np.sum(at.sensitivity * model.emulator),
        ))  # fmt: skip
    if model.estimate_discrepancy:
        for t, target in enumerate(observations.targets):
            start = max(model.hyper.discrepancy_sd[t], 0.1 * spread[t])
            rate = DISCREPANCY_RATE / spread[t]
            table.append(Unknown(
                "discrepancy_sd", t, start, sd_limits[t], _exponential(rate), _block_slope(observations.of(target)),
            ))  # fmt: skip
        lag = day_lags(observations)
        table.append(Unknown(
            "discrepancy_days", None, model.hyper.discrepancy_days, tuple(np.log(DAYS_RANGE)),
            _normal(np.log(DISCREPANCY_DAYS), DAYS_SPREAD),
            lambda at: np.sum(at.slow * lag) / at.hyper.discrepancy_days,
        ))  # fmt: skip
    return table


def _normal(centre: float, width: float) -> Callable[[float], tuple[float, float]]:
    """Minus log of a normal density of x, up to a constant."""
    return lambda x: (0.5 * ((x - centre) / width) ** 2, (x - centre) / width**2)


def _exponential(rate: float) -> Callable[[float], tuple[float, float]]:
    """Minus log of an exponential density of exp(x), up to a constant."""
    return lambda x: (rate * np.exp(x), rate * np.exp(x))


def _observation_slope(here: np.ndarray, target: int) -> Callable[[Slopes], float]:
    return lambda at: 2 * at.hyper.observation_sd[target] ** 2 * np.diag(at.sensitivity)[here].sum()


def _block_slope(here: np.ndarray) -> Callable[[Slopes], float]:
    return lambda at: 2 * at.slow[np.ix_(here, here)].sum()


def with_values(base: Hyper, table: Sequence[Unknown], x: Sequence[float]) -> Hyper:
    """`base` with the table's numbers exp(x) in their places."""
    parts = {"observation_sd": base.observation_sd.copy(), "discrepancy_sd": base.discrepancy_sd.copy()}
    for row, value in zip(table, x, strict=True):
        if row.target is None:
            parts[row.part] = float(np.exp(value))
        else:
            parts[row.part][row.target] = np.exp(value)
    return replace(base, **parts)


def thinned(model: ErrorModel, keep: np.ndarray) -> ErrorModel:
    """The model over some of its entries (array of indices)."""
    emulator = None if model.emulator is None else model.emulator[np.ix_(keep, keep)]
    return replace(model, observations=model.observations.subset(keep), emulator=emulator)


def _explains(model: ErrorModel, hyper: Hyper, misfit: np.ndarray) -> bool:
    """Whether the squared, whitened misfit is what chi-square allows (mean + 3 standard deviations)."""
    keep = model.observations.blocks(ENTRIES_FOR_ESTIMATION)
    factor = cholesky(replace(thinned(model, keep), hyper=hyper).unweighted(), lower=True)
    white = solve_triangular(factor, misfit[keep], lower=True)
    return bool(white @ white <= len(white) + 3 * np.sqrt(2 * len(white)))


def _most_probable(model: ErrorModel, residual: np.ndarray, jacobian: np.ndarray) -> tuple[Hyper, float]:
    """The unknown parts at their most probable values, and minus the log posterior there."""
    keep = model.observations.blocks(ENTRIES_FOR_ESTIMATION)
    model, residual, jacobian = thinned(model, keep), residual[keep], jacobian[keep]
    explained, table = jacobian @ jacobian.T, unknown_parts(model)
    base = model.hyper
    if model.emulator is None:
        base = replace(base, emulator_scale=1.0)
    if not model.estimate_discrepancy:
        base = replace(base, discrepancy_sd=np.zeros_like(base.discrepancy_sd))

    def negative_log_posterior(x: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient over the table's rows."""
        hyper = with_values(base, table, x)
        here = replace(model, hyper=hyper)
        covariance = here.unweighted() + explained
        try:
            factor = cholesky(covariance, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            return 1e12, np.zeros(len(x))
        white = cho_solve((factor, True), residual, check_finite=False)
        value = 0.5 * residual @ white + np.log(np.diag(factor)).sum()
        inverse = cho_solve((factor, True), np.eye(len(residual)), check_finite=False)
        sensitivity = 0.5 * (inverse - np.outer(white, white))
        at = Slopes(hyper, sensitivity, sensitivity * here.discrepancy)
        gradient = np.empty(len(table))
        for i, (row, place) in enumerate(zip(table, x, strict=True)):
            minus_log_prior, prior_slope = row.prior(place)
            value += minus_log_prior
            gradient[i] = row.slope(at) + prior_slope
        return float(value), gradient

    if not table:
        return base, negative_log_posterior(np.empty(0))[0]
    bounds = [row.limits for row in table]
    start = np.clip([np.log(row.start) for row in table], *np.transpose(bounds))
    result = minimize(negative_log_posterior, start, jac=True, method="L-BFGS-B", bounds=bounds, options=OPTIMISER)
    return with_values(base, table, result.x), float(result.fun)
