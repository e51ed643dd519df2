"""One judge of units and magnitudes: the same limits for every file with weather or fluxes that comes in.

Questions, each with the likely unit in the answer: is every value possible; is the whole series as large as such
series are (quantiles, so that one odd day decides nothing); does the unit change inside (common/unit_change.py); do two
sources agree on their common days. Rounding just outside a limit is set to it.
"""

from dataclasses import dataclass

import numpy as np

from calibration.common.command_line import UserError
from calibration.common.unit_change import find_light_change, find_unit_change
from calibration.common.units import (
    CO2,
    DAYS_PER_YEAR,
    DYNAMIC_FEATURES,
    FLUX_UNIT,
    POSSIBLE,
    SECONDS_PER_DAY,
    UNITS,
    ZERO_CELSIUS,
)
from calibration.weather.atmosphere import q_from_vapour_pressure, saturation_vapour_pressure

ENOUGH, ENOUGH_OF_YEAR = 30, 200  # days that a judgement of the whole series needs
# What rounding, packing (GRIB, netCDF short integers) and a sensor's zero may leave outside a limit, in VISIT's units.
ROUNDING = {
    "dswrf_sfc": 0.5, "tcdc_clm": 0.5, "prate_sfc": 1e-7, "spfh_2m": 2e-5, "wind_10m": 0.01,
}  # fmt: skip


@dataclass(frozen=True)
class OtherUnit:
    """Another unit of a variable: its name, how many of it make one of ours, and what to do."""

    name: str
    factor: float
    convert: str
    offset: float = 0.0


_TEMPERATURE = (
    OtherUnit("deg C", 1.0, "add 273.15", -ZERO_CELSIUS),
    OtherUnit("deg F", 1.8, "(F - 32) / 1.8 + 273.15", -459.67),
)
_FLUX = (
    OtherUnit("g C m-2 day-1", 100.0, "divide by 100"),
    OtherUnit("umol m-2 s-1", 96.45, "multiply by 0.010368"),
    OtherUnit("kg C ha-1 day-1", 1000.0, "divide by 1000"),
    OtherUnit("Mg C ha-1 year-1", 365.25, "divide by 365.25"),
    OtherUnit("kg C m-2 s-1", 1.1574e-6, "multiply by 864000"),
    OtherUnit("kg C m-2 day-1", 0.1, "multiply by 10"),
)
OTHER_UNITS: dict[str, tuple[OtherUnit, ...]] = {
    **dict.fromkeys(("tmp_sfc", "tmp_2m", "tmp10_soil", "tmp200_soil"), _TEMPERATURE),
    "dswrf_sfc": (
        OtherUnit("MJ m-2 day-1", 0.0864, "divide by 0.0864"),
        OtherUnit("kJ m-2 day-1", 86.4, "divide by 86.4"),
        OtherUnit("J m-2 day-1", 86400.0, "divide by 86400"),
        OtherUnit("J m-2 an hour", 3600.0, "divide by 3600"),
        OtherUnit("kWh m-2 day-1", 0.024, "divide by 0.024"),
        OtherUnit("Wh m-2 day-1", 24.0, "divide by 24"),
        OtherUnit("umol m-2 s-1 of photons", 2.06, "divide by 2.06"),
    ),
    "tcdc_clm": (
        OtherUnit("a 0-1 share", 0.01, "multiply by 100"),
        OtherUnit("eighths", 0.08, "multiply by 12.5"),
        OtherUnit("tenths", 0.1, "multiply by 10"),
    ),
    "prate_sfc": (
        OtherUnit("mm day-1", 86400.0, "divide by 86400"),
        OtherUnit("mm an hour", 3600.0, "divide by 3600"),
        OtherUnit("mm a half hour", 1800.0, "divide by 1800"),
        OtherUnit("m day-1", 86.4, "multiply by 1000 / 86400"),
        OtherUnit("m an hour", 3.6, "multiply by 1000 / 3600"),
        OtherUnit("kg m-2 s-1 divided by 86400 again", 1 / 86400.0, "multiply by 86400"),
    ),
    "spfh_2m": (
        OtherUnit("g kg-1", 1000.0, "divide by 1000"),
        OtherUnit("percent of relative humidity", 5000.0, "compute specific humidity from it"),
    ),
    "wind_10m": (
        OtherUnit("km h-1", 3.6, "divide by 3.6"),
        OtherUnit("knots", 1.944, "multiply by 0.5144"),
        OtherUnit("mph", 2.237, "multiply by 0.447"),
        OtherUnit("cm s-1", 100.0, "divide by 100"),
    ),
    "a_co2": (
        OtherUnit("mol mol-1", 1e-6, "multiply by 1e6"),
        OtherUnit("percent", 1e-4, "multiply by 1e4"),
        OtherUnit("Pa", 0.1013, "divide by the pressure in Pa, times 1e6"),
    ),
    **dict.fromkeys(("gpp", "npp", "nep", "er", "rh"), _FLUX),
}
WHAT = {
    **dict.fromkeys(("tmp_sfc", "tmp_2m", "tmp10_soil", "tmp200_soil"), "temperatures are"),
    "prate_sfc": "precipitation is a rate", "spfh_2m": "specific humidity is", "tcdc_clm": "cloud is",
    "dswrf_sfc": "shortwave is", "wind_10m": "wind is", "a_co2": "CO2 is",
}  # fmt: skip
# Middle of what such a series usually is, to name the unit of one that is not: medians, means and high quantiles.
USUAL = {
    "tmp_sfc": 288.0, "tmp_2m": 288.0, "tmp10_soil": 288.0, "tmp200_soil": 288.0, "dswrf_sfc": 200.0, "tcdc_clm": 60.0,
    "prate_sfc": 3e-5, "spfh_2m": 0.01, "wind_10m": 3.0, "a_co2": 400.0, "gpp": 0.06, "npp": 0.03, "nep": 0.02,
    "er": 0.05, "rh": 0.03,
}  # fmt: skip
# Beyond this, Mg C ha-1 day-1, a flux is in another unit: 0.5 is 50 g C m-2 day-1, more than any ecosystem exchanges on
# a day, and 0.2 more than one exchanges on half of the days.
LARGEST_FLUX, LARGEST_MEDIAN_FLUX = 0.5, 0.2
LARGEST_MEAN_GPP = 0.25  # Mg C ha-1 day-1: 91 Mg C ha-1 a year, twice the most productive forest
SMALLEST_GPP = 1e-6  # a forest that lives, in kg C m-2 s-1
DRIEST, WETTEST = 0.02, 2.5  # share of saturation: the driest desert's median, and saturation at 500 hPa
LARGEST_RATIO = 3.0  # of the means of two sources at one place; beyond it one has another unit, or another place
LARGEST_OFFSET = 12.0  # K, of temperatures of two sources: 2000 m of altitude
FEWEST_COMMON = 20  # days
ENOUGH_OF_RAIN, LARGEST_RATIO_OF_RAIN = 180, 30.0  # days of rain for LARGEST_RATIO, and the ratio of fewer days


