"""Statistics and figures of a recovery study: coverage, skill, z-scores and rank histograms by parameter."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import chisquare

from calibration.common.command_line import writing

RANK_BINS = 10
INFORMED = 0.7


def study_summary(results: Sequence[dict], names: Sequence[str], settings: dict) -> dict:
    """Content of recovery_study.json from the case results.

    range_error_*: mean over cases and parameters of |estimate - truth| / range; skill: 1 - RMSE / sd of the prior, by
    parameter; coverage_90: share of truths inside their 90 percent interval; rank_p: chi-square test of a flat rank
    histogram (simulation-based calibration, Talts et al. 2018), rejected at 1 percent after Bonferroni correction.
    """

    def stack(key: str) -> np.ndarray:
        """(case, parameter) of a key of the case results."""
        return np.array([item[key] for item in results], dtype=float)

    true, estimated, prior = stack("true"), stack("estimated"), stack("prior")
    inside, z, ranks, ratio = stack("inside_90"), stack("z"), stack("rank"), stack("sd_ratio")
    error, error_prior, error_mode = (
        stack("range_error_estimated"),
        stack("range_error_prior"),
        stack("range_error_mode"),
    )
    annual = np.array([[item["annual_nep"][k] for k in ("true", "mean", "low_90", "high_90")] for item in results])
    annual_inside = (annual[:, 0] >= annual[:, 2]) & (annual[:, 0] <= annual[:, 3])
    rmse_prior = np.sqrt(np.mean((prior - true) ** 2, axis=0))
    skill = 1 - np.sqrt(np.mean((estimated - true) ** 2, axis=0)) / rmse_prior
    cases = len(results)
    p_values = np.array([rank_test(ranks[:, i]) for i in range(len(names))])
    difference = error - error_prior
    standard_error = difference.std(axis=0, ddof=1) / np.sqrt(cases) if cases > 1 else np.full(len(names), np.nan)
    worse = difference.mean(axis=0) > 2.6 * standard_error  # one-sided 0.5 percent
    parameters = {
        name: {
            "coverage_90": inside[:, i].mean(), "skill": skill[i], "range_error_prior": error_prior[:, i].mean(),
            "range_error_estimated": error[:, i].mean(), "range_error_mode": error_mode[:, i].mean(),
            "z_mean": z[:, i].mean(), "z_sd": z[:, i].std(), "sd_ratio": float(np.median(ratio[:, i])),
            "rank_p": p_values[i], "rank_rejected": bool(p_values[i] < 0.01 / len(names)),
            "worse_than_prior": bool(worse[i]), "rank_histogram": rank_counts(ranks[:, i]).tolist(),
        }
        for i, name in enumerate(names)
    }  # fmt: skip
    return _plain({
        "cases": cases, "span_days": settings["span_days"], "noise": settings["noise"],
        "coverage_90": inside.mean(), "range_error_prior": error_prior.mean(), "range_error_estimated": error.mean(),
        "annual_nep_coverage_90": annual_inside.mean(),
        "annual_nep_rmse": np.sqrt(np.mean((annual[:, 1] - annual[:, 0]) ** 2)),
        "annual_nep_width_90": np.mean(annual[:, 3] - annual[:, 2]), "annual_nep_sd_of_truths": annual[:, 0].std(),
        "informed_parameters": int(np.sum(np.median(ratio, axis=0) < INFORMED)),
        "informed_names": [n for n, r in zip(names, np.median(ratio, axis=0), strict=True) if r < INFORMED],
        "rank_rejected": [n for n in names if parameters[n]["rank_rejected"]],
        "worse_than_prior": [n for n in names if parameters[n]["worse_than_prior"]],
        "z_sd": z.std(), "directions": float(np.mean([item["directions"] for item in results])),
        "emulator_scale": float(np.median([item["emulator_scale"] for item in results])),
        "seconds_per_case": float(np.mean([item["seconds"] for item in results])),
        "targets": settings["targets"], "gaps": settings["gaps"], "settings": settings, "parameters": parameters,
    })  # fmt: skip


def rank_counts(ranks: np.ndarray) -> np.ndarray:
    """Histogram of ranks (case,) among 99 samples (0-99) in ten bins."""
    return np.histogram(ranks, bins=np.linspace(-0.5, 99.5, RANK_BINS + 1))[0]


def rank_test(ranks: np.ndarray) -> float:
    """p value of a chi-square test that the rank histogram is flat."""
    return float(chisquare(rank_counts(ranks)).pvalue)


def _plain(value):
    """NumPy numbers to JSON's; not-a-number to None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def write_study_figures(directory: Path, summary: dict, results: Sequence[dict], names: Sequence[str]) -> None:
    """recovery_coverage.png, recovery_skill.png, recovery_ranks.png, recovery_z.png, recovery_annual_nep.png."""
    figures = {
        "coverage": coverage_figure(summary, names), "skill": skill_figure(summary, names),
        "ranks": rank_figure(summary, names),
        "z": z_figure(np.array([item["z"] for item in results]), names),
        "annual_nep": annual_figure(results, summary),
    }  # fmt: skip
    for name, figure in figures.items():
        with writing(directory / f"recovery_{name}.png") as temporary:
            figure.savefig(temporary, dpi=120)


def _headline(summary: dict) -> str:
    return (
        f"{summary['cases']} cases of {summary['span_days']} days, targets {', '.join(summary['targets'])}, "
        f"noise {summary['noise']} Mg C ha-1 day-1"
    )


