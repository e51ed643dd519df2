"""Skill of a trained emulator on its test period, against baselines, on runs it was trained on and on others.

Measures are those of common/skill.py; what evaluation.json holds stands in evaluate_model.py.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common import skill
from calibration.common.command_line import UserError, progress, write_csv, write_json
from calibration.common.figure_style import save_figure
from calibration.common.units import FLUX_LABELS, FLUX_UNIT, TARGETS
from calibration.emulator import figures
from calibration.emulator.baselines import NAMES, Baselines
from calibration.emulator.trained import Emulator
from calibration.ensembles.labels import load_labelled
from calibration.ensembles.rest import runs_at_rest
from dataset import TrainingData, prepare, window_starts

SPLITS = ("seen", "unseen")
LEADS = (1, 2, 3, 5, 7, 10, 14, 20, 30, 45, 60, 90, 120, 180, 270, 365, 730, 1095, 1460, 1825)  # days
LEAD_RUNS = 100  # unseen runs behind the error by lead time
DIGITS = "%.6g"


@dataclass(frozen=True)
class Evaluation:
    """Everything that an evaluation found."""

    metrics: dict  # split -> variable -> metric, the content of evaluation.json
    windows: pd.DataFrame  # errors of 30-day windows
    worst: pd.DataFrame  # unseen runs from worst to best
    leads: pd.DataFrame  # error by lead time
    season: pd.DataFrame  # error by month of the test period, unseen runs
    predicted: dict[str, tuple[np.ndarray, np.ndarray]]  # split -> runs (run,), fluxes (run, day, 4) of the test period


def evaluate(emulator: Emulator, data: TrainingData, runs: dict[str, np.ndarray], stride: int) -> Evaluation:
    """Evaluate `runs` (positions by split) of load_matching's data, with a window every `stride` days."""
    baselines = Baselines(data)
    metrics, windows, predicted = {}, [], {}
    for split in SPLITS:
        metrics[split], table, values = evaluate_split(emulator, data, runs[split], stride, baselines)
        predicted[split] = (runs[split], values)
        windows.append(pd.DataFrame({"split": split, **table}))
    leads = lead_time_errors(emulator, data, data.unseen[:LEAD_RUNS])
    unseen = predicted["unseen"][1]
    return Evaluation(
        metrics, pd.concat(windows), worst_runs(data, unseen), leads, seasonal_errors(data, unseen), predicted
    )


def write_evaluation(found: Evaluation, data: TrainingData, directory: Path, plots: bool = True) -> None:
    """evaluation.json, its tables, and figures."""
    write_json(directory / "evaluation.json", found.metrics)
    tables = {"": as_table(found.metrics), "_windows": found.windows, "_worst_runs": found.worst,
              "_lead_time": found.leads, "_season": found.season}  # fmt: skip
    for name, table in tables.items():
        write_csv(directory / f"evaluation{name}.csv", table, float_format=DIGITS)
    if plots:
        save_figures(directory, data, found)


def load_matching(emulator: Emulator, directory: Path) -> TrainingData:
    """The ensemble with the emulator's own splits and scalers. UserError when it is another one."""
    record = emulator.config["data"]
    if not (directory / "parameter_summary.csv").is_file():
        raise UserError(
            f"{directory}/parameter_summary.csv: no ensemble there; give --data-dir the folder it was trained on"
        )
    options = emulator.configuration.data
    ensemble = load_labelled(directory, options)
    if ensemble.parameter_names != emulator.parameter_names:
        other = sorted(set(ensemble.parameter_names) ^ set(emulator.parameter_names))
        raise UserError(
            f"{directory}: its {len(ensemble.parameter_names)} parameters are not the "
            f"{len(emulator.parameter_names)} that the "
            f"emulator in {emulator.directory} was trained on ({', '.join(other[:5]) or 'another order'}); "
            "train on this ensemble first"
        )
    data = prepare(ensemble, emulator.configuration.splits, splits_given=True)
    positions = {int(sample): i for i, sample in enumerate(ensemble.sample_ids)}
    wanted = {kind: record[f"{kind}_sample_ids"] for kind in SPLITS}
    missing = [sample for kind in SPLITS for sample in wanted[kind] if sample not in positions]
    seen = [positions[sample] for sample in wanted["seen"] if sample in positions]
    reason = f"sample {missing[0]} is missing" if missing else "other parameter values under the same sample ids"
    same = not missing and np.allclose(ensemble.parameters[seen], emulator.training_parameters, rtol=1e-9, atol=0)
    if not same:
        raise UserError(
            f"{directory}: not the ensemble that {emulator.directory} was trained on ({reason}); "
            "give its folder with --data-dir, or train again"
        )
    data.seen, data.unseen = (np.array([positions[s] for s in wanted[kind] if s in positions]) for kind in SPLITS)
    return data


def predict_period(emulator: Emulator, data: TrainingData, runs: np.ndarray, days: slice) -> np.ndarray:
    """Free run of `runs` over `days` after the context -> (run, day, 4) Mg C ha-1 day-1."""
    context = min(emulator.configuration.evaluation.context_days, days.start)
    seen = slice(days.start - context, days.stop)
    weather, dates = data.ensemble.dynamic[seen], data.ensemble.dates[seen]
    return emulator.predict(data.ensemble.parameters[runs], weather, context, check_ranges=False, dates=dates)


