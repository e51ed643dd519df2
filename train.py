"""Train the emulator on an ensemble of VISIT runs.

    python train.py                                   # chooses what serves the ensemble in data/ -> artifacts/
    python train.py --preset specification            # the contract's network and schedule
    torchrun --nproc-per-node 2 train.py              # data-parallel, the same loss curve as one process

Without --preset, short trainings decide among the YAML's choice.presets. Numbers come from LHP_architecture.yaml; flags
override them; artifacts/config.json records the result. Leaves
config.json, checkpoint_best.pt, checkpoint_latest.pt, training_history.json, training_loss.png, both scalers, and the
emulator's error on unseen runs (emulator_error.json and .npz).
"""

import argparse
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Idle OpenMP threads that spin cost other processes on the machine (and this one) dearly; they sleep instead. Must be
# set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch
import torch.distributed as distributed
from joblib import cpu_count

from calibration.common.command_line import (
    REPOSITORY,
    UserError,
    make_parser,
    read_json,
    run,
    warn,
    write_json,
)
from calibration.common.configuration import ARCHITECTURE_FILE, Configuration, load_choice, load_configuration, period
from calibration.common.sites import DEFAULT_SITE, Site, load_site, other_constants, say_default
from calibration.common.units import FLUX_LABELS, TARGETS
from calibration.emulator.choice import (
    FEWEST_RUNS,
    Trial,
    as_records,
    candidates,
    fitting_epochs,
    table,
    try_out,
)
from calibration.emulator.cross_fit import build_model, cross_fit, folds_needed
from calibration.emulator.error import EmulatorErrors, estimate_errors, save_errors
from calibration.emulator.record import describe_training, finish, resume, save_checkpoints, save_scalers
from calibration.emulator.trained import BEST, CONFIG, HISTORY, LATEST, load_emulator, usable_device
from calibration.emulator.training import VALIDATION_KEY, TrainingState, make_optimizer, train
from calibration.ensembles.files import LOG, noted_site
from calibration.network.shared_dropout import PROCESSES
from dataset import TrainingData, describe, load_data
from model import count_parameters

TRIAL_TIME = 0.4  # share of the time that short trainings may take together


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--architecture", default=str(ARCHITECTURE_FILE), help="YAML with presets, periods and schedule"
    )
    parser.add_argument("--preset", help="a preset of the YAML, or auto: short trainings decide (default: the YAML's)")
    parser.add_argument(
        "--minutes", type=float, help="time for choosing, training and the error model (default: YAML, 5 at 180 runs)"
    )
    parser.add_argument("--data-dir", help="folder of the ensemble (default: data.directory of the YAML)")
    parser.add_argument(
        "--drop-columns", nargs="+", metavar="NAME",
        help="columns of parameter_summary.csv that are no parameters (remembered; default: YAML)",
    )  # fmt: skip
    parser.add_argument(
        "--artifacts-dir", default=str(REPOSITORY / "artifacts"), help="folder for the trained emulator"
    )
    parser.add_argument(
        "--site", default=str(DEFAULT_SITE), help="the site's YAML; its latitude, altitude and soil count here"
    )
    parser.add_argument(
        "--train-period", nargs=2, metavar=("FIRST", "LAST"), help="years or dates, inclusive (default: YAML)"
    )
    parser.add_argument(
        "--validation-period", nargs=2, metavar=("FIRST", "LAST"), help="years or dates (default: YAML)"
    )
    parser.add_argument("--test-period", nargs=2, metavar=("FIRST", "LAST"), help="years or dates (default: YAML)")
    parser.add_argument("--unseen-share", type=float, help="share of the runs that is never trained on (default: YAML)")
    parser.add_argument("--epochs", type=int, help="epochs of steps-per-epoch steps (default: YAML)")
    parser.add_argument("--steps-per-epoch", type=int, help="optimiser steps an epoch (default: YAML)")
    parser.add_argument(
        "--batch-size", type=int, help="stretches (run, span of days) a step, over all processes (default: YAML)"
    )
    parser.add_argument("--learning-rate", type=float, help="peak learning rate of AdamW (default: YAML)")
    parser.add_argument("--gradient-clip", type=float, help="largest norm of the gradient (default: YAML)")
    parser.add_argument(
        "--patience", type=int, help="epochs without a better validation before stopping, 0 = never (default: YAML)"
    )
    parser.add_argument("--hidden-size", type=int, help="LSTM width (default: YAML)")
    parser.add_argument("--num-layers", type=int, help="LSTM layers (default: YAML)")
    parser.add_argument("--seed", type=int, help="of weights, batches and dropout (default: YAML, 2025)")
    parser.add_argument(
        "--error-runs", type=int, help="unseen runs behind the error model: where fewer were kept back, further "
        "networks are trained without a fifth of the runs each; 0 = only those kept back (default: YAML)",
    )  # fmt: skip
    parser.add_argument(
        "--max-minutes", type=float, help="time limit; the schedule is compressed to end in it (default: none)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, or auto = a GPU where there is one")
    parser.add_argument("--resume", action="store_true", help="continue from checkpoint_latest.pt of --artifacts-dir")
    parser.add_argument(
        "--mixed-precision", action="store_true", help="bfloat16 on a GPU (slower on CPUs, refused there)"
    )
    parser.add_argument("--tensorboard", metavar="DIR", nargs="?", const=str(REPOSITORY / "logs" / "tensorboard"),
                        help="write a TensorBoard log there (default folder: logs/tensorboard)")  # fmt: skip
    return parser.parse_args()


