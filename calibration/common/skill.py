"""Measures of skill: predictions against VISIT. All fluxes in Mg C ha-1 day-1."""

import numpy as np

METRICS = ("rmse", "mae", "mape", "r2", "rollout_rmse_30", "nse_median")
MAPE_FLOOR = 0.1  # of the mean |truth|: days nearer to zero than this are left out of MAPE (NEP changes sign)


def rmse(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square error over all elements."""
    return float(np.sqrt(np.square(predicted - truth, dtype=np.float64).mean()))


def r2(predicted: np.ndarray, truth: np.ndarray) -> float:
    """1 - SSE / variance about the mean of all elements, pooled over runs and days; 0 for the mean, negative if
    worse.
    """
    truth = truth.astype(np.float64)
    spread = np.square(truth - truth.mean()).sum()
    return float(1.0 - np.square(predicted - truth).sum() / max(spread, 1e-30))


def mape(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Mean absolute percentage error over days with |truth| above MAPE_FLOOR x mean |truth|."""
    truth = truth.astype(np.float64)
    size = np.abs(truth)
    keep = size > MAPE_FLOOR * size.mean()
    return float(100.0 * (np.abs(predicted - truth)[keep] / size[keep]).mean()) if keep.any() else 0.0


def nse_by_run(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Nash-Sutcliffe efficiency (run,) of (run, day): against each run's own mean, so a spread between runs flatters
    nobody.
    """
    truth = truth.astype(np.float64)
    spread = np.square(truth - truth.mean(axis=1, keepdims=True)).sum(axis=1)
    return 1.0 - np.square(predicted - truth).sum(axis=1) / np.maximum(spread, 1e-30)


def skill(predicted: np.ndarray, truth: np.ndarray, windows_rmse: float) -> dict[str, float]:
    """All METRICS of one flux: predicted and truth (run, day); windows_rmse is the RMSE of its 30-day rollouts."""
    return {
        "rmse": rmse(predicted, truth), "mae": float(np.abs(predicted - truth).mean(dtype=np.float64)),
        "mape": mape(predicted, truth), "r2": r2(predicted, truth), "rollout_rmse_30": windows_rmse,
        "nse_median": float(np.median(nse_by_run(predicted, truth))),
    }  # fmt: skip
