"""Everything of a day that does not depend on VISIT's parameters or state, computed once per weather.

Symbols and section numbers follow the published equations of VISIT's daily big-leaf scheme (Ito & Oikawa 2002,
Ecological Modelling 151:143-176; Penman-Monteith; Lloyd & Taylor 1994; Boyer et al. 1996; Ito 2007 for erosion).
Light comes from cloud cover, not from the short-wave column: that is how VISIT runs at LHP.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from calibration.common.command_line import UserError, warn
from calibration.common.sites import EVERGREEN, Site
from calibration.common.units import SECONDS_PER_DAY, ZERO_CELSIUS
from calibration.weather import atmosphere

LATENT_HEAT = 695.0  # W h kg-1
PSYCHROMETRIC = 0.667  # hPa K-1
SPINUP_YEARS = 2010  # VISIT's spin-up is 201 loops of 10 years
DAYS_PER_SPINUP_YEAR = 365
RANDOM_YEARS, RANDOM_SEED = 100, 1  # of a loop where the variant draws years at random
EXPORTS_FROM_YEAR = 101  # DOC and erosion leave the active humus from this spin-up year on


class Day(NamedTuple):
    """One day of forcing as the kernel reads it; also the column order of DailyForcing.days."""

    surface_temperature: float  # deg C
    air_temperature: float  # deg C
    co2: float  # ppm
    vpd: float  # hPa
    rain: float  # mm day-1
    shortwave: float  # W m-2, daily mean below the cloud
    longwave: float  # W m-2, net, downward minus upward
    day_length: float  # h
    path: float  # length of a noon sun beam through the canopy over the overhead one, 1-3.3
    light_canopy: float  # umol m-2 s-1, noon PPFD of the canopy integral
    light_leaf: float  # umol m-2 s-1, noon PPFD of the single leaf
    yield_temperature: float  # temperature factor of the quantum yield
    compensation: float  # temperature factor of the CO2 compensation point
    slope: float  # hPa K-1, of the saturation vapour pressure
    dryness: float  # rho VPD / r_a of Penman-Monteith
    wet_evaporation: float  # day length / 695 / (slope + gamma): energy to evaporation from a wet surface
    wet_resistance: float  # 695 (slope + gamma)
    dry_resistance: float  # 695 gamma / (2.24e-5 r_a): part that falls with surface conductance in mmol m-2 s-1
    q10_surface: float  # (T_s - 15) / 10
    q10_acclimation: float  # exponent added by acclimation, surface
    q10_soil: float  # (T_1 - 15) / 10
    q10_acclimation_soil: float  # exponent added by acclimation, roots
    decay_upper: float  # Lloyd-Taylor factor of the 0-10 cm soil
    decay_lower: float  # Lloyd-Taylor factor of the deep soil
    thawed: float  # 1 where the deep soil is above 0 deg C
    doc_production: float  # mg L-1 day-1
    doc_decay: float  # day-1
    erosion: float  # Mg C ha-1, on the last day of a year, else 0


@dataclass(frozen=True)
class DailyForcing:
    """Daily forcing of the kernel. `days` is (day, len(Day._fields)) float64, contiguous."""

    days: np.ndarray
    years: int  # number of (calendar or 365-day) years in it

    @property
    def length(self) -> int:
        """Number of days."""
        return len(self.days)


def calendar(dates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(day,) datetime64[D] -> calendar year and day of the year from 0, both (day,) int64."""
    years = dates.astype("datetime64[Y]")
    return years.astype(np.int64) + 1970, (dates - years.astype("datetime64[D]")).astype(np.int64)


def whole_years(dates: np.ndarray) -> dict[int, slice]:
    """Calendar years that lie completely in consecutive `dates` (day,), and where."""
    first, last = dates[0].astype("datetime64[Y]"), dates[-1].astype("datetime64[Y]")
    found, one = {}, np.timedelta64(1, "Y")
    for year in np.arange(first, last + one):
        start, stop = (int((y.astype("datetime64[D]") - dates[0]).astype(int)) for y in (year, year + one))
        if start >= 0 and stop <= len(dates):
            found[int(year.astype(np.int64)) + 1970] = slice(start, stop)
    return found


def upper_capacity(site: Site) -> float:
    """Field capacity of the 0-30 cm soil, mm: the site's own value, else Saxton et al. (1986) from sand and clay."""
    if site.upper_capacity is not None:
        return float(site.upper_capacity)
    sand, clay = 100.0 * site.sand, 100.0 * site.clay
    a = 100.0 * np.exp(-4.396 - 0.0715 * clay - 4.488e-4 * sand**2 - 4.285e-5 * sand**2 * clay)
    b = -3.14 - 0.00222 * clay**2 - 3.484e-5 * sand**2 * clay
    tension = 10.0 if site.texture == "coarse" else 33.0
    return float(300.0 * (tension / a) ** (1.0 / b))


