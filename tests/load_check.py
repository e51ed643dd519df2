"""Many of everything, with the memory that it takes: python tests/load_check.py inversions --demo demo

    inversions   N inversions of 30-day windows in one process: memory after a tenth of them and after all, the
                 estimates bit for bit those of a process of their own
    ensemble     N runs: text files read, and a training of one epoch
    files        a parameter table of 100,000 rows, a daily file of 40 years, 10,000 windows

A line each, exit code 1 where a limit is passed. The table in docs/reliability.md is what this printed; needs Linux.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the packages, wherever it is started

from emulator_examples import tiny_ensemble, write_ensemble

from calibration.common.command_line import REPOSITORY
from calibration.common.parameters import read_ranges
from calibration.common.sites import load_site
from calibration.emulator.trained import load_emulator
from calibration.engines.perturbation import draw
from calibration.ensembles.files import load_ensemble, read_daily_file, write_daily_file
from calibration.ensembles.parameter_table import read_parameter_summary
from calibration.inversion.inputs import observation_stretches, prior_parameters
from calibration.tower.windows import Windows, load_windows
from calibration.weather.daily import generate_weather
from inverse_estimator import StaticParameterInverter

FLAT = 0.05  # share by which memory may differ between a tenth of the inversions and all
ALONE = (0, 3)  # windows that are inverted by a process of their own too
# Of an inversion: what stays behind is looked for, not the best estimate.
QUICK = {"starts": 1, "samples": 200, "randomized_draws": 0, "gauss_newton": {"max_iterations": 1}}


def megabytes() -> float:
    """Memory of this process that is resident now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def child(*command: object) -> tuple[float, float, str]:
    """Seconds, peak of resident memory (MB) and output of a process; SystemExit where it fails."""
    timed = "import resource, runpy, sys; sys.argv = sys.argv[1:]; sys.path[:0] = ['.', 'tests']\n"
    timed += "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    timed += "finally: print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", timed, *map(str, command)], capture_output=True, text=True,
                          cwd=REPOSITORY)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{command[0]}: {done.stderr[-2000:]}")
    return time.monotonic() - begin, int(done.stdout.rsplit("PEAK", 1)[1]) / 1e3, done.stdout


def estimates(demo: Path, windows: list[int]):
    """The estimate (parameter,) of each of these windows of the demo's tower, one after another."""
    emulator = load_emulator(demo / "artifacts")
    prior, _ = prior_parameters(emulator, None)
    for index in windows:
        fitted, _, _ = observation_stretches(emulator, demo / "observations" / "obs_windows.npz", index, None, None)
        result = StaticParameterInverter.from_emulator(emulator, QUICK).invert_stretches(prior, fitted)
        yield result.optimized, result.posterior.physical


