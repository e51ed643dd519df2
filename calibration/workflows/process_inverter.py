"""StaticParameterInverter of the process model: no emulator, no training, no emulator error in the likelihood."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from calibration.common.command_line import UserError, progress, silent
from calibration.common.parameters import ParameterSpace
from calibration.inversion.config import InversionConfig
from calibration.inversion.data import Stretch
from calibration.inversion.methods import DAMPING_FACTORS, Fit
from calibration.inversion.posterior import MODE_COST, Posterior
from calibration.inversion.problem import InversionProblem
from calibration.inversion.randomized_likelihood import DEAR_ROUNDS
from calibration.inversion.solvers import FIRST_ROUND, joined, solver_of
from calibration.judgement.judge import BAND_DRAWS
from calibration.judgement.simulator_check import ProcessModel
from calibration.workflows.process_forward import KeptRuns, ProcessForward
from calibration.workflows.stand_in import StandIn, unknown_parameters
from inverse_estimator import StaticParameterInverter

PRIOR_DRAWS = 64  # runs of the prior against the data, with an emulator 200
TRIAL = 16  # runs that tell how long one takes, in the lanes of two cores
FIT_ROUNDS = 6  # times that the stand-in is taught where the starts ended, at most
SAME_COST = 0.1  # the stand-in's costs (log posterior) are the process model's where they differ by less
DIFFERENCE = 1.0  # latent step that tells the slope of a parameter which the closed forms do not know


class ProcessInverter(StaticParameterInverter):
    """The same inversion with a process model in the emulator's place; what needs gradients is refused."""

    prior_draws = PRIOR_DRAWS
    can_temper = False

    def __init__(
        self, runs: KeptRuns, space: ParameterSpace, config: InversionConfig, config_source: str | Path | None = None,
        say: Callable[[str], object] = silent,
    ) -> None:  # fmt: skip
        check_config(config, config_source)
        self.runs, self.names, self.space, self.config_source = runs, space.names, space, config_source
        self.asked = config  # as the user gave it: for an emulator beside
        self.config = replace(config, error_model=replace(config.error_model, emulator=False))
        self.model = self.errors = self.bias = None
        self.say = say
        self.static_mean = space.unit_to_physical(np.full(len(space), 0.5))
        self.static_scale = np.where(space.width > 0, space.width, 1.0) / np.sqrt(12.0)  # sd of a uniform range

    def forward(self, stretches: Sequence[Stretch]) -> ProcessForward:
        """The process model over other stretches of days."""
        return ProcessForward(self.runs, stretches)

    def _solve(
        self, problem: InversionProblem, starts: np.ndarray, notes: list[str]
    ) -> tuple[Fit, Posterior | None]:
        """As of an emulator, on a stand-in that learns from a run wherever starts and draws end, until it errs no
        more there. What is returned, and reported, are runs of the process model.
        """
        if self.config.method == "ensemble":  # which is few runs by itself
            return super()._solve(problem, starts, notes)
        latent, forward = problem.latent, problem.forward
        stand_in = StandIn(self.runs, forward.stretches, self.space, len(latent.free))
        quick = replace(problem, forward=stand_in)
        unknown = [k for k, name in enumerate(latent.free_names) if unknown_parameters([name])]
        if unknown:
            problem.costs(np.vstack([problem.prior, problem.prior + DIFFERENCE * np.eye(problem.size)[unknown]]))
            stand_in.learn()
        fit = self._fit(problem, quick, starts)
        posterior = self._draws(quick, fit, problem)
        if not len(posterior.latent):
            raise UserError("the process model failed at every draw of the posterior; see its messages")
        confirmed = "every start and draw ended" if self.config.randomized_draws else "every start ended"
        late = f"; {100 * posterior.moving:.0f} percent of the draws still went down" if posterior.moving else ""
        if self.config.posterior == "mcmc":
            stand_in.learn()
            posterior = self._chains(quick, fit, posterior, notes, self.config.mcmc_minutes)
            late += "; the chains moved on the stand-in"
        elif not self.config.randomized_draws:
            late += "; the samples of the posterior are those of the stand-in"
        notes.append(
            f"{len(self.runs.asked)} runs of the process model taught the stand-in that searched in its place; where "
            f"{confirmed} was run{late}"
        )
        return fit, posterior

    def _fit(self, problem: InversionProblem, quick: InversionProblem, starts: np.ndarray) -> Fit:
        """The fit of `quick`, `problem` on its stand-in, from starts (start, size): where both agree on the cost, and
        what the last round taught leads no further down. Of all rounds, each start keeps its lowest place.
        """
        solver, history, trace, ends, before = solver_of(self.config), [], [], [], np.inf
        for _ in range(FIT_ROUNDS):
            fit = solver.solve(quick, starts)
            problem.set_error_model(quick.error_model)
            history, trace = joined(history, fit.history) if history else fit.history, trace + fit.trace
            ends.append(fit.starts)
            # Earlier ends are known runs, but the error model may have changed since.
            costs = np.stack([problem.costs(places)[0] for places in ends])
            quick.forward.learn()
            lowest = costs.min()
            off = np.abs(costs[-1] - fit.start_costs)[costs[-1] < lowest + MODE_COST]
            if off.max(initial=0.0) < SAME_COST and before - lowest < SAME_COST:
                break
            before = lowest
            # From where it ended, even uphill: going on from the lowest places only found worse ones (a year of NEP).
            starts = np.where(np.isfinite(costs[-1])[:, None], fit.starts, fit.starts[costs[-1].argmin()])
        kept = costs.argmin(axis=0), np.arange(len(starts))
        starts, cost = np.stack(ends)[kept], costs[kept]
        u = starts[cost.argmin()]
        predicted = problem.costs(u[None])[1][0]
        problem.check_finite(predicted)
        return replace(
            fit, u=u, cost=float(lowest), predicted=predicted, starts=starts, start_costs=cost, history=history,
            trace=trace, jacobian=quick.central_jacobian(u),
        )  # fmt: skip