def coverage_figure(summary: dict, names: Sequence[str]) -> Figure:
    """Coverage of the 90 percent intervals by parameter, with the 99 percent range of sampling noise."""
    figure = Figure(figsize=(7, 1.5 + 0.21 * len(names)), layout="constrained")
    ax = figure.subplots()
    y = np.arange(len(names))[::-1]
    values = np.array([summary["parameters"][name]["coverage_90"] for name in names])
    noise = 2.58 * np.sqrt(0.9 * 0.1 / summary["cases"])
    ax.axvspan(0.9 - noise, min(0.9 + noise, 1.0), color="0.9", label="99 % of sampling noise around 0.90")
    ax.axvline(0.9, color="k", lw=0.8)
    ax.plot(values, y, "o", color="tab:blue", ms=4)
    ax.set_yticks(y, names, fontsize=8)
    ax.set_ylim(-1, len(names))
    ax.set_xlim(min(0.6, values.min() - 0.02), 1.01)
    ax.set_xlabel("share of truths inside the 90 % interval")
    ax.set_title(f"{_headline(summary)}\nmean coverage {summary['coverage_90']:.3f}", fontsize=9, loc="left")
    ax.legend(fontsize=8, frameon=False, loc="lower left")
    return figure


def skill_figure(summary: dict, names: Sequence[str]) -> Figure:
    """Skill and posterior/prior sd by parameter."""
    figure = Figure(figsize=(10, 1.5 + 0.21 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    y = np.arange(len(names))[::-1]
    skill = np.array([summary["parameters"][name]["skill"] for name in names])
    ratio = np.array([summary["parameters"][name]["sd_ratio"] for name in names])
    left.barh(y, skill, color=np.where(skill >= 0.35, "tab:blue", "0.7"))
    left.axvline(0, color="k", lw=0.8)
    left.set_xlabel("skill, 1 - RMSE / prior's RMSE")
    right.barh(y, ratio, color=np.where(ratio < INFORMED, "tab:blue", "0.7"))
    right.axvline(INFORMED, color="k", lw=0.8, ls="--")
    right.set_xlabel("median posterior sd / prior sd (< 0.7: informed)")
    left.set_yticks(y, names, fontsize=8)
    left.set_ylim(-1, len(names))
    figure.suptitle(_headline(summary), fontsize=9, x=0.01, ha="left")
    return figure


def rank_figure(summary: dict, names: Sequence[str]) -> Figure:
    """Rank histograms of every parameter; red where a flat histogram is rejected."""
    columns = 6
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(12, 1.4 * rows + 0.8), layout="constrained")
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
               color="tab:red" if item["rank_rejected"] else "tab:blue")  # fmt: skip
        ax.set_title(names[k], fontsize=8)
        ax.set_xticks([])
    figure.suptitle(f"rank of the truth among posterior samples; {_headline(summary)}", fontsize=9, x=0.01, ha="left")
    figure.supxlabel("rank, low to high", fontsize=9)
    figure.supylabel("cases", fontsize=9)
    return figure


def z_figure(z: np.ndarray, names: Sequence[str]) -> Figure:
    """z-scores (truth - posterior mean) / posterior sd in latent space, z (case, parameter)."""
    figure = Figure(figsize=(7, 1.5 + 0.21 * len(names)), layout="constrained")
    ax = figure.subplots()
    y = np.arange(len(names))[::-1]
    low, q1, middle, q3, high = np.quantile(z, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    ax.axvspan(-1.645, 1.645, color="0.93", label="5 to 95 % if calibrated")
    ax.hlines(y, low, high, color="tab:blue", lw=1, label="5 to 95 % of cases")
    ax.hlines(y, q1, q3, color="tab:blue", lw=4, alpha=0.5, label="25 to 75 %")
    ax.plot(middle, y, "o", color="tab:blue", ms=3)
    ax.axvline(0, color="k", lw=0.8)
    ax.set_yticks(y, names, fontsize=8)
    ax.set_ylim(-1, len(names))
    ax.set_xlabel("(truth - posterior mean) / posterior sd")
    ax.legend(fontsize=7, frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def annual_figure(results: Sequence[dict], summary: dict) -> Figure:
    """True annual NEP against its posterior mean and 90 percent band."""
    figure = Figure(figsize=(6, 5.5), layout="constrained")
    ax = figure.subplots()
    values = np.array([[item["annual_nep"][k] for k in ("true", "mean", "low_90", "high_90")] for item in results])
    inside = (values[:, 0] >= values[:, 2]) & (values[:, 0] <= values[:, 3])
    for good, color, label in ((True, "tab:blue", "inside"), (False, "tab:red", "outside")):
        here = inside == good
        error = np.abs(values[here, 2:].T - values[here, 1])
        ax.errorbar(values[here, 0], values[here, 1], error, fmt="o", ms=3, lw=0.8, color=color, label=label)
    span = [values[:, 0].min(), values[:, 0].max()]
    ax.plot(span, span, color="k", lw=0.8)
    ax.set_xlabel("true annual NEP (Mg C ha-1 year-1)")
    ax.set_ylabel("estimated, 90 % band (Mg C ha-1 year-1)")
    ax.set_title(f"{_headline(summary)}\ncoverage {summary['annual_nep_coverage_90']:.3f}", fontsize=9, loc="left")
    ax.legend(fontsize=8, frameon=False)
    return figure
