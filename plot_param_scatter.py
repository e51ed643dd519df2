"""Scatter of true against estimated parameters in units of their ranges, from a CSV of evaluate_parameter_recovery.py.

Positions are in the ranges of the ensemble that the emulator was trained on: the CSV holds them, else --artifacts-dir.

Example
  python plot_param_scatter.py inverse_recovery/sample000_win0000_mean_20250101-120000_params.csv --include-prior
"""

import time
from pathlib import Path

import numpy as np

from calibration.common.command_line import REPOSITORY, make_parser, run
from calibration.common.figure_style import FORMATS, save_figure, use_format
from calibration.common.provenance import write_record
from calibration.common.reproduction import add_reproduce
from calibration.judgement.recovery_case import choose_ranges, normalised, read_recovery
from calibration.judgement.recovery_figures import normalised_scatter


def main() -> int:
    begin = time.perf_counter()
    parser = make_parser(__doc__)
    parser.add_argument("csv", help="*_params.csv with param_name, true, prior, estimated (physical units)")
    parser.add_argument(
        "--range-csv", help="range_of_paras.csv or bounds YAML (default: the ranges of the emulator's ensemble)"
    )
    parser.add_argument(
        "--artifacts-dir", default=str(REPOSITORY / "artifacts"), help="emulator, for a CSV that holds no ranges"
    )
    parser.add_argument("--include-prior", action="store_true", help="draw the prior too")
    parser.add_argument("--output", help="figure to write (default: beside the CSV, name + _norm_scatter.png)")
    parser.add_argument("--figure-format", choices=FORMATS, default="png", help="pdf or svg for a paper")
    add_reproduce(parser, "--output")
    arguments = parser.parse_args()

    use_format(arguments.figure_format)
    path = Path(arguments.csv)
    table = read_recovery(path, arguments.include_prior)
    space, source = choose_ranges(table, path, arguments.range_csv, Path(arguments.artifacts_dir))
    names = table["param_name"].tolist()
    true, estimated = (normalised(space, names, table[column], source) for column in ("true", "estimated"))
    prior = normalised(space, names, table["prior"], source) if arguments.include_prior else None
    title = f"mean absolute error / range: estimated {np.abs(estimated - true).mean():.3f}"
    if prior is not None:
        title += f", prior {np.abs(prior - true).mean():.3f}"
    output = Path(arguments.output) if arguments.output else path.with_name(f"{path.stem}_norm_scatter")
    shown = table.get("label", table["param_name"]).tolist()  # both labels where a label map was in force
    output = save_figure(normalised_scatter(shown, true, estimated, prior, title), output)
    write_record(output.parent, begin, {"recovery": path, "ranges": arguments.range_csv}, output.name)
    print(f"{title}\nwrote {output}")
    return 0


if __name__ == "__main__":
    run(main)
