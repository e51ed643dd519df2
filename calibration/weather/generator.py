"""Made-up daily weather with the statistics of a real site: seeded, seasonal, physically possible.

Method (a Gaussian copula over a vector autoregression, as in stochastic weather generators since Richardson 1981):
each variable's values of one calendar month are described by quantiles; a multivariate normal process with the
site's cross- and lag-1 correlations, plus a slow part of its own (months to years, which makes years differ), is
turned into values through those quantiles. Rain keeps its dry days (quantiles of 0), cloud stays in 0-100 percent,
humidity below saturation, shortwave below the day's clear sky. The statistics of LHP are in
configs/sites/lhp_weather.json; extras/fit_weather_statistics.py makes such a file from any weather CSV.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from calibration.common.command_line import UserError, read_json, write_json
from calibration.common.sites import Site
from calibration.common.units import METEOROLOGY, SECONDS_PER_DAY, ZERO_CELSIUS
from calibration.weather.atmosphere import (
    air_pressure,
    q_from_vapour_pressure,
    saturation_vapour_pressure,
    top_of_atmosphere_daily,
)

# Levels of the stored quantiles: dense in the tails, where extremes matter.
LEVELS = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995, 1.0)
SLOW_DAYS = 90.0  # e-folding time of the slow part
SLOW_LAGS = range(25, 61, 5)  # lags, days, over which the slow part's covariance is read off
DRY_BELOW = 0.1  # mm day-1; less counts as a dry day
WARM_UP = 500  # days of the process thrown away before the first one used
# The largest share of saturation that a day's humidity may have.
HUMIDITY_LIMIT = 0.995
# Shortwave and rain are stored as share of the top of the atmosphere and in mm day-1 (readable and comparable).
SHORTWAVE, CLOUD, RAIN, HUMIDITY = (
    METEOROLOGY.index(name) for name in ("dswrf_sfc", "tcdc_clm", "prate_sfc", "spfh_2m")
)
TEMPERATURE = METEOROLOGY.index("tmp_2m")


@dataclass(frozen=True)
class WeatherStatistics:
    """What the generator knows of a site.

    quantiles: (9, 12, level), by variable (units.METEOROLOGY order) and month, in VISIT's units but shortwave as share
    of the top of the atmosphere and rain in mm day-1; lag0, lag1: (9, 9) covariance of the fast part's normal scores
    today with today, and today (row) with yesterday (column); slow: (9, 9) covariance of the slow part;
    largest_share: the largest shortwave share of the top of the atmosphere that was seen (a clear day).
    """

    quantiles: np.ndarray
    lag0: np.ndarray
    lag1: np.ndarray
    slow: np.ndarray
    largest_share: float
    source: str


def fit_statistics(values: np.ndarray, dates: np.ndarray, latitude: float, source: str) -> WeatherStatistics:
    """Statistics of observed weather.

    values: (day, 9 or more) in VISIT's order and units; dates: (day,) datetime64[D], consecutive; latitude in degrees
    north. UserError when a calendar month has fewer than 25 days.
    """
    months = _month0(dates)
    counts = np.bincount(months, minlength=12)
    if counts.min() < 25:
        raise UserError(
            f"{source}: only {counts.min()} days of calendar month {counts.argmin() + 1}; "
            "statistics need at least 25 of each month: give a full year or more"
        )
    stored = _to_stored(values[:, : len(METEOROLOGY)], dates, latitude)
    quantiles = np.stack([np.quantile(stored[months == month], LEVELS, axis=0) for month in range(12)], axis=1)
    quantiles = quantiles.transpose(2, 1, 0)  # (level, month, variable) -> (variable, month, level)
    scores = _normal_scores(stored, months)

    def lagged(lag: int) -> np.ndarray:
        """Covariance (variable, variable) of normal scores with those `lag` days before, dimensionless."""
        later, earlier = scores[lag:], scores[: len(scores) - lag]
        return later.T @ earlier / len(later)

    # Beyond three weeks only the slow part is left: average its covariance over some lags, symmetrically.
    slow = np.mean([lagged(lag) * np.exp(lag / SLOW_DAYS) for lag in SLOW_LAGS if lag < len(scores) - 60], axis=0)
    slow = _positive((slow + slow.T) / 2)
    # The slow part may not take more of any variable than half of its variance.
    shrink = np.sqrt(np.minimum(1.0, 0.5 / np.maximum(np.diag(slow), 1e-9)))
    slow = slow * shrink[:, None] * shrink
    lag0 = _positive(lagged(0) - slow, floor=0.01)
    lag1 = lagged(1) - slow * np.exp(-1 / SLOW_DAYS)
    return WeatherStatistics(quantiles, lag0, lag1, slow, float(stored[:, SHORTWAVE].max()), source)


def save_statistics(path: str | Path, statistics: WeatherStatistics) -> None:
    """Write the statistics as readable JSON (the file named by `weather:` in a site's YAML)."""

    def rounded(array: np.ndarray) -> list:
        """Nested lists of the shape of `array`, five significant digits."""
        return np.vectorize(lambda value: float(f"{value:.5g}"))(array).tolist()

    write_json(path, {
        "source": statistics.source,
        "units": {"tmp_*": "K", "dswrf_sfc": "share of the top of the atmosphere", "tcdc_clm": "percent",
                  "prate_sfc": "mm day-1", "spfh_2m": "g kg-1", "wind_10m": "m s-1"},
        "variables": list(METEOROLOGY),
        "levels": list(LEVELS),
        "largest_shortwave_share": round(statistics.largest_share, 5),
        "covariance_fast_today": rounded(statistics.lag0),
        "covariance_fast_with_yesterday": rounded(statistics.lag1),
        "covariance_slow": rounded(statistics.slow),
        # A table by month: short lines, so that the file can be read.
        "quantiles_by_month": {
            name: [" ".join(f"{value:.6g}" for value in month) for month in statistics.quantiles[index] * _scale(name)]
            for index, name in enumerate(METEOROLOGY)
        },
    })  # fmt: skip


def load_statistics(path: str | Path) -> WeatherStatistics:
    """Read the JSON of save_statistics; UserError when it is missing or has another shape."""
    content = read_json(path)
    size = len(METEOROLOGY)
    try:
        if content["variables"] != list(METEOROLOGY) or content["levels"] != list(LEVELS):
            raise ValueError("variables or levels are others than this version's")
        quantiles = np.stack([
            np.array([[float(value) for value in month.split()] for month in content["quantiles_by_month"][name]])
            / _scale(name)
            for name in METEOROLOGY
        ])  # fmt: skip
        matrices = [
            np.array(content[key], dtype=float).reshape(size, size)
            for key in ("covariance_fast_today", "covariance_fast_with_yesterday", "covariance_slow")
        ]
        if quantiles.shape != (size, 12, len(LEVELS)):
            raise ValueError(f"quantiles have shape {quantiles.shape}")
        return WeatherStatistics(
            quantiles, *matrices, float(content["largest_shortwave_share"]), str(content["source"])
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: not statistics of weather ({type(error).__name__}: {error}); "
            "make them with extras/fit_weather_statistics.py"
        ) from None


def generate_values(site: Site, dates: np.ndarray, seed: int) -> np.ndarray:
    """Values (day, 9) in VISIT's order and units for consecutive dates (day,) datetime64[D].

    The same seed and first day give the same weather whatever the last day.
    """
    statistics = load_statistics(site.weather_statistics)
    normal = _normal_process(statistics, len(dates), np.random.default_rng(seed))
    stored = _through_quantiles(normal, dates, statistics.quantiles)
    stored[:, SHORTWAVE] = np.clip(stored[:, SHORTWAVE], 0.0, statistics.largest_share)
    stored[:, CLOUD] = np.clip(stored[:, CLOUD], 0.0, 100.0)
    stored[:, RAIN] = np.where(stored[:, RAIN] < DRY_BELOW, 0.0, stored[:, RAIN])
    values = _from_stored(stored, dates, site.latitude)
    celsius = values[:, TEMPERATURE] - ZERO_CELSIUS
    saturated = q_from_vapour_pressure(saturation_vapour_pressure(celsius), air_pressure(site.altitude, celsius))
    values[:, HUMIDITY] = np.clip(values[:, HUMIDITY], 0.0, HUMIDITY_LIMIT * saturated)
    return values


def _normal_process(statistics: WeatherStatistics, days: int, generator: np.random.Generator) -> np.ndarray:
    """(day, 9) standard normal scores: a VAR(1) plus a slow AR(1), each with the covariance that was fitted."""
    size = len(METEOROLOGY)
    # x[t] = A x[t-1] + e,  A = C1 C0^-1,  cov(e) = C0 - A C1'  (Yule-Walker).
    step = np.linalg.solve(statistics.lag0.T, statistics.lag1.T).T
    noise = _root(statistics.lag0 - step @ statistics.lag1.T)
    slow_step = np.exp(-1 / SLOW_DAYS)
    slow_noise = _root(statistics.slow) * np.sqrt(1 - slow_step**2)
    draws = generator.standard_normal((WARM_UP + days, 2 * size))
    fast_noise, slow_noise = draws[:, :size] @ noise.T, draws[:, size:] @ slow_noise.T
    fast, slow = np.zeros(size), np.zeros(size)
    scores = np.empty((WARM_UP + days, size))
    for day in range(len(scores)):
        fast = step @ fast + fast_noise[day]
        slow = slow_step * slow + slow_noise[day]
        scores[day] = fast + slow
    # Rounding of the covariances leaves variances a little off 1; the quantiles need exactly 1.
    return scores[WARM_UP:] / np.sqrt(np.diag(statistics.lag0 + statistics.slow))


def _through_quantiles(normal: np.ndarray, dates: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """(day, 9) values from normal scores; the quantiles of the two nearest months' middles are blended by day."""
    probability = ndtr(normal)
    month = _month0(dates)
    starts = dates.astype("datetime64[M]")
    length = ((starts + np.timedelta64(1, "M")).astype("datetime64[D]") - starts.astype("datetime64[D]")).astype(int)
    position = ((dates - starts.astype("datetime64[D]")).astype(int) + 0.5) / length - 0.5  # -0.5..0.5 of the month
    neighbour = (month + np.where(position < 0, -1, 1)) % 12
    weight = np.abs(position)[:, None]
    values = np.empty_like(probability)
    for variable in range(probability.shape[1]):
        by_month = np.stack(
            [np.interp(probability[:, variable], LEVELS, quantiles[variable, m]) for m in range(12)], axis=1
        )
        own = np.take_along_axis(by_month, month[:, None], axis=1)
        other = np.take_along_axis(by_month, neighbour[:, None], axis=1)
        values[:, variable] = ((1 - weight) * own + weight * other)[:, 0]
    return values


def _normal_scores(stored: np.ndarray, months: np.ndarray) -> np.ndarray:
    """(day, 9) normal scores of the rank within the calendar month; equal values (dry days) share their mean rank."""
    scores = np.empty_like(stored)
    for month in range(12):
        days = months == month
        scores[days] = ndtri((pd.DataFrame(stored[days]).rank().to_numpy() - 0.5) / days.sum())
    return scores / scores.std(axis=0).clip(1e-9)


def _to_stored(values: np.ndarray, dates: np.ndarray, latitude: float) -> np.ndarray:
    stored = np.array(values, dtype=float)
    stored[:, SHORTWAVE] /= np.maximum(_top_of_atmosphere(dates, latitude), 1.0)
    stored[:, RAIN] *= SECONDS_PER_DAY
    stored[:, RAIN] = np.where(stored[:, RAIN] < DRY_BELOW, 0.0, stored[:, RAIN])
    return stored


def _from_stored(stored: np.ndarray, dates: np.ndarray, latitude: float) -> np.ndarray:
    values = np.array(stored)
    values[:, SHORTWAVE] *= _top_of_atmosphere(dates, latitude)
    values[:, RAIN] /= SECONDS_PER_DAY
    return values


def _top_of_atmosphere(dates: np.ndarray, latitude: float) -> np.ndarray:
    doy0 = (dates - dates.astype("datetime64[Y]").astype("datetime64[D]")).astype(int)
    return top_of_atmosphere_daily(latitude, doy0)


def _month0(dates: np.ndarray) -> np.ndarray:
    return dates.astype("datetime64[M]").astype(int) % 12


def _scale(name: str) -> float:
    return 1000.0 if name == "spfh_2m" else 1.0  # the file holds humidity in g kg-1


def _positive(matrix: np.ndarray, floor: float = 0.0) -> np.ndarray:
    """The nearest symmetric matrix without eigenvalues below `floor` (Frobenius norm; Higham 1988)."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.maximum(values, floor)) @ vectors.T


def _root(covariance: np.ndarray) -> np.ndarray:
    """A matrix R with R R' = covariance (negative eigenvalues from rounding count as zero)."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return vectors * np.sqrt(np.maximum(values, 0.0))
