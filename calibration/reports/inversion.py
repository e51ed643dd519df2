"""The section of an inversion, or of given parameters that were judged (test_inversion.py)."""

from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError
from calibration.common.units import FLUX_UNIT
from calibration.conflict.misfit import misfit_parts, misfit_sentence
from calibration.inversion.config import target_label
from calibration.inversion.inputs import WITHOUT_NOISE
from calibration.inversion.posterior import INFORMED
from calibration.judgement.fit import CONFLICT_SHARE, climatology_baseline, constant_baseline, scores
from calibration.judgement.judge import JUDGED
from calibration.reports import content, reading
from calibration.reports.content import Interactive, Section, Table, Text, table_of
from calibration.reports.interactive import series_figure
from calibration.reports.parameters import (
    correlation_sentence,
    informed_sentence,
    modes_sentence,
    parameter_blocks,
    values_table,
    with_meaning,
    with_truth,
)

SCRIPT = "test_inversion.py"
SUMMARY, SNAPSHOT, POSTERIOR_TABLE = "inversion_summary.txt", "params_snapshot.json", "posterior_summary.csv"
SERIES = ("date", "observed", "valid", "fitted", "prior", "optimized")
POSTERIOR = ("param_name", "prior", "optimized", "low_90", "high_90", "sd_ratio")
GIVEN = "JUDGED, NOT FITTED"
WORSE = 1.1  # RMSE of the process model over the emulator's from which the fit owes something to the emulator's error
# By the verdict's first words: tone, and what to do about it.
VERDICTS = {
    "CONFLICTS WITH THE MODEL": (content.BAD, "Do not read the parameters: they bend to make up for what the model "
        "lacks. docs/cookbook.md, task 9, goes through what to try."),
    "FITS AND IS INFORMATIVE": (content.GOOD, "Read the informed parameters with their intervals; the others are where "
        "the prior put them, whatever their estimates say."),
    "FITS BUT IS UNINFORMATIVE": (content.CAREFUL, "The flux is described, but by many parameter sets alike: use the "
        "predicted flux and its band, not the parameters. A longer record, more fluxes or fewer free parameters tell "
        "more; sensitivity.py says which."),
    "FITS:": (content.CAREFUL, "The flux is described; without a posterior nothing is known of the parameters."),
    GIVEN: (content.NEUTRAL, "Given parameters were tried, without a fit. The baselines beside them were fitted to the "
        "judged days themselves, which is an advantage."),
}  # fmt: skip
FIGURES = {
    "nep_comparison": "NEP of every day, its running mean, modelled against observed, and residuals. Look for days "
    "outside the wide band (more than one in ten is too many), and for a season in which the running means part.",
    "parameter_changes": "Prior and estimate of every parameter inside its range, with 90 percent intervals. Look for "
    "intervals much shorter than the range; an estimate that moved under a long interval means nothing.",
    "identifiability": "What the data say: posterior over prior sd, correlations, directions. Look for bars left of "
    f"the dashed line ({INFORMED:g}) and for strongly coloured pairs, which are known only together.",
    "nep_residuals_by_month": "Residuals by month. Look for months on one side of zero: a season that the model "
    "cannot follow.",
    "prior_conflict": "Observed monthly means before any fit, against the band of 95 percent of the prior's draws, and "
    f"below the days outside their own band. Red: a month in conflict, more than {100 * CONFLICT_SHARE:.0f} percent of "
    "its days outside. A point outside the upper band is unlikely under the prior; parameters may still reach it.",
    "loss_history": "Cost of every start by iteration. Starts that end at different costs mean several valleys.",
}


# Of given parameters, of which there is no posterior.
GIVEN_FIGURES = {
    "nep_comparison": "NEP of every day, its running mean, modelled against observed, and residuals, with the given "
    "parameters. Look for a season in which the running means part.",
    "parameter_changes": "The prior of the inversion that the parameters come from, and the given parameters, inside "
    "the trained ranges. Their intervals stand in the section of that inversion.",
}


