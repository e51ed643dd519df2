"""From an ensemble's files to scaled tensors and splits: everything lies in memory once, a batch is an index.

Splits by time (train, validation, test periods; context may reach back before a period's first day, targets may not)
and by parameters (a share of the runs is never trained on). Scalers are fitted on seen runs in the training period
only. `python dataset.py` prints a short description of the ensemble in data/.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from calibration.common.command_line import UserError, make_parser, run
from calibration.common.configuration import (
    ARCHITECTURE_FILE,
    Configuration,
    SplitOptions,
    fit_splits,
    load_configuration,
)
from calibration.common.scalers import Scaler
from calibration.common.units import DYNAMIC_FEATURES, FLUX_UNIT, TARGETS, UNITS
from calibration.ensembles.files import Ensemble
from calibration.ensembles.labels import load_labelled, map_of
from calibration.ensembles.rest import rest_lines

PERIODS = ("train", "validation", "test")


@dataclass
class TrainingData:
    """An ensemble ready for training; tensors are float32 on one device."""

    ensemble: Ensemble
    splits: SplitOptions  # as used: inside the ensemble's days
    dynamic: torch.Tensor  # (day, 10) scaled weather and CO2, shared by all runs
    static: torch.Tensor  # (run, P) scaled parameters
    fluxes: torch.Tensor  # (run, day, 4) scaled fluxes
    seen: np.ndarray  # (seen run,) index of runs that training uses
    unseen: np.ndarray  # (unseen run,) index of runs that it never sees
    periods: dict[str, slice]  # days of train, validation, test
    dynamic_scaler: Scaler
    static_scaler: Scaler
    target_scaler: Scaler  # Mg C ha-1 day-1

    def stretch(
        self, runs: torch.Tensor, starts: torch.Tensor, length: int, dynamic: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,) runs and first days -> scaled weather (B, length, 10) and scaled fluxes (B, length, 4).

        `dynamic` (day, n) replaces the weather (a model's prepared days).
        """
        days = starts[:, None] + torch.arange(length, device=starts.device)
        return (self.dynamic if dynamic is None else dynamic)[days], self.fluxes[runs[:, None], days]

    @torch.no_grad()
    def predicted(self, model: torch.nn.Module, runs: np.ndarray, days: slice, context: int) -> np.ndarray:
        """Free-running fluxes (run, day, 4), Mg C ha-1 day-1, of the ensemble's runs (run,) on `days`; the model sees
        `context` days before them.
        """
        seen = slice(days.start - context, days.stop)
        prepared = model.prepare_days(self.dynamic[None, seen], self.ensemble.dates[seen])[0]
        parts = torch.as_tensor(runs).split(64)
        return torch.cat([model.simulate(self.static[part], prepared, context).cpu() for part in parts]).numpy()

    def truth(self, runs: np.ndarray, days: slice) -> np.ndarray:
        """Fluxes (run, day, 4) in Mg C ha-1 day-1, as VISIT gave them."""
        return self.ensemble.fluxes[runs][:, days]


