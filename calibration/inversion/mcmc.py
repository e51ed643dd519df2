"""The posterior by Markov chains on the batched emulator: `posterior: mcmc`, to the last percent of a sd.

emcee (Foreman-Mackey et al. 2013) moves all walkers in one emulator batch and needs no gradients: a gradient through
some hundred days of LSTM costs several runs, and a batch of one nearly as much as one of fifty, which is what a few
long NUTS chains would have to pay. Walkers do not look at each other once the warm-up is over, so that groups of them
are independent chains and the usual diagnostics hold (R-hat by ranks and effective sample size, Vehtari et al. 2021,
from ArviZ; many short chains in groups: Margossian et al. 2024).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibration.common.command_line import progress
from calibration.inversion.posterior import Posterior
from calibration.inversion.problem import InversionProblem
from calibration.inversion.randomized_likelihood import Mode

GROUPS, WALKERS = 4, 36  # chains that R-hat compares, and walkers of each
R_HAT, EFFECTIVE = 1.01, 400  # stop rule, for every free parameter
WARM_UP, ADAPTATIONS = 24, 3  # steps before each of the adaptations of the proposal
ROUND = 40  # steps between two looks at the stop rule
# Shares of the proposal's variance that a move draws anew, along the directions that the data inform and along the
# others. Drawing one kind all anew goes furthest a run (twice as far as one share of 0.1 to 0.6 for both).
MOVES = ((1.0, 0.0), (0.0, 1.0), (0.3, 0.3))
FIXED = 0.2  # share of a direction's prior variance that the data take away, from which its spread is adapted
WIDER = 1.1  # of the adapted spread: a proposal narrower than the posterior sticks in its tails
KEPT = 1000  # draws that are handed on, about
EXPECTED_STEPS = 160  # after the warm-up, for the time that is said beforehand


@dataclass(frozen=True)
class Diagnostics:
    """How a run of the chains ended; r_hat, effective: (size,) by free parameter (and offset)."""

    r_hat: np.ndarray
    effective: np.ndarray
    acceptance: float
    outside: float  # share of the proposals beyond the bounds, all refused
    steps: int
    seconds: float

    @property
    def converged(self) -> bool:
        """Whether every parameter meets the stop rule."""
        return bool((self.r_hat < R_HAT).all() and (self.effective >= EFFECTIVE).all())

    def attributes(self) -> dict[str, object]:
        """For the file that ArviZ reads; lists by free parameter, offsets last."""
        return {
            "sampler": "emcee", "converged": int(self.converged), "r_hat": self.r_hat, "divergences": 0,
            "effective_sample_size": self.effective, "acceptance": self.acceptance, "steps": self.steps,
        }  # fmt: skip

    def sentence(self, names: Sequence[str]) -> str:
        """In words, with the parameters (`names`: free ones) that did not converge."""
        labels = [*names, *[f"offset {k + 1}" for k in range(len(self.r_hat) - len(names))]]
        bad = [n for n, r, e in zip(labels, self.r_hat, self.effective, strict=True) if r >= R_HAT or e < EFFECTIVE]
        numbers = (
            f"{GROUPS} groups of {WALKERS} walkers, {self.steps} steps, {self.seconds:.0f} s; largest R-hat "
            f"{self.r_hat.max():.3f}, smallest effective sample size {self.effective.min():.0f}, acceptance "
            f"{self.acceptance:.2f}, no divergences (no gradients), {100 * self.outside:.1f} percent of the proposals "
            "beyond the bounds (refused)"
        )
        if self.converged:
            return f"MCMC converged: {numbers}"
        return (
            f"MCMC NOT CONVERGED, the draws before it stand: {numbers}; asked are R-hat below {R_HAT} and {EFFECTIVE} "
            f"effective samples. Not reached by {', '.join(bad)}. Give more time (--mcmc-minutes), or fewer --free"
        )


@dataclass(frozen=True)
class Proposal:
    """A Gaussian like the posterior, N(mean, F F'), and moves that would leave it as it is.

    Preconditioned Crank-Nicolson (Cotter et al. 2013): a step towards the mean, and noise. What the data do not inform
    costs no acceptance. mean (size,), factor F (size, size), latent; informed (size, k): white directions that the
    data inform.
    """

    mean: np.ndarray
    factor: np.ndarray
    informed: np.ndarray

    def white(self, u: np.ndarray) -> np.ndarray:
        """u (walker, size) in units of this Gaussian."""
        return np.linalg.solve(self.factor, (u - self.mean).T).T

    def move(self, informed: float, others: float) -> Callable:
        """For emcee's MHMove: u (walker, size) -> proposals, and log backward over forward density (walker,)."""
        onto = self.informed @ self.informed.T
        away = np.eye(len(onto)) - onto
        kept = np.sqrt(1 - informed) * onto + np.sqrt(1 - others) * away
        drawn = np.sqrt(informed) * onto + np.sqrt(others) * away

        def propose(u: np.ndarray, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
            """One move of every walker, as MHMove asks for it."""
            before = self.white(u)
            after = before @ kept + random.standard_normal(u.shape) @ drawn
            backward = 0.5 * (np.sum(after**2, axis=1) - np.sum(before**2, axis=1))
            return self.mean + after @ self.factor.T, backward

        return propose

    def adapted(self, u: np.ndarray) -> "Proposal":
        """With mean and spread of walkers u (state, size) along the informed directions.

        The others keep theirs: a covariance of all 36 from some hundred walkers would be noise.
        """
        informed = self.informed
        if not informed.size:
            return self
        along = self.white(u) @ informed
        spread = WIDER * np.linalg.cholesky(np.atleast_2d(np.cov(along, rowvar=False)))
        stretch = np.eye(len(self.mean)) + informed @ (spread - np.eye(informed.shape[1])) @ informed.T
        return Proposal(self.mean + self.factor @ informed @ along.mean(axis=0), self.factor @ stretch, informed)


class Chains:
    """Walkers that sample the posterior of a problem, from the draws of `posterior` on."""

    def __init__(self, problem: InversionProblem, mode: Mode, posterior: Posterior, seed: int) -> None:
        self.problem, self.random = problem, np.random.default_rng(seed)
        data = mode.factor.T @ (mode.white_jacobian.T @ mode.white_jacobian) @ mode.factor
        taken, directions = np.linalg.eigh(data)  # share of the prior variance that the data take away
        self.laplace = Proposal(mode.u, mode.factor, directions[:, taken > FIXED])
        self.asked = self.beyond = 0
        draws = posterior.latent
        rows = self.random.permutation(np.resize(self.random.permutation(len(draws)), GROUPS * WALKERS))
        # Two walkers at one place would be one: a little of the Gaussian around each.
        jitter = 0.1 * self.random.standard_normal((len(rows), problem.size)) @ mode.factor.T
        limit = problem.latent.limit
        self.start = np.clip(draws[rows] + jitter, -0.999 * limit, 0.999 * limit)

    def log_density(self, u: np.ndarray) -> np.ndarray:
        """u (walker, size) -> log posterior (walker,) up to a constant, -inf outside the bounds."""
        free = len(self.problem.latent.free)
        inside = (np.abs(u[:, :free]) <= self.problem.latent.limit).all(axis=1)
        self.asked, self.beyond = self.asked + len(u), self.beyond + int((~inside).sum())
        density = np.full(len(u), -np.inf)
        if inside.any():
            density[inside] = -self.problem.costs(u[inside])[0]
        return density

    def sampler(self, proposal: Proposal):
        """emcee's sampler of all walkers with the moves of `proposal`."""
        import emcee

        moves = [(emcee.moves.MHMove(proposal.move(*shares)), 1 / len(MOVES)) for shares in MOVES]
        sampler = emcee.EnsembleSampler(*self.start.shape, self.log_density, moves=moves, vectorize=True)
        sampler.random_state = np.random.RandomState(self.random.integers(2**31)).get_state()
        return sampler

    def run(self, seconds: float, say: Callable[[str], object]) -> tuple[np.ndarray, Diagnostics]:
        """Sample until the stop rule holds or the time is used up: draws (chain, draw, size) latent, diagnostics."""
        begin, state, proposal = time.perf_counter(), self.start, self.laplace
        self.log_density(state)
        step = time.perf_counter() - begin
        likely = step * (ADAPTATIONS * WARM_UP + EXPECTED_STEPS)
        say(f"mcmc: {len(state)} walkers, {step:.2f} s a step, about {likely:.0f} s; at most {seconds:.0f} s")
        with progress(total=round(seconds), unit="s", desc="mcmc", leave=False) as bar:

            def out_of_time(steps: int) -> bool:
                """Whether `steps` further ones would go beyond the budget."""
                gone = time.perf_counter() - begin
                bar.update(round(gone) - bar.n)
                return gone + steps * step > seconds

            for _ in range(ADAPTATIONS):
                if out_of_time(WARM_UP):
                    break
                sampler = self.sampler(proposal)
                state = sampler.run_mcmc(state, WARM_UP)
                late = sampler.get_chain(discard=WARM_UP // 2, flat=True)
                proposal = self.laplace.adapted(late)
            sampler, self.asked, self.beyond = self.sampler(proposal), 0, 0
            state = sampler.run_mcmc(state, ROUND)
            found = self._look(sampler, begin)
            while not found.converged and not out_of_time(ROUND):
                state = sampler.run_mcmc(state, ROUND)
                found = self._look(sampler, begin)
        return self._thinned(sampler.get_chain()), found

    def _look(self, sampler, begin: float) -> Diagnostics:
        """Where the chains stand."""
        chain = sampler.get_chain()  # (step, walker, size)
        return Diagnostics(
            *r_hat_and_effective(chain), float(np.mean(sampler.acceptance_fraction)),
            self.beyond / max(self.asked, 1), len(chain), time.perf_counter() - begin,
        )  # fmt: skip

    def _thinned(self, chain: np.ndarray) -> np.ndarray:
        """(group, draw, size) from chain (step, walker, size): evenly spaced steps, KEPT draws or a few more."""
        steps = np.unique(np.linspace(0, len(chain) - 1, min(len(chain), -(-KEPT // chain.shape[1]))).round())
        some = chain[steps.astype(int)]
        return some.reshape(len(some), GROUPS, -1, chain.shape[2]).transpose(1, 0, 2, 3).reshape(
            GROUPS, -1, chain.shape[2]
        )  # fmt: skip


def r_hat_and_effective(chain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R-hat of the groups and effective sample size over all walkers, (size,) each; chain (step, walker, size)."""
    import arviz

    steps, walkers, size = chain.shape
    # In the order of the steps, so that halves of a group are its early and its late half.
    groups = chain.reshape(steps, GROUPS, walkers // GROUPS, size).transpose(1, 0, 2, 3).reshape(GROUPS, -1, size)
    r_hat = [float(arviz.rhat(groups[:, :, i])) for i in range(size)]
    effective = [float(arviz.ess(chain[:, :, i].T)) for i in range(size)]
    return np.array(r_hat), np.array(effective)


def mcmc_posterior(
    problem: InversionProblem, mode: Mode, posterior: Posterior, seed: int, minutes: float, say: Callable[[str], object]
) -> Posterior:
    """`posterior` with chains started from it: their draws where they converged, else its own."""
    draws, found = Chains(problem, mode, posterior, seed).run(60 * minutes, say)
    if not found.converged:
        return replace(posterior, diagnostics=found, chains=None)
    free = len(problem.latent.free)
    flat = draws.reshape(-1, problem.size)
    # Whoever takes the first few samples gets a fair share of every chain.
    flat = flat[np.random.default_rng(seed).permutation(len(flat))]
    return replace(
        posterior, latent=flat, physical=problem.latent.physical_array(flat[:, :free]),
        offsets=problem.offset_sd * flat[:, free:], method="MCMC", diagnostics=found,
        chains=problem.latent.physical_array(draws[:, :, :free]),
    )  # fmt: skip
