"""Figures of parameter recovery, of one case and of a study: functions that return a matplotlib Figure."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.dates as mdates
import numpy as np
from matplotlib.figure import Figure

from calibration.common.figure_style import (
    ALERT,
    BLACK,
    COLUMN,
    ESTIMATE,
    PAGE,
    PRIOR,
    QUIET,
    TRUTH,
    save_figure,
    styled,
)  # fmt: skip
from calibration.common.units import FLUX_UNIT
from calibration.inversion.posterior import INFORMED
from calibration.judgement.figures import name_rows
from calibration.judgement.recovery_statistics import NOMINAL, RANK_BINS, written


def _broken(names: Sequence[str]) -> list[str]:
    """Names on two lines where they hold both labels of a label map: there is no room for them on one."""
    return [name.replace(" (", "\n(") for name in names]


@styled
def overview(
    dates: np.ndarray,
    true: np.ndarray,
    prior: np.ndarray,
    estimated: np.ndarray,
    names: Sequence[str],
    error_prior: np.ndarray,
    error_estimated: np.ndarray,
    title: str,
) -> Figure:
    """NEP of truth, prior and estimate (day,), and the parameters' errors as a share of their ranges (parameter,).

    The truth is what was observed: a window of an ensemble run, without noise.
    """
    order = np.argsort(error_estimated - error_prior, kind="stable")
    figure = Figure(figsize=(PAGE, 4.6), layout="constrained")
    top, bottom = figure.subplots(2, 1)
    figure.suptitle(title, fontsize=7.5, x=0.01, ha="left")
    top.plot(dates, true, color=TRUTH, lw=1.2, marker=".", ms=3, label="truth, as observed")
    top.plot(dates, prior, color=PRIOR, lw=0.9, label="prior")
    top.plot(dates, estimated, color=ESTIMATE, lw=1.1, ls="--", label="estimated")
    top.set_ylabel(f"NEP ({FLUX_UNIT})")
    top.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0))
    top.xaxis.set_major_formatter(mdates.ConciseDateFormatter(top.xaxis.get_major_locator()))
    x = np.arange(len(names))
    bottom.bar(x - 0.2, error_prior[order], 0.4, color=PRIOR, label=f"prior, mean {error_prior.mean():.3f}")
    bottom.bar(x + 0.2, error_estimated[order], 0.4, color=ESTIMATE,
               label=f"estimated, mean {error_estimated.mean():.3f}")  # fmt: skip
    bottom.set_xticks(x, _broken([names[i] for i in order]), rotation=90, fontsize=5.5, linespacing=1.0)
    bottom.set_xlim(-1, len(names))
    bottom.set_ylabel("absolute error / range\n(left: most improved)")
    bottom.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0))
    return figure


@styled
def parameter_bars(
    names: Sequence[str], true: np.ndarray, prior: np.ndarray, estimated: np.ndarray, low, high, title: str
) -> Figure:
    """Truth, prior and estimate inside each range (0-1), with 90 percent intervals; all (parameter,)."""
    figure = Figure(figsize=(PAGE, 2.9), layout="constrained")
    ax = figure.subplots()
    figure.suptitle(title, fontsize=7.5, x=0.01, ha="left")
    x = np.arange(len(names))
    ax.bar(x - 0.27, true, 0.27, color="0.4", label="true")
    ax.bar(x, prior, 0.27, color=PRIOR, label="prior")
    error = None
    if low is not None:
        error = np.vstack([np.maximum(estimated - low, 0), np.maximum(high - estimated, 0)])
    ax.bar(x + 0.27, estimated, 0.27, color=ESTIMATE, yerr=error, ecolor="0.2", error_kw={"lw": 0.7},
           label="estimated" + ("" if low is None else ", 90 % interval"))  # fmt: skip
    ax.set_xticks(x, _broken(names), rotation=90, fontsize=5.5, linespacing=1.0)
    ax.set_xlim(-1, len(names))
    ax.set_ylim(0, 1.05)
    ax.set_ylabel("position in its range (0-1)")
    ax.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0))
    return figure


@styled
def parameter_traces(
    names: Sequence[str], iterations: np.ndarray, traces: np.ndarray, true: np.ndarray, units: Sequence[str]
) -> Figure:
    """Parameters along the iterations: iterations (step,), traces (step, parameter) and true (parameter,) physical."""
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(PAGE * columns / 3, 1.7 * rows + 0.2), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for k, ax in enumerate(axes):
        if k >= len(names):
            ax.set_visible(False)
            continue
        ax.plot(iterations, traces[:, k], "-", marker=".", ms=3, color=ESTIMATE, label="best so far")
        ax.axhline(true[k], color=TRUTH, lw=0.8, ls="--", label="true")
        ax.set_title(_broken(names)[k])
        ax.set_xlabel("iteration")
        ax.set_ylabel(units[k])
        if k == 0:
            ax.legend()
    return figure


@styled
def normalised_scatter(
    names: Sequence[str], true: np.ndarray, estimated: np.ndarray, prior: np.ndarray | None, title: str
) -> Figure:
    """True against estimated (and prior) positions in the ranges (0-1), (parameter,) each."""
    figure = Figure(figsize=(PAGE * 0.7, PAGE * 0.68), layout="constrained")
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color=BLACK, lw=0.8)
    if prior is not None:
        ax.plot(true, prior, "s", mfc="none", color=PRIOR, ms=5, label="prior")
        for t, p, e in zip(true, prior, estimated, strict=True):
            ax.plot([t, t], [p, e], color="0.85", lw=0.8, zorder=0)
    ax.plot(true, estimated, "o", color=ESTIMATE, ms=5, label="estimated")
    for name, t, e in zip(names, true, estimated, strict=True):
        ax.annotate(name, (t, e), xytext=(4, 3), textcoords="offset points", fontsize=6, color="0.3")
    ax.set_xlabel("true, position in its range (0-1)")
    ax.set_ylabel("estimated, position in its range (0-1)")
    ax.set_xlim(-0.03, 1.03)
    low, high = min(0.0, estimated.min()), max(1.0, estimated.max())
    ax.set_ylim(low - 0.03, high + 0.03)
    ax.legend(loc="upper left")
    ax.set_title(title, loc="left")
    return figure


# --- of a study ------------------------------------------------------------------------------------------------------


def write_study_figures(directory: Path, summary: dict, results: Sequence[dict], names: Sequence[str]) -> None:
    """The figures recovery_coverage, recovery_skill, recovery_ranks, recovery_z and recovery_annual_nep."""
    figures = {
        "coverage": coverage_figure(summary, names), "skill": skill_figure(summary, names),
        "ranks": rank_figure(summary, names),
        "z": z_figure(np.array([item["z"] for item in results]), written(summary, names)),
        "annual_nep": annual_figure(results, summary),
    }  # fmt: skip
    for name, figure in figures.items():
        save_figure(figure, directory / f"recovery_{name}")


def _headline(summary: dict) -> str:
    return (
        f"{summary['cases']} cases of {summary['span_days']} days, targets {', '.join(summary['targets'])}, "
        f"noise {summary['noise']} Mg C ha-1 day-1"
    )


@styled
def coverage_figure(summary: dict, names: Sequence[str]) -> Figure:
    """Coverage of the 90 percent intervals by parameter, each with its own 95 percent interval."""
    figure = Figure(figsize=(COLUMN + 1.7, max(2.1, 1.3 + 0.14 * len(names))), layout="constrained")
    ax = figure.subplots()
    y = name_rows(ax, written(summary, names))
    keys = ("coverage_90", "coverage_low_95", "coverage_high_95")
    values, low, high = np.array([[summary["parameters"][name][key] for key in keys] for name in names]).T
    outside = (high < NOMINAL) | (low > NOMINAL)
    ax.axvline(NOMINAL, color=BLACK, lw=0.8)
    for here, color, marker, label in (
        (~outside, ESTIMATE, "o", "coverage, 95 % interval"), (outside, ALERT, "D", "interval excludes 0.90"),
    ):  # fmt: skip
        if here.any():
            ax.hlines(y[here], low[here], high[here], color=color, lw=1)
            ax.plot(values[here], y[here], marker, color=color, ms=3.5, label=label)
    ax.set_xlim(min(0.7, low.min() - 0.02), 1.01)
    ax.set_xlabel("share of true values inside their 90 % interval")
    chance = f"{outside.sum()} of {len(names)} exclude 0.90, chance alone: {summary['outside_by_chance']:.1f}"
    ax.set_title(f"{_headline(summary)}\nmean coverage {summary['coverage_90']:.3f}; {chance}", fontsize=7, loc="left")
    figure.legend(ncols=2, loc="outside lower right")
    return figure


@styled
def skill_figure(summary: dict, names: Sequence[str]) -> Figure:
    """Skill and posterior/prior sd by parameter."""
    figure = Figure(figsize=(PAGE, max(1.9, 1.1 + 0.14 * len(names))), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    y = name_rows(left, written(summary, names))
    skill = np.array([summary["parameters"][name]["skill"] for name in names])
    ratio = np.array([summary["parameters"][name]["sd_ratio"] for name in names])
    left.barh(y, skill, color=np.where(skill >= 0.35, ESTIMATE, QUIET))
    left.axvline(0, color=BLACK, lw=0.8)
    left.set_xlabel("skill, 1 - RMSE / prior's RMSE")
    right.barh(y, ratio, color=np.where(ratio < INFORMED, ESTIMATE, QUIET))
    right.axvline(INFORMED, color=BLACK, lw=0.8, ls="--")
    right.set_xlabel(f"median posterior sd / prior sd (< {INFORMED}: informed)")
    figure.suptitle(_headline(summary), x=0.01, ha="left")
    return figure


@styled
def rank_figure(summary: dict, names: Sequence[str]) -> Figure:
    """Rank histograms of every parameter; red where a flat histogram is rejected."""
    columns = 6
    rows, labels = -(-len(names) // columns), _broken(written(summary, names))
    figure = Figure(figsize=(PAGE, 1.0 * rows + 0.6), layout="constrained")
    axes = np.ravel(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False))
    expected = summary["cases"] / RANK_BINS
    spread = 2.58 * np.sqrt(expected * (1 - 1 / RANK_BINS))
    for k, ax in enumerate(axes):
        if k >= len(names):
            ax.set_visible(False)
            continue
        item = summary["parameters"][names[k]]
        ax.axhspan(max(expected - spread, 0), expected + spread, color="0.9")
        ax.bar(np.arange(RANK_BINS), item["rank_histogram"], width=0.9,
               color=ALERT if item["rank_rejected"] else ESTIMATE)  # fmt: skip
        ax.set_title(labels[k], fontsize=6.5)
        ax.set_xticks([])
    figure.suptitle(f"rank of the truth among posterior samples; {_headline(summary)}", x=0.01, ha="left")
    figure.supxlabel("rank, low to high")
    figure.supylabel("cases")
    return figure


@styled
def z_figure(z: np.ndarray, names: Sequence[str]) -> Figure:
    """z-scores (truth - posterior mean) / posterior sd in latent space, z (case, parameter)."""
    figure = Figure(figsize=(COLUMN + 1.2, max(1.9, 1.1 + 0.14 * len(names))), layout="constrained")
    ax = figure.subplots()
    y = name_rows(ax, names)
    low, q1, middle, q3, high = np.quantile(z, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    ax.axvspan(-1.645, 1.645, color="0.93", label="5 to 95 % if calibrated")
    ax.hlines(y, low, high, color=ESTIMATE, lw=1, label="5 to 95 % of cases")
    ax.hlines(y, q1, q3, color=ESTIMATE, lw=4, alpha=0.5, label="25 to 75 %")
    ax.plot(middle, y, "o", color=ESTIMATE, ms=3)
    ax.axvline(0, color=BLACK, lw=0.8)
    ax.set_xlabel("(truth - posterior mean) / posterior sd")
    figure.legend(ncols=3, loc="outside upper right")
    return figure


@styled
def annual_figure(results: Sequence[dict], summary: dict) -> Figure:
    """True annual NEP against its posterior mean and 90 percent band."""
    figure = Figure(figsize=(COLUMN, COLUMN), layout="constrained")
    ax = figure.subplots()
    values = np.array([[item["annual_nep"][k] for k in ("true", "mean", "low_90", "high_90")] for item in results])
    inside = (values[:, 0] >= values[:, 2]) & (values[:, 0] <= values[:, 3])
    for good, color, label in ((True, ESTIMATE, "inside"), (False, ALERT, "outside")):
        here = inside == good
        error = np.abs(values[here, 2:].T - values[here, 1])
        ax.errorbar(values[here, 0], values[here, 1], error, fmt="o", ms=3, lw=0.8, color=color, label=label)
    span = [values[:, 0].min(), values[:, 0].max()]
    ax.plot(span, span, color=BLACK, lw=0.8)
    ax.set_xlabel("true annual NEP (Mg C ha-1 year-1)")
    ax.set_ylabel("estimated, 90 % band (Mg C ha-1 year-1)")
    ax.set_title(f"{_headline(summary)}\ncoverage {summary['annual_nep_coverage_90']:.3f}", loc="left")
    ax.legend()
    return figure
