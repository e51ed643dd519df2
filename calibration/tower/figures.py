"""Figures of the observation scripts: arrays in, matplotlib Figure out."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from calibration.common.command_line import writing

VALID, MASKED, MISSING = "#1b6ca8", "#c9a227", "#d0d0d0"


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a PNG at 120 dots per inch."""
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def nep_figure(table: pd.DataFrame, months: pd.DataFrame, nee_column: str) -> Figure:
    """Daily NEP with its mask, the quality flag, and the share of valid days by month.

    table: date, nep_mg_ha (Mg C ha-1 day-1), nee_qc, obs_mask; months: observation_summary.by_month(table).
    """
    dates = pd.to_datetime(table["date"])
    valid = table["obs_mask"].to_numpy() == 1
    masked = ~valid & table["nep_mg_ha"].notna().to_numpy()
    flagged = table["nee_qc"].notna().any()
    figure = Figure(figsize=(11, 8 if flagged else 6))
    figure.subplots_adjust(left=0.095, right=0.985, bottom=0.05, top=0.95, hspace=0.2)
    axes = figure.subplots(3 if flagged else 2, 1, height_ratios=[3, 1.2, 1.4] if flagged else [3, 1.4])

    axes[0].plot(dates[masked], table["nep_mg_ha"][masked], ".", color=MASKED, ms=3, label=f"masked ({masked.sum()})")
    axes[0].plot(dates[valid], table["nep_mg_ha"][valid], ".", color=VALID, ms=4, label=f"valid ({valid.sum()})")
    axes[0].axhline(0, color="0.4", lw=0.8)
    axes[0].set_ylabel("NEP (Mg C ha$^{-1}$ day$^{-1}$)\nuptake > 0")
    axes[0].set_title(f"NEP from {nee_column}: {valid.sum()} of {len(table)} days valid")
    axes[0].legend(loc="upper right", ncols=2, frameon=False)
    if flagged:
        axes[1].plot(dates[masked], table["nee_qc"][masked], ".", color=MASKED, ms=3)
        axes[1].plot(dates[valid], table["nee_qc"][valid], ".", color=VALID, ms=3)
        axes[1].set_ylabel("daily QC (-)")
    middle = pd.to_datetime(months["month"] + "-15")
    axes[-1].bar(middle, 100 * months["share_kept"], width=25, color=VALID)
    axes[-1].set_ylim(0, 100)
    axes[-1].set_ylabel("valid days\nof a month (%)")
    for axis in axes:
        axis.set_xlim(dates.iloc[0] - np.timedelta64(5, "D"), dates.iloc[-1] + np.timedelta64(5, "D"))
    return figure


def comparison_figure(comparison: pd.DataFrame) -> Figure:
    """Mean annual course of tower and ERA5 by variable: bias and correlation in each title, correlation by month.

    comparison: weather_comparison.compare(...): variable, unit, month, days, mean_tower, mean_era5, bias, correlation.
    """
    variables = list(dict.fromkeys(comparison["variable"]))
    columns = 2 if len(variables) <= 4 else 3 if len(variables) <= 6 else 4
    rows = -(-len(variables) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows))  # fixed margins: twice as fast as a fitted layout
    figure.subplots_adjust(
        left=0.21 / columns, right=0.985, bottom=0.17 / rows, top=1 - 0.11 / rows, wspace=0.3, hspace=0.32
    )
    for place, name in enumerate(variables, start=1):
        part = comparison[comparison["variable"] == name]
        whole, monthly = part[part["month"] == "all"].iloc[0], part[part["month"] != "all"]
        months = monthly["month"].astype(int)
        axis = figure.add_subplot(rows, columns, place)
        axis.plot(months, monthly["mean_tower"], "o-", color=VALID, ms=4, label="tower")
        axis.plot(months, monthly["mean_era5"], "s--", color=MASKED, ms=4, label="ERA5")
        correlation = "" if np.isnan(whole["correlation"]) else f", r {whole['correlation']:.2f}"
        axis.set_title(f"{name}: bias {whole['bias']:+.3g}{correlation}, {whole['days']} days", fontsize=9)
        axis.set_ylabel(whole["unit"])
        correlations = ["" if np.isnan(r) else f"{r:.2f}".lstrip("0") for r in monthly["correlation"]]
        axis.set_xticks(months, [f"{m}\n{r}" for m, r in zip(months, correlations, strict=True)], fontsize=7)
        axis.set_xlim(0.5, 12.5)
        if place == 1:
            axis.legend(frameon=False)
        if place > len(variables) - columns:
            axis.set_xlabel("month, below it the correlation of its days", fontsize=8)
    return figure