def section(directory: Path, title: str | None = None) -> Section:
    """Everything that `directory` says. UserError where an essential file is missing or of another version."""
    summary = reading.text(directory / SUMMARY, SCRIPT)
    verdict = summary.splitlines()[0]
    snapshot = reading.content(directory / SNAPSHOT, ("names", "optimized", "metadata"), SCRIPT)
    metadata = snapshot["metadata"] or {}
    tone, meaning = next(
        (found for words, found in VERDICTS.items() if verdict.startswith(words)), (content.NEUTRAL, "")
    )
    result = Section(title or f"Inversion: {directory.name}", verdict, tone, [meaning] if meaning else [])
    comparisons = sorted(directory.glob("*_comparison.csv"), key=lambda path: path.name != "nep_comparison.csv")
    if not comparisons:
        raise UserError(f"{directory}/nep_comparison.csv: no such file; half a result: run {SCRIPT} again")
    fluxes = [(reading.table(path, SERIES, SCRIPT), target_label(path.stem.split("_")[0])) for path in comparisons]
    if metadata.get("judged_on"):
        result.meaning.append(f"{metadata['judged_on'][:1].upper()}{metadata['judged_on'][1:]}.")
    if tone == content.BAD:
        result.meaning.append(conflict_sentence(*fluxes[0]))
    skill = reading.table(directory / "skill.csv", ("days", "model", "rmse", "bias", "r2", "n"), SCRIPT)
    given = verdict.startswith(GIVEN)
    skill = skill.replace({"days": {"fitted": JUDGED}}) if given else skill
    result.meaning += skill_sentences(skill)
    result.meaning += [] if given else error_sentences(metadata)  # of the fit that made them: other days
    result.meaning += [sentence for sentence in (process_sentence(*flux) for flux in fluxes) if sentence]
    best = metadata.get("best_inside_bounds")
    if best and not given:  # of the fit whose parameters were loaded: other days
        result.meaning.append(
            f"The best that any parameters inside the bounds reach on these days, without prior and discrepancy: RMSE "
            f"{best['rmse']:.4f} {FLUX_UNIT} (R2 {best['r2']:.2f})."
        )
    said, parameters = parameter_findings(directory, tone != content.BAD, metadata)
    result.meaning += said
    for flux in fluxes:
        result.blocks += series_blocks(*flux, given)
    result.blocks.append(inversion_skill(skill))
    if (directory / "diagnosis.csv").is_file():
        table = diagnosis_table(directory / "diagnosis.csv")
        result.meaning += [
            f"Of the quick looks at what would change it, {table.rows[i][0]} ({table.rows[i][1]}) brings most: RMSE "
            f"{table.rows[i][4]:.4f} at best."
            for i in table.marked
            if table.rows[i][1]
        ]
        result.blocks.append(table)
    result.blocks += parameters
    if (directory / "prior_conflict.csv").is_file():
        result.blocks += conflict_blocks(directory / "prior_conflict.csv")
    hidden = {"parameter_changes"} if (directory / POSTERIOR_TABLE).is_file() else set()  # shown above, to be hovered
    hidden |= {"identifiability"} if tone == content.BAD else set()
    drawn = [name for name in FIGURES if name not in hidden]
    captions = FIGURES | (GIVEN_FIGURES if given else {})
    result.blocks += reading.pictures(directory, {name: captions[name] for name in drawn})
    known = {key: metadata.get(key) for key in ("command", "method", "seed", "seconds", "config", "windows", "targets")}
    result.made = [
        *reading.made_by(directory, known, {
            "emulator": metadata.get("artifacts"), "configuration": metadata.get("config"),
            "observations": str(metadata.get("data", "")).partition(",")[0] or None,
        }, "Of the inversion that the parameters come from" if given else "As its files say"),
        Text(summary, SUMMARY),
    ]  # fmt: skip
    config = reading.where(metadata.get("config") or "none")
    if config.is_file():
        result.made.append(Text(config.read_text(encoding="utf-8", errors="replace"), config.name))
    return result


def parameter_findings(directory: Path, readable: bool, metadata: dict) -> tuple[list[str], list[content.Block]]:
    """Sentences for the verdict and blocks on the parameters; readable: False in conflict, where little is said."""
    if not (directory / POSTERIOR_TABLE).is_file():
        values = reading.table(directory / "parameter_values.csv", ("param_name", "prior", "optimized"), SCRIPT)
        values, truth = with_truth(values, directory)
        return [truth] if truth else [], [values_table(values)]
    posterior = with_meaning(reading.table(directory / POSTERIOR_TABLE, POSTERIOR, SCRIPT))
    posterior, truth = with_truth(posterior, directory)
    said = []
    if readable:
        said += [informed_sentence(posterior), truth, correlation_sentence(directory / "posterior_correlation.csv"),
                 modes_sentence(directory / "posterior.npz")]  # fmt: skip
    said += [truth if not readable else "", WITHOUT_NOISE if metadata.get("without_noise") else ""]
    return [sentence for sentence in said if sentence], parameter_blocks(posterior, metadata, readable)


