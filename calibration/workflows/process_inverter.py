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
TRIAL = 8  # runs that tell how long one takes
# Runs that an inversion takes, measured at 8 starts (docs/method.md): full differences, steps of a start, of a draw.
DIFFERENCES, STEPS_OF_START, STEPS_OF_DRAW = 8, 45, 5


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


def expected_runs(config: InversionConfig, free: int) -> int:
    """About how many runs an inversion of `free` parameters takes, the check of the prior included."""
    if config.method == "ensemble":
        return PRIOR_DRAWS + config.ensemble.members * (config.ensemble.iterations + 1)
    search = DIFFERENCES * (free + 1) + STEPS_OF_START * config.number_of_starts
    return PRIOR_DRAWS + search + STEPS_OF_DRAW * config.randomized_draws


def announce(
    runs: KeptRuns, config: InversionConfig, space: ParameterSpace, free: int, say: Callable[[str], object]
) -> None:
    """A line on how many runs are ahead and how long they take, measured on a few; then a bar that counts them."""
    total, kept = expected_runs(config, free), len(runs.known)
    values = space.unit_to_physical(np.random.default_rng(config.seed).uniform(0.3, 0.7, (2 * TRIAL, len(space))))
    runs(values[:TRIAL])  # the first runs load the compiled code
    made, begin = runs.made, time.perf_counter()
    runs(values[TRIAL:])
    pace = (time.perf_counter() - begin) / max(runs.made - made, 1)
    if runs.failed == 2 * TRIAL:
        raise UserError("all of the first runs of the process model failed; see their messages")
    again = f", {kept} are kept from before" if kept else ""
    duration = "" if runs.made == made else f", {_words(pace * max(total - kept, 0))} at {pace:.3f} s a run"
    say(f"{runs.model.identity['model']}: about {total} runs ahead{again}{duration}")
    bar = progress(total=total, initial=min(kept, total), unit="run", desc="runs")
    runs.on_run = bar.update


def _words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
