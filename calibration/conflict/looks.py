"""Quick looks at what would change a conflict, none of which trains anything: one row of numbers each.

With the emulator: another fit, with an offset, with all parameters free, or under the tower's own weather. With the
process model: it runs at the estimate with one thing changed (pools not at rest, a parameter that is not varied,
another version of VISIT); what that changes of each day is added to the emulator, which is then fitted once more. The
best of a kind gets a row. Such a look supposes that the change acts alike at other parameters; the row's command does
not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from calibration.common.parameters import catalogue, in_model
from calibration.common.sites import Site
from calibration.common.units import DYNAMIC_FEATURES
from calibration.conflict.reach import Reach, best_inside_bounds
from calibration.emulator.trained import Emulator
from calibration.ensembles.variants import describe_variant, one_change
from calibration.inversion.data import Stretch, combine_fluxes, day_index
from calibration.inversion.problem import DailyBias
from calibration.judgement.fit import scores
from calibration.judgement.judge import Case, judge_inversion
from calibration.judgement.simulator_check import on_stretches, simulate_vectors
from calibration.weather.daily import Weather
from inverse_estimator import InversionResult, StaticParameterInverter

COLUMNS = ("look", "change", "rmse", "r2", "best_rmse", "holdout_rmse", "next")
STARTS = 3  # of a fit that only looks
FACTORS = {"init_stem_factor": (0.05, 0.2, 0.5, 1.0, 1.5), "init_humus_factor": (0.2, 0.4, 0.7, 1.0, 2.0)}  # relaxed
AROUND = (0.5, 1.5)  # times its baseline: a parameter that is not varied
WITHOUT_EFFECT = ("diagnostic only", "deciduous only", "class", "type")  # in the catalogue's meaning: not worth a run
AS_IT_IS, OFFSET, FREED, WEATHER = "as it is", "an offset", "all parameters free", "the tower's own weather"
RELAXED, MORE, VARIANT = "the relaxed steady state", "one more parameter", "another version of VISIT"
ENSEMBLE = "python run_perturbations.py --output-dir OTHER_RUNS {}, then train.py and test_inversion.py on it"
NEXT = {
    AS_IT_IS: "", OFFSET: "the same command with --nuisance offset", FREED: "the same command without --free and --fix",
    WEATHER: "python prepare_observation_meteorology.py --help, then build_observation_windows.py --daily met_obs.csv",
    RELAXED: ENSEMBLE.format("--ranges configs/range_of_paras_relaxed.csv"),
    MORE: ENSEMBLE.format("--ranges YOUR_RANGES.csv with this parameter added"),
    VARIANT: ENSEMBLE.format("--variant NAME=VALUE"),
}  # fmt: skip


@dataclass(frozen=True)
class Conflicting:
    """An inversion that conflicts, and what the looks need of it."""

    emulator: Emulator
    inverter: StaticParameterInverter
    case: Case
    result: InversionResult
    reach: Reach
    target: str


@dataclass(frozen=True)
class Surroundings:
    """What the looks take beside the emulator: the site, the process model's weather, the tower's own where known."""

    site: Site
    weather: Weather
    tower: Weather | None = None


def take_looks(found: Conflicting, around: Surroundings, jobs: int | None = None) -> list[dict]:
    """All rows; those of the process model only where the built-in one has every parameter of the emulator."""
    rows = list(emulator_looks(found, around.tower))
    if all(found.result.names[i] in catalogue() for i in in_model(found.result.names)):
        rows += process_looks(found, around.weather, around.site, jobs)
    return rows


def emulator_looks(found: Conflicting, tower_weather: Weather | None = None) -> Iterator[dict]:
    """Rows of the fits with the emulator; `tower_weather`: days to take instead of the windows' own."""
    case, result, config = found.case, found.result, found.inverter.config
    yield _row(found, AS_IT_IS, "", case, result, found.reach)
    if config.nuisance != "offset":
        inverter = found.inverter.with_config(replace(config, nuisance="offset", starts=STARTS))
        fit = _fit(inverter, result, case.fitted, result.problem.latent.free_names)
        yield _row(found, OFFSET, f"{fit.offsets[found.target]:+.4f}", case, fit, _reach(inverter, fit, case, found))
    quick = found.inverter.with_config(replace(config, starts=STARTS))
    if len(result.problem.latent.free) < len(result.names):
        fit = _fit(quick, result, case.fitted, None)
        yield _row(found, FREED, f"{len(result.names)} instead of {len(result.problem.latent.free)}", case, fit,
                   _reach(quick, fit, case, found))  # fmt: skip
    if tower_weather is None:
        yield dict.fromkeys(COLUMNS) | {"look": WEATHER, "change": "not tried", "next": NEXT[WEATHER]}
        return
    fitted, days = other_weather(case.fitted, tower_weather, found.emulator)
    held, _ = other_weather(case.holdout, tower_weather, found.emulator)
    case = replace(case, fitted=fitted, holdout=held)
    fit = _fit(quick, result, fitted, result.problem.latent.free_names)
    yield _row(found, WEATHER, f"{days} days", case, fit, _reach(quick, fit, case, found))


