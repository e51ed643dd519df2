"""Figures of an inversion: functions that take arrays and return a matplotlib Figure. Fluxes in Mg C ha-1 day-1."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibration.common.figure_style import (
    ALERT,
    BLACK,
    COLUMN,
    ESTIMATE,
    OBSERVED,
    PAGE,
    PRIOR,
    PURPLE,
    QUIET,
    SIMULATOR,
    TRUTH,
    styled,
)
from calibration.common.units import FLUX_UNIT
from calibration.inversion.config import target_label
from calibration.inversion.data import DAY
from calibration.inversion.posterior import INFORMED
from calibration.judgement.judge import Judged

BASELINES = {"constant": (ALERT, ":"), "climatology": (PURPLE, "-.")}  # color and dash of each
PAIRS_SHOWN = 12  # parameters in the correlation matrix: the most informed ones
MONTHS = "JFMAMJJASOND"
QUANTILES = ("q05", "q25", "q50", "q75", "q95")


def name_rows(ax: Axes, names: Sequence[str], order: Sequence[int] | None = None, fontsize: float = 6) -> np.ndarray:
    """Give `ax` a row for each name, the first (of `order`, indices into names) on top; returns heights (name,)."""
    y = np.empty(len(names))
    y[np.arange(len(names)) if order is None else np.asarray(order)] = np.arange(len(names))[::-1]
    ax.set_yticks(y, names, fontsize=fontsize)
    ax.set_ylim(-1, len(names))
    return y


def _with_gaps(dates: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Insert NaN where days are missing, so that lines break there."""
    breaks = np.flatnonzero(np.diff(dates) > DAY) + 1
    return np.insert(dates, breaks, dates[breaks - 1]), np.insert(values.astype(float), breaks, np.nan)


def _title(figure: Figure, text: str) -> None:
    """A sentence over the figure, wrapped to its width."""
    figure.suptitle(textwrap.fill(text, int(15 * figure.get_figwidth())), fontsize=7.5, x=0.01, ha="left")


def _date_axis(axes: Axes) -> None:
    locator = mdates.AutoDateLocator(minticks=4, maxticks=10)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))


def _shade_held_out(axes: Axes, dates: np.ndarray, held: np.ndarray) -> None:
    """Grey behind the days from the first to the last of every block of held-out days; a block bridges a month."""
    days = dates[held]
    if not len(days):
        return
    breaks = np.flatnonzero(np.diff(days) > 31 * DAY) + 1
    for k, block in enumerate(np.split(days, breaks)):
        axes.axvspan(block[0], block[-1], color="0.93", lw=0, zorder=-5, label="held out" if k == 0 else None)


