"""The equations of the process model against known answers and against themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from visit_runs import site, weather

from calibration.visit import forcing as visit_forcing
from calibration.visit import physics as visit_physics
from calibration.visit import vector_math
from calibration.visit.physics import Physiology

compile_ = njit(error_model="numpy")


@compile_
def exponentials(x):
    result = np.empty_like(x)
    for i in range(len(x)):
        result[i] = vector_math.exp(x[i])
    return result


@compile_
def logarithms(x):
    result = np.empty_like(x)
    for i in range(len(x)):
        result[i] = vector_math.log(x[i])
    return result


@compile_
def canopy(p_sat, quantum_yield, attenuation, light, lai):
    return visit_physics.canopy_rate(Physiology(p_sat, quantum_yield, 0.0, attenuation), light, lai)


@compile_
def live(pool, size):
    return visit_physics.live_part(pool, size, 0.0)


@compile_
def limited(supply, demand):
    return visit_physics.smooth_limit(supply, demand)


@compile_
def spilled(inflow, deficit):
    return visit_physics.overflow(inflow, deficit)


def test_exp_and_log_are_right_to_the_last_place():
    x = np.concatenate([np.linspace(-700, 700, 40_001), np.linspace(-1e-3, 1e-3, 2_001)])
    assert np.abs(exponentials(x) / np.exp(x) - 1.0).max() < 3e-16
    assert exponentials(np.array([-1e4, 0.0])) == pytest.approx([np.exp(-708.0), 1.0], rel=3e-16)
    y = np.exp(np.concatenate([np.linspace(-690, 700, 40_001), np.linspace(-1e-3, 1e-3, 2_000)]))
    assert np.abs(logarithms(y) - np.log(y)).max() < 3e-16 * 700
    near_one = np.linspace(0.9, 1.1, 2_001)
    assert np.abs(logarithms(near_one) - np.log(near_one)).max() < 5e-17


def test_canopy_rate_is_the_integral_of_leaf_rates_over_the_canopy():
    """Monsi-Saeki: P = integral over L of K-attenuated light in a rectangular hyperbola, times the sin^2 day."""
    p_sat, quantum_yield, k, light, lai = 16.0, 0.05, 0.55, 1500.0, 5.0
    # sin^2 course over the day: the mean over the phase of P(I sin^2) per day length
    phase = (np.arange(2000) + 0.5) / 2000 * np.pi
    depth = (np.arange(2000) + 0.5) / 2000 * lai
    absorbed = k * light * np.sin(phase)[:, None] ** 2 * np.exp(-k * depth)
    leaf = p_sat * quantum_yield * absorbed / (p_sat + quantum_yield * absorbed)
    assert canopy(p_sat, quantum_yield, k, light, lai) == pytest.approx(leaf.mean() * lai, rel=1e-4)
    assert canopy(0.0, quantum_yield, k, light, lai) == 0.0
    assert canopy(p_sat, quantum_yield, k, light, 0.0) == 0.0


positive = st.floats(0.01, 60.0)


@settings(max_examples=300, deadline=None)
@given(positive, st.floats(1e-4, 0.12), st.floats(0.05, 300.0), st.floats(1.0, 2500.0), st.floats(0.0, 15.0), positive)
def test_canopy_rate_grows_with_light_saturation_quantum_yield_light_and_leaves(p, q, k, light, lai, more):
    base = canopy(p, q, k, light, lai)
    # The rate is 2 P / K times a logarithm near 0: its rounding is that of 1 times this factor.
    tolerance = 1e-12 * (1.0 + base) + 8 * np.finfo(float).eps * 2 * p * (1 + more) / k
    assert np.isfinite(base) and base >= 0.0
    assert canopy(p * (1 + more), q, k, light, lai) >= base - tolerance
    assert canopy(p, q * (1 + more), k, light, lai) >= base - tolerance
    assert canopy(p, q, k, light * (1 + more), lai) >= base - tolerance
    assert canopy(p, q, k, light, lai * (1 + more)) >= base - tolerance
    assert base <= p * lai * (1 + 1e-9) + tolerance  # no leaf beyond its saturation


def test_share_of_live_tissue_falls_with_size():
    assert live(0.0, 40.0) == 0.0 and live(1.0, 40.0) == 1.0
    assert live(100.0, 40.0) == pytest.approx(100.0 ** (1 - 0.33334 * 100 / 140))
    assert live(0.5, 1.0) == pytest.approx(0.5 ** (1 - 0.33334 * 0.5 / 1.5)) and live(0.5, 1.0) > 0.5
    shares = np.array([live(pool, 40.0) / pool for pool in np.linspace(1, 500, 200)])
    assert (np.diff(shares) < 0).all()


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 500), st.floats(0, 500))
def test_supply_limit_lies_below_both_and_is_symmetric(supply, demand):
    value = limited(supply, demand)
    assert 0.0 <= value <= min(supply, demand) + 1e-9
    assert value == pytest.approx(limited(demand, supply), abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 300), st.floats(-100, 500))
def test_bucket_spills_no_less_than_it_must(inflow, deficit):
    spill = spilled(inflow, deficit)
    assert np.isfinite(spill)
    assert spill >= max(0.0, inflow - max(deficit, 0.0)) - 0.02 * (1.0 + inflow)  # the exponent is 0.33333, not 1/3


def test_capacity_of_the_upper_soil_is_that_of_the_real_run():
    assert visit_forcing.upper_capacity(site()) == pytest.approx(143.087, abs=5e-4)


def test_drought_threshold_solves_the_retention_curve():
    water = visit_forcing.drought_water(site())
    assert -1.0 - 0.478 * (water / site().lower_capacity) ** -5.39 == pytest.approx(-148.075)


def test_forcing_of_a_known_day():
    """Cloudless noon at the equator in March: light from 0.803 of the solar constant, half of it in PAR units."""
    made = weather()
    values = made.values.copy()
    values[:, 5] = 0.0
    forcing = visit_forcing.experiment_forcing(made.dates, values, site())
    day = visit_forcing.Day(*forcing.days[79])
    assert day.shortwave == pytest.approx(0.803 * 440, rel=0.02)
    diffuse = 0.958 - 0.982 * 0.803
    noon = 0.803 * 1367 * 1.0084 * 0.9973
    assert day.light_canopy == pytest.approx(noon * (4.6 * 0.43 * (1 - diffuse) + 4.2 * 0.57 * diffuse), rel=0.003)
    assert day.decay_upper == pytest.approx(np.exp(308.56 * (1 / 56.02 - 1 / (made.values[79, 2] - 227.13))) + 0.01)
    assert 11.9 < day.day_length < 12.2


def test_spinup_uses_whole_years_of_365_days_and_enough_loops():
    made = weather("2011-07-05", "2016-12-31")
    forcing, loops = visit_forcing.spinup_forcing(made.dates, made.values, site())
    assert forcing.length == 5 * 365 and forcing.years == 5 and loops == 402
    assert np.ptp(forcing.days[:, visit_forcing.Day._fields.index("co2")]) < 2.0  # CO2 stays in 2010
    made = weather()
    assert visit_forcing.spinup_forcing(made.dates, made.values, site())[1] == 1005


def test_erosion_is_charged_once_a_year_and_by_share_in_a_part_of_one():
    made = weather("2010-07-01", "2011-12-31")
    erosion = visit_forcing.experiment_forcing(made.dates, made.values, site()).days[:, -1]
    last = [int((np.datetime64(day) - made.dates[0]).astype(int)) for day in ("2010-12-31", "2011-12-31")]
    assert set(np.flatnonzero(erosion)) == set(last)
    assert 0.003 < erosion[last[1]] < 0.03 and 0.3 < erosion[last[0]] / erosion[last[1]] < 0.8
