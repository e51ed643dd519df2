"""The section of a trained emulator (train.py, evaluate_model.py)."""

from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError
from calibration.common.parameters import ParameterSpace, make_space
from calibration.common.units import DAYS_PER_YEAR, FLUX_LABELS, FLUX_UNIT, TARGETS
from calibration.emulator.trained import BEST, CONFIG, FORMAT, HISTORY
from calibration.reports import content, reading
from calibration.reports.content import Facts, Section, Table, Text
from calibration.reports.parameters import with_meaning
from calibration.tower.window_building import ABOUT_CO2

SCRIPT, EVALUATION = "train.py", "evaluation.json"
BASELINES = (
    "Baselines: constant, the mean of the training years; persistence, the day before, kept; climatology, the mean of "
    "the day of the year; arx, linear in yesterday's fluxes, weather and parameters; gaussian_process and boosting, "
    "the run's mean learned from its parameters, with the climatology's course."
)
TOWER_NOISE = 0.005  # Mg C ha-1 day-1: a day's observation error at a good tower
SPLITS = {"unseen": "runs it has never seen", "seen": "runs it was trained on"}
FLUXES = ("nep", *(flux for flux in TARGETS if flux != "nep"))  # what a tower measures first
FIGURES = {
    "evaluation_nep_series": "NEP of the test year for some runs. Look for days on which the emulator leaves the "
    "process model.",
    "evaluation_scatter_unseen": "All run-days of unseen runs, emulator against process model. Look for clouds off the "
    "line: forests that the emulator does not understand.",
    "evaluation_rmse": "RMSE beside baselines (log scale). The emulator's bar should be the shortest by far.",
    "evaluation_season": "Error by month. Look for a season that is predicted worse, and on the right for fluxes that "
    "lie on one side of zero all year: a bias, which adds up in annual sums.",
    "evaluation_lead_time": "Error against days since the free run began. A flat line: errors do not accumulate.",
    "evaluation_runs": "Error of every unseen run against its mean GPP. Runs not at rest are marked: their carbon "
    "pools still move when the run begins, which the closed forms do not know.",
    "training_loss": "Loss and validation error by epoch. A validation error that rises again would mean overfitting. "
    "Kept is the epoch with the best error over all four fluxes; drawn is that of NEP alone.",
}


def section(directory: Path, title: str | None = None) -> Section:
    """Everything that `directory` says. UserError where an essential file is missing or of another version."""
    config = reading.content(directory / CONFIG, ("configuration", "parameter_names", "data", "versions"), SCRIPT)
    if config.get("format") != FORMAT:
        raise UserError(
            f"{directory / CONFIG}: format {config.get('format')}, this one reads {FORMAT}: run {SCRIPT} again"
        )
    if not (directory / BEST).is_file():
        raise UserError(f"{directory / BEST}: no such file; half a result: run {SCRIPT} again, or with --resume")
    data, configuration = config["data"], config["configuration"]
    training, splits = configuration.get("training", {}), configuration.get("splits", {})
    result = Section(title or f"Emulator: {directory.name}", "", content.NEUTRAL)
    if (directory / EVALUATION).is_file():
        evaluation = reading.content(directory / EVALUATION, tuple(SPLITS), "evaluate_model.py")
        result.verdict, result.tone, result.meaning = judged(evaluation)
        result.blocks.append(emulator_skill(evaluation))
    else:
        result.verdict = "NOT JUDGED YET: run evaluate_model.py, then make the report again."
    ranges = [[name, low, high] for name, low, high in config.get("parameter_space", [])]
    worst = directory / "evaluation_worst_runs.csv"
    if worst.is_file():
        space = make_space([tuple(entry) for entry in ranges], directory / CONFIG) if ranges else None
        table, why = worst_runs(worst, space)
        result.meaning += why
        result.blocks.append(table)
    result.meaning.append(
        f"It stands for the process model inside the ranges below and under weather like that of its training, "
        f"{' to '.join(splits.get('train', [data['first_day'], data['last_day']]))}; outside it extrapolates, and the "
        f"scripts warn. {ABOUT_CO2}"
    )
    result.blocks += reading.pictures(directory, FIGURES)
    if ranges:
        table = with_meaning(pd.DataFrame(ranges, columns=["param_name", "from", "to"]))
        names = {"param_name": "parameter", "meaning": "meaning", "unit": "unit", "from": "from", "to": "to"}
        result.blocks.append(
            content.table_of(table, "Ranges it was trained in; a name: the value of that parameter.", names)
        )
    history = reading.content(directory / HISTORY, ("epoch",), SCRIPT) if (directory / HISTORY).is_file() else {}
    known = {
        "preset": configuration.get("preset"), "runs": data["runs"], "best epoch": config.get("best_epoch"),
        "epochs": len(history.get("epoch", [])),
        "seconds of training (this network; the script also trains further ones, to measure its error)":
            config.get("training_seconds"),
        "seed of training": training.get("seed"), "seed of the unseen runs": splits.get("seed"),
        "trained on": " to ".join(splits.get("train", [])), "tested on": " to ".join(splits.get("test", [])),
        "versions": ", ".join(f"{name} {version}" for name, version in config["versions"].items()),
    }  # fmt: skip
    result.made = [
        *reading.made_by(directory, known, {"ensemble": data.get("directory"), "weights": directory / BEST}),
        *(Facts(name, [(key, str(value)) for key, value in part.items()])
          for name, part in configuration.items() if isinstance(part, dict)),
        Text("Every number is explained beside its value in LHP_architecture.yaml.", paragraph=True),
    ]  # fmt: skip
    return result


