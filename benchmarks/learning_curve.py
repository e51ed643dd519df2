"""Accuracy on unseen parameter vectors against the number of runs, beside the baselines.

    python benchmarks/learning_curve.py --ensembles E180:90 E180 E600 E2000 [--seeds 1 2 3] [--presets recommended]

Each ensemble comes from run_perturbations.py (`DIR:90` = its first 90 runs). 10 percent of its runs are never trained
on; they are the unseen ones and decide nothing. Two protocols on the test year: one free run over the whole year after
180 days of context, and the specification's 30-day windows, each after its own context, one every --window-stride days.
Baselines of the specification (emulator/baselines.py), and gradient boosting and a Gaussian process that predict each
flux's mean over the test year from the parameters.

Rows that are in the CSV files already are kept, so an interrupted or growing measurement goes on where it was.
"""

import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd
import torch
from learning_curve_report import figure, worst_runs, write_report
from scoring import measures, predict
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from calibration.common import skill
from calibration.common.command_line import REPOSITORY, make_parser, run, write_csv
from calibration.common.configuration import load_configuration
from calibration.common.figure_style import save_figure
from calibration.common.sites import load_site
from calibration.common.units import TARGETS
from calibration.emulator.baselines import NAMES, Baselines
from calibration.emulator.cross_fit import fit_in_memory
from calibration.ensembles.files import load_ensemble
from dataset import TrainingData, prepare, window_starts

RESULT = REPOSITORY / "benchmarks" / "results" / "learning_curve"
KEY = ["runs", "preset", "seed"]
SEEN_RUNS = 162  # at most, of the seen runs: evenly picked
GP_RUNS = 200  # training runs of the Gaussian process at most: its cost grows with their cube


def nested(text: str):
    """`DIR` or `DIR:n` (the first n runs) -> Ensemble."""
    directory, _, count = text.partition(":")
    ensemble = load_ensemble(directory)
    if not count:
        return ensemble
    n = int(count)
    return replace(
        ensemble, sample_ids=ensemble.sample_ids[:n], fluxes=ensemble.fluxes[:n], parameters=ensemble.parameters[:n]
    )


def run_means(data: TrainingData, days: slice, method: str) -> dict[str, float]:
    """R2 of the unseen runs' mean fluxes over `days`, predicted from the scaled parameters by `method` (gb or gp)."""
    static, train, result = data.static.numpy(), data.seen, {}
    for i, name in enumerate(TARGETS):
        y = data.ensemble.fluxes[:, days, i].mean(axis=1)
        if method == "gb":
            model = GradientBoostingRegressor(n_estimators=400, learning_rate=0.05, max_depth=3, subsample=0.5,
                                              random_state=0)  # fmt: skip
        else:
            train = data.seen[:GP_RUNS]
            kernel = ConstantKernel() * RBF(np.full(static.shape[1], 10.0), (1.0, 1e3)) + WhiteKernel(0.05)
            model = GaussianProcessRegressor(kernel, normalize_y=True)
        result[name] = skill.r2(model.fit(static[train], y[train]).predict(static[data.unseen]), y[data.unseen])
    return result


def windows(data: TrainingData, runs: np.ndarray, stride: int, rollout) -> dict[str, float]:
    """The specification's protocol: R2, and RMSE of NEP, of 30-day windows; rollout(days) -> (run, 30, 4)."""
    starts = window_starts(data.periods["test"], 180, 30, stride)
    pairs = [(rollout(slice(s, s + 30)), data.truth(runs, slice(s, s + 30))) for s in starts.tolist()]
    predicted, truth = (np.concatenate(part, axis=1) for part in zip(*pairs, strict=True))
    result = {name: skill.r2(predicted[..., i], truth[..., i]) for i, name in enumerate(TARGETS)}
    return result | {"nep_rmse": skill.rmse(predicted[..., 2], truth[..., 2])}


def baseline_row(data: TrainingData, stride: int) -> dict[str, float]:
    """Skill of the baselines on the unseen runs, year and windows, and of the two regressions of run means."""
    days, row = data.periods["test"], {"runs": len(data.ensemble.sample_ids)}
    truth, baselines = data.truth(data.unseen, days), Baselines(data)
    for name in NAMES:
        row |= {f"{name}_{k}": v for k, v in measures(baselines.predict(name, data.unseen, days), truth).items()}
        month = windows(data, data.unseen, stride, lambda days, name=name: baselines.predict(name, data.unseen, days))
        row |= {f"{name}_window_{k}": v for k, v in month.items()}
    for method in ("gb", "gp"):
        row |= {f"{method}_{k}": v for k, v in run_means(data, days, method).items()}
    return row


