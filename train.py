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
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import calibration  # noqa: F401  how idle threads wait, before torch is loaded

# isort: split
import torch
import torch.distributed as distributed

from calibration.common.command_line import (
    REPOSITORY,
    UserError,
    add_quiet,
    closing,
    existing_file,
    make_parser,
    read_json,
    run,
    warn,
    write_json,
)  # fmt: skip
from calibration.common.configuration import ARCHITECTURE_FILE, Configuration, load_choice, load_configuration, period
from calibration.common.folder_lock import only_process_in
from calibration.common.parameters import implausible
from calibration.common.provenance import write_record
from calibration.common.reproduction import add_reproduce
from calibration.common.sites import DEFAULT_SITE, Site, load_site
from calibration.common.units import FLUX_LABELS, TARGETS
from calibration.emulator.choice import as_records, choose
from calibration.emulator.cross_fit import build_model, cross_fit, folds_needed
from calibration.emulator.error import EmulatorErrors, estimate_errors, save_errors
from calibration.emulator.record import begin_folder, describe_training, finish, resume, save_checkpoints, save_scalers
from calibration.emulator.settle import CHECK, TRUST, choose_device, settle_labels, warn_of_another_site
from calibration.emulator.trained import CONFIG, HISTORY, LATEST, load_emulator
from calibration.emulator.training import SCORE_KEY, VALIDATION_KEY, TrainingState, make_optimizer, train
from calibration.ensembles.labels import from_dict
from calibration.network.shared_dropout import PROCESSES
from dataset import TrainingData, describe, open_ensemble, prepare
from model import count_parameters


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
        "--labels", metavar="check|trust|FILE", help="check (default): stop where the outputs contradict the labels of "
        "parameter_summary.csv; trust: take them as they are, without closed forms; FILE: the map that the check wrote",
    )  # fmt: skip
    parser.add_argument(
        "--drop-columns", nargs="+", metavar="NAME",
        help="columns of parameter_summary.csv that are no parameters (remembered; default: YAML)",
    )  # fmt: skip
    parser.add_argument("--artifacts-dir", default=str(REPOSITORY / "artifacts"), help="folder for the emulator")
    parser.add_argument("--site", default=str(DEFAULT_SITE), help="site YAML: latitude, altitude and soil count here")
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
    add_quiet(parser)
    parser.add_argument("--report", action="store_true", help="also write report.html (make_report.py)")
    parser.add_argument("--resume", action="store_true", help="continue from checkpoint_latest.pt of --artifacts-dir")
    parser.add_argument(
        "--mixed-precision", action="store_true", help="bfloat16 on a GPU (slower on CPUs, refused there)"
    )
    parser.add_argument("--tensorboard", metavar="DIR", nargs="?", const=str(REPOSITORY / "logs" / "tensorboard"),
                        help="write a TensorBoard log there (default folder: logs/tensorboard)")  # fmt: skip
    add_reproduce(parser, "--artifacts-dir")
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