def resolve_configuration(arguments: argparse.Namespace, preset: str | None) -> tuple[Configuration, bool]:
    """YAML + flags -> configuration of `preset`, and whether the user named the periods."""
    config = load_configuration(arguments.architecture, preset)
    periods = {}
    for name in ("train", "validation", "test"):
        given = getattr(arguments, f"{name}_period")
        if given is not None:
            periods[name] = list(period(given, f"--{name}-period"))
    config = config.override("splits", **periods, unseen_share=arguments.unseen_share)
    config = config.override("data", directory=str(Path(arguments.data_dir).resolve()) if arguments.data_dir else None)
    config = config.override("data", drop_columns=arguments.drop_columns)
    config = config.override(
        "training", epochs=arguments.epochs, steps_per_epoch=arguments.steps_per_epoch, batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate, gradient_clip=arguments.gradient_clip, patience=arguments.patience,
        seed=arguments.seed, error_runs=arguments.error_runs,
    )  # fmt: skip
    return config.override("model", hidden_size=arguments.hidden_size, num_layers=arguments.num_layers), bool(periods)


def choose_device(name: str, local_rank: int) -> torch.device:
    """The torch device for `auto`, `cpu`, `cuda`...; UserError when it does not exist."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{local_rank}"
    return usable_device(name)


def warn_of_another_site(directory: Path, site: Site) -> None:
    """Say so when the ensemble's log names other site constants than `site`, or none and the site is the default: a
    forgotten --site goes unnoticed else.
    """
    log, noted = directory / LOG, noted_site(directory)
    say_default(site, None if noted else directory)
    for name, (there, here) in other_constants(site, noted).items():
        if name != "variant":  # training does not depend on VISIT's version
            warn(
                f"{log}: the runs were made with {name} {there}, training supposes {here} ({site.name}); "
                "give the ensemble's site with --site"
            )
            break


def start_processes() -> tuple[int, int, int]:
    """(rank, world, local rank); joins the process group when torchrun started us."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return 0, 1, 0
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend)
    return distributed.get_rank(), world, int(os.environ["LOCAL_RANK"])


def fit(arguments: argparse.Namespace, rank: int, world: int, device: torch.device) -> int:
    """Load, train, save, estimate errors; only rank 0 writes and speaks."""

    def say(text):
        """Print on rank 0 only."""
        if rank == 0:
            print(text)

    directory = Path(arguments.artifacts_dir)
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--artifacts-dir {directory}: is a file; give a folder")
    choice = load_choice(arguments.architecture, arguments.preset)
    preset = arguments.preset
    if arguments.resume and choice is not None and (directory / CONFIG).is_file():  # what was chosen then
        preset, choice = read_json(directory / CONFIG)["configuration"]["preset"], None
    config, splits_given = resolve_configuration(arguments, preset)
    data_directory = (
        Path(arguments.data_dir) if arguments.data_dir else ARCHITECTURE_FILE.parent / config.data.directory
    )
    began = time.monotonic()
    data = load_data(config, data_directory, splits_given, device)
    say(describe(data, config))
    say(f"loaded in {time.monotonic() - began:.1f} s")
    runs, splits = len(data.ensemble.sample_ids), asdict(data.splits)
    presets = [preset] if choice is None else choice.presets
    configs = [
        resolve_configuration(arguments, name)[0].override("splits", **splits).for_runs(runs) for name in presets
    ]
    site = load_site(arguments.site)
    minutes = arguments.minutes or (choice.minutes * max(1.0, math.sqrt(runs / 180)) if choice else math.inf)
    config, trials = choose(configs, data, device, site, minutes * 60 - (time.monotonic() - began), say)

    torch.manual_seed(config.training.seed)
    generator = torch.Generator().manual_seed(config.training.seed)
    model = build_model(config, data, device, site)
    warn_of_another_site(data.ensemble.directory, site)
    record = describe_training(config, data)  # before anything is removed: it reads the ensemble's log
    record["choice"] = as_records(trials)
    optimizer = make_optimizer(model, config.training)
    state = TrainingState()
    if arguments.resume:
        resume(directory, config, data, model, optimizer, state, generator)
        say(f"resumed after epoch {state.epoch}")
    elif rank == 0:
        for name in (BEST, LATEST, HISTORY):  # an old best must not pass for this training's
            (directory / name).unlink(missing_ok=True)
    options = config.training
    say(
        f"preset {config.preset}: LSTM {config.model.num_layers} x {config.model.hidden_size}, "
        f"{count_parameters(model):,} weights, on {device}, "
        f"{world} process(es); {options.epochs} epochs of {options.steps_per_epoch} steps, a step is "
        f"{options.batch_size} stretches "
        f"of {options.warmup_days} + {options.scored_days} days"
    )
    if rank == 0:
        write_json(directory / CONFIG, record)
        save_scalers(directory, data)
    board = make_board(arguments.tensorboard) if rank == 0 and arguments.tensorboard else None

    def on_epoch(row: dict[str, Any], is_best: bool) -> None:
        """Save and report an epoch; `row`: its line of the training history."""
        if rank:
            return
        save_checkpoints(directory, config, data, model, optimizer, state, generator, is_best)
        write_json(directory / HISTORY, state.history)
        if board is not None:
            for key, value in row.items():
                if isinstance(value, float):
                    board.add_scalar(key, value, row["step"])
        remaining = state.seconds / state.epoch * (options.epochs - state.epoch)
        print(
            f"epoch {row['epoch']:3d}/{options.epochs}  loss {row['train_loss']:.5f}  val Rollout_RMSE@30 of "
            f"NEP {row[VALIDATION_KEY]:.5f}"
            f"{' *' if is_best else '  '}  {state.seconds:.0f} s, about {remaining:.0f} s to go"
        )

    max_seconds = arguments.max_minutes * 60 if arguments.max_minutes else None
    train(model, optimizer, data, config, state, generator, on_epoch, max_seconds, arguments.mixed_precision)
    if rank == 0:
        finish(directory, record, state)
        rest = max_seconds - (time.monotonic() - began) if max_seconds is not None else math.inf
        errors = error_model(directory, config, data, device, site, state.seconds, rest)
        save_errors(directory, errors)
        report(directory, errors)
    if board is not None:
        board.close()
    return 0


