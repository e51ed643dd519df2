"""Tables, text and figure of learning_curve.py, from its CSV files."""

from pathlib import Path

import numpy as np
import pandas as pd
from conclusions import read_conclusions
from matplotlib.figure import Figure

from calibration.common import skill
from calibration.common.command_line import write_text
from calibration.common.parameters import make_space
from calibration.common.units import FLUX_LABELS, TARGETS
from calibration.emulator.baselines import NAMES
from calibration.emulator.error import nearest_distance
from calibration.emulator.trained import space_entries
from dataset import TrainingData

WORST = 5
# What the predecessor published: 30-day windows of the test year, runs that it was trained on.
PREDECESSOR = {"gpp": 0.983, "npp": 0.979, "nep": 0.864, "nep_rmse": 0.0040}


def worst_runs(data: TrainingData, predicted: np.ndarray) -> pd.DataFrame:
    """The WORST unseen runs by within-run NSE of NEP: predicted (run, day, 4) of the test year, Mg C ha-1 day-1."""
    ensemble, unseen = data.ensemble, data.unseen
    entries = space_entries(ensemble.parameter_names, ensemble.parameters)
    space = make_space([tuple(entry) for entry in entries], ensemble.directory)
    unit = space.physical_to_unit(ensemble.parameters)
    distance = nearest_distance(space, ensemble.parameters[unseen], ensemble.parameters[data.seen])
    truth = data.truth(unseen, data.periods["test"])
    nse = skill.nse_by_run(predicted[..., 2], truth[..., 2])
    rmse = np.sqrt(np.square(predicted - truth, dtype=np.float64).mean(axis=1))
    rows = []
    for k in np.argsort(nse)[:WORST]:
        extreme = np.argsort(-np.abs(unit[unseen[k]] - 0.5))[:3]
        rows.append({
            "runs": len(ensemble.sample_ids), "sample_id": int(ensemble.sample_ids[unseen[k]]), "nse_nep": nse[k],
            **{f"rmse_{name}": rmse[k, i] for i, name in enumerate(TARGETS)},
            "mean_gpp": truth[k, :, 0].mean() * 365, "distance": distance[k], "median_distance": np.median(distance),
            "extreme": ", ".join(f"{ensemble.parameter_names[i]} at {unit[unseen[k], i]:.2f}" for i in extreme),
            **dict(zip(ensemble.parameter_names, ensemble.parameters[unseen[k]], strict=True)),
        })  # fmt: skip
    return pd.DataFrame(rows)


def numbers(row, keys, digits: int = 3) -> str:
    """Table cells; empty where unknown."""
    return " | ".join(f"{row[key]:.{digits}f}" if np.isfinite(row.get(key, np.nan)) else "" for key in keys)


def accuracy_table(table: pd.DataFrame) -> list[str]:
    """One line a training."""
    keys = ["seen_nep", *(f"unseen_{name}" for name in TARGETS), "unseen_nse", "all_nep"]
    lines = [
        "| runs | preset | seed | processor s | epochs (best) | seen NEP | unseen GPP | unseen NPP | unseen NEP "
        "| unseen Rh | median NSE of NEP, unseen | all runs, NEP |", "|" + "---|" * 12,
    ]  # fmt: skip
    for row in table.to_dict("records"):
        head = f"| {row['runs']} | {row['preset']} | {row['seed']} | {row['processor_seconds']:.0f} "
        lines.append(head + f"| {row['epochs']} ({row['best_epoch']}) | {numbers(row, keys, 4)} |")
    return lines


def baseline_table(table: pd.DataFrame, baselines: pd.DataFrame) -> list[str]:
    """Unseen runs: the emulator's mean over seeds beside the baselines, and run means beside regressions."""
    lines = ["| runs | | GPP | NPP | NEP | Rh | median NSE of NEP | GPP, NPP, NEP, Rh of run means |", "|" + "---|" * 8]
    mean = table[table["preset"] == "recommended"].groupby("runs").mean(numeric_only=True)
    for row in sorted(baselines.to_dict("records"), key=lambda row: row["runs"]):
        own = mean.loc[row["runs"]] if row["runs"] in mean.index else pd.Series(dtype=float)
        cells = numbers(own, [f"unseen_{name}" for name in (*TARGETS, "nse")])
        run_means = ", ".join(f"{own.get(f'mean_{name}', np.nan):.3f}" for name in TARGETS)
        lines.append(f"| {row['runs']} | emulator | {cells} | {run_means} |")
        for name in NAMES:
            lines.append(f"| | {name} | {numbers(row, [f'{name}_{k}' for k in (*TARGETS, 'nse')])} | |")
        for method, label in (("gb", "gradient boosting"), ("gp", "Gaussian process")):
            values = ", ".join(f"{row[f'{method}_{name}']:.3f}" for name in TARGETS)
            lines.append(f"| | {label} on run means | | | | | | {values} |")
    return lines


