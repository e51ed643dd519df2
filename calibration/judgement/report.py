"""inversion_summary.txt in words: verdict, skill, error model, what is identified, how the fit ended."""

from typing import Any

import numpy as np

from calibration.common.parameters import ParameterSpace
from calibration.common.units import FLUX_UNIT
from calibration.inversion.config import target_label
from calibration.inversion.inputs import WITHOUT_NOISE
from calibration.inversion.posterior import INFORMED, identifiability, informed_words
from calibration.judgement.judge import JUDGED, Case, Judged, Judgement
from inverse_estimator import InversionResult


def summary_text(judgement: Judgement, facts: dict[str, Any], distance: str) -> str:
    """inversion_summary.txt: the verdict first, then windows, skill, error model, what is identified, how it ended."""
    lines = [judgement.verdict, ""]
    lines += [f"{key}: {value}" for key, value in facts.items()]
    for item in judgement.fluxes:
        lines += ["", *_skill_lines(item)]
    if judgement.test:
        lines += ["", judgement.test]
    conflict = judgement.conflict
    if conflict is not None:
        lines += ["", "Prior against data, before fitting", f"  {conflict.sentence()}"]
        if conflict.months:
            lines.append(f"  months in conflict: {', '.join(conflict.months)}")
    if judgement.result is not None:
        lines += ["", *_fit_lines(judgement.result, distance, judgement.case)]
    elif distance:
        lines += ["", distance]
    return "\n".join(lines) + "\n"


def _skill_lines(item: Judged) -> list[str]:
    label = target_label(item.target)
    lines = []
    days = [name for name in ("fitted", JUDGED, "holdout") if (name, "prior") in item.table.index]
    for name in days:
        prior, optimized = item.table.loc[(name, "prior")], item.table.loc[(name, "optimized")]
        improvement = 100 * (1 - optimized.rmse / prior.rmse) if prior.rmse > 0 else float("nan")
        where = ", held out" if name == "holdout" else ""
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


def _fit_lines(result: InversionResult, distance: str, case: Case) -> list[str]:
    lines = [f"Fit: {result.config.method}, {result.seconds:.1f} s, {result.problem.evaluations} runs of the model"]
    lines.append(f"  ended: {endings(result)}")
    if len(result.fit.start_costs) > 1:
        lines.append("  cost of every start: " + ", ".join(f"{cost:.2f}" for cost in np.sort(result.fit.start_costs)))
    lines += [f"  note: {note}" for note in result.notes]
    for target, value in result.offsets.items():
        lines.append(f"  constant offset of {target_label(target)}: {value:+.5f} {FLUX_UNIT}")
    bounds = result.at_bounds
    lines.append(f"  parameters at a bound: {', '.join(case.written(bounds)) or 'none'}")
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
        lines += ["", *identifiability_lines(result, case)]
    else:
        lines += ["", "No posterior: the cost is no likelihood (lambda_prior is a number, or --unconstrained)."]
    return lines


def endings(result: InversionResult) -> str:
    """Why the starts ended, with how many of them each."""
    reasons = result.fit.reasons
    return ", ".join(
        f"{reason} ({reasons.count(reason)} of {len(reasons)} starts)" for reason in dict.fromkeys(reasons)
    )


def identifiability_lines(result: InversionResult, case: Case) -> list[str]:
    """What this data set says about the parameters, in words."""
    found = identifiability(result.posterior)
    names, ratio = [result.names[i] for i in result.posterior.free], result.posterior.sd_ratio
    by_name = dict(zip(names, ratio, strict=True))
    lines = [f"What these data say about the {len(names)} free parameters ({result.posterior.method} posterior)"]
    ordered = sorted(found["informed"], key=by_name.get)
    written = zip(ordered, case.written(ordered), strict=True)
    informed = ", ".join(f"{shown} ({informed_words(by_name[name])})" for name, shown in written)
    lines.append(f"  informed (posterior sd below {INFORMED} of the prior sd): {informed or 'none'}")
    pairs = "; ".join(f"{a} with {b} ({c:+.2f})" for a, b, c in found["combinations"][:8])
    lines.append(f"  only in combination (correlation): {pairs or 'none'}")
    lines.append(f"  not informed: {', '.join(case.written(found['uninformed'])) or 'none'}")
    lines.append(f"  independent directions that the data fix better than the prior: {found['directions']}")
    if case.without_noise(result):
        lines.append(f"  {WITHOUT_NOISE}")
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
