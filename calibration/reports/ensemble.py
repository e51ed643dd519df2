"""The section of an ensemble of the process model (run_perturbations.py), or of runs that a user brought."""

from pathlib import Path

import pandas as pd

from calibration.common.units import DEAD
from calibration.reports import content, reading
from calibration.reports.content import Facts, Section, Table, table_of
from calibration.reports.parameters import with_meaning

SCRIPT, SUMMARY, RUNS, LOG = (
    "run_perturbations.py",
    "parameter_summary.csv",
    "experiment_results.csv",
    "parameter_log.json",
)
MOST_DEAD = 0.02  # share of dead forests that is still plausible
FLUX_COLUMNS = {"mean_gpp": "GPP", "mean_npp": "NPP", "mean_nep": "NEP", "mean_rh": "Rh"}


def section(directory: Path, title: str | None = None) -> Section:
    """Everything that `directory` says. UserError where an essential file is missing or of another version."""
    parameters = reading.table(directory / SUMMARY, ("sample_id",), SCRIPT)
    result = Section(title or f"Ensemble: {directory.name}", "", content.NEUTRAL)
    names = [name for name in parameters if name != "sample_id"]
    if not (directory / RUNS).is_file():
        result.verdict = f"{len(parameters)} RUNS OF YOUR OWN with {len(names)} parameters."
        result.meaning = ["Check their labels before training: python check_ensemble.py --data-dir FOLDER."]
        result.blocks.append(parameter_table(parameters, names))
        return result
    runs = reading.table(directory / RUNS, ("sample_id", "status", "seconds", "mean_gpp", "mean_nep"), SCRIPT)
    good = runs[runs["status"] == "ok"]
    failed, dead = int((runs["status"] != "ok").sum()), int((good["mean_gpp"] < DEAD).sum())
    plausible = dead <= MOST_DEAD * max(len(good), 1)
    sound = failed == 0 and plausible and len(good) > 0
    result.tone = content.GOOD if sound else content.CAREFUL if len(good) else content.BAD
    result.verdict = (
        f"{'SOUND' if sound else 'LOOK FIRST' if len(good) else 'FAILED'}: {len(good)} of {len(runs)} runs succeeded, "
        f"{dead} forests are dead; mean GPP {good['mean_gpp'].mean():.1f}, NEP {good['mean_nep'].mean():.2f} "
        "Mg C ha-1 year-1."
    )
    log = reading.content(directory / LOG, ("settings",), SCRIPT) if (directory / LOG).is_file() else {}
    settings = log.get("settings", {})
    span = f", {settings['start']} to {settings['end']}" if {"start", "end"} <= set(settings) else ""
    result.meaning.append(
        f"Means are over the whole period of the runs{span}; single years lie above and below. Sound means that runs "
        "ended and forests live, not that their fluxes are those of your site: compare the spread below with what you "
        "know of it."
    )
    if failed:
        result.meaning.append(f"{failed} runs failed: their messages are in {RUNS}; the others can be trained on.")
    if not plausible:
        result.meaning.append("More than 2 percent dead forests: the ranges reach beyond what is plausible.")
    result.blocks += [flux_table(good), parameter_table(parameters, names)]
    if failed:
        columns = {"sample_id": "run", "status": "status", "message": "message"}
        bad = runs[runs["status"] != "ok"].reindex(columns=list(columns)).fillna("")
        result.blocks.append(table_of(bad.head(50), "Failed runs.", columns))
    known = {key: settings.get(key) for key in ("seed", "n_samples", "start", "end", "engine", "spinup")}
    known |= {key: log.get(key) for key in ("ranges_file", "weather_source", "site_file")}
    known["seconds of all runs"] = f"{runs['seconds'].sum():.0f}"
    known["versions"] = ", ".join(f"{name} {version}" for name, version in log.get("versions", {}).items())
    weather = settings.get("weather") or {}
    result.made = [
        *reading.made_by(directory, known, {"ranges": log.get("ranges_file"), "site": log.get("site_file")}),
        Facts("Weather (SHA-256 of its values)", [(key, str(value)) for key, value in weather.items()]),
    ]
    return result


def flux_table(good: pd.DataFrame) -> Table:
    """Spread of the annual means over the runs."""
    rows = [
        [label, *good[column].quantile([0.0, 0.05, 0.5, 0.95, 1.0])]
        for column, label in FLUX_COLUMNS.items()
        if column in good and len(good)
    ]
    headers = ["flux", "lowest", "5 %", "median", "95 %", "highest"]
    return Table(headers, rows, "Means over the period of the runs that succeeded, Mg C ha-1 year-1.")


def parameter_table(parameters: pd.DataFrame, names: list[str]) -> Table:
    """Range of the drawn values."""
    values = parameters[names]
    spread = {"lowest": values.min(), "median": values.median(), "highest": values.max()}
    table = pd.DataFrame({"param_name": names, **spread})
    shown = {"param_name": "parameter", "meaning": "meaning", "unit": "unit", "lowest": "lowest", "median": "median",
             "highest": "highest"}  # fmt: skip
    return table_of(with_meaning(table), "Values of the runs.", shown)