def process_looks(found: Conflicting, weather: Weather, site: Site, jobs: int | None = None) -> Iterator[dict]:
    """Rows of the looks with the process model under `weather`, the best of each kind; `jobs`: threads.

    The estimate must consist of parameters that the built-in process model has.
    """
    names = [found.result.names[i] for i in in_model(found.result.names)]
    estimate = dict(zip(found.result.names, found.result.optimized, strict=True))

    def runs(changes: Sequence[dict[str, float]], at: Site = site) -> np.ndarray:
        """(run, day of `weather`, 4) at the estimate with each of the changes."""
        columns = [*names, *sorted({name for change in changes for name in change} - set(names))]
        known = catalogue()
        values = [[c.get(n, estimate.get(n, known[n].baseline)) for n in columns] for c in changes]
        return simulate_vectors(np.array(values, dtype=np.float64), columns, weather, at, jobs)

    base = runs([{}])[0]
    if not set(FACTORS) & set(names):
        stem, humus = FACTORS
        pairs = [{stem: a, humus: b} for a in FACTORS[stem] for b in FACTORS[humus] if (a, b) != (1.0, 1.0)]
        yield _best(found, RELAXED, [_said(pair) for pair in pairs], runs(pairs) - base, weather)
    single = other_parameters(names)
    if single:
        yield _best(found, MORE, [_said(change) for change in single], runs(single) - base, weather)
    variants = one_change(weather, site.variant)
    changed = np.concatenate([runs([{}], replace(site, variant=variant)) for variant in variants]) - base
    yield _best(found, VARIANT, [describe_variant(site.variant, v) for v in variants], changed, weather)


def other_parameters(names: Sequence[str]) -> list[dict[str, float]]:
    """Every parameter of the catalogue that is not among `names`, at half and at one and a half times its baseline."""
    found = []
    for name, known in catalogue().items():
        fixed = known.minimum >= known.maximum or any(word in known.meaning for word in WITHOUT_EFFECT)
        if name not in names and name not in FACTORS and not fixed and known.baseline:
            ends = np.clip(np.array(AROUND) * known.baseline, known.minimum, known.maximum)
            found += [{name: float(value)} for value in ends]
    return found


def other_weather(
    stretches: Sequence[Stretch], weather: Weather, emulator: Emulator
) -> tuple[list[Stretch], int]:
    """The stretches under `weather` on the days that it has (else their own), and how many of their days differ."""
    order = [DYNAMIC_FEATURES.index(name) for name in emulator.feature_names]
    result, days = [], 0
    for stretch in stretches:
        at = day_index(stretch.all_dates, weather.dates[0])
        here = (at >= 0) & (at < len(weather))
        dynamic = stretch.dynamic.copy()
        dynamic[here] = emulator.dynamic_scaler.transform(weather.values[at[here]][:, order])
        days += int((np.abs(dynamic - stretch.dynamic) > 1e-3).any(axis=1).sum())
        result.append(replace(stretch, dynamic=dynamic))
    return result, days


