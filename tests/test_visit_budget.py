"""Carbon and water add up, and nothing breaks, anywhere in the legal parameter box."""

import numpy as np
import pytest
from carbon_budget import carbon_residuals, unphysical, water_residuals
from hypothesis import given, settings
from hypothesis import strategies as st
from visit_runs import NAMES, grow, legal_values, plausible_values, short_loop, site

from calibration.common.parameters import catalogue
from calibration.visit.kernel import LANES, lanes, run_days
from calibration.visit.layout import FLOWS, STATE, ground_row, parameter_rows
from calibration.visit.spinup import NO_TABLE

TOLERANCE = 1e-9  # Mg C ha-1, mm


def worst(residuals):
    return {name: float(np.abs(values).max()) for name, values in residuals.items()}


def check(result, values):
    assert np.isfinite(result.fluxes).all() and np.isfinite(result.pools).all() and np.isfinite(result.flows).all()
    assert result.pools.min() >= 0.0, STATE[int(result.pools.min(axis=(0, 1)).argmin())]
    assert (result.nep == result.npp - result.rh).all()
    assert np.abs(result.nep - (result.gpp - result.er)).max() < 1e-12
    assert result.gpp.min() >= 0.0 and result.rh.min() >= 0.0
    residuals = worst(carbon_residuals(result, values) | water_residuals(result))
    assert max(residuals.values()) < TOLERANCE, residuals


def test_growing_forests_balance():
    values = plausible_values(LANES, seed=1)
    result = grow(values, loops=12)
    check(result, values)
    assert np.median(result.gpp.sum(axis=1)) / 2 > 20.0  # Mg C ha-1 year-1: these are forests


def test_budget_notices_a_leak():
    """The balance is a test only if a missing gram shows."""
    values = plausible_values(2, seed=2)
    result = grow(values, loops=2)
    result.pools[1, 40, STATE.index("tree_stem")] += 1e-6
    residuals = worst(carbon_residuals(result, values))
    assert residuals["tree_stem"] == pytest.approx(1e-6, rel=1e-3)
    assert residuals["ecosystem"] == pytest.approx(1e-6, rel=1e-3)
    result.flows[0, 3, FLOWS.index("discharge")] += 1e-6
    assert worst(water_residuals(result))["water_lower"] == pytest.approx(1e-6, rel=1e-3)


def test_named_terms_are_what_they_say():
    values = plausible_values(4, seed=3)
    for name in ("soil_f_hm_a", "soil_f_hm_i", "soil_f_hm_p"):
        values[name] = values[name] * 1.2
    result = grow(values, loops=12)
    check(result, values)
    created = unphysical(result, values)
    humified = result.flows[:, :, FLOWS.index("humified")]
    assert np.allclose(created["humification_imbalance"], 0.2 * humified)
    assert np.abs(created["cleaned"]).max() == 0.0 and np.abs(created["floored"]).max() == 0.0
    # the base flow that VISIT takes twice: 0.1 percent of the lower bucket a day
    base = result.flows[:, :, FLOWS.index("base_flow")]
    lower = result.pools[:, :, STATE.index("water_lower")]
    assert base.sum(axis=1) == pytest.approx(0.001 * lower.sum(axis=1), rel=0.02)


def test_exports_leave_only_when_they_are_on_and_no_more_than_there_is():
    values = plausible_values(2, seed=4)
    values["soil_f_hm_a"] = np.array([0.6, 0.0])  # the second has an empty active humus
    result = grow(values, loops=12)
    check(result, values)
    exported = result.flows[:, :, FLOWS.index("doc_export")].sum(axis=1)
    assert exported[0] > 0.1 and 0.0 <= exported[1] < 0.1
    assert result.pools[1, :, STATE.index("humus_active")].min() >= 0.0
    closed = grow(values, loops=3, exports=False)
    assert (closed.flows[:, :, FLOWS.index("doc_export")] == 0.0).all()
    assert (closed.flows[:, :, FLOWS.index("erosion")] == 0.0).all()


unit = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.tuples(st.integers(0, len(NAMES) - 1), unit), max_size=25))
def test_nothing_breaks_in_the_legal_box(seed, corners):
    """Eight random vectors an example; one of them with chosen parameters on their bounds."""
    positions = np.random.default_rng(seed).random((LANES, len(NAMES)))
    positions[LANES // 2 :] = 0.5 + 0.3 * (positions[LANES // 2 :] - 0.5)  # half of them nearer the middle: they live
    for index, value in corners:
        positions[[0, -1], index] = value
    values = legal_values(positions)
    check(grow(values, loops=8), values)


def test_nothing_breaks_at_each_bound_of_a_living_forest():
    """Every parameter at its lowest and highest legal value, the others at the LHP baseline."""
    base = plausible_values(1, seed=5)
    cases = [(name, getattr(catalogue()[name], side)) for name in NAMES for side in ("minimum", "maximum")]
    for first in range(0, len(cases), LANES):
        batch = cases[first : first + LANES]
        values = {name: np.repeat(column, len(batch)) for name, column in base.items()}
        for i, (name, value) in enumerate(batch):
            values[name][i] = value
        check(grow(values, loops=5), values)


@pytest.mark.parametrize("name", ["tree_lue", "c3_lue", "tree_pmax"])
def test_more_light_use_or_photosynthetic_capacity_gives_more_gpp(name):
    """From the same pools, in plausible forests. (In the shaded floor a higher pmax can cost light-limited GPP: it
    lowers the leaf's CO2. So can anything at the edges of the legal box.)"""
    grown = grow(plausible_values(LANES, seed=6), loops=12).pools[:, -1]
    day = short_loop().forcing.days
    for seed in range(5):
        values = plausible_values(LANES, seed=60 + seed)
        more = values | {name: values[name] * np.linspace(1.01, 1.5, LANES)}
        for d in range(0, 730, 61):
            pair = []
            for case in (values, more):
                fluxes = np.empty((LANES, 1, 5))
                run_days(
                    lanes(parameter_rows(case)), ground_row(site()), day[d : d + 1], lanes(grown),
                    np.zeros(LANES, dtype=np.int64), False, fluxes, np.zeros((0, 0, 0)), NO_TABLE, None,
                )  # fmt: skip
                pair.append(fluxes[:, 0, 0])
            assert (pair[1] > pair[0]).all()
