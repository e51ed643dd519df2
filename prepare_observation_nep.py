"""Tower NEE -> daily NEP with a mask of valid days, for the inversion.

    python prepare_observation_nep.py --input FLX_MY-LHP_DD.csv --start 2012-01-01 --end 2016-12-31 \\
        --nee-column NEE_vUT --nee-qc-column NEE_vUT_QC --qc-threshold 0.5 --output observations/nep_obs.csv

NEE is g C m-2 day-1, positive = release; NEP = -NEE / 100 is Mg C ha-1 day-1, positive = uptake. Daily files of
JapanFlux2024, FLUXNET2015 (FULLSET, SUBSET), ICOS and AmeriFlux FLUXNET are recognised; TIMESTAMP is a local day and
never shifted. Missing codes (-9999, empty) and impossible values (above 50 g C m-2 day-1) are missing; days whose QC
is worse than the threshold are masked. GPP, RECO and the random uncertainty of NEE go along where the file has them.
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import (
    REPOSITORY,
    iso_date,
    make_parser,
    not_an_input,
    run,
    warn,
    write_csv,
    write_json,
)
from calibration.common.provenance import write_record
from calibration.common.reproduction import add_reproduce
from calibration.tower.checks import ABSURD_NEE
from calibration.tower.file import TowerFile, read_tower_file
from calibration.tower.layouts import HIGH, LAYOUTS, LOW, NepColumns, choose_columns, variant
from calibration.tower.nep import check_threshold, prepare
from calibration.tower.observation_csv import by_month, by_year


def main() -> None:
    begin = time.perf_counter()
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--input", required=True, help="daily CSV of the tower, as the network publishes it")
    add("--output", default=str(REPOSITORY / "observations" / "nep_obs.csv"), help="observation CSV to write")
    add("--start", type=iso_date, help="first day, YYYY-MM-DD (default: the file's)")
    add("--end", type=iso_date, help="last day, included, YYYY-MM-DD (default: the file's)")
    add("--layout", choices=["auto", *LAYOUTS], default="auto", help="network of the file")
    add("--nee-column", help="NEE column, g C m-2 day-1 (default: the layout's, such as NEE_vUT or NEE_VUT_REF)")
    add("--nee-qc-column", help="its daily quality flag; '' for none (default: the NEE column's own, name + _QC)")
    add("--qc-best", choices=[LOW, HIGH], help="which end of the flag is best (default: by its name and values)")
    add("--qc-threshold", type=float, default=0.5, help="worst flag that is kept: at most (low best), at least (high)")
    add("--force", action="store_true", help="use a flux whose sign looks reversed")
    add("--no-figure", action="store_true", help="write no figure")
    add("--report", action="store_true", help="also write report.html on the output's folder (make_report.py)")
    add_reproduce(parser, "--output")
    arguments = parser.parse_args()

    not_an_input(arguments.output, arguments.input)
    tower = read_tower_file(arguments.input)
    columns = choose_columns(tower, arguments.layout, arguments.nee_column, arguments.nee_qc_column, arguments.qc_best)
    check_threshold(arguments.qc_threshold, columns)
    say_columns(tower, columns, arguments.qc_threshold)
    table = prepare(tower, columns, arguments.qc_threshold, arguments.start, arguments.end, arguments.force)
    write_results(Path(arguments.output), table, tower, columns, arguments)
    output = Path(arguments.output)
    write_record(output.parent, begin, {"tower file": arguments.input}, output.name)
    if arguments.report:
        from calibration.reports.kinds import report_on  # slow to import: loaded only where it is needed

        print(f"report: {report_on(Path(arguments.output).parent)}")


def say_columns(tower: TowerFile, columns: NepColumns, threshold: float) -> None:
    """Say what was recognised and what will be used."""
    print("\n".join(tower.described(f"{columns.layout.title}{variant(tower)}")))
    if columns.qc:
        sign = ">=" if columns.qc_best == HIGH else "<="
        print(f"  NEE from {columns.nee}, kept where {columns.qc} {sign} {threshold:g} ({columns.qc_best} is best)")
    else:
        print(f"  NEE from {columns.nee}, without a quality flag")
        if columns.layout.qc_best == HIGH:
            warn(
                f"{columns.nee} is gap-filled and never -9999 in this layout: without QC, filled days count as measured"
            )
    used = [f"{what} from {name}" for what, name in (
        ("GPP", columns.gpp), ("ER", columns.reco), ("error of NEP", columns.uncertainty)) if name]  # fmt: skip
    if used:
        print(f"  also {', '.join(used)}")
    lacking = [name for name, column in (("GPP", columns.gpp), ("ER", columns.reco)) if column is None]
    if lacking:
        print(f"  without {' and '.join(lacking)}: no column with values belongs to {columns.nee}")


def write_results(output: Path, table: pd.DataFrame, tower: TowerFile, columns: NepColumns, arguments) -> None:
    """The observation CSV, the tables by year and month, the record of choices, and the figure; then a summary."""
    years, months = by_year(table), by_month(table)
    write_csv(output, table, float_format="%.10g")
    for name, content in (("by_year", years), ("by_month", months)):
        write_csv(output.with_name(f"{output.stem}_{name}.csv"), content, float_format="%.6g")
    write_json(output.with_name(f"{output.stem}_choices.json"), {
        "input": str(arguments.input), "layout": columns.layout.name, "nee_column": columns.nee,
        "nee_qc_column": columns.qc, "qc_best": columns.qc_best, "qc_threshold": arguments.qc_threshold,
        "gpp_column": columns.gpp, "reco_column": columns.reco, "uncertainty_column": columns.uncertainty,
        "forced": arguments.force, "days": len(table), "valid_days": int(table["obs_mask"].sum()),
    })  # fmt: skip
    if not arguments.no_figure:
        from calibration.common.figure_style import save_figure  # matplotlib is slow to import
        from calibration.tower.figures import nep_figure

        save_figure(nep_figure(table, months, columns.nee), output.with_suffix(".png"))
    print(f"wrote {output}: {len(table)} days, {int(table['obs_mask'].sum())} valid")
    beyond = int((np.abs(tower.numbers(columns.nee)) > ABSURD_NEE).sum())
    if beyond:
        print(f"  {beyond} values of {columns.nee} beyond {ABSURD_NEE:g} g C m-2 day-1 count as missing")
    empty = [str(year) for year, valid in zip(years["year"], years["valid_days"], strict=True) if valid == 0]
    if empty:
        print(f"  no valid day at all in {', '.join(empty)}")
    print(years.to_string(index=False, float_format=lambda value: f"{value:.4g}"))


if __name__ == "__main__":
    run(main)