def judged(evaluation: dict) -> tuple[str, str, list[str]]:
    """Verdict, tone and what it means: the error on unseen runs beside a tower's noise and the best baseline."""
    nep = evaluation["unseen"]["nep"]
    rmse, baselines = nep["rmse"], nep.get("baselines", {})
    best = min(baselines, key=lambda name: baselines[name]["rmse"], default=None)
    beaten = best is None or rmse < baselines[best]["rmse"]
    numbers = f"NEP RMSE {rmse:.5f} {FLUX_UNIT}, R2 {nep['r2']:.3f} on unseen runs in an unseen year"
    share = 100 * rmse**2 / (rmse**2 + TOWER_NOISE**2)
    if beaten and rmse < 0.5 * TOWER_NOISE:
        verdict, tone = f"GOOD ENOUGH TO INVERT WITH: {numbers}.", content.GOOD
    elif beaten and rmse < TOWER_NOISE:
        verdict, tone = f"USABLE WITH CARE: {numbers}; its error widens every interval.", content.CAREFUL
    else:
        verdict, tone = f"NOT GOOD ENOUGH: {numbers}; more runs or narrower ranges are needed.", content.BAD
    meaning = [
        f"Good enough means: an RMSE of NEP on unseen runs below {0.5 * TOWER_NOISE:g} {FLUX_UNIT}, half the error of "
        "a day at a good tower, and below that of every baseline.",
        f"At a tower with an error of {TOWER_NOISE:g} {FLUX_UNIT} a day, the emulator's own error is {share:.0f} "
        "percent of the error variance; inversions know it and widen their intervals by it.",
    ]
    if best is not None:
        ratio = baselines[best]["rmse"] / max(rmse, 1e-12)
        meaning.append(f"For NEP the best baseline ({best}) errs {ratio:.1f} times as much.")
    return verdict, tone, meaning


def emulator_skill(evaluation: dict) -> Table:
    """Emulator and baselines by split and flux."""
    rows, marked = [], set()
    for split in SPLITS:
        for flux in FLUXES:
            values = evaluation[split].get(flux)
            if values is None:
                continue
            for model, row in {"emulator": values, **values.get("baselines", {})}.items():
                if model == "emulator":
                    marked.add(len(rows))
                cells = [row.get(key) for key in ("rmse", "r2", "nse_median", "rollout_rmse_30")]
                rows.append([split, FLUX_LABELS[flux], model, *cells])
    headers = ["runs", "flux", "model", "RMSE", "R2", "median within-run NSE", "RMSE of 30-day runs"]
    caption = (
        f"Skill in the test year ({FLUX_UNIT}). Seen: {SPLITS['seen']}; unseen: {SPLITS['unseen']}, which is where an "
        f"inversion lives. {BASELINES} NSE: R2 of each run against its own mean. 30-day runs: each starts anew, after "
        "180 days of weather."
    )
    return Table(headers, rows, caption, frozenset(marked))


