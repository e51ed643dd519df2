"""A cheap stand-in for an ensemble: an analytic forest under generated weather, in run_perturbations.py's format."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from calibration.common.configuration import load_configuration
from calibration.common.sites import load_site
from calibration.emulator.cross_fit import build_model
from calibration.ensembles import store as ensemble_store
from calibration.ensembles.files import Ensemble
from calibration.weather.daily import generate_weather
from dataset import prepare

NAMES = ("tree_pmax", "tree_lue", "soil_sr_lf", "my_parameter", "c3_sla")  # the last is constant
TINY = ["--epochs", "2", "--steps-per-epoch", "2", "--batch-size", "8", "--device", "cpu", "--error-runs", "0",
        "--labels", "trust"]  # fmt: skip


def tiny_ensemble(runs: int = 8, start: str = "2015-01-01", end: str = "2017-12-31", seed: int = 0) -> Ensemble:
    """runs x days of smooth fluxes that depend on weather, yesterday and parameters; NEP = NPP - Rh."""
    weather = generate_weather(load_site(), start, end, seed=3)
    rng = np.random.default_rng(seed)
    unit = rng.random((runs, len(NAMES) - 1))
    parameters = np.column_stack(
        [10 + 20 * unit[:, 0], 0.03 + 0.04 * unit[:, 1], 1 + unit[:, 2], unit[:, 3], np.full(runs, 190.0)]
    )
    light = 1 - weather.values[:, 5] / 120  # cloud cover
    warmth = (weather.values[:, 2] - 300) / 2
    memory = np.zeros(len(light))
    for day in range(1, len(light)):
        memory[day] = 0.9 * memory[day - 1] + 0.1 * light[day]
    gpp = 0.06 * (0.5 + unit[:, :1]) * light + 0.05 * memory + 0.02 * unit[:, 1:2]
    npp = 0.4 * gpp
    rh = 0.03 + 0.01 * unit[:, 2:3] + 0.002 * warmth + 0.004 * unit[:, 3:4] * memory
    fluxes = np.stack([gpp, npp, npp - rh, rh], axis=-1).astype(np.float32)
    return Ensemble(Path("tiny"), np.arange(runs), weather.dates, weather.values, fluxes, parameters, NAMES)


def write_ensemble(directory: Path, ensemble: Ensemble) -> Path:
    """Binary copy and parameter_summary.csv, as `run_perturbations.py --no-text` leaves them."""
    directory.mkdir(parents=True, exist_ok=True)
    key = ensemble_store.key(ensemble.sample_ids, None)
    ensemble_store.write(directory / "ensemble.npz", key, ensemble.dates, ensemble.dynamic, ensemble.fluxes)
    table = pd.DataFrame(ensemble.parameters, columns=list(ensemble.parameter_names))
    table.insert(0, "sample_id", ensemble.sample_ids)
    table.to_csv(directory / "parameter_summary.csv", index=False)
    return directory


def small(preset):
    """A preset's configuration, of a network and a schedule that cost nothing."""
    config = load_configuration(preset=preset)
    config = config.override("model", hidden_size=12, init_width=8)
    return config.override("training", batch_size=8, epochs=2, steps_per_epoch=2)


def made(preset):
    """Its configuration, the tiny ensemble ready for training, and an untrained network."""
    config, data = small(preset), prepare(tiny_ensemble(), load_configuration().splits)
    torch.manual_seed(0)
    return config, data, build_model(config, data, torch.device("cpu"), load_site())
