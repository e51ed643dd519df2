"""What a misfit is made of: its mean, its season, and what is left from day to day."""

import numpy as np

from calibration.judgement.fit import climatology_baseline

CURES = {
    "mean": "Mostly the mean: an offset of the tower (--nuisance offset), or a forest that is not at rest (an ensemble "
    "with configs/range_of_paras_relaxed.csv).",
    "season": "Mostly the season: the tower's own weather, or parameters that are not varied yet.",
    "day to day": "Mostly day to day: days of better quality, or the tower's own weather; no parameter mends noise.",
}


def misfit_parts(dates: np.ndarray, residual: np.ndarray) -> dict[str, tuple[float, float]]:
    """Mean, season (smoothed day-of-year mean of the rest) and day to day: (root mean square, share of the sum).

    dates (day,), residual (day,) estimate - observed, Mg C ha-1 day-1; shares of the mean squares, 0 to 1.

    >>> days = np.arange("2012-01-01", "2014-01-01", dtype="datetime64[D]")
    >>> {name: round(share, 2) for name, (_, share) in misfit_parts(days, np.full(len(days), -0.02)).items()}
    {'mean': 1.0, 'season': 0.0, 'day to day': 0.0}
    """
    mean = residual.mean()
    season = climatology_baseline(dates, residual - mean, dates)
    squares = {"mean": mean**2, "season": np.mean(season**2), "day to day": np.mean((residual - mean - season) ** 2)}
    total = max(sum(squares.values()), 1e-30)
    return {name: (float(np.sqrt(square)), float(square / total)) for name, square in squares.items()}


def misfit_sentence(dates: np.ndarray, residual: np.ndarray) -> str:
    """What conflicts, with shares, and what the largest share points to; arguments as misfit_parts()."""
    parts = misfit_parts(dates, residual)
    shares = ", ".join(f"{name} {100 * share:.0f} percent" for name, (_, share) in parts.items())
    most = max(parts, key=lambda name: parts[name][1])
    side = "below" if residual.mean() < 0 else "above"
    return f"{shares} of the misfit; the estimate lies {side} the tower. {CURES[most]}"
