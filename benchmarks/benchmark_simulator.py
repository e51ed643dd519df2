"""The process model: speed, scaling over the cores, and whether the fast spin-up is the full one.

    python benchmarks/benchmark_simulator.py [--data-dir ../shared/data] [--random 500]

Compares both spin-ups for the reference design (where --data-dir has it) and for random forests of the default ranges,
in one run, and writes benchmarks/results/simulator.md. On two cores about ten minutes, nearly all of it the full
spin-ups; the machine should be idle.
"""

import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from calibration.common.command_line import make_parser, run, write_text  # noqa: E402
from calibration.common.parameters import read_ranges  # noqa: E402
from calibration.common.sites import Site, load_site  # noqa: E402
from calibration.engines.perturbation import draw  # noqa: E402
from calibration.visit.forcing import spinup_forcing  # noqa: E402
from calibration.visit.kernel import LANES, lanes, run_days  # noqa: E402
from calibration.visit.layout import ground_row, parameter_rows  # noqa: E402
from calibration.visit.simulator import SimulationResult, parameter_values, simulate, write_daily_files  # noqa: E402
from calibration.visit.spinup import NO_SERIES, NO_TABLE, Loop, warm_up  # noqa: E402
from calibration.weather.daily import Weather, generate_weather, read_weather  # noqa: E402

RESULT = REPOSITORY / "benchmarks" / "results" / "simulator.md"
FLUX_FLOOR = 0.01  # Mg C ha-1 year-1: a smaller flux is that of a dead forest or a difference that cancels
LOOPS = 40  # loops of ten years that are timed
POOL_FLOOR = 1e-4  # Mg C ha-1, mm: smaller pools are compared with this
ASKED = {"sample-days": 1.0e6, "scaling": 1.8, "difference": 0.1, "faster": 10, "seconds": 60}


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--data-dir", type=Path, default=REPOSITORY.parent / "shared" / "data",
                        help="folder with lhp/ and visit_reference/ (without it: random forests only)")  # fmt: skip
    parser.add_argument("--random", type=int, default=500, help="random forests whose two spin-ups are compared")
    parser.add_argument("--seed", type=int, default=7, help="seed of the random forests")
    parser.add_argument("--output", default=str(RESULT), help="markdown file to write")
    arguments = parser.parse_args()
    site, space = load_site(), read_ranges()
    weather = generate_weather(site, "2010-01-01", "2019-12-31", 1)
    designs = [(f"{arguments.random} random forests", table(space, arguments.random, arguments.seed), weather)]
    runs = arguments.data_dir / "visit_reference" / "visit_lhp_morris_runs.csv"
    if runs.is_file():
        real = pd.read_csv(runs)
        names = [name for name in real if not name.startswith(("mean_", "sd_", "sample_id", "trajectory"))]
        real_weather = read_weather(arguments.data_dir / "lhp" / "era5_daily_filled_2010_2019.csv", site)
        designs.insert(0, (f"{len(real)} reference designs", real[names], real_weather))

    load = os.getloadavg()[0]
    begin = time.perf_counter()
    simulate({}, weather, site)
    compile_seconds = time.perf_counter() - begin
    lines = speed(table(space, 192, 1), weather, site)
    lines += [
        f"- 180 runs of 2010-2019: {files(table(space, 180, 2), weather, site)} (asked for: {ASKED['seconds']} s).",
        f"- The first call on a machine compiles; here the first call took {compile_seconds:.1f} s.",
        "", "Fast against full spin-up; differences relative (asked for: at most "
        f"{ASKED['difference']} %, {ASKED['faster']} times faster):", "",
        "| runs | full: wall / processor s | fast: wall / processor s | ratio of processor times | loops, median | "
        "largest difference of pools at the end of the spin-up | of annual mean pools | of annual fluxes |",
        "|" + "---|" * 8,
    ]  # fmt: skip
    lines += [comparison(*design, site) for design in designs]
    text = "\n".join([
        "## Process model: speed, and the fast spin-up", "",
        f"`python benchmarks/benchmark_simulator.py`; {len(os.sched_getaffinity(0))} cores {platform.machine()}, "
        f"Python {platform.python_version()}, load {load:.1f} at the start.", "", *lines, "", explanation(), "",
    ])  # fmt: skip
    print(text)
    write_text(arguments.output, text)
    return 0


def table(space, count: int, seed: int) -> pd.DataFrame:
    """(run, parameter) physical values, Latin hypercube over the default ranges."""
    return pd.DataFrame(draw(space, count, seed), columns=list(space.names))


def timed(function) -> tuple[float, float, object]:
    """Wall and processor seconds of a call, all threads, and what it returned."""
    wall, processor = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - wall, time.process_time() - processor, result


