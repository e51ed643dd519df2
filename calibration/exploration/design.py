"""Designs of a sensitivity analysis in the unit cube, and the indices computed from what a model makes of them.

A parameter's unit value is its place inside its range (0 to 1; a tied one's, its share of the way to its reference),
so the parameters are independent and uniform, as Morris and Sobol suppose. Both designs depend on the seed alone.
Morris (1991, Technometrics 33, 161-174) with mu* of Campolongo et al. (2007, Environ. Modell. Softw. 22, 1509-1518);
Sobol with the sampling and estimators of Saltelli et al. (2010, Comput. Phys. Commun. 181, 259-270), all from SALib.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from SALib.analyze import morris as morris_analysis
from SALib.analyze import sobol as sobol_analysis
from SALib.sample import morris as morris_sample
from SALib.sample import sobol as sobol_sample

from calibration.common.command_line import UserError
from calibration.common.parameters import ParameterSpace

MORRIS_LEVELS = 4  # of the grid; steps of two thirds of the range, the usual choice
RESAMPLES = 200  # bootstrap samples behind the 95 percent confidence of every index
CHUNK = 512  # runs in memory at once
METHODS = ("morris", "sobol")
INDICES = {"morris": ("mu_star", "sigma"), "sobol": ("ST", "S1")}  # the first of each ranks the parameters


@dataclass(frozen=True)
class SensitivityDesign:
    """A design of one method: `unit` (run, parameter) in 0-1, `groups` trajectories (Morris) or base samples (Sobol),
    `size` runs each.
    """

    method: str
    names: tuple[str, ...]
    unit: np.ndarray
    groups: int

    @property
    def size(self) -> int:
        """Runs of a trajectory or of a base sample."""
        return len(self.unit) // self.groups

    @property
    def problem(self) -> dict:
        """SALib's description of the parameters."""
        return _problem(self.names)

    def first(self, groups: int) -> "SensitivityDesign":
        """The first `groups` trajectories or base samples: the same runs, fewer of them."""
        return SensitivityDesign(self.method, self.names, self.unit[: groups * self.size], groups)


def morris_design(space: ParameterSpace, trajectories: int, seed: int) -> SensitivityDesign:
    """`trajectories` Morris trajectories of one run more than there are parameters. UserError below 2."""
    if trajectories < 2:
        raise UserError(f"{trajectories} Morris trajectories; 2 or more are needed for a confidence interval")
    unit = morris_sample.sample(_problem(space.names), trajectories, num_levels=MORRIS_LEVELS, seed=seed)
    return SensitivityDesign("morris", space.names, unit, trajectories)


def sobol_design(space: ParameterSpace, samples: int, seed: int) -> SensitivityDesign:
    """`samples` base samples of two runs more than there are parameters. UserError unless it is a power of 2, 4 up."""
    if samples < 4 or samples & (samples - 1):
        near = 2 ** max(2, round(np.log2(max(samples, 1))))
        raise UserError(f"{samples} Sobol samples; it must be a power of 2 from 4 on, such as {near}")
    unit = sobol_sample.sample(_problem(space.names), samples, calc_second_order=False, seed=seed)
    return SensitivityDesign("sobol", space.names, unit, samples)


def evaluate(
    design: SensitivityDesign,
    space: ParameterSpace,
    model: Callable[[np.ndarray], np.ndarray],
    advance: Callable[[int], object] = lambda runs: None,
) -> np.ndarray:
    """What `model` ((run, parameter) physical -> (run, ...)) makes of every run of the design: (run, ...).

    `advance` is told of every finished batch of runs (a progress bar).
    """
    parts = []
    for start in range(0, len(design.unit), CHUNK):
        values = space.unit_to_physical(design.unit[start : start + CHUNK])
        parts.append(model(values))
        advance(len(values))
    return np.concatenate(parts)


def kept(design: SensitivityDesign, good: np.ndarray) -> np.ndarray:
    """(group,) bool: trajectories or base samples all of whose runs are `good` (run,)."""
    return good.reshape(design.groups, design.size).all(axis=1)


def indices(design: SensitivityDesign, outputs: dict[str, np.ndarray], seed: int, groups: np.ndarray) -> pd.DataFrame:
    """Indices of every quantity, one row a quantity and parameter, with half-widths of 95 percent confidence.

    outputs: name -> (run,) a scalar in any unit. Columns quantity, parameter, then mu_star, mu_star_conf, mu, sigma
    (the quantity's unit a range) for Morris, ST, ST_conf, S1, S1_conf (shares of the variance) for Sobol. A quantity
    that no run changes has indices 0. groups: (group,) bool of kept(), the trajectories or base samples to use.
    UserError when fewer than 2 of them are left.
    """
    if groups.sum() < 2:
        raise UserError(
            f"only {groups.sum()} of {design.groups} {design.method} groups hold no run that is not at rest; give more "
            "--trajectories or samples, or an emulator of narrower ranges"
        )
    use = np.repeat(groups, design.size)
    tables = []
    for quantity, values in outputs.items():
        table = _analyse(design, design.unit[use], np.asarray(values, dtype=np.float64)[use], seed)
        table.insert(0, "quantity", quantity)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def elementary_effects(design: SensitivityDesign, outputs: np.ndarray) -> np.ndarray:
    """Change of the outputs (run, ...) a whole range of each parameter: (trajectory, parameter, ...).

    One effect a trajectory and parameter: the difference of the two runs between which only that parameter moved,
    divided by the step (in ranges, signed).
    """
    unit = design.unit.reshape(design.groups, design.size, -1)
    step = np.diff(unit, axis=1)  # (trajectory, step, parameter)
    moved = np.abs(step).argmax(axis=2)
    length = np.take_along_axis(step, moved[..., None], axis=2)[..., 0]
    change = np.diff(outputs.reshape(design.groups, design.size, *outputs.shape[1:]), axis=1)
    effects = change / length.reshape(length.shape + (1,) * (change.ndim - 2))
    result = np.empty((design.groups, len(design.names), *outputs.shape[1:]), dtype=np.float64)
    result[np.arange(design.groups)[:, None], moved] = effects
    return result


def _problem(names: Sequence[str]) -> dict:
    return {"num_vars": len(names), "names": list(names), "bounds": [[0.0, 1.0]] * len(names)}


def _analyse(design: SensitivityDesign, unit: np.ndarray, values: np.ndarray, seed: int) -> pd.DataFrame:
    if design.method == "morris":
        found = morris_analysis.analyze(
            design.problem, unit, values, num_resamples=RESAMPLES, num_levels=MORRIS_LEVELS, seed=seed
        )
        columns = ("mu_star", "mu_star_conf", "mu", "sigma")
    else:
        columns = ("ST", "ST_conf", "S1", "S1_conf")
        if np.ptp(values) <= 1e-12 * max(np.abs(values).max(), 1e-30):  # SALib divides by the spread
            found = dict.fromkeys(columns, np.zeros(len(design.names)))
        else:
            found = sobol_analysis.analyze(
                design.problem, values, calc_second_order=False, num_resamples=RESAMPLES, seed=seed
            )
    return pd.DataFrame({"parameter": list(design.names)} | {name: np.asarray(found[name], float) for name in columns})
