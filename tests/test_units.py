"""Units: what was measured on Earth is possible, a wrong unit is not; codes for 'no value'; known conversions."""

import numpy as np
import pytest

from calibration.common import units

KELVIN = 273.15
# Daily values at the ends of what was measured on Earth, in the units of the daily files.
RECORDS = {
    "tmp_2m": (-89.2 + KELVIN, 56.7 + KELVIN),  # Vostok 1983, Death Valley 1913
    "tmp_sfc": (-93.0 + KELVIN, 70.0 + KELVIN),  # Antarctic plateau 2010, Lut desert 2005: by satellite
    "tmp10_soil": (-60.0 + KELVIN, 50.0 + KELVIN), "tmp200_soil": (-58.0 + KELVIN, 40.0 + KELVIN),
    "dswrf_sfc": (0.0, 500.0),  # polar night; South Pole at midsummer
    "tcdc_clm": (0.0, 100.0), "prate_sfc": (0.0, 1563.0 / 86400.0),  # Cherrapunji 1995
    "spfh_2m": (0.0, 0.030), "wind_10m": (0.0, 55.0), "a_co2": (180.0, 1300.0),  # ice age; 2100 without restraint
}  # fmt: skip
# The same quantity of an ordinary day as it looks in a unit that is not ours.
WRONG_UNIT = {
    "tmp_sfc": 27.0, "tmp_2m": 27.0, "tmp10_soil": 26.0, "tmp200_soil": 25.0,  # deg C
    "dswrf_sfc": 20e6,  # J m-2 day-1
    "tcdc_clm": 400.0,  # eighths, times 100
    "prate_sfc": 8.0,  # mm day-1
    "spfh_2m": 18.0,  # g kg-1
    "a_co2": 0.0004,  # mol mol-1
}  # fmt: skip
# More than a day can have anywhere: boiling water, more sun than reaches the top of the air, two metres of rain, ...
TOO_MUCH = {
    "tmp_sfc": 373.0, "tmp_2m": 373.0, "tmp10_soil": 373.0, "tmp200_soil": 373.0, "dswrf_sfc": 680.0, "tcdc_clm": 101.0,
    "prate_sfc": 0.025, "spfh_2m": 0.06, "wind_10m": 80.0, "a_co2": 2500.0,
}  # fmt: skip


@pytest.mark.parametrize("name", units.DYNAMIC_FEATURES)
def test_possible_is_what_was_measured_somewhere_and_not_the_wrong_unit(name):
    low, high = units.POSSIBLE[name]
    assert low <= RECORDS[name][0] and RECORDS[name][1] <= high
    if name in WRONG_UNIT:
        assert not low <= WRONG_UNIT[name] <= high
    assert TOO_MUCH[name] > high
    assert low >= 0, "none of these quantities is negative"


def test_every_column_has_a_unit_and_the_files_are_made_of_them():
    assert units.DAILY_COLUMNS[4:14] == units.DYNAMIC_FEATURES and units.DAILY_COLUMNS[14:] == units.FILE_FLUXES
    assert set(units.UNITS) == {*units.DYNAMIC_FEATURES, *units.FLUX_LABELS}
    assert {units.UNITS[flux] for flux in units.FLUX_LABELS} == {units.FLUX_UNIT}
    assert set(units.TARGETS) <= set(units.FLUX_LABELS) and "er" not in units.TARGETS


def test_a_forest_of_one_square_metre_and_of_one_hectare_take_up_the_same():
    # 2.5 g m-2 day-1 taken up is 25 kg ha-1 day-1
    assert units.nee_g_m2_to_nep_mg_ha(-2.5) == pytest.approx(0.025)
    assert units.nep_mg_ha_to_nee_g_m2(0.025) == pytest.approx(-2.5)
    grams, square_metres = 1e6, 1e4  # of a Mg, of a ha
    assert grams / square_metres == units.G_M2_PER_MG_HA


def test_respiration_is_what_is_left():
    assert units.rh_from_npp_nep(0.040, 0.015) == pytest.approx(0.025)
    assert units.er_from_gpp_nep(0.100, 0.015) == pytest.approx(0.085)


def test_constants_of_time_and_temperature():
    assert units.SECONDS_PER_DAY == 24 * 60 * 60
    assert units.DAYS_PER_YEAR * 4 == 4 * 365 + 1
    assert units.ZERO_CELSIUS == KELVIN


@pytest.mark.parametrize(
    "code", [-9999, -9999.9, -99999, -9990, -6999, -6999.9, -7777, -7999, -8888, -999, -999.9, -999.99, 9999, 9999.9,
             99999, 9.969e36, 1e20, -1e20, np.inf, -np.inf, np.nan]
)  # fmt: skip
def test_codes_for_no_value(code):
    found = units.without_missing_codes(np.array([1.5, code, -2.5]))
    np.testing.assert_array_equal(found, [1.5, np.nan, -2.5])


@pytest.mark.parametrize(
    "value", [0.0, -9989.0, -998.0, -1000.0, 9998.0, 10000.0, -6998.0, 1e14, -7776.0, -8887.0, -8000.0]
)
def test_numbers_beside_the_codes_are_numbers(value):
    assert units.without_missing_codes([[value]]).tolist() == [[value]]


def test_whole_numbers_become_floats():
    found = units.without_missing_codes(np.array([3, -9999]))
    assert found.dtype == np.float64 and found[0] == 3 and np.isnan(found[1])
