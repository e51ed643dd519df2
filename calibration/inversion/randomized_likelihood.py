"""Posterior draws beyond the Gaussian: every draw is the minimum of the cost with perturbed data and prior.

Randomized maximum likelihood (Kitanidis 1995; Oliver, He and Reynolds 1996): exact where the model is linear, and it
follows the bends of a posterior where it is not, at the price of a few emulator runs a draw. All draws move in one
batch: along Gauss-Newton steps with the Jacobian of their mode first; those that end far above what the linear model
promised then look whether another draw has found a better place for them too, and go on with Jacobians of their own.

Where a posterior bends the minima may lie half a standard deviation off its middle (demo's emulator, a year of NEP,
against long chains). Where a quadratic model of the fluxes says so, each draw then takes a few Metropolis steps, which
have the posterior itself as their limit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from calibration.inversion.problem import InversionProblem

STEPS = 4  # Gauss-Newton steps of a draw at most with the Jacobian of its mode
SETTLED = 0.02  # a draw whose cost falls, or can be expected to fall, by less has arrived
MATCHED = 2  # draws a latent direction from which the linear draws get their exact covariance
EXCESS = 2.0  # a draw whose cost is higher by more than at its linear minimum is followed further
WORTH = 0.5  # a place of another draw is taken over where it lowers the cost by more
ROUNDS, OWN_STEPS = 2, 5  # times that places are compared, and steps with a Jacobian of its own after each
FAILED = 1e6  # whitened residual of a run that failed
DEAR_ROUNDS = 3  # runs of a draw, after its first, by a model whose runs are dear
EXACT_STEPS = 8  # Metropolis steps of a draw by the model itself
BETWEEN = 60  # steps on the quadratic model between two of them
ANEW = (0.04, 0.25, 1.0)  # shares of the proposal's variance that are drawn anew, by chance one of them
OTHERS = 1 / 3  # share of the steps on the quadratic model along the directions that do not bend
BENDING = 0.3  # share of the prior's precision that the data add along a direction whose bends are looked at
FEWEST = 40  # draws around a mode from which its bends are known
ROUNDING = 1e-9  # by which a draw on the latent limit may seem to lie beyond it
LOOK = 400  # steps on the quadratic model that tell how far the draws are off
ASTRAY = 0.15  # sds by which they are off in the mean, or share by which in the spread, from which they are moved on


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


def randomized_minima(
    problem: InversionProblem,
    modes: Sequence[Mode],
    counts: Sequence[int],
    rng: np.random.Generator,
    dear: InversionProblem | None = None,
) -> tuple[np.ndarray, float]:
    """(draw, size) latent: minima of perturbed costs, counts[k] of them looked for from modes[k] on; and the share of
    draws that had not come to rest when the last step was made.

    What is left to chance is where the minima of the true model lie, not those of the linear one: its draws have
    their exact mean and, with enough draws, their exact covariance. dear: the same problem by a model with dear runs,
    for which `problem` stands; its minima are looked for in the end, and draws where it fails are left out.
    """
    draws = _Draws(problem, [(mode, count) for mode, count in zip(modes, counts, strict=True) if count], rng)
    draws.follow_modes()
    for _ in range(ROUNDS):
        moved = draws.take_better_places()
        astray = np.flatnonzero(moved | (draws.cost > draws.promised + EXCESS))
        if not len(astray):
            break
        draws.follow_own_slopes(astray)
    if dear is None:
        return draws.u, 0.0
    moving = draws.settle(dear)
    good = draws.cost < FAILED
    return draws.u[good], len(moving) / len(draws.u)


class _Draws:
    """Perturbed costs and the place u (draw, size) where each draw is.

    noise: (draw, entry) perturbation of the whitened data; target: (draw, size) perturbed prior; misfit: (draw, entry)
    whitened residual of the data as they are at u; cost, promised: (draw,) at u, and of the linear model's minimum;
    slopes: the whitened Jacobian (entry, size) that each draw goes by; wrong: (draw, entry) added to its misfit.
    """

    def __init__(self, problem: InversionProblem, shares: Sequence[tuple[Mode, int]], rng: np.random.Generator) -> None:
        self.problem, self.shares, self.limit = problem, shares, problem.latent.limit
        perturbations = [_perturbations(mode, count, rng) for mode, count in shares]
        self.noise = np.concatenate([noise for noise, _ in perturbations])
        self.target = problem.prior + np.concatenate([shift for _, shift in perturbations])
        self.wrong = np.zeros_like(self.noise)
        self.slopes = [mode.white_jacobian for mode, count in shares for _ in range(count)]
        self.which = np.repeat(np.arange(len(shares)), [count for _, count in shares])
        everyone = np.arange(len(self.target))
        centre = np.concatenate([np.repeat(mode.u[None], count, axis=0) for mode, count in shares])
        at_centre = np.concatenate([np.repeat(self._misfits(m.predicted[None]), count, axis=0) for m, count in shares])
        move = self._linear_step(everyone, centre, at_centre)[0]
        there = at_centre - np.concatenate([
            move[self.which == k] @ mode.white_jacobian.T for k, (mode, _) in enumerate(shares)
        ])  # fmt: skip
        self.promised = self._costs(centre + move, there, everyone)
        self.u = np.clip(centre + move, -self.limit, self.limit)
        self.misfit = self._misfits(problem.costs(self.u)[1])
        self.cost = self._costs(self.u, self.misfit, everyone)

    def follow_modes(self) -> None:
        """STEPS Gauss-Newton steps, shortened where they lead uphill, with the Jacobian of the mode."""
        length, moving = np.ones(len(self.u)), np.arange(len(self.u))
        for _ in range(STEPS):
            step, promise = self._linear_step(moving, self.u[moving])
            moving, step = moving[promise > SETTLED], step[promise > SETTLED]
            if not len(moving):
                break
            gain = self._try(moving, length[moving, None] * step)[0]
            length[moving[gain <= 0]] *= 0.4
            moving = moving[(gain <= 0) | (gain > SETTLED)]

    def take_better_places(self) -> np.ndarray:
        """Move draws to where another one is, if their own cost is clearly lower there; (draw,) bool, who moved.

        The emulator has been there already: no runs. This is what brings a draw out of a local minimum.
        """
        data = np.sum(self.misfit**2, axis=1) + 2 * self.noise @ self.misfit.T + np.sum(self.noise**2, axis=1)[:, None]
        prior = np.sum(self.u**2, axis=1) - 2 * self.target @ self.u.T + np.sum(self.target**2, axis=1)[:, None]
        elsewhere = 0.5 * (data + prior)  # (draw, place)
        best = np.argmin(elsewhere, axis=1)
        moved = elsewhere[np.arange(len(best)), best] < self.cost - WORTH
        rows, places = np.flatnonzero(moved), best[moved]
        self.u[rows], self.misfit[rows] = self.u[places], self.misfit[places]
        self.cost[rows] = self._costs(self.u[rows], self.misfit[rows], rows)
        for row, slope in zip(rows, [self.slopes[place] for place in places], strict=True):
            self.slopes[row] = slope
        return moved

    def follow_own_slopes(self, moving: np.ndarray) -> None:
        """OWN_STEPS Levenberg-Marquardt steps of the draws `moving`, their Jacobians kept up to date by the steps.

        Broyden (1965): every step, uphill or not, tells the slope along it, for no further runs.
        """
        damping, small = np.ones(len(moving)), np.zeros(len(moving), dtype=int)
        for _ in range(OWN_STEPS):
            slopes = np.stack([self.slopes[row] for row in moving])
            matrix = slopes.transpose(0, 2, 1) @ slopes + (1 + damping)[:, None, None] * np.eye(self.u.shape[1])
            residual = self.misfit[moving] + self.noise[moving]
            downhill = np.einsum("kij,ki->kj", slopes, residual) - (self.u[moving] - self.target[moving])
            gain, step, change = self._try(moving, np.linalg.solve(matrix, downhill[:, :, None])[:, :, 0])
            unforeseen = -change - np.einsum("kij,kj->ki", slopes, step)
            unforeseen[~np.isfinite(unforeseen)] = 0.0
            length = np.maximum(np.sum(step**2, axis=1), 1e-12)
            slopes += unforeseen[:, :, None] * (step / length[:, None])[:, None, :]
            for row, slope in zip(moving, slopes, strict=True):
                self.slopes[row] = slope.copy()  # a view would keep every step's array alive
            damping = np.where(gain > 0, 0.2 * damping, 6 * damping)
            small = np.where((gain > 0) & (gain < SETTLED), small + 1, np.where(gain > 0, 0, small))
            going = small < 2
            moving, damping, small = moving[going], damping[going], small[going]
            if not len(moving):
                break

    def settle(self, dear: InversionProblem) -> np.ndarray:
        """Bring the draws to rest by the residuals of `dear`: a run of it a draw and round tells by how much the cheap
        problem is wrong there, which is taken off while the draw goes on by the cheap one's slopes.

        A round that ends higher is taken back, and has taught the cheap problem better. Returns whose cost the last
        round still lowered by more than WORTH.
        """
        cheap, moving = self.problem, np.arange(len(self.u))
        self.misfit, self.cost = self._dearly(dear, moving)
        for k in range(DEAR_ROUNDS):
            if k:
                moving = np.flatnonzero(np.isin(np.arange(len(self.u)), moving) | self.take_better_places())
            cheap.forward.learn()
            u, exact, cost = self.u[moving], self.misfit[moving], self.cost[moving]
            predicted = cheap.costs(u)[1]
            self.wrong[moving] = exact - self._misfits(predicted)
            slopes = -cheap.least_squares(u, predicted, cheap.jacobian(u, predicted))[1][:, : exact.shape[1]]
            for row, slope in zip(moving, slopes, strict=True):
                self.slopes[row] = slope
            self.follow_own_slopes(moving)
            there, after = self._dearly(dear, moving)
            gain = cost - after
            lower = gain > 0
            self.misfit[moving], self.cost[moving] = np.where(lower[:, None], there, exact), np.minimum(after, cost)
            self.u[moving[~lower]] = u[~lower]
            onward = ~lower | (gain > SETTLED)
            if k == DEAR_ROUNDS - 1 or not onward.any():
                break
            moving = moving[onward]
        return moving[(gain > WORTH) & (after < FAILED)]

    def _dearly(self, dear: InversionProblem, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residuals (row, entry) and costs (row,) by `dear` where the draws are; huge where it fails."""
        misfit = np.nan_to_num(self._misfits(dear.costs(self.u[rows])[1]), nan=FAILED)
        return misfit, self._costs(self.u[rows], misfit, rows)

    def _try(self, rows: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Go by `step` (row, size) where it lowers the cost: gains (row,), steps inside the limit, misfits' change."""
        before = self.u[rows]
        trial = np.clip(before + step, -self.limit, self.limit)
        misfit = self._misfits(self.problem.costs(trial)[1]) + self.wrong[rows]
        cost = np.nan_to_num(self._costs(trial, misfit, rows), nan=np.inf)
        gain, change = self.cost[rows] - cost, misfit - self.misfit[rows]
        better = gain > 0
        self.u[rows[better]], self.misfit[rows[better]] = trial[better], misfit[better]
        self.cost[rows[better]] = cost[better]
        return gain, trial - before, change

    def _linear_step(
        self, rows: np.ndarray, u: np.ndarray, misfit: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Steps (row, size) from u (row, size) to the minimum of the linear model with the modes' Jacobians, and by how
        much that would lower the cost (row,).
        """
        step, promise = np.empty_like(u), np.empty(len(u))
        residual = (self.misfit[rows] if misfit is None else misfit) + self.noise[rows]
        for k, (mode, _) in enumerate(self.shares):
            here = self.which[rows] == k
            slope = residual[here] @ mode.white_jacobian - (u[here] - self.target[rows[here]])
            step[here] = slope @ mode.covariance
            promise[here] = 0.5 * np.sum(slope * step[here], axis=1)
        return step, promise

    def _misfits(self, predicted: np.ndarray) -> np.ndarray:
        return _whitened(self.problem, predicted)

    def _costs(self, u: np.ndarray, misfit: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Perturbed cost (row,): half the squared residuals and distances to the target."""
        residual = misfit + self.noise[rows]
        return 0.5 * np.sum(residual**2, axis=1) + 0.5 * np.sum((u - self.target[rows]) ** 2, axis=1)


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


def metropolis(
    problem: InversionProblem, modes: Sequence[Mode], u: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The draws u (draw, size) after EXACT_STEPS Metropolis steps each.

    A step is BETWEEN steps on a quadratic model of the fluxes that the draws themselves have told, accepted or not by
    the model as it is (surrogate transitions, Liu 2001, ch. 9.4.3): exact whatever the quadratic model is worth, and
    one run a step. The first step's proposals improve it once. Draws of a mode that has too few stay, and so do those
    that the quadratic model finds right: steps would only make them less evenly spread.
    """
    u = u.copy()
    away = np.stack([np.linalg.solve(mode.factor, (u - mode.u).T).T for mode in modes])  # in sds of each mode
    size = [np.linalg.slogdet(mode.factor)[1] for mode in modes]
    nearest = np.argmin(0.5 * np.sum(away**2, axis=2) + np.array(size)[:, None], axis=0)
    for k, mode in enumerate(modes):
        rows = np.flatnonzero(nearest == k)
        if len(rows) < FEWEST:
            continue
        here = u[rows]
        cost, predicted = problem.costs(here)
        places, misfits = [here.copy()], [_whitened(problem, predicted)]
        model = _Quadratic(problem, mode, places[0], misfits[0])
        if model.astray(here, rng) < ASTRAY:
            continue
        for step in range(EXACT_STEPS):
            before, (there, after) = model.cost(model.white(here)), model.wander(here, rng)
            exact, predicted = problem.costs(there)
            accepted = np.log(rng.random(len(here))) < (cost - exact) - (before - after)
            if step == 0:
                places.append(there), misfits.append(_whitened(problem, predicted))
                model = _Quadratic(problem, mode, np.concatenate(places), np.concatenate(misfits))
            here[accepted], cost[accepted] = there[accepted], exact[accepted]
        u[rows] = here
    return u


class _Quadratic:
    """The cost around a mode by a model of the fluxes that is linear in the parameters, and quadratic along the few
    directions that the data inform.

    z (draw, size): coordinates along the eigenvectors of the mode's covariance, in its standard deviations, the most
    informed first. The misfit is `columns` times terms(z), so that its square needs no more than their products.
    """

    def __init__(self, problem: InversionProblem, mode: Mode, u: np.ndarray, misfit: np.ndarray) -> None:
        """u (draw, size) and misfit (draw, entry), whitened, tell the bends."""
        self.centre, self.prior, self.limit = mode.u, problem.prior, problem.latent.limit
        information, self.axes = np.linalg.eigh(mode.white_jacobian.T @ mode.white_jacobian)
        information, self.axes = np.maximum(information[::-1], 0.0), self.axes[:, ::-1]
        self.sd, self.bending = 1 / np.sqrt(1 + information), int(np.sum(information > BENDING))
        slopes = -mode.white_jacobian @ self.axes * self.sd
        linear = np.column_stack([_whitened(problem, mode.predicted[None])[0], slopes])
        good = np.isfinite(misfit).all(axis=1)
        z = self.white(u[good])
        bends, left = self._products(z), misfit[good] - np.column_stack([np.ones(len(z)), z]) @ linear.T
        # One sd of a bend's size is expected of it: few draws must not invent bends.
        found = np.linalg.solve(bends.T @ bends + np.eye(bends.shape[1]), bends.T @ left)
        columns = np.column_stack([linear, found.T])
        self.products = columns.T @ columns

    def white(self, u: np.ndarray) -> np.ndarray:
        """u (draw, size) latent -> z."""
        return (u - self.centre) @ self.axes / self.sd

    def place(self, z: np.ndarray) -> np.ndarray:
        """z -> u (draw, size) latent."""
        return self.centre + (z * self.sd) @ self.axes.T

    def _products(self, z: np.ndarray) -> np.ndarray:
        """1, z and z z along the bending directions: (draw, term)."""
        z = z[:, : self.bending]
        one, other = np.triu_indices(self.bending)
        return np.column_stack([np.ones(len(z)), z, z[:, one] * z[:, other]])

    def cost(self, z: np.ndarray) -> np.ndarray:
        """Cost (draw,), infinite beyond the latent limit."""
        u = self.place(z)
        terms = np.column_stack([np.ones(len(z)), z, self._products(z)])
        cost = 0.5 * np.sum(terms @ self.products * terms, axis=1) + 0.5 * np.sum((u - self.prior) ** 2, axis=1)
        return np.where(np.abs(u).max(axis=1) <= self.limit + ROUNDING, cost, np.inf)

    def wander(self, u: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Where u (draw, size) are after BETWEEN steps on this cost, and the cost there."""
        *_, (z, cost) = self._steps(self.white(u), BETWEEN, rng)
        return self.place(z), cost

    def astray(self, u: np.ndarray, rng: np.random.Generator) -> float:
        """By how many sds u (draw, size) are off this cost's posterior in the mean along a bending direction, or by
        which share in the spread, whichever is largest.
        """
        start = self.white(u)
        path = [z[:, : self.bending] for z, _ in self._steps(start.copy(), LOOK, rng)][LOOK // 4 :]
        if not self.bending:
            return 0.0
        mean, sd = np.mean(path, axis=(0, 1)), np.std(path, axis=(0, 1))
        start = start[:, : self.bending]
        return float(max(np.abs((start.mean(axis=0) - mean) / sd).max(), np.abs(np.log(start.std(axis=0) / sd)).max()))

    def _steps(
        self, z: np.ndarray, steps: int, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """z (draw, size) and their cost after each step: preconditioned Crank-Nicolson (Cotter et al. 2013), on the
        bending directions or the others. By chance, not in turn: these steps must be the same backwards.
        """
        cost, bending = self.cost(z), np.arange(z.shape[1]) < self.bending
        for _ in range(steps):
            block = (rng.random((len(z), 1)) < OTHERS) ^ bending
            anew = rng.choice(ANEW, size=(len(z), 1)) * block
            trial = np.sqrt(1 - anew) * z + np.sqrt(anew) * rng.standard_normal(z.shape)
            there = self.cost(trial)
            gain = cost - there + 0.5 * np.sum(trial**2 - z**2, axis=1)
            accepted = np.log(rng.random(len(z))) < gain
            z, cost = np.where(accepted[:, None], trial, z), np.where(accepted, there, cost)
            yield z, cost


def _whitened(problem: InversionProblem, predicted: np.ndarray) -> np.ndarray:
    """Whitened residuals (row, entry) of predictions (row, entry) Mg C ha-1 day-1."""
    return problem.whiten(problem.value - torch.as_tensor(predicted)).numpy()
