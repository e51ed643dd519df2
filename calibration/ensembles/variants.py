"""Was an ensemble made by another version of VISIT? What tells the versions apart (sites.Variant), tried one by one.

Versions move NEP more than anything else: of an NEP of half a Mg C ha-1 year-1 an export that is counted or not is
half, and next to nothing of GPP and Rh. So NEP's annual mean is judged beside the misfit of diagnosis.py.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np
from joblib import cpu_count

from calibration.common.sites import Variant
from calibration.common.units import DAYS_PER_YEAR, DEAD
from calibration.ensembles.diagnosis import Evidence, Hypothesis, annual_nep_difference, differences, simulated
from calibration.weather.daily import Weather

NEP_DOUBT = 0.1  # Mg C ha-1 year-1, median over the runs, above which NEP is not that of the model here
WORTH = 0.6  # share of the misfit that a variant must fall below to be taken
STEPS = 3  # variants that an explanation may have
CO2_SHIFTS = (-20, -10, -1, 1)  # years tried before or after the ensemble's own first year
# What a variant is, in words; a value is put in where there is one.
WORDS = {
    "exports_in_nep": "export of dissolved and eroded carbon counted in NEP", "old_runoff": "runoff as before 2014",
    "random_spinup": "spin-up years in random order", "first_co2_year": "CO2 that starts at the year {}",
    "pressure": "air pressure {}", "sapwood_cap": "sapwood capped at the stem",
}  # fmt: skip


@dataclass(frozen=True)
class VariantFit:
    """How a variant fits the evidence. misfit: as diagnosis.misfits, and NEP's part in it; nep: median difference of
    annual NEP, simulated minus found, Mg C ha-1 year-1.
    """

    variant: Variant
    misfit: float
    nep: float


def fit(evidence: Evidence, variant: Variant, jobs: int | None = None) -> VariantFit:
    """Simulate the runs of the evidence by a variant, all labels as they are, and compare."""
    return compared(variant, simulated(evidence, [Hypothesis({}, {"variant": variant})], jobs)[0], evidence.fluxes)


def compared(variant: Variant, ours: np.ndarray, found: np.ndarray) -> VariantFit:
    """How fluxes that were simulated by a variant fit those found, (run, day, 3) GPP NPP Rh, Mg C ha-1 day-1 each."""
    nep = annual_nep_difference(ours, found)
    # relative to what versions change: an NEP that is off by this much weighs as a flux that is off by all of itself
    parts = np.concatenate([differences(ours, found), nep[:, None]], axis=1)
    return VariantFit(variant, float(np.sqrt((parts**2).mean())), float(np.median(nep)))


def one_change(weather: Weather, base: Variant) -> list[Variant]:
    """`base` with one thing changed, whatever makes sense under `weather`."""
    year = int(str(weather.dates[0])[:4])
    trials = {
        "exports_in_nep": [not base.exports_in_nep], "old_runoff": [not base.old_runoff],
        "random_spinup": [not base.random_spinup], "sapwood_cap": [not base.sapwood_cap],
        "first_co2_year": [year + shift for shift in CO2_SHIFTS],
        "pressure": [1005.0, 1013.25, *(["forcing"] if weather.pressure is not None else [])],
    }  # fmt: skip
    changed = [replace(base, **{name: value}) for name, values in trials.items() for value in values]
    return [variant for variant in changed if variant != base]


def other_variants(evidence: Evidence, base: Variant) -> list[Variant]:
    """`base` with one thing changed; what it has changed already stays."""
    names = [f.name for f in fields(Variant)]
    kept = [name for name in names if getattr(base, name) != getattr(evidence.site.variant, name)]
    return [
        variant for variant in one_change(evidence.weather, base)
        if all(getattr(variant, name) == getattr(base, name) for name in kept)
    ]  # fmt: skip


def explain_by_variant(evidence: Evidence, start: VariantFit, jobs: int | None = None) -> list[VariantFit]:
    """The way to the variant that explains the evidence: `start`, the site's own, then one change after another."""
    way = [start]
    for _ in range(STEPS):
        with ThreadPoolExecutor(max(1, jobs or cpu_count())) as pool:  # few runs each: one core a variant
            tried = list(pool.map(lambda one: fit(evidence, one, 1), other_variants(evidence, way[-1].variant)))
        best = min(tried, key=lambda one: one.misfit)
        if best.variant.first_co2_year != way[-1].variant.first_co2_year:
            best = _nearest_year(evidence, best, jobs)
        if best.misfit > WORTH * way[-1].misfit:
            break
        way.append(best)
    return way


def _nearest_year(evidence: Evidence, best: VariantFit, jobs: int | None) -> VariantFit:
    """The first year of CO2 that fits best, found by steps that shrink to one year."""
    for step in (4, 2, 1):
        years = (best.variant.first_co2_year - step, best.variant.first_co2_year + step)
        trials = [fit(evidence, replace(best.variant, first_co2_year=year), jobs) for year in years]
        best = min([best, *trials], key=lambda one: one.misfit)
    return best


def describe_variant(before: Variant, after: Variant) -> str:
    """What `after` has that `before` has not, in words."""
    said = []
    for field in fields(Variant):
        value = getattr(after, field.name)
        if value != getattr(before, field.name):
            words = WORDS[field.name].format(f"{value:g} hPa" if isinstance(value, float) else value)
            said.append(words if value is not False else f"no {words}")
    return ", ".join(said)


def identical_runs(sample_ids: Sequence[int], parameters: np.ndarray, fluxes: np.ndarray) -> tuple[int, int] | None:
    """Two samples with different parameters (run, parameter) and the same fluxes (run, day, 4), if there are any.

    Dead forests do not count: nothing may be left of them to differ.
    """
    seen: dict[bytes, int] = {}
    for i, run in enumerate(fluxes):
        if run[:, 0].mean() * DAYS_PER_YEAR >= DEAD:
            other = seen.setdefault(run.tobytes(), i)
            if (parameters[other] != parameters[i]).any():
                return int(sample_ids[other]), int(sample_ids[i])
    return None
