"""Figures of the emulator: functions that take arrays and return a matplotlib Figure; scripts save them."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from calibration.common.command_line import writing
from calibration.common.units import FLUX_LABELS, FLUX_UNIT, TARGETS


def save_figure(figure: Figure, path: str | Path) -> None:
    """Save as PNG through a temporary name."""
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def loss_figure(history: dict[str, list], validation_key: str) -> Figure:
    """Training loss (scaled fluxes) and validation Rollout_RMSE@30 of NEP (Mg C ha-1 day-1) by epoch."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(history["epoch"], history["train_loss"], color="C0", label="training loss")
    if any(value is not None for value in history["train_one_step_loss"]):
        axes.semilogy(
            history["epoch"], history["train_one_step_loss"], color="C0", ls="--", lw=1, label="one-step term"
        )
        axes.semilogy(
            history["epoch"], history["train_rollout_loss"], color="C0", ls=":", lw=1, label="free-running term"
        )
    axes.set(xlabel="epoch", ylabel="loss (mean squared error of scaled fluxes)")
    right = axes.twinx()
    right.semilogy(history["epoch"], history[validation_key], color="C1", label="validation, 30 days")
    right.set_ylabel(f"Rollout_RMSE@30 of NEP ({FLUX_UNIT})")
    lines = axes.get_lines() + right.get_lines()
    axes.legend(lines, [line.get_label() for line in lines], loc="upper right")
    return figure


def scatter_figure(predicted: np.ndarray, truth: np.ndarray, title: str) -> Figure:
    """Emulator against VISIT, one panel a flux: density of all run-days; predicted, truth (run, day, 4)."""
    figure = Figure(figsize=(8, 7.4), layout="constrained")
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
            xlabel=f"VISIT {FLUX_LABELS[name]} ({FLUX_UNIT})", ylabel=f"emulator {FLUX_LABELS[name]} ({FLUX_UNIT})"
        )
        figure.colorbar(image, ax=axes, label="run-days")
    return figure


def series_figure(dates: np.ndarray, predicted: np.ndarray, truth: np.ndarray, labels: list[str]) -> Figure:
    """Daily NEP over the test period for a few runs, one panel each: predicted, truth (run, day), Mg C ha-1 day-1."""
    figure = Figure(figsize=(9, 2.3 * len(labels)), layout="constrained")
    for axes, x, y, label in zip(
        figure.subplots(len(labels), sharex=True, squeeze=False).flat, truth, predicted, labels, strict=True
    ):
        axes.plot(dates, x, color="0.2", lw=1.0, label="VISIT")
        axes.plot(dates, y, color="C1", lw=0.8, label="emulator")
        axes.set_ylabel(f"NEP\n({FLUX_UNIT})")
        axes.set_title(label, fontsize=9, loc="left")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def lead_time_figure(lead: np.ndarray, error: np.ndarray) -> Figure:
    """RMSE against days since the free run began, on log axes: lead (n,), error (n, 4) Mg C ha-1 day-1."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(TARGETS):
        axes.plot(lead, error[:, i], marker="o", ms=3, label=FLUX_LABELS[name])
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="lead time (days after the context)",
        ylabel=f"RMSE on unseen runs ({FLUX_UNIT})",
    )
    axes.legend()
    return figure


def bars_figure(table: dict[str, dict[str, float]], ylabel: str) -> Figure:
    """Grouped bars: {group (flux): {series (model): value}}."""
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    series = list(next(iter(table.values())))
    for k, name in enumerate(series):
        position = np.arange(len(table)) + (k - (len(series) - 1) / 2) * 0.8 / len(series)
        axes.bar(position, [row[name] for row in table.values()], 0.8 / len(series), label=name)
    axes.set_xticks(np.arange(len(table)), list(table))
    axes.set(ylabel=ylabel, yscale="log")
    axes.legend(fontsize=8)
    return figure