def choose(
    configs: list[Configuration], data: TrainingData, device: torch.device, site: Site, seconds: float,
    say: Callable[[str], None],
) -> tuple[Configuration, list[Trial]]:  # fmt: skip
    """The configuration that serves these runs within `seconds`, and the trials behind it (none without a choice)."""
    if len(configs) == 1 or PROCESSES.world > 1:  # the processes of torchrun must agree without having measured
        return configs[0], []
    presets = candidates(configs, data.ensemble.parameter_names, closed_forms=True)
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


def make_board(directory: str):
    """A TensorBoard writer; UserError when the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard needs the package tensorboard: pip install tensorboard") from None
    return SummaryWriter(directory)


def error_model(
    directory: Path, config: Configuration, data: TrainingData, device: torch.device, site: Site, training: float,
    rest: float,
) -> EmulatorErrors:  # fmt: skip
    """The emulator's error on unseen runs; further networks only where `rest` seconds hold them (`training`: one)."""
    warmup = min(config.evaluation.context_days, data.periods["test"].start)
    folds = folds_needed(data, config.training.error_runs)
    if folds * training > rest:
        warn(
            f"--max-minutes leaves no time for the error model's {folds} networks: it rests on {len(data.unseen)} runs"
        )
        folds = 0
    if folds:
        print(f"error model: {folds} further networks, each trained without a fifth of the seen runs")
    further = cross_fit(config, data, folds, warmup, device, site)
    return estimate_errors(load_emulator(directory), data, warmup, further)


def report(directory: Path, errors: EmulatorErrors) -> None:
    """The error on one screen, and what to do next."""
    sd = ", ".join(f"{FLUX_LABELS[name]} {errors.summary['fluxes'][name]['sd']:.5f}" for name in TARGETS)
    print(f"error sd on {errors.summary['runs']} unseen runs, free running over all days: {sd} Mg C ha-1 day-1")
    print(f"written to {directory}; next: python evaluate_model.py")


def main() -> int:
    arguments = parse_arguments()
    if arguments.max_minutes is not None and not (arguments.max_minutes > 0 and math.isfinite(arguments.max_minutes)):
        raise UserError(f"--max-minutes is {arguments.max_minutes}, must be above 0")
    rank, world, local_rank = start_processes()
    PROCESSES.rank, PROCESSES.world = rank, world
    device = choose_device(arguments.device, local_rank)
    if arguments.mixed_precision and device.type == "cpu":
        raise UserError("--mixed-precision needs a GPU (bfloat16 was measured twice as slow on a CPU); leave it out")
    try:
        return fit(arguments, rank, world, device)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if (
            isinstance(error, RuntimeError)
            and not isinstance(error, torch.OutOfMemoryError)
            and "can't allocate memory" not in str(error)
        ):
            raise
        raise UserError(
            "out of memory; lower --batch-size first, then training.scored_days and model.hidden_size in the YAML "
            "(memory grows with batch_size x (warmup_days + scored_days) x hidden_size x num_layers)"
        ) from None
    finally:
        if world > 1:
            distributed.destroy_process_group()


if __name__ == "__main__":
    run(main)
