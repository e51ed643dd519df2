"""The emulator's error as data: how wrong it is on parameter vectors it has never seen, and how its errors hang together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from command_line import UserError, read_json

ERROR_JSON, ERROR_NPZ = "emulator_error.json", "emulator_error.npz"


@dataclass(frozen=True)
class EmulatorErrors:
    """Errors (emulator - VISIT) of unseen runs over the test period, Mg C ha-1 day-1, fluxes in units.TARGETS order."""

    dates: np.ndarray  # (day,) datetime64[D]
    error: np.ndarray  # (run, day, 4) float32
    parameters: np.ndarray  # (run, P) physical
    distance: np.ndarray  # (run,) to the nearest training vector, unit space, root mean square over parameters
    summary: dict[str, Any]  # emulator_error.json


def load_errors(directory: str | Path) -> EmulatorErrors | None:
    """The error files of a trained emulator's folder, or None when there are none."""
    directory = Path(directory)
    if not (directory / ERROR_NPZ).is_file() or not (directory / ERROR_JSON).is_file():
        return None
    try:
        with np.load(directory / ERROR_NPZ, allow_pickle=False) as archive:
            return EmulatorErrors(
                archive["dates"].astype("datetime64[D]"), archive["error"], archive["parameters"], archive["distance"],
                read_json(directory / ERROR_JSON),
            )  # fmt: skip
    except (KeyError, ValueError, OSError) as error:
        raise UserError(f"{directory / ERROR_NPZ}: not readable ({error}); run evaluate_model.py or train.py again") from None
