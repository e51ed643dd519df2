"""The tables and texts of an inversion: what test_inversion.py leaves in its result directory besides figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError, notice, read_json, write_json, writing
from calibration.common.parameters import ParameterSpace
from calibration.common.units import FLUX_UNIT
from calibration.inversion.config import target_label
from calibration.inversion.data import OBSERVABLE, Stretch
from calibration.inversion.posterior import identifiability
from calibration.judgement.fit import Conflict, residual_autocorrelation, skill_table
from inverse_estimator import InversionResult


@dataclass
class Judged:
    """One flux over the days of the stretches, (day,) each, Mg C ha-1 day-1, and how well it is described."""

    target: str
    dates: np.ndarray
    observed: np.ndarray
    valid: np.ndarray  # observed, fitted or held out
    fitted: np.ndarray
    prior: np.ndarray
    optimized: np.ndarray
    band: tuple[np.ndarray, np.ndarray] | None  # of the true flux, 90 percent
    observed_band: tuple[np.ndarray, np.ndarray] | None  # the same with observation error
    table: pd.DataFrame
    autocorrelation: dict[int, float]
    coverage: dict[str, float]  # share of observed days inside observed_band


def judge(
    target: str,
    fitted: Sequence[Stretch],
    holdout: Sequence[Stretch],
    prior: np.ndarray,
    optimized: np.ndarray,
    draws: np.ndarray | None = None,
    noise_sd: float | None = None,
    seed: int = 0,
) -> Judged:
    """Compare prior and optimized (day of all stretches,) with the observed days of `target`.

    `holdout`: the same stretches with the held-out days' mask (or empty). draws: (sample, day) of the true flux for
    the band; noise_sd: observation error that is added for the band of observations and its coverage.
    """
    column = OBSERVABLE.index(target)
    observed = np.concatenate([s.observed[:, column] for s in fitted])
    used = np.concatenate([s.mask[:, column] for s in fitted])
    held = np.concatenate([s.mask[:, column] for s in holdout]) if holdout else np.zeros_like(used)
    dates = np.concatenate([
        s.dates if s.dates is not None else np.datetime64("1970-01-01") + np.arange(s.days) for s in fitted
    ])  # fmt: skip
    valid = used | held
    table = skill_table(
        dates[valid], observed[valid], used[valid], {"prior": prior[valid], "optimized": optimized[valid]}
    )
    days = used if used.any() else valid
    lagged = residual_autocorrelation(dates[days], (optimized - observed)[days])
    band, observed_band, coverage = None, None, {}
    if draws is not None:
        band = tuple(np.quantile(draws, [0.05, 0.95], axis=0))
        if noise_sd is not None:
            low, high = np.quantile(with_observation_error(draws, noise_sd, seed, copies=5), [0.05, 0.95], axis=0)
            observed_band = (low, high)
            inside = (observed >= low) & (observed <= high)
            for name, here in (("fitted", used), ("holdout", held)):
                if here.any():
                    coverage[name] = float(inside[here].mean())
    return Judged(target, dates, observed, valid, used, prior, optimized, band, observed_band, table, lagged, coverage)


def with_observation_error(draws: np.ndarray, noise_sd: float, seed: int, copies: int = 1) -> np.ndarray:
    """Draws of what would be observed (copies * sample, day) from draws of the true flux (sample, day); one unit."""
    repeated = np.tile(draws, (copies, 1))
    return repeated + noise_sd * np.random.default_rng(seed).standard_normal(repeated.shape)


# --- files ------------------------------------------------------------------------------------------------------------


def parameter_values(names: Sequence[str], prior: np.ndarray, optimized: np.ndarray) -> pd.DataFrame:
    """param_name, prior, optimized, delta, delta_pct (percent of the prior; empty where the prior is 0)."""
    delta = optimized - prior
    with np.errstate(divide="ignore", invalid="ignore"):
        percent = np.where(prior != 0, 100 * delta / np.abs(prior), np.nan)
    return pd.DataFrame(
        {"param_name": list(names), "prior": prior, "optimized": optimized, "delta": delta, "delta_pct": percent}
    )


def posterior_table(result: InversionResult) -> pd.DataFrame:
    """Interval, mean, sd (physical units) and posterior/prior sd of every parameter; fixed ones have ratio NaN."""
    posterior = result.posterior
    low, high = posterior.interval(0.9)
    ratio = np.full(len(result.names), np.nan)
    ratio[posterior.free] = posterior.sd_ratio
    return pd.DataFrame({
        "param_name": list(result.names), "prior": result.prior, "optimized": result.optimized,
        "mean": posterior.physical.mean(axis=0), "sd": posterior.physical.std(axis=0), "low_90": low, "high_90": high,
        "sd_ratio": ratio, "informed": ratio < 0.7,
    })  # fmt: skip


def write_csv(path: Path, table: pd.DataFrame, index: bool = False) -> None:
    """Write a table as CSV, atomically."""
    with writing(path) as temporary:
        table.to_csv(temporary, index=index)


def series_table(judged: Judged, simulator: np.ndarray | None = None) -> pd.DataFrame:
    """The numbers behind nep_comparison.png: date, observed, valid, fitted, prior, optimized, bands, simulator."""
    table = pd.DataFrame({
        "date": judged.dates.astype("datetime64[D]").astype(str), "observed": judged.observed,
        "valid": judged.valid.astype(int), "fitted": judged.fitted.astype(int), "prior": judged.prior,
        "optimized": judged.optimized,
    })  # fmt: skip
    if judged.band is not None:
        table["low_90"], table["high_90"] = judged.band
    if judged.observed_band is not None:
        table["observed_low_90"], table["observed_high_90"] = judged.observed_band
    if simulator is not None:
        table["simulator"] = simulator
    return table


def save_snapshot(path: str | Path, names: Sequence[str], prior, optimized, metadata: dict[str, Any]) -> None:
    """params_snapshot.json: names, prior, optimized (physical units), metadata (method, offsets, windows, command)."""
    content = {"names": list(names), "prior": [float(v) for v in prior], "optimized": [float(v) for v in optimized],
               "metadata": metadata}  # fmt: skip
    write_json(path, content)


def load_snapshot(path: str | Path, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """prior, optimized (parameter,) in the order of `names`, metadata. UserError on unknown or missing parameters."""
    content = read_json(path)
    if isinstance(content, dict) and "names" not in content and isinstance(content.get("param_names"), list):
        notice(f"{path}: param_names, as earlier scripts wrote, are read as names ({len(content['param_names'])})")
        content = content | {"names": content["param_names"]}
    shaped = isinstance(content, dict) and isinstance(content.get("names"), list) and "optimized" in content
    if not shaped or not isinstance(content.get("metadata") or {}, dict):
        raise UserError(f"{path}: holds no 'names' and 'optimized'; give a params_snapshot.json of test_inversion.py")
    own = [str(name) for name in content["names"]]
    unknown, missing = [n for n in own if n not in names], [n for n in names if n not in own]
    if unknown or missing:
        what = f"unknown parameter '{unknown[0]}'" if unknown else f"no value for '{missing[0]}'"
        raise UserError(f"{path}: {what}; the emulator's parameters are {', '.join(names)}")
    order = [own.index(name) for name in names]
    vectors = []
    for key in ("prior", "optimized"):
        try:
            vector = np.asarray(content.get(key, content["optimized"]), dtype=np.float64)
            if vector.shape != (len(own),) or not np.isfinite(vector).all():
                raise ValueError
        except (TypeError, ValueError):
            raise UserError(f"{path}: '{key}' must hold {len(own)} finite numbers, one for each name") from None
        vectors.append(vector[order])
    return vectors[0], vectors[1], content.get("metadata") or {}


# --- the summary -----------------------------------------------------------------------------------------------------


def summary_text(
    verdict: str,
    facts: dict[str, Any],
    judged: Sequence[Judged],
    conflict: Conflict | None,
    result: InversionResult | None,
    distance: str,
) -> str:
    """inversion_summary.txt: the verdict first, then windows, skill, error model, what is identified, how it ended."""
    lines = [verdict, ""]
    lines += [f"{key}: {value}" for key, value in facts.items()]
    for item in judged:
        lines += ["", *_skill_lines(item)]
    if conflict is not None:
        lines += ["", "Prior against data, before fitting", f"  {conflict.sentence()}"]
        if conflict.months:
            lines.append(f"  months in conflict: {', '.join(conflict.months)}")
    if result is not None:
        lines += ["", *_fit_lines(result, distance)]
    elif distance:
        lines += ["", distance]
    return "\n".join(lines) + "\n"


def _skill_lines(item: Judged) -> list[str]:
    label = target_label(item.target)
    lines = []
    days = [name for name in ("fitted", "holdout") if (name, "prior") in item.table.index]
    for name in days:
        prior, optimized = item.table.loc[(name, "prior")], item.table.loc[(name, "optimized")]
        improvement = 100 * (1 - optimized.rmse / prior.rmse) if prior.rmse > 0 else float("nan")
        where = "" if name == "fitted" else ", held out"
        lines += [
            f"{label} valid observations{where}: {int(optimized.n)}",
            f"{label} RMSE prior{where}: {prior.rmse:.5f} {FLUX_UNIT}",
            f"{label} RMSE optimized{where}: {optimized.rmse:.5f} {FLUX_UNIT}",
            f"{label} improvement{where}: {improvement:.1f} percent",
            f"{label} R2 optimized{where} (against the observed mean): {optimized.r2:.3f}",
        ]
    lines += ["", f"  {label}, {FLUX_UNIT}    RMSE     bias      R2    corr   days"]
    for (name, model), row in item.table.iterrows():
        lines.append(
            f"  {name:8s}{model:12s} {row.rmse:8.5f} {row.bias:+8.5f} {row.r2:7.3f} {row.correlation:7.3f} "
            f"{int(row.n):6d}"
        )
    lags = ", ".join(f"{lag} d {value:.2f}" for lag, value in item.autocorrelation.items() if np.isfinite(value))
    if lags:
        lines.append(f"  autocorrelation of the residuals: {lags}")
    for name, share in item.coverage.items():
        lines.append(f"  {name} days inside the 90 percent predictive band: {100 * share:.0f} percent")
    return lines


def _fit_lines(result: InversionResult, distance: str) -> list[str]:
    lines = [f"Fit: {result.config.method}, {result.seconds:.1f} s, {result.problem.evaluations} emulator runs"]
    lines.append(f"  ended: {endings(result)}")
    if len(result.fit.start_costs) > 1:
        lines.append("  cost of every start: " + ", ".join(f"{cost:.2f}" for cost in np.sort(result.fit.start_costs)))
    lines += [f"  note: {note}" for note in result.notes]
    for target, value in result.offsets.items():
        lines.append(f"  constant offset of {target_label(target)}: {value:+.5f} {FLUX_UNIT}")
    bounds = result.at_bounds
    lines.append(f"  parameters at a bound: {', '.join(bounds) if bounds else 'none'}")
    if distance:
        lines.append(f"  {distance}")
    if result.problem.lambda_prior is None:
        for target, share in result.error_model.shares().items():
            lines += [
                f"Error model of {target_label(target)}: {share['observations']} observations count as "
                f"{share['effective_observations']:.0f} independent ones",
                "  " + ", ".join(
                    f"{part} sd {share[part + '_sd']:.5f} ({100 * share[part + '_share']:.0f} percent)"
                    for part in ("observation", "emulator", "discrepancy")
                ),
            ]  # fmt: skip
    if result.posterior is not None:
        lines += ["", *identifiability_lines(result)]
    else:
        lines += ["", "No posterior: the cost is no likelihood (lambda_prior is a number, or --unconstrained)."]
    return lines


def endings(result: InversionResult) -> str:
    """Why the starts ended, with how many of them each."""
    reasons = result.fit.reasons
    return ", ".join(
        f"{reason} ({reasons.count(reason)} of {len(reasons)} starts)" for reason in dict.fromkeys(reasons)
    )


def identifiability_lines(result: InversionResult) -> list[str]:
    """What this data set says about the parameters, in words."""
    found = identifiability(result.posterior)
    names, ratio = [result.names[i] for i in result.posterior.free], result.posterior.sd_ratio
    by_name = dict(zip(names, ratio, strict=True))
    lines = [f"What these data say about the {len(names)} free parameters ({result.posterior.method} posterior)"]
    informed = ", ".join(f"{n} ({by_name[n]:.2f})" for n in sorted(found["informed"], key=by_name.get))
    lines.append(f"  informed (posterior sd below 0.7 of the prior sd): {informed or 'none'}")
    pairs = "; ".join(f"{a} with {b} ({c:+.2f})" for a, b, c in found["combinations"][:8])
    lines.append(f"  only in combination (correlation): {pairs or 'none'}")
    lines.append(f"  not informed: {', '.join(found['uninformed']) or 'none'}")
    lines.append(f"  independent directions that the data fix better than the prior: {found['directions']}")
    return lines


def distance_sentence(space: ParameterSpace, training: np.ndarray, estimate: np.ndarray) -> str:
    """How far the estimate (parameter,) lies from the nearest training vector, beside what is usual among them."""
    unit = space.physical_to_unit(training)
    here = space.physical_to_unit(estimate)
    nearest = np.sqrt(((unit - here) ** 2).mean(axis=1)).min()
    some = unit[np.linspace(0, len(unit) - 1, min(len(unit), 100)).astype(int)]
    gaps = np.sqrt(((some[:, None] - unit[None]) ** 2).mean(axis=2))
    gaps[gaps == 0] = np.inf
    usual = float(np.median(gaps.min(axis=1))) if len(unit) > 1 else float("nan")
    return (
        f"nearest training vector: {nearest:.2f} of the range away (root mean square over parameters; "
        f"{usual:.2f} is usual between training vectors)"
    )
