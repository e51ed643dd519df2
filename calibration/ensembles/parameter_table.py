"""An ensemble's parameter_summary.csv: reading it as people write it, and naming columns that are no parameters."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError, existing_file, notice
from calibration.common.parameters import canonical_name

LARGEST_ID = 10**9  # of a sample
SAMPLE_COLUMNS = (
    "sample_id",
    "sample_idx",
    "sample",
    "sample_index",
    "run_id",
    "run",
)  # also of experiment_results.csv
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
# Names of what people keep beside parameters: run numbers, times, scores, states of the run.
NO_PARAMETER = re.compile(
    r"(real|run|id|idx|index|no|num|number|seed|iter|iteration|chain|member|trial|.*_(id|idx|index|seed))$"
    r"|.*(runtime|elapsed|seconds|_sec|duration|wall|cpu)|(time|date|status|success|job|node|host)(_|$)"
    r"|(.*_)?(rmse|mse|mae|bias|nse|kge|r2|rsq|score|loss|cost|likelihood|loglik|objective|fitness|misfit)(_|$)",
    re.IGNORECASE,
)
ENOUGH_RUNS = 30  # to say of a column that it has no effect
NO_EFFECT = 2.2  # standard errors of a rank correlation


def read_parameter_summary(
    path: str | Path, drop: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Read a parameter_summary.csv: sample ids (run,) ascending, names, values (run, parameter) in physical units.

    Separated by commas, semicolons (then with decimal commas) or tabs. drop: columns to leave out, in any case. Known
    names come back in the catalogue's spelling, whatever their case. Raises UserError naming the line and column
    of a missing or repeated id, a repeated name, a NaN or anything that is no number.
    """
    path = existing_file(path, "run run_perturbations.py first, or give the folder that holds it")
    separator = _separator(path)
    options = {"dtype": str, "skipinitialspace": True, "encoding": "utf-8-sig", "sep": separator}
    try:
        header = pd.read_csv(path, header=None, nrows=1, keep_default_na=False, **options).iloc[0]
        table = pd.read_csv(path, index_col=False, **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not readable as CSV ({error}); expected sample_id and one column a parameter, one row a run"
        ) from None
    table.columns = [column.strip() for column in header]  # pandas would rename the second of two equal names
    other = next((name for name in table.columns if name.lower() in SAMPLE_COLUMNS), None)
    if "sample_id" not in table.columns and other is not None:
        notice(f"{path}: column {other} is read as sample_id")
        table = table.rename(columns={other: "sample_id"})
    if separator != ",":
        table = table.apply(_points)
        notice(f"{path}: is separated by {SEPARATORS[separator]}; read so")
    if drop:
        table = _without(path, table, drop)
    if "sample_id" not in table.columns:
        raise UserError(f"{path}: column 'sample_id' is missing; found {', '.join(table.columns[:6])}, ...")
    for place, column in enumerate(table.columns, start=1):
        if not column or column.startswith("Unnamed: "):  # pandas' row numbers would become a parameter
            raise UserError(f"{path}: column {place} has no name, as a table's row numbers have none; remove it")
    columns = [column for column in table.columns if column != "sample_id"]
    names = [canonical_name(column) or column for column in columns]
    for name in ("sample_id", *names):
        count = max(names.count(name), list(table.columns).count(name))
        if count > 1:
            raise UserError(f"{path}: {name} has {count} columns; keep one")
    if table.empty or not names:
        raise UserError(f"{path}: holds no runs or no parameters; it needs sample_id and one column a parameter")
    values = np.empty((len(table), len(names)))
    for i, column in enumerate(["sample_id", *columns]):
        numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64)
        bad = ~np.isfinite(numbers)
        if column == "sample_id":
            ids = numbers
            bad |= (numbers != np.floor(numbers)) | (numbers < 0) | (numbers > LARGEST_ID)
        else:
            values[:, i - 1] = numbers
        if bad.any():
            row = int(bad.argmax())
            found = "empty or NaN" if pd.isna(table[column].iloc[row]) else repr(table[column].iloc[row])
            kind = "a whole number from 0" if column == "sample_id" else "a finite number"
            what = "fill or remove the column" if bad.all() and len(bad) > 1 else "correct or remove the row"
            raise UserError(f"{path}, line {row + 2}: {column} is {found}, expected {kind}; {what}")
    ids = ids.astype(np.int64)
    repeated = pd.Series(ids).duplicated().to_numpy()
    if repeated.any():
        row = int(repeated.argmax())
        raise UserError(f"{path}, line {row + 2}: sample_id {ids[row]} is there twice; each sample needs its own id")
    order = np.argsort(ids)
    return ids[order], tuple(names), values[order]


def _separator(path: Path) -> str:
    """Comma, semicolon or tab: what the header has most of. UserError when the file is no text."""
    try:
        with path.open(encoding="utf-8-sig") as handle:
            header = next((line for line in handle if line.strip()), "")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not readable as CSV ({error}); expected sample_id and one column a parameter, one row a run"
        ) from None
    return max(SEPARATORS, key=header.count)


def _points(column: pd.Series) -> pd.Series:
    """Numbers with decimal commas written with points."""
    return column.str.replace(r"^\s*([-+]?\d*),(\d+(?:[eE][-+]?\d+)?)\s*$", r"\1.\2", regex=True)


def _without(path: Path, table: pd.DataFrame, drop: Sequence[str]) -> pd.DataFrame:
    """The table without some columns (named in any case); UserError on one that is not there, or is sample_id."""
    by_name = {str(name).lower(): name for name in table.columns}
    for name in drop:
        if name.lower() not in by_name:
            raise UserError(f"{path}: has no column {name} to drop; found {', '.join(map(str, table.columns[:12]))}")
        if name.lower() == "sample_id":
            raise UserError(f"{path}: sample_id cannot be dropped: it tells which file belongs to which row")
    return table.drop(columns=[by_name[name.lower()] for name in drop])


def suspects(
    ids: np.ndarray, names: Sequence[str], values: np.ndarray, mean_fluxes: np.ndarray
) -> dict[str, str]:  # fmt: skip
    """Columns that look like no parameters, with the reason: by name, by constant steps, or without effect.

    ids: (run,); values: (run, parameter); mean_fluxes: (run, flux). Parameters of the process model are never named.
    """
    found = {}
    for name, column in zip(names, values.T, strict=True):
        if canonical_name(name) is not None or (column == column[0]).all():
            continue
        steps = np.diff(column)
        if NO_PARAMETER.match(name):
            found[name] = "by its name"
        elif len(column) > 3 and np.allclose(steps, steps[0], rtol=1e-6, atol=0):
            found[name] = f"rises by {steps[0]:g} from run to run"
        elif len(column) >= ENOUGH_RUNS and _largest_correlation(column, mean_fluxes) < NO_EFFECT / np.sqrt(
            len(column)
        ):
            found[name] = "without effect on the mean fluxes"
    return found


def _largest_correlation(column: np.ndarray, fluxes: np.ndarray) -> float:
    """Largest rank correlation of a column (run,) with one of the fluxes (run, flux)."""
    rank = pd.Series(column).rank().to_numpy()
    others = [pd.Series(flux).rank().to_numpy() for flux in fluxes.T if np.ptp(flux) > 0]
    return max((abs(float(np.corrcoef(rank, other)[0, 1])) for other in others), default=1.0)
