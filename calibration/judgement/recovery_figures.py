"""Figures of parameter recovery: functions that take arrays and return a matplotlib Figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from calibration.common.units import FLUX_UNIT

TRUE, PRIOR, ESTIMATED = "k", "tab:orange", "tab:blue"


def overview(
    dates: np.ndarray,
    true: np.ndarray,
    observed: np.ndarray,
    prior: np.ndarray,
    estimated: np.ndarray,
    names: Sequence[str],
    error_prior: np.ndarray,
    error_estimated: np.ndarray,
    title: str,
) -> Figure:
    """NEP of truth, prior and estimate (day,), and the parameters' errors as a share of their ranges (parameter,)."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    top, bottom = figure.subplots(2, 1)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    top.plot(dates, observed, ".", color="0.5", ms=4, label="observed (truth + noise)")
    top.plot(dates, true, color=TRUE, lw=1.2, label="truth")
    top.plot(dates, prior, color=PRIOR, lw=1, label="prior")
    top.plot(dates, estimated, color=ESTIMATED, lw=1.2, ls="--", label="estimated")
    top.set_ylabel(f"NEP ({FLUX_UNIT})")
    top.legend(ncols=4, fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    top.tick_params(axis="x", labelrotation=20)
    x = np.arange(len(names))
    bottom.bar(x - 0.2, error_prior, 0.4, color=PRIOR, label=f"prior, mean {error_prior.mean():.3f}")
    bottom.bar(x + 0.2, error_estimated, 0.4, color=ESTIMATED, label=f"estimated, mean {error_estimated.mean():.3f}")
    bottom.set_xticks(x, names, rotation=90, fontsize=7)
    bottom.set_xlim(-1, len(names))
    bottom.set_ylabel("absolute error / range")
    bottom.legend(fontsize=8, frameon=False)
    return figure


def parameter_bars(
    names: Sequence[str], true: np.ndarray, prior: np.ndarray, estimated: np.ndarray, low, high, title: str
) -> Figure:
    """Truth, prior and estimate inside each range (0-1), with 90 percent intervals; all (parameter,)."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    ax = figure.subplots()
    ax.set_title(title, fontsize=10, loc="left")
    x = np.arange(len(names))
    ax.bar(x - 0.27, true, 0.27, color="0.4", label="true")
    ax.bar(x, prior, 0.27, color=PRIOR, label="prior")
    error = None
    if low is not None:
        error = np.vstack([np.maximum(estimated - low, 0), np.maximum(high - estimated, 0)])
    ax.bar(x + 0.27, estimated, 0.27, color=ESTIMATED, yerr=error, ecolor="0.3", error_kw={"lw": 0.8},
           label="estimated" + ("" if low is None else ", 90 % interval"))  # fmt: skip
    ax.set_xticks(x, names, rotation=90, fontsize=8)
    ax.set_xlim(-1, len(names))
    ax.set_ylim(0, 1.05)
    ax.set_ylabel("position in its range (0-1)")
    ax.legend(ncols=3, fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.06))
    return figure


def parameter_traces(
    names: Sequence[str], iterations: np.ndarray, traces: np.ndarray, true: np.ndarray, units: Sequence[str]
) -> Figure:
    """Parameters along the iterations: iterations (step,), traces (step, parameter) and true (parameter,) physical."""
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for k, ax in enumerate(axes):
        if k >= len(names):
            ax.set_visible(False)
            continue
        ax.plot(iterations, traces[:, k], "-", marker=".", color=ESTIMATED, label="best so far")
        ax.axhline(true[k], color=TRUE, lw=0.8, ls="--", label="true")
        ax.set_title(names[k], fontsize=9)
        ax.set_xlabel("iteration")
        ax.set_ylabel(units[k])
        if k == 0:
            ax.legend(fontsize=8, frameon=False)
    return figure


def normalised_scatter(
    names: Sequence[str], true: np.ndarray, estimated: np.ndarray, prior: np.ndarray | None, title: str
) -> Figure:
    """True against estimated (and prior) positions in the ranges (0-1), (parameter,) each."""
    figure = Figure(figsize=(7.5, 7), layout="constrained")
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color="k", lw=0.8)
    if prior is not None:
        ax.plot(true, prior, "s", mfc="none", color=PRIOR, ms=5, label="prior")
        for t, p, e in zip(true, prior, estimated, strict=True):
            ax.plot([t, t], [p, e], color="0.85", lw=0.8, zorder=0)
    ax.plot(true, estimated, "o", color=ESTIMATED, ms=5, label="estimated")
    for name, t, e in zip(names, true, estimated, strict=True):
        ax.annotate(name, (t, e), xytext=(4, 3), textcoords="offset points", fontsize=6, color="0.3")
    ax.set_xlabel("true, position in its range (0-1)")
    ax.set_ylabel("estimated, position in its range (0-1)")
    ax.set_xlim(-0.03, 1.03)
    low, high = min(0.0, estimated.min()), max(1.0, estimated.max())
    ax.set_ylim(low - 0.03, high + 0.03)
    ax.legend(fontsize=8, frameon=False, loc="upper left")
    ax.set_title(title, fontsize=9, loc="left")
    return figure
