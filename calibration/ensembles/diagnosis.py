"""Do an ensemble's outputs follow from its labels? Re-simulation under a hypothesis, and the misfit that it leaves.

A hypothesis says into which slot of VISIT the values of each column went, and which site constants were used. The
plain one is: every column into its own slot, at this site. ensembles/label_search.py looks for better ones.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from joblib import cpu_count

from calibration.common.parameters import catalogue
from calibration.common.sites import Site
from calibration.common.units import DAYS_PER_YEAR
from calibration.visit.forcing import upper_capacity
from calibration.visit.simulator import simulate
from calibration.weather.daily import Weather

FLUXES = ("gpp", "npp", "rh")
EXACT = 1e-5  # misfit below which nothing is left to explain
ROWS_AT_ONCE = 256  # simulated together: bounds the memory
FLOOR = 0.3  # Mg C ha-1 year-1: differences below it count as small, also where the flux is zero


@dataclass(frozen=True)
class Hypothesis:
    """Columns that went elsewhere (label -> slot name, None: nowhere visible) and site constants that differ."""

    moved: dict[str, str | None] = field(default_factory=dict)
    constants: dict[str, float | str] = field(default_factory=dict)

    @property
    def complexity(self) -> tuple[int, int]:
        """Columns that end nowhere, then changes in all: what is compared when two hypotheses explain equally well."""
        return sum(slot is None for slot in self.moved.values()), len(self.moved) + len(self.constants)

    def target(self, label: str) -> str | None:
        """Slot name of a column."""
        return self.moved.get(label, label)


@dataclass(frozen=True)
class Evidence:
    """What is compared: some runs of an ensemble, and what is needed to simulate them again."""

    labels: tuple[str, ...]
    values: np.ndarray  # (run, parameter) physical units
    fluxes: np.ndarray  # (run, day, 3) GPP NPP Rh, Mg C ha-1 day-1, as found in the ensemble
    weather: Weather
    first: int  # index of the first day of the ensemble in the weather
    site: Site

    def subset(self, runs: Sequence[int]) -> "Evidence":
        """The same with only some of the runs."""
        return replace(self, values=self.values[list(runs)], fluxes=self.fluxes[list(runs)])


def site_constant(site: Site, name: str) -> float | str:
    """A constant of the site as the process model uses it: an upper capacity of null is computed from the soil."""
    return upper_capacity(site) if name == "upper_capacity" else getattr(site, name)


def simulated(evidence: Evidence, hypotheses: Sequence[Hypothesis], jobs: int | None) -> np.ndarray:
    """(hypothesis, run, day, 3) GPP NPP Rh, Mg C ha-1 day-1; all hypotheses must have the same constants."""
    site = replace(evidence.site, **hypotheses[0].constants)
    runs, days = evidence.fluxes.shape[:2]
    known = catalogue()
    columns = {name: np.full((len(hypotheses), runs), known[name].baseline) for name in known}
    for i, hypothesis in enumerate(hypotheses):
        for label, column in zip(evidence.labels, evidence.values.T, strict=True):
            slot = hypothesis.target(label)
            if slot is not None:
                # an illegal value cannot be simulated; where it matters, the misfit stays large
                columns[slot][i] = np.clip(column, known[slot].minimum, known[slot].maximum)
    result = simulate(
        {name: column.ravel() for name, column in columns.items()}, evidence.weather, site, jobs=jobs
    )  # fmt: skip
    # Rh as the files have it: what lies between NPP and NEP, with exports of carbon where a variant counts them
    found = np.stack([result.gpp, result.npp, result.npp - result.nep], axis=-1)
    found = found[:, evidence.first : evidence.first + days]
    return found.reshape(len(hypotheses), runs, days, 3)


def misfits_by_run(
    evidence: Evidence, hypotheses: Sequence[Hypothesis], jobs: int | None = None,
    done: Callable[[int], object] | None = None,
) -> np.ndarray:  # fmt: skip
    """(hypothesis, run) root mean square of the relative differences between simulated and found fluxes.

    Five numbers count of each run: the differences of the means of GPP, NPP and Rh relative to their size, and the rms
    differences of the daily anomalies of GPP and Rh relative to the larger daily sd. Each lies in 0-2, 0 is perfect.
    (Daily NPP is left out: the day on which a leaf flush starts decides it, and jumps at the smallest change.)
    """
    jobs = max(1, jobs or cpu_count())
    by_site: dict[tuple, list[int]] = {}
    for i, hypothesis in enumerate(hypotheses):
        by_site.setdefault(tuple(sorted(hypothesis.constants.items())), []).append(i)
    size = max(1, ROWS_AT_ONCE // len(evidence.values))
    parts = [group[start : start + size] for group in by_site.values() for start in range(0, len(group), size)]
    result = np.empty((len(hypotheses), len(evidence.values)))

    def compare(part: list[int]) -> None:
        """Fill the rows of result (hypothesis, run) of these hypotheses, which share their constants."""
        found = simulated(evidence, [hypotheses[i] for i in part], jobs if len(parts) == 1 else 1)
        result[part] = np.sqrt((differences(found, evidence.fluxes) ** 2).mean(axis=-1))
        if done:
            done(len(part))

    with ThreadPoolExecutor(jobs) as pool:  # sites side by side: a few runs each would keep one core busy
        list(pool.map(compare, parts))
    return result


def misfits(evidence: Evidence, hypotheses: Sequence[Hypothesis], jobs: int | None = None) -> np.ndarray:
    """(hypothesis,) root mean square over the runs of misfits_by_run: what is reported and judged."""
    return np.sqrt((misfits_by_run(evidence, hypotheses, jobs) ** 2).mean(axis=-1))


def differences(simulated: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(..., run, 5) differences, see misfits_by_run, of simulated (..., run, day, 3) and found (run, day, 3)."""
    floor = FLOOR / DAYS_PER_YEAR
    a, b = simulated.mean(axis=-2), found.mean(axis=-2)
    mean = (a - b) / (0.5 * (np.abs(a) + np.abs(b)) + floor)
    anomaly = (simulated - a[..., None, :]) - (found - b[..., None, :])
    size = np.maximum(simulated.std(axis=-2), found.std(axis=-2)) + 0.1 * floor
    daily = np.minimum(np.sqrt((anomaly**2).mean(axis=-2)) / size, 2.0)
    steady = [FLUXES.index("gpp"), FLUXES.index("rh")]
    return np.concatenate([mean, daily[..., steady]], axis=-1)