def likely_unit(name: str, ratio: float, nearness: float = 1.6) -> OtherUnit | None:
    """The unit in which values are `ratio` times ours, the nearest within a factor `nearness`; None without one."""
    units = [unit for unit in OTHER_UNITS.get(name, ()) if unit.offset == 0.0]
    if not ratio > 0 or not units:
        return None
    nearest = min(units, key=lambda unit: abs(np.log(ratio / unit.factor)))
    return nearest if abs(np.log(ratio / nearest.factor)) < np.log(nearness) else None


def advice(name: str, values: np.ndarray) -> str:
    """'; it is in OURS here; it looks like X: do Y' for a series in another unit, by its size.

    values: (day,) as found.
    """
    found = values[np.isfinite(values)]
    if not len(found):
        return ""
    if name in ("tmp_sfc", "tmp_2m", "tmp10_soil", "tmp200_soil"):
        middle = float(np.median(found))
        unit = _TEMPERATURE[0] if -60 < middle < 45 else _TEMPERATURE[1] if 45 <= middle < 120 else None
    else:
        size = found.mean() if name in ("prate_sfc", "wind_10m") else np.quantile(np.abs(found), 0.7)
        unit = likely_unit(name, float(size) / USUAL.get(name, 1.0), 6.0)
    here = f"; {WHAT.get(name, 'it is')} in {UNITS[name]} here"
    return here if unit is None else f"{here}; it looks like {unit.name}: {unit.convert}"


def set_rounding(name: str, values: np.ndarray) -> np.ndarray:
    """Values that lie outside the limits of a variable by rounding alone, set to the limit; the rest as they are."""
    slack = ROUNDING.get(name)
    if slack is None:
        return values
    low, high = POSSIBLE[name]
    near = (values < low) & (values >= low - slack) | (values > high) & (values <= high + slack)
    return np.where(near, np.clip(values, low, high), values)


