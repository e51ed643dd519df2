"""The sections of parameter recovery (evaluate_parameter_recovery.py): one known run, or a study of many."""

from pathlib import Path
from typing import Any

import pandas as pd

from calibration.common.units import FLUX_UNIT
from calibration.inversion.posterior import INFORMED, informed_words
from calibration.judgement.recovery_statistics import NOMINAL, coverage_sentence, written
from calibration.reports import content, reading
from calibration.reports.content import Facts, Section, table_of
from calibration.reports.parameters import with_meaning

SCRIPT, STUDY, CASE = "evaluate_parameter_recovery.py", "recovery_study.json", "_summary.json"
ERROR = "Error over range: mean distance of estimate and truth, as a share of each parameter's range."
TOLERATED = 0.05  # how far from NOMINAL the mean coverage may lie for intervals to be called calibrated
STUDY_FIGURES = {
    "recovery_coverage": "Share of truths inside their 90 percent intervals, with its own 95 percent interval. Look "
    "for bars that end left of the line at 0.90 (diamonds): those intervals are too narrow. Some miss it by chance.",
    "recovery_skill": "Skill and posterior over prior sd. Coloured: parameters that are learned.",
    "recovery_ranks": "Ranks of the truth among posterior samples. A flat histogram is calibrated; a bowl is too sure.",
    "recovery_z": "Distance of truth and estimate in posterior sd; the box should lie inside the strip.",
    "recovery_annual_nep": "True and estimated annual NEP with 90 percent bands.",
}
CASE_FIGURES = {
    "overview": "Truth, observation (the truth with its noise, if any), prior and estimate of NEP, and the parameters' "
    "errors. NEP can be met while parameters are not: look at both.",
    "param_bars": "Truth, prior and estimate in every range, with 90 percent intervals.",
    "param_traces": "Some parameters along the iterations. Look for curves that still move at the end.",
    "params_norm_scatter": "Estimated against true place in the range. Points on the line are recovered.",
}


def sentence(note: str) -> str:
    """A note as a sentence: a capital first, a full stop last.

    >>> sentence("most of them stay")
    'Most of them stay.'
    """
    return f"{note[:1].upper()}{note[1:]}" + ("" if note.endswith((".", "!", "?")) else ".")


def informed_words_of(frame: pd.DataFrame) -> str:
    """Which parameters of a case the data inform, with their errors; frame: param_name, sd_ratio, range_error_*."""
    found = frame[frame["sd_ratio"] < INFORMED].sort_values("sd_ratio")
    if found.empty:
        return f"Informed (posterior sd below {INFORMED:g} of the prior's): none."
    named = "; ".join(
        f"{row.param_name} (posterior / prior sd {informed_words(row.sd_ratio)}; error / range "
        f"{row.range_error_estimated:.2f}, prior {row.range_error_prior:.2f})"
        for row in found.itertuples()
    )
    return f"Informed: {named}."


def study_section(directory: Path, title: str | None = None) -> Section:
    """A study of many cases. UserError where it is damaged or of another version."""
    keys = ("cases", "span_days", "noise", "coverage_90", "informed_parameters", "range_error_estimated",
            "range_error_prior", "parameters", "settings")  # fmt: skip
    study = reading.content(directory / STUDY, keys, SCRIPT)
    coverage = float(study["coverage_90"])
    on_average = abs(coverage - NOMINAL) <= TOLERATED
    calibrated = on_average and len(study.get("covered_too_rarely", [])) <= study.get("outside_by_chance", 0)
    words = "TOO SURE" if coverage < NOMINAL else "TOO CAUTIOUS"
    words = "CALIBRATED" if calibrated else "CALIBRATED ON AVERAGE ONLY" if on_average else words
    frame = labelled(pd.DataFrame(study["parameters"]).T.rename_axis("param_name").reset_index())
    informed = ", ".join(map(str, written(study, study.get("informed_names", [])))) or "none"
    result = Section(
        title or f"Recovery study: {directory.name}",
        f"{words}: {100 * coverage:.0f} percent of the true values lie in their 90 percent intervals "
        f"({study['cases']} cases of {study['span_days']} days, {noise_words(study)}).",
        content.GOOD if calibrated else content.CAREFUL,
        [
            *([f"By parameter: {coverage_sentence(study)}."] if "outside_by_chance" in study else []),
            *map(str, study.get("notes", [])),
            f"Informed in the median case: {informed}.",
            f"Error over range: {study['range_error_estimated']:.3f}, prior {study['range_error_prior']:.3f}. {ERROR}",
        ],
    )  # fmt: skip
    result.blocks += reading.pictures(directory, STUDY_FIGURES)
    names = {"param_name": "parameter", "coverage_90": "coverage of 90 %", "coverage_low_95": "95 % from",
             "coverage_high_95": "to", "skill": "skill",
             "sd_ratio": "posterior / prior sd", "worse_than_prior": "worse than prior"}  # fmt: skip
    names = {column: name for column, name in names.items() if column in frame}
    frame = frame.infer_objects().sort_values("sd_ratio") if "sd_ratio" in frame else frame
    marked = frozenset(i for i, v in enumerate(frame.get("sd_ratio", [])) if v < INFORMED)
    result.blocks.append(table_of(frame, "By parameter, most informed first (highlighted: informed).", names, marked))
    settings = study["settings"]
    known = {key: settings.get(key) for key in ("cases", "span_days", "noise", "gaps", "targets", "seed", "method")}
    known["seconds a case"] = study.get("seconds_per_case")
    facts = Facts("Settings", [(key, str(value)) for key, value in settings.items()])
    result.made = [*reading.made_by(directory, known, {}), facts]
    return result


