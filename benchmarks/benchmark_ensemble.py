"""Ensembles: how long they take to make, to read and to check, and what they cover.

    python benchmarks/benchmark_ensemble.py --weather WEATHER.csv [--runs 180 2000] [--skip-check]

Runs the scripts as a user does, in a temporary folder (about 2 MB a run), and writes benchmarks/results/ensemble.md.
"""

import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from calibration.common.command_line import REPOSITORY, make_parser, read_json, run, write_text  # noqa: E402
from calibration.common.parameters import read_ranges  # noqa: E402
from calibration.common.sites import load_site  # noqa: E402
from calibration.common.units import DEAD  # noqa: E402
from calibration.engines.perturbation import draw  # noqa: E402
from calibration.ensembles.files import load_ensemble, write_daily_file  # noqa: E402
from calibration.visit.simulator import simulate  # noqa: E402
from calibration.weather.daily import generate_weather, read_weather  # noqa: E402

RESULT = REPOSITORY / "benchmarks" / "results" / "ensemble.md"
RELAXED = REPOSITORY / "configs" / "range_of_paras_relaxed.csv"
REAL_VISIT = 4.7  # s a run
WRONG_LABELS = {  # label -> slot really changed, visit_carbon_core.md 9.2
    "tree_alloc_ass": "tree_albedo", "tree_alloc_abg": "tree_alloc_ass", "tree_lf0": "tree_lc0",
    "tree_lc0": "tree_lr0", "tree_lr0": "tree_dcd", "c3_lf0": "c3_lc0", "c3_lc0": "c3_lr0", "c3_lr0": "c3_dcd",
}  # fmt: skip


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--weather", help="weather file (default: generated, 2010-2019)")
    parser.add_argument("--runs", type=int, nargs="+", default=[180, 2000], help="sizes of the ensembles")
    parser.add_argument("--skip-check", action="store_true", help="leave out check_ensemble.py (minutes)")
    parser.add_argument("--scratch", help="folder for the ensembles (default: the system's temporary one)")
    parser.add_argument("--output", default=str(RESULT), help="markdown file to write")
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="ensemble_", dir=arguments.scratch))
    weather = ["--weather", str(Path(arguments.weather).absolute())] if arguments.weather else []
    lines = [
        "## Ensembles", "",
        f"`python benchmarks/benchmark_ensemble.py{' --weather <real weather>' if weather else ''}`; "
        f"{len(os.sched_getaffinity(0))} cores {platform.machine()}, Python {platform.python_version()}, load "
        f"{os.getloadavg()[0]:.1f} at the start (other programs lengthen wall time, not processor time).", "",
        "| what | wall s | processor s | |", "|---|---|---|---|",
    ]  # fmt: skip
    try:
        for runs in arguments.runs:
            lines += time_ensemble(scratch, runs, weather)
        lines += time_relaxed(scratch, weather)
        if not arguments.skip_check:
            lines += time_check(scratch, weather)
    finally:
        shutil.rmtree(scratch)
    print("\n".join(lines))
    write_text(arguments.output, "\n".join(lines) + "\n")
    return 0