def process_sentence(series: pd.DataFrame, label: str) -> str:
    """How the process model itself describes the observed days; '' where --verify did not run it with the estimate."""
    if "simulator" not in series:
        return ""
    valid = (series["valid"] == 1).to_numpy() & series["simulator"].notna().to_numpy()
    if not valid.any():
        return ""
    observed = series["observed"].to_numpy()[valid]
    process, emulated = (scores(observed, series[name].to_numpy()[valid]) for name in ("simulator", "optimized"))
    apart = scores(series["simulator"].to_numpy()[valid], series["optimized"].to_numpy()[valid])
    said = (
        f"The process model itself, run with the estimate, describes {label} with RMSE {process['rmse']:.4f} "
        f"{FLUX_UNIT} (R2 {process['r2']:.2f}) on the observed days; the emulator with {emulated['rmse']:.4f}. "
        f"They differ by RMSE {apart['rmse']:.5f}, bias (emulator - process model) {apart['bias']:+.5f}."
    )
    if process["rmse"] > WORSE * emulated["rmse"]:
        said += " Part of the fit is thus the emulator's error; --refine 50 looks further with the process model."
    return said


def error_sentences(metadata: dict) -> list[str]:
    """By flux, which errors the fit supposed, and how many of the observed days its wide band holds."""
    said = []
    for target, errors in (metadata.get("errors") or {}).items():
        parts = ", ".join(
            f"{name} {errors[f'{name}_sd']:.4f} ({100 * errors[f'{name}_share']:.0f} percent of the variance)"
            for name in ("observation", "emulator", "discrepancy")
        )
        inside = (metadata.get("coverage") or {}).get(target, {})
        held = ", ".join(
            f"{100 * share:.0f} percent of the {'fitted' if days == 'fitted' else 'held-out'} days"
            for days, share in inside.items()
        )
        said.append(
            f"The errors of {target_label(target)} in the fit, as sd of a day ({FLUX_UNIT}): {parts}."
            + (f" The wide band, meant for 90 percent, holds {held}." if held else "")
        )
    return said


def skill_sentences(skill: pd.DataFrame) -> list[str]:
    """How the estimate stands beside the baselines, on the days it was fitted to (or judged on) and held out."""
    lines = []
    for days, name in (
        ("fitted", "the days it was fitted to"),
        (JUDGED, "the judged days"),
        ("holdout", "days kept out of the fit"),
    ):
        part = skill[skill["days"] == days].set_index("model")
        if "optimized" not in part.index:
            continue
        own = part.loc["optimized"]
        rest = part.drop(index=["optimized", "prior"], errors="ignore").sort_values("rmse")
        beside = ", ".join(f"{model} {row.rmse:.4f}" for model, row in rest.iterrows())
        better = rest.empty or own.rmse < rest["rmse"].min()
        lines.append(
            f"On {name} ({int(own.n)}) its RMSE is {own.rmse:.4f} {FLUX_UNIT} (R2 {own.r2:.2f})"
            + (f", {'better' if better else 'no better'} than the baselines ({beside})." if beside else ".")
        )
    return lines


def series_blocks(series: pd.DataFrame, label: str, given: bool = False) -> list[content.Block]:
    """The series to be zoomed, and the residuals by month; given: of parameters that were not fitted to it."""
    valid, fitted = series["valid"] == 1, series["fitted"] == 1
    dates = series["date"].to_numpy().astype("datetime64[D]")
    here = (valid & fitted).to_numpy()
    if here.any():
        observed = series["observed"].to_numpy()[here]
        series = series.assign(
            constant=constant_baseline(observed, dates), climatology=climatology_baseline(dates[here], observed, dates)
        )
    caption = (
        f"{label} of every day. Drag to zoom, reset with the tool on the right, click a name to hide or show it."
        + (" Look for observed days outside the wide band." if "observed_low_90" in series else "")
        + (" Look whether held-out days (crosses) are met as well as the others." if (valid & ~fitted).any() else "")
    )
    blocks: list[content.Block] = [Interactive(series_figure(series, label, given), caption, f"Daily {label}")]
    residual = (series["optimized"] - series["observed"]).where(valid)
    if valid.any():
        blocks.append(misfit_table(misfit_parts(*observed_residual(series)), label))
    frame = pd.DataFrame({"month": dates.astype("datetime64[M]").astype(str), "residual": residual,
                          "observed": series["observed"].where(valid), "held": valid & ~fitted})  # fmt: skip
    rows, marked = [], set()
    for month, part in frame[valid].groupby("month"):
        bias, rmse, count = part["residual"].mean(), np.sqrt((part["residual"] ** 2).mean()), len(part)
        error = part["residual"].std() / np.sqrt(count) if count > 2 else np.nan
        one_sided = bool(abs(bias) > 3 * error)
        if one_sided:
            marked.add(len(rows))
        held = [int(part["held"].sum())] if frame["held"].any() else []
        rows.append([month, count, *held, part["observed"].mean(), bias, rmse, one_sided])
    if rows:
        held = ["of them held out"] if frame["held"].any() else []
        headers = ["month", "observed days", *held, "observed mean", "residual mean", "RMSE", "one-sided"]
        caption = (
            f"Residuals ({'given parameters' if given else 'estimate'} - observed) of {label} by month, {FLUX_UNIT}. "
            "One-sided: the mean lies more than three standard errors from zero."
        )
        blocks.append(Table(headers, rows, caption, frozenset(marked)))
    return blocks


