"""Figures of a sensitivity analysis: functions that take tables and return a matplotlib Figure."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from calibration.common.figure_style import ALERT, BLUE, PAGE, QUIET, styled
from calibration.exploration.design import INDICES
from calibration.inversion.posterior import INFORMED

MODELS = {"emulator": ("o", BLUE, "emulator"), "process_model": ("s", ALERT, "process model")}
SHOWN = 10  # parameters a panel: the most influential ones
XLABELS = {
    "morris": "mean |elementary effect| (Mg C ha$^{-1}$ a range)",
    "sobol": "total Sobol index (share of the variance)",
}


@styled
def index_figure(method: str, table: pd.DataFrame, models: Sequence[str], shown: int = SHOWN) -> Figure:
    """One panel a quantity: the `shown` most influential parameters with 95 percent confidence, models side by side.

    table: quantity, parameter, and <model>_<index>, <model>_<index>_conf for each of `models`.
    """
    index = INDICES[method][0]
    quantities = list(dict.fromkeys(table["quantity"]))
    rows = -(-len(quantities) // 3)
    figure = Figure(figsize=(PAGE, 0.4 + rows * (0.5 + 0.15 * shown)), layout="constrained")
    for axes, quantity in zip(np.ravel(figure.subplots(rows, 3, squeeze=False)), quantities, strict=False):
        part = table[table["quantity"] == quantity]
        part = part.assign(order=part[[f"{model}_{index}" for model in models]].max(axis=1))
        part = part.nlargest(shown, "order")
        y = np.arange(len(part))[::-1]
        for k, model in enumerate(models):
            marker, color, label = MODELS[model]
            axes.errorbar(
                part[f"{model}_{index}"], y + 0.16 * (len(models) - 1) - 0.32 * k, xerr=part[f"{model}_{index}_conf"],
                fmt=marker, ms=3, lw=0.8, color=color, label=label,
            )  # fmt: skip
        axes.set_yticks(y, part["parameter"])
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        axes.set_title(quantity)
        axes.grid(axis="x")
    figure.supxlabel(XLABELS[method], fontsize=7.5)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(models))
    return figure


@styled
def information_figure(table: pd.DataFrame, model: str) -> Figure:
    """Posterior over prior sd by parameter, one panel a length of the record; table of information_table()."""
    lengths = list(dict.fromkeys(table["days"]))
    order = table.groupby("parameter")["sd_ratio"].min().sort_values(ascending=False).index
    figure = Figure(figsize=(PAGE, max(1.8, 0.9 + 0.125 * len(order))), layout="constrained")
    for axes, days in zip(figure.subplots(1, len(lengths), sharey=True, squeeze=False)[0], lengths, strict=True):
        part = table[table["days"] == days].set_index("parameter").loc[order]
        y = np.arange(len(order))
        color = np.where(part["informed"], BLUE, QUIET)
        axes.hlines(y, part["sd_ratio_low"], part["sd_ratio_high"], color=color, lw=1.2)
        axes.scatter(part["sd_ratio"], y, s=10, color=color, zorder=3)
        axes.axvline(INFORMED, color="k", lw=0.7, ls="--")
        axes.set_xlim(0, 1.03)
        axes.set_title(f"{days} days of NEP")
        axes.set_yticks(y, order)
        axes.set_ylim(-1, len(order))
        axes.tick_params(axis="y", labelsize=6)
    label = f"posterior sd / prior sd, {model} (left of the dashed line: informed; lines: 80 % of trajectories)"
    figure.supxlabel(label, fontsize=7.5)
    return figure


@styled
def reference_figure(table: pd.DataFrame) -> Figure:
    """Change of the annual mean a step: real VISIT against the process model; table of reference.compare()."""
    fluxes = list(dict.fromkeys(table["flux"]))
    figure = Figure(figsize=(PAGE, 2.3), layout="constrained")
    for axes, flux in zip(figure.subplots(1, len(fluxes), squeeze=False)[0], fluxes, strict=True):
        part = table[table["flux"] == flux]
        high = max(part["real"].max(), part["process_model"].max(), 1e-2)
        axes.plot([0, high], [0, high], color="0.6", lw=0.7, zorder=0)
        axes.plot(part["real"], part["process_model"], "o", ms=3, alpha=0.6, mew=0)
        axes.set_xscale("symlog", linthresh=0.01)
        axes.set_yscale("symlog", linthresh=0.01)
        ticks = [tick for tick in (0.0, 0.01, 0.1, 1.0, 10.0) if tick <= high]
        axes.set_xticks(ticks)
        axes.set_yticks(ticks)
        axes.set_title(flux)
    figure.supxlabel("real VISIT: |change of the annual mean| a step (Mg C ha$^{-1}$ year$^{-1}$)", fontsize=7.5)
    figure.axes[0].set_ylabel("process model")
    return figure
