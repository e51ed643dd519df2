"""What the inversion's results are measured against: a long MCMC, and Gauss-Newton on the process model itself.

Parts of benchmark_inversion.py; `bench` is its Bench: one known truth, the emulator and its inverter.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from calibration.common.units import DYNAMIC_FEATURES  # noqa: E402
from calibration.inversion.config import ErrorModelConfig, override  # noqa: E402
from calibration.inversion.error_model import make_error_model  # noqa: E402
from calibration.inversion.methods import ensemble_smoother, gauss_newton, starting_points  # noqa: E402
from calibration.inversion.posterior import laplace_posterior  # noqa: E402
from calibration.inversion.problem import InversionProblem  # noqa: E402
from calibration.judgement.refine import Refinement  # noqa: E402
from calibration.judgement.simulator_check import on_stretches, simulate_vectors  # noqa: E402

if TYPE_CHECKING:
    from benchmark_inversion import Bench

MANY = 800  # draws of gauss_newton's posterior that leave little to chance


def towards_gaussian(mean: np.ndarray, covariance: np.ndarray, share: float):
    """A proposal for emcee's MHMove that would leave N(mean, covariance) as it is: a step towards its mean, and noise.

    Preconditioned Crank-Nicolson (Cotter et al. 2013): what the data do not inform costs no acceptance. mean (size,),
    covariance (size, size) latent; share: of the variance that is drawn anew, 0 to 1.
    """
    factor = np.linalg.cholesky(covariance)

    def distance(u: np.ndarray) -> np.ndarray:
        """Minus the log density of the Gaussian, up to a constant: u (walker, size) -> (walker,)."""
        return 0.5 * np.sum(np.linalg.solve(factor, (u - mean).T) ** 2, axis=0)

    def propose(u: np.ndarray, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        """Proposals (walker, size), and the log of backward over forward proposal density (walker,)."""
        noise = random.standard_normal(u.shape) @ factor.T
        there = mean + np.sqrt(1 - share) * (u - mean) + np.sqrt(share) * noise
        return there, distance(there) - distance(u)

    return propose


def mcmc(bench: "Bench", arguments) -> str:
    """Means and sds of gauss_newton (randomized minima), plain Laplace and the ensemble method beside emcee."""
    import emcee

    problem = bench.problem(arguments.span)
    fit = gauss_newton(problem, starting_points(problem, 8, arguments.seed), bench.inverter.config)
    laplace = laplace_posterior(problem, fit, 4000, arguments.seed)
    draws = bench.inverter.config.randomized_draws
    others = {
        f"{count} draws": laplace_posterior(problem, fit, 0, arguments.seed, count).latent for count in (draws, MANY)
    }
    others["plain Laplace"] = laplace.latent
    others["ensemble"] = ensemble_smoother(problem, override(bench.inverter.config, method="ensemble")).members
    walkers = 4 * problem.size
    moves = [(emcee.moves.MHMove(towards_gaussian(fit.u, laplace.covariance, share)), 0.3) for share in (0.25, 0.6)]
    moves += [(emcee.moves.DEMove(), 0.3), (emcee.moves.DESnookerMove(), 0.1)]
    sampler = emcee.EnsembleSampler(
        walkers, problem.size, lambda u: -problem.costs(u)[0], vectorize=True, moves=moves
    )  # fmt: skip
    begin, state, steps = time.perf_counter(), others["ensemble"][:walkers], 0  # wider than the posterior
    while time.perf_counter() - begin < 60 * arguments.mcmc_minutes:
        state = sampler.run_mcmc(state, 50)
        steps += 50
    chain = sampler.get_chain(discard=steps // 3, flat=True)
    memory = sampler.get_autocorr_time(discard=steps // 3, quiet=True)
    lines = [
        f"## Posterior of {arguments.span} days of NEP: gauss_newton and ensemble against MCMC",
        "",
        f"emcee, {walkers} walkers, {steps} steps (first third dropped), autocorrelation time {np.median(memory):.0f} "
        f"steps (median; worst parameter {memory.max():.0f}): {len(chain) / memory.max():.0f} independent states or "
        f"more. Latent units (prior sd 1). gauss_newton's posterior: {draws} randomized minima (the default), {MANY}, "
        "and the plain Gaussian.",
        "",
        f"| parameter | MCMC mean | sd | {' | '.join(f'{name}: mean | sd' for name in others)} |",
        "|---" * (3 + 2 * len(others)) + "|",
    ]
    names = problem.latent.free_names
    worst = {name: [0.0, 0.0] for name in others}
    for i in np.argsort(chain.std(axis=0))[:10]:
        mean, sd = chain[:, i].mean(), chain[:, i].std()
        row = f"| {names[i]} | {mean:.2f} | {sd:.2f} |"
        for name, samples in others.items():
            row += f" {samples[:, i].mean():.2f} | {samples[:, i].std():.2f} |"
            if sd < 0.7:
                shift = abs(samples[:, i].mean() - mean) / sd
                worst[name][0] = max(worst[name][0], shift)
                worst[name][1] = max(worst[name][1], abs(samples[:, i].std() / sd - 1))
        lines.append(row)
    lines.append("")
    for name, (shift, spread) in worst.items():
        lines.append(
            f"{name}, informed parameters (sd < 0.7): largest shift of the mean {100 * shift:.0f} percent of a "
            f"posterior sd, largest difference of the sd {100 * spread:.0f} percent."
        )
    return "\n".join(lines) + "\n"


class SimulatorForward:
    """The process model in place of the emulator: physical (batch, parameter) -> fluxes of the stretches."""

    def __init__(self, bench: "Bench", stretches) -> None:
        self.bench, self.stretches = bench, stretches
        self.runs = 0
        self.scale = torch.as_tensor(bench.inverter.static_scale)

    def __call__(self, physical: torch.Tensor) -> list[torch.Tensor]:
        """(batch, parameter) -> one (batch, day, 4) Mg C ha-1 day-1 for each stretch."""
        self.runs += len(physical)
        bench = self.bench
        fluxes = simulate_vectors(physical.numpy(), bench.emulator.parameter_names, bench.weather, bench.site)
        return [torch.as_tensor(on_stretches(fluxes, bench.weather.dates, [s])) for s in self.stretches]


def simulator(bench: "Bench", arguments) -> str:
    """Estimates of the plain and of the refined emulator against Gauss-Newton on the simulator."""
    stretch = bench.stretch(arguments.span)
    plain = bench.inverter.invert_stretches(bench.prior, [stretch])
    order = [DYNAMIC_FEATURES.index(name) for name in bench.emulator.feature_names]
    refinement = Refinement(
        bench.inverter,
        lambda values: simulate_vectors(values, plain.names, bench.weather, bench.site),
        bench.weather, stretch.context, order,
    )  # fmt: skip
    begin = time.perf_counter()
    refined, _, rounds = refinement.run(plain, [stretch], 50)
    refine_seconds = time.perf_counter() - begin

    forward = SimulatorForward(bench, [stretch])
    observations = plain.problem.observations
    errors = make_error_model(observations, None, ErrorModelConfig(emulator=False, discrepancy=False))
    # The process model is rough in its parameters: steps of 0.02 ended at higher costs, from every start.
    problem = InversionProblem(forward, observations, plain.problem.latent, errors, step=0.1)
    begin = time.perf_counter()
    starts = {"prior": problem.prior, "plain estimate": plain.fit.u, "refined estimate": refined.fit.u}
    gold = gauss_newton(problem, np.stack(list(starts.values())), bench.inverter.config)
    gold_seconds = time.perf_counter() - begin
    # The process model's own output is too rough in the parameters for an sd from differences; the refined one is not.
    names, sd = plain.problem.latent.free_names, refined.posterior.sd_ratio
    truth = plain.problem.latent.latent(bench.truth[0])
    lines = [
        "## Refined emulator against Gauss-Newton on the simulator "
        f"({arguments.span} days of NEP, noise {bench.noise})",
        "",
        f"Refinement: {refinement.runs} simulator runs in {len(rounds)} rounds, {refine_seconds:.0f} s; "
        f"Gauss-Newton on the simulator: {forward.runs} runs, {gold_seconds:.0f} s. Latent units (prior sd 1).",
        "",
        "| informed parameter | truth | simulator | plain emulator | sd | refined emulator | sd |",
        "|---|---|---|---|---|---|---|",
    ]
    informed = np.flatnonzero(sd < 0.7)
    shown = informed if len(informed) else np.argsort(sd)[:5]
    for i in shown:
        lines.append(
            f"| {names[i]} | {truth[i]:.2f} | {gold.u[i]:.2f} | {plain.fit.u[i]:.2f} | "
            f"{plain.posterior.sd_ratio[i]:.2f} | {refined.fit.u[i]:.2f} | {refined.posterior.sd_ratio[i]:.2f} |"
        )
    for name, fit in (("plain", plain.fit), ("refined", refined.fit)):
        lines.append("")
        lines.append(
            f"Largest distance of the {name} emulator's estimate from the simulator's, parameters above: "
            f"{np.abs(fit.u - gold.u)[shown].max():.3f} prior sd."
        )
    before = problem.costs(np.stack(list(starts.values())))[0]
    lines += ["", "| Gauss-Newton on the simulator from the | cost there | where it ended | why |", "|---|---|---|---|"]
    for name, first, last, reason in zip(starts, before, gold.start_costs, gold.reasons, strict=True):
        lines.append(f"| {name} | {first:.2f} | {last:.2f} | {reason} |")
    return "\n".join(lines) + "\n"
