"""The process model beside the emulator: --refine and --verify run it under the weather of an inversion."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from calibration.common.command_line import UserError, warn
from calibration.common.parameters import in_model
from calibration.common.sites import DEFAULT_SITE, Site, load_site, other_constants, say_default
from calibration.common.units import DYNAMIC_FEATURES, FLUX_UNIT, POSSIBLE, TARGETS
from calibration.emulator.trained import Emulator
from calibration.ensembles.files import LOG, load_ensemble, noted_site
from calibration.inversion.config import target_label
from calibration.inversion.data import Stretch, combine_fluxes, day_index
from calibration.judgement.fit import scores
from calibration.judgement.judge import Judged
from calibration.visit.parameter_file import read_slots, write_parameter_file
from calibration.weather.daily import Weather, read_weather
from inverse_estimator import InversionResult

# Scaled weather of a window and of the driving weather may differ by printed digits before it counts as other weather.
SAME_WEATHER = 1e-3
OUTLIER = 3.0  # emulator's error at the estimate over its usual size from which a fit exploits it


def site_of(path: str | None, data_dir: str | Path | None) -> Site:
    """The site of --site (default: LHP), which must be that of the ensemble in `data_dir` (None: there is none) where
    its log names one.

    UserError where the default is another site than the ensemble's; a warning where the user chose another one.
    """
    site = load_site(path or DEFAULT_SITE)
    if data_dir is None:
        return site
    log, noted = Path(data_dir) / LOG, noted_site(data_dir)
    say_default(site, None if noted else data_dir)  # a log that names the site settles it
    other = other_constants(site, noted)
    for name, (there, here) in other.items():
        message = (
            f"{log}: the runs were made with {name} {there}, {site.path.name} says {here}; "
            "give the ensemble's site with --site"
        )
        if path is None:
            raise UserError(message)
        warn(message)
        break  # one says it
    return site


def driving_weather(
    weather_path: str | Path | None,
    data_dir: str | Path | None,
    site: Site,
    emulator: Emulator,
    stretches: Sequence[Stretch] = (),
) -> Weather:
    """The weather of the whole simulation: --weather or the ensemble's, with the windows' own weather on their days.

    The spin-up loops over its whole calendar years, so it must be longer than the windows. UserError when neither
    source exists or a window's days lie outside.
    """
    if weather_path:
        weather = read_weather(weather_path, site)
    elif data_dir is not None and (Path(data_dir) / "parameter_summary.csv").is_file():
        ensemble = load_ensemble(
            data_dir, emulator.configuration.data.column_order, drop=emulator.configuration.data.drop_columns
        )
        weather = Weather(ensemble.dates, ensemble.dynamic, f"the weather of {data_dir}")
    else:
        where = "no ensemble is given" if data_dir is None else f"{data_dir}: no ensemble there"
        raise UserError(f"{where} whose weather could drive the simulator; give --weather FILE")
    values, changed = weather.values.copy(), 0
    low, high = np.array([POSSIBLE[name] for name in DYNAMIC_FEATURES]).T
    order = [DYNAMIC_FEATURES.index(name) for name in emulator.feature_names]
    for stretch in stretches:
        dates = stretch.all_dates
        at = day_index(dates, weather.dates[0])
        if at[0] < 0 or at[-1] >= len(weather):
            raise UserError(
                f"the windows span {dates[0]} to {dates[-1]} with their context, the simulator's weather only "
                f"{weather.dates[0]} to {weather.dates[-1]} ({weather.source}); give a longer one with --weather"
            )
        scaled = emulator.dynamic_scaler.transform(values[at][:, order])
        other = np.abs(scaled - stretch.dynamic) > SAME_WEATHER
        changed += int(other.any(axis=1).sum())
        own = np.clip(emulator.dynamic_scaler.inverse(stretch.dynamic.astype(np.float64)), low[order], high[order])
        rows = np.where(other, own, values[at][:, order])
        values[np.ix_(at, order)] = rows
    if changed:
        warn(f"{changed} days of the simulator's weather were replaced by the windows' own, which differs there")
    return replace(weather, values=values)


def simulate_vectors(
    parameters: np.ndarray, names: Sequence[str], weather: Weather, site: Site, jobs: int | None = None
) -> np.ndarray:
    """parameters (run, parameter) physical -> fluxes (run, day, 4) Mg C ha-1 day-1 in the order of units.TARGETS."""
    from calibration.visit.simulator import simulate  # compiled code: loaded only where it is needed

    result = simulate({names[i]: parameters[:, i] for i in in_model(names)}, weather, site, jobs=jobs)
    return np.stack([result.flux(name) for name in TARGETS], axis=-1)


@dataclass(frozen=True)
class ProcessModel:
    """What the emulator stands for, ready to run at any parameters: the built-in one, or the user's VISIT.

    runs: (run, parameter) physical -> (index, fluxes (day of `weather`, 4) Mg C ha-1 day-1) of each run as it ends;
    failed ones are warned of and left out. identity: what decides the result beside the parameters, for those who
    keep runs.
    """

    weather: Weather
    runs: Callable[[np.ndarray], Iterator[tuple[int, np.ndarray]]]
    identity: dict[str, str]
    site: Site | None = None  # whose soil and latitude the closed forms take; None: LHP's

    def run(self, values: np.ndarray) -> np.ndarray:
        """(run, parameter) physical -> (run, day, 4) Mg C ha-1 day-1, NaN where a run failed."""
        fluxes = np.full((len(values), len(self.weather.dates), len(TARGETS)), np.nan)
        for i, flux in self.runs(values):
            fluxes[i] = flux
        return fluxes


def on_stretches(fluxes: np.ndarray, dates: np.ndarray, stretches: Sequence[Stretch]) -> np.ndarray:
    """Cut (run, day, 4) over consecutive `dates` to the days of the stretches: (run, day of all stretches, 4)."""
    index = np.concatenate([day_index(stretch.dates, dates[0]) for stretch in stretches])
    return fluxes[:, index]


def verify_estimate(
    model: ProcessModel, result: InversionResult, stretches: Sequence[Stretch], judged: Judged
) -> tuple[np.ndarray | None, dict[str, str]]:
    """Re-run the process model with the estimate under the same weather.

    Returns its flux on the days of `judged` (day,) Mg C ha-1 day-1 (the fitted offset added), None where the run
    failed, and lines for the summary.
    """
    label = target_label(judged.target)
    fluxes = model.run(result.optimized[None])
    if not np.isfinite(fluxes).all():
        return None, {f"simulator with the same parameters, {label}": "the run failed, see the messages"}
    offset = result.offsets.get(judged.target, 0.0)
    series = combine_fluxes(on_stretches(fluxes, model.weather.dates, stretches)[0], judged.target) + offset
    apart = scores(series, judged.optimized)
    lines = {
        f"simulator with the same parameters, {label}": (
            f"emulator - simulator RMSE {apart['rmse']:.5f}, bias {apart['bias']:+.5f} {FLUX_UNIT} "
            f"over {len(series)} days"
        )
    }
    shares = result.error_model.shares() if result.problem.is_likelihood else {}
    emulator_sd = shares.get(judged.target, {}).get("emulator_sd", 0.0)  # none for a flux that was not fitted
    if 0 < OUTLIER * emulator_sd < apart["rmse"]:
        warn(
            f"the emulator errs by {apart['rmse']:.5f} {FLUX_UNIT} at the estimate, {apart['rmse'] / emulator_sd:.0f} "
            "times what the error model takes it for: the fit owes something to that error. --refine 50 runs the "
            "process model there and looks further; after that: more training runs, or fewer --free parameters"
        )
    if judged.valid.any():
        against = scores(judged.observed[judged.valid], series[judged.valid])
        lines[f"simulator against the data, {label}"] = (
            f"RMSE {against['rmse']:.5f} {FLUX_UNIT}, R2 {against['r2']:.3f} (emulator RMSE "
            f"{scores(judged.observed[judged.valid], judged.optimized[judged.valid])['rmse']:.5f})"
        )
    return series, lines


def export_parameters(template: Path | None, slot_table: str, result: InversionResult, path: Path) -> None:
    """Write the estimate as VISIT's parameter file by slot (a CSV name,slot,value without a template)."""
    slots = read_slots(slot_table)
    values = {name: v for name, v in zip(result.names, result.optimized, strict=True) if name in slots}
    left = [name for name in result.names if name not in slots]
    if left:
        warn(f"{', '.join(left)}: no slot in VISIT's parameter file, left out of {path}")
    write_parameter_file(template, values, path if template else path.with_suffix(".csv"), slots)
