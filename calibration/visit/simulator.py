"""The process model for many runs: parameters and weather in, daily fluxes and pools out; and its text files."""

import difflib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import cpu_count

from calibration.common.command_line import (
    UserError,
    read_table,
)
from calibration.common.command_line import progress as progress_bar
from calibration.common.parameters import canonical_name, catalogue
from calibration.common.sites import Site
from calibration.visit import spinup as visit_spinup
from calibration.visit.forcing import DailyForcing, calendar, experiment_forcing, spinup_forcing, whole_years
from calibration.visit.kernel import LANES, lanes, run_days
from calibration.visit.layout import C3_ROW, FLOWS, FLUXES, HUMUS, STATE, Layer, ground_row, parameter_rows
from calibration.weather.daily import Weather
from calibration.weather.daily_text import daily_template, write_daily_file

SPINUPS = ("fast", "full")
SUMMARY_FLUXES = ("GPP", "NPP", "ER", "NEP")
# Columns a runs file may carry that VISIT's daily scheme at this site does not read, or that are results.
IGNORED_PREFIXES = ("over_", "under_", "c4_", "mean_", "sd_")
IGNORED = ("sample_id", "trajectory")
LAI_PER_CARBON = Layer._fields.index("lai_per_carbon")
FOLIAGE = [STATE.index("tree_foliage"), STATE.index("c3_foliage")]
TREE_STEM, C3_STEM = STATE.index("tree_stem"), STATE.index("c3_stem")


@dataclass(frozen=True)
class SimulationResult:
    """Runs of the process model under one weather. Fluxes in Mg C ha-1 day-1; NEP = NPP - Rh exactly, less the
    exports of carbon where the site's variant counts them.
    """

    dates: np.ndarray  # (day,) datetime64[D]
    fluxes: np.ndarray  # (run, day, 5) in the order of layout.FLUXES: GPP NPP ER NEP Rh
    years: np.ndarray  # (year,) whole calendar years among the dates
    annual_pools: np.ndarray  # (run, year, state) annual means, units in layout.STATE
    annual_lai: np.ndarray  # (run, year, 2) annual mean leaf area of trees and C3 floor, m2 m-2
    spinup_state: np.ndarray  # (run, state) at the end of the spin-up, initial factors applied
    spinup_loops: np.ndarray  # (run,) loops of the spin-up that were integrated day by day
    pools: np.ndarray | None = None  # (run, day, state) at the end of each day, if asked for
    flows: np.ndarray | None = None  # (run, day, flow) in the order of layout.FLOWS, if asked for

    def flux(self, name: str) -> np.ndarray:
        """(run, day) Mg C ha-1 day-1 of "gpp", "npp", "er", "nep" or "rh"."""
        return self.fluxes[:, :, FLUXES.index(name)]

    @property
    def gpp(self) -> np.ndarray:
        """Gross primary production, (run, day) Mg C ha-1 day-1."""
        return self.flux("gpp")

    @property
    def npp(self) -> np.ndarray:
        """Net primary production, (run, day) Mg C ha-1 day-1."""
        return self.flux("npp")

    @property
    def er(self) -> np.ndarray:
        """Ecosystem respiration, (run, day) Mg C ha-1 day-1."""
        return self.flux("er")

    @property
    def nep(self) -> np.ndarray:
        """Net ecosystem production, > 0 is uptake, (run, day) Mg C ha-1 day-1."""
        return self.flux("nep")

    @property
    def rh(self) -> np.ndarray:
        """Heterotrophic respiration, (run, day) Mg C ha-1 day-1."""
        return self.flux("rh")

    @property
    def targets(self) -> np.ndarray:
        """(run, day, 4) GPP NPP NEP Rh, the order of units.TARGETS, Mg C ha-1 day-1."""
        return self.fluxes[:, :, [FLUXES.index(name) for name in ("gpp", "npp", "nep", "rh")]]

    def annual(self, name: str) -> np.ndarray:
        """(run, year) annual sums of a flux over the whole calendar years, Mg C ha-1 year-1."""
        year = calendar(self.dates)[0]
        return np.stack([self.flux(name)[:, year == y].sum(axis=1) for y in self.years], axis=1)

    def summary(self) -> pd.DataFrame:
        """One row a run: mean_*, sd_annual_* (Mg C ha-1 year-1) and sd_daily_* (Mg C ha-1 day-1), population sd."""
        annual = {name: self.annual(name.lower()) for name in SUMMARY_FLUXES}
        columns = {f"mean_{name}": values.mean(axis=1) for name, values in annual.items()}
        columns |= {f"sd_annual_{name}": values.std(axis=1) for name, values in annual.items()}
        columns |= {f"sd_daily_{name}": self.flux(name.lower()).std(axis=1) for name in SUMMARY_FLUXES}
        return pd.DataFrame(columns)


