"""The posterior by tempering: `posterior: tempered`, for ranges so wide that it bends, or has several valleys.

Randomized draws and chains start where the search ended, and stay near it. Here particles are drawn from the prior and
the likelihood is let in by degrees, so that they find valleys and ridges wherever they are, and how much each holds
(sequential Monte Carlo, Del Moral et al. 2006; degrees by effective sample size, Jasra et al. 2011). Between two
degrees they move. The data inform some ten directions of 36: along these a particle jumps by the difference of two
others (ter Braak 2006), which follows ridges; all others are drawn anew like the prior (Cui et al. 2014). Which they
are is told by slopes at some of the particles, not by their spread, which would shrink in every direction.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibration.common.command_line import UserError, silent
from calibration.inversion.config import InversionConfig
from calibration.inversion.methods import Fit, gauss_newton
from calibration.inversion.posterior import Posterior, laplace_posterior
from calibration.inversion.problem import InversionProblem
from calibration.inversion.solvers import distinct_starts

PARTICLES, POPULATIONS = 256, 2  # in all, at first; no particle goes from one population to another
LEFT = 0.5  # effective share of the particles that a degree leaves
CYCLES, LAST_CYCLES = 3, 6  # of moves after each degree, and with all of the likelihood: these states are the draws
SLOPES = 4  # particles at which the slopes are looked at, a degree
REMEMBERED = 0.6  # weight of what slopes have told before
INFORMED = 0.1  # mean share of a direction's prior variance that the data take away, from which they inform it
ACCEPTED = 0.25  # of the jumps, to which their length is adapted
WHOLE = 0.1  # share of the jumps by a whole difference: from valley to valley
ANEW = (0.1, 0.3, 1.0)  # shares of the prior's variance that are drawn anew along the other directions
ALONG = (0.1, 0.5)  # the same, of the population's Gaussian, along the informed ones
BESIDE = 0.1  # share that is drawn anew along the other directions in a jump
AGREED = 1.05  # R-hat of the populations below which they agree (1.003 is that of independent draws, 128 each)
SAME_EVIDENCE = 1.5  # log evidence by which they may differ; its own error is some 0.3 to 0.5
LOWER = 0.5  # a place whose cost is lower by less is the same estimate
BEST = 4  # particles from which the search goes on
REDRAWN = 50  # times that particles of the prior are drawn anew where the cost is not finite
EXPECTED = 22000  # runs, for the time that is said beforehand


@dataclass(frozen=True)
class Tempering:
    """How it went; r_hat: (size,) of the populations, by free parameter (and offset)."""

    r_hat: np.ndarray
    evidence: float  # difference of the populations' log evidence
    particles: int
    degree: float  # share of the log likelihood that was let in
    degrees: int
    ancestors: int  # particles of the prior that have descendants
    runs: int
    seconds: float
    gain: float  # by which a second search, from the particles too, ended lower than the first

    @property
    def converged(self) -> bool:
        """Whether all of the likelihood was let in and the populations agree; what both missed is not seen."""
        return self.degree == 1.0 and bool((self.r_hat < AGREED).all()) and self.evidence < SAME_EVIDENCE

    def attributes(self) -> dict[str, object]:
        """For the file that ArviZ reads; lists by free parameter, offsets last."""
        return {
            "sampler": "tempering", "converged": int(self.converged), "r_hat": self.r_hat,
            "log_evidence_difference": self.evidence,
            "particles": self.particles, "ancestors": self.ancestors, "degrees": self.degrees,
        }  # fmt: skip

    def sentence(self, names: Sequence[str]) -> str:
        """In words, with the parameters (`names`: free ones) in which the populations differ."""
        if self.degree < 1.0:
            share = min(99, int(100 * self.degree))
            return (
                f"TEMPERING NOT FINISHED, the randomized draws stand: {share} percent of the log likelihood let in "
                f"after {self.seconds:.0f} s. Give more time (--mcmc-minutes), or fewer --free"
            )
        numbers = (
            f"{self.particles} particles in {POPULATIONS} populations, {self.degrees} degrees, {self.runs} runs, "
            f"{self.seconds:.0f} s; {self.ancestors} particles of the prior have descendants, largest R-hat "
            f"{self.r_hat.max():.2f}, log evidences {self.evidence:.1f} apart"
        )
        lower = f". A second search, from them too, ended lower (by {self.gain:.1f})" if self.gain else ""
        if self.converged:
            return f"tempering finished, and its populations agree: {numbers}{lower}"
        labels = [*names, *[f"offset {k + 1}" for k in range(len(self.r_hat) - len(names))]]
        apart = [name for name, r in zip(labels, self.r_hat, strict=True) if r >= AGREED] or ["their evidence"]
        return (
            f"tempering finished, but ITS POPULATIONS DIFFER in {', '.join(apart)} (asked are an R-hat below {AGREED} "
            f"and log evidences {SAME_EVIDENCE} apart); intervals hold both and are rough: {numbers}{lower}. "
            "More time: --mcmc-minutes"
        )


class Particles:
    """Particles on their way from the prior to the posterior of a problem.

    u (particle, size) latent; likelihood (particle,) log likelihood there; ancestor (particle,) the particle of the
    prior that each stems from; population (particle,).
    """

    def __init__(self, problem: InversionProblem, count: int, seed: int) -> None:
        self.problem, self.rng = problem, np.random.default_rng(seed)
        self.runs, self.degree, self.length = 0, 0.0, 1.0
        self.u = self._of_the_prior(count)
        self.likelihood, self.ancestor = self._likelihood(self.u), np.arange(count)
        for _ in range(REDRAWN):  # where the cost is not finite the posterior is zero
            bad = np.flatnonzero(~np.isfinite(self.likelihood))
            if not len(bad):
                break
            self.u[bad] = self._of_the_prior(len(bad))
            self.likelihood[bad] = self._likelihood(self.u[bad])
        else:
            raise UserError(
                "posterior tempered: the cost is not finite at most draws of the prior; use posterior draws"
            )
        self.population = np.arange(count) * POPULATIONS // count
        self.evidence = np.zeros(POPULATIONS)
        self.taken = np.zeros((problem.size, problem.size))
        self.informed, self.others = self.taken[:, :0], np.eye(problem.size)

    def _of_the_prior(self, count: int) -> np.ndarray:
        """(count, size): normal around the prior, inside the bounds."""
        u = self.problem.prior + self.rng.standard_normal((count, self.problem.size))
        while (beyond := np.abs(u) > self.problem.latent.limit).any():
            u[beyond] = self.problem.prior[np.nonzero(beyond)[1]] + self.rng.standard_normal(beyond.sum())
        return u

    def _likelihood(self, u: np.ndarray) -> np.ndarray:
        """Log likelihood (particle,) up to a constant, -inf beyond the bounds."""
        inside = (np.abs(u) <= self.problem.latent.limit).all(axis=1)
        found = np.full(len(u), -np.inf)
        if inside.any():
            cost = self.problem.costs(u[inside])[0]
            found[inside] = 0.5 * np.sum((u[inside] - self.problem.prior) ** 2, axis=1) - cost
        self.runs += int(inside.sum())
        return found

    def let_in(self) -> None:
        """Let in as much more of the likelihood as leaves LEFT of the particles effective, and draw from these."""
        low, high = self.degree, 1.0
        if self._effective(high) < LEFT:
            for _ in range(100):
                middle = 0.5 * (low + high)
                low, high = (middle, high) if self._effective(middle) > LEFT else (low, middle)
            high = low
        for k, rows in enumerate(self._populations()):
            log_weight = (high - self.degree) * self.likelihood[rows]
            weight = _weights(log_weight)
            self.evidence[k] += log_weight.max() + np.log(np.mean(np.exp(log_weight - log_weight.max())))
            # Systematic resampling: evenly spaced places on the sum of the weights.
            places = (self.rng.random() + np.arange(len(rows))) / len(rows)
            drawn = rows[np.minimum(np.searchsorted(np.cumsum(weight), places), len(rows) - 1)]
            for values in (self.u, self.likelihood, self.ancestor):
                values[rows] = values[drawn]
        self.degree = high

    def _effective(self, degree: float) -> float:
        """Effective share of the particles at another degree, in the population where it is least."""
        weights = [_weights((degree - self.degree) * self.likelihood[rows]) for rows in self._populations()]
        return float(min(1 / (len(w) * np.sum(w**2)) for w in weights))

    def _populations(self) -> list[np.ndarray]:
        return [np.flatnonzero(self.population == k) for k in range(POPULATIONS)]

    def look(self) -> None:
        """Which directions the data inform at this degree, by the slopes at SLOPES particles."""
        some = self.u[self.rng.choice(len(self.u), SLOPES, replace=False)]
        predicted = self.problem.costs(some)[1]
        jacobian = self.problem.jacobian(some, predicted)
        self.runs += len(some) * (1 + self.problem.size)
        white = self.problem.least_squares(some, predicted, jacobian)[1][:, : predicted.shape[1]]
        told = self.degree * np.matmul(white.transpose(0, 2, 1), white)
        told = told[np.isfinite(told).all(axis=(1, 2))]
        if not len(told):
            return
        share = np.mean(np.linalg.solve(np.eye(self.problem.size) + told, told), axis=0)
        self.taken = share if not self.taken.any() else REMEMBERED * self.taken + (1 - REMEMBERED) * share
        values, directions = np.linalg.eigh(0.5 * (self.taken + self.taken.T))
        self.informed, self.others = directions[:, values > INFORMED], directions[:, values <= INFORMED]

    def cycle(self) -> None:
        """One move of each kind for every particle."""
        # Half of each population moves by what the other half is like: its own state would change under it.
        first = self.rng.permutation(np.arange(len(self.u)) % 2 == 0)
        halves = [(np.flatnonzero(half), ~half) for half in (first, ~first)]
        rates = [self._try(rows, *self._jump(rows, others)) for rows, others in halves]
        self.length = float(np.clip(self.length * np.exp(np.mean(rates) - ACCEPTED), 0.05, 2.0))
        everyone = np.arange(len(self.u))
        self._try(everyone, *self._anew(everyone))
        for rows, others in halves:
            self._try(rows, *self._along(rows, others))

    def _try(self, rows: np.ndarray, trial: np.ndarray, backward: np.ndarray) -> float:
        """Metropolis-Hastings: trial (row, size); backward (row,) log density of the move back over that of the move.
        Returns the share accepted.
        """
        there, prior = self._likelihood(trial), self.problem.prior
        away = np.sum((self.u[rows] - prior) ** 2, axis=1) - np.sum((trial - prior) ** 2, axis=1)
        gain = self.degree * (there - self.likelihood[rows]) + 0.5 * away + backward
        accepted = np.log(self.rng.random(len(rows))) < gain
        self.u[rows[accepted]], self.likelihood[rows[accepted]] = trial[accepted], there[accepted]
        return float(accepted.mean()) if len(rows) else ACCEPTED

    def _jump(self, rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """By the difference of two of the particles `others` of its population, along the informed directions."""
        one, other = np.empty(len(rows), dtype=int), np.empty(len(rows), dtype=int)
        for k in range(POPULATIONS):
            here = self.population[rows] == k
            pool = np.flatnonzero((self.population == k) & others)
            for chosen in (one, other):
                chosen[here] = self.rng.choice(pool, here.sum())
        shape = (len(rows), 1)
        usual = self.length * 2.38 / np.sqrt(2 * max(1, self.informed.shape[1]))
        length = usual * np.exp(0.5 * self.rng.standard_normal(shape))
        length = np.where(self.rng.random(shape) < WHOLE, 1.0, length)
        step = length * (self.u[one] - self.u[other]) @ self.informed
        step += 1e-3 * self.rng.standard_normal(step.shape)  # so that any place can be reached
        aside, backward = self._like_the_prior(rows, BESIDE)
        return self.u[rows] + step @ self.informed.T + aside, backward

    def _anew(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The other directions anew, like the prior."""
        aside, backward = self._like_the_prior(rows, self.rng.choice(ANEW, size=(len(rows), 1)))
        return self.u[rows] + aside, backward

    def _like_the_prior(self, rows: np.ndarray, share) -> tuple[np.ndarray, np.ndarray]:
        """Steps (row, size) along the other directions (preconditioned Crank-Nicolson, Cotter et al. 2013)."""
        before = (self.u[rows] - self.problem.prior) @ self.others
        after = np.sqrt(1 - share) * before + np.sqrt(share) * self.rng.standard_normal(before.shape)
        return (after - before) @ self.others.T, 0.5 * np.sum(after**2 - before**2, axis=1)

    def _along(self, rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The informed directions anew, like the Gaussian of the particles `others` of its population."""
        trial, backward = self.u[rows].copy(), np.zeros(len(rows))
        if not self.informed.shape[1]:
            return trial, backward
        for k in range(POPULATIONS):
            here, known = self.population[rows] == k, self.u[(self.population == k) & others] @ self.informed
            mean, covariance = known.mean(axis=0), np.atleast_2d(np.cov(known, rowvar=False))
            spread = 1.1 * np.linalg.cholesky(covariance + 1e-8 * np.eye(len(covariance)))
            before = np.linalg.solve(spread, (self.u[rows[here]] @ self.informed - mean).T).T
            share = self.rng.choice(ALONG, size=(len(before), 1))
            after = np.sqrt(1 - share) * before + np.sqrt(share) * self.rng.standard_normal(before.shape)
            trial[here] += (after - before) @ spread.T @ self.informed.T
            backward[here] = 0.5 * np.sum(after**2 - before**2, axis=1)
        return trial, backward


def _weights(log_weight: np.ndarray) -> np.ndarray:
    """Weights that sum to 1."""
    weight = np.exp(log_weight - log_weight.max())
    return weight / weight.sum()


def temper(
    problem: InversionProblem, seed: int, seconds: float, say: Callable[[str], object], count: int = PARTICLES
) -> tuple[Particles, np.ndarray, Tempering]:
    """The particles at the end, draws (chain, draw, size) latent, a chain for each population, and how it went.

    Where the populations do not agree it begins again with twice as many, as long as `seconds` do. Where they do not
    even do for the first time, it ends at a lower degree, and there are no draws.
    """
    begin, ended, runs = time.perf_counter(), None, 0
    while True:
        found = _once(problem, seed, begin, seconds, say if ended is None else silent, count)
        runs += found[2].runs
        if ended is None or found[2].degree == 1.0:
            ended = found
        spent = time.perf_counter() - begin
        if ended[2].converged or found[2].degree < 1.0 or 3 * spent > seconds:
            particles, draws, tempering = ended
            return particles, draws, replace(tempering, runs=runs, seconds=spent)
        count *= 2


def _once(
    problem: InversionProblem, seed: int, begin: float, seconds: float, say: Callable[[str], object], count: int
) -> tuple[Particles, np.ndarray, Tempering]:
    """As `temper`, with `count` particles and no second time; `seconds` count from `begin`."""
    now = time.perf_counter()
    particles = Particles(problem, count, seed)
    likely = (time.perf_counter() - now) / particles.runs * EXPECTED
    say(f"tempered: {count} particles, about {likely:.0f} s, more where they disagree; at most {seconds:.0f} s")
    degrees, states = 0, []
    while time.perf_counter() < begin + seconds and len(states) < LAST_CYCLES:
        if particles.degree < 1.0:
            particles.let_in()
            particles.look()
            degrees += 1
            for _ in range(CYCLES):
                particles.cycle()
        else:
            particles.cycle()
            states.append(particles.u.copy())
    degree, r_hat = particles.degree, np.full(problem.size, np.inf)
    draws = np.empty((POPULATIONS, 0, problem.size))
    if len(states) == LAST_CYCLES:
        draws = np.stack(states).reshape(LAST_CYCLES, POPULATIONS, -1, problem.size).transpose(1, 0, 2, 3)
        r_hat = populations_r_hat(draws.reshape(POPULATIONS, -1, problem.size))
        some = draws[:, :, :: max(1, count // PARTICLES)]  # as many, from more particles
        draws = some.reshape(POPULATIONS, -1, problem.size)
    else:
        degree = min(degree, 0.999)  # all of it, but not the cycles that make the draws
    found = Tempering(
        r_hat, float(np.ptp(particles.evidence)), count, degree, degrees, len(np.unique(particles.ancestor)),
        particles.runs, time.perf_counter() - begin, 0.0,
    )  # fmt: skip
    return particles, draws, found


def populations_r_hat(draws: np.ndarray) -> np.ndarray:
    """R-hat by ranks (Vehtari et al. 2021) of the populations, (size,); draws (chain, draw, size)."""
    import arviz

    return np.array([float(arviz.rhat(draws[:, :, i])) for i in range(draws.shape[2])])


def tempered_posterior(
    problem: InversionProblem,
    fit: Fit,
    search: Callable[[np.ndarray], Fit],
    draws_of: Callable[[Fit], Posterior],
    minutes: float,
    config: InversionConfig,
    say: Callable[[str], object],
) -> tuple[Fit, Posterior]:
    """The fit, by a second search from the best particles too where that ends lower, and the posterior by tempering.

    search: the fit from starts (start, size), error model included, which is then another: it is tempered again.
    draws_of: the randomized draws around a fit, which stand where the time does not do.
    """
    begin = time.perf_counter()
    particles, draws, found = temper(problem, config.seed, 60 * minutes, say)
    best = np.argsort(0.5 * np.sum((particles.u - problem.prior) ** 2, axis=1) - particles.likelihood)[:BEST]
    second = gauss_newton(problem, np.vstack([distinct_starts(problem, fit)[0], particles.u[best]]), config)
    gain = fit.cost - second.cost
    if gain > LOWER:
        fit = search(second.starts[np.argsort(second.start_costs)])
        left = begin + 60 * minutes - time.perf_counter()
        particles, draws, found = temper(problem, config.seed + 1, left, silent)
        found = replace(found, gain=gain, seconds=time.perf_counter() - begin)
    if found.degree < 1.0:
        return fit, replace(draws_of(fit), diagnostics=found)
    around = laplace_posterior(problem, fit, 1, config.seed)  # where the starts ended, and the spread there
    free = len(problem.latent.free)
    flat = draws.reshape(-1, problem.size)
    # Whoever takes the first few draws gets a fair share of all.
    flat = flat[np.random.default_rng(config.seed).permutation(len(flat))]
    return fit, replace(
        around, latent=flat, physical=problem.latent.physical_array(flat[:, :free]),
        offsets=problem.offset_sd * flat[:, free:], method="tempered", diagnostics=found,
        chains=problem.latent.physical_array(draws[:, :, :free]), mode_weights=_shares(flat, around),
    )  # fmt: skip


def _shares(draws: np.ndarray, around: Posterior) -> np.ndarray:
    """(mode,) share of the draws (draw, size) that lie nearest each place where starts ended."""
    precision = np.linalg.inv(around.covariance)
    away = draws[:, None, :] - around.modes
    nearest = np.argmin(np.einsum("dmi,ij,dmj->dm", away, precision, away), axis=1)
    return np.bincount(nearest, minlength=len(around.modes)) / len(draws)
