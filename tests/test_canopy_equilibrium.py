"""VISIT's closed forms inside the emulator."""

import numpy as np
import pytest
import torch
from visit_runs import site, weather

from calibration.common.parameters import catalogue
from calibration.common.units import DYNAMIC_FEATURES
from calibration.network.canopy_equilibrium import LEAF_AREAS, REST, _as_reached, at_rest
from calibration.network.leaf_weather import read_days
from calibration.network.static_features import LHP_DAY
from calibration.visit.simulator import simulate

TWO_ZEROS = {
    "tree_albedo": 0.776, "tree_alloc_ass": 0.708, "tree_pmax": 28.5, "tree_rmf0": 1.22, "tree_qTf0": 1.64,
    "tree_qTc0": 1.67, "tree_qTr0": 2.27, "tree_lue": 0.0233, "tree_sla": 93.4, "tree_topt": 18.7, "tree_tmin": 13.0,
    "tree_tmax": 33.2, "tree_lc0": 0.0655, "tree_lr0": 0.06, "tree_dcd": 0.061,
}  # fmt: skip


def test_leaf_area_at_rest_has_no_bends():
    """Gauss-Newton steps along the slope: a slope that jumps from one grid cell to the next ends a search early."""
    days = LHP_DAY.repeat(96, 1)
    days[:, DYNAMIC_FEATURES.index("tcdc_clm")] = torch.linspace(5, 95, 96)
    extra = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0]).repeat(96, 1)
    typical = read_days(days[None].double(), extra[None].double(), torch.tensor(4.2))
    for name in ("tree_lue", "tree_sla", "tree_lf0"):
        values = {n: torch.full((161, 1), p.baseline, dtype=torch.double) for n, p in catalogue().items()}
        values[name] = values[name] * torch.linspace(0.9, 1.2, 161)[:, None]
        packed, _ = at_rest(values, typical)
        slope = torch.diff(torch.log(packed[:, REST.index("tree_leaf_area")]))
        jump = (torch.diff(slope).abs() / slope.abs().mean()).max()
        assert jump < 0.25, f"{name}: the slope of leaf area jumps by {jump:.2f} of its mean"


def test_fast_wood_settles_at_the_first_leaf_area_from_below():
    """Two leaf areas would last: the process model tells which one a forest reaches whose wood lives for weeks."""
    ran = simulate({name: np.array([value]) for name, value in TWO_ZEROS.items()}, weather(), site())
    order = np.argsort(weather().values[:, DYNAMIC_FEATURES.index("tcdc_clm")], kind="stable")
    days = torch.as_tensor(weather().values[order[:: len(order) // 96]])[None].double()
    extra = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0]).expand(1, days.shape[1], 6).double()
    values = {name: TWO_ZEROS.get(name, p.baseline) for name, p in catalogue().items()}
    values = {name: torch.full((1, 1), value, dtype=torch.double) for name, value in values.items()}
    packed, _ = at_rest(values, read_days(days, extra, torch.tensor(site().latitude)))
    assert packed[0, REST.index("tree_leaf_area")].item() == pytest.approx(ran.annual_lai[0, :, 0].mean(), rel=0.1)


def test_slow_wood_and_seedlings_that_cannot_grow_keep_the_highest_leaf_area():
    areas = LEAF_AREAS
    lush = torch.where((areas < 0.5) | (areas > 5.0), -1e-4, 1e-4)  # a loss for seedlings, a gain from 0.5 to 5
    tiny = torch.where(areas < 0.1, 1e-6, lush)[None]  # seedlings below VISIT's smallest gain a little
    two = torch.where((areas > 1.0) & (areas < 2.0), -1e-4, torch.where(areas < 5.0, 1e-4, -1e-4))[None]
    fast, slow = torch.tensor([[0.05]]), torch.tensor([[1e-4]])
    assert torch.equal(_as_reached(tiny, fast), tiny)
    assert torch.equal(_as_reached(two, slow), two)
    assert (_as_reached(two, fast)[0, areas > 1.0] < 0).all()
