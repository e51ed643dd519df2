"""The best that any parameters inside the bounds reach: least squares without prior and without error model.

An estimate trades fit against prior and puts slow misfit into the error model; its RMSE alone makes the tool look like
a poor fitter where it declines to bend parameters. This number says what bending all of them would have gained.
"""

import time
from dataclasses import dataclass, replace

import numpy as np

from calibration.common.units import FLUX_UNIT
from calibration.inversion.config import target_label
from calibration.inversion.data import Stretch
from calibration.inversion.methods import gauss_newton, starting_points
from calibration.inversion.problem import InversionProblem
from calibration.judgement.fit import scores
from inverse_estimator import InversionResult, StaticParameterInverter

SPREADS = (1.0, 2.0, 4.0)  # of the draws that are looked at first, latent: from the prior to the corners of the box
DRAWS = 40  # of each spread
STARTS = 2  # of these draws, the best; beside the estimate itself
PLACES = np.array([-1.0, 0.0, 1.0])  # a parameter is tried on its bounds and in its middle
TOGETHER = (1, 2, 3, 5, 8)  # moves of that kind that are made at once
ENOUGH = 1e-4  # relative fall of the squared error that another round must bring
ROUNDS = 8  # of moves at most


@dataclass(frozen=True)
class Reach:
    """The least RMSE that parameters inside the bounds have on the fitted days of one flux."""

    target: str
    rmse: float  # Mg C ha-1 day-1
    r2: float  # against the observed mean
    parameters: np.ndarray  # (parameter,) physical
    offset: float | None  # Mg C ha-1 day-1 added to the flux; None: no offset was allowed
    seconds: float

    def sentence(self, estimate: float, constant: float) -> str:
        """One line for the summary; RMSE of the estimate and of a constant on the same days."""
        free = "" if self.offset is None else f" with a constant of {self.offset:+.4f}"
        return (
            f"{target_label(self.target)} RMSE {self.rmse:.4f} {FLUX_UNIT}{free} (by the emulator, without prior and "
            f"discrepancy; the estimate {estimate:.4f}, a constant {constant:.4f})"
        )

    def as_record(self) -> dict[str, float | str]:
        """Plain values for params_snapshot.json."""
        return {"target": self.target, "rmse": self.rmse, "r2": self.r2, "seconds": round(self.seconds, 2)}


def best_inside_bounds(
    inverter: StaticParameterInverter, result: InversionResult, stretches: list[Stretch], target: str
) -> Reach | None:
    """Search from the estimate of `result` and the best of some draws; None where the fit had no bounds.

    The same parameters are free as in the fit, and an offset where the fit had one. RMSE and R2 are of `target` alone.
    """
    latent, begin = result.problem.latent, time.perf_counter()
    if latent.space is None or target not in result.config.targets:
        return None
    config = replace(inverter.config, method="gauss_newton", target_variable=target, lambda_prior=0.0)
    problem = inverter.with_config(config).problem(result.prior, stretches, free=latent.free_names)
    free = len(latent.free)
    estimate = result.fit.u[:free]
    if problem.offsets:
        own = result.fit.u[free + result.config.targets.index(target)] if result.problem.offsets else 0.0
        estimate = np.append(estimate, own)
    draws = [starting_points(problem, DRAWS, config.seed + i, spread) for i, spread in enumerate(SPREADS)]
    draws = np.vstack([estimate, *draws])
    best = np.argsort(problem.costs(draws)[0])[:STARTS]
    fit = gauss_newton(problem, np.vstack([estimate, draws[best]]), config)
    fit = gauss_newton(problem, moved_to_bounds(problem, fit.u, fit.cost)[None], config)
    found = scores(problem.observations.value, fit.predicted)
    offset = problem.offset_values(fit.u).get(target) if problem.offsets else None
    seconds = time.perf_counter() - begin
    return Reach(target, found["rmse"], found["r2"], latent.physical_array(fit.u[:free]), offset, seconds)


def moved_to_bounds(problem: InversionProblem, u: np.ndarray, cost: float) -> np.ndarray:
    """u (size,) with parameters moved to a bound or to their middle while that lowers its `cost`.

    Without a prior the best lies in a corner of the bounds, where slopes in latent units vanish and a search by slopes
    stays in the corner that it came to first.
    """
    free = len(problem.latent.free)
    places = problem.latent.limit * PLACES
    for _ in range(ROUNDS):
        rows = np.tile(u, (free, len(places), 1))
        rows[np.arange(free)[:, None], np.arange(len(places)), np.arange(free)[:, None]] = places
        costs = problem.costs(rows.reshape(-1, len(u)))[0].reshape(free, len(places))
        order, to = np.argsort(costs.min(axis=1)), places[costs.argmin(axis=1)]
        trials = np.tile(u, (len(TOGETHER), 1))
        for trial, count in zip(trials, TOGETHER, strict=True):
            trial[order[:count]] = to[order[:count]]
        costs = problem.costs(trials)[0]
        if costs.min() >= cost * (1 - ENOUGH):
            break
        u, cost = trials[np.argmin(costs)], costs.min()
    return u