@styled
def nep_comparison(
    item: Judged,
    verdict: str,
    simulator: np.ndarray | None = None,
    baselines: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """Daily series, running mean, scatter and residuals of one flux; simulator: (day,) the process model's run of it;
    baselines: name -> (day,).

    The bands are 90 percent of the true flux given the data, and the same with observation error, where 90 percent of
    the observations are expected. Held-out days are shaded.
    """
    order = np.argsort(item.dates, kind="stable")
    dates, observed, valid, fitted, prior, optimized = (
        x[order] for x in (item.dates, item.observed, item.valid, item.fitted, item.prior, item.optimized)
    )
    label, estimate = target_label(item.target), item.estimate
    figure = Figure(figsize=(PAGE, 6.4), layout="constrained")
    axes = figure.subplot_mosaic([["daily", "daily"], ["mean", "mean"], ["scatter", "residual"]])
    _title(figure, verdict)

    ax = axes["daily"]
    bands = (item.observed_band, 0.15, "90 % of observations"), (item.band, 0.4, f"90 % of the true {label}")
    for limits, alpha, name in bands:
        if limits is not None:
            x, low = _with_gaps(dates, limits[0][order])
            high = _with_gaps(dates, limits[1][order])[1]
            ax.fill_between(x, low, high, color=ESTIMATE, alpha=alpha, lw=0, label=name)
    ax.plot(dates[valid & fitted], observed[valid & fitted], ".", color=OBSERVED, ms=3,
            label="observed" if item.given else "observed, fitted")  # fmt: skip
    if (valid & ~fitted).any():
        ax.plot(dates[valid & ~fitted], observed[valid & ~fitted], "+", color=BLACK, ms=3, mew=0.6,
                label="observed, held out")  # fmt: skip
    ax.plot(*_with_gaps(dates, prior), color=PRIOR, lw=0.8, label="prior")
    ax.plot(*_with_gaps(dates, optimized), color=ESTIMATE, lw=1, label=estimate)
    if simulator is not None:
        ax.plot(*_with_gaps(dates, simulator[order]), color=SIMULATOR, lw=0.8, ls="--", label="process model")
    ax.set_ylabel(f"{label}\n({FLUX_UNIT})")
    ax.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1.0))

    ax, days = axes["mean"], 15 if len(dates) > 60 else 5
    smooth = {"observed": (np.where(valid, observed, np.nan), OBSERVED, "-"), "prior": (prior, PRIOR, "-"),
              estimate: (optimized, ESTIMATE, "-")}  # fmt: skip
    if simulator is not None:
        smooth["process model"] = (simulator[order], SIMULATOR, "--")
    for name, values in (baselines or {}).items():
        smooth[f"baseline: {name}"] = (values[order], *BASELINES.get(name, (QUIET, ":")))
    for name, (values, color, dash) in smooth.items():
        series = pd.Series(values, index=pd.DatetimeIndex(dates))
        mean = series.rolling(f"{days}D", center=True, min_periods=max(1, days // 3)).mean()
        ax.plot(*_with_gaps(dates, mean.to_numpy()), color=color, ls=dash, label=name)
    ax.axhline(0, color="0.8", lw=0.6, zorder=0)
    ax.set_ylabel(f"{days}-day mean {label}\n({FLUX_UNIT})")
    for ax in (axes["daily"], axes["mean"]):
        _shade_held_out(ax, dates, valid & ~fitted)
        _date_axis(ax)
    axes["mean"].legend(ncols=5, loc="lower left", bbox_to_anchor=(0, 1.0))

    ax = axes["scatter"]
    ax.plot(observed[valid], prior[valid], "x", color=PRIOR, ms=2.5, mew=0.5, alpha=0.6, label="prior")
    ax.plot(observed[valid], optimized[valid], ".", color=ESTIMATE, ms=2.5, alpha=0.6, label=estimate)
    if valid.any():
        span = [np.nanmin(observed[valid]), np.nanmax(observed[valid])]
        ax.plot(span, span, color=BLACK, lw=0.6, label="1:1")
    ax.set_xlabel(f"observed {label} ({FLUX_UNIT})")
    ax.set_ylabel(f"modelled {label}\n({FLUX_UNIT})")
    ax.legend()

    ax = axes["residual"]
    residuals = {"prior": ((prior - observed)[valid], PRIOR, "--"),
                 estimate: ((optimized - observed)[valid], ESTIMATE, "-")}  # fmt: skip
    both = np.concatenate([values for values, _, _ in residuals.values()])
    edges = np.histogram_bin_edges(both[np.isfinite(both)], bins=int(np.clip(valid.sum() // 4, 10, 60)))
    for name, (values, color, dash) in residuals.items():
        ax.hist(values, bins=edges, histtype="step", color=color, ls=dash, label=name)
    ax.axvline(0, color=BLACK, lw=0.6)
    ax.set_xlabel(f"modelled - observed {label} ({FLUX_UNIT})")
    ax.set_ylabel("days")
    ax.legend()
    return figure


@styled
def residuals_by_month(table: pd.DataFrame, label: str, estimate: str = "estimate") -> Figure:
    """Residuals by calendar month: median, quartiles, 5 and 95 percent; and the mean with two standard errors.

    table: of residual_months(), one row a month of the year and set of days (fitted or judged, held out); estimate:
    what is compared with the observations.
    """
    figure = Figure(figsize=(PAGE, 2.6), layout="constrained")
    axes = figure.subplots()
    sets = list(dict.fromkeys(table["set"]))
    for k, name in enumerate(sets):
        part = table[table["set"] == name]
        x = part["month"] + 0.3 * (k - (len(sets) - 1) / 2)
        color, marker = ((ESTIMATE, "o"), (BLACK, "s"))[min(k, 1)]
        axes.vlines(x, part["q05"], part["q95"], color=color, lw=0.7)
        axes.vlines(x, part["q25"], part["q75"], color=color, lw=4, alpha=0.35)
        axes.errorbar(x, part["mean"], 2 * part["standard_error"], fmt=marker, ms=3, color=color, lw=1, capsize=2,
                      label=f"{name}: mean and two standard errors")  # fmt: skip
    axes.axhline(0, color=BLACK, lw=0.6)
    axes.set_xticks(range(1, 13), MONTHS)
    axes.set_xlim(0.4, 12.6)
    axes.set_xlabel("month; bars: quartiles, thin lines: 90 percent of the days")
    axes.set_ylabel(f"{estimate} - observed {label}\n({FLUX_UNIT})")
    axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0))
    return figure


def residual_months(dates: np.ndarray, residual: np.ndarray, fitted: np.ndarray, name: str = "fitted") -> pd.DataFrame:
    """The numbers behind residuals_by_month(): set, month (1-12), days, mean, standard_error, q05, q25, q50, q75, q95.

    dates (day,), residual (day,) estimate - observed in Mg C ha-1 day-1, fitted (day,) bool; observed days only.
    name: what the days that are not held out are called.
    """
    month = dates.astype("datetime64[M]").astype(int) % 12 + 1
    rows = []
    for days, here in ((name, fitted), ("held out", ~fitted)):
        for m in np.unique(month[here]):
            values = residual[here & (month == m)]
            error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
            quantiles = dict(zip(QUANTILES, np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]), strict=True))
            rows.append({"set": days, "month": int(m), "days": len(values), "mean": values.mean(),
                         "standard_error": error, **quantiles})  # fmt: skip
    return pd.DataFrame(rows)


@styled
def loss_history(history: Sequence[dict], ylabel: str, note: str = "") -> Figure:
    """Cost of every start by iteration and the best so far; history: entries with iteration, cost, costs (start,)."""
    figure = Figure(figsize=(COLUMN, 3.1), layout="constrained")
    ax = figure.subplots()
    iterations = [entry["iteration"] for entry in history]
    width = max(len(entry["costs"]) for entry in history)
    if 1 < width <= 64:
        for k in range(width):
            costs = [entry["costs"][k] if k < len(entry["costs"]) else np.nan for entry in history]
            ax.plot(iterations, costs, color=QUIET, lw=0.7, label="starts" if k == 0 else None)
    ax.plot(iterations, [entry["cost"] for entry in history], color=ESTIMATE, lw=1.5, marker=".", label="best")
    values = np.array([c for entry in history for c in entry["costs"]] + [entry["cost"] for entry in history])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > 20 * values.min():
        ax.set_yscale("log")
    ax.set_xlabel("iteration")
    ax.set_ylabel(ylabel)
    ax.legend()
    _title(figure, note)
    return figure


@styled
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
    sd_ratio: np.ndarray | None = None,
    in_range: bool = True,
    estimate: str = "estimate",
) -> Figure:
    """From prior to posterior: every parameter in units of its range, the one that gained most information on top.

    All (parameter,): low, high: 90 percent interval or None; informed: names drawn in bold and colour; truth or None;
    sd_ratio: posterior over prior sd, which orders the rows (None: as given). in_range: positions are 0 to 1, so the
    prior's own interval is drawn behind. estimate: what `optimized` is called.
    """
    given = np.arange(len(names)) if sd_ratio is None else np.nan_to_num(sd_ratio, nan=np.inf)
    order = np.argsort(given, kind="stable")
    figure = Figure(figsize=(COLUMN + 0.6, max(1.9, 1.1 + 0.14 * len(names))), layout="constrained")
    ax = figure.subplots()
    y = name_rows(ax, names, order)
    color = np.where([name in informed for name in names], ESTIMATE, "0.5")
    if in_range:
        ax.hlines(y, 0.05, 0.95, color=PRIOR, lw=0.6, alpha=0.6, label="prior, 90 %")
    if low is not None:
        ax.hlines(y, low, high, color=color, lw=3.2, alpha=0.45, label="posterior, 90 %")
    ax.plot(prior, y, "|", color=PRIOR, ms=7, mew=1.4, label="prior mean")
    ax.scatter(optimized, y, s=9, color=color, zorder=3, label=estimate)
    if truth is not None:
        ax.plot(truth, y, "x", color=TRUTH, ms=4, mew=0.9, label="true")
    for tick, name in zip(ax.get_yticklabels(), names, strict=True):
        tick.set_fontweight("bold" if name in informed else "normal")
    if sd_ratio is not None:
        right = ax.secondary_yaxis("right")
        right.set_yticks(y, ["" if np.isnan(r) else f"{r:.2f}" for r in sd_ratio], fontsize=6)
        right.spines["right"].set_visible(False)
        right.tick_params(length=0)
        right.set_ylabel("posterior sd / prior sd", fontsize=6.5)
    ax.grid(axis="x")
    ax.set_xlabel(xlabel)
    ax.legend(ncols=3, loc="lower left", bbox_to_anchor=(-0.3, 1.0), fontsize=6.5)
    _title(figure, note)
    return figure


