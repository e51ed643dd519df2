"""The fast spin-up against the full one, and the parts it is made of."""

import tracemalloc

import numpy as np
import pytest
from visit_runs import NAMES, legal_values, plausible_values, short_loop, site

from calibration.visit import spinup as visit_spinup
from calibration.visit.forcing import DailyForcing
from calibration.visit.kernel import LANES, NEVER, lanes, run_days, samples
from calibration.visit.layout import DOC, LITTER, SOIL_ROW, STATE, ground_row, parameter_rows

GROUND = ground_row(site())
EMPTY = np.zeros((0, 0, 0))


def both(values, loop):
    rows = parameter_rows(values)
    finished = []
    fast, loops = visit_spinup.spin_up(rows, GROUND, loop, "fast", 2, finished.append)
    assert sum(finished) == len(rows)
    slow = np.concatenate([visit_spinup.full(rows[i : i + LANES], GROUND, loop) for i in range(0, len(rows), LANES)])
    return fast, slow, loops


def difference(fast, slow):
    """(run, state) relative, pools below 1e-6 compared absolutely."""
    return np.abs(fast - slow) / (np.abs(slow) + 1e-6)


def test_fast_equals_full_for_random_forests():
    """Every pool within 0.1 percent after all 2010 years; and the short cut is taken."""
    fast, slow, loops = both(plausible_values(2 * LANES, seed=21), short_loop())
    assert difference(fast, slow).max() < 1e-3
    assert (loops < short_loop().loops).mean() > 0.3
    assert loops.min() > 100 / 2  # not before the exports of year 101 are on


def test_fast_equals_full_in_the_legal_box():
    """Dying, empty and odd samples too, among them ones whose active humus runs empty."""
    positions = np.random.default_rng(22).random((2 * LANES, len(NAMES)))
    positions[: LANES // 2, 1:] = 0.5
    values = legal_values(positions)
    values["soil_f_hm_a"][-LANES:] = 0.02
    values["soil_sr_hp"][:4] = 0.0  # a pool that never comes to rest
    fast, slow, _ = both(values, short_loop())
    assert difference(fast, slow).max() < 1e-3


def test_turnover_of_zero_is_followed_to_the_end():
    """Stems that never die grow for 2010 years: no false plateau."""
    values = plausible_values(2, seed=23)
    values["tree_lc0"][:] = [0.0, 1e-6]
    fast, slow, loops = both(values, short_loop())
    assert difference(fast, slow).max() < 1e-3
    stem = STATE.index("tree_stem")
    assert (slow[:, stem] > 250).all()


def test_one_sample_alone_and_among_seven_others_has_the_same_bits():
    rows = parameter_rows(plausible_values(LANES, seed=24))
    loop = short_loop(3)
    together = visit_spinup.full(rows, GROUND, loop)
    alone = np.concatenate([visit_spinup.full(rows[i : i + 1], GROUND, loop) for i in range(LANES)])
    assert (together == alone).all()


def test_result_does_not_depend_on_threads_or_order():
    rows = parameter_rows(plausible_values(11, seed=25))
    loop = short_loop(70)
    one, loops_one = visit_spinup.spin_up(rows, GROUND, loop, "fast", 1, lambda count: None)
    order = np.random.default_rng(0).permutation(11)
    two, loops_two = visit_spinup.spin_up(rows[order], GROUND, loop, "fast", 2, lambda count: None)
    assert (one[order] == two).all() and (loops_one[order] == loops_two).all()


def test_equal_samples_are_integrated_once():
    values = plausible_values(1, seed=26)
    rows = np.repeat(parameter_rows(values), 5, axis=0)
    finished = []
    states, _ = visit_spinup.spin_up(rows, GROUND, short_loop(4), "fast", 1, finished.append)
    assert finished == [5]
    assert (states == states[0]).all()


def test_soil_map_is_the_kernels_own_soil():
    """One loop of the kernel is linear in the soil pools: its differences are what the map says."""
    rows = parameter_rows(plausible_values(1, seed=27))
    parameters, loop = lanes(rows), short_loop(30)
    base = lanes(visit_spinup.full(rows, GROUND, loop))
    drive = np.empty((loop.forcing.length, 3 * LANES))
    pools = np.arange(9) + 1.0
    moved = base.copy()
    samples(moved)[0, LITTER:DOC] += pools
    for state in (base, moved):
        run_days(parameters, GROUND, loop.forcing.days, state, np.full(1, NEVER), False, EMPTY, EMPTY, drive, None)
    matrix = visit_spinup.soil_map(rows[0, SOIL_ROW:], drive[:, 0], drive[:, LANES])
    change = (samples(moved) - samples(base))[0, LITTER:DOC]
    assert matrix @ pools == pytest.approx(change, rel=1e-9)
    assert drive[-1, 2 * LANES] == samples(moved)[0, STATE.index("humus_active")]


def test_exports_start_in_spinup_year_101_within_a_loop():
    loop = visit_spinup.Loop(DailyForcing(np.zeros((7 * 365, 1)), 7), 288)
    assert loop.exports_from(0) == 100 * 365
    assert loop.exports_from(14) == 2 * 365  # loop 14 (from 0) begins with year 99
    assert loop.exports_from(15) == 0


def test_memory_does_not_grow_with_the_spinup():
    """Peak of what Python and NumPy hold while a forest that never comes back is followed for 150 and 500 loops."""
    values = plausible_values(1, seed=28)
    values["tree_lc0"][:] = 0.0
    rows, peaks = parameter_rows(values), []
    visit_spinup.spin_up(rows, GROUND, short_loop(2), "fast", 1, lambda count: None)  # compiled before it is measured
    for number in (150, 500):
        tracemalloc.start()
        _, loops = visit_spinup.spin_up(rows, GROUND, short_loop(number), "fast", 1, lambda count: None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert loops[0] == number, "followed to the end"
    assert peaks[1] < 1.05 * peaks[0] and peaks[1] < 10e6
