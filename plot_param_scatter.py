"""Scatter of true against estimated parameters in units of their ranges, from a CSV of evaluate_parameter_recovery.py.

Positions are in the ranges of the ensemble that the emulator was trained on: the CSV holds them, else --artifacts-dir.

Example
  python plot_param_scatter.py inverse_recovery/sample000_win0000_mean_20250101-120000_params.csv --include-prior
"""

from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import (
    REPOSITORY,
    UserError,
    existing_file,
    make_parser,
    read_json,
    run,
    warn,
    writing,
)
from calibration.common.parameters import ParameterSpace, make_space, read_ranges
from calibration.judgement.recovery_figures import normalised_scatter

ESTIMATE_COLUMNS = ("estimated", "optimized")
FEW_OUTSIDE = 0.05  # share of the values that may lie outside ranges that belong to them
MARGIN = 0.02  # of a range: rounding is not outside


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("csv", help="*_params.csv with param_name, true, prior, estimated (physical units)")
    parser.add_argument(
        "--range-csv", help="range_of_paras.csv or bounds YAML (default: the ranges of the emulator's ensemble)"
    )
    parser.add_argument(
        "--artifacts-dir", default=str(REPOSITORY / "artifacts"), help="emulator, for a CSV that holds no ranges"
    )
    parser.add_argument("--include-prior", action="store_true", help="draw the prior too")
    parser.add_argument("--output", help="PNG to write (default: beside the CSV, name + _norm_scatter.png)")
    arguments = parser.parse_args()

    path = Path(arguments.csv)
    table = read_recovery(path, arguments.include_prior)
    space, source = choose_ranges(table, path, arguments.range_csv, Path(arguments.artifacts_dir))
    names = table["param_name"].tolist()
    true, estimated = (normalised(space, names, table[column], source) for column in ("true", "estimated"))
    prior = normalised(space, names, table["prior"], source) if arguments.include_prior else None
    title = f"mean absolute error / range: estimated {np.abs(estimated - true).mean():.3f}"
    if prior is not None:
        title += f", prior {np.abs(prior - true).mean():.3f}"
    output = Path(arguments.output) if arguments.output else path.with_name(f"{path.stem}_norm_scatter.png")
    with writing(output) as temporary:
        normalised_scatter(names, true, estimated, prior, title).savefig(temporary, dpi=130)
    print(f"{title}\nwrote {output}")
    return 0


def read_recovery(path: Path, with_prior: bool) -> pd.DataFrame:
    """Columns param_name, true, estimated (and prior). UserError names a missing column or a wrong value."""
    existing_file(path, "make it with evaluate_parameter_recovery.py")
    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as CSV ({error}); make it with evaluate_parameter_recovery.py") from None
    found = next((name for name in ESTIMATE_COLUMNS if name in table), None)
    if found:
        table = table.rename(columns={found: "estimated"})
    needed = ["param_name", "true", "estimated", *(["prior"] if with_prior else [])]
    for name in needed:
        if name not in table:
            raise UserError(
                f"{path}: has no column '{name}' (found {', '.join(table.columns)}); give a *_params.csv of "
                "evaluate_parameter_recovery.py"
            )
    for name in needed[1:]:
        values = pd.to_numeric(table[name], errors="coerce")
        if values.isna().any():
            line = int(np.flatnonzero(values.isna())[0])
            raise UserError(f"{path}, line {line + 2}: {name} is {str(table[name][line])!r}, expected a number")
        table[name] = values
    if table.empty:
        raise UserError(f"{path}: holds no parameter; make it again with evaluate_parameter_recovery.py")
    return table


def choose_ranges(table: pd.DataFrame, path: Path, given: str | None, artifacts: Path) -> tuple[ParameterSpace, str]:
    """The ranges for the axes and where they come from: the file given, else the ensemble's own.

    The ensemble's own stand in the CSV (range_low, range_high) or in the emulator's config.json. Where more than a few
    values lie outside a file's ranges the ensemble's own are used instead, with a warning; UserError without them.
    """
    candidates = [(read_ranges(given), given)] if given else []
    if {"range_low", "range_high"} <= set(table):
        rows = zip(table["param_name"], table["range_low"], table["range_high"], strict=True)
        candidates.append((make_space([(name, float(low), float(high)) for name, low, high in rows], path), str(path)))
    config = artifacts / "config.json"
    if config.is_file() and (len(candidates) < (2 if given else 1)):
        entries = read_json(config).get("parameter_space") or []
        known = make_space([tuple(entry) for entry in entries], config) if entries else None
        if known is not None and set(table["param_name"]) <= set(known.names):
            candidates.append((known, str(config)))
    refused = []
    for space, source in candidates:
        missing = [name for name in table["param_name"] if name not in space.names]
        outside = [] if missing else values_outside(space, table)
        if missing and len(candidates) > len(refused) + 1:
            refused.append(f"{source} has no range for {missing[0]}")
        elif missing or len(outside) <= max(2, FEW_OUTSIDE * 2 * len(table)):
            if refused:
                warn(f"{refused[0]}: the ranges of the ensemble are used instead ({source})")
            return space, source
        else:
            refused.append(
                f"{source}: {len(outside)} of {2 * len(table)} values lie outside these ranges (such as {outside[0]}), "
                "so they are not those of the ensemble"
            )
    if refused:
        raise UserError(
            f"{refused[0]}; give the ensemble's own ranges with --range-csv, or its emulator with --artifacts-dir"
        )
    raise UserError(
        f"{path}: holds no ranges, and {config} is no emulator of these parameters; give the ensemble's ranges with "
        "--range-csv"
    )


def values_outside(space: ParameterSpace, table: pd.DataFrame) -> list[str]:
    """The true and estimated values that lie outside the ranges, in words."""
    found = []
    for column in ("true", "estimated"):
        place = normalised(space, table["param_name"].tolist(), table[column], "")
        for row in np.flatnonzero((place < -MARGIN) | (place > 1 + MARGIN)):
            name, value = table["param_name"].iloc[row], table[column].iloc[row]
            at = space.names.index(name)
            found.append(f"{column} {name} {value:g}, range {space.lower[at]:g} to {space.upper[at]:g}")
    return found


def normalised(space: ParameterSpace, names: list[str], values: pd.Series, source: str) -> np.ndarray:
    """Position of values (parameter,) in the full range of each parameter (a tied one: the widest), 0-1."""
    missing = [name for name in names if name not in space.names]
    if missing:
        raise UserError(
            f"{source}: has no range for {', '.join(missing)}; give the ranges of the ensemble (--range-csv)"
        )
    index = [space.names.index(name) for name in names]
    width = np.where(space.width[index] > 0, space.width[index], 1.0)
    return (values.to_numpy(dtype=float) - space.lower[index]) / width


if __name__ == "__main__":
    run(main)
