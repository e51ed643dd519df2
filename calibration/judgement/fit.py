"""How good is a fit, honestly: skill beside null baselines, prior-data conflict by month, a verdict in one sentence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from calibration.common.units import DAYS_PER_YEAR, FLUX_UNIT
from calibration.inversion.config import target_label

CLIMATOLOGY_WIDTH = 15.0  # days, Gaussian kernel of the smoothed climatology
CONFLICT_SHARE = 0.2  # share of days outside the 95 percent band above which a month is in conflict
CONFLICT_Z = 3.0  # distance of the observed mean from the prior-predictive mean, in its sd
LAGS = (1, 7, 30)
CONFLICTING = "CONFLICTS WITH THE MODEL"  # first words of the verdict
EMULATOR_LIKE = 3.0  # slow misfit up to this many times the emulator's error sd may be the emulator's


def scores(observed: np.ndarray, predicted: np.ndarray, reference: float | None = None) -> dict[str, float]:
    """RMSE, bias (predicted - observed), sd of the observed (Mg C ha-1 day-1), R2 against their mean, correlation.

    observed, predicted: (day,). R2 is the Nash-Sutcliffe efficiency 1 - MSE / variance around `reference` (default:
    the mean of these days). NaN where it is undefined (fewer than two days, no variance).

    >>> found = scores(np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.5, 3.5]))
    >>> found["rmse"], found["bias"], round(found["correlation"], 6)
    (0.5, 0.5, 1.0)
    """
    error = predicted - observed
    centre = observed.mean() if reference is None else reference
    variance = np.mean((observed - centre) ** 2)
    varies = len(observed) > 1 and variance > 0
    moves = varies and predicted.std() > 0 and observed.std() > 0
    return {
        "n": int(len(observed)),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "bias": float(error.mean()),
        "observed_sd": float(observed.std()),
        "r2": float(1 - np.mean(error**2) / variance) if varies else float("nan"),
        "correlation": float(np.corrcoef(observed, predicted)[0, 1]) if moves else float("nan"),
    }


def residual_autocorrelation(dates: np.ndarray, residual: np.ndarray, lags: Sequence[int] = LAGS) -> dict[int, float]:
    """Autocorrelation of residuals (day,) at lags in days over pairs of days that both exist; NaN below 10 pairs."""
    day = dates.astype("datetime64[D]").astype(int)
    series = pd.Series(residual - residual.mean(), index=day)
    series = series[~series.index.duplicated()]
    variance = float((series**2).mean())
    result = {}
    for lag in lags:
        pairs = series.reindex(series.index + lag).to_numpy() * series.to_numpy()
        good = np.isfinite(pairs)
        result[lag] = float(pairs[good].mean() / variance) if good.sum() >= 10 and variance > 0 else float("nan")
    return result


def constant_baseline(train_values: np.ndarray, dates: np.ndarray) -> np.ndarray:
    """The mean of the fitted days on every day of `dates`: (day,) Mg C ha-1 day-1."""
    return np.full(len(dates), train_values.mean())


def climatology_baseline(train_dates: np.ndarray, train_values: np.ndarray, dates: np.ndarray) -> np.ndarray:
    """Smoothed day-of-year climatology of the fitted days, evaluated on `dates`: (day,) Mg C ha-1 day-1.

    Gaussian kernel of 15 days around the day of the year (circular); a day without neighbours tends to the mean of
    all, which counts as one more observation spread over the year.
    """

    def phase(days: np.ndarray) -> np.ndarray:
        """Days since 1 January, (day,), 0 to 365."""
        year = days.astype("datetime64[Y]")
        return (days.astype("datetime64[D]") - year.astype("datetime64[D]")).astype(int).astype(float)

    distance = np.abs(phase(dates)[:, None] - phase(train_dates)[None, :])
    distance = np.minimum(distance, DAYS_PER_YEAR - distance)
    weight = np.exp(-0.5 * (distance / CLIMATOLOGY_WIDTH) ** 2)
    return (weight @ train_values + 0.1 * train_values.mean()) / (weight.sum(axis=1) + 0.1)


def skill_table(
    dates: np.ndarray, observed: np.ndarray, fitted: np.ndarray, predictions: dict[str, np.ndarray]
) -> pd.DataFrame:
    """Scores of every prediction and of the null baselines fitted on the same days, in sample and held out.

    dates, observed: (day,) days with an observation; fitted: (day,) bool, False = held out; predictions: name ->
    (day,). Rows are (set, model); R2 of held-out days is against their own mean.
    """
    rows = {}
    everything = dict(predictions)
    if fitted.any():
        everything["constant"] = constant_baseline(observed[fitted], dates)
        everything["climatology"] = climatology_baseline(dates[fitted], observed[fitted], dates)
    for name, here in (("fitted", fitted), ("holdout", ~fitted)):
        if here.any():
            for model, values in everything.items():
                rows[(name, model)] = scores(observed[here], values[here])
    return pd.DataFrame(rows).T.rename_axis(["days", "model"])


@dataclass(frozen=True)
class Conflict:
    """Prior-data conflict: a table by month and what it amounts to."""

    table: pd.DataFrame  # month, days, observed_mean, prior_mean, prior_low, prior_high, share_outside, conflict
    share_outside: float  # of all observed days, outside the prior-predictive 95 percent band
    mean_z: float  # (observed mean - prior-predictive mean) / sd of the prior-predictive mean

    @property
    def months(self) -> list[str]:
        """Months in conflict, as YYYY-MM."""
        return list(self.table["month"][self.table["conflict"]])

    @property
    def exists(self) -> bool:
        """Whether prior and data disagree beyond what the error model allows."""
        return self.share_outside > CONFLICT_SHARE or abs(self.mean_z) > CONFLICT_Z

    def sentence(self) -> str:
        """One line for reports."""
        where = f"{len(self.months)} of {len(self.table)} months" if len(self.table) else "no month"
        return (
            f"{100 * self.share_outside:.0f} percent of the observed days lie outside the prior-predictive 95 percent "
            f"band (5 expected), in {where} more than {100 * CONFLICT_SHARE:.0f} percent; the observed mean is "
            f"{abs(self.mean_z):.1f} sd {'above' if self.mean_z > 0 else 'below'} the prior-predictive mean"
        )


def prior_conflict(dates: np.ndarray, observed: np.ndarray, predictive: np.ndarray, flux_draws: np.ndarray) -> Conflict:
    """Compare observations with the prior before any fit.

    dates, observed: (day,); predictive: (draw, day) prior-predictive observations (noise included); flux_draws:
    (draw, day) prior draws of the flux without observation noise, for means. All Mg C ha-1 day-1.
    """
    low, high = np.quantile(predictive, [0.025, 0.975], axis=0)
    outside = (observed < low) | (observed > high)
    months = dates.astype("datetime64[M]")
    rows = []
    for month in np.unique(months):
        here = months == month
        means = flux_draws[:, here].mean(axis=1)
        band = np.quantile(means, [0.025, 0.975])
        rows.append({
            "month": str(month), "days": int(here.sum()), "observed_mean": observed[here].mean(),
            "prior_mean": means.mean(), "prior_low": band[0], "prior_high": band[1],
            "share_outside": outside[here].mean(),
            "conflict": bool(outside[here].mean() > CONFLICT_SHARE and outside[here].sum() > 1),
        })  # fmt: skip
    all_means = predictive.mean(axis=1)
    z = (observed.mean() - all_means.mean()) / max(all_means.std(), 1e-12)
    return Conflict(pd.DataFrame(rows), float(outside.mean()), float(z))


def verdict(
    table: pd.DataFrame,
    conflict: Conflict | None,
    informed: Sequence[str] | None,
    bounds: Sequence[str],
    discrepancy_share: float,
    target: str = "nep",
    offset: float = 0.0,
    discrepancy_ratio: float = np.inf,
) -> str:
    """The first sentence of every report: does the model fit, and does the fit say anything about the parameters.

    table: of skill_table with a row ('fitted', 'optimized'); informed: names, None when there is no posterior.
    discrepancy_share: of the error variance; discrepancy_ratio: its sd over that of the emulator's known error (slow
    misfit of the emulator's own size is no fault of the model).
    """
    label = target_label(target)
    days = "fitted" if ("fitted", "optimized") in table.index else "holdout"
    fit = table.loc[(days, "optimized")]
    reasons = []
    if np.isfinite(fit.r2) and fit.r2 < 0:
        reasons.append(f"R2 {fit.r2:.2f} is below that of the observed mean")
    if conflict is not None and conflict.exists:
        reasons.append(
            f"before the fit {100 * conflict.share_outside:.0f} percent of days lay outside the prior 95 percent band "
            f"and the observed mean was {conflict.mean_z:+.1f} sd off"
        )
    if discrepancy_share > 0.5 and discrepancy_ratio > EMULATOR_LIKE:
        reasons.append(f"{100 * discrepancy_share:.0f} percent of the error variance is slow misfit of the model")
    if len(bounds) >= 3:
        reasons.append(f"{len(bounds)} parameters ended at a bound")
    rmse = f"RMSE {fit.rmse:.4f} {FLUX_UNIT}, R2 {fit.r2:.2f}"
    if abs(offset) > 0:
        rmse += f", with a constant offset of {offset:+.4f}"
    if reasons:
        return (
            f"{CONFLICTING}: {label} cannot be described ({'; '.join(reasons)}); {rmse}: do not read the "
            "parameters."
        )
    if informed is None:
        return f"FITS: the model describes {label} ({rmse}); no posterior was computed, so what it tells is unknown."
    if informed:
        names = ", ".join(informed[:6]) + (" and others" if len(informed) > 6 else "")
        return f"FITS AND IS INFORMATIVE: the model describes {label} ({rmse}) and the data inform {names}."
    return (
        f"FITS BUT IS UNINFORMATIVE: the model describes {label} ({rmse}), but the data inform no parameter by itself."
    )
