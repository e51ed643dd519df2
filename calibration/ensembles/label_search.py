"""The search for the labels, or site constants, under which an ensemble's outputs follow from its parameters.

Alternatives to a hypothesis (ensembles/diagnosis.py) are tried one step at a time: blocks of neighbouring slots shifted
together, swaps, other constants. A step that explains most of what was left is taken alone; otherwise the best few are
followed side by side, since of several mistakes one put right may explain little.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from calibration.common.command_line import progress
from calibration.common.parameters import catalogue
from calibration.common.sites import TEXTURES
from calibration.ensembles.diagnosis import EXACT, Evidence, Hypothesis, misfits, misfits_by_run, site_constant, visible

SCREENED = 4  # runs on which candidates are screened
FINALISTS = 8  # candidates that screening leaves
NEAR = 1.5  # a site constant is fitted when its trial value leaves less than this times the least misfit
CLEAR = 0.5  # a step that leaves less than this share of the typical misfit is followed alone
WORTH = 0.95  # a step that leaves more than this share is not followed
WIDTH = 4  # hypotheses followed side by side otherwise
PATIENCE = 4  # steps in a row that may go without a clear one
KEPT = 0.8  # every change that is reported must leave less than this share of the misfit without it
TIE = 1.01  # hypotheses within 1 percent explain equally well: the simpler one wins
PERFECT = 0.03  # share of the present misfit below which a run counts as explained: less says no more
FITTED = 0.005  # misfit at which a fitted site constant is near enough


def typical(by_run: np.ndarray, floor: float) -> np.ndarray:
    """(hypothesis,) geometric mean over the runs of misfits (hypothesis, run): what the search goes by.

    Of several wrong labels a step puts right one. Some runs then fit much better, others, which two mistakes had kept
    in balance, worse; a root mean square sees only the latter. Runs below `floor` count as perfect.
    """
    return np.exp(0.5 * np.log(by_run**2 + floor**2).mean(axis=-1))


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
    """Moved columns put back into their own slots: one at a time, and with the moved one whose slot it has."""
    found = []
    for label, slot in base.moved.items():
        together = {label, slot} if slot in base.moved else {label}
        found += [_moved(base, evidence.labels, {name: name for name in names}) for names in ({label}, together)]
    return _unique(found, base)


def other_sites(evidence: Evidence, base: Hypothesis) -> list[Hypothesis]:
    """One site constant changed at a time, a good step up and down; the best of them is fitted later."""
    site = replace(evidence.site, **base.constants)
    upper = site_constant(site, "upper_capacity")
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


@dataclass(frozen=True)
class Search:
    """The course of a search: hypotheses taken, with the root mean square misfit that each leaves."""

    steps: list[tuple[Hypothesis, float]]

    @property
    def best(self) -> Hypothesis:
        """The hypothesis that the search ended with."""
        return self.steps[-1][0]

    @property
    def misfit(self) -> float:
        """What it leaves, dimensionless; see ensemble_diagnosis.misfits."""
        return self.steps[-1][1]


@dataclass(frozen=True, eq=False)
class Node:
    """A hypothesis on the way, how it came about, and its misfit by run (run,)."""

    hypothesis: Hypothesis
    by_run: np.ndarray
    path: tuple["Node", ...] = ()

    @property
    def misfit(self) -> float:
        """Root mean square over the runs."""
        return float(np.sqrt((self.by_run**2).mean()))


def search(
    evidence: Evidence, jobs: int | None = None, say: Callable[[str], object] | None = None,
    max_seconds: float | None = None,
) -> Search:  # fmt: skip
    """Beam search for the hypothesis that explains the outputs: screened on few runs, decided on all of them.

    After `max_seconds` no further step is begun: what is found by then is judged.
    """
    end = time.monotonic() + max_seconds if max_seconds is not None else float("inf")
    start = Node(Hypothesis(), misfits_by_run(evidence, [Hypothesis()], jobs)[0])
    beam, best, unclear = [start], start, 0
    while best.misfit > EXACT and unclear < PATIENCE and time.monotonic() < end:
        if best.hypothesis.constants and best.misfit < FITTED:
            break
        floor = PERFECT * best.misfit
        before = typical(best.by_run, floor)
        found = []
        for parents, candidates in ((beam, _near), (beam[:1], _far)):
            nodes = [node for parent in parents for node in _next(parent, candidates, evidence, floor, jobs)]
            found = [node for node in _ranked(nodes, floor) if typical(node.by_run, floor) < WORTH * before]
            if found:
                break
        else:
            break
        clear = typical(found[0].by_run, floor) < CLEAR * before
        beam, best, unclear = found[: 1 if clear else WIDTH], found[0], 0 if clear else unclear + 1
        if say:
            say(f"misfit {best.misfit:.2%} with {describe_step(Hypothesis(), best.hypothesis)}")
    path = [*best.path, best]
    while len(path) > 1 and not _holds(path[-1], start, evidence, jobs):
        path.pop()
    return Search([(node.hypothesis, node.misfit) for node in path])


def _near(evidence: Evidence, base: Hypothesis) -> list[Hypothesis]:
    """The steps that are tried first."""
    shifts, swaps = shifted(evidence, base, (-1, 1)), swapped(evidence, base)
    return [*shifts, *swaps, *returned(evidence, base), *other_sites(evidence, base)]


def _far(evidence: Evidence, base: Hypothesis) -> list[Hypothesis]:
    """The steps that are tried when no other explains anything."""
    return shifted(evidence, base, (-2, 2))


def _next(
    parent: Node, steps: Callable[[Evidence, Hypothesis], list[Hypothesis]], evidence: Evidence, floor: float,
    jobs: int | None,
) -> list[Node]:  # fmt: skip
    """What a step from `parent` leads to: of all candidates those that are best on a few runs, judged on all."""
    current = parent.hypothesis
    candidates = _unique(steps(evidence, current), current)
    if not candidates:
        return []
    few = evidence.subset(_spread(len(evidence.values), SCREENED))
    with progress(total=len(candidates), desc="hypotheses", leave=False) as bar:
        screened = typical(misfits_by_run(few, candidates, jobs, bar.update), floor)
    order = np.argsort(screened)
    finalists = [candidates[i] for i in order[:FINALISTS]]
    place = next((i for i, hypothesis in enumerate(finalists) if hypothesis.constants != current.constants), None)
    if place is not None and screened[order[place]] < NEAR * screened[order[0]]:
        finalists[place] = _refined(few, finalists[place], current, jobs)
    by_run = misfits_by_run(evidence, finalists, jobs)
    path = (*parent.path, parent)
    return [Node(hypothesis, misfit, path) for hypothesis, misfit in zip(finalists, by_run, strict=True)]


def _ranked(nodes: list[Node], floor: float) -> list[Node]:
    """Nodes by typical misfit, the simplest first of those that explain equally well; each hypothesis once."""
    rest = sorted(nodes, key=lambda node: (typical(node.by_run, floor), node.hypothesis.complexity))
    ranked: list[Node] = []
    while rest:
        least = typical(rest[0].by_run, floor)
        equal = [node for node in rest if typical(node.by_run, floor) <= TIE * least + EXACT]
        ranked.append(min(equal, key=lambda node: node.hypothesis.complexity))
        rest = [node for node in rest if node not in equal]
    return ranked


def _holds(node: Node, start: Node, evidence: Evidence, jobs: int | None) -> bool:
    """Whether the last step explains enough, and so does each changed column: back in its slot, more is left."""
    before = node.path[-1]
    floor = PERFECT * before.misfit
    misfit = typical(node.by_run, floor)
    if misfit >= KEPT * min(typical(before.by_run, floor), typical(start.by_run, floor)):
        return False
    moved = node.hypothesis.moved
    shown = visible(evidence, node.hypothesis, list(moved), jobs)
    rivals = [_moved(node.hypothesis, evidence.labels, {label: label}) for label in moved if shown[label]]
    return not rivals or bool((misfit < typical(misfits_by_run(evidence, rivals, jobs), floor)).all())


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
    centre, old = hypothesis.constants[name], site_constant(evidence.site, name)
    half = 0.6 * abs(centre - old)
    for _ in range(4):
        values = [number(centre + half * step) for step in (-1.0, -0.5, 0.0, 0.5, 1.0)]
        if name.endswith("capacity"):
            values = [max(value, 10.0) for value in values]
        trials = [Hypothesis(hypothesis.moved, hypothesis.constants | {name: value}) for value in values]
        centre = values[int(np.argmin(misfits(evidence, trials, jobs)))]
        half *= 0.4
    return Hypothesis(hypothesis.moved, hypothesis.constants | {name: centre})
