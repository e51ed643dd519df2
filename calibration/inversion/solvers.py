"""From a problem to its best fit: one object a method, each with its own turns of fitting and error model.

The error model's unknown parts are estimated around a fit, and the fit is made again with them; how often depends on
what a fit costs. `solver_of` chooses by the configuration's `method`.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from calibration.inversion.config import InversionConfig
from calibration.inversion.error_estimation import estimate_hyper
from calibration.inversion.methods import JOINED, Fit, adam, ensemble_smoother, gauss_newton
from calibration.inversion.problem import InversionProblem

SAME_START = 1.0  # squared distance in posterior sds within which one start goes on for both
ERROR_ROUNDS = 3  # fits with a re-estimated error model at most
FIRST_ROUND = {"max_iterations": 8, "tolerance": 1.0}  # the error model changes afterwards: no need to converge
SETTLED = 0.1  # change of the log variance below which the error model stays as it is (5 percent of the sd)


class Solver(Protocol):
    """A method of estimation, error model included."""

    def solve(self, problem: InversionProblem, starts: np.ndarray) -> Fit:
        """The fit from `starts` (start, size), latent; sets the problem's error model. History covers all turns."""


def solver_of(config: InversionConfig) -> Solver:
    """The solver of config.method.

    >>> from calibration.inversion.config import make_inversion_config
    >>> type(solver_of(make_inversion_config({"method": "adam"}))).__name__
    'AdamSolver'
    """
    kinds = {"gauss_newton": GaussNewtonSolver, "adam": AdamSolver, "ensemble": EnsembleSolver}
    return kinds[config.method](config)


@dataclass(frozen=True)
class GaussNewtonSolver:
    """Levenberg-Marquardt, loosely at first, then again after each estimate of the error model until that settles."""

    config: InversionConfig

    def solve(self, problem: InversionProblem, starts: np.ndarray) -> Fit:
        """See Solver. Starts that ended in one place go on as one; all are reported."""
        if not has_unknowns(problem):
            return gauss_newton(problem, starts, self.config)
        fit = gauss_newton(problem, starts, loose(self.config))
        history, trace, place = fit.history, fit.trace, np.arange(len(starts))
        for _ in range(ERROR_ROUNDS):
            settled = not update_error_model(problem, fit)
            distinct, nearest = distinct_starts(problem, fit)
            fit, place = gauss_newton(problem, distinct, self.config), nearest[place]
            history, trace = joined(history, fit.history), trace + fit.trace
            if settled:
                break
        first = np.unique(place, return_index=True)[1]
        reasons = [fit.reasons[p] if k in first else JOINED for k, p in enumerate(place)]
        return replace(
            fit, starts=fit.starts[place], start_costs=fit.start_costs[place], reasons=reasons, history=history,
            trace=trace,
        )  # fmt: skip


@dataclass(frozen=True)
class AdamSolver:
    """Half of the iterations, the error model, the other half; all of them at once where nothing is unknown."""

    config: InversionConfig

    def solve(self, problem: InversionProblem, starts: np.ndarray) -> Fit:
        """See Solver."""
        if not has_unknowns(problem):
            return adam(problem, starts, self.config)
        half = replace(self.config, max_iters=max(1, self.config.max_iters // 2))
        first = adam(problem, starts, half)
        update_error_model(problem, first)
        fit = adam(problem, first.starts, half)
        return replace(fit, history=joined(first.history, fit.history), trace=first.trace + fit.trace)


@dataclass(frozen=True)
class EnsembleSolver:
    """The error model around one loose Levenberg-Marquardt fit, then the ensemble smoother from the prior."""

    config: InversionConfig

    def solve(self, problem: InversionProblem, starts: np.ndarray) -> Fit:
        """See Solver; only the first start is used."""
        if has_unknowns(problem):
            update_error_model(problem, gauss_newton(problem, starts[:1], loose(self.config)))
        return ensemble_smoother(problem, self.config)


def loose(config: InversionConfig) -> InversionConfig:
    """The configuration of a fit after which the error model changes."""
    return replace(config, gauss_newton=replace(config.gauss_newton, **FIRST_ROUND))


def has_unknowns(problem: InversionProblem) -> bool:
    """Whether a part of the error model is estimated with the fit; never in the mse form, which has none."""
    model = problem.error_model
    unknown = np.isnan(model.observations.sd).any() or model.emulator is not None or model.estimate_discrepancy
    return problem.lambda_prior is None and bool(unknown)


def update_error_model(problem: InversionProblem, fit: Fit) -> bool:
    """Re-estimate the error model's unknown parts around `fit`; True when they moved by more than 5 percent."""
    before = problem.error_model
    misfit = problem.observations.value - fit.predicted
    linear = misfit + fit.jacobian @ (fit.u - problem.prior)
    after = estimate_hyper(before, linear, fit.jacobian, misfit)
    problem.set_error_model(after)
    old, new = np.diag(before.covariance()), np.diag(after.covariance())
    return bool(np.abs(np.log(new.mean() / old.mean())) > SETTLED)


def distinct_starts(problem: InversionProblem, fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """The best point and, of the other starts, those that ended elsewhere (place, size); the place of each start."""
    _, stacked = problem.least_squares(fit.u[None], fit.predicted[None], fit.jacobian[None])
    matrix = stacked[0].T @ stacked[0]
    kept, place = [fit.u], np.zeros(len(fit.starts), dtype=int)
    for k in np.argsort(fit.start_costs, kind="stable"):
        distance = [(fit.starts[k] - u) @ matrix @ (fit.starts[k] - u) for u in kept]
        place[k] = int(np.argmin(distance))
        if distance[place[k]] > SAME_START:
            place[k] = len(kept)
            kept.append(fit.starts[k])
    return np.array(kept), place


def joined(first: list[dict], second: list[dict]) -> list[dict]:
    """Two histories as one, iterations counted on."""
    start = first[-1]["iteration"] + 1
    return first + [{**entry, "iteration": entry["iteration"] + start} for entry in second]
