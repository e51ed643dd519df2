"""A tower's NEE to daily NEP with a mask of valid days: the observation table of prepare_observation_nep.py."""

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError, warn
from calibration.common.units import G_M2_PER_MG_HA, nee_g_m2_to_nep_mg_ha
from calibration.tower.checks import ABSURD_NEE, flux_jump, partition_problem, sign_problem
from calibration.tower.file import TowerFile
from calibration.tower.layouts import HIGH, NepColumns
from calibration.tower.observation_csv import ER_COLUMN, GPP_COLUMN, NEP_SD_COLUMN, OBSERVATION_COLUMNS


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
    partition = [tower.numbers(name) if name else None for name in (columns.gpp, columns.reco)]
    jump = flux_jump(columns.nee, raw, *partition, tower.dates)
    if jump:
        warn(
            f"{tower.path}: {jump[0]} changes its size {jump[1].ratio:.3g}-fold on {jump[1].day} and keeps it, as if "
            "its unit had changed: look at the figure before you use it"
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
    days = np.arange(first, last + np.timedelta64(1, "D"))
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
