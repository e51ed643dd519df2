"""VISIT's closed forms inside the emulator."""

import torch

from calibration.common.parameters import catalogue
from calibration.common.units import DYNAMIC_FEATURES
from calibration.network.canopy_equilibrium import REST, at_rest, read_days
from calibration.network.static_features import LHP_DAY


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
