"""VISIT's equations stand in NumPy (weather), Numba (process model) and torch (what the network knows): they agree.

Compared point by point over every legal air and soil temperature, -30 to 45 deg C.
"""

import numpy as np
import pytest
import torch
from numba import njit
from visit_runs import site, weather

from calibration.common.parameters import catalogue
from calibration.common.units import ZERO_CELSIUS
from calibration.network import canopy_equilibrium as closed_form
from calibration.network import soil_water as buckets
from calibration.network.leaf_weather import read_days
from calibration.visit import forcing as visit_forcing
from calibration.visit import physics
from calibration.visit.forcing import Day
from calibration.visit.layout import Layer, parameter_rows
from calibration.visit.physics import Physiology
from calibration.visit.simulator import parameter_values
from calibration.weather import atmosphere

TEMPERATURES = np.arange(-30.0, 45.01, 0.5)  # deg C
ABOVE_FREEZING = TEMPERATURES > 0
compile_ = njit(error_model="numpy")
moisture_factor, live_part = compile_(physics.moisture_factor.py_func), compile_(physics.live_part.py_func)
smooth_limit, overflow = compile_(physics.smooth_limit.py_func), compile_(physics.overflow.py_func)
canopy_rate, target_lai = compile_(physics.canopy_rate.py_func), compile_(physics.target_lai.py_func)
leaf_physiology = compile_(physics.leaf_physiology.py_func)


def days_of(temperature=TEMPERATURES, cloud=30.0, humidity=0.003, day_of_year=100):
    """The same days as the process model's forcing (day, Day) and as the network's Days (1, day)."""
    made = weather()
    values = np.tile(made.values[day_of_year], (len(temperature), 1))
    values[:, :4] = temperature[:, None] + ZERO_CELSIUS
    values[:, 5], values[:, 7] = cloud, humidity
    doy0 = np.full(len(values), day_of_year)
    forcing = visit_forcing._forcing(values, doy0, np.full(len(values), 2010), values[:, 9], site())
    angle = torch.full((len(values),), 2 * np.pi * day_of_year / 365, dtype=torch.double)
    extra = torch.cat([torch.stack([angle.sin(), angle.cos()], -1), torch.ones(len(values), 4)], dim=-1)
    pressure = torch.as_tensor(atmosphere.air_pressure(site().altitude, temperature))
    latitude = torch.tensor(site().latitude, dtype=torch.double)
    return Day(*forcing.days.T), read_days(torch.as_tensor(values), extra, latitude, pressure)


def layer(name="tree"):
    """Baseline parameters of a layer for the process model and for the network."""
    row = parameter_rows(parameter_values({}))[0]
    start = 0 if name == "tree" else len(Layer._fields)
    values = {n: torch.full((1, 1), p.baseline, dtype=torch.double) for n, p in catalogue().items()}
    return Layer(*row[start : start + len(Layer._fields)]), closed_form.layer_parameters(values, name)


def test_light_and_day_length():
    for cloud in (0.0, 30.0, 70.0, 100.0):
        for day in (0, 100, 355):
            ours, theirs = days_of(TEMPERATURES[:3], cloud, day_of_year=day)
            np.testing.assert_allclose(theirs.light, ours.light_canopy, rtol=1e-6)
            np.testing.assert_allclose(theirs.top_light, ours.light_leaf, rtol=1e-6)
            np.testing.assert_allclose(theirs.length, ours.day_length, rtol=1e-6)
            np.testing.assert_allclose(1 / theirs.height.clamp(0.3, 1.0), ours.path, rtol=1e-6)


def test_vapour_pressure_deficit_above_freezing():
    ours, theirs = days_of()
    np.testing.assert_allclose(theirs.vpd[ABOVE_FREEZING], ours.vpd[ABOVE_FREEZING], rtol=1e-9, atol=1e-12)


def test_vapour_pressure_deficit_over_ice():
    ours, theirs = days_of(humidity=1e-4)
    np.testing.assert_allclose(theirs.vpd, ours.vpd, rtol=1e-9, atol=1e-12)


def test_decay_temperature():
    expected = visit_forcing._lloyd_taylor(TEMPERATURES)
    np.testing.assert_allclose(closed_form._lloyd_taylor(torch.as_tensor(TEMPERATURES)), expected, rtol=1e-9)


