"""Which parameters a tower of a given length could ever inform, before anybody inverts anything.

Every Morris trajectory moves each parameter once, so it is a Jacobian J of daily NEP with respect to the parameters,
measured over steps of two thirds of the range. With white observation error of sd s and parameters uniform in their
ranges (variance 1/12 of the squared range), the linear-Gaussian posterior covariance is (12 I + J J' / s^2)^-1 in
ranges (Tarantola 2005, Inverse Problem Theory, eq. 3.38). The median over trajectories of posterior over prior sd is
compared with the threshold of every inversion here. It is a best case: no emulator error, no model discrepancy, no
gaps, an error that is known.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from calibration.common.units import FLUX_UNIT
from calibration.inversion.posterior import INFORMED

PRIOR_PRECISION = 12.0  # 1 / variance of a uniform distribution over one range


def sd_ratios(effects: np.ndarray, noise: float) -> np.ndarray:
    """effects (trajectory, parameter, day), Mg C ha-1 day-1 a range -> posterior / prior sd (trajectory, parameter).

    noise: sd of the white observation error of a day, Mg C ha-1 day-1.

    >>> sd_ratios(np.full((1, 1, 40), 0.02), noise=0.01).round(3).tolist()  # sqrt(12 / (12 + 40 * 0.02**2 / 0.01**2))
    [[0.264]]
    """
    information = np.einsum("tpd,tqd->tpq", effects, effects) / noise**2
    covariance = np.linalg.inv(information + PRIOR_PRECISION * np.eye(effects.shape[1]))
    return np.sqrt(PRIOR_PRECISION * np.einsum("tpp->tp", covariance))


def information_table(effects: np.ndarray, names: Sequence[str], lengths: Sequence[int], noise: float) -> pd.DataFrame:
    """One row a parameter and length of the record: median, 10th and 90th percentile of posterior / prior sd.

    effects: (trajectory, parameter, day), Mg C ha-1 day-1 a range; lengths in days, counted from the first day;
    noise: Mg C ha-1 day-1.
    """
    rows = []
    for days in lengths:
        ratio = sd_ratios(effects[:, :, :days], noise)
        low, middle, high = np.quantile(ratio, [0.1, 0.5, 0.9], axis=0)
        rows.append(pd.DataFrame({
            "days": days, "parameter": list(names), "sd_ratio": middle, "sd_ratio_low": low, "sd_ratio_high": high,
            "informed": middle < INFORMED,
        }))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def answer(table: pd.DataFrame, noise: float, model: str) -> str:
    """The one sentence: which parameters a tower of each length could inform; `table` of information_table()."""
    parts = []
    for days, rows in table.groupby("days"):
        found = rows[rows["informed"]].sort_values("sd_ratio")
        names = ", ".join(f"{r.parameter} ({r.sd_ratio:.2f})" for r in found.itertuples()) or "none"
        parts.append(f"{days} days: {names}")
    return (
        f"Of {table['parameter'].nunique()} parameters, daily NEP of a tower with a white error of {noise:g} "
        f"{FLUX_UNIT} could at best inform (posterior sd below {INFORMED:g} of the prior's, {model}) - "
        f"{'; '.join(parts)}."
    )
