"""Benchmarks of the inversion, all parts in one run on one machine; writes benchmarks/results/inversion.md.

  --part methods     time to the same cost: gauss_newton, adam, SciPy's L-BFGS-B and least_squares, same emulator
  --part spans       a whole inversion (8 starts, error model, Laplace posterior): 30 days, a year, five years
  --part mcmc        posteriors of gauss_newton, plain Laplace and ensemble against emcee
  --part simulator   the refined emulator against Gauss-Newton on the simulator itself

Example
  python benchmarks/benchmark_inversion.py --part methods --artifacts-dir artifacts --data-dir data
"""

import os
import platform
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from inversion_references import mcmc, simulator  # noqa: E402

from calibration.common.command_line import REPOSITORY, UserError, make_parser, run, write_text  # noqa: E402
from calibration.common.sites import load_site  # noqa: E402
from calibration.emulator.trained import load_emulator  # noqa: E402
from calibration.inversion.config import ErrorModelConfig, load_inversion_config, override  # noqa: E402
from calibration.inversion.error_model import make_error_model  # noqa: E402
from calibration.inversion.methods import gauss_newton, starting_points  # noqa: E402
from calibration.judgement.recovery_study import Study, make_case, simulated_truth  # noqa: E402
from calibration.judgement.simulator_check import driving_weather, simulate_vectors  # noqa: E402
from inverse_estimator import StaticParameterInverter  # noqa: E402

