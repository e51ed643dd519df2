"""Errors on unseen runs without keeping more runs back: further networks, each trained without a fifth of the runs.

The runs that training never sees are few (a tenth), and a handful of parameter vectors carries most of the error, so
18 of them say little about the next ones. Each fifth of the seen runs is therefore predicted by a network that was
trained on the other four, by the same schedule (cross-fitting). Those networks know a fifth less, which makes their
errors a little larger than the emulator's; they are used for nothing else.
"""

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, replace

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed, parallel_config

from calibration.common.command_line import progress
from calibration.common.configuration import Configuration
from calibration.common.sites import Site
from calibration.common.units import DYNAMIC_FEATURES
from calibration.emulator.training import TrainingState, make_optimizer, train
from calibration.network.shared_dropout import one_process
from calibration.network.static_features import logarithmic_parameters
from dataset import TrainingData
from model import StaticConditionedLSTM, create_model

FOLDS = 5
WORTH_A_PROCESS = 300_000  # sample-days of a training: some seconds, as starting a process takes


def build_model(
    config: Configuration, data: TrainingData, device: torch.device, site: Site
) -> StaticConditionedLSTM:
    """A fresh network with the data's scalings and the site's latitude, altitude and soil inside."""
    names, values = data.ensemble.parameter_names, data.ensemble.parameters[data.seen]
    model = create_model(
        dynamic_dim=len(DYNAMIC_FEATURES), static_dim=len(names), **asdict(config.model), parameter_names=names,
        logarithmic=logarithmic_parameters(names, values), device=device, dated=True,
        regression_runs=len(data.seen) if config.model.static_features == "regression" else 0,
    )  # fmt: skip
    train_days = data.periods["train"]
    weather, dates = data.ensemble.dynamic[train_days], data.ensemble.dates[train_days]
    if model.static.features.means is not None:
        means = data.fluxes[data.seen][:, data.periods["train"]].mean(dim=1)
        model.static.features.means.fit(data.static[data.seen].cpu().numpy(), means.cpu().numpy())
    model.set_scaling(data.target_scaler, data.dynamic_scaler, data.static_scaler, values, weather, site, dates)
    return model


def folds_needed(data: TrainingData, wanted: int) -> int:
    """How many fifths of the seen runs it takes until errors of `wanted` runs are known: 0 to FOLDS."""
    missing = wanted - len(data.unseen)
    return int(np.clip(np.ceil(missing / max(1.0, len(data.seen) / FOLDS)), 0, min(FOLDS, len(data.seen) // 2)))


def split_seen(data: TrainingData, folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(kept, left out) run indices of the first `folds` of FOLDS parts of the seen runs, drawn by the splits' seed."""
    order = np.random.default_rng(data.splits.seed + 1).permutation(data.seen)
    parts = [np.sort(part) for part in np.array_split(order, min(FOLDS, len(order)))]
    return [(np.setdiff1d(data.seen, part), part) for part in parts[:folds]]


def cross_fit(
    config: Configuration, data: TrainingData, folds: int, warmup: int, device: torch.device, site: Site
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(kept runs, left-out runs (n,), their errors (n, day - warmup, 4) in Mg C ha-1 day-1) of each fold.

    Trains `folds` networks on this process alone; error = network - VISIT, free running over all days.
    """
    tasks = [
        (config, replace(data, seen=kept, unseen=left_out), warmup, device, site, config.training.seed + fold)
        for fold, (kept, left_out) in enumerate(split_seen(data, folds))
    ]
    return in_parallel(_fold, tasks, training_days(config), device, "error model")


def _fold(
    config: Configuration, data: TrainingData, warmup: int, device: torch.device, site: Site, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kept runs, left-out runs and their errors, of a network trained on data.seen alone."""
    model, _ = fit_in_memory(config, data, device, site, seed)
    return data.seen, data.unseen, free_run_errors(model, data, data.unseen, warmup)


def training_days(config: Configuration) -> int:
    """Sample-days of one training: what its time goes with."""
    options = config.training
    return options.epochs * options.steps_per_epoch * options.batch_size * (options.warmup_days + options.scored_days)


def in_parallel(function: Callable, tasks: Sequence[tuple], days: int, device: torch.device, what: str) -> list:
    """function(*task) of every task, in order: trainings of `days` sample-days each, one a core, on one thread each.

    Here and one after another where a network sits on a GPU, or where a training is too short to be worth a process.
    """
    jobs = min(cpu_count(), len(tasks))
    with one_process():
        if jobs < 2 or device.type != "cpu" or days < WORTH_A_PROCESS:
            return [function(*task) for task in progress(tasks, desc=what, unit="network")]
        with parallel_config(backend="loky", n_jobs=jobs, inner_max_num_threads=1):
            made = Parallel(return_as="generator")(delayed(_quietly)(function, task) for task in tasks)
            return list(progress(made, total=len(tasks), desc=what, unit="network"))


def _quietly(function: Callable, task: tuple):
    """function(*task) in a process of its own, without a progress bar beside the others' and on one thread."""
    torch.set_num_threads(1)
    with redirect_stderr(io.StringIO()):
        return function(*task)


def fit_in_memory(
    config: Configuration, data: TrainingData, device: torch.device, site: Site, seed: int,
    max_seconds: float | None = None,
) -> tuple[StaticConditionedLSTM, TrainingState]:  # fmt: skip
    """Train as train.py does, without files: the network of the best epoch, and what training has to tell."""
    torch.manual_seed(seed)
    model, state = build_model(config, data, device, site), TrainingState()
    best: dict[str, torch.Tensor] = {}

    def keep(row, is_best):
        """Remember the weights of the best epoch."""
        if is_best:
            best.update({name: value.clone() for name, value in model.state_dict().items() if torch.is_tensor(value)})

    generator = torch.Generator().manual_seed(seed)
    train(model, make_optimizer(model, config.training), data, config, state, generator, keep, max_seconds)
    model.load_state_dict({**best, "_extra_state": model.get_extra_state()})
    return model.eval(), state


@torch.no_grad()
def free_run_errors(model: StaticConditionedLSTM, data: TrainingData, runs: np.ndarray, warmup: int) -> np.ndarray:
    """Errors (run, day - warmup, 4), Mg C ha-1 day-1, of free runs over all days; the first `warmup` set the state."""
    errors = data.predicted(model, runs, slice(warmup, len(data.dynamic)), warmup)
    return errors - data.ensemble.fluxes[runs][:, warmup:]