@styled
def identifiability_figure(
    names: Sequence[str], sd_ratio: np.ndarray, correlation: np.ndarray, eigenvalues: np.ndarray
) -> Figure:
    """Posterior over prior sd (parameter,), correlation (parameter, parameter) of the most informed, eigenvalues
    (size,); parameters in the order of the information gained.
    """
    order = np.argsort(sd_ratio, kind="stable")
    sorted_names = [names[i] for i in order]
    figure = Figure(figsize=(PAGE, 1.2 + 0.12 * max(len(names), 22)), layout="constrained")
    axes = figure.subplot_mosaic(
        [["bars", "matrix"], ["bars", "spectrum"]], width_ratios=[1, 1.3], height_ratios=[2, 1]
    )
    bars, matrix, spectrum = axes["bars"], axes["matrix"], axes["spectrum"]
    y = name_rows(bars, sorted_names)
    bars.barh(y, sd_ratio[order], color=np.where(sd_ratio[order] < INFORMED, ESTIMATE, QUIET))
    bars.axvline(INFORMED, color=BLACK, lw=0.7, ls="--")
    bars.set_xlabel(f"posterior sd / prior sd\n(1: the data say nothing; below {INFORMED:g}: informed)")
    few = order[:PAIRS_SHOWN]
    image = matrix.imshow(correlation[np.ix_(few, few)], vmin=-1, vmax=1, cmap="PuOr_r")
    matrix.set_xticks(range(len(few)), sorted_names[: len(few)], rotation=90, fontsize=6)
    matrix.set_yticks(range(len(few)), sorted_names[: len(few)], fontsize=6)
    matrix.set_title(f"posterior correlation of the {len(few)} most informed")
    figure.colorbar(image, ax=matrix, shrink=0.8)
    spectrum.semilogy(np.arange(1, len(eigenvalues) + 1), np.maximum(eigenvalues, 1e-6), "o-", ms=2.5, color=ESTIMATE)
    spectrum.axhline(1, color=BLACK, lw=0.7, ls="--")
    spectrum.set_xlabel("direction in parameter space (above the dashed line: fixed by the data)")
    spectrum.set_ylabel("information of the\ndata / of the prior")
    return figure


