"""Statistics of a recovery study: coverage, skill, z-scores and rank histograms by parameter."""

from collections.abc import Sequence

import numpy as np

from calibration.inversion.posterior import INFORMED

RANK_BINS = 10


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
    from scipy.stats import chisquare  # half a second's import for one number

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