def simulate(
    parameters: Mapping[str, np.ndarray | float] | pd.DataFrame,
    weather: Weather,
    site: Site,
    spinup: str = "fast",
    jobs: int | None = None,
    progress: bool = False,
    keep_pools: bool = False,
    old_runoff: bool = False,
) -> SimulationResult:
    """Spin up and run the process model for many parameter samples under one weather.

    parameters: physical values by name in any case, (run,) each or one number for all runs; missing names keep their
    LHP baseline; `init_stem_factor` and `init_humus_factor` act at the end of the spin-up. spinup: "full" integrates
    all 2010 years over the weather's whole calendar years, "fast" reaches the same state sooner. jobs: threads
    (default: all cores); the result does not depend on it. keep_pools: also return daily pools and flows.
    old_runoff: VISIT's runoff from before 2014. The site's variant (sites.Variant) says which version of VISIT it is.
    Raises UserError on an unknown name, a value outside the catalogue's legal range, or weather without a whole year.

    >>> from calibration.common.sites import load_site
    >>> from calibration.weather.daily import generate_weather
    >>> weather = generate_weather(load_site(), "2010-01-01", "2010-12-31", seed=1)
    >>> result = simulate({"tree_pmax": np.array([12.0, 18.0])}, weather, load_site())
    >>> result.fluxes.shape  # run, day, flux of layout.FLUXES
    (2, 365, 5)
    >>> low, high = result.flux("gpp").mean(axis=1)
    >>> bool(0 < low < high < 0.2)
    True
    """
    if spinup not in SPINUPS:
        raise UserError(f"spinup is {spinup!r}, allowed is {' or '.join(SPINUPS)}")
    values = parameter_values(parameters)
    rows, ground = parameter_rows(values), ground_row(site, old_runoff)
    experiment = experiment_forcing(weather.dates, weather.values, site, weather.pressure)
    loop = visit_spinup.Loop(*spinup_forcing(weather.dates, weather.values, site, weather.pressure))
    jobs = max(1, jobs or cpu_count())
    with progress_bar(total=len(rows), unit="run", desc="simulate") if progress else nullcontext() as bar:
        done = bar.update if progress else (lambda count: None)
        state, loops = visit_spinup.spin_up(rows, ground, loop, spinup, jobs, done)
    state[:, [TREE_STEM, C3_STEM]] *= values["init_stem_factor"][:, None]
    state[:, HUMUS : HUMUS + 3] *= values["init_humus_factor"][:, None]
    years = whole_years(weather.dates)
    fluxes, annual_pools, pools, flows = _experiment(rows, ground, experiment, state, years, jobs, keep_pools)
    lai_per_carbon = rows[:, [LAI_PER_CARBON, C3_ROW + LAI_PER_CARBON]]
    return SimulationResult(
        dates=weather.dates,
        fluxes=fluxes,
        years=np.array(list(years)),
        annual_pools=annual_pools,
        annual_lai=annual_pools[:, :, FOLIAGE] * lai_per_carbon[:, None],
        spinup_state=state,
        spinup_loops=loops,
        pools=pools,
        flows=flows,
    )


def _experiment(
    rows: np.ndarray, ground: np.ndarray, forcing: DailyForcing, state: np.ndarray, years: Mapping[int, slice],
    jobs: int, keep: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:  # fmt: skip
    """Run every day of `forcing` from `state` (run, state): fluxes, annual mean pools, and daily pools and flows."""
    runs, days = len(rows), forcing.length
    fluxes = np.empty((runs, days, len(FLUXES)))
    annual_pools = np.empty((runs, len(years), len(STATE)))
    daily_pools = np.empty((runs, days, len(STATE))) if keep else None
    flows = np.empty((runs, days, len(FLOWS))) if keep else None

    def run_batch(first: int) -> None:
        """Fill the results of up to LANES runs, from run `first` on."""
        batch = slice(first, min(first + LANES, runs))
        count = batch.stop - first
        pools = daily_pools[batch] if keep else np.empty((count, days, len(STATE)))
        exports_from = np.zeros(1 if count == 1 else LANES, dtype=np.int64)
        run_days(
            lanes(rows[batch]), ground, forcing.days, lanes(state[batch]), exports_from, False, fluxes[batch], pools,
            visit_spinup.NO_TABLE, flows[batch] if keep else None,
        )  # fmt: skip
        for k, year in enumerate(years.values()):
            annual_pools[batch, k] = pools[:, year].mean(axis=1)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run_batch, range(0, runs, LANES)))
    return fluxes, annual_pools, daily_pools, flows


