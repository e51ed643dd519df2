"""Ensembles whose column labels are wrong in the way of visit_carbon_core.md 9.2, for tests of check_ensemble.py."""

import numpy as np
import pandas as pd

from calibration.common.parameters import read_ranges
from calibration.engines.perturbation import draw
from calibration.ensembles.files import write_daily_file
from calibration.visit.simulator import simulate

# label in the table -> slot whose value it really changed
WRONG_LABELS = {
    "tree_alloc_ass": "tree_albedo", "tree_alloc_abg": "tree_alloc_ass", "tree_lf0": "tree_lc0",
    "tree_lc0": "tree_lr0", "tree_lr0": "tree_dcd", "c3_lf0": "c3_lc0", "c3_lc0": "c3_lr0", "c3_lr0": "c3_dcd",
}  # fmt: skip
WITHOUT_EFFECT = ("tree_lr0", "c3_lr0")  # shedding of deciduous trees: there are none


def write_ensemble(directory, weather, site, runs, seed=11, slots=None, file_weather=None, names=None):
    """Write `runs` runs in `directory` whose columns went into `slots` (label -> slot name; others into their own).

    weather: what the runs are made with; file_weather: what the files say (default: the same). names: the columns
    (default: all 36, over the plausible ranges). The daily files' parameter columns carry the labels too.
    """
    space = read_ranges()
    space = space.subset(names) if names else space
    values = draw(space, 4 * runs, seed)
    if "tree_alloc_ass" in space.names:  # legal as an albedo too
        values = values[values[:, space.names.index("tree_alloc_ass")] < 0.55]
    values = values[:runs]
    slots = slots or {}
    parameters = {slots.get(name, name): values[:, i] for i, name in enumerate(space.names)}
    result = simulate(parameters, weather, site)
    fluxes = np.stack([result.gpp, result.npp, result.nep, result.rh], axis=2)
    for sample in range(runs):
        write_daily_file(
            directory / f"LHP_20240101_daily_{sample:04d}.txt", weather.dates,
            (file_weather or weather).values, fluxes[sample], dict(zip(space.names, values[sample], strict=True)),
        )  # fmt: skip
    table = pd.DataFrame(values, columns=list(space.names))
    table.insert(0, "sample_id", range(runs))
    table.to_csv(directory / "parameter_summary.csv", index=False)
