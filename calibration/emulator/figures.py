"""Figures of the emulator: functions that take arrays and return a matplotlib Figure; scripts save them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from calibration.common.figure_style import ALERT, BLUE, COLUMN, CYCLE, ESTIMATE, PAGE, QUIET, TRUTH, styled
from calibration.common.units import FLUX_LABELS, FLUX_UNIT, TARGETS

MARKERS = ("o", "s", "^", "D")  # of the fluxes, in the order of units.TARGETS
MONTHS = "JFMAMJJASOND"


@styled
def loss_figure(history: dict[str, list], validation_key: str) -> Figure:
    """Training loss (scaled fluxes) and validation Rollout_RMSE@30 of NEP (Mg C ha-1 day-1) by epoch."""
    figure = Figure(figsize=(COLUMN + 0.6, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(history["epoch"], history["train_loss"], color=BLUE, label="training loss")
    if any(value is not None for value in history["train_one_step_loss"]):
        axes.semilogy(
            history["epoch"], history["train_one_step_loss"], color=BLUE, ls="--", lw=1, label="one-step term"
        )
        axes.semilogy(
            history["epoch"], history["train_rollout_loss"], color=BLUE, ls=":", lw=1, label="free-running term"
        )
    axes.set(xlabel="epoch", ylabel="loss (mean squared error\nof scaled fluxes)")
    right = axes.twinx()
    right.semilogy(history["epoch"], history[validation_key], color=ALERT, ls="-.", label="validation, 30 days")
    right.set_ylabel(f"Rollout_RMSE@30 of NEP\n({FLUX_UNIT})")
    lines = axes.get_lines() + right.get_lines()
    axes.legend(lines, [line.get_label() for line in lines], loc="upper right")
    return figure


@styled
def scatter_figure(predicted: np.ndarray, truth: np.ndarray, title: str) -> Figure:
    """Emulator against the process model, one panel a flux: density of all run-days; predicted, truth (run, day, 4)."""
    figure = Figure(figsize=(PAGE, 6.4), layout="constrained")
    figure.suptitle(title)
    for axes, name, x, y in zip(
        figure.subplots(2, 2).flat, TARGETS, np.moveaxis(truth, -1, 0), np.moveaxis(predicted, -1, 0), strict=True
    ):
        low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
        high = high if high > low else low + 1e-6
        image = axes.hexbin(
            x.ravel(), y.ravel(), gridsize=60, bins="log", mincnt=1, extent=(low, high, low, high), cmap="viridis"
        )
        axes.plot([low, high], [low, high], color="0.4", lw=0.8)
        axes.set(
            xlabel=f"process model {FLUX_LABELS[name]} ({FLUX_UNIT})",
            ylabel=f"emulator {FLUX_LABELS[name]} ({FLUX_UNIT})",
        )
        figure.colorbar(image, ax=axes, label="run-days")
    return figure


@styled
def series_figure(dates: np.ndarray, predicted: np.ndarray, truth: np.ndarray, labels: list[str]) -> Figure:
    """Daily NEP over the test period for a few runs, one panel each: predicted, truth (run, day), Mg C ha-1 day-1."""
    figure = Figure(figsize=(PAGE, 1.4 * len(labels) + 0.3), layout="constrained")
    for axes, x, y, label in zip(
        figure.subplots(len(labels), sharex=True, squeeze=False).flat, truth, predicted, labels, strict=True
    ):
        axes.plot(dates, x, color=TRUTH, lw=1.0, label="process model")
        axes.plot(dates, y, color=ESTIMATE, lw=0.8, ls="--", label="emulator")
        axes.set_ylabel(f"NEP\n({FLUX_UNIT})")
        axes.set_title(label)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


@styled
def lead_time_figure(lead: np.ndarray, error: np.ndarray) -> Figure:
    """RMSE against days since the free run began, on log axes: lead (n,), error (n, 4) Mg C ha-1 day-1."""
    figure = Figure(figsize=(COLUMN, 2.7), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(TARGETS):
        axes.plot(lead, error[:, i], marker=MARKERS[i], ms=3, label=FLUX_LABELS[name])
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="lead time (days after the context)",
        ylabel=f"RMSE on unseen runs ({FLUX_UNIT})",
    )
    figure.legend(loc="outside upper center", ncols=len(TARGETS))
    return figure


@styled
def bars_figure(table: dict[str, dict[str, float]], ylabel: str) -> Figure:
    """Grouped bars: {group (flux): {series (model): value}}."""
    figure = Figure(figsize=(COLUMN + 0.6, 2.6), layout="constrained")
    axes = figure.subplots()
    series = list(next(iter(table.values())))
    for k, name in enumerate(series):
        position = np.arange(len(table)) + (k - (len(series) - 1) / 2) * 0.8 / len(series)
        axes.bar(position, [row[name] for row in table.values()], 0.8 / len(series), label=name)
    axes.set_xticks(np.arange(len(table)), list(table))
    axes.set(ylabel=ylabel, yscale="log")
    axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0))
    return figure


@styled
def season_figure(table: pd.DataFrame) -> Figure:
    """RMSE and bias by month on unseen runs: month (1-12), rmse_* and bias_* of every flux, Mg C ha-1 day-1."""
    figure = Figure(figsize=(PAGE, 2.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, name in enumerate(TARGETS):
        style = {"marker": MARKERS[i], "ms": 3, "color": CYCLE[i], "label": FLUX_LABELS[name]}
        left.plot(table["month"], table[f"rmse_{name}"], **style)
        right.plot(table["month"], table[f"bias_{name}"], **style)
    right.axhline(0, color="0.6", lw=0.6, zorder=0)
    left.set(ylabel=f"RMSE on unseen runs\n({FLUX_UNIT})", ylim=(0, None))
    right.set(ylabel=f"emulator - process model\n({FLUX_UNIT})")
    for axes in (left, right):
        axes.set_xticks(range(1, 13), MONTHS)
        axes.set_xlabel("month of the test period")
    left.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1.0))
    return figure


@styled
def runs_figure(gpp: np.ndarray, rmse: np.ndarray, rest: np.ndarray, labels: Sequence[str]) -> Figure:
    """NEP error of every unseen run against its GPP: gpp, rmse (run,) Mg C ha-1 day-1; rest (run,) bool, at rest;
    labels (run,): names of the runs, shown for those that are not at rest.
    """
    figure = Figure(figsize=(COLUMN, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(gpp[rest], rmse[rest], "o", ms=3, color=BLUE, label="at rest")
    if (~rest).any():
        axes.plot(gpp[~rest], rmse[~rest], "X", ms=6, color=ALERT, label="not at rest: growing or dying")
        for x, y, label in zip(gpp[~rest], rmse[~rest], np.asarray(labels)[~rest], strict=True):
            axes.annotate(str(label), (x, y), xytext=(4, 3), textcoords="offset points", fontsize=6)
    axes.axhline(np.median(rmse), color=QUIET, lw=0.8, ls="--", label="median")
    axes.set(xlabel=f"mean GPP ({FLUX_UNIT})", ylabel=f"RMSE of NEP ({FLUX_UNIT})", yscale="log")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
    return figure
