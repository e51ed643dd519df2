"""Do an ensemble's outputs follow from its labels? Re-simulation, misfit, and the search for a better explanation.

A hypothesis says into which slot of VISIT the values of each column went, and which site constants were used. The
plain one is: every column into its own slot, at this site. Alternatives are tried one step at a time (blocks of
neighbouring slots shifted together, swaps, other constants), and the one that explains most is kept, as long as it
explains clearly more than what was there before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from command_line import progress
from parameters import catalogue
from sites import TEXTURES, Site
from units import DAYS_PER_YEAR
from visit_simulator import simulate
from weather import Weather

FLUXES = ("gpp", "npp", "rh")
FLOOR = 0.3  # Mg C ha-1 year-1: differences below it count as small, also where the flux is zero
ROWS_AT_ONCE = 256  # simulated together: bounds the memory
SCREENED = 4  # runs on which candidates are screened
FINALISTS = 8  # candidates that screening leaves
NEAR = 1.5  # a site constant is fitted when its trial value leaves less than this times the least misfit
BETTER = 0.8  # a step is taken when it leaves less than this share of the typical misfit
TIE = 1.01  # hypotheses within 1 percent explain equally well: the simpler one wins
PERFECT = 0.03  # share of the present misfit below which a run counts as explained: less says no more
UPPER_CAPACITY = 143.0  # mm; null in a site's YAML means computed from sand and clay, which gives this at LHP
FITTED = 0.005  # misfit at which a fitted site constant is near enough
EXACT = 1e-5  # misfit below which nothing is left to explain


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


# ---- misfit


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
    found = np.stack([result.gpp, result.npp, result.rh], axis=-1)[:, evidence.first : evidence.first + days]
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
    result = np.empty((len(hypotheses), len(evidence.values)))
    by_site: dict[tuple, list[int]] = {}
    for i, hypothesis in enumerate(hypotheses):
        by_site.setdefault(tuple(sorted(hypothesis.constants.items())), []).append(i)
    size = max(1, ROWS_AT_ONCE // len(evidence.values))
    for group in by_site.values():
        for start in range(0, len(group), size):
            part = group[start : start + size]
            found = simulated(evidence, [hypotheses[i] for i in part], jobs)
            result[part] = np.sqrt((differences(found, evidence.fluxes) ** 2).mean(axis=-1))
            if done:
                done(len(part))
    return result


def misfits(evidence: Evidence, hypotheses: Sequence[Hypothesis], jobs: int | None = None) -> np.ndarray:
    """(hypothesis,) root mean square over the runs of misfits_by_run: what is reported and judged."""
    return np.sqrt((misfits_by_run(evidence, hypotheses, jobs) ** 2).mean(axis=-1))


def typical(by_run: np.ndarray, floor: float) -> np.ndarray:
    """(hypothesis,) geometric mean over the runs of misfits (hypothesis, run): what the search goes by.

    Of several wrong labels a step puts right one. Some runs then fit much better, others, which two mistakes had kept
    in balance, worse; a root mean square sees only the latter. Runs below `floor` count as perfect.
    """
    return np.exp(0.5 * np.log(by_run**2 + floor**2).mean(axis=-1))


def differences(simulated: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(..., run, 5) relative differences, see misfits, of simulated (..., run, day, 3) and found (run, day, 3)."""
    floor = FLOOR / DAYS_PER_YEAR
    a, b = simulated.mean(axis=-2), found.mean(axis=-2)
    mean = (a - b) / (0.5 * (np.abs(a) + np.abs(b)) + floor)
    anomaly = (simulated - a[..., None, :]) - (found - b[..., None, :])
    size = np.maximum(simulated.std(axis=-2), found.std(axis=-2)) + 0.1 * floor
    daily = np.minimum(np.sqrt((anomaly**2).mean(axis=-2)) / size, 2.0)
    steady = [FLUXES.index("gpp"), FLUXES.index("rh")]
    return np.concatenate([mean, daily[..., steady]], axis=-1)


def daily_agreement(evidence: Evidence, hypothesis: Hypothesis, jobs: int | None = None) -> float:
    """Median over living runs of the correlation of daily GPP, simulated and found: what the weather decides."""
    found = evidence.fluxes[:, :, 0]
    ours = simulated(evidence, [hypothesis], jobs)[0, :, :, 0]
    alive = (found.std(axis=1) > 1e-4) & (ours.std(axis=1) > 1e-4)
    if not alive.any():
        return float("nan")
    return float(np.median([np.corrcoef(a, b)[0, 1] for a, b in zip(found[alive], ours[alive], strict=True)]))


# ---- alternatives


def group_of(name: str) -> str:
    """tree, c3, soil or init."""
    return name.split("_", 1)[0]


