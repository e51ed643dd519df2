"""Figures of an inversion: functions that take arrays and return a matplotlib Figure. Fluxes in Mg C ha-1 day-1."""

import textwrap
from collections.abc import Sequence

import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from calibration.common.units import FLUX_UNIT
from calibration.inversion.config import target_label
from calibration.inversion.data import DAY
from calibration.inversion.posterior import INFORMED
from calibration.judgement.judge import Judged

OBSERVED, PRIOR, OPTIMIZED, SIMULATOR = "0.35", "tab:orange", "tab:blue", "tab:green"


def name_rows(ax, names: Sequence[str], fontsize: int = 8) -> np.ndarray:
    """Give `ax` a row for each name, the first on top; returns their heights (name,)."""
    y = np.arange(len(names))[::-1]
    ax.set_yticks(y, names, fontsize=fontsize)
    ax.set_ylim(-1, len(names))
    return y


def _with_gaps(dates: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Insert NaN where days are missing, so that lines break there."""
    breaks = np.flatnonzero(np.diff(dates) > DAY) + 1
    return np.insert(dates, breaks, dates[breaks - 1]), np.insert(values.astype(float), breaks, np.nan)


def _title(figure: Figure, text: str, width: int) -> None:
    figure.suptitle(textwrap.fill(text, width), fontsize=10, x=0.01, ha="left")


def nep_comparison(item: Judged, verdict: str, simulator: np.ndarray | None = None) -> Figure:
    """Daily series, running mean, scatter and residuals of one flux; simulator: (day,) the process model's run of it.

    The bands are 90 percent of the true flux given the data, and the same with observation error, where 90 percent of
    the observations are expected.
    """
    order = np.argsort(item.dates, kind="stable")
    dates, observed, valid, fitted, prior, optimized = (
        x[order] for x in (item.dates, item.observed, item.valid, item.fitted, item.prior, item.optimized)
    )
    label = target_label(item.target)
    figure = Figure(figsize=(12, 9), layout="constrained")
    axes = figure.subplot_mosaic([["daily", "daily"], ["mean", "mean"], ["scatter", "residual"]])
    _title(figure, verdict, 150)

    ax = axes["daily"]
    bands = (item.observed_band, 0.15, "90 % of observations"), (item.band, 0.4, f"90 % of the true {label}")
    for limits, alpha, name in bands:
        if limits is not None:
            x, low = _with_gaps(dates, limits[0][order])
            high = _with_gaps(dates, limits[1][order])[1]
            ax.fill_between(x, low, high, color=OPTIMIZED, alpha=alpha, lw=0, label=name)
    ax.plot(dates[valid & fitted], observed[valid & fitted], ".", color=OBSERVED, ms=4, label="observed (fitted)")
    if (valid & ~fitted).any():
        ax.plot(dates[valid & ~fitted], observed[valid & ~fitted], "+", color="k", ms=4, label="observed (held out)")
    ax.plot(*_with_gaps(dates, prior), color=PRIOR, lw=1, label="prior")
    ax.plot(*_with_gaps(dates, optimized), color=OPTIMIZED, lw=1.2, label="optimized")
    if simulator is not None:
        ax.plot(
            *_with_gaps(dates, simulator[order]), color=SIMULATOR, lw=1, ls="--", label="simulator, same parameters"
        )
    ax.set_ylabel(f"{label} ({FLUX_UNIT})")
    ax.legend(ncols=7, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.13), frameon=False)

    ax, days = axes["mean"], 15 if len(dates) > 60 else 5
    smooth = {"observed": (np.where(valid, observed, np.nan), OBSERVED), "prior": (prior, PRIOR),
              "optimized": (optimized, OPTIMIZED)}  # fmt: skip
    if simulator is not None:
        smooth["simulator"] = (simulator[order], SIMULATOR)
    for name, (values, color) in smooth.items():
        series = pd.Series(values, index=pd.DatetimeIndex(dates))
        mean = series.rolling(f"{days}D", center=True, min_periods=max(1, days // 3)).mean()
        ax.plot(*_with_gaps(dates, mean.to_numpy()), color=color, lw=1.3, label=name)
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.set_ylabel(f"{days}-day mean {label}\n({FLUX_UNIT})")
    for ax in (axes["daily"], axes["mean"]):
        locator = mdates.AutoDateLocator(minticks=4, maxticks=12)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))

    ax = axes["scatter"]
    ax.plot(observed[valid], prior[valid], ".", color=PRIOR, ms=3, alpha=0.6, label="prior")
    ax.plot(observed[valid], optimized[valid], ".", color=OPTIMIZED, ms=3, alpha=0.6, label="optimized")
    if valid.any():
        span = [np.nanmin(observed[valid]), np.nanmax(observed[valid])]
        ax.plot(span, span, color="k", lw=0.8, label="1:1")
    ax.set_xlabel(f"observed {label} ({FLUX_UNIT})")
    ax.set_ylabel(f"modelled {label} ({FLUX_UNIT})")
    ax.legend(fontsize=8, frameon=False)

    ax = axes["residual"]
    residuals = {"prior": ((prior - observed)[valid], PRIOR), "optimized": ((optimized - observed)[valid], OPTIMIZED)}
    both = np.concatenate([values for values, _ in residuals.values()])
    edges = np.histogram_bin_edges(both[np.isfinite(both)], bins=int(np.clip(valid.sum() // 4, 10, 60)))
    for name, (values, color) in residuals.items():
        ax.hist(values, bins=edges, histtype="step", color=color, label=name)
    ax.axvline(0, color="k", lw=0.8)
    ax.set_xlabel(f"modelled - observed {label} ({FLUX_UNIT})")
    ax.set_ylabel("days")
    ax.legend(fontsize=8, frameon=False)
    return figure


def loss_history(history: Sequence[dict], ylabel: str, note: str = "") -> Figure:
    """Cost of every start by iteration and the best so far; history: entries with iteration, cost, costs (start,)."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    ax = figure.subplots()
    iterations = [entry["iteration"] for entry in history]
    width = max(len(entry["costs"]) for entry in history)
    if 1 < width <= 64:
        for k in range(width):
            costs = [entry["costs"][k] if k < len(entry["costs"]) else np.nan for entry in history]
            ax.plot(iterations, costs, color="0.7", lw=0.8, label="starts" if k == 0 else None)
    ax.plot(iterations, [entry["cost"] for entry in history], color=OPTIMIZED, lw=1.8, marker=".", label="best")
    values = np.array([c for entry in history for c in entry["costs"]] + [entry["cost"] for entry in history])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > 20 * values.min():
        ax.set_yscale("log")
    ax.set_xlabel("iteration")
    ax.set_ylabel(ylabel)
    ax.legend(frameon=False)
    ax.set_title(textwrap.fill(note, 95), fontsize=9, loc="left")
    return figure


def parameter_changes(
    names: Sequence[str],
    prior: np.ndarray,
    optimized: np.ndarray,
    low: np.ndarray | None,
    high: np.ndarray | None,
    informed: Sequence[str],
    xlabel: str,
    note: str,
    truth: np.ndarray | None = None,
) -> Figure:
    """Prior and estimate of every parameter in units of its range, with 90 percent intervals; all (parameter,).

    low, high: interval in the same units or None; informed: names drawn in bold; truth: (parameter,) or None.
    """
    figure = Figure(figsize=(8, 1.6 + 0.22 * len(names)), layout="constrained")
    ax = figure.subplots()
    y = name_rows(ax, names)
    if low is not None:
        ax.hlines(y, low, high, color=OPTIMIZED, lw=4, alpha=0.3, label="90 % interval")
    ax.plot(prior, y, "|", color=PRIOR, ms=10, mew=2, label="prior")
    ax.plot(optimized, y, "o", color=OPTIMIZED, ms=4, label="optimized")
    if truth is not None:
        ax.plot(truth, y, "x", color="k", ms=5, label="true")
    for tick, name in zip(ax.get_yticklabels(), names, strict=True):
        tick.set_fontweight("bold" if name in informed else "normal")
    ax.grid(axis="x", color="0.9")
    ax.set_xlabel(xlabel)
    ax.legend(ncols=4, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    _title(figure, note, 95)
    return figure


def identifiability_figure(
    names: Sequence[str], sd_ratio: np.ndarray, correlation: np.ndarray, eigenvalues: np.ndarray
) -> Figure:
    """Posterior over prior sd (parameter,), posterior correlation (parameter, parameter), eigenvalues (size,)."""
    figure = Figure(figsize=(14, 7.5), layout="constrained")
    bars, matrix, spectrum = figure.subplots(1, 3, width_ratios=[1, 1.5, 0.8])
    y = name_rows(bars, names, fontsize=7)
    bars.barh(y, sd_ratio, color=np.where(sd_ratio < INFORMED, OPTIMIZED, "0.75"))
    bars.axvline(INFORMED, color="k", lw=0.8, ls="--")
    bars.set_xlabel(f"posterior sd / prior sd\n(1 = the data say nothing, < {INFORMED} = informed)")
    image = matrix.imshow(correlation, vmin=-1, vmax=1, cmap="RdBu_r")
    matrix.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    matrix.set_yticks(range(len(names)), names, fontsize=6)
    matrix.set_title("posterior correlation", fontsize=9)
    figure.colorbar(image, ax=matrix, shrink=0.6)
    spectrum.semilogy(np.arange(1, len(eigenvalues) + 1), np.maximum(eigenvalues, 1e-6), "o-", ms=3, color=OPTIMIZED)
    spectrum.axhline(1, color="k", lw=0.8, ls="--")
    spectrum.set_xlabel("direction in parameter space")
    spectrum.set_ylabel("information of the data / of the prior")
    return figure


def conflict_figure(table: pd.DataFrame, sentence: str, label: str) -> Figure:
    """Observed monthly means against the prior-predictive band; table of judgement/fit.py prior_conflict."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    _title(figure, sentence, 130)
    x = np.arange(len(table))
    top.fill_between(x, table["prior_low"], table["prior_high"], step="mid", color=PRIOR, alpha=0.3, lw=0,
                     label="prior-predictive 95 % band of the month's mean")  # fmt: skip
    top.plot(x, table["prior_mean"], drawstyle="steps-mid", color=PRIOR, label="prior mean")
    top.plot(x, table["observed_mean"], "o", color=OBSERVED, label="observed mean")
    top.set_ylabel(f"{label} ({FLUX_UNIT})")
    top.legend(fontsize=8, frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    bottom.bar(x, 100 * table["share_outside"], color=np.where(table["conflict"], "tab:red", "0.7"))
    bottom.axhline(5, color="k", lw=0.8, ls="--")
    bottom.set_ylabel("days outside the\n95 % band (percent)")
    step = max(1, len(table) // 24)
    bottom.set_xticks(x[::step], table["month"][::step], rotation=90, fontsize=7)
    return figure
