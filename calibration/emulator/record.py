"""What a training leaves in its folder, and how an interrupted one is taken up again.

config.json (everything that load_emulator() and a reader need), both scalers, checkpoint_best.pt (weights),
checkpoint_latest.pt (weights and the state of the training), training_loss.png.
"""

import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calibration.common.command_line import UserError, warn, write_json, writing
from calibration.common.configuration import Configuration
from calibration.common.figure_style import save_figure
from calibration.common.units import DYNAMIC_FEATURES, TARGETS
from calibration.emulator.figures import loss_figure
from calibration.emulator.trained import BEST, CONFIG, FORMAT, HISTORY, LATEST, load_checkpoint, space_entries
from calibration.emulator.training import VALIDATION_KEY, TrainingState
from calibration.ensembles.files import read_log
from calibration.ensembles.labels import map_of
from calibration.network.canopy_equilibrium import CLOSED_FORMS
from dataset import TrainingData

ROOM = 4  # times the size of a checkpoint that must be free: two checkpoints, each written beside its old self
LOSS_FIGURE = "training_loss"
STATE = ("step", "epoch", "best", "best_epoch", "seconds", "history")  # of TrainingState, kept in checkpoint_latest.pt


def describe_training(config: Configuration, data: TrainingData) -> dict[str, Any]:
    """Content of config.json: everything that load_emulator() and a reader need."""
    ensemble = data.ensemble
    weather = ensemble.dynamic[data.periods["train"]]  # (day, 10), units.UNITS
    return {
        "format": FORMAT, "closed_forms": CLOSED_FORMS, "configuration": config.as_dict(),
        "feature_names": list(DYNAMIC_FEATURES), "target_names": list(TARGETS),
        "parameter_names": list(ensemble.parameter_names),
        "feature_ranges": {  # of the training days, physical: beyond it the emulator extrapolates
            name: [float(low), float(high)]
            for name, low, high in zip(DYNAMIC_FEATURES, weather.min(axis=0), weather.max(axis=0), strict=True)
        },
        "parameter_space": space_entries(
            ensemble.parameter_names, ensemble.parameters, log_under_labels(ensemble.directory, config)
        ),
        "data": {
            "directory": str(config.data.directory), "runs": len(ensemble.sample_ids),
            "first_day": str(ensemble.dates[0]), "last_day": str(ensemble.dates[-1]),
            "seen_sample_ids": ensemble.sample_ids[data.seen].tolist(),
            "unseen_sample_ids": ensemble.sample_ids[data.unseen].tolist(),
            "constant_parameters": list(ensemble.constant_parameters),
        },
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": np.__version__},
    }  # fmt: skip


def log_under_labels(directory: Path, config: Configuration) -> dict[str, Any]:
    """Content of parameter_log.json with its ranges under the names that the label map gives the columns."""
    log, labels = read_log(directory), map_of(config.data)
    ranges = log["settings"].get("ranges")
    if labels is None or not isinstance(ranges, dict):
        return log
    return log | {"settings": log["settings"] | {"ranges": labels.ranges(ranges)}}


def save_scalers(directory: Path, data: TrainingData) -> None:
    """Scalers (pickle + JSON twin) into the emulator's folder and, as the contract wants, beside the data."""
    for name, scaler in (("scaler_dynamic", data.dynamic_scaler), ("scaler_static", data.static_scaler)):
        scaler.save(directory / f"{name}.json")
        try:
            scaler.save(data.ensemble.directory / f"{name}.json")
        except (OSError, UserError) as error:  # a read-only ensemble
            warn(f"{name} is not written beside the data ({error}); the one in {directory} is what counts")


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """torch.save through a temporary name: a kill leaves the old file or the new one."""
    packed = io.BytesIO()  # torch's own writing to a file says nothing of why it failed
    torch.save(content, packed)
    with writing(path) as temporary:
        temporary.write_bytes(packed.getbuffer())