def shifted(evidence: Evidence, base: Hypothesis, shifts: Sequence[int]) -> list[Hypothesis]:
    """Blocks of columns in neighbouring slots, all moved by one of `shifts` slots within their group."""
    known = catalogue()
    by_slot = {parameter.slot: name for name, parameter in known.items() if parameter.slot is not None}
    labels = sorted((label for label in evidence.labels if known[label].slot is not None), key=lambda n: known[n].slot)
    blocks: list[list[str]] = []
    for i, label in enumerate(labels):
        block = [label]
        blocks.append(list(block))
        for other in labels[i + 1 :]:
            if known[other].slot != known[block[-1]].slot + 1 or group_of(other) != group_of(label):
                break
            block.append(other)
            blocks.append(list(block))
    found = []
    for block in blocks:
        for shift in shifts:
            slots = [by_slot.get(known[label].slot + shift) for label in block]
            if all(
                slot is not None and group_of(slot) == group_of(label) and _plausible(evidence, label, slot)
                for label, slot in zip(block, slots, strict=True)
            ):
                found.append(_moved(base, evidence.labels, dict(zip(block, slots, strict=True))))
    return found


def swapped(evidence: Evidence, base: Hypothesis) -> list[Hypothesis]:
    """Two columns of one group exchanged, or the tree's and the floor's column of one kind."""
    found = []
    for a, b in combinations(evidence.labels, 2):
        related = group_of(a) == group_of(b) or a.split("_", 1)[1] == b.split("_", 1)[1]
        if related and _plausible(evidence, a, b) and _plausible(evidence, b, a):
            found.append(_moved(base, evidence.labels, {a: b, b: a}))
    return found


def returned(evidence: Evidence, base: Hypothesis) -> list[Hypothesis]:
    """Moved columns put back into their own slots, one at a time."""
    return [_moved(base, evidence.labels, {label: label}) for label in base.moved]


def other_sites(evidence: Evidence, base: Hypothesis) -> list[Hypothesis]:
    """One site constant changed at a time, a good step up and down; the best of them is fitted later."""
    site = replace(evidence.site, **base.constants)
    upper = site.upper_capacity or UPPER_CAPACITY
    trials: dict[str, Sequence[float | str]] = {
        "lower_capacity": [site.lower_capacity * 0.6, site.lower_capacity * 1.7],
        "upper_capacity": [upper * 0.6, upper * 1.6],
        "altitude": [site.altitude - 150.0, site.altitude + 600.0],
        "latitude": [site.latitude - 10.0, site.latitude + 10.0],
        "spinup_co2_year": [site.spinup_co2_year - 30, site.spinup_co2_year + 10],
        "texture": [texture for texture in TEXTURES if texture != site.texture],
    }
    return [
        Hypothesis(base.moved, base.constants | {name: value}) for name, values in trials.items() for value in values
    ]


def _plausible(evidence: Evidence, label: str, slot: str) -> bool:
    """Whether most of a column's values are legal in a slot: else the mistake would have been noticed."""
    column, place = evidence.values[:, evidence.labels.index(label)], catalogue()[slot]
    if place.minimum == place.maximum:
        return False
    return float(np.mean((column >= place.minimum) & (column <= place.maximum))) >= 0.5


def _moved(base: Hypothesis, labels: Sequence[str], moves: dict[str, str]) -> Hypothesis:
    """`base` with `moves` made; a column whose slot is taken by a moved one ends nowhere."""
    moved = base.moved | moves
    taken = set(moves.values())
    for label in labels:
        if label not in moves and moved.get(label, label) in taken:
            moved[label] = None
    return Hypothesis({label: slot for label, slot in moved.items() if slot != label}, base.constants)


# ---- search


@dataclass(frozen=True)
class Search:
    """The course of a search: hypotheses taken, with the misfit each leaves."""

    steps: list[tuple[Hypothesis, float]]

    @property
    def best(self) -> Hypothesis:
        return self.steps[-1][0]

    @property
    def misfit(self) -> float:
        return self.steps[-1][1]


def search(evidence: Evidence, jobs: int | None = None, say: Callable[[str], object] | None = None) -> Search:
    """Greedy search for the hypothesis that explains the outputs: screened on few runs, decided on all of them."""
    current = Hypothesis()
    by_run = misfits_by_run(evidence, [current], jobs)
    steps = [(current, float(np.sqrt((by_run**2).mean())))]
    while steps[-1][1] > EXACT:
        current, misfit = steps[-1]
        if current.constants and misfit < FITTED:
            break
        floor = PERFECT * misfit
        near = [*shifted(evidence, current, (-1, 1)), *swapped(evidence, current), *returned(evidence, current)]
        pools = ([*near, *other_sites(evidence, current)], shifted(evidence, current, (-2, 2)))
        for pool in pools:
            taken = _best_of(_unique(pool, current), evidence, current, floor, jobs)
            if taken and typical(taken[1], floor) < BETTER * typical(by_run[0], floor):
                break
        else:
            break
        by_run = taken[1][None]
        steps.append((taken[0], float(np.sqrt((by_run**2).mean()))))
        if say:
            say(f"{describe_step(current, taken[0])}: misfit {misfit:.2%} -> {steps[-1][1]:.2%}")
    return Search(steps)