def emulator_row(config, data: TrainingData, max_minutes: float | None, stride: int) -> tuple[dict, np.ndarray]:
    """One training and its scores, and the unseen runs' predicted test year."""
    processor, began = time.process_time(), time.monotonic()
    limit = max_minutes * 60 if max_minutes else None
    model, state = fit_in_memory(config, data, torch.device("cpu"), load_site(), config.training.seed, limit)
    row = {
        "seconds": round(time.monotonic() - began, 1), "processor_seconds": round(time.process_time() - processor, 1),
        "threads": torch.get_num_threads(), "epochs": state.epoch, "best_epoch": state.best_epoch,
    }  # fmt: skip
    days = data.periods["test"]
    some = data.seen[np.unique(np.linspace(0, len(data.seen) - 1, SEEN_RUNS).astype(int))]
    everyone = np.concatenate([some, data.unseen])
    predicted = predict(model, data, data.ensemble.parameters[everyone], days)
    truth = data.truth(everyone, days)
    unseen = slice(len(some), None)
    row |= {f"seen_{k}": v for k, v in measures(predicted[: len(some)], truth[: len(some)]).items()}
    row |= {f"unseen_{k}": v for k, v in measures(predicted[unseen], truth[unseen]).items()}
    row |= {f"all_{k}": v for k, v in measures(predicted, truth).items()}
    means, true_means = predicted[unseen].mean(axis=1), truth[unseen].mean(axis=1)
    row |= {f"mean_{n}": skill.r2(means[:, i], true_means[:, i]) for i, n in enumerate(TARGETS)}
    if stride:
        for split, runs in (("seen", some), ("unseen", data.unseen)):
            values = data.ensemble.parameters[runs]
            month = windows(data, runs, stride, lambda days, values=values: predict(model, data, values, days))
            row |= {f"{split}_window_{k}": v for k, v in month.items()}
    return row, predicted[unseen]


def saved(path: Path) -> pd.DataFrame:
    """The rows of an earlier call, or none."""
    return pd.read_csv(path) if path.is_file() else pd.DataFrame()


def save(path: Path, table: pd.DataFrame) -> None:
    """CSV through a temporary name."""
    write_csv(path, table, float_format="%.6g")


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--ensembles", nargs="*", default=[], help="folders, or FOLDER:n for its first n runs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="training seeds")
    parser.add_argument("--presets", nargs="+", default=["recommended"], help="presets to train")
    parser.add_argument("--max-minutes", type=float, help="time limit of each training (default: none)")
    parser.add_argument("--window-stride", type=int, default=7, help="days between 30-day windows; first seed only")
    parser.add_argument("--no-baselines", action="store_true", help="leave baselines out")
    parser.add_argument("--output", default=str(RESULT), help="path of the results without suffix")
    arguments = parser.parse_args()
    output = Path(arguments.output)
    paths = {kind: output.with_name(f"{output.name}{kind}.csv") for kind in ("", "_baselines", "_worst")}
    table, baselines, worst = (saved(path) for path in paths.values())
    for text in arguments.ensembles:
        ensemble = nested(text)
        count = len(ensemble.sample_ids)
        data = prepare(ensemble, load_configuration().splits)
        if not arguments.no_baselines and not (len(baselines) and (baselines["runs"] == count).any()):
            baselines = pd.concat([baselines, pd.DataFrame([baseline_row(data, arguments.window_stride)])])
            save(paths["_baselines"], baselines)
        for preset in arguments.presets:
            for seed in arguments.seeds:
                if len(table) and (table[KEY] == (count, preset, seed)).all(axis=1).any():
                    continue
                config = load_configuration(preset=preset).override("training", seed=seed).for_runs(count)
                first = seed == arguments.seeds[0]
                row, predicted = emulator_row(
                    config, data, arguments.max_minutes, arguments.window_stride if first else 0
                )
                row = {"runs": count, "preset": preset, "seed": seed, **row}
                print(pd.Series(row).to_string(), flush=True)
                table = pd.concat([table, pd.DataFrame([row])]).sort_values(KEY)
                save(paths[""], table)
                if first and preset == "recommended":
                    worst = pd.concat([worst, worst_runs(data, predicted)])
                    save(paths["_worst"], worst)
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} core(s)"
    write_report(output, table, baselines, worst, arguments.window_stride, machine)
    save_figure(figure(table, baselines), output.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    run(main)
