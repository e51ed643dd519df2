"""The section of a sensitivity analysis (sensitivity.py)."""

from pathlib import Path

from calibration.reports import content, reading
from calibration.reports.content import Section, Text, table_of

SCRIPT, FACTS, SUMMARY = "sensitivity.py", "sensitivity.json", "sensitivity_summary.txt"
FIGURES = {
    "tower_information_process_model": "What a tower of each length could at best inform, with the process model "
    "itself. Coloured points left of the dashed line.",
    "tower_information_emulator": "The same through the emulator, which smooths slow changes: what an inversion sees.",
    "sensitivity_morris": "Mean absolute elementary effects with 95 percent confidence. Where emulator and process "
    "model part beyond their bars, the emulator misses something.",
    "sensitivity_sobol": "Total Sobol indices: the share of the variance that vanishes if this parameter were known.",
    "visit_elementary_effects": "Elementary effects of real VISIT's runs against the process model's. Points should "
    "lie on the line.",
}


def section(directory: Path, title: str | None = None) -> Section:
    """Everything that `directory` says. UserError where an essential file is missing or of another version."""
    facts = reading.content(directory / FACTS, ("models", "parameters", "seed", "days"), SCRIPT)
    summary = reading.text(directory / SUMMARY, SCRIPT)
    result = Section(title or f"Sensitivity: {directory.name}", facts.get("answer") or summary.splitlines()[0],
                     content.NEUTRAL)  # fmt: skip
    result.meaning.append("A best case: no error of emulator or model, no gaps. An inversion finds this or less.")
    result.blocks += reading.pictures(directory, FIGURES)
    for path in sorted(directory.glob("tower_information_*.csv")):
        columns = ("days", "parameter", "sd_ratio", "sd_ratio_low", "sd_ratio_high", "informed")
        table = reading.table(path, columns, SCRIPT).sort_values(["days", "sd_ratio"])
        marked = frozenset(i for i, value in enumerate(table["informed"]) if value)
        names = {"days": "days", "parameter": "parameter", "sd_ratio": "posterior / prior sd",
                 "sd_ratio_low": "10 %", "sd_ratio_high": "90 % of trajectories"}  # fmt: skip
        model = path.stem.removeprefix("tower_information_").replace("_", " ")
        result.blocks.append(
            table_of(table, f"By length of the record, {model} (highlighted: informed).", names, marked)
        )
    known = {key: facts.get(key) for key in ("start", "days", "noise", "seed", "models", "weather", "seconds")}
    result.made = [
        *reading.made_by(directory, known, {"emulator": facts.get("emulator")}),
        Text(summary, SUMMARY),
    ]
    return result
