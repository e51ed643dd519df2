"""Train an emulator in memory and score it: shared by learning_curve.py and ablations.py."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from calibration.common import skill
from calibration.common.configuration import Configuration
from calibration.common.sites import load_site
from calibration.common.units import TARGETS
from calibration.emulator.cross_fit import fit_in_memory
from calibration.ensembles.files import Ensemble
from dataset import TrainingData, prepare


@dataclass
class Score:
    """R2 by flux and median within-run NSE of NEP on the test period, free running after 180 days of context."""

    seconds: float
    seen: dict[str, float]
    unseen: dict[str, float]


def train_emulator(config: Configuration, data: TrainingData) -> tuple[torch.nn.Module, float]:
    """A trained network (best epoch by the validation period of seen runs) and the seconds it took."""
    model, state = fit_in_memory(config, data, torch.device("cpu"), load_site(), config.training.seed)
    return model, state.seconds


@torch.no_grad()
def predict(model, data: TrainingData, parameters: np.ndarray, days: slice, context: int = 180) -> np.ndarray:
    """Free run (run, day, 4), Mg C ha-1 day-1, of physical parameters (run, P) over days of the ensemble."""
    weather = data.dynamic[days.start - context : days.stop]
    static = torch.as_tensor(data.static_scaler.transform(parameters), dtype=torch.float32)
    prepared = model.prepare_days(weather[None], data.ensemble.dates[days.start - context : days.stop])[0]
    return torch.cat([model.simulate(part, prepared, context) for part in static.split(64)]).numpy()


def measures(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """R2 by flux and median NSE of NEP: predicted, truth (run, day, 4)."""
    result = {name: skill.r2(predicted[..., i], truth[..., i]) for i, name in enumerate(TARGETS)}
    nep = TARGETS.index("nep")
    return result | {"nse": float(np.median(skill.nse_by_run(predicted[..., nep], truth[..., nep])))}


def score(
    config: Configuration, ensemble: Ensemble, judge: Ensemble | None = None
) -> tuple[Score, torch.nn.Module, TrainingData]:
    """Train on an ensemble's seen runs; `unseen` is measured on its own unseen runs, or on `judge` (same weather)."""
    config = config.for_runs(len(ensemble.sample_ids))
    data = prepare(ensemble, config.splits)
    model, seconds = train_emulator(config, data)
    days = data.periods["test"]
    some = data.seen[:200]
    seen = measures(predict(model, data, ensemble.parameters[some], days), data.truth(some, days))
    if judge is None:
        parameters, truth = ensemble.parameters[data.unseen], data.truth(data.unseen, days)
    else:
        parameters, truth = judge.parameters, judge.fluxes[:, days]
    return Score(seconds, seen, measures(predict(model, data, parameters, days), truth)), model, data
