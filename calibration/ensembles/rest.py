"""Which runs are at rest: a forest that still grows or dies when the spin-up ends decides averages by itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibration.common.parameters import read_ranges
from calibration.common.units import TARGETS
from calibration.ensembles.files import Ensemble

# A run is set apart whose NEP / GPP lies this many interquartile ranges from the median of all: one in some hundred.
RESTLESS = 10.0
CHANCE = 0.05  # probability that any column at all is named though none has to do with it


@dataclass(frozen=True)
class Culprit:
    """A column in which runs that are not at rest differ from the others; all values physical."""

    name: str
    restless: tuple[float, float]  # smallest and largest value of the runs that are not at rest
    all_runs: tuple[float, float]
    plausible: tuple[float, float] | None  # configs/range_of_paras.csv, where it has the parameter


def rests_like_others(nep: np.ndarray, gpp: np.ndarray) -> np.ndarray:
    """(run,) bool: whether a run is at rest like the others; nep, gpp: (run,) sums or means, any one unit."""
    ratio = nep / np.maximum(gpp, 1e-3 * max(float(np.median(gpp)), 1e-12))
    low, middle, high = np.quantile(ratio, [0.25, 0.5, 0.75])
    return np.abs(ratio - middle) <= RESTLESS * max(high - low, 1e-6)


def runs_at_rest(ensemble: Ensemble) -> np.ndarray:
    """(run,) bool of an ensemble's runs, by their mean fluxes over the record."""
    mean = ensemble.fluxes.mean(axis=1, dtype=np.float64)
    return rests_like_others(mean[:, TARGETS.index("nep")], mean[:, TARGETS.index("gpp")])


def culprits(names: Sequence[str], parameters: np.ndarray, rest: np.ndarray) -> list[Culprit]:
    """Columns that set runs not at rest apart, the clearest first; parameters (run, P) physical, rest (run,) bool.

    By the rank-sum test of Mann and Whitney (1947), with Bonferroni's correction for the number of columns.
    """
    if rest.all() or not rest.any():
        return []
    from scipy.stats import mannwhitneyu  # half a second's import, and most ensembles are at rest

    plausible = read_ranges()
    found = []
    for name, column in zip(names, parameters.T, strict=True):
        chance = mannwhitneyu(column[~rest], column[rest]).pvalue if np.ptp(column) else 1.0
        if chance < CHANCE / len(names):
            known = plausible.names.index(name) if name in plausible.names else None
            bounds = None if known is None else (float(plausible.lower[known]), float(plausible.upper[known]))
            own = column[~rest]
            found.append((chance, Culprit(name, (own.min(), own.max()), (column.min(), column.max()), bounds)))
    return [culprit for _, culprit in sorted(found, key=lambda pair: pair[0])]


def rest_lines(ensemble: Ensemble) -> list[str]:
    """What to say of an ensemble beforehand: which runs are not at rest, and which columns make them so."""
    rest = runs_at_rest(ensemble)
    if rest.all():
        return []
    samples = ", ".join(map(str, ensemble.sample_ids[~rest][:12]))
    more = ", ..." if (~rest).sum() > 12 else ""
    lines = [f"not at rest: {(~rest).sum()} of {len(rest)} runs still grow or die (samples {samples}{more})"]
    for one in culprits(ensemble.parameter_names, ensemble.parameters, rest):
        bounds = f"; plausible is {one.plausible[0]:g} to {one.plausible[1]:g}" if one.plausible else ""
        lines.append(
            f"  {one.name}: {one.restless[0]:.4g} to {one.restless[1]:.4g} there, "
            f"{one.all_runs[0]:.4g} to {one.all_runs[1]:.4g} in all{bounds}"
        )
    return lines
