"""VISIT's nine weather variables from a tower's columns: units by magnitude, humidity, wind at 10 m, cloud, sources.

Every value has a source: 'tower' (measured, with good quality), 'estimated' (computed from other measurements), 'ERA5'
(filled), '' (none). Units of the networks' daily files: TA deg C, VPD hPa, PA kPa, P mm day-1 (a sum), SW_IN W m-2,
WS m s-1; other units are told from the magnitude where that is beyond doubt, and are an error where it is not.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from calibration.common.command_line import UserError, warn
from calibration.common.units import METEOROLOGY, SECONDS_PER_DAY, ZERO_CELSIUS
from calibration.tower.checks import unit_jump
from calibration.tower.file import TowerFile
from calibration.tower.layouts import HIGH, Layout
from calibration.weather.atmosphere import cloud_from_transmission, q_from_vapour_pressure, top_of_atmosphere_daily
from calibration.weather.daily import day_of_year0

TOWER, ESTIMATED, ERA5, NONE = "tower", "estimated", "ERA5", ""
# Columns in the order of preference; gaps of the first are filled from the next ones.
CANDIDATES = {
    "TA": ("TA_F", "TA_F_MDS", "TA_PI_F", "TA"),
    "SW_IN": ("SW_IN_F", "SW_IN_F_MDS", "SW_IN_PI_F", "SW_IN"),
    "P": ("P_F", "P_PI_F", "P"),
    "WS": ("WS_F", "WS_PI_F", "WS"),
    "VPD": ("VPD_F", "VPD_F_MDS", "VPD_PI_F", "VPD"),
    "PA": ("PA_F", "PA_PI_F", "PA"),
    "RH": ("RH_F", "RH_PI_F", "RH"),
}
# Possible daily values after conversion; anything else is missing.
POSSIBLE_TOWER = {
    "TA": (-80.0, 60.0), "SW_IN": (0.0, 600.0), "P": (0.0, 1000.0), "WS": (0.0, 50.0), "VPD": (0.0, 100.0),
    "PA": (40.0, 110.0), "RH": (0.0, 105.0),
}  # fmt: skip
UNIT_CHOICES = {
    "TA": {"C": (1.0, 0.0), "K": (1.0, -ZERO_CELSIUS), "F": (1 / 1.8, -32 / 1.8)},
    "SW_IN": {"W": (1.0, 0.0), "MJ": (1e6 / SECONDS_PER_DAY, 0.0)},
    "P": {"mm-day": (1.0, 0.0), "mm-halfhour": (48.0, 0.0), "kg-s": (SECONDS_PER_DAY, 0.0)},
    "WS": {"m-s": (1.0, 0.0), "km-h": (1 / 3.6, 0.0)},
    "VPD": {"hPa": (1.0, 0.0), "kPa": (10.0, 0.0), "Pa": (0.01, 0.0)},
    "PA": {"kPa": (1.0, 0.0), "hPa": (0.1, 0.0), "Pa": (0.001, 0.0)},
}  # factor and offset to deg C, W m-2, mm day-1, m s-1, hPa, kPa
ENOUGH = 10  # days needed to tell a unit by magnitude


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


def saturation_vapour_pressure_water(t_celsius):
    """Saturation vapour pressure over water, hPa (Ambaum 2020, QJRMS 146, 4252, eq. 13), for -80 to 60 deg C."""
    gas, liquid, vapour, latent = 461.523, 4219.4, 1860.078, 2500840.0  # J kg-1 K-1 and, at 273.16 K, J kg-1
    triple = 273.16
    t = np.asarray(t_celsius, dtype=float) + ZERO_CELSIUS
    heat = latent - (liquid - vapour) * (t - triple)
    return 6.112 * (triple / t) ** ((liquid - vapour) / gas) * np.exp(latent / (gas * triple) - heat / (gas * t))


def specific_humidity(t_celsius, vpd_hpa, pressure_kpa):
    """Specific humidity, kg kg-1: e = e_s(T) - VPD, q = 0.622 e / (p - 0.378 e). NaN where VPD exceeds e_s by 5 %."""
    saturated = saturation_vapour_pressure_water(t_celsius)
    vapour = saturated - np.asarray(vpd_hpa, dtype=float)
    vapour = np.where(vapour < -0.05 * saturated, np.nan, np.clip(vapour, 0.0, None))
    return q_from_vapour_pressure(vapour, 10.0 * np.asarray(pressure_kpa, dtype=float))


def wind_at_10m(speed, height: float, roughness: float):
    """Wind speed at 10 m, m s-1, from the speed at `height` m by the logarithmic profile over `roughness` m.

    UserError unless both heights lie above the roughness length.
    """
    if not (0 < height <= 500 and 0 < roughness < min(height, 10.0)):
        raise UserError(
            f"wind: roughness length {roughness:g} m must be above 0 and below both 10 m and the sensor's {height:g} "
            "m; correct --roughness and --wind-height"
        )
    return np.asarray(speed, dtype=float) * np.log(10.0 / roughness) / np.log(height / roughness)


class TowerWeather:
    """The tower's own variables in the networks' units, quality-checked; made once, asked by name."""

    def __init__(
        self, tower: TowerFile, layout: Layout, qc_threshold: float | None, qc_best: str | None, units: dict[str, str]
    ):
        """qc_threshold: worst flag kept, None = all; qc_best: None = by layout; units: forced ones by variable."""
        self.tower, self.layout = tower, layout
        self.qc_threshold, self.qc_best, self.forced = qc_threshold, qc_best, units
        self.notes: dict[str, str] = {}
        self._done: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        """One variable, (day,): TA deg C, SW_IN W m-2, P mm day-1, WS m s-1, VPD hPa, PA kPa, RH percent; NaN = gap."""
        if name not in self._done:
            self._done[name] = self._variable(name)
        return self._done[name]

    def _variable(self, name: str) -> np.ndarray:
        values = np.full(len(self.tower.dates), np.nan)
        used = []
        for column in CANDIDATES[name]:
            if column not in self.tower:
                continue
            found = self._good(column)
            if np.isnan(found).all():
                continue
            self._warn_of_jump(name, column, found)
            unit = self.forced.get(name) or self._unit(name, column, found)
            if name in UNIT_CHOICES:
                factor, offset = UNIT_CHOICES[name][unit]
                found = factor * found + offset
            low, high = POSSIBLE_TOWER[name]
            if name in ("VPD", "SW_IN"):  # tiny negative values are rounding of nothing
                found = np.where((found < 0) & (found > -5), 0.0, found)
            found = np.where((found >= low) & (found <= high), found, np.nan)
            new = np.isnan(values) & ~np.isnan(found)
            if new.any():
                values = np.where(new, found, values)
                used.append(f"{column} ({unit}, {new.sum()} days)" if unit else f"{column} ({new.sum()} days)")
        self.notes[name] = ", ".join(used) if used else "no column with values"
        return values

    def _warn_of_jump(self, name: str, column: str, values: np.ndarray) -> None:
        # Temperatures near 0 deg C and the light of polar winters change their size without changing their unit.
        size = (
            np.abs(values) + 10.0
            if name == "TA"
            else np.where(values > 20, values, np.nan)
            if name == "SW_IN"
            else values
        )
        jump = unit_jump(size, self.tower.dates)
        if jump:
            warn(
                f"{self.tower.path}: {column} changes its size {jump[1]:.3g}-fold on {jump[0]} and keeps it, as if its "
                "unit had changed: look at it before you use it"
            )

    def _good(self, column: str) -> np.ndarray:
        """A column without the days whose flag is worse than the threshold."""
        values = self.tower.numbers(column)
        flag_column = f"{column}_QC"
        if self.qc_threshold is None or flag_column not in self.tower:
            return values
        flag = self.tower.numbers(flag_column)
        found = flag[~np.isnan(flag)]
        if not len(found):
            return values
        best = self.qc_best or self.layout.qc_best
        if self.qc_best is None:
            if best == HIGH and found.max() > 1:
                raise UserError(
                    f"{self.tower.path}: {flag_column} is a share of good data in this layout (1 best), but reaches "
                    f"{found.max():g}; say with --qc-best low or high which end is best, or use --no-qc"
                )
            if best is None and found.max() <= 1:
                raise UserError(
                    f"{self.tower.path}: {flag_column} runs from {found.min():g} to {found.max():g}, and neither "
                    "layout nor values tell whether 0 or 1 is best; say it with --qc-best low or high, or use --no-qc"
                )
            best = best or "low"
        good = flag >= self.qc_threshold if best == HIGH else flag <= self.qc_threshold
        return np.where(good, values, np.nan)

    def _unit(self, name: str, column: str, values: np.ndarray) -> str:
        """The unit of a column by its magnitude; UserError where two units are possible or none is."""
        found = values[~np.isnan(values)]
        if name == "RH":
            return ""
        if name == "VPD":
            return self._vpd_unit(column, values)
        if len(found) < ENOUGH:
            return next(iter(UNIT_CHOICES[name]))
        middle, high = float(np.median(found)), float(np.quantile(found, 0.99))
        choice = {
            "TA": lambda: "C" if -80 <= middle <= 45 and high < 56 else "K" if 190 <= middle <= 320 else None,
            "PA": lambda: "kPa" if 45 <= middle <= 108 else "hPa" if 450 <= middle <= 1080
            else "Pa" if 45000 <= middle <= 108000 else None,
            "SW_IN": lambda: self._shortwave_unit(found, high),
            "P": lambda: self._rain_unit(found),
            "WS": lambda: "m-s" if high <= 40 else None,
        }[name]()  # fmt: skip
        if choice is None:
            raise UserError(
                f"{self.tower.path}: {column} has median {middle:.4g} and 99 % quantile {high:.4g}, which fits no unit "
                f"beyond doubt; say it with --unit {name}={'|'.join(UNIT_CHOICES[name])}"
            )
        if choice != next(iter(UNIT_CHOICES[name])):
            warn(f"{self.tower.path}: {column} is taken as {choice} by its magnitude (median {middle:.4g})")
        return choice

    def _shortwave_unit(self, found: np.ndarray, high: float) -> str | None:
        # The clearest days of a year reach 150 W m-2 and more outside polar winters; 45 MJ m-2 is above any day's sum.
        if high > 60 or len(found) < 200:
            return "W" if high <= 500 else None
        return "MJ" if high > 8 else None

    def _rain_unit(self, found: np.ndarray) -> str | None:
        total = float(found.mean())
        if found.max() < 0.02 and total > 0:
            return "kg-s"
        # 20 m a year is more than any place gets; less than 4 mm a year over 200 days is no daily sum but a mean.
        if total > 55 or (0 < total < 0.01 and len(found) >= 200):
            return None
        return "mm-day"

    def _vpd_unit(self, column: str, values: np.ndarray) -> str:
        ratio = values / saturation_vapour_pressure_water(self["TA"])
        warm = ratio[~np.isnan(ratio) & (self["TA"] > 0)]
        if len(warm) < ENOUGH:
            warm = ratio[~np.isnan(ratio)]
        if len(warm) < ENOUGH:
            return "hPa"
        middle, high = float(np.median(warm)), float(np.quantile(warm, 0.98))
        # As hPa the deficit cannot exceed saturation (a little, since saturation is taken at the day's mean).
        if high > 1.1:
            unit = "Pa" if middle > 2 and high < 110 else None
        elif high > 0.11:  # as kPa it would exceed saturation
            unit = "hPa"
        else:
            # Never below 89 percent humidity in hPa, or an ordinary site in kPa. ONEFlux products are hPa by
            # definition, so there it is a contradiction, not a choice.
            unit = self._vpd_by_humidity(values) or (None if self.layout.qc_best == HIGH else "kPa")
        if unit is None:
            raise UserError(
                f"{self.tower.path}: {column} taken as hPa is {middle:.3g} of saturation on the median day and "
                f"{high:.3g} on dry ones, which leaves its unit open; say it with --unit VPD=hPa|kPa|Pa"
            )
        if unit != "hPa":
            warn(f"{self.tower.path}: {column} is taken as {unit} by its magnitude against saturation")
        return unit

    def _vpd_by_humidity(self, values: np.ndarray) -> str | None:
        """The unit of VPD, hPa or kPa, that agrees with relative humidity; None without humidity."""
        deficit = saturation_vapour_pressure_water(self["TA"]) * (1 - self["RH"] / 100)
        both = ~np.isnan(values) & ~np.isnan(deficit) & (deficit > 0.5)
        if both.sum() < ENOUGH:
            return None
        scale = float(np.median(values[both] / deficit[both]))
        return "hPa" if 0.4 < scale < 2.5 else "kPa" if 0.04 < scale < 0.25 else None


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
    return Meteorology(tower.dates, values, source, weather.notes)


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