def inversions(arguments: argparse.Namespace) -> bool:
    """N inversions in this process, a few of them in processes of their own."""
    order = [i % arguments.windows for i in range(arguments.count)]
    tenth, memory, kept = max(1, arguments.count // 10), {}, {}
    begin = time.monotonic()
    for number, (optimized, samples) in enumerate(estimates(arguments.demo, order), 1):
        window = order[number - 1]
        bits = optimized.tobytes() + np.ascontiguousarray(samples).tobytes()
        if kept.setdefault(window, bits) != bits:
            print(f"inversion {number} of window {window} differs from the first of that window")
            return False
        if number % tenth == 0:
            memory[number] = megabytes()
            print(f"  {number} inversions, {memory[number]:.0f} MB, {time.monotonic() - begin:.0f} s", flush=True)
    apart = memory[max(memory)] / memory[min(memory)] - 1
    first, last = min(memory), max(memory)
    print(f"memory after {first}: {memory[first]:.1f} MB, after {last}: {memory[last]:.1f} MB ({apart:+.1%})")
    same = 0
    for window in ALONE:
        _, _, output = child(__file__, "one", "--demo", arguments.demo, "--window", window)
        same += output.splitlines()[0] == kept[window].hex()
    print(f"{same} of {len(ALONE)} estimates and their samples are bit for bit those of a process of their own")
    return abs(apart) <= FLAT and same == len(ALONE)


def one(arguments: argparse.Namespace) -> bool:
    """Print the estimate of one window."""
    optimized, samples = next(estimates(arguments.demo, [arguments.window]))
    print((optimized.tobytes() + np.ascontiguousarray(samples).tobytes()).hex())
    return True


def ensemble(arguments: argparse.Namespace) -> bool:
    """N runs as text files, read; N runs of ten years, trained on for one epoch."""
    fine = True
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        root, count = Path(temporary), arguments.count
        made = tiny_ensemble(runs=count, start="2015-01-01", end="2016-12-31")
        for sample, fluxes in zip(made.sample_ids, made.fluxes, strict=True):
            write_daily_file(root / f"LHP_20250101_daily_{sample:04d}.txt", made.dates, made.dynamic, fluxes)
        table = pd.DataFrame(made.parameters, columns=list(made.parameter_names))
        table.insert(0, "sample_id", made.sample_ids)
        table.to_csv(root / "parameter_summary.csv", index=False)
        held = made.fluxes.nbytes / 1e6
        text = sum(path.stat().st_size for path in root.glob("LHP_*")) / 1e6
        for what in ("text files", "binary copy"):
            seconds, peak, _ = child(__file__, "read", "--folder", root)
            print(f"{count} runs of {len(made.dates)} days, {what} ({text:.0f} MB of text, {held:.0f} MB of fluxes): "
                  f"read in {seconds:.0f} s, at most {peak:.0f} MB", flush=True)  # fmt: skip
            fine &= peak < 1000 + 5 * held
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        root = Path(temporary)
        made = tiny_ensemble(runs=count, start="2010-01-01", end="2019-12-31")
        write_ensemble(root / "data", made)
        held = made.fluxes.nbytes / 1e6
        seconds, peak, _ = child(
            "train.py", "--data-dir", root / "data", "--artifacts-dir", root / "artifacts", "--epochs", 1,
            "--steps-per-epoch", 20, "--batch-size", 32, "--device", "cpu", "--labels", "trust", "--error-runs", 12,
        )  # fmt: skip
        print(f"{count} runs of {len(made.dates)} days ({held:.0f} MB of fluxes): one epoch of 20 steps trained in "
              f"{seconds:.0f} s, at most {peak:.0f} MB")  # fmt: skip
        return fine and peak < 1000 + 6 * held


def read(arguments: argparse.Namespace) -> bool:
    """Read an ensemble."""
    return len(load_ensemble(arguments.folder, jobs=1).sample_ids) > 0


def files(arguments: argparse.Namespace) -> bool:
    """Three large files."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        root, space = Path(temporary), read_ranges()
        values = draw(space, 100_000, 1)
        table = pd.DataFrame(values, columns=list(space.names))
        table.insert(0, "sample_id", np.arange(len(table)))
        path = root / "parameter_summary.csv"
        table.to_csv(path, index=False)
        begin = time.monotonic()
        ids, _, found = read_parameter_summary(path)
        fine = len(ids) == len(table) and bool((found == values).all())
        _say("parameter table of 100,000 rows", path, begin, fine)

        weather, path = generate_weather(load_site(), "1980-01-01", "2019-12-31", seed=1), root / "LHP_1_daily_0000.txt"
        fluxes = np.random.default_rng(1).normal(0.05, 0.01, (len(weather), 4))
        fluxes[:, 2] = fluxes[:, 1] - fluxes[:, 3]
        write_daily_file(path, weather.dates, weather.values, fluxes)
        begin = time.monotonic()
        run = read_daily_file(path)
        same = len(run.dates) == len(weather) and np.allclose(run.fluxes, fluxes, atol=1e-8)
        _say(f"daily file of 40 years, {len(run.dates)} days", path, begin, same)

        emulator = load_emulator(arguments.demo / "artifacts")
        few = load_windows(arguments.demo / "observations" / "obs_windows.npz", emulator.feature_names,
                           emulator.dynamic_scaler)  # fmt: skip
        many, path = few.select(np.arange(10_000) % len(few)), root / "windows.npz"
        many.save(path)
        begin = time.monotonic()
        again: Windows = load_windows(path, emulator.feature_names, emulator.dynamic_scaler)
        whole = len(again) == 10_000 and bool((again.context_x == many.context_x).all())
        _say("10,000 windows", path, begin, whole)
        return fine and same and whole


def _say(what: str, path: Path, begin: float, same: bool) -> None:
    print(f"{what}, {path.stat().st_size / 1e6:.0f} MB: read in {time.monotonic() - begin:.1f} s, "
          f"{'all as written' if same else 'NOT as written'}, {megabytes():.0f} MB", flush=True)  # fmt: skip


def main(given: list[str] | None = None) -> int:
    """Exit code 1 where a limit was passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["inversions", "ensemble", "files", "one", "read"])
    parser.add_argument("--count", type=int, default=1000, help="inversions, or runs of the ensemble")
    parser.add_argument("--windows", type=int, default=10, help="different windows among the inversions")
    parser.add_argument("--window", type=int, default=0, help="of `one`")
    parser.add_argument("--demo", type=Path, default=REPOSITORY / "demo", help="what `make demo` left")
    parser.add_argument("--folder", type=Path, help="where large files go (default: the temporary one)")
    arguments = parser.parse_args(given)
    return 0 if globals()[arguments.what](arguments) else 1


if __name__ == "__main__":
    raise SystemExit(main())