def window_errors(
    emulator: Emulator, data: TrainingData, runs: np.ndarray, stride: int, baselines: Baselines
) -> tuple[np.ndarray, np.ndarray, dict]:
    """30-day windows of the test period: starts (window,), emulator's and baselines' mean squared error (window, 4).

    Also pooled sums for R2: {"r2": (4,)} of the emulator over all windows.
    """
    options = emulator.configuration.evaluation
    context, horizon = options.context_days, options.horizon_days
    starts = window_starts(data.periods["test"], context, horizon, stride)
    if not len(starts):
        raise UserError(
            f"the test period {data.splits.test[0]} to {data.splits.test[1]} holds no window of {horizon} days "
            f"after {context} days of context; train with a longer --test-period"
        )
    squares = {name: np.empty((len(starts), len(TARGETS))) for name in ("emulator", *NAMES)}
    total, total_square, count = np.zeros(len(TARGETS)), np.zeros(len(TARGETS)), 0
    for i, start in enumerate(progress(starts, desc="30-day windows", unit="window")):
        days = slice(int(start), int(start) + horizon)
        truth = data.truth(runs, days)
        squares["emulator"][i] = np.square(predict_period(emulator, data, runs, days) - truth).mean(
            axis=(0, 1), dtype=np.float64
        )
        for name in NAMES:
            squares[name][i] = np.square(baselines.predict(name, runs, days) - truth).mean(
                axis=(0, 1), dtype=np.float64
            )
        total += truth.sum(axis=(0, 1), dtype=np.float64)
        total_square += np.square(truth, dtype=np.float64).sum(axis=(0, 1))
        count += truth.shape[0] * truth.shape[1]
    variance = total_square / count - (total / count) ** 2
    return starts, squares, {"r2": 1 - squares["emulator"].mean(axis=0) / np.maximum(variance, 1e-30)}


def evaluate_split(
    emulator: Emulator, data: TrainingData, runs: np.ndarray, stride: int, baselines: Baselines
) -> tuple[dict, dict, np.ndarray]:
    """Metrics of one split: {variable: {metric: value, "baselines": {...}}}, its window table, and the year's
    prediction.
    """
    days = data.periods["test"]
    truth = data.truth(runs, days)
    predicted = predict_period(emulator, data, runs, days)
    starts, squares, pooled = window_errors(emulator, data, runs, stride, baselines)
    year = {name: baselines.predict(name, runs, days) for name in NAMES}
    rollout = {name: np.sqrt(values.mean(axis=0)) for name, values in squares.items()}
    result, rest = {}, runs_at_rest(data.ensemble)[runs]
    for i, variable in enumerate(TARGETS):
        result[variable] = skill.skill(predicted[..., i], truth[..., i], float(rollout["emulator"][i]))
        result[variable]["r2_windows_30"] = float(pooled["r2"][i])
        result[variable]["not_at_rest"] = int((~rest).sum())
        at_rest_alone = skill.r2(predicted[rest][..., i], truth[rest][..., i]) if rest.any() else None
        result[variable]["r2_at_rest"] = at_rest_alone
        result[variable]["baselines"] = {
            name: skill.skill(year[name][..., i], truth[..., i], float(rollout[name][i])) for name in NAMES
        }
    windows = {"window_start": data.ensemble.dates[starts].astype(str)} | {
        f"rmse_{variable}": np.sqrt(squares["emulator"][:, i]) for i, variable in enumerate(TARGETS)
    }
    return result, windows, predicted


def lead_time_errors(emulator: Emulator, data: TrainingData, runs: np.ndarray) -> pd.DataFrame:
    """RMSE by lead time of free runs that start on several days of the first years; columns lead_days, one a flux."""
    context = emulator.configuration.evaluation.context_days
    total = len(data.ensemble.dates)
    longest = min(LEADS[-1], total - context)
    latest = min(total - longest, context + 365)  # starts spread over a year where the record allows
    starts = np.unique(np.linspace(context, latest, 6).astype(int))
    leads = [lead for lead in LEADS if lead <= longest]
    squares = np.zeros((len(leads), len(TARGETS)))
    for start in starts:
        days = slice(int(start), int(start) + longest)
        error = predict_period(emulator, data, runs, days) - data.truth(runs, days)
        for k, lead in enumerate(leads):  # a few days around a long lead steady the estimate
            half = lead // 10
            near = error[:, max(0, lead - 1 - half) : lead + half]
            squares[k] += np.square(near).mean(axis=(0, 1), dtype=np.float64)
    table = pd.DataFrame(np.sqrt(squares / len(starts)), columns=[f"rmse_{name}" for name in TARGETS])
    table.insert(0, "lead_days", leads)
    return table


