"""A tower's own weather columns: which to use, their quality flags, and their units by magnitude.

Units of the networks' daily files: TA deg C, VPD hPa, PA kPa, P mm day-1 (a sum), SW_IN W m-2, WS m s-1; other units
are told from the magnitude where that is beyond doubt, and are an error where it is not.
"""

import re

import numpy as np

from calibration.common.command_line import UserError, warn
from calibration.common.unit_change import find_light_change, find_unit_change
from calibration.common.units import SECONDS_PER_DAY, ZERO_CELSIUS
from calibration.tower.file import TowerFile
from calibration.tower.layouts import Layout
from calibration.tower.quality import HIGH, flag_column, qc_direction

# Columns in the order of preference; gaps of the first are filled from the next ones.
CANDIDATES = {
    "TA": ("TA_F", "TA_F_MDS", "TA_PI_F", "TA"),
    "SW_IN": ("SW_IN_F", "SW_IN_F_MDS", "SW_IN_PI_F", "SW_IN", "FSD", "SWDOWN", "RG_F", "RG"),
    "P": ("P_F", "P_PI_F", "P", "PRECIP", "RAIN", "PREC", "PPT"),
    "WS": ("WS_F", "WS_PI_F", "WS"),
    "VPD": ("VPD_F", "VPD_F_MDS", "VPD_PI_F", "VPD"),
    "PA": ("PA_F", "PA_PI_F", "PA", "PS", "PRESS"),
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
# How files write these units, without blanks, dots and hats, in lower case.
UNIT_WORDS = {
    "TA": {"C": "°?c|degc|celsius|degreescelsius", "K": "k|kelvin"},
    "SW_IN": {"W": "w/?m-?2", "MJ": "mj/?m-?2(/?d(ay)?(-?1)?)?"},
    "P": {"mm-day": "mm/?d(ay)?(-?1)?", "kg-s": "kgm-2s-1"},
    "WS": {"m-s": "m/?s(-?1)?", "km-h": "km/?h(-?1)?"},
    "VPD": {"hPa": "hpa|mbar|mb", "kPa": "kpa", "Pa": "pa"},
    "PA": {"kPa": "kpa", "hPa": "hpa|mbar|mb", "Pa": "pa"},
}
ENOUGH = 10  # days needed to tell a unit by magnitude


def parse_units(texts: list[str]) -> dict[str, str]:
    """['VPD=kPa'] -> {'VPD': 'kPa'}; UserError on an unknown variable or unit."""
    units = {}
    for text in texts:
        name, _, unit = text.partition("=")
        if name not in UNIT_CHOICES or unit not in UNIT_CHOICES[name]:
            known = "; ".join(f"{key}={'|'.join(values)}" for key, values in UNIT_CHOICES.items())
            raise UserError(f"--unit {text} is unknown; allowed are {known}")
        units[name] = unit
    return units


def saturation_vapour_pressure_water(t_celsius):
    """Saturation vapour pressure over water, hPa (Ambaum 2020, QJRMS 146, 4252, eq. 13), for -80 to 60 deg C."""
    gas, liquid, vapour, latent = 461.523, 4219.4, 1860.078, 2500840.0  # J kg-1 K-1 and, at 273.16 K, J kg-1
    triple = 273.16
    t = np.asarray(t_celsius, dtype=float) + ZERO_CELSIUS
    heat = latent - (liquid - vapour) * (t - triple)
    return 6.112 * (triple / t) ** ((liquid - vapour) / gas) * np.exp(latent / (gas * triple) - heat / (gas * t))


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
            column = self.tower.find(column)
            if column is None:
                continue
            found = self._good(column)
            if np.isnan(found).all():
                continue
            self._warn_of_jump(name, column, found)
            unit = self.forced.get(name) or self._written(name, column, found) or self._unit(name, column, found)
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
        find = find_unit_change
        if name == "TA":  # degrees near 0 change their size without changing their unit
            values = np.abs(values) + 10.0
        elif name == "SW_IN":
            find = find_light_change
            if "SW_IN_POT" in self.tower:  # what is left without the seasons
                potential = self.tower.numbers("SW_IN_POT")
                values, find = np.where(potential > 20, values / np.maximum(potential, 1.0), np.nan), find_unit_change
        found = find(values, self.tower.dates)
        if found:
            warn(
                f"{self.tower.path}: {column} changes its size {found.ratio:.3g}-fold on {found.day} and keeps it, as "
                "if its unit had changed: look at it before you use it"
            )

    def _good(self, column: str) -> np.ndarray:
        """A column without the days whose flag is worse than the threshold."""
        values = self.tower.numbers(column)
        name = flag_column(self.tower, column)
        if self.qc_threshold is None or name is None:
            return values
        flag = self.tower.numbers(name)
        if np.isnan(flag).all():
            return values
        best = qc_direction(self.tower, name, self.layout.qc_best, self.qc_best, column)
        good = flag >= self.qc_threshold if best == HIGH else flag <= self.qc_threshold
        return np.where(good, values, np.nan)

    def _written(self, name: str, column: str, values: np.ndarray) -> str | None:
        """The unit that the file writes beside a column, if known; UserError where the magnitude denies it."""
        text = re.sub(r"[\s_^*.]", "", self.tower.units.get(column, "")).lower()
        unit = next((unit for unit, pattern in UNIT_WORDS.get(name, {}).items() if re.fullmatch(pattern, text)), None)
        found = values[~np.isnan(values)]
        if unit is None or len(found) < ENOUGH:
            return unit
        factor, offset = UNIT_CHOICES[name][unit]
        middle = float(np.median(found)) * factor + offset
        low, high = POSSIBLE_TOWER[name]
        if not low <= middle <= high:
            raise UserError(
                f"{self.tower.path}: {column} is in {self.tower.units[column]} by its header, but its median would be "
                f"{middle:.4g}, possible is {low:g} to {high:g}; say its unit with --unit {name}="
                f"{'|'.join(UNIT_CHOICES[name])}"
            )
        return unit

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
            "WS": lambda: "m-s" if high <= 40 and found.mean() <= 12 else None,
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