@styled
def conflict_figure(table: pd.DataFrame, sentence: str, label: str) -> Figure:
    """Observed monthly means against the prior-predictive band; table of judgement/fit.py prior_conflict."""
    figure = Figure(figsize=(PAGE, 3.8), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    _title(figure, sentence)
    x = np.arange(len(table))
    # a box a month: a line from month to month shows nothing of a single one, and half of the first and the last
    top.bar(x, table["prior_high"] - table["prior_low"], 1.0, bottom=table["prior_low"], color=PRIOR, alpha=0.3, lw=0,
            label="95 % of the prior's draws of the month's mean")  # fmt: skip
    top.use_sticky_edges = False  # room below the boxes
    top.hlines(table["prior_mean"], x - 0.5, x + 0.5, color=PRIOR, label="prior mean")
    top.plot(x, table["observed_mean"], "o", ms=3, color=OBSERVED, label="observed mean")
    top.set_ylabel(f"{label}\n({FLUX_UNIT})")
    top.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0))
    bottom.bar(x, 100 * table["share_outside"], color=np.where(table["conflict"], ALERT, QUIET))
    bottom.set_xlim(-0.6, len(table) - 0.4)
    bottom.axhline(5, color=BLACK, lw=0.7, ls="--")
    bottom.set_ylabel("days outside\n(percent)")
    step = max(1, len(table) // 24)
    bottom.set_xticks(x[::step], table["month"][::step], rotation=90, fontsize=6)
    return figure
