"""Posterior draws beyond the Gaussian: every draw is the minimum of the cost with perturbed data and prior.

Randomized maximum likelihood (Kitanidis 1995; Oliver, He and Reynolds 1996): exact where the model is linear, and it
follows the bends of a posterior where it is not, at the price of a few emulator runs a draw. All draws of a mode move
in one batch along Gauss-Newton steps with that mode's own Jacobian.
"""

from dataclasses import dataclass

import numpy as np
import torch

from inversion_problem import InversionProblem

STEPS = 4  # Gauss-Newton steps of a draw at most
SETTLED = 0.02  # a draw whose cost falls by less has arrived
FREE_VARIANCE = 0.8  # posterior variance (prior 1) above which a direction counts as left to the prior


@dataclass(frozen=True)
class Mode:
    """A place where starts ended: u (size,), its cost, prediction (entry,), whitened Jacobian (entry, size), and F
    (size, size) with covariance F F' in latent units.
    """

    u: np.ndarray
    cost: float
    predicted: np.ndarray
    white_jacobian: np.ndarray
    factor: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """Laplace covariance (size, size)."""
        return self.factor @ self.factor.T


def randomized_samples(
    problem: InversionProblem, mode: Mode, samples: int, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """(sample, size) latent: `draws` randomized minima around `mode`, spread over `samples`.

    Along directions that the data inform every sample repeats a draw; the others, which are Gaussian and independent,
    are drawn anew for each sample. The Gaussian part of the draws gets the covariance that it has in theory, so that
    few draws already give the right spread; what is left to chance is how the minima differ from it.
    """
    linear, found = randomized_minima(problem, mode, draws, rng)
    values, vectors = np.linalg.eigh(mode.covariance)
    is_free = values > FREE_VARIANCE
    free, informed = vectors[:, is_free], vectors[:, ~is_free]
    along = (linear - mode.u) @ informed
    if 2 * along.shape[1] < len(along):
        lower = np.linalg.cholesky(along.T @ along / len(along))
        matched = np.linalg.solve(lower, along.T).T * np.sqrt(values[~is_free])
        found = found + (matched - along) @ informed.T
    which = rng.permutation(np.arange(samples) % len(found))
    fresh = rng.standard_normal((samples, free.shape[1])) * np.sqrt(values[is_free])
    return found[which] + (fresh - (linear[which] - mode.u) @ free) @ free.T


def randomized_minima(
    problem: InversionProblem, mode: Mode, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The draws of the linear model, and where the true model's minima are: (draw, size) latent each.

    Perturbations come in pairs of opposite sign, so that the linear draws have the mode as their exact mean.
    """
    half = rng.standard_normal((-(-draws // 2), len(mode.predicted) + problem.size))
    both = np.concatenate([half, -half])[:draws]
    data_noise, target = both[:, : len(mode.predicted)], problem.prior + both[:, len(mode.predicted) :]
    limit, covariance, jacobian = problem.latent.limit, mode.covariance, mode.white_jacobian

    def residuals(predicted: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Whitened, perturbed residuals (row, entry) of predictions (row, entry) Mg C ha-1 day-1 for these draws."""
        return problem.whiten(problem.value - torch.as_tensor(predicted)).numpy() + data_noise[rows]

    def costs(u: np.ndarray, residual: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Perturbed cost (row,) of latent u (row, size): half the squared residuals and distances to the target."""
        return 0.5 * np.sum(residual**2, axis=1) + 0.5 * np.sum((u - target[rows]) ** 2, axis=1)

    everyone = np.arange(draws)
    residual = residuals(np.repeat(mode.predicted[None], draws, axis=0), everyone)
    linear = mode.u + (residual @ jacobian - (mode.u - target)) @ covariance
    u = np.clip(linear, -limit, limit)
    residual = residuals(problem.costs(u)[1], everyone)
    cost = costs(u, residual, everyone)
    length, moving = np.ones(draws), everyone
    for _ in range(STEPS):
        step = (residual[moving] @ jacobian - (u[moving] - target[moving])) @ covariance
        trial = np.clip(u[moving] + length[moving, None] * step, -limit, limit)
        trial_residual = residuals(problem.costs(trial)[1], moving)
        trial_cost = np.nan_to_num(costs(trial, trial_residual, moving), nan=np.inf)
        gain = cost[moving] - trial_cost
        better = gain > 0
        rows = moving[better]
        u[rows], residual[rows], cost[rows] = trial[better], trial_residual[better], trial_cost[better]
        length[moving[~better]] *= 0.4
        moving = moving[~better | (gain > SETTLED)]
        if not len(moving):
            break
    return linear, u
