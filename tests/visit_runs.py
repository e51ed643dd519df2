"""Helpers of the process model's tests: made-up weather, random legal parameters, pools after a few years."""

from functools import cache

import numpy as np

from calibration.common.parameters import catalogue, read_ranges
from calibration.common.sites import Site, load_site
from calibration.visit.forcing import spinup_forcing
from calibration.visit.kernel import LANES, lanes, run_days, samples
from calibration.visit.layout import FLOWS, FLUXES, STATE, ground_row, parameter_rows
from calibration.visit.simulator import SimulationResult, parameter_values
from calibration.visit.spinup import NO_TABLE, Loop, warm_up
from calibration.weather.daily import Weather, generate_weather

NAMES = tuple(name for name in catalogue() if not name.startswith("init_"))


@cache
def site() -> Site:
    return load_site()


@cache
def weather(start: str = "2010-01-01", end: str = "2011-12-31") -> Weather:
    return generate_weather(site(), start, end, seed=11)


@cache
def short_loop(loops: int = 0) -> Loop:
    """Spin-up of `loops` loops over two years (0: all 2010 years)."""
    forcing, full = spinup_forcing(weather().dates, weather().values, site())
    return Loop(forcing, loops or full)


def legal_values(unit: np.ndarray) -> dict[str, np.ndarray]:
    """Positions (run, len(NAMES)) in 0-1 -> every parameter inside its legal range."""
    known = catalogue()
    low = np.array([known[name].minimum for name in NAMES])
    high = np.array([known[name].maximum for name in NAMES])
    return parameter_values(dict(zip(NAMES, (low + unit * (high - low)).T, strict=True)))


def plausible_values(runs: int, seed: int) -> dict[str, np.ndarray]:
    """`runs` random forests from configs/range_of_paras.csv."""
    space = read_ranges()
    physical = space.unit_to_physical(np.random.default_rng(seed).random((runs, len(space))))
    return parameter_values(dict(zip(space.names, physical.T, strict=True)))


def grow(values: dict[str, np.ndarray], loops: int, exports: bool = True) -> SimulationResult:
    """At most LANES samples from bare ground over `loops` times two years, the last two recorded with all flows."""
    rows, ground, loop = parameter_rows(values), ground_row(site()), short_loop()
    count = len(rows)
    parameters = lanes(rows)
    state = warm_up(parameters, ground, loop, LANES)
    empty = np.zeros((0, 0, 0))
    from_day = np.full(LANES, 0 if exports else np.iinfo(np.int64).max)
    for _ in range(loops - 1):
        run_days(parameters, ground, loop.forcing.days, state, from_day, False, empty, empty, NO_TABLE, None)
    start = samples(state)[:count].copy()
    days = loop.forcing.length
    fluxes, pools = np.empty((count, days, len(FLUXES))), np.empty((count, days, len(STATE)))
    flows = np.empty((count, days, len(FLOWS)))
    run_days(parameters, ground, loop.forcing.days, state, from_day, False, fluxes, pools, NO_TABLE, flows)
    return SimulationResult(
        dates=weather().dates[:days], fluxes=fluxes, years=np.array([2010, 2011]), annual_pools=np.empty(0),
        annual_lai=np.empty(0), spinup_state=start, spinup_loops=np.empty(0), pools=pools, flows=flows,
    )  # fmt: skip
