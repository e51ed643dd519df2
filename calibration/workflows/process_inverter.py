"""StaticParameterInverter of the process model: no emulator, no training, no emulator error in the likelihood."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from calibration.common.command_line import UserError, progress
from calibration.common.parameters import ParameterSpace
from calibration.inversion.config import InversionConfig
from calibration.inversion.data import Stretch
from calibration.judgement.simulator_check import ProcessModel
from calibration.workflows.process_forward import KeptRuns, ProcessForward, SparingProblem
from inverse_estimator import StaticParameterInverter

PRIOR_DRAWS = 64  # runs of the prior against the data, with an emulator 200
TRIAL = 16  # runs that tell how long one takes, in the lanes of two cores
# Runs that an inversion takes, measured at 8 starts: full differences, steps of a start, of a draw. Where all starts
# come to one place, and where they end in six and the draws wander between them (a month or a year of NEP).
ONE_PLACE, MANY_PLACES = (8, 45, 5), (42, 65, 14)


class ProcessInverter(StaticParameterInverter):
    """The same inversion with a process model in the emulator's place; what needs gradients is refused."""

    problem_kind = SparingProblem
    prior_draws = PRIOR_DRAWS

    def __init__(
        self, runs: KeptRuns, space: ParameterSpace, config: InversionConfig, config_source: str | Path | None = None
    ) -> None:
        check_config(config, config_source)
        self.runs, self.names, self.space, self.config_source = runs, space.names, space, config_source
        self.asked = config  # as the user gave it: for an emulator beside
        self.config = replace(config, error_model=replace(config.error_model, emulator=False))
        self.model = self.errors = self.bias = None
        self.static_mean = space.unit_to_physical(np.full(len(space), 0.5))
        self.static_scale = np.where(space.width > 0, space.width, 1.0) / np.sqrt(12.0)  # sd of a uniform range

    def forward(self, stretches: Sequence[Stretch]) -> ProcessForward:
        """The process model over other stretches of days."""
        return ProcessForward(self.runs, stretches)


def check_config(config: InversionConfig, source: str | Path | None) -> None:
    """UserError on what the process model cannot do: it has no gradients, and its runs are dear."""
    if config.method == "adam":
        raise UserError(f"{source}: method adam follows gradients, which only the emulator has; use gauss_newton")
    if config.lambda_prior is not None:
        raise UserError(f"{source}: --model simulator and command need lambda_prior: null (a likelihood)")


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
    """How many runs an inversion of `free` parameters takes, the check of the prior included: few and many places."""
    if config.method == "ensemble":
        return (PRIOR_DRAWS + config.ensemble.members * (config.ensemble.iterations + 1),) * 2
    few, many = (
        PRIOR_DRAWS + differences * (free + 1) + of_start * config.number_of_starts + of_draw * config.randomized_draws
        for differences, of_start, of_draw in (ONE_PLACE, MANY_PLACES)
    )
    return few, many


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