NOISE = 0.005  # Mg C ha-1 day-1
PARTS = ("methods", "spans", "mcmc", "simulator")
SAME_COST = 0.01  # relative
SAME_LOG_POSTERIOR = 0.1  # cost above the minimum that is no difference any more


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--part", nargs="+", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--artifacts-dir", default=str(REPOSITORY / "artifacts"), help="trained emulator")
    parser.add_argument("--data-dir", default=str(REPOSITORY / "data"), help="its ensemble (for the weather)")
    parser.add_argument("--span", type=int, default=365, help="observed days of methods, mcmc and simulator")
    parser.add_argument("--seed", type=int, default=7, help="of truth, noise and starts")
    parser.add_argument("--minutes", type=float, default=2.0, help="longest time of a method")
    parser.add_argument("--mcmc-minutes", type=float, default=12.0, help="time of the reference MCMC")
    parser.add_argument(
        "--output", default=str(REPOSITORY / "benchmarks" / "results" / "inversion.md"), help="markdown to write"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    known = {"methods": methods, "spans": spans, "mcmc": mcmc, "simulator": simulator}
    for name in arguments.part:
        if name not in known:
            raise UserError(f"--part {name}: known are {', '.join(PARTS)}")
    bench = Bench(arguments)
    text = "\n".join(known[name](bench, arguments) for name in arguments.part) + footer(arguments)
    path = Path(arguments.output)
    write_text(path, text)
    print(text + f"\nwrote {path}")
    return 0


class Bench:
    """One known truth from the simulator, never trained on, with noise; the emulator and its inverter."""

    noise = NOISE

    def __init__(self, arguments) -> None:
        self.emulator = load_emulator(arguments.artifacts_dir)
        config = override(load_inversion_config(), seed=arguments.seed)
        self.inverter = StaticParameterInverter.from_emulator(self.emulator, config)
        self.space = self.inverter.space
        self.site = load_site()
        self.weather = driving_weather(None, arguments.data_dir, self.site, self.emulator)
        self.arguments = arguments
        self.truth = self.space.unit_to_physical(np.random.default_rng(arguments.seed).random((1, len(self.space))))
        folder = REPOSITORY / "results" / "benchmark_inversion"
        self.fluxes = simulated_truth(
            folder / f"truth_{arguments.seed}_{len(self.weather.dates)}.npz", self.truth, self.weather,
            partial(simulate_vectors, names=self.emulator.parameter_names, weather=self.weather, site=self.site), None,
        )[0]  # fmt: skip
        self.prior = self.space.unit_to_physical(np.full(len(self.space), 0.5))

    def stretch(self, span: int):
        """The observed stretch of `span` days (noise 0.005, no gaps)."""
        study = Study(1, span, NOISE)
        return make_case(0, self.fluxes, self.emulator, self.weather, study, self.arguments.seed).observed

    def problem(self, span: int):
        """The cost with a given error model (nothing estimated), the same for all methods."""
        problem = self.inverter.problem(self.prior, [self.stretch(span)])
        config = ErrorModelConfig(discrepancy=False)
        problem.set_error_model(make_error_model(problem.observations, self.inverter.errors, config))
        return problem


class ReachedError(Exception):
    """The goal is reached, or the time is used up."""


class Clock:
    """When a method first comes within 1 percent of a reference cost, and within 0.1 of it (log posterior units)."""

    def __init__(self, reference: float, budget: float) -> None:
        self.goals = {"percent": (1 + SAME_COST) * reference, "same": reference + SAME_LOG_POSTERIOR}
        self.reached: dict[str, float] = {}
        self.best, self.budget, self.begin = np.inf, budget, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.begin

    def see(self, cost: float, stop: bool = True) -> None:
        """Note a cost that the method has computed; ReachedError when there is nothing more to wait for."""
        self.best = min(self.best, cost)
        for name, goal in self.goals.items():
            if self.best <= goal:
                self.reached.setdefault(name, self.seconds)
        if stop and (len(self.reached) == len(self.goals) or self.seconds > self.budget):
            raise ReachedError


def methods(bench: Bench, arguments) -> str:
    """Seconds of each method until its cost is that of gauss_newton from the same start."""
    from scipy.optimize import least_squares, minimize

    problem, config = bench.problem(arguments.span), bench.inverter.config
    starts = starting_points(problem, 8, arguments.seed)
    reference = gauss_newton(problem, starts[:1], config).cost  # also warms up
    budget = 60 * arguments.minutes
    rows = []

    def timed(name: str, method) -> None:
        problem.evaluations, clock = 0, Clock(reference, budget)
        with suppress(ReachedError):
            method(clock)
        rows.append((name, clock, problem.evaluations, clock.seconds))
        print(f"{name}: {clock.reached}, {problem.evaluations} runs, best cost {clock.best:.2f}", flush=True)

    def newton(count: int):
        def solve(clock: Clock) -> None:
            plain = problem.costs

            def watched(u):
                cost, predicted = plain(u)
                clock.see(float(cost.min()), stop=False)
                return cost, predicted

            problem.costs = watched
            try:
                gauss_newton(problem, starts[:count], config)
            finally:
                del problem.costs

        return solve

    def adam(clock: Clock) -> None:
        u = torch.tensor(starts[:1], requires_grad=True)
        optimizer = torch.optim.Adam([u], lr=config.lr)
        while True:
            optimizer.zero_grad()
            data, prior = problem.cost(u)
            total = (data + prior).sum()
            clock.see(total.item())
            total.backward()
            optimizer.step()

    def value_and_gradient(clock: Clock, u: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.tensor(u[None], requires_grad=True)
        data, prior = problem.cost(leaf)
        total = (data + prior).sum()
        clock.see(total.item())
        total.backward()
        return total.item(), leaf.grad.numpy()[0]

    def residual(clock: Clock, u: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            row = torch.as_tensor(u[None])
            data = problem.whiten(problem.value - problem.predict(row))
            full = torch.cat([data, problem.prior_residual(row)], dim=1)[0].numpy()
        clock.see(0.5 * float(full @ full))
        return full

    timed("gauss_newton, 1 start", newton(1))
    timed("gauss_newton, 8 starts", newton(8))
    timed(
        "SciPy L-BFGS-B (gradient)",
        lambda clock: minimize(
            lambda u: value_and_gradient(clock, u), starts[0], jac=True, method="L-BFGS-B", options={"maxiter": 5000}
        ),
    )
    timed(
        "SciPy least_squares (finite differences)",
        lambda clock: least_squares(lambda u: residual(clock, u), starts[0], diff_step=0.02, max_nfev=200),
    )
    timed(f"adam (lr {config.lr:g})", adam)

    fastest = rows[0][1].reached
    lines = [
        f"## Inversion methods to the same cost ({arguments.span} days of NEP, {problem.size} parameters)",
        "",
        f"Seconds until the cost is within {100 * SAME_COST:.0f} percent of gauss_newton's ({reference:.2f}), and "
        f"within {SAME_LOG_POSTERIOR} of it (log posterior units: the same answer). Same emulator, error model, start "
        "(the prior) and threads; in brackets times gauss_newton with one start.",
        "",
        "| method | within 1 percent (s) | same cost (s) | emulator runs | best cost | ended after (s) |",
        "|---|---|---|---|---|---|",
    ]
    for name, clock, runs, seconds in rows:
        cells = [
            f"{clock.reached[goal]:.2f} ({clock.reached[goal] / fastest[goal]:.0f}x)"
            if goal in clock.reached
            else ("not in the budget" if seconds > budget else "not reached")
            for goal in clock.goals
        ]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {runs} | {clock.best:.2f} | {seconds:.1f} |")
    return "\n".join(lines) + "\n"


def spans(bench: Bench, arguments) -> str:
    """Wall time of a whole inversion by span, with the limits of the project."""
    lines = [
        "## A whole inversion: 8 starts, error model, Laplace posterior (NEP, 36 parameters)",
        "",
        "| span (days) | s | limit (s) | emulator runs | informed parameters |",
        "|---|---|---|---|---|",
    ]
    longest = len(bench.weather.dates) - bench.emulator.configuration.evaluation.context_days
    bench.inverter.invert_stretches(bench.prior, [bench.stretch(30)])
    for span, limit in ((30, 2), (365, 10), (1826, 40)):
        if span > longest:
            lines.append(f"| {span} | - | {limit} | - | the ensemble's weather is too short |")
            continue
        result = bench.inverter.invert_stretches(bench.prior, [bench.stretch(span)])
        informed = int((result.posterior.sd_ratio < 0.7).sum())
        lines.append(f"| {span} | {result.seconds:.1f} | {limit} | {result.problem.evaluations} | {informed} |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def footer(arguments) -> str:
    """Command and machine."""
    mcmc_minutes = f" --mcmc-minutes {arguments.mcmc_minutes:g}" if "mcmc" in arguments.part else ""
    return (
        f"\n`python benchmarks/benchmark_inversion.py --part {' '.join(arguments.part)} --span {arguments.span} --seed "
        f"{arguments.seed} --minutes {arguments.minutes:g}"
        f"{mcmc_minutes}` on {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, {arguments.threads} threads, PyTorch {torch.__version__}, load "
        f"{os.getloadavg()[0]:.1f} at the end.\n"
    )


if __name__ == "__main__":
    run(main)
