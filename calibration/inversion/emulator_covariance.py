"""How wrong the emulator is, as a covariance over observed days: measured on runs that it never saw."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import cholesky, solve_triangular

from calibration.common.units import TARGETS
from calibration.emulator.error import EmulatorErrors
from calibration.ensembles.rest import rests_like_others
from calibration.inversion.config import TARGET_COMBINATIONS
from calibration.inversion.data import Observations, day_index

ENTRIES_FOR_WEIGHT = 300  # entries on which left-out runs are predicted
WEIGHTS = np.array([0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95])

RESTLESS_RUNS = 5  # runs not at rest from which on they have an error of their own
RESTLESS = (
    "the estimate is a forest that is not at rest: the emulator's error is that on runs of its kind, which it knows "
    "less well; --verify shows what the process model makes of the estimate"
)
COMPARED = 60  # runs at rest beside which a forest is judged


def restless_errors(sample: EmulatorErrors | None) -> EmulatorErrors | None:
    """The errors of the runs that are not at rest; None where too few are, or none is known to be.

    Few such forests can be predicted many times worse than all others. An estimate of their kind takes their error;
    every other one that of all runs: with the runs at rest alone, parameters near the edge were covered less (0.53
    instead of 0.63 of 60 cases in the worst).
    """
    if sample is None or sample.at_rest is None or (~sample.at_rest).sum() < RESTLESS_RUNS:
        return None
    return sample.of(~sample.at_rest)


def is_restless(forward: Callable[[torch.Tensor], list[torch.Tensor]], sample: EmulatorErrors, vector) -> bool:
    """Whether the forest of `vector` (P,), physical, is not at rest, by the emulator itself over the observed days.

    forward: physical (batch, P) -> fluxes (batch, day, 4) of each stretch. The forest's NEP / GPP is set beside that of
    runs of `sample` that are at rest, under the same weather (ensembles.rest.rests_like_others).
    """
    known = sample.parameters[sample.at_rest]
    known = known[np.linspace(0, len(known) - 1, min(COMPARED, len(known))).astype(int)]
    with torch.no_grad():
        fluxes = torch.cat(forward(torch.as_tensor(np.vstack([known, vector]))), dim=1).mean(dim=1).numpy()
    return not rests_like_others(fluxes[:, TARGETS.index("nep")], fluxes[:, TARGETS.index("gpp")])[-1]


def emulator_covariance(
    sample: EmulatorErrors, observations: Observations, weight: float | None = None
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


def empirical_weight(sample: EmulatorErrors, observations: Observations) -> float:
    """Share of the empirical covariance that predicts left-out runs best, by four-fold cross-validation.

    The empirical covariance knows on which days the emulator errs, but from few runs its small eigenvalues are far
    too small: the likelihood of runs that it has not seen decides (Ledoit and Wolf 2004 for the idea of shrinkage).
    """
    observations = observations.subset(observations.blocks(ENTRIES_FOR_WEIGHT))
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


def _positions(sample: EmulatorErrors, observations: Observations) -> np.ndarray:
    """(entry,) index into the sample's days, -1 where the date is unknown or outside."""
    dated = ~np.isnat(observations.date)
    position = day_index(np.where(dated, observations.date, sample.dates[0]), sample.dates[0])
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
    day = observations.day_number
    lag = day[:, None] - day[None, :]
    inside = (np.abs(lag) < days) & observations.comparable
    values = lagged[
        np.where(inside, lag, 0).astype(int) % (2 * days),
        observations.target[:, None], observations.target[None, :],
    ]  # fmt: skip
    return np.where(inside, values, 0.0)
