"""The tables and the text that a sensitivity analysis leaves."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from calibration.exploration.design import INDICES

LISTED = 5  # parameters named a quantity


def side_by_side(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables of design.indices() by model -> quantity, parameter and <model>_<column> of every model."""
    joined = None
    for model, table in tables.items():
        part = table.set_index(["quantity", "parameter"]).add_prefix(f"{model}_")
        joined = part if joined is None else joined.join(part)
    return joined.reset_index()


def agreement(method: str, table: pd.DataFrame, one: str, other: str) -> pd.DataFrame:
    """How alike two models are, by quantity: rank correlation of the ranking index over the parameters, parameters
    whose 95 percent intervals do not overlap, and the largest difference with its parameter.
    """
    index = INDICES[method][0]
    rows = []
    for quantity, part in table.groupby("quantity", sort=False):
        difference = (part[f"{one}_{index}"] - part[f"{other}_{index}"]).abs()
        width = part[f"{one}_{index}_conf"] + part[f"{other}_{index}_conf"]
        constant = part[f"{one}_{index}"].nunique() < 2 or part[f"{other}_{index}"].nunique() < 2
        rank = np.nan if constant else spearmanr(part[f"{one}_{index}"], part[f"{other}_{index}"]).statistic
        rows.append({
            "quantity": quantity, "rank_correlation": float(rank), "apart": int((difference > width).sum()),
            "parameters": len(part), "largest_difference": float(difference.max()),
            "largest_at": str(part.loc[difference.idxmax(), "parameter"]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def ranking_lines(method: str, table: pd.DataFrame, models: Sequence[str]) -> list[str]:
    """The most influential parameters by quantity and model, with the index and its 95 percent confidence."""
    index = INDICES[method][0]
    label = {"morris": "mean absolute elementary effect, Mg C ha-1 a range", "sobol": "total index"}[method]
    lines = [f"{method.capitalize()} ({label} +- 95 percent confidence), the {LISTED} most influential parameters"]
    for quantity, part in table.groupby("quantity", sort=False):
        for model in models:
            top = part.nlargest(LISTED, f"{model}_{index}")
            values = zip(top["parameter"], top[f"{model}_{index}"], top[f"{model}_{index}_conf"], strict=True)
            named = ", ".join(f"{name} {value:.2f}+-{conf:.2f}" for name, value, conf in values)
            lines.append(f"  {quantity:12s} {model.replace('_', ' '):14s} {named}")
    return lines


def agreement_lines(method: str, table: pd.DataFrame, what: str) -> list[str]:
    """`table` of agreement() in words; `what` names the two models and their runs."""
    index = INDICES[method][0]
    lines = [f"{what}, by {index}"]
    for row in table.itertuples():
        lines.append(
            f"  {row.quantity:12s} rank correlation {row.rank_correlation:.3f}; {row.apart} of {row.parameters} "
            f"parameters apart beyond confidence; largest difference {row.largest_difference:.3f} ({row.largest_at})"
        )
    return lines


def left_out_line(groups: np.ndarray, what: str) -> str:
    """How many trajectories or base samples (`groups`, bool) were left out for a run that is not at rest."""
    return (
        f"  {int((~groups).sum())} of {len(groups)} {what} left out: one of their forests still grows or dies (annual "
        "NEP over GPP far from all others')"
    )


def reference_lines(table: pd.DataFrame) -> list[str]:
    """The comparison with real VISIT's elementary effects; table of reference.agreement()."""
    lines = ["Real VISIT's elementary effects beside the process model's on the same runs (change of the annual mean)"]
    for row in table.itertuples():
        lines.append(
            f"  {row.flux:4s} rank correlation {row.rank_correlation:.4f}, correlation {row.correlation:.5f} over "
            f"{row.with_effect} of {row.parameters} parameters with an effect; largest difference "
            f"{row.largest_difference:.3f} Mg C ha-1 year-1 ({row.largest_at}); an effect in one only: "
            f"{row.effect_in_one_only}"
        )
    return lines