def parameter_values(parameters: Mapping[str, np.ndarray | float] | pd.DataFrame, source: str = "parameters") -> dict:
    """Physical values (run,) float64 of every catalogue parameter, baseline where not given, checked.

    A DataFrame may carry `sample_id`, which then names the run in errors. UserError naming the column, run and value
    when a name is unknown or given twice, or a value is not a number or outside its legal range.
    """
    columns = {str(name): parameters[name] for name in parameters}
    ids = columns.get("sample_id")
    given: dict[str, str] = {}
    for name in columns:
        if name.lower() in IGNORED or name.lower().startswith(IGNORED_PREFIXES):
            continue
        known = canonical_name(name)
        if known is None:
            raise UserError(f"{source}: column '{name}' is no parameter of the process model; {_similar(name)}")
        if known in given:
            raise UserError(f"{source}: columns '{given[known]}' and '{name}' are the same parameter; keep one")
        given[known] = name
    arrays = {known: np.atleast_1d(_numbers(columns[name], name, source)) for known, name in given.items()}
    lengths = {len(values) for values in arrays.values()} - {1}
    if len(lengths) > 1:
        raise UserError(f"{source}: the parameters have different numbers of runs: {sorted(lengths)}")
    runs = len(ids) if ids is not None else (lengths.pop() if lengths else 1)
    if runs == 0:
        raise UserError(f"{source}: holds no runs; give at least one value of each parameter")
    for known, values in arrays.items():
        legal = catalogue()[known]
        bad = ~((values >= legal.minimum) & (values <= legal.maximum))  # NaN is bad too
        if bad.any():
            i = int(bad.argmax())
            label = f"sample_id {np.asarray(ids)[i]}" if ids is not None else f"run {i}"
            raise UserError(
                f"{source}: {given[known]} of {label} is {values[i]:g}, allowed is {legal.minimum:g} to "
                f"{legal.maximum:g} {legal.unit}; correct the value or its unit"
            )
    full = {name: np.full(runs, parameter.baseline) for name, parameter in catalogue().items()}
    return full | {name: np.broadcast_to(values, (runs,)).copy() for name, values in arrays.items()}


def _numbers(values, name: str, source: str) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        texts = [str(value) for value in np.atleast_1d(np.asarray(values, dtype=object))]
        bad = next(text for text in texts if pd.isna(pd.to_numeric(text, errors="coerce")))
        raise UserError(f"{source}: column '{name}' holds {bad!r}, expected numbers") from None


def _similar(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), [known.lower() for known in catalogue()], n=1)
    return f"did you mean '{close[0]}'?" if close else "see configs/visit_parameters.csv for the names"


def read_runs(path: str | Path) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Read a runs CSV: the table and its checked parameter values. UserError names file, column, run and value."""
    table = read_table(path, "it needs sample_id and any subset of configs/visit_parameters.csv as columns")
    table.columns = [str(name).strip() for name in table.columns]
    if "sample_id" not in table:
        raise UserError(
            f"{path}: column 'sample_id' is missing, found {', '.join(table.columns[:5])} ...; add one id a run"
        )
    if table.empty:
        raise UserError(f"{path}: holds no runs; add a row a run")
    ids = pd.to_numeric(table["sample_id"], errors="coerce")
    wrong = ids.isna() | (ids < 0) | (ids != np.floor(ids))
    if wrong.any():
        i = int(wrong.to_numpy().argmax())
        raise UserError(
            f"{path}, line {i + 2}: sample_id is {table['sample_id'].iloc[i]!r}, expected a whole number >= 0"
        )
    if ids.duplicated().any():
        twice = int(ids[ids.duplicated()].iloc[0])
        raise UserError(f"{path}: sample_id {twice} is there more than once; give every run its own")
    table["sample_id"] = ids.astype(np.int64)
    return table, parameter_values(table, str(path))


def write_daily_files(
    directory: Path, result: SimulationResult, weather: Weather, values: Mapping[str, np.ndarray],
    sample_ids: Sequence[int], site: Site, stamp: str,
) -> None:  # fmt: skip
    """Write every run as `<site>_<stamp>_daily_<NNNN>.txt`, VISIT's daily format."""
    template = daily_template(weather.dates, weather.values)
    for i, sample in enumerate(progress_bar(list(sample_ids), unit="file", desc="write")):
        path = directory / f"{site.file_prefix}_{stamp}_daily_{sample:04d}.txt"
        write_daily_file(
            path, weather.dates, weather.values, result.targets[i], {n: v[i] for n, v in values.items()}, template
        )