def start_processes() -> tuple[int, int, int]:
    """(rank, world, local rank); joins the process group when torchrun started us."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return 0, 1, 0
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend)
    return distributed.get_rank(), world, int(os.environ["LOCAL_RANK"])


def fit(arguments: argparse.Namespace, rank: int, world: int, device: torch.device, held: ExitStack) -> int:
    """Load, train, save, estimate errors; only rank 0 writes and speaks. `held` keeps the folder for this process."""

    def say(text):
        """Print on rank 0 only."""
        if rank == 0:
            print(text)

    directory = Path(arguments.artifacts_dir)
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--artifacts-dir {directory}: is a file; give a folder")
    if arguments.resume:
        existing_file(directory / LATEST, "nothing to resume: start without --resume")
    choice = load_choice(arguments.architecture, arguments.preset)
    preset = arguments.preset
    if arguments.resume and choice is not None and (directory / CONFIG).is_file():  # what was chosen then
        preset, choice = read_json(directory / CONFIG)["configuration"]["preset"], None
    config, splits_given = resolve_configuration(arguments, preset)
    data_directory = (
        Path(arguments.data_dir) if arguments.data_dir else ARCHITECTURE_FILE.parent / config.data.directory
    )
    began, started = time.monotonic(), time.perf_counter()
    site = load_site(arguments.site)
    ensemble = open_ensemble(config, data_directory)
    warn_of_another_site(ensemble.directory, site)
    if arguments.resume and arguments.labels is None and (directory / CONFIG).is_file():
        kept = read_json(directory / CONFIG)
        arguments.labels, label_map = kept.get("labels", CHECK), kept["configuration"]["data"].get("label_map")
        labels = label_map and from_dict(label_map, directory / CONFIG)
    else:
        labels = settle_labels(arguments.labels or CHECK, ensemble, site, directory, say)
    if labels is not None:
        ensemble = labels.applied(ensemble)
        config = config.override("data", label_map=labels.as_dict())
    if rank == 0 and (doubt := implausible(ensemble.parameter_names, ensemble.parameters)):
        warn(f"{ensemble.directory}: {doubt}")
    data = prepare(ensemble, config.splits, splits_given, device)
    say(describe(data, config))
    say(f"loaded in {time.monotonic() - began:.1f} s")
    runs, splits = len(data.ensemble.sample_ids), asdict(data.splits)
    presets = [preset] if choice is None else choice.presets
    configs = [
        replace(resolve_configuration(arguments, name)[0], data=config.data).override("splits", **splits).for_runs(runs)
        for name in presets
    ]
    if rank == 0 and (lock := only_process_in(directory, "train.py")) is not None:
        held.callback(lock.release)
    minutes = arguments.minutes or (choice.minutes * max(1.0, math.sqrt(runs / 180)) if choice else math.inf)
    left = minutes * 60 - (time.monotonic() - began)
    config, trials = choose(configs, data, device, site, left, arguments.labels != TRUST, say)

    torch.manual_seed(config.training.seed)
    generator = torch.Generator().manual_seed(config.training.seed)
    model = build_model(config, data, device, site)
    record = describe_training(config, data)  # before anything is removed: it reads the ensemble's log
    record["choice"], record["labels"] = as_records(trials), arguments.labels or CHECK
    optimizer = make_optimizer(model, config.training)
    state = TrainingState()
    save = partial(save_checkpoints, directory, config, data, model, optimizer, state, generator)
    if arguments.resume:
        resume(directory, config, data, model, optimizer, state, generator)
        say(f"resumed after epoch {state.epoch}")
    elif rank == 0:
        begin_folder(directory, lambda: save(is_best=False))
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
        save(is_best)
        write_json(directory / HISTORY, state.history)
        if board is not None:
            for key, value in row.items():
                if isinstance(value, float):
                    board.add_scalar(key, value, row["step"])
        remaining = state.seconds / state.epoch * (options.epochs - state.epoch)
        print(
            f"epoch {row['epoch']:3d}/{options.epochs}  loss {row['train_loss']:.5f}  val Rollout_RMSE@30 of "
            f"NEP {row[VALIDATION_KEY]:.5f}, of all {row[SCORE_KEY]:.3f} sd"
            f"{' *' if is_best else '  '}  {state.seconds:.0f} s, about {remaining:.0f} s to go"
        )

    max_seconds = arguments.max_minutes * 60 if arguments.max_minutes else None
    train(model, optimizer, data, config, state, generator, on_epoch, max_seconds, arguments.mixed_precision)
    if rank == 0:
        print(finish(directory, record, state))
        rest = max_seconds - (time.monotonic() - began) if max_seconds is not None else math.inf
        errors = measure_error(directory, config, data, device, site, state.seconds, rest)
        save_errors(directory, errors)
        report(errors)
        write_record(directory, started, {
            "ensemble": data_directory, "architecture": arguments.architecture, "site": arguments.site,
        }, seed=options.seed)  # fmt: skip
        if arguments.report:
            from calibration.reports.kinds import report_on  # slow to import: loaded only where it is needed

            print(f"report: {report_on(directory)}")
        closing(directory, f"python evaluate_model.py --artifacts-dir {directory}")
    if board is not None:
        board.close()
    return 0


def make_board(directory: str):
    """A TensorBoard writer; UserError when the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard needs the package tensorboard: pip install tensorboard") from None
    return SummaryWriter(directory)


def measure_error(
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


def report(errors: EmulatorErrors) -> None:
    """The error in one line."""
    sd = ", ".join(f"{FLUX_LABELS[name]} {errors.summary['fluxes'][name]['sd']:.5f}" for name in TARGETS)
    print(f"error sd on {errors.summary['runs']} unseen runs, free running over all days: {sd} Mg C ha-1 day-1")
    nep = errors.summary["fluxes"]["nep"]
    if "sd_not_at_rest" in nep:
        print(f"  {errors.summary['not_at_rest']} of them not at rest: NEP {nep['sd_not_at_rest']:.5f}, the others "
              f"{nep['sd_at_rest']:.5f}; an estimate of their kind takes their error")  # fmt: skip


def main() -> int:
    arguments = parse_arguments()
    for name in ("minutes", "max_minutes"):
        given = getattr(arguments, name)
        if given is not None and not (given > 0 and math.isfinite(given)):
            raise UserError(f"--{name.replace('_', '-')} is {given}, must be above 0")
    rank, world, local_rank = start_processes()
    PROCESSES.rank, PROCESSES.world = rank, world
    device = choose_device(arguments.device, local_rank)
    if arguments.mixed_precision and device.type == "cpu":
        raise UserError("--mixed-precision needs a GPU (bfloat16 was measured twice as slow on a CPU); leave it out")
    try:
        with ExitStack() as held:
            return fit(arguments, rank, world, device, held)
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
