"""Figures of the observation scripts: arrays in, matplotlib Figure out."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from calibration.common.figure_style import BLUE, ORANGE, PAGE, QUIET, styled
from calibration.common.units import FLUX_UNIT


@styled
def nep_figure(table: pd.DataFrame, months: pd.DataFrame, nee_column: str) -> Figure:
    """Daily NEP with its mask, the quality flag, and the share of valid days by month.

    table: date, nep_mg_ha (Mg C ha-1 day-1), nee_qc, obs_mask; months: observation_summary.by_month(table).
    """
    dates = pd.to_datetime(table["date"])
    valid = table["obs_mask"].to_numpy() == 1
    masked = ~valid & table["nep_mg_ha"].notna().to_numpy()
    flagged = table["nee_qc"].notna().any()
    figure = Figure(figsize=(PAGE, 5.2 if flagged else 4.0), layout="constrained")
    axes = figure.subplots(3 if flagged else 2, 1, sharex=True, height_ratios=[3, 1.2, 1.4] if flagged else [3, 1.4])
    days = [(masked, {"marker": "x", "color": ORANGE, "ms": 2, "mew": 0.6}, f"masked ({masked.sum()})"),
            (valid, {"marker": ".", "color": BLUE, "ms": 2.5}, f"valid ({valid.sum()})")]  # fmt: skip
    for here, style, label in days:
        axes[0].plot(dates[here], table["nep_mg_ha"][here], ls="", label=label, **style)
        if flagged:
            axes[1].plot(dates[here], table["nee_qc"][here], ls="", **style)
    axes[0].axhline(0, color=QUIET, lw=0.6, zorder=0)
    axes[0].set(ylabel=f"NEP ({FLUX_UNIT})\nuptake > 0",
                title=f"NEP from {nee_column}: {valid.sum()} of {len(table)} days valid")  # fmt: skip
    axes[0].legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1.0))
    if flagged:
        axes[1].set_ylabel("daily QC (-)")
    axes[-1].bar(pd.to_datetime(months["month"] + "-15"), 100 * months["share_kept"], width=25, color=BLUE)
    axes[-1].set(ylim=(0, 100), ylabel="valid days\nof a month (%)")
    axes[-1].set_xlim(dates.iloc[0] - np.timedelta64(5, "D"), dates.iloc[-1] + np.timedelta64(5, "D"))
    return figure


@styled
def comparison_figure(comparison: pd.DataFrame) -> Figure:
    """Mean annual course of tower and ERA5 by variable: bias and correlation in each title, correlation by month.

    comparison: weather_comparison.compare(...): variable, unit, month, days, mean_tower, mean_era5, bias, correlation.
    """
    variables = list(dict.fromkeys(comparison["variable"]))
    columns = 2 if len(variables) <= 4 else 3
    rows = -(-len(variables) // columns)
    figure = Figure(figsize=(PAGE, 1.9 * rows + 0.3), layout="constrained")
    for place, name in enumerate(variables, start=1):
        part = comparison[comparison["variable"] == name]
        whole, monthly = part[part["month"] == "all"].iloc[0], part[part["month"] != "all"]
        months = monthly["month"].astype(int)
        axis = figure.add_subplot(rows, columns, place)
        axis.plot(months, monthly["mean_tower"], "o-", color=BLUE, ms=3, label="tower")
        axis.plot(months, monthly["mean_era5"], "s--", color=ORANGE, ms=3, label="ERA5")
        correlation = "" if np.isnan(whole["correlation"]) else f", r {whole['correlation']:.2f}"
        axis.set_title(f"{name}\nbias {whole['bias']:+.3g}{correlation}, {whole['days']} days", fontsize=7.5)
        correlations = ["" if np.isnan(r) else f"{r:.1f}".replace("0.", ".") for r in monthly["correlation"]]
        axis.set_xticks(months, [f"{m}\n{r}" for m, r in zip(months, correlations, strict=True)], fontsize=5.5)
        axis.set(xlim=(0.5, 12.5), ylabel=whole["unit"])
    figure.supxlabel("month, below it the correlation of its days", fontsize=7.5)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure
