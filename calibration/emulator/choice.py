"""Which preset serves this ensemble: short trainings, judged by runs and a year that they have not seen.

Closed forms help where an ensemble's names are right and its forests are VISIT's; run means by regression need neither;
the year as an input helps where forests were not at rest on the first day, and harms where it lets the network learn
the training weather by heart. Which holds is not guessed but measured, on a fifth of the seen runs.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from joblib import cpu_count

from calibration.common.command_line import warn
from calibration.common.configuration import Configuration
from calibration.common.parameters import canonical_name
from calibration.common.sites import Site
from calibration.common.units import FLUX_LABELS, TARGETS
from calibration.emulator.cross_fit import fit_in_memory, folds_needed, in_parallel, split_seen, training_days
from calibration.network.shared_dropout import PROCESSES
from dataset import TrainingData

FEWEST_RUNS = 20  # seen runs below which a fifth of them cannot tell presets apart
MOST_HELD_OUT = 100  # runs: more tell no more
CLEARLY = 0.9  # share of the error that a preset may leave to be taken in place of one listed before it
TRIAL = 0.5  # share of the schedule that a trial gets
TRIAL_TIME = 0.4  # share of the time that trials may take together


@dataclass(frozen=True)
class PresetTrial:
    """What a short training of one preset reached."""

    config: Configuration
    r2: dict[str, float]  # of each flux, on unseen runs in the unseen validation period, pooled
    seconds: float  # of one training step, on one core

    @property
    def score(self) -> float:
        """What is compared: mean R2 of the fluxes, weighted as the loss weighs them."""
        weights = self.config.training.flux_weights
        return float(np.average([self.r2[name] for name in TARGETS], weights=[weights[name] for name in TARGETS]))


def choose(
    configs: Sequence[Configuration], data: TrainingData, device: torch.device, site: Site, seconds: float,
    closed_forms: bool, say: Callable[[str], object],
) -> tuple[Configuration, list[PresetTrial]]:  # fmt: skip
    """The configuration that serves these runs within `seconds`, and the trials behind it (none without a choice).

    closed_forms: whether presets that use them may be chosen; `say` takes lines about what is tried.
    """
    if len(configs) == 1 or PROCESSES.world > 1:  # the processes of torchrun must agree without having measured
        return configs[0], []
    presets = candidates(configs, data.ensemble.parameter_names, closed_forms)
    if len(presets) == 1 or len(data.seen) < FEWEST_RUNS:
        if len(data.seen) < FEWEST_RUNS:
            warn(
                f"{len(data.seen)} runs to train on: too few to choose a preset by evidence ({FEWEST_RUNS}); "
                f"it is {presets[0].preset}, and its skill on unseen runs is hardly known"
            )
        return presets[0], []
    say(
        f"choosing among {', '.join(preset.preset for preset in presets)}, training and the error model: at most "
        f"{seconds / 60:.1f} minutes (--minutes)"
    )
    began = time.monotonic()
    trials = try_out(presets, data, device, site, seconds * TRIAL_TIME / len(presets))
    say(f"R2 of short trainings on runs held out, in {data.splits.validation[0][:4]}, held out as well:")
    say(table(trials))
    networks = 1 + folds_needed(data, trials[0].config.training.error_runs) / cpu_count()
    epochs = fitting_epochs(trials[0], networks, seconds - (time.monotonic() - began))
    config = trials[0].config
    if epochs < config.training.epochs:
        say(f"{epochs} of {config.training.epochs} epochs fit in the time; more with a larger --minutes")
    return config.override("training", epochs=epochs), trials


def candidates(
    presets: Sequence[Configuration], names: Sequence[str], closed_forms: bool
) -> list[Configuration]:  # fmt: skip
    """The presets worth a trial: without closed forms where they are not wanted or none of `names` is VISIT's."""
    known = closed_forms and any(canonical_name(name) for name in names)
    return [preset for preset in presets if known or preset.model.static_features in ("none", "regression")]


def try_out(
    presets: Sequence[Configuration], data: TrainingData, device: torch.device, site: Site, max_seconds: float
) -> list[PresetTrial]:
    """Short trainings of `presets`, the best first; each takes at most `max_seconds`."""
    kept, left_out = split_seen(data, 1)[0]
    part = replace(data, seen=kept, unseen=left_out[:MOST_HELD_OUT])
    tasks = [(preset, part, device, site, max_seconds) for preset in presets]
    work = max(training_days(preset) for preset in presets)
    trials = in_parallel(_trial, tasks, work, device, "choosing a preset")
    best = trials[0]
    for trial in trials[1:]:  # in the order of the YAML: a later one must leave clearly less
        if 1.0 - trial.score < CLEARLY * (1.0 - best.score):
            best = trial
    return [best, *sorted((trial for trial in trials if trial is not best), key=lambda trial: -trial.score)]


def _trial(
    config: Configuration, data: TrainingData, device: torch.device, site: Site, max_seconds: float
) -> PresetTrial:
    """One short training, judged on data.unseen in the validation period."""
    short = config.override("training", epochs=max(1, round(TRIAL * config.training.epochs)))
    model, state = fit_in_memory(short, data, device, site, config.training.seed, max_seconds)
    days = data.periods["validation"]
    context = min(config.evaluation.context_days, days.start)
    predicted = data.predicted(model, data.unseen, days, context)
    truth = data.truth(data.unseen, days)
    r2 = {name: capped_r2(predicted[..., i], truth[..., i]) for i, name in enumerate(TARGETS)}
    return PresetTrial(config, r2, state.seconds / max(1, state.step))


def capped_r2(predicted: np.ndarray, truth: np.ndarray) -> float:
    """1 - mean over runs of (error / pooled variance, at most 1); predicted and truth (run, day), one unit.

    As R2, but one forest that is taken for dead counts once, and does not outvote all the others.
    """
    truth = truth.astype(np.float64)
    error = np.square(predicted - truth).mean(axis=1) / max(float(truth.var()), 1e-30)
    return float(1.0 - np.minimum(error, 1.0).mean())


def fitting_epochs(trial: PresetTrial, networks: float, seconds: float) -> int:
    """Epochs of the chosen preset for which `networks` trainings, one after another, take at most `seconds`."""
    options = trial.config.training
    affordable = int(seconds / max(1e-9, networks * options.steps_per_epoch * trial.seconds))
    return int(np.clip(affordable, min(3, options.epochs), options.epochs))


def table(trials: Sequence[PresetTrial]) -> str:
    """The trials as text: R2 of each flux, and the mean that decides."""
    width = max(len(trial.config.preset) for trial in trials)
    head = f"  {'preset':{width}s}" + "".join(f"{FLUX_LABELS[name]:>8s}" for name in TARGETS) + "    mean R2"
    rows = [
        f"  {trial.config.preset:{width}s}" + "".join(f"{trial.r2[name]:8.3f}" for name in TARGETS)
        + f"{trial.score:11.4f}" + ("  <- chosen" if trial is trials[0] else "")
        for trial in trials
    ]  # fmt: skip
    return "\n".join([head, *rows])


def as_records(trials: Sequence[PresetTrial]) -> list[dict[str, float | str]]:
    """The trials for config.json."""
    return [{"preset": trial.config.preset, "mean_r2": trial.score, **trial.r2} for trial in trials]
