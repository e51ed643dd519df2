"""Three ways to minimise the cost of inversion/problem.py: Levenberg-Marquardt, Adam, and an ensemble smoother."""

from dataclasses import dataclass, field

import numpy as np
import torch

from calibration.common.command_line import progress
from calibration.inversion.config import InversionConfig
from calibration.inversion.problem import InversionProblem

DAMPING_FACTORS = np.array([1e-3, 1e-1, 1.0, 1e1, 1e3])  # tried in one batch, relative to the last one that worked
DAMPING_RANGE = (1e-8, 1e8)
SAME_PLACE = 0.1  # squared distance in posterior standard deviations below which two starts count as one
JOINED = "joined another start"


@dataclass
class Fit:
    """Where a method ended. costs in the units of the problem's cost (likelihood form: minus log posterior)."""

    u: np.ndarray  # (size,) best point
    cost: float
    predicted: np.ndarray  # (entry,) Mg C ha-1 day-1 at u
    starts: np.ndarray  # (start, size) where each start ended
    start_costs: np.ndarray  # (start,)
    reasons: list[str]  # (start,) why each ended
    history: list[dict] = field(default_factory=list)  # per iteration: iteration, cost (best), costs (start,)
    trace: list[np.ndarray] = field(default_factory=list)  # per iteration: best u (size,)
    jacobian: np.ndarray | None = None  # (entry, size) df/du at u
    members: np.ndarray | None = None  # (member, size) posterior ensemble of the ensemble method


def starting_points(problem: InversionProblem, count: int, seed: int, spread: float = 0.8) -> np.ndarray:
    """(count, size): the prior, then random draws around it of `spread` prior standard deviations."""
    draws = np.random.default_rng(seed).standard_normal((max(count - 1, 0), problem.size))
    others = problem.prior + spread * draws
    others[:, len(problem.latent.free) :] = 0.0
    limit = problem.latent.limit
    return np.clip(np.vstack([problem.prior, others]), -limit, limit)


def gauss_newton(problem: InversionProblem, starts: np.ndarray, config: InversionConfig) -> Fit:
    """Levenberg-Marquardt (Marquardt 1963) on the stacked residual, all starts (start, size) in one batch.

    An iteration costs one batch of `size` runs a start for the Jacobian (forward differences) and one of five damping
    values. (Broyden updates between Jacobians were tried: no fewer runs in total.) A start ends when its cost falls by
    less than `tolerance`, when no damping lowers it any more, or when the budget of iterations is used up.
    """
    u = np.array(starts, dtype=np.float64)
    cost, predicted = problem.costs(u)
    problem.check_finite(predicted[0])
    damping = np.ones(len(u))
    reasons = ["iteration budget used up"] * len(u)
    active = np.isfinite(cost)
    for i in np.flatnonzero(~active):
        reasons[i] = "the start is not finite"
    fit = Fit(u[0], cost[0], predicted[0], u, cost, reasons)
    _record(fit, 0, u, cost)
    limit, leader = problem.latent.limit, np.arange(len(u))
    fruitless, small = np.zeros(len(u), dtype=int), np.zeros(len(u), dtype=int)
    bar = progress(range(1, config.gauss_newton.max_iterations + 1), desc="gauss_newton", leave=False)
    for iteration in bar:
        if not active.any():
            break
        now = np.flatnonzero(active)
        jacobian = problem.jacobian(u[now], predicted[now])
        residual, stacked = problem.least_squares(u[now], predicted[now], jacobian)
        gradients = np.einsum("sij,si->sj", stacked, residual)
        matrices = np.matmul(stacked.transpose(0, 2, 1), stacked)
        trial = _damped_steps(u[now], gradients, matrices, damping[now], limit)
        trial_cost, trial_predicted = problem.costs(trial.reshape(-1, problem.size))
        trial_cost = trial_cost.reshape(len(now), -1)
        for k, i in enumerate(now):
            d = int(np.argmin(trial_cost[k]))
            gain = cost[i] - trial_cost[k, d]
            tolerance = config.gauss_newton.tolerance * (1.0 if problem.lambda_prior is None else 0.01 * cost[i])
            if gain <= 0:
                damping[i] = min(damping[i] * 1e4, DAMPING_RANGE[1])
                fruitless[i] += 1
                if fruitless[i] >= 2:
                    active[i], reasons[i] = False, "no damping lowers the cost any more"
                continue
            fruitless[i] = 0
            u[i], cost[i], predicted[i] = trial[k, d], trial_cost[k, d], trial_predicted[k * len(DAMPING_FACTORS) + d]
            damping[i] = np.clip(damping[i] * DAMPING_FACTORS[d], *DAMPING_RANGE)
            # A strongly damped step gains little without being near the minimum: it needs a second one like it.
            small[i] = small[i] + (1 if damping[i] > 10 else 2) if gain < tolerance else 0
            if small[i] >= 2:
                active[i], reasons[i] = False, "converged"
        _join_starts(u, cost, active, leader, now, matrices)
        _record(fit, iteration, u[leader], cost[leader])
    for i in np.flatnonzero(leader != np.arange(len(u))):
        reasons[i], u[i], cost[i] = JOINED, u[leader[i]], cost[leader[i]]
    best = int(np.argmin(cost))
    fit.u, fit.cost, fit.predicted = u[best].copy(), float(cost[best]), predicted[best].copy()
    fit.jacobian = problem.central_jacobian(fit.u)
    return fit


