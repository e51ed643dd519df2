"""What the report of an inversion says of its parameters: informed, true where that is known, in their ranges."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import ARCHIVE_ERRORS, UserError, read_arrays, read_json
from calibration.common.parameters import catalogue, make_space, read_ranges
from calibration.inversion.posterior import BORDERLINE, COMBINED, INFORMED, informed_words, places_sentence
from calibration.judgement.tables import TRUTH
from calibration.reports import content, reading
from calibration.reports.content import Interactive, Table, table_of
from calibration.reports.interactive import parameter_figure

SCRIPT = "test_inversion.py"
# What 90 percent intervals held in tests, percent of the true values: 100 made-up towers, a year of NEP, noise 0.005,
# the demo's emulator (benchmarks/results/recovery.md). By name those that such data inform; then all 36.
HELD = {"tree_lue": 86, "tree_topt": 85, "tree_pmax": 85}
HELD_OF_ALL = 89
TESTS = "in 100 tests with made-up towers (a year of NEP, noise 0.005)"
RATIOS = (
    "A ratio of 128 draws carries 6 percent of chance: next to the limit it decides nothing, and one above 1 means 1."
)
PAIRS, MISSED = 3, 6  # pairs, and parameters outside their intervals, that a sentence names
NOT_TO_BE_READ = (
    "Not to be read as findings: the model conflicts with the data, and a short interval only says where the misfit "
    "pushed. Hover to see which parameters sit at an end of their range."
)


def informed_sentence(posterior: pd.DataFrame) -> str:
    """Which parameters the data informed, and how sure that is."""
    ordered = posterior.sort_values("sd_ratio")
    found, ratio = ordered[ordered["sd_ratio"] < INFORMED], ordered["sd_ratio"]
    near = ordered[(ratio >= INFORMED) & (ratio <= INFORMED + BORDERLINE)]
    missed = ", ".join(f"{row.param_name} ({row.sd_ratio:.3f})" for row in near.itertuples())
    missed = f" Just short of it: {missed}." if missed else ""
    if found.empty:
        return (
            f"No parameter's posterior sd fell below {INFORMED:g} of the prior's: the data inform none by itself."
            + missed
        )
    named = "; ".join(
        f"{row.param_name} {row.optimized:.3g} {row.unit.strip('-')}".rstrip()
        + f" (90 percent interval {row.low_90:.3g} to {row.high_90:.3g}, posterior sd over the prior's "
        f"{informed_words(row.sd_ratio)})"
        for row in found.itertuples()
    )
    return f"Informed, of {len(posterior)} parameters: {named}.{missed} {held_sentence(found['param_name'])}"


def held_sentence(names: Iterable[str]) -> str:
    """What 90 percent intervals held in tests, of the parameters `names` where they were tested as informed ones."""
    tested = ", ".join(f"those of {name} {HELD[name]} percent" for name in names if name in HELD)
    if not tested:
        return f"Such intervals held {HELD_OF_ALL} percent of the true values {TESTS}."
    return (
        f"Such intervals held a little less than they say {TESTS}: {tested} of the true values, those of all "
        f"parameters {HELD_OF_ALL}."
    )


def correlation_sentence(path: Path) -> str:
    """The parameters of posterior_correlation.csv that are known only together; '' where there are none, or no file."""
    if not path.is_file():
        return ""
    table = reading.table(path, ("param_name",), SCRIPT).set_index("param_name")
    names, values = list(map(str, table.index)), table.to_numpy(dtype=float)
    if values.shape != (len(names), len(names)):
        raise UserError(f"{path}: {values.shape[1]} columns for {len(names)} parameters; run {SCRIPT} again")
    rows, columns = np.nonzero(np.tril(np.abs(values) > COMBINED, -1))
    order = np.argsort(-np.abs(values[rows, columns]), kind="stable")
    pairs = [f"{names[rows[k]]} with {names[columns[k]]} ({values[rows[k], columns[k]]:+.2f})" for k in order]
    if not pairs:
        return ""
    more = f", and {len(pairs) - PAIRS} more pairs" if len(pairs) > PAIRS else ""
    return f"Better known together than alone (posterior correlation): {', '.join(pairs[:PAIRS])}{more}."


def modes_sentence(path: Path) -> str:
    """In how many places the posterior of posterior.npz lies; '' where it is the estimate's alone, or no file."""
    if not path.is_file():
        return ""
    try:
        weights = read_arrays(path, ["mode_weights"])["mode_weights"].astype(float)
    except ARCHIVE_ERRORS as error:
        raise UserError(f"{path}: not readable as a posterior ({error}); run {SCRIPT} again") from None
    if len(weights) < 2:
        return ""
    said = places_sentence(weights)
    return f"Multimodal: {said}." if said else ""