def unusual(name: str, values: np.ndarray, celsius: np.ndarray | None = None) -> str | None:
    """Why a whole series cannot be in VISIT's unit, with the likely one; None when nothing speaks against it.

    values: (day,) possible values, NaN where missing; celsius: (day,) air temperature, deg C, if known.
    """
    found = values[~np.isnan(values)]
    if len(found) < ENOUGH:
        return None
    year, middle = len(found) >= ENOUGH_OF_YEAR, float(np.median(found))
    high, mean = float(np.quantile(found, 0.95)), float(found.mean())
    problem = None
    if name == "tcdc_clm" and 0 < high <= 1.0:
        most = f"never exceeds {found.max():.3g}" if found.max() <= 1 else f"is at most {high:.3g} on 95 % of the days"
        return f"{most}, so it looks like a 0-1 share; cloud is in percent here: multiply the column by 100"
    if name == "tcdc_clm" and year and 0 < np.quantile(found, 0.99) <= 10.0 and mean > 1.0:
        tenths = np.quantile(found, 0.99) > 8.0
        problem = (
            f"does not exceed {np.quantile(found, 0.99):.3g}, so it looks like {'tenths' if tenths else 'eighths'}"
        )
        return f"{problem}; cloud is in percent here: multiply the column by {10 if tenths else 12.5}"
    if name == "dswrf_sfc":
        warm = celsius is not None and np.nanmedian(celsius) > 15
        # The clearest days of a year reach 150 W m-2 and more outside polar winters, and those of a warm month 60.
        if 0 < high < 45 and (year or warm):
            problem = f"does not exceed {high:.3g} on 95 % of the days"
        elif high > 450:  # no day at the surface: the antarctic summer reaches 420
            problem = f"exceeds {high:.4g} on 5 % of the days"
    elif name == "prate_sfc":
        rain = mean * SECONDS_PER_DAY
        # 20 m a year is more than any place gets; 4 mm a year less.
        if rain > 55 or (year and 0 < rain < 0.01):
            problem = f"averages {mean:.3g} kg m-2 s-1, which is {rain:.3g} mm day-1"
    elif name == "spfh_2m":
        share = middle / _saturated(celsius) if celsius is not None else None
        if middle > 0.04 or high < 1e-5 or (share is not None and not DRIEST < share < WETTEST):
            problem = f"has the median {middle:.3g}"
    elif name == "wind_10m" and (mean > 15 or 0 < high < 0.05):
        problem = f"averages {mean:.3g}"
    return None if problem is None else f"{problem}, which no weather does{advice(name, found)}"


def _saturated(celsius: np.ndarray) -> float:
    """Specific humidity of saturated air at the median temperature and 1013 hPa, kg kg-1."""
    return float(q_from_vapour_pressure(saturation_vapour_pressure(float(np.nanmedian(celsius))), 1013.0))


def check_weather(values: np.ndarray, dates: np.ndarray, source: str) -> np.ndarray:
    """(day, 10) weather in VISIT's order and units, none missing, rounding set to the limits; see check_columns."""
    columns = check_columns(dict(zip(DYNAMIC_FEATURES, values.T, strict=True)), dates, source)
    return np.column_stack([columns[name] for name in DYNAMIC_FEATURES])


def check_columns(
    columns: dict[str, np.ndarray], dates: np.ndarray, source: str, gaps: bool = False, changes: bool = True
) -> dict[str, np.ndarray]:
    """Weather by name, (day,) each in VISIT's units, with rounding set to the limits.

    UserError, naming variable, day, value and likely unit, on what no day has, on a series that is in another unit,
    (changes) on a unit that changes inside, and on NaN unless gaps are allowed.
    """
    result = {}
    for name, given in columns.items():
        series = set_rounding(name, np.asarray(given, dtype=np.float64))
        low, high = POSSIBLE[name]
        lacking = np.isnan(series)
        bad = ~((series >= low) & (series <= high)) & ~(lacking & gaps)
        if bad.any():
            day = int(bad.argmax())
            found = "empty or not a number" if lacking[day] else f"{series[day]:g}"
            raise UserError(
                f"{source}: {name} on {dates[day]} is {found}, allowed is {low:g} to {high:g} {UNITS[name]} "
                f"({int(bad.sum())} such days){'' if lacking[day] else advice(name, series)}"
            )
        result[name] = series
    celsius = result["tmp_2m"] - ZERO_CELSIUS if "tmp_2m" in result else None
    for name, series in result.items():
        problem = unusual(name, series, celsius) or (changed_unit(name, series, dates) if changes else None)
        if problem is not None:
            raise UserError(f"{source}: {name} {problem}")
    return result