def _damped_steps(u, gradients, matrices, damping, limit: float) -> np.ndarray:
    """Trial points (start, damping value, size): u - (J'J + damping)^-1 J'r inside the latent limit."""
    trial = np.empty((len(u), len(DAMPING_FACTORS), u.shape[1]))
    for k in range(len(u)):
        for d, value in enumerate(np.clip(damping[k] * DAMPING_FACTORS, *DAMPING_RANGE)):
            trial[k, d] = u[k] - np.linalg.solve(matrices[k] + value * np.eye(u.shape[1]), gradients[k])
    return np.clip(trial, -limit, limit)


def _join_starts(u, cost, active, leader, now, matrices) -> None:
    """Let starts that come close to a better one end there: leader (start,) is the start that speaks for each.

    Close: squared distance below SAME_PLACE in units of the posterior, matrices (now, size, size) at the starts `now`.
    """
    order = now[np.argsort(cost[now], kind="stable")]
    for rank, i in enumerate(order):
        for j in order[:rank]:
            k = int(np.flatnonzero(now == j)[0])
            if leader[j] == j and active[i] and (u[i] - u[j]) @ matrices[k] @ (u[i] - u[j]) < SAME_PLACE:
                active[i] = False
                leader[leader == i] = j


def adam(problem: InversionProblem, starts: np.ndarray, config: InversionConfig) -> Fit:
    """Adam (Kingma and Ba 2015) on u, all starts (start, size) in one batch, with a cosine decay of the step.

    The best iterate is kept with the cost measured at that very iterate, before the step that leaves it.
    """
    u = torch.tensor(starts, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([u], lr=config.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.max_iters, eta_min=0.01 * config.lr)
    with torch.no_grad():
        problem.check_finite(problem.predict(u[:1].detach())[0].numpy())
    best_u, best_cost = starts.copy(), np.full(len(starts), np.inf)
    reasons = ["iteration budget used up"] * len(starts)
    fit = Fit(starts[0], np.inf, np.empty(0), best_u, best_cost, reasons)
    limit = problem.latent.limit
    for iteration in progress(range(config.max_iters), desc="adam", leave=False):
        optimizer.zero_grad()
        data, prior = problem.cost(u)
        total = data + prior
        here = np.nan_to_num(total.detach().numpy(), nan=np.inf)
        better = here < best_cost
        best_cost[better], best_u[better] = here[better], u.detach().numpy()[better]
        _record(fit, iteration, best_u, best_cost, here, data.detach().numpy(), prior.detach().numpy())
        total.sum().backward()
        u.grad[~torch.isfinite(u.grad)] = 0.0
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            u.clamp_(-limit, limit)
    best = int(np.argmin(best_cost))
    with torch.no_grad():
        fit.predicted = problem.predict(torch.as_tensor(best_u[best : best + 1]))[0].numpy()
    fit.u, fit.cost = best_u[best].copy(), float(best_cost[best])
    fit.jacobian = problem.central_jacobian(fit.u)
    return fit


def ensemble_smoother(problem: InversionProblem, config: InversionConfig) -> Fit:
    """ES-MDA (Emerick and Reynolds 2013) from iterative_ensemble_smoother: members drawn from the prior and updated
    `iterations` times with the error covariance inflated so that the inverses sum to one.

    The best point is the member mean or member with the lowest cost; the members are samples of the posterior.
    """
    from iterative_ensemble_smoother import ESMDA

    settings = config.ensemble
    rng = np.random.default_rng(config.seed)
    limit = problem.latent.limit
    members = problem.prior[:, None] + rng.standard_normal((problem.size, settings.members))
    smoother = ESMDA(
        covariance=(problem.factor @ problem.factor.T).numpy(), observations=problem.observations.value,
        alpha=settings.iterations, seed=config.seed,
    )  # fmt: skip
    fit = Fit(problem.prior, np.inf, np.empty(0), members.T, np.empty(0), ["iterations done"])
    for iteration in progress(range(settings.iterations), desc="ensemble", leave=False):
        cost, predicted = problem.costs(np.clip(members.T, -limit, limit))
        if iteration == 0:
            problem.check_finite(predicted[0])
        _record(fit, iteration, members.T, cost)
        smoother.prepare_assimilation(Y=predicted.T)
        members = smoother.assimilate_batch(X=members)
    members = np.clip(members.T, -limit, limit)
    candidates = np.vstack([members.mean(axis=0), members])
    cost, predicted = problem.costs(candidates)
    _record(fit, settings.iterations, candidates, cost)
    best = int(np.argmin(cost[:1])) if cost[0] <= np.median(cost) else int(np.argmin(cost))
    fit.u, fit.cost, fit.predicted = candidates[best].copy(), float(cost[best]), predicted[best].copy()
    fit.starts, fit.start_costs, fit.members = fit.u[None], np.array([fit.cost]), members
    fit.jacobian = problem.central_jacobian(fit.u)
    return fit


def _record(fit: Fit, iteration: int, u: np.ndarray, best: np.ndarray, here=None, data=None, prior=None) -> None:
    """Append one iteration: lowest cost so far, the cost of every start, and where the best start is."""
    k = int(np.argmin(best))
    costs = [float(c) for c in (best if here is None else here)]
    entry = {"iteration": iteration, "cost": float(best[k]), "costs": costs}
    if data is not None:
        entry |= {"data": float(data[k]), "prior": float(prior[k])}
    fit.history.append(entry)
    fit.trace.append(u[k].copy())
