"""Sun, cloud, humidity and background CO2: the physics of the air that weather and process model share.

All functions take scalars or NumPy arrays that broadcast, and return float64. `doy0` is the day of the year counted
from 0, as in VISIT's files. Constants are VISIT's own (pi = 3.141592653 and so on), so that its output is reproduced
to rounding. Sources: the equations VISIT uses (Spencer 1971 for the sun, Tetens for vapour pressure).
"""

import numpy as np

from calibration.common.units import ZERO_CELSIUS

PI = 3.141592653
DEGREE = 0.0174533  # rad
RADIAN = 57.29577951  # degrees
SOLAR_CONSTANT = 1367.0  # W m-2
HALF_HOURS = 48
NOON = 24  # index of solar noon in the half-hourly grid
# Short-wave transmission of the air under no cloud, and its loss with cloud cover and its square.
CLEAR_SKY_TRANSMISSION = 0.803
CLOUD_LINEAR = 0.34
CLOUD_SQUARE = 0.458
SEA_LEVEL_PRESSURE = 1013.25  # hPa
STEFAN_BOLTZMANN = 5.6703e-8  # W m-2 K-4
_CO2_POLYNOMIAL = (1904299.0, -3322.4242, 1.6541596, 1.3362655e-4, -3.0828809e-7, 6.2121261e-11)


def declination(doy0):
    """Solar declination, rad, on day `doy0` (Spencer 1971)."""
    g = 2.0 * PI * np.asarray(doy0, dtype=np.float64) / 365.0
    return (
        0.006918 - 0.399912 * np.cos(g) + 0.070257 * np.sin(g) - 0.006758 * np.cos(2 * g) + 0.000907 * np.sin(2 * g)
        - 0.002697 * np.cos(3 * g) + 0.00148 * np.sin(3 * g)
    )  # fmt: skip


def eccentricity_factor(doy0):
    """Square of mean over actual distance to the sun, dimensionless (Spencer 1971)."""
    g = 2.0 * PI * np.asarray(doy0, dtype=np.float64) / 365.0
    return 1.00011 + 0.034221 * np.cos(g) + 0.00128 * np.sin(g) + 0.000719 * np.cos(2 * g) + 0.000077 * np.sin(2 * g)


def day_length_hours(latitude, doy0):
    """Hours between sunrise and sunset; latitude in degrees north. 0 in polar night, 24 in polar day."""
    tangents = -np.tan(np.asarray(latitude, dtype=np.float64) * DEGREE) * np.tan(declination(doy0))
    return 2.0 / 15.0 * np.arccos(np.clip(tangents, -1.0, 1.0)) * RADIAN


def sine_of_height(latitude, doy0):
    """Sine of the sun's height at each half hour, (..., 48) in -1 to 1; index 24 is solar noon."""
    latitude = np.asarray(latitude, dtype=np.float64)[..., None] * DEGREE
    delta = np.asarray(declination(doy0))[..., None]
    hour_angle = (-180.0 + 7.5 * np.arange(HALF_HOURS)) * DEGREE
    sine = np.sin(latitude) * np.sin(delta) + np.cos(latitude) * np.cos(delta) * np.cos(hour_angle)
    return np.clip(sine, -1.0, 1.0)


def top_of_atmosphere(latitude, doy0):
    """Short-wave radiation on a level surface above the air at each half hour, (..., 48) W m-2."""
    solar = SOLAR_CONSTANT * np.asarray(eccentricity_factor(doy0))[..., None]
    return np.maximum(solar * sine_of_height(latitude, doy0), 0.0)


def top_of_atmosphere_daily(latitude, doy0):
    """Daily mean of the short-wave radiation above the air, W m-2 (mean over 48 half hours)."""
    return top_of_atmosphere(latitude, doy0).mean(axis=-1)


def cloud_transmission(cloud):
    """Share of the top-of-atmosphere short wave that reaches the ground; `cloud` is cover as a ratio 0-1."""
    cloud = np.asarray(cloud, dtype=np.float64)
    return np.clip(CLEAR_SKY_TRANSMISSION - CLOUD_LINEAR * cloud - CLOUD_SQUARE * cloud**2, 0.0, 1.0)


def cloud_from_transmission(transmission):
    """Cloud cover, ratio 0-1, that gives this short-wave transmission: the inverse of cloud_transmission, clipped."""
    missing = np.maximum(CLEAR_SKY_TRANSMISSION - np.asarray(transmission, dtype=np.float64), 0.0)
    cloud = (-CLOUD_LINEAR + np.sqrt(CLOUD_LINEAR**2 + 4.0 * CLOUD_SQUARE * missing)) / (2.0 * CLOUD_SQUARE)
    return np.clip(cloud, 0.0, 1.0)