def changed_unit(name: str, values: np.ndarray, dates: np.ndarray) -> str | None:
    """Words on a change of unit inside a series of weather in VISIT's units; None without one."""
    if name.startswith("tmp") or name == CO2:
        return None  # temperatures in another unit are outside what is possible
    found = (find_light_change if name == "dswrf_sfc" else find_unit_change)(values, dates)
    if found is None:
        return None
    unit = likely_unit(name, found.ratio) or likely_unit(name, 1 / found.ratio)
    which = "" if unit is None else f", as from or to {unit.name} ({unit.convert})"
    return (
        f"becomes {found.ratio:.3g} times as large on {found.day} and stays so{which}; bring the whole file to one unit"
    )


def disagreement(name: str, ours: np.ndarray, other: np.ndarray) -> tuple[str, bool] | None:
    """How two sources of one variable disagree on common days, in words, and whether by another unit beyond doubt.

    ours, other: (day,) in VISIT's units, NaN where missing, the same days. None when they agree or share too few days.
    """
    both = ~(np.isnan(ours) | np.isnan(other))
    if both.sum() < FEWEST_COMMON:
        return None
    a, b = ours[both], other[both]
    if name.startswith("tmp"):
        offset = float(np.median(b - a))
        if abs(offset) <= LARGEST_OFFSET:
            return None
        return f"differs by {offset:+.3g} K (medians {np.median(b):.4g} and {np.median(a):.4g} K)", False
    if name == "tcdc_clm" or a.mean() <= 0 or b.mean() <= 0:
        return None
    ratio = float(b.mean() / a.mean())
    # A month of rain differs by chance between a gauge and a grid cell.
    limit = LARGEST_RATIO if name != "prate_sfc" or both.sum() >= ENOUGH_OF_RAIN else LARGEST_RATIO_OF_RAIN
    if 1 / limit < ratio < limit:
        return None
    unit = likely_unit(name, ratio, 2.2)
    which = "" if unit is None else f", as {unit.name} would ({unit.convert})"
    return (
        f"averages {b.mean():.3g} where the other has {a.mean():.3g} {UNITS[name]}, a ratio of {ratio:.3g}{which}",
        True,
    )


def check_flux(name: str, values: np.ndarray, source: str) -> None:
    """UserError when a flux, (day,) Mg C ha-1 day-1 with NaN where missing, is larger than any ecosystem's."""
    found = np.abs(values[~np.isnan(values)])
    if len(found) and found.max() > LARGEST_FLUX:
        problem, allowed = f"reaches {values[np.nanargmax(np.abs(values))]:.4g}", LARGEST_FLUX
    elif len(found) >= ENOUGH and np.median(found) > LARGEST_MEDIAN_FLUX:
        problem, allowed = f"is {np.median(found):.3g} or more on half of the days", LARGEST_MEDIAN_FLUX
    else:
        return
    raise UserError(
        f"{source}: {name} {problem}, allowed is up to {allowed} {FLUX_UNIT}; "
        "it looks like g C m-2 day-1: divide by 100"
    )


def check_fluxes(fluxes: dict[str, np.ndarray], source: str) -> None:
    """UserError when the mean fluxes of a run or an ensemble, Mg C ha-1 day-1, are in another unit.

    fluxes: name -> (..., day) values; judged by the mean GPP (of the median run).
    """
    gpp = np.atleast_2d(fluxes["gpp"]).mean(axis=-1)
    mean = float(np.median(gpp))
    if mean > LARGEST_MEAN_GPP:
        unit = (
            "g C m-2 day-1: divide by 100" if mean < 20 else "Mg C ha-1 year-1 or kg C ha-1 day-1: divide accordingly"
        )
        raise UserError(
            f"{source}: gpp averages {mean:.3g}, which is {mean * DAYS_PER_YEAR:.0f} Mg C ha-1 a year (no forest has "
            f"more than 50); fluxes are in {FLUX_UNIT} here, and these look like {unit}"
        )
    if 0 < mean < SMALLEST_GPP:
        raise UserError(
            f"{source}: gpp averages {mean:.3g} Mg C ha-1 day-1, which nothing alive has; it looks like kg C m-2 s-1: "
            "multiply by 864000"
        )