def noise_words(study: dict[str, Any]) -> str:
    """The noise of a study's observations, and whether the inversion was told of it."""
    known = study["settings"].get("noise_known")
    told = {True: ", known to the inversion", False: ", estimated by the inversion"}.get(known, "")
    return f"white noise of sd {study['noise']:g} {FLUX_UNIT}{told}"


def case_noise_words(summary: dict[str, Any]) -> str:
    """The noise of a case's observations, a run's own fluxes, and what the inversion took it for."""
    supposed = summary.get("supposed_noise")
    taken = "" if supposed is None else f" (the inversion supposes {supposed:.2g})"
    return f"noise of sd {summary.get('noise', 0.0):g} {FLUX_UNIT}{taken}"


def labelled(frame: pd.DataFrame) -> pd.DataFrame:
    """A table by parameter with both labels as its names, where a label map was in force (column label)."""
    return frame.assign(param_name=frame["label"]) if "label" in frame else frame


def case_sections(directory: Path, title: str | None = None) -> list[Section]:
    """One section for every known run that was recovered in `directory`, the newest first."""
    paths = sorted(directory.glob(f"*{CASE}"), key=lambda path: (path.stat().st_mtime, path.name), reverse=True)
    return [case_section(path, title) for path in paths]


def case_section(path: Path, title: str | None = None) -> Section:
    """One known run. UserError where it is damaged or of another version."""
    keys = ("sample_id", "range_error_prior", "range_error_estimated", "better_than_prior", "free_parameters", "days")
    summary, prefix = reading.content(path, keys, SCRIPT), path.name.removesuffix("summary.json")
    closer, free, coverage = summary["better_than_prior"], summary["free_parameters"], summary.get("coverage_90")
    result = Section(
        title or f"Recovery of run {summary['sample_id']}",
        f"{closer} OF {free} PARAMETERS CAME NEARER TO THE TRUTH than the prior, from {summary['days']} days with "
        f"{case_noise_words(summary)}: error over range {summary['range_error_estimated']:.3f}, prior "
        f"{summary['range_error_prior']:.3f}.",
        content.GOOD if closer > free / 2 else content.CAREFUL,
    )  # fmt: skip
    result.meaning.append(
        f"{ERROR} Nearer or farther is chance for parameters that the data do not inform: about half of them come "
        "nearer whatever the fit does. Those that the data inform count."
    )
    names = {"param_name": "parameter", "meaning": "meaning", "unit": "unit", "true": "true", "prior": "prior",
             "estimated": "estimated", "range_error_prior": "prior error / range",
             "range_error_estimated": "error / range"}  # fmt: skip
    frame = reading.table(path.with_name(f"{prefix}params.csv"), tuple(set(names) - {"meaning", "unit"}), SCRIPT)
    frame = labelled(with_meaning(frame))
    if "sd_ratio" in frame:
        result.meaning.append(informed_words_of(frame))
    if coverage is not None:
        result.meaning.append(f"{100 * coverage:.0f} percent of the true values lie in their 90 percent intervals.")
    if summary.get("sample_was_trained_on"):
        result.meaning.append("The emulator was trained on this run: an easier case than a real tower.")
    result.meaning += [sentence(str(note)) for note in summary.get("notes", [])]
    result.blocks += reading.pictures(path.parent, CASE_FIGURES, prefix)
    extra = {"low_90": "90 % from", "high_90": "to", "inside_90": "truth inside", "sd_ratio": "posterior / prior sd"}
    names |= {column: name for column, name in extra.items() if column in frame}
    result.blocks.append(table_of(frame, "By parameter; errors as shares of the range.", names))
    known = {key: summary.get(key) for key in ("sample_id", "window_index", "window_start", "prior_mode", "method",
                                               "seconds", "config", "unconstrained")}  # fmt: skip
    result.made = [
        *reading.made_by(path.parent, known, {"configuration": summary.get("config")}),
    ]
    return result
