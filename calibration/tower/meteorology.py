"""VISIT's nine weather variables from a tower's columns: units by magnitude, humidity, wind at 10 m, cloud, sources.

Every value has a source: 'tower' (measured, with good quality), 'estimated' (computed from other measurements), 'ERA5'
(filled), '' (none). Units of the networks' daily files: TA deg C, VPD hPa, PA kPa, P mm day-1 (a sum), SW_IN W m-2,
WS m s-1; other units are told from the magnitude where that is beyond doubt, and are an error where it is not.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError, warn, write_csv
from calibration.common.units import METEOROLOGY, SECONDS_PER_DAY, ZERO_CELSIUS
from calibration.tower.weather_columns import TowerWeather, saturation_vapour_pressure_water
from calibration.weather.atmosphere import cloud_from_transmission, q_from_vapour_pressure, top_of_atmosphere_daily
from calibration.weather.daily import Weather, day_of_year0
from calibration.weather.sentinel import check_columns

TOWER, ESTIMATED, ERA5, NONE = "tower", "estimated", "ERA5", ""
SUSPICIOUS_RAIN = 100.0  # mm day-1; more is checked against ERA5


@dataclass
class Meteorology:
    """Nine variables of a tower.

    dates: (day,) datetime64[D]; values: (day, 9) in the order of units.METEOROLOGY and VISIT's units, NaN where there
    is none; source: (day, 9) of 'tower', 'estimated', 'ERA5', ''; notes: the columns used, by variable.
    """

    dates: np.ndarray
    values: np.ndarray
    source: np.ndarray
    notes: dict[str, str] = field(default_factory=dict)


def specific_humidity(t_celsius, vpd_hpa, pressure_kpa):
    """Specific humidity, kg kg-1: e = e_s(T) - VPD, q = 0.622 e / (p - 0.378 e). NaN where VPD exceeds e_s by 5 %."""
    saturated = saturation_vapour_pressure_water(t_celsius)
    vapour = saturated - np.asarray(vpd_hpa, dtype=float)
    vapour = np.where(vapour < -0.05 * saturated, np.nan, np.clip(vapour, 0.0, None))
    return q_from_vapour_pressure(vapour, 10.0 * np.asarray(pressure_kpa, dtype=float))


def wind_at_10m(speed, height: float, roughness: float):
    """Wind speed at 10 m, m s-1, from the speed at `height` m by the logarithmic profile over `roughness` m.

    UserError unless both heights lie above the roughness length.

    >>> round(float(wind_at_10m(3.0, height=46.0, roughness=2.0)), 2)
    1.54
    """
    if not (0 < height <= 500 and 0 < roughness < min(height, 10.0)):
        raise UserError(
            f"wind: roughness length {roughness:g} m must be above 0 and below both 10 m and the sensor's {height:g} "
            "m; correct --roughness and --wind-height"
        )
    return np.asarray(speed, dtype=float) * np.log(10.0 / roughness) / np.log(height / roughness)


def from_tower(
    weather: TowerWeather,
    wind_height: float | None = None,
    roughness: float | None = None,
    cloud: bool = False,
    latitude: float | None = None,
    pressure_kpa: float | None = None,
) -> Meteorology:
    """VISIT's nine variables of a tower.

    wind_height, roughness: m, None = the wind is taken as measured; cloud: estimate cloud cover from the shortwave's
    share of SW_IN_POT (or of the computed top of the atmosphere at `latitude`, degrees north); pressure_kpa: used
    where PA is missing (humidity is then 'estimated'), None = humidity stays missing there.
    """
    tower = weather.tower
    days = len(tower.dates)
    values, source = np.full((days, len(METEOROLOGY)), np.nan), np.full((days, len(METEOROLOGY)), NONE, dtype="<U9")

    def put(name: str, series: np.ndarray, label) -> None:
        """Take a series (day,) as variable `name`, and note where it comes from."""
        column = METEOROLOGY.index(name)
        values[:, column] = series
        source[:, column] = np.where(np.isnan(series), NONE, label)

    kelvin = weather["TA"] + ZERO_CELSIUS
    put("tmp_2m", kelvin, TOWER)
    put("tmp_sfc", kelvin, TOWER)
    put("dswrf_sfc", weather["SW_IN"], TOWER)
    put("prate_sfc", weather["P"] / SECONDS_PER_DAY, TOWER)
    wind = weather["WS"]
    if wind_height is not None:
        wind = wind_at_10m(wind, wind_height, roughness)
    put("wind_10m", wind, TOWER)

    deficit, labels = weather["VPD"], np.full(days, TOWER, dtype="<U9")
    if np.isnan(deficit).any() and not np.isnan(weather["RH"]).all():
        from_humidity = saturation_vapour_pressure_water(weather["TA"]) * (1 - np.minimum(weather["RH"], 100) / 100)
        labels = np.where(np.isnan(deficit), ESTIMATED, labels)
        deficit = np.where(np.isnan(deficit), from_humidity, deficit)
    pressure = weather["PA"]
    if pressure_kpa is not None:
        labels = np.where(np.isnan(pressure), ESTIMATED, labels)
        pressure = np.where(np.isnan(pressure), pressure_kpa, pressure)
    put("spfh_2m", specific_humidity(weather["TA"], deficit, pressure), labels)
    if cloud:
        put("tcdc_clm", _cloud(weather, latitude), ESTIMATED)
    check_columns(
        dict(zip(METEOROLOGY, values.T, strict=True)), tower.dates, str(tower.path), gaps=True, changes=False
    )  # fmt: skip
    return Meteorology(tower.dates, values, source, weather.notes)


def lacking(met: Meteorology, weather: TowerWeather) -> list[str]:
    """What the tower cannot give on all or some days, and why, in words: for the summary.

    met: as from_tower made it.
    """
    days, said = len(met.dates), []
    reasons = {
        "tmp_2m": ("TA",), "tmp_sfc": ("TA",), "dswrf_sfc": ("SW_IN",), "prate_sfc": ("P",), "wind_10m": ("WS",),
        "spfh_2m": ("TA", "VPD", "PA"),
    }  # fmt: skip
    for name, needed in reasons.items():
        empty = np.isnan(met.values[:, METEOROLOGY.index(name)])
        if not empty.any():
            continue
        gaps = {column: int(np.isnan(weather[column]).sum()) for column in needed}
        without = [f"{column} on {count}" for column, count in gaps.items() if count]
        how = f"{name} is empty on {int(empty.sum())} of {days} days"
        how += f" (missing: {', '.join(without)} days)" if without else ""
        if name == "spfh_2m" and gaps["PA"]:
            how += "; without air pressure there is no humidity: --site gives one from the altitude"
        said.append(how)
    said += [f"{name} is empty: towers do not measure it (ERA5 has it)" for name in ("tmp10_soil", "tmp200_soil")]
    if np.isnan(met.values[:, METEOROLOGY.index("tcdc_clm")]).all():
        said.append("tcdc_clm is empty: --cloud estimate computes it from shortwave, ERA5 has it")
    return said


def _cloud(weather: TowerWeather, latitude: float | None) -> np.ndarray:
    """Cloud cover, (day,) percent, from the share of the top-of-atmosphere shortwave that arrives (VISIT's scheme)."""
    tower = weather.tower
    if "SW_IN_POT" in tower:
        potential = tower.numbers("SW_IN_POT")
    elif latitude is not None:
        potential = top_of_atmosphere_daily(latitude, day_of_year0(tower.dates))
    else:
        raise UserError(f"{tower.path}: has no SW_IN_POT, so cloud needs the site's latitude: give it with --site")
    # Below 20 W m-2 (polar winter) the share is noise.
    share = np.where(potential > 20, weather["SW_IN"] / np.maximum(potential, 1.0), np.nan)
    return np.where(np.isnan(share), np.nan, 100.0 * cloud_from_transmission(np.clip(share, 0, 1)))


def sidecar_path(output: Path) -> Path:
    """The CSV of sources that belongs to a weather CSV."""
    return output.with_name(f"{output.stem}_sources.csv")


def write_meteorology(output: Path, met: Meteorology) -> Path:
    """Write date + nine variables, and the sidecar of sources (same columns, words); returns the sidecar's path."""
    days = met.dates.astype(str)
    table = pd.DataFrame(met.values, columns=list(METEOROLOGY))
    table.insert(0, "date", days)
    sources = pd.DataFrame(met.source, columns=list(METEOROLOGY))
    sources.insert(0, "date", days)
    sidecar = sidecar_path(output)
    write_csv(sidecar, sources)  # first: a weather file without it would pass for all measured
    write_csv(output, table, float_format="%.8g")
    return sidecar


def check_rain(met: Meteorology, era5: Weather | None) -> None:
    """Warn of days of extreme rain: a quality flag does not catch them."""
    rain = met.values[:, METEOROLOGY.index("prate_sfc")] * SECONDS_PER_DAY
    for day in np.flatnonzero(rain > SUSPICIOUS_RAIN)[:5]:
        beside = ""
        if era5 is not None:
            at = int((met.dates[day] - era5.dates[0]).astype(int))
            if 0 <= at < len(era5):
                other = era5.column("prate_sfc")[at] * SECONDS_PER_DAY
                if other > 0.3 * rain[day]:
                    continue
                beside = f" (ERA5 has {other:.0f})"
        warn(f"rain on {met.dates[day]} is {rain[day]:.0f} mm{beside}; quality flags do not catch outliers: check it")


def between(met: Meteorology, start, end) -> Meteorology:
    """The days from start to end (dates or None)."""
    keep = np.ones(len(met.dates), dtype=bool)
    if start is not None:
        keep &= met.dates >= np.datetime64(start, "D")
    if end is not None:
        keep &= met.dates <= np.datetime64(end, "D")
    if not keep.any():
        raise UserError(f"no day from {start} to {end}; the weather runs from {met.dates[0]} to {met.dates[-1]}")
    return Meteorology(met.dates[keep], met.values[keep], met.source[keep], met.notes)