def _best_of(
    candidates: list[Hypothesis], evidence: Evidence, before: Hypothesis, floor: float, jobs: int | None
) -> tuple[Hypothesis, np.ndarray] | None:
    """The best of `candidates` on all runs, of those that screening on some leaves, and its misfits (run,)."""
    if not candidates:
        return None
    few = evidence.subset(_spread(len(evidence.values), SCREENED))
    with progress(total=len(candidates), desc="hypotheses", leave=False) as bar:
        screened = typical(misfits_by_run(few, candidates, jobs, bar.update), floor)
    order = np.argsort(screened)
    finalists = [candidates[i] for i in order[:FINALISTS]]
    place = next((i for i, hypothesis in enumerate(finalists) if hypothesis.constants != before.constants), None)
    if place is not None and screened[order[place]] < NEAR * screened[order[0]]:
        finalists[place] = _refined(few, finalists[place], before, jobs)
    by_run = misfits_by_run(evidence, finalists, jobs)
    decided = typical(by_run, floor)
    good = [i for i in range(len(finalists)) if decided[i] <= TIE * decided.min() + EXACT]
    chosen = min(good, key=lambda i: finalists[i].complexity)
    return finalists[chosen], by_run[chosen]


def describe_step(before: Hypothesis, after: Hypothesis) -> str:
    """What a step of the search changed, in words."""
    changes = []
    for label in dict.fromkeys([*before.moved, *after.moved]):
        if before.target(label) != after.target(label):
            changes.append(f"{label} -> {after.target(label) or 'nowhere'}")
    for name, value in after.constants.items():
        if before.constants.get(name) != value:
            changes.append(f"{name} = {value:g}" if isinstance(value, float) else f"{name} = {value}")
    return ", ".join(changes)


def _spread(runs: int, count: int) -> list[int]:
    """Indices of at most `count` of the runs, evenly spread (they are in the order of their GPP)."""
    return np.unique(np.linspace(0, runs - 1, min(count, runs)).round().astype(int)).tolist()


def _unique(candidates: list[Hypothesis], current: Hypothesis) -> list[Hypothesis]:
    seen, unique = [current], []
    for candidate in candidates:
        if candidate not in seen:
            seen.append(candidate)
            unique.append(candidate)
    return unique


def _refined(evidence: Evidence, hypothesis: Hypothesis, before: Hypothesis, jobs: int | None) -> Hypothesis:
    """A hypothesis about a numeric site constant with that constant fitted by a shrinking bracket of trials."""
    new = [name for name, value in hypothesis.constants.items() if before.constants.get(name) != value]
    if len(new) != 1 or isinstance(hypothesis.constants[new[0]], str):
        return hypothesis
    name = new[0]
    number = type(hypothesis.constants[name])  # a year stays whole
    centre, old = hypothesis.constants[name], getattr(evidence.site, name) or UPPER_CAPACITY
    half = 0.6 * abs(centre - old)
    for _ in range(4):
        values = [number(centre + half * step) for step in (-1.0, -0.5, 0.0, 0.5, 1.0)]
        if name.endswith("capacity"):
            values = [max(value, 10.0) for value in values]
        trials = [Hypothesis(hypothesis.moved, hypothesis.constants | {name: value}) for value in values]
        centre = values[int(np.argmin(misfits(evidence, trials, jobs)))]
        half *= 0.4
    return Hypothesis(hypothesis.moved, hypothesis.constants | {name: centre})


def visible(
    evidence: Evidence, hypothesis: Hypothesis, labels: Sequence[str], jobs: int | None = None
) -> dict[str, bool]:
    """For each column: do its values change the simulated outputs at all, in the slot where they went?

    A column without visible effect cannot be checked; its label may be right or wrong.
    """
    few = evidence.subset(range(min(3, len(evidence.values))))
    trials = [Hypothesis(hypothesis.moved | {label: None}, hypothesis.constants) for label in labels]
    found = np.concatenate([simulated(few, trials[i : i + 32], jobs) for i in range(0, len(trials), 32)] or [[]])
    reference = simulated(few, [hypothesis], jobs)[0]
    change = [float(np.sqrt((differences(other, reference) ** 2).mean())) for other in found]
    return {label: hypothesis.target(label) is not None and c > EXACT for label, c in zip(labels, change, strict=True)}