def window_table(table: pd.DataFrame, baselines: pd.DataFrame) -> list[str]:
    """The specification's protocol beside the predecessor's numbers."""
    lines = ["| | runs | judged on | GPP | NPP | NEP | Rh | RMSE of NEP |", "|" + "---|" * 8]
    lines.append(f"| predecessor, as published | 180 | seen | {numbers(PREDECESSOR, TARGETS)} | 0.00400 |")
    for row in table.to_dict("records"):
        for split in ("seen", "unseen"):
            if np.isfinite(row.get(f"{split}_window_nep", np.nan)):
                cells = numbers(row, [f"{split}_window_{name}" for name in TARGETS])
                lines.append(
                    f"| {row['preset']} | {row['runs']} | {split} | {cells} | {row[f'{split}_window_nep_rmse']:.5f} |"
                )
    for row in baselines.to_dict("records"):
        if row["runs"] != 180:
            continue
        for name in (name for name in NAMES if f"{name}_window_nep_rmse" in row):  # an earlier table has fewer
            cells = numbers(row, [f"{name}_window_{k}" for k in TARGETS])
            lines.append(f"| {name} | 180 | unseen | {cells} | {row[f'{name}_window_nep_rmse']:.5f} |")
    return lines


def worst_table(worst: pd.DataFrame) -> list[str]:
    """The worst unseen runs with what is unusual about them."""
    lines = [
        "| runs | sample | NSE of NEP | RMSE GPP / NPP / NEP / Rh, 1e-3 | mean GPP, Mg C ha-1 year-1 "
        "| distance (median) | most extreme parameters, place in their range 0-1 |", "|" + "---|" * 7,
    ]  # fmt: skip
    for row in sorted(worst.to_dict("records"), key=lambda row: (row["runs"], row["nse_nep"])):
        rmse = " / ".join(f"{1e3 * row[f'rmse_{name}']:.1f}" for name in TARGETS)
        lines.append(
            f"| {row['runs']} | {row['sample_id']} | {row['nse_nep']:.3f} | {rmse} | {row['mean_gpp']:.1f} "
            f"| {row['distance']:.3f} ({row['median_distance']:.3f}) | {row['extreme']} |"
        )
    return lines


def write_report(path: Path, table, baselines, worst, stride: int, machine: str) -> None:
    """The markdown page; `<name>_conclusions.txt` (by hand) holds a text below each table."""
    sections = [
        ("Accuracy of the emulator",
         "Latin hypercubes over the default ranges, generated weather 2010-2019, 10 percent of the runs unseen; R2 on "
         "the test year 2019, one free run over the year after 180 days of context. Processor seconds of training "
         f"alone ({machine}).", accuracy_table(table)),
        ("Beside the baselines",
         "Unseen runs, the same protocol; the emulator's mean over its seeds. Persistence and ARX start from the run's "
         "true flux, which no proposed parameter vector has. The last column is the R2 of the runs' mean fluxes over "
         "the test year.", baseline_table(table, baselines)),
        ("The specification's protocol",
         f"30-day windows of the test year, one every {stride} days over all of it, each after its own 180 days of "
         "context; R2 pooled over runs, windows and days; RMSE in Mg C ha-1 day-1; first seed.",
         window_table(table, baselines)),
        ("Worst unseen runs",
         "By the within-run NSE of NEP, preset recommended, first seed; RMSE in 1e-3 Mg C ha-1 day-1; distance to the "
         "nearest training vector in units of the ranges, root mean square over parameters (in brackets: the "
         "unseen runs' median). All parameters of these runs: learning_curve_worst.csv.", worst_table(worst)),
    ]  # fmt: skip
    conclusions = read_conclusions(path)
    lines = []
    for level, (title, text, rows) in enumerate(sections):
        lines += ["## " + title if level == 0 else "### " + title, "", text, "", *rows, ""]
        if title in conclusions:
            lines += [conclusions[title], ""]
        if level == 0:
            lines += ["![Learning curve](learning_curve.png)", ""]
    write_text(path.with_suffix(".md"), "\n".join(lines).rstrip() + "\n")


def figure(table: pd.DataFrame, baselines: pd.DataFrame) -> Figure:
    """1 - R2 on unseen runs against the number of runs: every seed, their mean, and gradient boosting of run means."""
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = table[table["preset"] == table["preset"].mode()[0]]  # the one measured most often
    mean = rows.groupby("runs").mean(numeric_only=True)
    runs = sorted(mean.index)
    for i, name in enumerate(TARGETS):
        color = f"C{i}"
        left.plot(rows["runs"], 1 - rows[f"unseen_{name}"], ".", color=color, alpha=0.5)
        left.plot(mean.index, 1 - mean[f"unseen_{name}"], color=color, label=FLUX_LABELS[name])
        if name == "nep":
            continue  # its run means are pinned near 0 by the steady state
        right.plot(mean.index, 1 - mean[f"mean_{name}"], color=color, marker="o", label=FLUX_LABELS[name])
        if len(baselines):
            known = baselines.sort_values("runs")
            right.plot(known["runs"], 1 - known[f"gb_{name}"], color=color, ls="--")
            right.plot(known["runs"], 1 - known[f"gp_{name}"], color=color, ls=":")
    right.plot([], [], color="0.4", ls="--", label="gradient boosting")
    right.plot([], [], color="0.4", ls=":", label="Gaussian process")
    for axes, title in ((left, "daily fluxes of the test year"), (right, "run means of the test year")):
        axes.set(xscale="log", yscale="log", xlabel="runs in the ensemble", ylabel="1 - R2 on unseen runs", title=title)
        axes.set_xticks(runs, [str(n) for n in runs])
        axes.minorticks_off()
        axes.legend(fontsize=8)
    return figure