def with_truth(table: pd.DataFrame, directory: Path) -> tuple[pd.DataFrame, str]:
    """The table with a column `true` where the folder says what is true (only of made-up data), and a sentence on it.

    The table as it is and '' where it does not, as at every real tower. With intervals (low_90, high_90, sd_ratio)
    also a column `inside`, empty for parameters that were not free.
    """
    path = directory / TRUTH
    if not path.is_file():
        return table, ""
    found = reading.content(path, ("parameters", "source"), SCRIPT)
    values, source = found["parameters"], str(found["source"])
    if not isinstance(values, dict) or not all(content.is_number(value) for value in values.values()):
        raise UserError(f"{path}: 'parameters' must hold a number for each name; run {SCRIPT} again")
    table = table.assign(true=[values.get(str(name), np.nan) for name in table["param_name"]])
    known = table["true"].notna()
    if "low_90" not in table:
        return table, f"The true values are known here ({source}); they stand in the table."
    known &= table["sd_ratio"].notna()
    inside = (table["low_90"] <= table["true"]) & (table["true"] <= table["high_90"])
    table = table.assign(inside=inside.astype(object).where(known, None))
    outside = [
        f"{row.param_name}{', which counts as informed' if row.sd_ratio < INFORMED else ''}"
        for row in table[known & ~inside].itertuples()
    ]
    more = " and others" if len(outside) > MISSED else ""
    missed = f" Outside: {'; '.join(outside[:MISSED])}{more}." if outside else ""
    return table, (
        f"The true values are known here ({source}): {int(inside[known].sum())} of {int(known.sum())} lie inside their "
        f"90 percent intervals.{missed}"
    )


def with_meaning(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the catalogue's meaning and unit of every parameter (empty where it is not known there)."""
    known = catalogue()
    names = table["param_name"].astype(str)
    return table.assign(
        meaning=[known[name].meaning if name in known else "" for name in names],
        unit=[known[name].unit if name in known else "" for name in names],
    )


def parameter_blocks(posterior: pd.DataFrame, metadata: dict, readable: bool = True) -> list[content.Block]:
    """Parameters sorted by information gained: to be hovered where their ranges are known, and as a table.

    readable: False in conflict; no parameter is then highlighted as informed.
    """
    posterior = posterior.sort_values("sd_ratio", na_position="last").reset_index(drop=True)
    blocks: list[content.Block] = []
    placed = in_ranges(posterior, metadata)
    if placed is not None:
        caption = (
            "Every parameter inside its range, most informed on top (coloured: informed). Hover for values and "
            "meaning. A grey bar that fills the range says that the data left the prior as it was."
            + (" Crosses are the true values." if "true" in placed else "")
        )
        caption = caption if readable else NOT_TO_BE_READ
        blocks.append(Interactive(parameter_figure(placed, readable), caption, "Parameters with 90 percent intervals"))
    marked = frozenset(np.flatnonzero(posterior["sd_ratio"] < INFORMED).tolist() if readable else ())
    names = {
        "param_name": "parameter", "meaning": "meaning", "unit": "unit", "prior": "prior", "optimized": "estimate",
        "mean": "posterior mean", "true": "true", "low_90": "90 % from", "high_90": "to", "inside": "true inside",
        "sd_ratio": "posterior / prior sd",
    }  # fmt: skip
    names = {column: header for column, header in names.items() if column in posterior}
    caption = f"Parameters, most informed first (highlighted: posterior sd below {INFORMED:g} of the prior's). {RATIOS}"
    caption = caption if readable else "The same values as a table; not findings."
    blocks.append(table_of(posterior, caption, names, marked))
    return blocks


def in_ranges(posterior: pd.DataFrame, metadata: dict) -> pd.DataFrame | None:
    """The table with places in the range (0-1) of prior, estimate and interval; None where a range is unknown.

    Ranges: of the emulator's folder while it is there, else the default ones. Ties are left out: a tied parameter's
    place is that inside its widest range.
    """
    space = read_ranges()
    config = reading.where(metadata.get("artifacts") or "none") / "config.json"
    if config.is_file():
        entries = read_json(config).get("parameter_space")
        space = make_space([tuple(entry) for entry in entries], config) if entries else space
    if any(name not in space.names for name in posterior["param_name"]):
        return None
    index = [space.names.index(name) for name in posterior["param_name"]]
    low, width = space.lower[index], np.where(space.width[index] > 0, space.width[index], 1.0)
    columns = {"prior_unit": "prior", "optimized_unit": "optimized", "low_unit": "low_90", "high_unit": "high_90",
               "true_unit": "true"}  # fmt: skip
    places = {unit: (posterior[name] - low) / width for unit, name in columns.items() if name in posterior}
    return posterior.assign(**places)


def values_table(values: pd.DataFrame) -> Table:
    """Parameters of an estimate without a posterior, or given ones; with the true ones where they are known."""
    names = {"param_name": "parameter", "meaning": "meaning", "unit": "unit", "prior": "prior", "optimized": "value",
             "true": "true"}  # fmt: skip
    values = with_meaning(values)
    names = {column: header for column, header in names.items() if column in values}
    return table_of(values, "Parameters, without intervals.", names)
