"""Names and units of everything that crosses a file or a function: the one place that knows them.

Fluxes are Mg C ha-1 day-1 (1 = 100 g C m-2 day-1) in VISIT files and in the emulator. NEP > 0 is uptake, NEE > 0 is
release: NEP = -NEE / 100. Identities: NEP = NPP - Rh = GPP - ER. Rh is *not* ER; the daily files hold ER.
"""

import numpy as np

METEOROLOGY = (
    "tmp_sfc", "tmp_2m", "tmp10_soil", "tmp200_soil", "dswrf_sfc", "tcdc_clm", "prate_sfc", "spfh_2m", "wind_10m",
)  # fmt: skip
CO2 = "a_co2"
DYNAMIC_FEATURES = (*METEOROLOGY, CO2)  # the emulator's daily inputs, in the order of VISIT's daily files
CALENDAR = ("year", "doy", "month", "day")  # doy counts from 0
FILE_FLUXES = ("gpp", "npp", "er", "nep")  # as written by VISIT
TARGETS = ("gpp", "npp", "nep", "rh")  # as predicted by the emulator
DAILY_COLUMNS = (*CALENDAR, *DYNAMIC_FEATURES, *FILE_FLUXES)

UNITS = {
    "tmp_sfc": "K", "tmp_2m": "K", "tmp10_soil": "K", "tmp200_soil": "K", "dswrf_sfc": "W m-2", "tcdc_clm": "percent",
    "prate_sfc": "kg m-2 s-1", "spfh_2m": "kg kg-1", "wind_10m": "m s-1", "a_co2": "ppmv",
    **{flux: "Mg C ha-1 day-1" for flux in ("gpp", "npp", "nep", "rh", "er")},
}  # fmt: skip
FLUX_UNIT = "Mg C ha-1 day-1"
FLUX_LABELS = {"gpp": "GPP", "npp": "NPP", "nep": "NEP", "rh": "Rh", "er": "ER"}

# Physically possible daily values in the units above. A value outside means a wrong unit or a broken file.
POSSIBLE = {
    "tmp_sfc": (180.0, 350.0), "tmp_2m": (180.0, 340.0), "tmp10_soil": (200.0, 340.0), "tmp200_soil": (200.0, 330.0),
    "dswrf_sfc": (0.0, 600.0), "tcdc_clm": (0.0, 100.0), "prate_sfc": (0.0, 0.02), "spfh_2m": (0.0, 0.05),
    "wind_10m": (0.0, 60.0), "a_co2": (150.0, 2000.0),
}  # fmt: skip

# Numbers that stand for 'no value': everything down there (-9999, -9999.9, -99999), and codes that no quantity reaches.
MISSING_BELOW = -9990.0
MISSING_CODES = (-6999.0, -7777.0, -7999.0, -8888.0, -999.0, -999.9, -999.99, 9999.0, 9999.9, 99999.0, -6999.9)
LARGEST_NUMBER = 1e15  # netCDF's fill values (9.97e36, 1e20) lie beyond

ZERO_CELSIUS = 273.15  # K
SECONDS_PER_DAY = 86400.0
DAYS_PER_YEAR = 365.25
CONTEXT_DAYS = 180  # weather before the first day that is looked at; an emulator's own: evaluation.context_days
DEAD = 1.0  # Mg C ha-1 year-1 of mean GPP: below it there is no forest
G_M2_PER_MG_HA = 100.0  # g m-2 in 1 Mg ha-1


def nee_g_m2_to_nep_mg_ha(nee):
    """NEE in g C m-2 day-1 (positive = release) -> NEP in Mg C ha-1 day-1 (positive = uptake); any array shape.

    >>> nee_g_m2_to_nep_mg_ha(-2.5)
    0.025
    """
    return -nee / G_M2_PER_MG_HA


def nep_mg_ha_to_nee_g_m2(nep):
    """NEP in Mg C ha-1 day-1 (positive = uptake) -> NEE in g C m-2 day-1 (positive = release); any array shape."""
    return -nep * G_M2_PER_MG_HA


def rh_from_npp_nep(npp, nep):
    """Heterotrophic respiration, Mg C ha-1 day-1, from NPP and NEP of a VISIT file (whose ER is not Rh)."""
    return npp - nep


def er_from_gpp_nep(gpp, nep):
    """Ecosystem respiration, Mg C ha-1 day-1: ER = GPP - NEP."""
    return gpp - nep


def without_missing_codes(values: np.ndarray) -> np.ndarray:
    """values (any shape) as float64 with NaN for every missing code and for what is not finite."""
    values = np.asarray(values, dtype=np.float64)
    missing = (values <= MISSING_BELOW) | (np.abs(values) > LARGEST_NUMBER) | np.isin(values, MISSING_CODES)
    return np.where(np.isfinite(values) & ~missing, values, np.nan)
