"""Sun, humidity and CO2 against values known from elsewhere."""

import csv

import numpy as np
import pytest

from calibration.common.command_line import REPOSITORY
from calibration.weather import atmosphere


def test_day_length_equator_pole_and_latitudes():
    days = np.arange(365)
    assert np.allclose(atmosphere.day_length_hours(0.0, days), 12.0, atol=1e-5)
    assert atmosphere.day_length_hours(80.0, 172) == pytest.approx(24.0, abs=1e-5)
    assert atmosphere.day_length_hours(80.0, 355) == 0.0
    # London (51.5 N), midsummer: 16 h 30 min between geometric sunrise and sunset
    assert atmosphere.day_length_hours(51.5, 171) == pytest.approx(16.5, abs=0.15)


def test_declination_at_solstice_and_equinox():
    assert np.degrees(atmosphere.declination(171)) == pytest.approx(23.45, abs=0.05)
    assert np.degrees(atmosphere.declination(354)) == pytest.approx(-23.45, abs=0.05)
    assert abs(np.degrees(atmosphere.declination(79))) < 0.6


def test_top_of_atmosphere_daily_matches_the_closed_form():
    """H = S E0 / pi (h sin phi sin delta + cos phi cos delta sin h) with h the sunset hour angle."""
    for latitude in (-35.0, 4.2, 60.0):
        days = np.arange(0, 365, 7)
        phi, delta = np.radians(latitude), atmosphere.declination(days)
        h = np.arccos(np.clip(-np.tan(phi) * np.tan(delta), -1, 1))
        exact = (
            1367.0
            * atmosphere.eccentricity_factor(days)
            / np.pi
            * (h * np.sin(phi) * np.sin(delta) + np.cos(phi) * np.cos(delta) * np.sin(h))
        )
        assert np.allclose(atmosphere.top_of_atmosphere_daily(latitude, days), exact, atol=1.0)


def test_noon_is_the_highest_sun():
    sine = atmosphere.sine_of_height(4.2, np.arange(365))
    assert sine.shape == (365, 48)
    assert (sine.argmax(axis=1) == atmosphere.NOON).all()


def test_cloud_transmission_round_trip_and_limits():
    cloud = np.linspace(0, 1, 101)
    transmission = atmosphere.cloud_transmission(cloud)
    assert (np.diff(transmission) < 0).all()
    assert transmission[0] == 0.803 and transmission[-1] == pytest.approx(0.005)
    assert np.allclose(atmosphere.cloud_from_transmission(transmission), cloud, atol=1e-9)
    assert atmosphere.cloud_from_transmission(0.9) == 0.0


def test_saturation_vapour_pressure_known_values():
    # Smithsonian tables: 23.37 hPa at 20 deg C, 42.43 at 30, 2.60 over ice at -10
    assert atmosphere.saturation_vapour_pressure(np.array([20.0, 30.0, -10.0])) == pytest.approx(
        [23.37, 42.43, 2.60], abs=0.06
    )


def test_saturation_slope_is_the_derivative():
    t = np.array([-10.0, 5.0, 27.0, 35.0])
    step = 1e-3
    numeric = (atmosphere.saturation_vapour_pressure(t + step) - atmosphere.saturation_vapour_pressure(t - step)) / (
        2 * step
    )
    assert np.allclose(atmosphere.saturation_slope(t), numeric, rtol=0.01)


def test_humidity_round_trip_and_saturated_air_has_no_deficit():
    pressure = atmosphere.air_pressure(150.0, 26.0)
    assert pressure == pytest.approx(996.1, abs=0.3)
    assert atmosphere.vapour_pressure_from_q(atmosphere.q_from_vapour_pressure(28.0, pressure), pressure) == (
        pytest.approx(28.0)
    )
    q = atmosphere.q_from_vapour_pressure(atmosphere.saturation_vapour_pressure(26.0), pressure)
    assert atmosphere.vapour_pressure_deficit(26.0, q, pressure) == pytest.approx(0.0, abs=1e-9)
    assert atmosphere.vapour_pressure_deficit(26.0, 1.1 * q, pressure) == 0.0


def test_background_co2_known_values_and_southern_season():
    assert atmosphere.background_co2(4.2, 2010, np.arange(365)).mean() == pytest.approx(397.4, abs=0.1)
    assert atmosphere.background_co2(4.2, 2019, np.arange(365)).mean() == pytest.approx(425.2, abs=0.1)
    season = atmosphere.background_co2(-30.0, 2015, np.arange(365))
    north = atmosphere.background_co2(30.0, 2015, np.arange(365))
    assert season.argmax() != north.argmax()


@pytest.mark.real_data
def test_background_co2_reproduces_the_published_column():
    path = REPOSITORY.parent / "shared" / "data" / "lhp" / "era5_daily_2011_2016.csv"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there")
    with path.open(newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["date"] >= "2012"]
    dates = np.array([row["date"] for row in rows], dtype="datetime64[D]")
    years = dates.astype("datetime64[Y]")
    doy0 = (dates - years.astype("datetime64[D]")).astype(int)
    computed = atmosphere.background_co2(4.2, years.astype(int) + 1970, doy0)
    published = np.array([float(row["a_co2"]) for row in rows])
    assert np.abs(computed - published).max() < 1e-4