def check_config(config: InversionConfig, source: str | Path | None) -> None:
    """UserError on what the process model cannot do: it has no gradients, and its runs are dear."""
    if config.method == "adam":
        raise UserError(f"{source}: method adam follows gradients, which only the emulator has; use gauss_newton")
    if config.lambda_prior is not None:
        raise UserError(f"{source}: --model simulator and command need lambda_prior: null (a likelihood)")
    if config.posterior == "tempered":
        raise UserError(f"{source}: posterior tempered takes some 20000 runs, for the emulator alone; use draws")


def kept_runs(
    model: ProcessModel, names: Sequence[str], stretches: Sequence[Stretch], directory: Path | None
) -> KeptRuns:
    """Runs over all days of the stretches. UserError where a stretch has no dates or the model does not cover it."""
    if any(stretch.dates is None for stretch in stretches):
        raise UserError("the windows have no dates, which the process model needs; build them again")
    first = min(stretch.dates[0] for stretch in stretches)
    last = max(stretch.dates[-1] for stretch in stretches)
    own = model.weather.dates
    if first < own[0] or last > own[-1]:
        raise UserError(
            f"the windows span {first} to {last}, the process model's runs only {own[0]} to {own[-1]} "
            f"({model.weather.source}); give longer weather with --weather"
        )
    return KeptRuns(model, names, first, last, directory)


def expected_runs(config: InversionConfig, free: int) -> tuple[int, int]:
    """Fewest and most runs of an inversion of `free` parameters, the check of the prior included."""
    if config.method == "ensemble":
        few = PRIOR_DRAWS + config.ensemble.members * (config.ensemble.iterations + 1)
        steps = FIRST_ROUND["max_iterations"] * (free + len(DAMPING_FACTORS))  # around the fit, for the error model
        return few + BAND_DRAWS, few + BAND_DRAWS + steps + 3 * free
    draws = config.randomized_draws
    few = PRIOR_DRAWS + config.number_of_starts + 2 * draws
    many = PRIOR_DRAWS + free + FIT_ROUNDS * config.number_of_starts + (1 + DEAR_ROUNDS) * draws
    bands = BAND_DRAWS if not draws or config.posterior == "mcmc" else 0
    return few + bands, many + bands


def announce(
    runs: KeptRuns, config: InversionConfig, space: ParameterSpace, free: int, say: Callable[[str], object]
) -> None:
    """A line on how many runs are ahead and how long they take, measured on a few; then a bar that counts them."""
    (few, many), kept = expected_runs(config, free), len(runs.known)
    values = space.unit_to_physical(np.random.default_rng(config.seed).uniform(0.3, 0.7, (1 + TRIAL, len(space))))
    runs(values[:1])  # the first run loads the compiled code
    made, begin = runs.made, time.perf_counter()
    runs(values[1:])
    pace = (time.perf_counter() - begin) / max(runs.made - made, 1)
    if runs.failed == len(values):
        raise UserError("all of the first runs of the process model failed; see their messages")
    again = f", {kept} are kept from before" if kept else ""
    first, last = (_words(pace * max(count - kept, 0)) for count in (few, many))
    duration = "" if runs.made == made else f", {_span(first, last)} at {pace:.3f} s a run"
    say(f"{runs.model.identity['model']}: {_span(str(few), str(many))} runs ahead{again}{duration}")
    bar = progress(total=many, initial=min(kept, many), unit="run", desc="runs")
    runs.on_run = bar.update


def _span(first: str, last: str) -> str:
    return f"about {first}" if first == last else f"{first} to {last}"


def _words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