def daily_agreement(ours: np.ndarray, found: np.ndarray) -> float:
    """Median over living runs of the correlation of daily GPP, simulated and found, (run, day, 3) each: what the
    weather decides. Not a number where no forest lives.
    """
    ours, found = ours[..., 0], found[..., 0]
    alive = (found.std(axis=1) > 1e-4) & (ours.std(axis=1) > 1e-4)
    if not alive.any():
        return float("nan")
    return float(np.median([np.corrcoef(a, b)[0, 1] for a, b in zip(found[alive], ours[alive], strict=True)]))


def annual_nep_difference(ours: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(run,) Mg C ha-1 year-1: mean NEP = NPP - Rh of simulated minus found fluxes, (run, day, 3) Mg C ha-1 day-1."""
    ours, found = ((fluxes[..., 1] - fluxes[..., 2]).mean(axis=-1) for fluxes in (ours, found))
    return (ours - found) * DAYS_PER_YEAR


def visible(
    evidence: Evidence, hypothesis: Hypothesis, labels: Sequence[str], jobs: int | None = None
) -> dict[str, bool]:
    """For each column: do its values change the simulated outputs at all, in the slot where they went?

    A column without visible effect cannot be checked; its label may be right or wrong.
    """
    shown = {label: False for label in labels}
    runs = len(evidence.values)
    # one run shows most of them; two more decide about the rest
    for few in ([runs // 2], [0, runs - 1] if runs > 2 else list(range(runs))):
        part = evidence.subset(few)
        reference = simulated(part, [hypothesis], jobs)[0]
        hidden = [label for label in labels if not shown[label] and hypothesis.target(label) is not None]
        for start in range(0, len(hidden), 32):
            names = hidden[start : start + 32]
            trials = [Hypothesis(hypothesis.moved | {name: None}, hypothesis.constants) for name in names]
            change = np.sqrt((differences(simulated(part, trials, jobs), reference) ** 2).mean(axis=(-2, -1)))
            shown |= {name: bool(size > EXACT) for name, size in zip(names, change, strict=True)}
    return shown