def choose_unseen(runs: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split run indices into (seen, unseen), sorted; at least one on each side. UserError with fewer than two runs."""
    if runs < 2:
        raise UserError(f"the ensemble has {runs} run(s); at least 2 are needed (one to train on, one to judge by)")
    order = np.random.default_rng(seed).permutation(runs)
    count = min(max(1, round(share * runs)), runs - 1)
    return np.sort(order[count:]), np.sort(order[:count])


def day_slice(dates: np.ndarray, first: str, last: str) -> slice:
    """Index range of the days first to last (ISO dates, inclusive) in dates (day,) datetime64[D]."""
    return slice(
        int(np.searchsorted(dates, np.datetime64(first))), int(np.searchsorted(dates, np.datetime64(last), "right"))
    )


def window_starts(period: slice, context: int, horizon: int, stride: int = 1) -> np.ndarray:
    """First target days (index) of all windows whose targets lie inside the period and whose context exists."""
    return np.arange(max(period.start, context), period.stop - horizon + 1, stride)


def prepare(
    ensemble: Ensemble, splits: SplitOptions, splits_given: bool = False, device: str | torch.device = "cpu"
) -> TrainingData:
    """Split and scale an ensemble. UserError when it is too small or the periods do not fit it."""
    splits = fit_splits(splits, ensemble.dates, splits_given)
    periods = {name: day_slice(ensemble.dates, *getattr(splits, name)) for name in PERIODS}
    seen, unseen = choose_unseen(len(ensemble.sample_ids), splits.unseen_share, splits.seed)
    train = periods["train"]
    if train.stop - train.start < 60:
        raise UserError(
            f"the training period {splits.train[0]} to {splits.train[1]} has {train.stop - train.start} days; "
            "give 60 or more"
        )
    dynamic_scaler = Scaler.fit(DYNAMIC_FEATURES, ensemble.dynamic[train])
    static_scaler = Scaler.fit(ensemble.parameter_names, ensemble.parameters[seen])
    # float64 sums without a float64 copy of everything
    sample = ensemble.fluxes[seen][:, train].reshape(-1, len(TARGETS))
    mean = sample.mean(axis=0, dtype=np.float64)
    scale = np.sqrt(np.square(sample - mean.astype(np.float32)).mean(axis=0, dtype=np.float64))
    target_scaler = Scaler(TARGETS, mean, np.where(scale > 1e-12, scale, 1.0))
    fluxes = torch.empty(ensemble.fluxes.shape, dtype=torch.float32)
    for i, flux in enumerate(ensemble.fluxes):  # run by run: no second copy in memory
        fluxes[i] = torch.from_numpy((flux - mean.astype(np.float32)) / target_scaler.scale.astype(np.float32))
    return TrainingData(
        ensemble=ensemble, splits=splits,
        dynamic=torch.as_tensor(dynamic_scaler.transform(ensemble.dynamic), dtype=torch.float32, device=device),
        static=torch.as_tensor(static_scaler.transform(ensemble.parameters), dtype=torch.float32, device=device),
        fluxes=fluxes.to(device), seen=seen, unseen=unseen, periods=periods,
        dynamic_scaler=dynamic_scaler, static_scaler=static_scaler, target_scaler=target_scaler,
    )  # fmt: skip


def open_ensemble(config: Configuration, directory: str | Path) -> Ensemble:
    """Load and check the ensemble in `directory`. UserError with what to do where there is none."""
    directory = Path(directory)
    if not (directory / "parameter_summary.csv").is_file():
        raise UserError(
            f"{directory}/parameter_summary.csv: no ensemble there; make one with "
            f"`python run_perturbations.py --n-samples 180 --output-dir {directory}`, or put your VISIT daily "
            "files and "
            "their parameter_summary.csv there, or point --data-dir to them"
        )
    return load_labelled(directory, config.data)


def load_data(
    config: Configuration, directory: str | Path | None = None, splits_given: bool = False, device: str = "cpu"
) -> TrainingData:
    """Load, check, split and scale the ensemble in `directory` (default: the configuration's data.directory)."""
    ensemble = open_ensemble(config, directory or config.data.directory)
    return prepare(ensemble, config.splits, splits_given, device)


def describe(data: TrainingData, config: Configuration) -> str:
    """A few lines on shapes, units and splits."""
    ensemble = data.ensemble
    context, horizon = config.evaluation.context_days, config.evaluation.horizon_days
    lines = [
        f"ensemble {ensemble.directory}: {len(ensemble.sample_ids)} runs x {len(ensemble.dates)} days, "
        f"{ensemble.dates[0]} to {ensemble.dates[-1]}, {len(ensemble.parameter_names)} parameters",
        f"dynamic {tuple(data.dynamic.shape)}: " + ", ".join(f"{name} ({UNITS[name]})" for name in DYNAMIC_FEATURES),
        f"fluxes {tuple(data.fluxes.shape)}: {', '.join(TARGETS)} ({FLUX_UNIT}); training mean "
        + ", ".join(f"{v:.4f}" for v in data.target_scaler.mean) + "; sd "
        + ", ".join(f"{v:.4f}" for v in data.target_scaler.scale),
        f"runs: {len(data.seen)} seen, {len(data.unseen)} unseen (never trained on)",
    ]  # fmt: skip
    labels = map_of(config.data)
    if labels is not None:
        lines.append(f"labels put right: {', '.join(s for s in labels.shown(ensemble.parameter_names) if ' (' in s)}")
        if labels.without_effect:
            lines.append(f"without effect, so that nothing can be learned of them: {', '.join(labels.without_effect)}")
    lines += rest_lines(ensemble)
    for name, days in data.periods.items():
        windows = len(window_starts(days, context, horizon))
        lines.append(
            f"{name}: {ensemble.dates[days][0]} to {ensemble.dates[days][-1]}, {days.stop - days.start} days, "
            f"{windows} windows of {context} + {horizon} days a run (never materialised)"
        )
    return "\n".join(lines)


def main() -> int:
    parser = make_parser("Describe the ensemble that train.py would use: shapes, units, splits.")
    parser.add_argument("--data-dir", help="folder of the ensemble (default: data.directory of the YAML)")
    parser.add_argument("--architecture", default=str(ARCHITECTURE_FILE), help="YAML with periods and presets")
    parser.add_argument("--drop-columns", nargs="+", help="columns of parameter_summary.csv that are no parameters")
    arguments = parser.parse_args()
    config = load_configuration(arguments.architecture).override("data", drop_columns=arguments.drop_columns)
    directory = arguments.data_dir or ARCHITECTURE_FILE.parent / config.data.directory
    print(describe(load_data(config, directory), config))
    return 0


if __name__ == "__main__":
    run(main)