def test_decay_moisture():
    for filling in np.linspace(0.05, 1.0, 20):
        expected = moisture_factor(filling * 143.0, 143.0, 0.3, 0.2)
        found = closed_form._moisture(torch.tensor(filling, dtype=torch.double), 0.3, 0.2)
        assert found.item() == pytest.approx(expected, rel=1e-12)


def test_temperature_of_maintenance():
    ours, theirs = days_of()
    raw, scaled = layer()
    for organ, log_q, temperature, acclimation in (
        ("f", raw.log_q_f, ours.q10_surface, ours.q10_acclimation),
        ("c", raw.log_q_c, ours.q10_surface, ours.q10_acclimation),
        ("r", raw.log_q_r, ours.q10_soil, ours.q10_acclimation_soil),
    ):
        expected = np.exp(log_q * temperature + acclimation)
        found = closed_form._q10(scaled, organ, theirs)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-9, err_msg=organ)


def test_canopy_photosynthesis():
    for area in (0.1, 1.0, 6.0, 11.0):
        for p_sat, quantum_yield, light in ((16.0, 0.05, 1500.0), (2.0, 0.03, 200.0)):
            leaf, hours = Physiology(p_sat, quantum_yield, 0.0, 0.55), 12.1
            expected = canopy_rate(leaf, light, area) * hours * 4.32e-4
            terms = (torch.tensor(x, dtype=torch.double) for x in (0.55, hours, p_sat, quantum_yield, light, area))
            assert closed_form._photosynthesis(*terms).item() == pytest.approx(expected, rel=1e-9)


def leaves(temperature, humidity):
    """Light-saturated rate, quantum yield and target leaf area of the trees: (3, day) of VISIT and of the network."""
    ours, theirs = days_of(temperature, humidity=humidity)
    raw, scaled = layer()
    lower = torch.full((1, len(temperature)), 0.8, dtype=torch.double)
    saturated, quantum_yield = closed_form._leaf(scaled, theirs, lower)
    warmth = closed_form._q10(scaled, "c", theirs)
    target = closed_form._target_leaf_area(scaled, theirs, saturated, quantum_yield, theirs.light, warmth)
    expected = []
    for i in range(len(temperature)):
        day = Day(*(column[i] for column in ours))
        leaf = leaf_physiology(raw, day, 0.8 * 477.0, 477.0)
        best = target_lai(raw, leaf, day, day.light_canopy, float(warmth.reshape(-1)[i]))
        expected.append((leaf.p_sat, leaf.quantum_yield, best))
    return np.transpose(expected), torch.cat([saturated, quantum_yield, target]).numpy()


def test_leaves_and_target_leaf_area_in_humid_air():
    expected, found = leaves(np.arange(15.0, 36.0), humidity=0.02)
    np.testing.assert_allclose(found, expected, rtol=0.005, atol=1e-9)


def test_leaves_and_target_leaf_area_in_dry_air():
    expected, found = leaves(np.arange(15.0, 36.0), humidity=0.004)
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_leaves_below_the_coldest_that_live():
    expected, found = leaves(np.arange(-5.0, 5.0), humidity=0.003)
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], atol=1e-6)


def test_supply_limit_and_spill():
    for supply in (0.5, 3.0, 80.0):
        for demand in (0.2, 3.0, 9.0):
            assert buckets._limit(supply, demand) == pytest.approx(smooth_limit(supply, demand), rel=1e-9)
            spill = overflow(supply, 10 * demand)  # VISIT writes the third of the cube root as 0.33333
            assert buckets._overflow(supply, 10 * demand) == pytest.approx(spill, abs=2e-4 * (supply + 10 * demand))


@pytest.mark.parametrize("pool", [0.3, 1.0, 20.0, 300.0])
def test_share_of_live_tissue(pool):
    p = {"f_sz_s": 40.0, "f_sz_r": 40.0, "rmc_s": 1.0, "rmc_h": 0.0, "rmr_s": 1.0, "rmr_h": 0.0, "lc0": 1.0, "lr0": 1.0}
    p = {name: torch.tensor(value, dtype=torch.double) for name, value in p.items()} | {"to_stem": 1.0, "to_root": 1.0}
    stem, root, stem_upkeep, root_upkeep = closed_form._wood(p, torch.tensor(pool, dtype=torch.double), 0.0)
    for found, held in ((stem_upkeep, stem), (root_upkeep, root)):  # with these rates the upkeep is the sapwood / 1000
        assert 1000 * found.item() == pytest.approx(live_part(held.item(), 40.0, 0.0), rel=1e-9)
