"""test_inversion.py: from its arguments to the observed days, and what the summary says of their labels."""

import argparse

import numpy as np

from calibration.common.command_line import UserError
from calibration.emulator.trained import Emulator
from calibration.inversion.inputs import load_matching_ensemble, observation_stretches, simulation_window
from calibration.judgement.judge import Case


def load_case(arguments: argparse.Namespace, emulator: Emulator) -> Case:
    """Observed days from an ensemble run or from a window file."""
    if arguments.mode == "simulation":
        ensemble = load_matching_ensemble(emulator, arguments.data_dir)
        stretch, truth = simulation_window(emulator, ensemble, arguments.sample_id, arguments.window_index)
        text = f"run {arguments.sample_id} of {arguments.data_dir}, window {arguments.window_index}"
        text = f"{text} ({stretch.dates[0]} to {stretch.dates[-1]})"
        return Case([stretch], [], text, 1, truth, emulator.shown)
    holdout = (arguments.holdout_start, arguments.holdout_end) if arguments.holdout_start else None
    fitted, held, count = observation_stretches(
        emulator, arguments.obs_npz, arguments.obs_index, arguments.obs_range_start, arguments.obs_range_end,
        arguments.obs_range_step, arguments.max_obs_windows, holdout, arguments.rescale,
    )  # fmt: skip
    valid = np.concatenate([s.dates[s.mask.any(axis=1)] for s in fitted])
    if not len(valid):
        raise UserError(f"{arguments.obs_npz}: no valid observation in the chosen windows; choose other dates")
    text = f"{arguments.obs_npz}, observed days {valid.min()} to {valid.max()}"
    return Case(fitted, held, text, count, shown=emulator.shown)


def label_facts(emulator: Emulator) -> dict[str, str]:
    """Lines for the summary: columns that are used under another name, and columns that cannot be informed."""
    labels = emulator.labels
    if labels is None:
        return {}
    hidden = ", ".join(labels.without_effect) or "none"
    return {
        "labels put right": ", ".join(emulator.shown.values()) or "none",
        "columns without effect on the fluxes, that no data can inform": hidden,
    }