def worst_runs(data: TrainingData, predicted: np.ndarray) -> pd.DataFrame:
    """Unseen runs from worst to best NEP RMSE in the test period, with the other errors, mean fluxes and parameters."""
    days = data.periods["test"]
    truth = data.truth(data.unseen, days)
    table = pd.DataFrame({"sample_id": data.ensemble.sample_ids[data.unseen]})
    for i, variable in enumerate(TARGETS):
        error = predicted[..., i] - truth[..., i]
        table[f"rmse_{variable}"] = np.sqrt(np.square(error, dtype=np.float64).mean(axis=1))
        table[f"bias_{variable}"] = error.mean(axis=1)
        table[f"mean_{variable}"] = truth[..., i].mean(axis=1)
    table["at_rest"] = runs_at_rest(data.ensemble)[data.unseen]
    table["nse_nep"] = skill.nse_by_run(predicted[..., TARGETS.index("nep")], truth[..., TARGETS.index("nep")])
    parameters = pd.DataFrame(data.ensemble.parameters[data.unseen], columns=data.ensemble.parameter_names)
    return pd.concat([table, parameters], axis=1).sort_values("rmse_nep", ascending=False)


def seasonal_errors(data: TrainingData, predicted: np.ndarray) -> pd.DataFrame:
    """RMSE and bias (emulator - process model) by month of the test period over the unseen runs, Mg C ha-1 day-1."""
    days = data.periods["test"]
    error = (predicted - data.truth(data.unseen, days)).astype(np.float64)
    month = data.ensemble.dates[days].astype("datetime64[M]").astype(int) % 12 + 1
    rows = []
    for m in np.unique(month):
        part = error[:, month == m]
        rmse, bias = np.sqrt(np.square(part).mean(axis=(0, 1))), part.mean(axis=(0, 1))
        rows.append({"month": int(m), **{f"rmse_{v}": rmse[i] for i, v in enumerate(TARGETS)},
                     **{f"bias_{v}": bias[i] for i, v in enumerate(TARGETS)}})  # fmt: skip
    return pd.DataFrame(rows)


def as_table(evaluation: dict) -> pd.DataFrame:
    """evaluation.json as rows: split, variable, model, metrics."""
    rows = []
    for split in SPLITS:
        for variable, metrics in evaluation[split].items():
            rows.append(
                {"split": split, "variable": variable, "model": "emulator", **{m: metrics[m] for m in skill.METRICS}}
            )
            for name, values in metrics["baselines"].items():
                rows.append({"split": split, "variable": variable, "model": name, **values})
    return pd.DataFrame(rows)


def save_figures(directory: Path, data: TrainingData, found: Evaluation) -> None:
    """Scatter of each split, NEP of typical and worst unseen runs, RMSE bars, error by lead time, season and run."""
    days, nep = data.periods["test"], TARGETS.index("nep")
    period = f"{data.ensemble.dates[days][0]} to {data.ensemble.dates[days][-1]}"
    for split, (runs, values) in found.predicted.items():
        figure = figures.scatter_figure(values, data.truth(runs, days), f"{split} runs, {period}, free running")
        save_figure(figure, directory / f"evaluation_scatter_{split}")
    runs, values = found.predicted["unseen"]
    truth = data.truth(runs, days)[..., nep]
    order = np.argsort(skill.nse_by_run(values[..., nep], truth))
    chosen = list(dict.fromkeys([int(order[len(order) // 2]), int(order[len(order) // 10]), int(order[0])]))
    labels = [
        f"unseen sample {data.ensemble.sample_ids[runs[i]]}, NSE "
        f"{skill.nse_by_run(values[[i]][..., nep], truth[[i]])[0]:.3f}"
        for i in chosen
    ]
    dates = data.ensemble.dates[days].astype("datetime64[ms]").astype(object)
    shown = {"date": data.ensemble.dates[days].astype(str)}
    for i in chosen:
        sample = data.ensemble.sample_ids[runs[i]]
        shown |= {f"visit_{sample}": truth[i], f"emulator_{sample}": values[i, :, nep]}
    write_csv(directory / "evaluation_nep_series.csv", pd.DataFrame(shown), float_format=DIGITS)
    save_figure(
        figures.series_figure(dates, values[chosen][..., nep], truth[chosen], labels),
        directory / "evaluation_nep_series",
    )
    bars = {
        FLUX_LABELS[v]: {"emulator": found.metrics["unseen"][v]["rmse"]}
        | {name: found.metrics["unseen"][v]["baselines"][name]["rmse"] for name in NAMES}
        for v in TARGETS
    }
    save_figure(
        figures.bars_figure(bars, f"RMSE on unseen runs ({FLUX_UNIT})"), directory / "evaluation_rmse"
    )
    leads = found.leads["lead_days"].to_numpy(), found.leads[[f"rmse_{v}" for v in TARGETS]].to_numpy()
    save_figure(figures.lead_time_figure(*leads), directory / "evaluation_lead_time")
    save_figure(figures.season_figure(found.season), directory / "evaluation_season")
    worst = found.worst
    figure = figures.runs_figure(
        worst["mean_gpp"].to_numpy(), worst["rmse_nep"].to_numpy(), worst["at_rest"].to_numpy(bool),
        [f"run {sample}" for sample in worst["sample_id"]],
    )  # fmt: skip
    save_figure(figure, directory / "evaluation_runs")