def timed(command: list[str]) -> tuple[float, float, str]:
    """Wall and processor seconds (children included) and the output of a script."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begin, processor, done.stdout


def row(what: str, wall: float, processor: float | None, note: str) -> str:
    """One line of the table."""
    return f"| {what} | {wall:.2f} | {'' if processor is None else f'{processor:.1f}'} | {note} |"


def time_ensemble(scratch: Path, runs: int, weather: list[str]) -> list[str]:
    """Making an ensemble with all its files, and reading it back in three ways."""
    folder = scratch / f"runs{runs}"
    command = ["run_perturbations.py", "--n-samples", str(runs), "--output-dir", str(folder), *weather]
    wall, processor, _ = timed(command)
    results = pd.read_csv(folder / "experiment_results.csv")
    dead = int((results.mean_gpp < DEAD).sum())
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    copy = (folder / "ensemble.npz").stat().st_size / 1e6
    low, high = results.mean_gpp.quantile([0.05, 0.95])
    rows = [
        row(f"{runs} runs, spin-up and files included", wall, processor,
            f"{1000 * wall / runs:.0f} ms a run (real VISIT {REAL_VISIT} s), {size:.0f} MB, {dead} dead forests, GPP "
            f"{low:.0f}-{high:.0f} (5-95 percent) Mg C ha-1 year-1"),
        row("... the same command again: all kept", *timed(command)[:2], "every text file checked"),
    ]  # fmt: skip
    begin = time.perf_counter()
    from_copy = load_ensemble(folder)
    rows.append(row("... loading, binary copy", time.perf_counter() - begin, None, f"{copy:.0f} MB"))
    begin = time.perf_counter()
    from_text = load_ensemble(folder, cache=False)
    rows.append(row("... loading, text files", time.perf_counter() - begin, None, "first time"))
    assert (from_copy.fluxes == from_text.fluxes).all()
    for path in folder.glob("*.txt"):
        os.utime(path)
    begin = time.perf_counter()
    load_ensemble(folder)
    rows.append(row("... loading, copy, by content", time.perf_counter() - begin, None, "all file times changed"))
    shutil.rmtree(folder)
    return rows


def time_relaxed(scratch: Path, weather: list[str]) -> list[str]:
    """What the factors on stem and humus at the end of the spin-up open up."""
    folder = scratch / "relaxed"
    wall, processor, _ = timed(
        ["run_perturbations.py", "--n-samples", "180", "--ranges", str(RELAXED), "--output-dir", str(folder),
         "--no-text", *weather]
    )  # fmt: skip
    nep = pd.read_csv(folder / "experiment_results.csv").mean_nep
    low, high = nep.quantile([0.02, 0.98])
    note = f"annual NEP {nep.min():.1f} to {nep.max():.1f}, 96 percent of the runs {low:.1f} to {high:.1f}"
    return [row("180 runs of 38 parameters, no text", wall, processor, f"{note} Mg C ha-1 year-1")]


def time_check(scratch: Path, weather: list[str]) -> list[str]:
    """check_ensemble.py on an ensemble with the eight wrong labels, all 36 columns, and on the same with right ones."""
    site, space = load_site(), read_ranges()
    days = read_weather(weather[1], site) if weather else generate_weather(site, "2010-01-01", "2019-12-31", 1)
    values = draw(space, 40, 1)
    values = values[values[:, space.names.index("tree_alloc_ass")] < 0.55][:12]  # legal as an albedo too
    rows = []
    for what, slots in (("right labels", {}), ("eight wrong labels", WRONG_LABELS)):
        folder = scratch / what.replace(" ", "_")
        folder.mkdir()
        parameters = {slots.get(name, name): values[:, i] for i, name in enumerate(space.names)}
        fluxes = np.asarray(simulate(parameters, days, site).targets)
        for sample, run_fluxes in enumerate(fluxes):
            write_daily_file(folder / f"LHP_20240101_daily_{sample:04d}.txt", days.dates, days.values, run_fluxes)
        table = pd.DataFrame(values, columns=list(space.names))
        table.insert(0, "sample_id", range(len(table)))
        table.to_csv(folder / "parameter_summary.csv", index=False)
        report = folder / "report.json"
        wall, processor, _ = timed(["check_ensemble.py", "--data-dir", str(folder), "--report", str(report)])
        found = read_json(report)
        named = {record["column"]: record["slot"] for record in found["suspect_columns"]}
        right = sum(slots.get(label) == slot for label, slot in named.items())
        note = f"verdict '{found['verdict']}'"
        if slots:
            note += f", {right} of {len(slots)} named with their slot, {len(named) - right} named wrongly"
        rows.append(row(f"check_ensemble.py, 36 columns, {what}", wall, processor, note))
    return rows


if __name__ == "__main__":
    run(main)