def looks_table(rows: Sequence[dict]) -> pd.DataFrame:
    """The rows as a table of COLUMNS."""
    return pd.DataFrame(list(rows), columns=list(COLUMNS))


def looks_lines(table: pd.DataFrame, constant: float) -> list[str]:
    """The table in words for the summary; RMSE of a constant on the same days."""
    lines = [f"{'':28s}{'estimate':>9s}{'at best':>9s}{'held out':>9s}   what changed"]
    for row in table.itertuples():
        values = (row.rmse, row.best_rmse, row.holdout_rmse)
        numbers = "".join(f"{'-':>9s}" if pd.isna(value) else f"{value:9.4f}" for value in values)
        lines.append(f"{row.look:28s}{numbers}   {row.change}")
    tried = table.dropna(subset=["best_rmse"])
    best = tried.loc[tried["best_rmse"].idxmin()]
    beaten = "below" if best.best_rmse < constant else "no better than"
    lines.append(f"the most comes from {best.look}: {best.best_rmse:.4f} at best, {beaten} a constant ({constant:.4f})")
    return lines


def _fit(
    inverter: StaticParameterInverter, result: InversionResult, stretches: list[Stretch], free: Sequence[str] | None
) -> InversionResult:
    return inverter.invert_stretches(result.prior, stretches, free=free)


def _reach(inverter: StaticParameterInverter, fit: InversionResult, case: Case, found: Conflicting) -> Reach:
    return best_inside_bounds(inverter, fit, case.fitted, found.target)


def _row(
    found: Conflicting, look: str, change: str, case: Case, result: InversionResult, reach: Reach
) -> dict:
    """A row of numbers of a fit."""
    table = judge_inversion(case, found.inverter, result, None).main.table
    fitted = table.loc[("fitted", "optimized")]
    held = table.loc[("holdout", "optimized")].rmse if ("holdout", "optimized") in table.index else None
    values = (look, change, fitted.rmse, fitted.r2, reach.rmse, held, NEXT[look])
    return dict(zip(COLUMNS, values, strict=True))


def _best(found: Conflicting, look: str, said: Sequence[str], change: np.ndarray, weather: Weather) -> dict:
    """The row of the change that fits best at the estimate; change (run, day, 4) is what each does to every day."""
    observations = found.result.problem.observations
    here = observations.target == found.result.config.targets.index(found.target)
    fluxes = on_stretches(change, weather.dates, found.case.fitted)
    moved = combine_fluxes(torch.as_tensor(fluxes), found.target).numpy()
    first = np.cumsum([0, *(stretch.days for stretch in found.case.fitted)])
    at = first[observations.stretch[here]] + observations.day[here]
    predicted = found.result.fit.predicted[here]
    errors = [scores(observations.value[here], predicted + run[at]) for run in moved]
    k = int(np.nanargmin([np.nan if not np.isfinite(e["rmse"]) else e["rmse"] for e in errors]))
    bias = DailyBias(weather.dates[0], torch.as_tensor(-change[k]))
    inverter = found.inverter.corrected(_sum(found.inverter.bias, bias), found.inverter.errors)
    reach = best_inside_bounds(inverter, found.result, found.case.fitted, found.target)
    values = (look, said[k], errors[k]["rmse"], errors[k]["r2"], reach.rmse, None, NEXT[look])
    return dict(zip(COLUMNS, values, strict=True))


def _sum(first: DailyBias | None, second: DailyBias) -> DailyBias:
    """Both biases on the days of the second."""
    if first is None:
        return second
    dates = second.first + np.arange(len(second.flux)).astype("timedelta64[D]")
    return DailyBias(second.first, second.flux + first.on(dates))


def _said(change: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in change.items())
