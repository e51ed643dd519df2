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
MATCHED = 2  # draws a latent direction from which the linear draws get their exact covariance


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


def randomized_minima(problem: InversionProblem, mode: Mode, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draw, size) latent: the minima of perturbed costs around `mode`; nearly all fit the data as a whole.

    Where a mode is much curved, a tenth may still be on their way after STEPS steps, and intervals come out wider.
    What is left to chance is where the minima of the true model lie, not those of the linear one: its draws have
    their exact mean and, with enough draws, their exact covariance.
    """
    limit, covariance, jacobian = problem.latent.limit, mode.covariance, mode.white_jacobian
    data_noise, shift = _perturbations(mode, draws, rng)
    target = problem.prior + shift

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
    return u


def _perturbations(mode: Mode, draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal perturbations of the whitened data (draw, entry) and of the prior (draw, size).

    They come in pairs of opposite sign, so that the linear model's minima have the mode as their mean. With 2 draws a
    direction or more, the smallest change of the perturbations that gives those minima the covariance F F' is made:
    few draws then give the right spread.
    """
    entries, size = mode.white_jacobian.shape
    half = rng.standard_normal((-(-draws // 2), entries + size))
    both = np.concatenate([half, -half])[:draws]
    data_noise, shift = both[:, :entries], both[:, entries:]
    if draws >= MATCHED * size:
        # The linear minimum moves by covariance (J' noise + shift), which is F white with white of unit variance.
        white = (data_noise @ mode.white_jacobian + shift) @ mode.factor
        lower = np.linalg.cholesky(white.T @ white / draws)
        move = (np.linalg.solve(lower, white.T).T - white) @ mode.factor.T
        data_noise, shift = data_noise + move @ mode.white_jacobian.T, shift + move
    return data_noise, shift