def speed(parameters: pd.DataFrame, weather: Weather, site: Site) -> list[str]:
    """Sample-days per second of the daily loop, scaling of whole simulations over threads, memory of a spin-up."""
    rows, ground = parameter_rows(parameter_values(parameters)), ground_row(site, False)
    loop = Loop(*spinup_forcing(weather.dates, weather.values, site))
    rates = []
    for count in (LANES, 1):
        batch, state = lanes(rows[:count]), warm_up(lanes(rows[:count]), ground, loop, count)
        from_start = np.zeros(count, dtype=np.int64)

        def integrate(repeats, batch=batch, state=state, exports=from_start):
            for _ in range(repeats):
                run_days(batch, ground, loop.forcing.days, state, exports, False, NO_SERIES, NO_SERIES, NO_TABLE, None)

        integrate(1)
        wall, _, _ = timed(lambda run_loop=integrate: run_loop(LOOPS))
        rates.append(count * loop.forcing.length * LOOPS / wall)
    one, _, _ = timed(lambda: simulate(parameters, weather, site, jobs=1))
    two, _, _ = timed(lambda: simulate(parameters, weather, site, jobs=2))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    simulate(parameters[:LANES], weather, site, spinup="full")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return [
        f"- One core: {rates[0] / 1e6:.1f} million sample-days per second with {LANES} samples at a time, "
        f"{rates[1] / 1e6:.2f} million with one (asked for: {ASKED['sample-days'] / 1e6:.1f}).",
        f"- Two threads against one, {len(parameters)} runs with fast spin-up: {one:.1f} s and {two:.1f} s, "
        f"{one / two:.2f} times as fast (asked for: {ASKED['scaling']}).",
        f"- A full spin-up of 2010 years keeps one state: the peak memory of the process grew by {grown:.0f} MB in it.",
    ]


def files(parameters: pd.DataFrame, weather: Weather, site: Site) -> str:
    """Seconds of the simulation and of its daily text files."""
    wall, processor, result = timed(lambda: simulate(parameters, weather, site))
    with tempfile.TemporaryDirectory() as folder:
        values, ids = {name: parameters[name].to_numpy() for name in parameters}, range(len(parameters))
        writing_wall, _, _ = timed(
            lambda: write_daily_files(Path(folder), result, weather, values, ids, site, "20240101")
        )
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
    return (
        f"{wall:.1f} s wall, {processor:.1f} s processor, spin-up included; their {size:.0f} MB of text files "
        f"{writing_wall:.1f} s on one core"
    )


def comparison(what: str, parameters: pd.DataFrame, weather: Weather, site: Site) -> str:
    """One line of the table: both spin-ups of the same samples."""
    full_wall, full_processor, full = timed(lambda: simulate(parameters, weather, site, spinup="full"))
    fast_wall, fast_processor, fast = timed(lambda: simulate(parameters, weather, site))
    pools = largest(full.spinup_state, fast.spinup_state, POOL_FLOOR)
    annual_pools = largest(full.annual_pools, fast.annual_pools, POOL_FLOOR)
    fluxes = largest(annual_fluxes(full), annual_fluxes(fast), FLUX_FLOOR)
    return (
        f"| {what} | {full_wall:.0f} / {full_processor:.0f} | {fast_wall:.1f} / {fast_processor:.1f} | "
        f"{full_processor / fast_processor:.1f} | {np.median(fast.spinup_loops):.0f} of {full.spinup_loops.max()} | "
        f"{pools:.5f} % | {annual_pools:.5f} % | {fluxes:.5f} % |"
    )


def annual_fluxes(result: SimulationResult) -> np.ndarray:
    """(flux, run, year) annual GPP, NPP, ER, NEP, Rh, Mg C ha-1 year-1."""
    return np.stack([result.annual(name) for name in ("gpp", "npp", "er", "nep", "rh")])


def largest(full: np.ndarray, fast: np.ndarray, floor: float) -> float:
    """Largest relative difference in percent; what is smaller than `floor` is compared with it."""
    return float(100 * np.max(np.abs(fast - full) / np.maximum(np.abs(full), floor)))


def explanation() -> str:
    """Why the fast spin-up may be exact."""
    return (
        "`full` integrates 733,650 days of every sample. `fast` does the same arithmetic with eight samples side by "
        "side until vegetation and water return to an earlier state, and from there on multiplies soil carbon by the "
        "matrix of one loop. Suppressed layers seldom come to rest: they cycle over up to a hundred loops, so a short "
        "cut that supposes rest would not keep 0.1 percent."
    )


if __name__ == "__main__":
    run(main)
