"""Elementary effects of the real VISIT, from a table of its runs, beside those of the process model on the same runs.

The table is a Morris design: `trajectory`, one column a parameter, and mean_GPP, mean_NPP, mean_ER, mean_NEP in
Mg C ha-1 year-1; between neighbouring runs of a trajectory one parameter moves. Its steps are the table's own, which
may be wider than the ranges of an ensemble, so effects are compared as they are: change of the annual mean a step.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from calibration.common.command_line import UserError, read_table
from calibration.common.parameters import canonical_name

MEANS = ("mean_GPP", "mean_NPP", "mean_ER", "mean_NEP")
NO_EFFECT = 1e-3  # Mg C ha-1 year-1: what counts as an effect in correlations
SEEN = 1e-2  # Mg C ha-1 year-1: an effect that the other model must show too


def read_reference(path: str | Path) -> pd.DataFrame:
    """The table of real runs. UserError when it is no such table."""
    table = read_table(path, "give a table of VISIT runs with trajectory, parameters and mean_GPP ...")
    missing = [name for name in ("trajectory", *MEANS) if name not in table]
    if missing:
        raise UserError(
            f"{path}: column '{missing[0]}' is missing; expected trajectory, parameters, {', '.join(MEANS)}"
        )
    return table


def moves(table: pd.DataFrame, path: str | Path) -> tuple[np.ndarray, list[str]]:
    """(step,) index of the second run of every step inside a trajectory, and the parameter that moved.

    UserError when a step moves none or several.
    """
    columns = [
        name for name in table if name not in ("sample_id", "trajectory") and not name.startswith(("mean_", "sd_"))
    ]
    values = table[columns].to_numpy(dtype=np.float64)
    at = np.flatnonzero(np.diff(table["trajectory"]) == 0) + 1
    changed = values[at] != values[at - 1]
    wrong = np.flatnonzero(changed.sum(axis=1) != 1)
    if len(wrong):
        line = int(at[wrong[0]]) + 2
        count = int(changed[wrong[0]].sum())
        raise UserError(
            f"{path}, line {line}: {count} parameters differ from the run before, one must (a Morris design)"
        )
    return at, [columns[k] for k in changed.argmax(axis=1)]


def compare(real: pd.DataFrame, ours: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """One row a flux and parameter: mean absolute change of the annual mean a step, real VISIT and process model.

    real: of read_reference(); ours: mean_GPP ... of the process model for the same rows, Mg C ha-1 year-1.
    Columns flux, parameter, real, process_model, steps.
    """
    at, moved = moves(real, path)
    rows = []
    for column in MEANS:
        steps = pd.DataFrame({
            "parameter": [canonical_name(name) or name for name in moved],
            "real": np.abs(np.diff(real[column])[at - 1]), "process_model": np.abs(np.diff(ours[column])[at - 1]),
        })  # fmt: skip
        grouped = steps.groupby("parameter", sort=False)
        table = grouped.mean()
        table["steps"] = grouped.size()
        rows.append(table.reset_index().assign(flux=column.removeprefix("mean_")))
    return pd.concat(rows, ignore_index=True)[["flux", "parameter", "real", "process_model", "steps"]]


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """By flux: rank and linear correlation over the parameters that have an effect, the largest difference and where,
    and how many of those without effect in one have one in the other.
    """
    rows = []
    for flux, part in table.groupby("flux", sort=False):
        acts = np.maximum(part["real"], part["process_model"]) > NO_EFFECT
        low, high = part[["real", "process_model"]].min(axis=1), part[["real", "process_model"]].max(axis=1)
        silent = (low == 0) & (high > SEEN)
        active = part[acts]
        apart = (active["process_model"] - active["real"]).abs()
        rows.append({
            "flux": flux, "parameters": len(part), "with_effect": int(acts.sum()),
            "rank_correlation": float(spearmanr(active["real"], active["process_model"]).statistic),
            "correlation": float(np.corrcoef(active["real"], active["process_model"])[0, 1]),
            "largest_difference": float(apart.max()), "largest_at": str(active.loc[apart.idxmax(), "parameter"]),
            "effect_in_one_only": int(silent.sum()),
        })  # fmt: skip
    return pd.DataFrame(rows)