def drought_water(site: Site) -> float:
    """Lower-bucket water, mm, below which leaves are shed (potential -148.075); -1 where that cannot happen."""
    a, b = {"coarse": (0.121, 4.05), "medium": (0.478, 5.39), "fine": (0.405, 11.4)}[site.texture]
    water = site.lower_capacity * (a / (148.075 - 1.0)) ** (1.0 / b)
    return water if water > 0.2 else -1.0  # the potential is evaluated at 0.2 mm or more


def experiment_forcing(
    dates: np.ndarray, values: np.ndarray, site: Site, pressure: np.ndarray | None = None
) -> DailyForcing:
    """Forcing of the experiment: every day of the weather with its own CO2 (or as the site's variant has it).

    dates: (day,) datetime64[D]; values: (day, 10) in the order and units of units.DYNAMIC_FEATURES; pressure: (day,)
    Pa, needed only where the variant takes it from the forcing.
    """
    year, doy0 = calendar(dates)
    co2 = values[:, 9]
    if site.variant.first_co2_year is not None:
        co2 = atmosphere.background_co2(site.latitude, year - year[0] + site.variant.first_co2_year, doy0)
    return _forcing(values, doy0, year, co2, site, pressure)


def spinup_forcing(
    dates: np.ndarray, values: np.ndarray, site: Site, pressure: np.ndarray | None = None
) -> tuple[DailyForcing, int]:
    """Forcing of one spin-up loop, and the number of loops; arguments as in experiment_forcing.

    The loop is the whole calendar years of the weather, 365 days each (day 366 skipped), under the CO2 of the site's
    spin-up year; as many loops as reach at least 2010 years. Where the variant draws the years at random, a loop is
    RANDOM_YEARS draws, the same for all runs. UserError when no calendar year is whole.
    """
    years = whole_years(dates)
    if not years:
        raise UserError(
            f"the weather ({dates[0]} to {dates[-1]}) holds no whole calendar year, and the spin-up needs at least one;"
            " give weather from 1 January to 31 December"
        )
    year, doy0 = calendar(dates)
    keep = np.isin(year, list(years)) & (doy0 < DAYS_PER_SPINUP_YEAR)
    co2_year = site.spinup_co2_year if site.variant.first_co2_year is None else site.variant.first_co2_year
    co2 = atmosphere.background_co2(site.latitude, co2_year, doy0[keep])
    forcing = _forcing(values[keep], doy0[keep], year[keep], co2, site, None if pressure is None else pressure[keep])
    if site.variant.random_spinup:
        by_year = forcing.days.reshape(len(years), DAYS_PER_SPINUP_YEAR, -1)
        drawn = np.random.default_rng(RANDOM_SEED).integers(len(years), size=RANDOM_YEARS)
        forcing = DailyForcing(np.ascontiguousarray(by_year[drawn].reshape(-1, by_year.shape[-1])), RANDOM_YEARS)
    return forcing, -(-SPINUP_YEARS // forcing.years)


def check_model_holds(site: Site, measured: np.ndarray | None) -> None:
    """UserError when the process model would be wrong for the site's forest, or when the site's variant takes the air
    pressure from a forcing that has none; measured: (day,) Pa or None.
    """
    if site.forest != EVERGREEN:
        raise UserError(
            f"{site.path}: forest is {site.forest!r}, allowed is {EVERGREEN}: the process model has no leaf fall by "
            "season and would be wrong; use a process model of your own (run_perturbations.py --run-folder)"
        )
    if site.variant.pressure == "forcing" and measured is None:
        raise UserError(
            "the variant `pressure: forcing` needs weather with pressure: VISIT's 19-column text, or a CSV with "
            "a column `pressure` in Pa"
        )


def _pressure(site: Site, t_air: np.ndarray, measured: np.ndarray | None) -> np.ndarray:
    """(day,) air pressure, hPa, where the site's variant takes it from."""
    if site.variant.pressure == "altitude":
        return atmosphere.air_pressure(site.altitude, t_air)
    if site.variant.pressure == "forcing":
        return measured / 100.0
    return np.full_like(t_air, float(site.variant.pressure))


def _forcing(
    values: np.ndarray, doy0: np.ndarray, year: np.ndarray, co2: np.ndarray, site: Site,
    measured: np.ndarray | None = None,
) -> DailyForcing:  # fmt: skip
    check_model_holds(site, measured)
    t_surface, t_air, t_soil, t_deep, _, cloud_percent, precipitation, q, wind = values[:, :9].T.astype(np.float64)
    t_surface, t_air, t_soil, t_deep = (t - ZERO_CELSIUS for t in (t_surface, t_air, t_soil, t_deep))
    if t_air.min() < -2.0:
        _warn_of_snow(round(float(t_air.min()), 1))
    cloud = cloud_percent / 100.0

    # Light (sections 1.1-1.3)
    sine = atmosphere.sine_of_height(site.latitude, doy0)
    top = atmosphere.top_of_atmosphere(site.latitude, doy0)
    transmission = atmosphere.cloud_transmission(cloud)
    noon = transmission * top[:, atmosphere.NOON]
    diffuse_share = 0.958 - 0.982 * transmission
    beam = 0.43 * (noon - diffuse_share * noon)
    diffuse = 0.57 * diffuse_share * noon
    share = np.maximum(diffuse_share, 0.01)
    light_leaf = (4.576 - 0.033144 * share) * beam + np.maximum(4.5886 * share / (0.010773 + share), 4.2) * diffuse

    # Air and net long wave (2.1, 5.1, 5.2)
    pressure = _pressure(site, t_air, measured)
    e = atmosphere.vapour_pressure_from_q(q, pressure)
    vpd = atmosphere.vapour_pressure_deficit(t_air, q, pressure)
    longwave = atmosphere.net_longwave(t_air, t_surface, e, cloud)
    density = atmosphere.air_density(t_air, e, pressure)
    resistance = atmosphere.aerodynamic_resistance(wind)
    slope = atmosphere.saturation_slope(t_air)
    day_length = atmosphere.day_length_hours(site.latitude, doy0)
    rain = precipitation * SECONDS_PER_DAY
    below_52 = np.maximum(52.0 - t_surface, 0.0)
    t_mean = 0.5 * (t_soil + t_deep)
    columns = Day(
        surface_temperature=t_surface,
        air_temperature=t_air,
        co2=co2,
        vpd=vpd,
        rain=rain,
        shortwave=(transmission[:, None] * top).mean(axis=1),
        longwave=longwave,
        day_length=day_length,
        path=1.0 / np.clip(sine[:, atmosphere.NOON], 0.3, 1.0),
        light_canopy=4.6 * beam + 4.2 * diffuse,
        light_leaf=light_leaf,
        yield_temperature=below_52 / (3.5 + 0.75 * below_52),
        compensation=np.maximum(0.0, 1.0 + 0.0451 * (t_surface - 20.0) + 0.000347 * (t_surface - 20.0) ** 2),
        slope=slope,
        dryness=density * vpd / resistance,
        wet_evaporation=day_length / (LATENT_HEAT * (slope + PSYCHROMETRIC)),
        wet_resistance=LATENT_HEAT * (slope + PSYCHROMETRIC),
        dry_resistance=LATENT_HEAT * PSYCHROMETRIC / (2.24e-5 * resistance),
        q10_surface=(t_surface - 15.0) / 10.0,
        q10_acclimation=-0.009 * (t_surface - 15.0) * (t_surface - 15.0) / 10.0,
        q10_soil=(t_soil - 15.0) / 10.0,
        q10_acclimation_soil=-0.009 * (t_surface - 15.0) * (t_soil - 15.0) / 10.0,
        decay_upper=_lloyd_taylor(t_soil),
        decay_lower=_lloyd_taylor(t_deep),
        thawed=(t_deep > 0.0).astype(np.float64),
        doc_production=0.11 * 10.0 ** (0.04 * t_mean),
        doc_decay=1.0 - np.exp(-0.002 * t_mean),
        erosion=_erosion(rain, year, site),
    )
    days = np.ascontiguousarray(np.stack([np.broadcast_to(c, rain.shape) for c in columns], axis=1), dtype=np.float64)
    return DailyForcing(days, len(np.unique(year)))


@cache
def _warn_of_snow(coldest: float) -> None:
    """Once a process and weather: the forcing is computed more than once."""
    warn(f"air temperature falls to {coldest} deg C; snow is not simulated, all precipitation is rain")


def _lloyd_taylor(t: np.ndarray) -> np.ndarray:
    """Decomposition relative to 10 deg C, Lloyd & Taylor (1994); t in deg C."""
    return 0.01 + np.where(t > -20.0, np.exp(308.56 * (1.0 / 56.02 - 1.0 / (np.maximum(t, -20.0) + 46.02))), 0.0)


def _erosion(rain: np.ndarray, year: np.ndarray, site: Site) -> np.ndarray:
    """Carbon carried off by soil erosion (RUSLE), Mg C ha-1 on each year's last day; (day,).

    A year that is not whole is charged by its share of 365 days at its mean rain.
    """
    slope = np.radians(site.slope_degrees)
    steepness = 10.8 * np.sin(slope) + 0.03 if np.tan(slope) < 0.09 else 16.8 * np.sin(slope) - 0.5
    ratio = np.sin(slope) / 0.0896 / (3.0 * np.sin(slope) ** 0.8 + 0.56)
    length = (site.slope_length / 22.13) ** (ratio / (1.0 + ratio))
    g = -3.5 * site.sand - 2.0 * site.silt - 0.5 * site.clay
    clay = site.clay
    erodibility = 0.0293 * (0.65 - g + 0.24 * g**2)
    erodibility *= np.exp(-0.0021 / clay - 0.00037 / clay**2 - 4.02 * clay + 1.72 * clay**2)
    export = np.zeros_like(rain)
    for y in np.unique(year):
        days = np.flatnonzero(year == y)
        share = min(len(days) / 365.0, 1.0)
        p = rain[days].sum() / share
        r = 587.8 - 1.219 * p + 0.004105 * p**2 if p > 850.0 else 0.0483 * p**1.61
        export[days[-1]] = share * r * length * steepness * erodibility * 0.001 * 0.01 * 0.45
    return export
