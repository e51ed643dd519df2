"""Coverage of observed NEP by year and month: days, valid days, longest gap, mean and spread."""

import numpy as np
import pandas as pd


def longest_gap(valid: np.ndarray) -> np.ndarray:
    """Longest run of False along the last axis; valid: (..., day) bool -> (...) int, days."""
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
