"""Statistics of a recovery study: coverage, skill, z-scores and rank histograms by parameter."""

from collections.abc import Mapping, Sequence

import numpy as np

from calibration.inversion.inputs import TOO_NARROW
from calibration.inversion.posterior import INFORMED

RANK_BINS = 10
NOMINAL = 0.9  # coverage that intervals are made for
Z_95 = 1.959964  # normal quantile of a two-sided 95 percent interval
STUDY_WITHOUT_NOISE = f"{TOO_NARROW}, or give a tower's noise with --noise, such as 0.005, for those of a tower."


def sampler_note(results: Sequence[dict]) -> list[str]:
    """In how many cases chains or particles did not converge (posterior: mcmc, tempered); none for draws.

    >>> sampler_note([{"converged": True}, {"converged": False}, {"converged": None}, {}])
    ['in 1 of 2 cases the sampler did not converge; such cases count like the others']
    """
    told = [item["converged"] for item in results if item.get("converged") is not None]
    if not told:
        return []
    bad = told.count(False)
    return [f"in {bad} of {len(told)} cases the sampler did not converge; such cases count like the others"]


def study_summary(
    results: Sequence[dict], names: Sequence[str], settings: dict, shown: Mapping[str, str] | None = None
) -> dict:
    """Content of recovery_study.json from the case results.

    range_error_*: mean over cases and parameters of |estimate - truth| / range; skill: 1 - RMSE / sd of the prior, by
    parameter; coverage_90: share of truths inside their 90 percent interval, by parameter with its sampling error, see
    wilson_interval(); rank_p: chi-square test of a flat rank histogram (simulation-based calibration, Talts et al.
    2018), rejected at 1 percent after Bonferroni correction. shown: parameters that reports write otherwise
    (Emulator.shown); every parameter then has a `label`.
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
    coverage = inside.mean(axis=0)
    low, high = wilson_interval(inside.sum(axis=0), cases)
    rarely, often = high < NOMINAL, low > NOMINAL
    labels = [{"label": shown.get(name, name)} if shown else {} for name in names]
    parameters = {
        name: labels[i] | {
            "coverage_90": coverage[i], "coverage_low_95": low[i], "coverage_high_95": high[i],
            "skill": skill[i], "range_error_prior": error_prior[:, i].mean(),
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
        "covered_too_rarely": [n for n, here in zip(names, rarely, strict=True) if here],
        "covered_too_often": [n for n, here in zip(names, often, strict=True) if here],
        "outside_by_chance": outside_by_chance(len(names), cases),
        "notes": sampler_note(results) + ([] if supposed_noise(settings) else [STUDY_WITHOUT_NOISE]),
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


def wilson_interval(hits: np.ndarray, cases: int) -> tuple[np.ndarray, np.ndarray]:
    """95 percent score interval of a share, low and high (n,), from hits (n,) among independent `cases`.

    Wilson (1927), J. Am. Stat. Assoc. 22, 209; chosen over the normal and the exact interval for its coverage by Brown,
    Cai and DasGupta (2001), Statistical Science 16, 101.

    >>> low, high = wilson_interval(np.array([0, 83, 100]), 100)
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([0.0, 0.745, 0.963], [0.037, 0.891, 1.0])
    """
    share, z2 = np.asarray(hits) / cases, Z_95**2 / cases
    middle = (share + z2 / 2) / (1 + z2)
    half = np.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def supposed_noise(settings: dict) -> float | None:
    """Sd of a study's noise, or what its inversions were told to suppose (0 or None: no noise), Mg C ha-1 day-1."""
    if settings["noise"] > 0 or settings.get("noise_known", True):
        return settings["noise"]
    return settings["config"]["error_model"]["observation_sd"]


def outside_by_chance(parameters: int, cases: int) -> float:
    """How many of `parameters` have an interval that excludes 0.90, on average, where all are covered just so often.

    Summed over the binomial distribution of hits: they are whole numbers, so that it is not 5 percent of them.

    >>> round(outside_by_chance(36, 100), 1)
    2.3
    """
    from scipy.stats import binom  # half a second's import for one number

    hits = np.arange(cases + 1)
    low, high = wilson_interval(hits, cases)
    return float(parameters * binom.pmf(hits, cases, NOMINAL)[(low > NOMINAL) | (high < NOMINAL)].sum())


def written(summary: dict, names: Sequence[str]) -> list[str]:
    """Names of a study's parameters as figures and texts show them: both labels where a label map is in force."""
    return [summary["parameters"][name].get("label", name) for name in names]


def coverage_sentence(summary: dict) -> str:
    """Which parameters are covered too rarely or too often, and how many chance alone would name."""

    def named(key: str) -> str:
        """The parameters of a list, with coverage and its interval."""
        values = [summary["parameters"][name] for name in summary[key]]
        return ", ".join(
            f"{text} {v['coverage_90']:.2f} ({v['coverage_low_95']:.3f} to {v['coverage_high_95']:.3f})"
            for text, v in zip(written(summary, summary[key]), values, strict=True)
        ) or "none"  # fmt: skip

    return (
        f"covered too rarely: {named('covered_too_rarely')}; too often: {named('covered_too_often')} (95 percent "
        f"interval of the coverage excludes {NOMINAL:.2f}; chance alone would leave {summary['outside_by_chance']:.1f} "
        f"of {len(summary['parameters'])} parameters outside)"
    )


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
