"""Scatter of true against estimated parameters in units of their ranges, from a CSV of evaluate_parameter_recovery.py.

Example
  python plot_param_scatter.py inverse_recovery/sample000_win0000_mean_20250101-120000_params.csv --include-prior
"""

from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError, existing_file, make_parser, run, writing
from calibration.common.parameters import DEFAULT_RANGES, ParameterSpace, read_ranges
from calibration.judgement.recovery_figures import normalised_scatter

ESTIMATE_COLUMNS = ("estimated", "optimized")


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("csv", help="*_params.csv with param_name, true, prior, estimated (physical units)")
    parser.add_argument("--range-csv", default=str(DEFAULT_RANGES), help="range_of_paras.csv or bounds YAML")
    parser.add_argument("--include-prior", action="store_true", help="draw the prior too")
    parser.add_argument("--output", help="PNG to write (default: beside the CSV, name + _norm_scatter.png)")
    arguments = parser.parse_args()

    path = Path(arguments.csv)
    table = read_recovery(path, arguments.include_prior)
    space = read_ranges(arguments.range_csv)
    names = table["param_name"].tolist()
    true, estimated = (normalised(space, names, table[column], arguments.range_csv) for column in ("true", "estimated"))
    prior = normalised(space, names, table["prior"], arguments.range_csv) if arguments.include_prior else None
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