def observed_residual(series: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Dates (day,) and residual (day,) of the observed days, fitted or held out."""
    valid = (series["valid"] == 1).to_numpy()
    residual = (series["optimized"] - series["observed"]).to_numpy()
    return series["date"].to_numpy().astype("datetime64[D]")[valid], residual[valid]


def conflict_sentence(series: pd.DataFrame, label: str) -> str:
    """What conflicts, with shares, and what would change it."""
    dates, residual = observed_residual(series)
    if not len(dates):
        return f"No day of {label} is observed."
    return f"What conflicts: {misfit_sentence(dates, residual)}"


def misfit_table(parts: dict[str, tuple[float, float]], label: str) -> Table:
    """What the misfit is made of, of misfit_parts()."""
    rows = [[name, size, f"{100 * share:.0f} %"] for name, (size, share) in parts.items()]
    caption = (
        f"What the misfit of {label} is made of ({FLUX_UNIT}). Mostly day to day: noise, or weather that the tower saw "
        "and the model did not. Mostly mean: an offset or pools not at rest. Mostly season: a response that is missing."
    )
    return Table(["part", "root mean square", "share of the misfit"], rows, caption)


def diagnosis_table(path: Path) -> Table:
    """What --diagnose looked at."""
    table = reading.table(path, ("look", "change", "rmse", "r2", "best_rmse", "holdout_rmse", "next"), SCRIPT)
    names = {"look": "quick look at", "change": "what changed", "rmse": "RMSE", "r2": "R2",
             "best_rmse": "best of any parameters", "holdout_rmse": "held out", "next": "in earnest"}  # fmt: skip
    caption = (
        f"What would change the conflict ({FLUX_UNIT}), without any new training. RMSE is that of a new estimate, or "
        "of the old one with the change in the process model added. Highlighted: the most that any of them brings."
    )
    best = frozenset() if table["best_rmse"].isna().all() else frozenset([int(table["best_rmse"].idxmin())])
    return table_of(table.fillna({"change": "", "next": ""}), caption, names, best)


def inversion_skill(skill: pd.DataFrame) -> Table:
    """Prior, estimate and baselines on the same days."""
    marked = frozenset(i for i, model in enumerate(skill["model"]) if model == "optimized")
    names = {"days": "days", "model": "model", "n": "number", "rmse": "RMSE", "bias": "bias", "r2": "R2"}
    if "correlation" in skill:
        names["correlation"] = "correlation"
    given = (skill["days"] == JUDGED).any()
    shown = skill.assign(n=skill["n"].astype(int)).replace({"days": {"holdout": "held out"}})
    not_fitted = "Judged: given parameters were tried on these days, not fitted to them; the baselines were. "
    return table_of(
        shown.replace({"model": {"optimized": "given parameters" if given else "estimate"}}),
        f"Skill beside baselines that were fitted on the same days ({FLUX_UNIT}). {not_fitted if given else ''}"
        "Prior: the parameters before the fit. R2 below 0: worse than the mean.",
        names, marked,
    )  # fmt: skip


def conflict_blocks(path: Path) -> list[content.Block]:
    """Months in which the observations lie outside what the prior can do."""
    columns = ("month", "days", "observed_mean", "prior_low", "prior_high", "share_outside", "conflict")
    table = reading.table(path, columns, SCRIPT, may_be_empty=True)
    marked = frozenset(i for i, value in enumerate(table["conflict"]) if value)
    names = {"month": "month", "days": "days", "observed_mean": "observed mean", "prior_low": "95 % of prior from",
             "prior_high": "to", "share_outside": "share of days outside", "conflict": "conflict"}  # fmt: skip
    caption = (
        f"Before the fit: observed monthly means beside those of 95 percent of the prior's draws ({FLUX_UNIT}), which "
        "is less than the model can do at the ends of its ranges. Conflict is decided by days, not by means: more than "
        f"{100 * CONFLICT_SHARE:.0f} percent of a month's days outside the band of that day, noise included."
    )
    return [table_of(table, caption, names, marked)] if len(table) else []