def worst_runs(path: Path, space: ParameterSpace | None) -> tuple[Table, list[str]]:
    """The unseen runs, the worst predicted first, and a sentence on why the worst of them is so (none without runs).

    space: ranges of the training, for the nearest limit of each run; None where they are not known.
    """
    columns = ("sample_id", "rmse_nep", "bias_nep", "mean_gpp", "nse_nep", "rmse_npp", "rmse_rh")
    table: pd.DataFrame = reading.table(path, columns, "evaluate_model.py", may_be_empty=True)
    table = explained(table.sort_values("rmse_nep", ascending=False, kind="stable").reset_index(drop=True), space)
    names = {
        "sample_id": "run", "rmse_nep": "RMSE of NEP", "bias_nep": "bias of NEP", "bias_percent": "bias, % of MSE",
        "rmse_npp": "RMSE of NPP", "rmse_rh": "RMSE of Rh", "mean_gpp": "mean GPP", "nse_nep": "NSE of NEP",
        "at_rest": "at rest", "limit": "nearest limit", "limit_percent": "% of its range away",
    }  # fmt: skip
    names = {column: header for column, header in names.items() if column in table}
    caption = (
        f"The unseen runs, worst predicted first ({FLUX_UNIT}). Bias, % of MSE: the share of the squared error of NEP "
        "that a constant would mend; the rest is shape. At rest: its carbon pools no longer changed when the run began."
    )
    said = [bias_sentence(table), worst_sentence(table)] if len(table) else []
    return content.table_of(table, caption, names), said


def bias_sentence(table: pd.DataFrame) -> str:
    """On which side of the process model NEP lies on average over the unseen runs, as a year's sum, and in how many.

    Beside it what NEP is in that period, where it is known: a bias is small or large against that.
    """
    bias = table["bias_nep"].mean()
    same = int((np.sign(table["bias_nep"]) == np.sign(bias)).sum())
    said = (
        f"On average NEP lies {DAYS_PER_YEAR * abs(bias):.2f} Mg C ha-1 year-1 too {'high' if bias > 0 else 'low'}, in "
        f"{same} of {len(table)} unseen runs on this side"
    )
    if "mean_nep" in table:
        annual = DAYS_PER_YEAR * table["mean_nep"]
        said += f"; in the test period the process model's own is {annual.min():.2f} to {annual.max():.2f}"
    return said + "."


def explained(table: pd.DataFrame, space: ParameterSpace | None) -> pd.DataFrame:
    """The table of unseen runs with bias_percent, and limit and limit_percent where ranges and parameters are known."""
    squared = np.maximum(np.square(table["rmse_nep"].to_numpy(float)), np.finfo(float).tiny)
    table = table.assign(bias_percent=100 * np.square(table["bias_nep"].to_numpy(float)) / squared)
    if space is None or not set(space.names) <= set(table) or table.empty:
        return table
    place = space.physical_to_unit(table[list(space.names)].to_numpy(float))
    distance = np.where(space.width > 0, np.minimum(place, 1 - place), np.inf)
    nearest = distance.argmin(axis=1)
    return table.assign(
        limit=[
            f"{'lower' if place[run, k] < 0.5 else 'upper'} end of {space.names[k]}" for run, k in enumerate(nearest)
        ],
        limit_percent=100 * np.maximum(distance.min(axis=1), 0.0),
    )  # fmt: skip


def worst_sentence(table: pd.DataFrame) -> str:
    """Why the first run of explained() is predicted worst: bias or shape, which flux, how near to a limit."""
    worst, median = table.iloc[0], table["rmse_nep"].median()
    side = "high" if worst.bias_nep > 0 else "low"
    kind = f"bias (it lies too {side})" if worst.bias_percent > 50 else "shape, not bias"
    said = (
        f"Run {worst.sample_id} is predicted worst: NEP RMSE {worst.rmse_nep:.5f}, {worst.rmse_nep / median:.1f} times "
        f"the median of the unseen runs. It is mostly {kind}: the bias is {worst.bias_percent:.0f} percent of the "
        "squared error. "
    )
    larger, smaller = ("npp", "rh") if worst.rmse_npp >= worst.rmse_rh else ("rh", "npp")
    said += (
        f"{FLUX_LABELS[larger]} errs more than {FLUX_LABELS[smaller]} ({worst[f'rmse_{larger}']:.5f} against "
        f"{worst[f'rmse_{smaller}']:.5f}). "
    )
    if not worst.get("at_rest", True):
        said += "It is not at rest. "
    if "limit" in table:
        usual = table["limit_percent"].median()
        said += (
            f"The limit nearest to its parameters is the {worst.limit}, {worst.limit_percent:.1f} percent of the range "
            f"away; {usual:.1f} is usual, so it lies {'nearer' if worst.limit_percent < usual else 'no nearer'} than "
            "most."
        )
    return said.strip()