def saturation_vapour_pressure(t_celsius):
    """Saturation vapour pressure, hPa, over water above 0 deg C and over ice below (Tetens)."""
    t = np.asarray(t_celsius, dtype=np.float64)
    warm = np.maximum(t, 0.0)
    cold = np.clip(t, -200.0, 0.0)
    return 6.1078 * np.where(t > 0, 10.0 ** (7.5 * warm / (237.3 + warm)), 10.0 ** (9.5 * cold / (265.3 + cold)))


def saturation_slope(t_celsius):
    """Slope of the saturation vapour pressure with temperature, hPa K-1 (Clausius-Clapeyron)."""
    t = np.asarray(t_celsius, dtype=np.float64)
    latent_heat = np.where(t > 0, 2500.0 - 2.4 * t, 2834.0)
    return latent_heat / (0.4615 * (t + ZERO_CELSIUS) ** 2) * saturation_vapour_pressure(t)


def air_pressure(altitude, t_celsius):
    """Air pressure, hPa, at `altitude` m above sea level (below it: sea level) under air of `t_celsius`."""
    height = np.maximum(np.asarray(altitude, dtype=np.float64), 0.0)
    return SEA_LEVEL_PRESSURE * np.exp(-0.028964 * 9.8 * height / (8.3144 * (np.asarray(t_celsius) + ZERO_CELSIUS)))


def air_density(t_celsius, e, pressure):
    """Density of moist air, kg m-3, from temperature, vapour pressure and air pressure, hPa."""
    kelvin = t_celsius + ZERO_CELSIUS
    return 1.293 * (ZERO_CELSIUS / kelvin) * (pressure / SEA_LEVEL_PRESSURE) * (1.0 - 0.378 * e / pressure)


def aerodynamic_resistance(wind):
    """Resistance of the air to water vapour, s m-1, from the wind at 10 m, m s-1, by the logarithmic profile."""
    return np.clip(np.log(10.0) ** 2 / (0.41**2 * np.maximum(wind, 0.1)), 0.1, 59.5)


def net_longwave(t_celsius, t_surface, e, cloud):
    """Long wave that the surface gains, W m-2 (< 0: loses), from air and surface temperature, deg C, vapour pressure,
    hPa, and cloud cover, ratio 0-1 (Brunt 1932).
    """
    black_body = STEFAN_BOLTZMANN * (t_celsius + ZERO_CELSIUS) ** 4
    return (
        (1.0 - cloud) * (0.53 + 0.06 * np.sqrt(e)) * black_body
        + cloud * (black_body - 9.0)
        - 0.95 * STEFAN_BOLTZMANN * (t_surface + ZERO_CELSIUS) ** 4
    )


def vapour_pressure_from_q(q, pressure):
    """Vapour pressure, in the unit of `pressure`, from specific humidity kg kg-1."""
    q = np.asarray(q, dtype=np.float64)
    return pressure * q / (0.622 + 0.378 * q)


def q_from_vapour_pressure(e, pressure):
    """Specific humidity, kg kg-1, from vapour pressure and air pressure in the same unit."""
    e = np.asarray(e, dtype=np.float64)
    return 0.622 * e / (pressure - 0.378 * e)


def vapour_pressure_deficit(t_celsius, q, pressure):
    """Vapour pressure deficit, hPa and >= 0, from 2 m temperature, specific humidity kg kg-1 and air pressure hPa."""
    return np.maximum(saturation_vapour_pressure(t_celsius) - vapour_pressure_from_q(q, pressure), 0.0)


def background_co2(latitude, year, doy0):
    """Background CO2, ppm, as VISIT computes it: a polynomial in the calendar year plus a seasonal wave.

    Southern sites shift the season by 180 days. The polynomial regresses past observations; from about 2010 on it runs
    above them, and so do VISIT's files (397.4 ppm in 2010, 425.2 in 2019). Day 365 of a leap year is used as it is.
    """
    latitude = np.asarray(latitude, dtype=np.float64)
    year = np.asarray(year, dtype=np.float64)
    c0, c1, c2, c3, c4, c5 = _CO2_POLYNOMIAL
    base = c0 + c1 * year + c2 * year**2 + c3 * year**3 + c4 * year**4 + c5 * year**5
    day = np.asarray(doy0, dtype=np.float64) + np.where(latitude >= 0, 0.0, 180.0)
    return base + 1.6 * latitude / 85.0 + 0.5 * np.exp(0.04 * latitude) * np.sin(2.0 * PI * day / 365.0)
