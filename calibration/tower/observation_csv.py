"""The observation CSV of prepare_observation_nep.py: its columns, checked reading, coverage by year and month."""

from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError, read_table
from calibration.common.units import nee_g_m2_to_nep_mg_ha, without_missing_codes
from calibration.weather.sentinel import check_flux

OBSERVATION_COLUMNS = ("date", "nee_gcm2", "nee_source", "nee_qc", "nep_mg_ha", "obs_mask")
# Optional columns, Mg C ha-1 day-1: absent, not zero, when the tower file has none.
GPP_COLUMN, ER_COLUMN, NEP_SD_COLUMN = "gpp_mg_ha", "reco_mg_ha", "nep_sd_mg_ha"


def read_observations(path: str | Path) -> pd.DataFrame:
    """Read the CSV of prepare_observation_nep.py, by day in order.

    Columns: date (datetime64), nep_mg_ha, obs_mask (bool; False wherever NEP is empty), and where present gpp_mg_ha,
    reco_mg_ha, nep_sd_mg_ha, all Mg C ha-1 day-1. UserError on a missing column, a repeated or unreadable date, a mask
    other than 0 and 1, an impossible value, or NEP that is not -NEE / 100 (wrong sign or unit).
    """
    path, table = Path(path), read_table(path, "make it with prepare_observation_nep.py")
    missing = [name for name in ("date", "nep_mg_ha", "obs_mask") if name not in table]
    if missing:
        raise UserError(
            f"{path}: has no column {', '.join(missing)}; found {', '.join(map(str, table.columns[:12]))}; "
            "make it with prepare_observation_nep.py"
        )
    result = pd.DataFrame({"date": days_of(path, table)})
    for name in ("nep_mg_ha", "obs_mask", "nee_gcm2", GPP_COLUMN, ER_COLUMN, NEP_SD_COLUMN):
        if name in table:
            result[name] = numbers_of(path, table, name)
    result = result.sort_values("date", kind="stable", ignore_index=True)
    repeated = result["date"].duplicated()
    if repeated.any():
        raise UserError(
            f"{path}: {result['date'][repeated].iloc[0].date()} is there twice; every day may be there once"
        )
    if not result["obs_mask"].isin([0.0, 1.0]).all():
        raise UserError(f"{path}: obs_mask must be 0 or 1 on every day")
    _check_nep(path, result)
    result["obs_mask"] = (result["obs_mask"] == 1.0) & result["nep_mg_ha"].notna()
    return result


def days_of(path: Path, table: pd.DataFrame) -> pd.Series:
    """The column `date` as days, datetime64; UserError with the line of the first that is none."""
    dates = pd.to_datetime(table["date"].astype(str).str.strip(), format="%Y-%m-%d", errors="coerce")
    if dates.isna().any():
        row = int(dates.isna().to_numpy().argmax())
        raise UserError(f"{path}: line {row + 2}: date is '{table['date'].iloc[row]}', expected YYYY-MM-DD")
    return dates


def numbers_of(path: Path, table: pd.DataFrame, name: str) -> np.ndarray:
    """A column, (row,) float64, NaN where it is empty or a missing code; UserError with the line of the first text."""
    numbers = pd.to_numeric(table[name], errors="coerce").astype(float)
    text = table[name].notna() & numbers.isna()
    if text.any():
        row = int(text.to_numpy().argmax())
        raise UserError(f"{path}: line {row + 2}: {name} is '{table[name].iloc[row]}', expected a number or nothing")
    return without_missing_codes(numbers.to_numpy())


def _check_nep(path: Path, table: pd.DataFrame) -> None:
    for name in ("nep_mg_ha", GPP_COLUMN, ER_COLUMN):
        if name in table:
            check_flux(name, table[name].to_numpy(), str(path))
    nep = table["nep_mg_ha"]
    if "nee_gcm2" in table:
        expected = nee_g_m2_to_nep_mg_ha(table["nee_gcm2"])
        wrong = (nep - expected).abs() > 1e-4 + 1e-3 * expected.abs()
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise UserError(
                f"{path}: on {table['date'].iloc[row].date()} nep_mg_ha is {nep.iloc[row]:g}, but -nee_gcm2 / 100 is "
                f"{expected.iloc[row]:g}; NEP = -NEE / 100: make the file with prepare_observation_nep.py"
            )


def longest_gap(valid: np.ndarray) -> np.ndarray:
    """Longest run of False along the last axis; valid: (..., day) bool -> (...) int, days.

    >>> int(longest_gap(np.array([True, False, False, True])))
    2
    """
    index = np.arange(valid.shape[-1])
    last_valid = np.maximum.accumulate(np.where(valid, index, -1), axis=-1)
    return (index - last_valid).max(axis=-1, initial=0)


def by_year(table: pd.DataFrame) -> pd.DataFrame:
    """One row a calendar year and a last row 'all'.

    table: date, nep_mg_ha (Mg C ha-1 day-1), obs_mask on consecutive days. Columns: year, days, valid_days, share_kept,
    longest_gap_days, mean_nep_mg_ha, sd_nep_mg_ha (of valid days; empty where there are none).
    """
    years = pd.to_datetime(table["date"]).dt.year
    groups = [(str(year), table[years == year]) for year in sorted(years.unique())]
    return pd.DataFrame([_summary("year", name, part) for name, part in [*groups, ("all", table)]])


def by_month(table: pd.DataFrame) -> pd.DataFrame:
    """One row a month (YYYY-MM), with the columns of by_year."""
    months = pd.to_datetime(table["date"]).dt.strftime("%Y-%m")
    return pd.DataFrame([_summary("month", name, part) for name, part in table.groupby(months, sort=True)])


def _summary(label: str, name: str, part: pd.DataFrame) -> dict:
    valid = part["obs_mask"].to_numpy() == 1
    nep = part["nep_mg_ha"].to_numpy()[valid]
    return {
        label: name, "days": len(part), "valid_days": int(valid.sum()), "share_kept": valid.mean(),
        "longest_gap_days": int(longest_gap(valid)),
        "mean_nep_mg_ha": nep.mean() if len(nep) else np.nan, "sd_nep_mg_ha": nep.std() if len(nep) else np.nan,
    }  # fmt: skip
