"""Tower NEE -> daily NEP with a mask of valid days, for the inversion.

    python prepare_observation_nep.py --input FLX_MY-LHP_DD.csv --start 2012-01-01 --end 2016-12-31 \\
        --nee-column NEE_vUT --nee-qc-column NEE_vUT_QC --qc-threshold 0.5 --output observations/nep_obs.csv

NEE is g C m-2 day-1, positive = release; NEP = -NEE / 100 is Mg C ha-1 day-1, positive = uptake. Daily files of
JapanFlux2024, FLUXNET2015 (FULLSET, SUBSET), ICOS and AmeriFlux FLUXNET are recognised; TIMESTAMP is a local day and
never shifted. Missing codes (-9999, empty) and impossible values (above 50 g C m-2 day-1) are missing; days whose QC
is worse than the threshold are masked. GPP, RECO and the random uncertainty of NEE go along where the file has them.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import (
    REPOSITORY,
    UserError,
    iso_date,
    make_parser,
    not_an_input,
    run,
    warn,
    write_json,
    writing,
)
from calibration.common.units import G_M2_PER_MG_HA, nee_g_m2_to_nep_mg_ha
from calibration.tower.checks import ABSURD_NEE, partition_problem, sign_problem, unit_jump
from calibration.tower.file import TowerFile, read_tower_file
from calibration.tower.layouts import HIGH, LAYOUTS, LOW, NepColumns, choose_columns, variant
from calibration.tower.observation_csv import ER_COLUMN, GPP_COLUMN, NEP_SD_COLUMN, OBSERVATION_COLUMNS
from calibration.tower.summary import by_month, by_year


def prepare(
    tower: TowerFile, columns: NepColumns, qc_threshold: float = 0.5, start=None, end=None, force: bool = False
) -> pd.DataFrame:
    """Daily table with the columns of the observation CSV, one row for every day from start to end (None: the file's).

    date, nee_gcm2 (g C m-2 day-1), nee_source, nee_qc, nep_mg_ha (Mg C ha-1 day-1), obs_mask (1 valid, 0 not), and
    gpp_mg_ha, reco_mg_ha, nep_sd_mg_ha (Mg C ha-1 day-1) where the file has values. UserError when the period holds no
    valid day, or when a sign looks reversed (force=True: a warning instead).
    """
    raw = tower.numbers(columns.nee)
    nee = np.where(np.abs(raw) <= ABSURD_NEE, raw, np.nan)
    _check_sign(tower, columns.nee, sign_problem(tower, columns, nee), force)
    jump = unit_jump(raw, tower.dates)
    if jump:
        warn(
            f"{tower.path}: {columns.nee} changes its size {jump[1]:.3g}-fold on {jump[0]} and keeps it, as if its "
            "unit had changed: look at the figure before you use it"
        )
    qc = tower.numbers(columns.qc) if columns.qc else np.full(len(nee), np.nan)
    found = {"nee_gcm2": nee, "nee_qc": qc}
    if columns.uncertainty:
        uncertainty = tower.numbers(columns.uncertainty)
        found[NEP_SD_COLUMN] = np.where(uncertainty > 0, uncertainty, np.nan) / G_M2_PER_MG_HA
    for name, column in ((GPP_COLUMN, columns.gpp), (ER_COLUMN, columns.reco)):
        if column:
            values = tower.numbers(column)
            _check_sign(tower, column, partition_problem(column, values), force)
            found[name] = np.where(np.abs(values) <= ABSURD_NEE, values, np.nan) / G_M2_PER_MG_HA

    table = _on_every_day(tower, found, start, end)
    table.insert(1, "nee_source", columns.nee)
    table["nep_mg_ha"] = nee_g_m2_to_nep_mg_ha(table["nee_gcm2"]) + 0.0  # + 0.0: no "-0" in the file
    good = table["nee_gcm2"].notna()
    if columns.qc:
        good &= (table["nee_qc"] >= qc_threshold) if columns.qc_best == HIGH else (table["nee_qc"] <= qc_threshold)
    table["obs_mask"] = good.astype(int)
    if not good.any():
        raise UserError(_nothing_left(tower, columns, table, qc_threshold))
    extra = [name for name in (GPP_COLUMN, ER_COLUMN, NEP_SD_COLUMN) if name in table and table[name].notna().any()]
    return table[[*OBSERVATION_COLUMNS, *extra]]


def _check_sign(tower: TowerFile, name: str, problem: str | None, force: bool) -> None:
    """UserError (force: a warning) when something speaks against a column's sign."""
    if problem is None:
        return
    message = (
        f"{tower.path}: the sign of {name} looks reversed: {problem}; "
        "release must be positive in NEE, and GPP and RECO positive"
    )
    if not force:
        raise UserError(f"{message}: change the sign in the file, or say with --force that it is right")
    warn(f"{message} (used as it is, because of --force)")


def _on_every_day(tower: TowerFile, found: dict[str, np.ndarray], start, end) -> pd.DataFrame:
    """The columns on every day from start to end inside the file; days the file lacks are empty."""
    first = tower.dates[0] if start is None else max(np.datetime64(start, "D"), tower.dates[0])
    last = tower.dates[-1] if end is None else min(np.datetime64(end, "D"), tower.dates[-1])
    if start is not None and end is not None and np.datetime64(start, "D") > np.datetime64(end, "D"):
        raise UserError(f"--start {start} is after --end {end}; give them in order")
    if first > last:
        raise UserError(
            f"{tower.path}: holds {tower.dates[0]} to {tower.dates[-1]}, nothing from {start or 'its start'} to "
            f"{end or 'its end'}; choose days inside"
        )
    if (start is not None and first > np.datetime64(start, "D")) or (
        end is not None and last < np.datetime64(end, "D")
    ):
        warn(f"{tower.path}: holds {tower.dates[0]} to {tower.dates[-1]} only; the output covers {first} to {last}")
    days = np.arange(first, last + 1)
    index = (tower.dates - first).astype(int)
    inside = (index >= 0) & (index < len(days))
    table = pd.DataFrame({"date": days.astype(str)})
    for name, values in found.items():
        column = np.full(len(days), np.nan)
        column[index[inside]] = values[inside]
        table[name] = column
    return table


def _nothing_left(tower: TowerFile, columns: NepColumns, table: pd.DataFrame, threshold: float) -> str:
    missing = int(table["nee_gcm2"].isna().sum())
    text = (
        f"{tower.path}: no valid observation left from {table['date'].iloc[0]} to {table['date'].iloc[-1]}: of "
        f"{len(table)} days {columns.nee} is missing or impossible on {missing}"
    )
    if not columns.qc or missing == len(table):
        return f"{text}; choose other days or another --nee-column"
    sign = ">=" if columns.qc_best == HIGH else "<="
    low, high = table["nee_qc"].min(), table["nee_qc"].max()
    return (
        f"{text} and {columns.qc} {sign} {threshold:g} fails on the others (it runs from {low:g} to {high:g}, "
        f"{columns.qc_best} is best); change --qc-threshold or --qc-best"
    )


def check_threshold(threshold: float, columns: NepColumns) -> None:
    """UserError when the threshold cannot belong to the flag."""
    limit = 1.0 if columns.qc_best == HIGH else 3.0
    if columns.qc and not 0 <= threshold <= limit:
        raise UserError(
            f"--qc-threshold is {threshold:g}, allowed is 0 to {limit:g} for {columns.qc} ({columns.qc_best} is best)"
        )


def main() -> None:
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
    arguments = parser.parse_args()

    not_an_input(arguments.output, arguments.input)
    tower = read_tower_file(arguments.input)
    columns = choose_columns(tower, arguments.layout, arguments.nee_column, arguments.nee_qc_column, arguments.qc_best)
    check_threshold(arguments.qc_threshold, columns)
    describe(tower, columns, arguments.qc_threshold)
    table = prepare(tower, columns, arguments.qc_threshold, arguments.start, arguments.end, arguments.force)
    write_results(Path(arguments.output), table, tower, columns, arguments)


def describe(tower: TowerFile, columns: NepColumns, threshold: float) -> None:
    """Say what was recognised and what will be used."""
    print(f"{tower.path}: {columns.layout.title}{variant(tower)}, {len(tower.columns)} columns, "
          f"{tower.dates[0]} to {tower.dates[-1]} ({len(tower.dates)} days)")  # fmt: skip
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


def write_results(output: Path, table: pd.DataFrame, tower: TowerFile, columns: NepColumns, arguments) -> None:
    """The observation CSV, the tables by year and month, the record of choices, and the figure; then a summary."""
    years, months = by_year(table), by_month(table)
    with writing(output) as temporary:
        table.to_csv(temporary, index=False, float_format="%.10g")
    for name, content in (("by_year", years), ("by_month", months)):
        with writing(output.with_name(f"{output.stem}_{name}.csv")) as temporary:
            content.to_csv(temporary, index=False, float_format="%.6g")
    write_json(output.with_name(f"{output.stem}_choices.json"), {
        "input": str(arguments.input), "layout": columns.layout.name, "nee_column": columns.nee,
        "nee_qc_column": columns.qc, "qc_best": columns.qc_best, "qc_threshold": arguments.qc_threshold,
        "gpp_column": columns.gpp, "reco_column": columns.reco, "uncertainty_column": columns.uncertainty,
        "forced": arguments.force, "days": len(table), "valid_days": int(table["obs_mask"].sum()),
    })  # fmt: skip
    if not arguments.no_figure:
        from calibration.tower.figures import nep_figure, save_figure  # matplotlib is slow to import

        save_figure(nep_figure(table, months, columns.nee), output.with_suffix(".png"))
    print(f"wrote {output}: {len(table)} days, {int(table['obs_mask'].sum())} valid")
    print(years.to_string(index=False, float_format=lambda value: f"{value:.4g}"))


if __name__ == "__main__":
    run(main)