def begin_folder(directory: Path, save_first: Callable[[], None]) -> None:
    """Take the place of an earlier training, whose best weights must not pass for this one's.

    save_first writes this training's first checkpoint_latest.pt: where there is no room for it, or not for the files to
    follow, that is said (UserError) while the earlier emulator is still whole. A kill from here on can be resumed.
    """
    save_first()
    needed = ROOM * (directory / LATEST).stat().st_size
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise UserError(
            f"{directory}: {free >> 20} MB free, training needs {needed >> 20}; make room"
        )
    for name in (BEST, HISTORY):
        (directory / name).unlink(missing_ok=True)


def save_checkpoints(
    directory: Path, config: Configuration, data: TrainingData, model, optimizer, state: TrainingState, generator,
    is_best: bool,
) -> None:  # fmt: skip
    """checkpoint_latest.pt with all that resume() needs and, when `is_best`, the weights as checkpoint_best.pt."""
    weights = {
        "model_state_dict": model.state_dict(), "epoch": state.epoch,
        "training_parameters": torch.as_tensor(data.ensemble.parameters[data.seen]),
    }  # fmt: skip
    if is_best:
        save_checkpoint(directory / BEST, weights)
    training = {name: getattr(state, name) for name in STATE} | {
        "optimizer": optimizer.state_dict(),
        "batch_generator": generator.get_state(), "generator": torch.get_rng_state(),
        "cuda_generator": torch.cuda.get_rng_state() if data.fluxes.device.type == "cuda" else None,
        "configuration": config.as_dict(), "sample_ids": data.ensemble.sample_ids.tolist(),
    }  # fmt: skip
    save_checkpoint(directory / LATEST, weights | {"training": training})


def resume(
    directory: Path, config: Configuration, data: TrainingData, model, optimizer, state: TrainingState, generator
) -> None:
    """Take everything back from checkpoint_latest.pt. UserError when it belongs to another training."""
    latest = load_checkpoint(directory / LATEST)
    if "training" not in latest:
        raise UserError(f"{directory / LATEST}: holds no training state; start without --resume")
    before, now = latest["training"]["configuration"], config.as_dict()
    for section in ("model", "training", "splits"):
        for key, value in now[section].items():
            if before[section].get(key) != value:
                raise UserError(
                    f"{directory / LATEST}: trained with {section}.{key} {before[section].get(key)}, now it is "
                    f"{value}; "
                    "resume with the same settings, or start without --resume"
                )
    if before["data"].get("label_map") != now["data"]["label_map"]:
        raise UserError(
            f"{directory / LATEST}: trained under another label map; resume with the same --labels, or start without "
            "--resume"
        )
    if latest["training"]["sample_ids"] != data.ensemble.sample_ids.tolist() or not np.array_equal(
        latest["training_parameters"].numpy(), data.ensemble.parameters[data.seen]
    ):
        raise UserError(
            f"{directory / LATEST}: trained on another ensemble than {data.ensemble.directory}; start without --resume"
        )
    model.load_state_dict(latest["model_state_dict"])
    optimizer.load_state_dict(latest["training"]["optimizer"])
    for name in STATE:
        setattr(state, name, latest["training"][name])
    generator.set_state(latest["training"]["batch_generator"])
    torch.set_rng_state(latest["training"]["generator"])
    if latest["training"]["cuda_generator"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(latest["training"]["cuda_generator"])


def finish(directory: Path, record: dict[str, Any], state: TrainingState) -> str:
    """After training: the last numbers of config.json and the loss figure. Returns a line that says how it went."""
    record["training_seconds"] = round(state.seconds, 1)
    record["best_epoch"] = state.best_epoch
    write_json(directory / CONFIG, record)
    save_figure(loss_figure(state.history, VALIDATION_KEY), directory / LOSS_FIGURE)
    return (
        f"trained in {state.seconds:.0f} s; best epoch {state.best_epoch}: val Rollout_RMSE@30 of NEP "
        f"{state.history[VALIDATION_KEY][state.best_epoch - 1]:.5f} Mg C ha-1 day-1, of all fluxes {state.best:.3f} sd"
    )
