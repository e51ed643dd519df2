"""The whole path on a fresh machine with no data: `make demo`.

Weather, an ensemble of the process model, the emulator, its evaluation, a synthetic tower with known parameters, and
then the scripts that a user would run on a real tower: NEP, windows, inversion, judgement, recovery, scatter.
Everything lands in demo/; the repository's data/, artifacts/ and observations/ are left alone. What the scripts print
is in demo/demo.log; here stands a line a step and one screen at the end.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the packages, wherever it is started

from calibration.common.command_line import (
    REPOSITORY,
    UserError,
    make_parser,
    output_folder,
    read_json,
    run,
    write_csv,
    writing,
)
from calibration.common.provenance import STEPS, SUFFIX

MARK = ".made-by-run_demo"
LOG = "demo.log"
TAIL = 5  # lines of the log that a failed step shows
# --small: every step is made, with a network that has learned next to nothing; for tests of the steps
SMALL_RUNS = 12
SMALL_TRAINING = (
    "--epochs=2", "--steps-per-epoch=3", "--batch-size=8", "--hidden-size=8", "--num-layers=1", "--error-runs=0",
    "--device=cpu",
)  # fmt: skip
SMALL_FIT = ("--starts=2",)
INVERSIONS = ("window", "window_judged_over_year", "year")  # of the synthetic tower, below results/
TEST_YEAR = 2019  # neither trained nor tuned on: LHP_architecture.yaml's test split


@dataclass(frozen=True)
class Step:
    """One command of the demo: what it is for, and the script with its arguments."""

    title: str
    arguments: list[str]


def demo_steps(folder: Path, runs: int, preset: str, seed: int, small: bool = False) -> list[Step]:
    """The commands of the demo, in order, with everything they write below `folder`; small: see --small."""
    training, fit = (SMALL_TRAINING, SMALL_FIT) if small else ((), ())
    data, artifacts, observations, results = (
        folder / name for name in ("data", "artifacts", "observations", "results")
    )
    weather, tower = folder / "weather.csv", observations / "tower_daily.csv"
    nep, windows = observations / "nep_obs.csv", observations / "obs_windows.npz"
    first_day, last_day = f"{TEST_YEAR}-01-01", f"{TEST_YEAR}-12-31"
    here = [f"--data-dir={data}", f"--artifacts-dir={artifacts}"]
    year = [f"--obs-range-start={first_day}", f"--obs-range-end={last_day}"]
    observed = ["--mode=observation", f"--obs-npz={windows}", *here]
    recovery = results / "recovery"
    return [
        Step("weather like that of Lambir Hills, 2010-2019", ["weather.py", f"--output={weather}", f"--seed={seed}"]),
        Step(
            f"ensemble: {runs} runs of the process model, spin-up and files included",
            ["run_perturbations.py", f"--n-samples={runs}", f"--seed={seed}", f"--weather={weather}",
             f"--output-dir={data}"],
        ),
        Step("emulator: training", ["train.py", f"--preset={preset}", *training, *here]),
        Step("emulator: skill on the test year, seen and unseen parameters, against baselines",
             ["evaluate_model.py", *here]),
        Step("a synthetic tower: parameters that no run of the ensemble has, noise and gaps",
             ["extras/make_synthetic_tower.py", f"--weather={weather}", f"--output={tower}", f"--seed={seed + 1000}",
              f"--parameters-out={observations / 'tower_truth.json'}"]),
        Step("tower NEE to NEP", ["prepare_observation_nep.py", f"--input={tower}", f"--output={nep}",
                                  f"--start={first_day}", f"--end={last_day}", "--nee-column=NEE_vUT",
                                  "--nee-qc-column=NEE_vUT_QC", "--qc-threshold=0.5"]),
        Step("weather and NEP to windows",
             ["build_observation_windows.py", f"--daily={weather}", f"--obs={nep}",
              f"--artifacts-dir={artifacts}", f"--start={first_day}", f"--end={last_day}",
              f"--output={windows}"]),
        Step("inversion of one window of 30 days",
             ["test_inversion.py", *observed, *fit, "--obs-index=0", f"--result-dir={results / 'window'}"]),
        Step("two-stage judgement: the window's parameters over the whole year",
             ["test_inversion.py", *observed, *year, f"--param-load={results / 'window' / 'params_snapshot.json'}",
              f"--result-dir={results / 'window_judged_over_year'}"]),
        Step("inversion of the whole year, and the process model itself with the estimated parameters",
             ["test_inversion.py", *observed, *fit, *year, "--posterior=tempered", "--verify",
              f"--result-dir={results / 'year'}"]),
        Step("recovery of a known run's parameters",
             ["evaluate_parameter_recovery.py", *here, *fit, "--sample-id=0", "--window-index=0", "--prior-mode=mean",
              f"--result-dir={recovery}"]),
        Step("scatter of true against estimated parameters",
             ["plot_param_scatter.py", "RECOVERY_CSV", "--range-csv=configs/range_of_paras.csv", "--include-prior"]),
    ]  # fmt: skip


def run_step(step: Step, number: int, total: int, recovery: Path, log: Path) -> float:
    """Run one command, its output added to `log`; returns seconds. A failure ends the demo with its last lines."""
    arguments = with_recovery_table(step.arguments, recovery)
    print(f"[{number:2d}/{total}] {step.title} ...", end="", flush=True)
    began = time.perf_counter()
    with log.open("a", encoding="utf-8") as file:
        file.write(f"\n[{number}/{total}] {step.title}\n  $ python {' '.join(arguments)}\n")
        file.flush()
        done = subprocess.run([sys.executable, *arguments], stdout=file, stderr=subprocess.STDOUT)
    seconds = time.perf_counter() - began
    print(f" {seconds:.0f} s")
    if done.returncode:
        print("\n".join(log.read_text(encoding="utf-8").splitlines()[-TAIL:]))
        raise UserError(f"the demo stopped at step {number} ({arguments[0]}, exit code {done.returncode}); see {log}")
    return seconds


def step_table(folder: Path, steps: list[Step], seconds: list[float]) -> pd.DataFrame:
    """step, script, seconds, seed, command of every step; the seed given, else the one recorded, else none."""
    records = [read_json(path) for path in sorted(folder.rglob(f"*{SUFFIX}"))]
    recorded = {tuple(record["arguments"]): record.get("seed") for record in records}
    rows = []
    for step, took in zip(steps, seconds, strict=True):
        given = next((word.partition("=")[2] for word in step.arguments if word.startswith("--seed=")), None)
        seed = recorded.get(tuple(step.arguments[1:])) if given is None else int(given)
        command = shlex.join(["python", *with_recovery_table(step.arguments, folder / "results" / "recovery")])
        rows.append({"step": step.title, "script": step.arguments[0], "seconds": round(took, 1), "seed": seed,
                     "command": command})  # fmt: skip
    return pd.DataFrame(rows).astype({"seed": "Int64"})


def with_recovery_table(arguments: list[str], folder: Path) -> list[str]:
    """A step's arguments; the file that a step before it named by the clock is looked up."""
    return [str(newest_recovery_table(folder)) if word == "RECOVERY_CSV" else word for word in arguments]


def newest_recovery_table(folder: Path) -> Path:
    """The params.csv that evaluate_parameter_recovery.py wrote last below `folder`."""
    tables = sorted(folder.glob("**/*params.csv"), key=lambda path: path.stat().st_mtime)
    if not tables:
        raise UserError(f"{folder}: evaluate_parameter_recovery.py left no params.csv here")
    return tables[-1]


def verdict(result: Path) -> str:
    """First words of an inversion_summary.txt, what the fit is worth, and the skill of skill.csv."""
    words = (result / "inversion_summary.txt").read_text(encoding="utf-8").partition(":")[0]
    skill = pd.read_csv(result / "skill.csv").set_index("model")
    return f"{words} (NEP RMSE {skill.loc['optimized', 'rmse']:.4f}, a constant {skill.loc['constant', 'rmse']:.4f})"


def verified(result: Path) -> str:
    """What the process model itself makes of the estimated parameters (--verify), from inversion_summary.txt."""
    lines = (result / "inversion_summary.txt").read_text(encoding="utf-8").splitlines()
    return next((x.partition(": ")[2] for x in lines if x.startswith("simulator against the data")), "the run failed")


def say_what_it_is(folder: Path) -> None:
    """about.txt, the lines below the title of the report: that the tower is made up, and what is asked of it."""
    lines = [
        f"The tower is made up: daily NEP of the process model at Lambir Hills in {TEST_YEAR}, with noise and gaps. "
        "Its true parameters are known to this page, not to the inversions.",
        "The question: what does NEP tell about the parameters? The answer from the whole year comes first; then every "
        "step that leads to it, and the same from one month.",
    ]
    with writing(folder / "about.txt") as path:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def tell_the_truth(folder: Path) -> None:
    """Lay the tower's true parameters beside every inversion of it, which was made without them; the report shows them.

    The true values are known because the tower is made up.
    """
    from calibration.judgement.tables import save_truth  # slow to import: loaded only where it is needed

    truth = read_json(folder / "observations" / "tower_truth.json")
    source = f"a made-up tower; drawn from the middle {100 * truth['share_of_ranges']:.0f} percent of the ranges"
    for name in INVERSIONS:
        save_truth(folder / "results" / name, truth["parameters"], source)


def inside_intervals(result: Path, truth: dict[str, float]) -> tuple[int, int]:
    """How many of the tower's true parameters lie inside the 90 percent intervals, and of how many."""
    table = pd.read_csv(result / "posterior_summary.csv").set_index("param_name")
    names = [name for name in truth if name in table.index]
    inside = [table.loc[name, "low_90"] <= truth[name] <= table.loc[name, "high_90"] for name in names]
    return int(np.sum(inside)), len(names)


def summary(folder: Path, steps: list[Step], seconds: list[float], total: float) -> str:
    """One screen: what was made, the main numbers, where the figures are, and what to run with one's own data."""
    results, artifacts = folder / "results", folder / "artifacts"
    runs = pd.read_csv(folder / "data" / "experiment_results.csv")
    skill = read_json(artifacts / "evaluation.json")
    recovery = read_json(sorted((results / "recovery").glob("*summary.json"))[-1])
    truth = read_json(folder / "observations" / "tower_truth.json")
    inside, count = inside_intervals(results / "year", truth["parameters"])
    took = {step.arguments[0]: value for step, value in zip(steps, seconds, strict=True)}
    row = "  {:8s}" + "{:>8.3f}" * 4 + "{:>12.3f}"
    lines = [
        f"The demo took {total / 60:.1f} minutes. Everything is in {folder}/, what the scripts said in {folder / LOG}.",
        "",
        f"ensemble   {(runs['status'] == 'ok').sum()} of {len(runs)} runs, mean GPP "
        f"{runs['mean_gpp'].mean():.1f} Mg C ha-1 year-1 ({took['run_perturbations.py']:.0f} s)",
        f"emulator   trained in {took['train.py']:.0f} s. R2 on {TEST_YEAR}, a year it has not seen:",
        "              GPP     NPP     NEP      Rh   NEP RMSE x 1000 (Mg C ha-1 day-1)",
    ]
    for split in ("seen", "unseen"):
        values = [skill[split][flux]["r2"] for flux in ("gpp", "npp", "nep", "rh")]
        lines.append(row.format(split, *values, 1000 * skill[split]["nep"]["rmse"]))
    by_baseline = {name: value["r2"] for name, value in skill["unseen"]["nep"]["baselines"].items()}
    best = max(by_baseline, key=by_baseline.get)
    lines += [
        f"           R2 of NEP by the best of {len(by_baseline)} baselines, unseen: {best} {by_baseline[best]:.2f}",
        f"tower      30 days: {verdict(results / 'window')}",
        f"           their parameters over {TEST_YEAR}: {verdict(results / 'window_judged_over_year')}",
        f"           all of {TEST_YEAR}: {verdict(results / 'year')}",
        f"           the process model itself with these parameters: {verified(results / 'year')}",
        f"           {inside} of {count} true parameters lie inside their 90 percent intervals "
        f"(an easy test: drawn from the middle {100 * truth['share_of_ranges']:.0f})",
        f"recovery   30 days of run 0: error / range {recovery['range_error_estimated']:.3f}, prior "
        f"{recovery['range_error_prior']:.3f}; {100 * recovery['coverage_90']:.0f} percent inside their intervals",
        "",
        "Next, with your own VISIT runs and tower (README, 'Your own data'):",
        "  python train.py --data-dir YOUR_RUNS --artifacts-dir YOUR_EMULATOR --report",
        "  python evaluate_model.py --artifacts-dir YOUR_EMULATOR --report",
        "  python prepare_observation_nep.py --input TOWER.csv --start 2012-01-01 --end 2014-12-31",
        "  python build_observation_windows.py --daily WEATHER.csv --artifacts-dir YOUR_EMULATOR",
        "  python test_inversion.py --artifacts-dir YOUR_EMULATOR --obs-range-start 2012-01-01 \\",
        "      --obs-range-end 2013-12-31 --holdout-start 2014-01-01 --holdout-end 2014-12-31 --verify --report",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "demo", help="all is written below it (replaced)")
    parser.add_argument("--runs", type=int, help="runs of the process model in the ensemble (default: 180)")
    parser.add_argument("--small", action="store_true", help="a minute, to see whether every step works: poor numbers")
    parser.add_argument("--preset", default="recommended", help="network preset of LHP_architecture.yaml")
    parser.add_argument("--seed", type=int, default=1, help="of weather, ensemble and synthetic tower")
    arguments = parser.parse_args()
    output_folder(arguments.folder, "--folder")
    folder = arguments.folder.absolute()  # as the caller means it; the steps below run in the repository
    os.chdir(REPOSITORY)
    folder = folder.relative_to(REPOSITORY) if folder.is_relative_to(REPOSITORY) else folder
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise UserError(f"{folder}: holds files that the demo did not make; choose another --folder or empty it")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).write_text("made by run_demo.py; replaced by its next run\n")

    runs = arguments.runs or (SMALL_RUNS if arguments.small else 180)
    steps = demo_steps(folder, runs, arguments.preset, arguments.seed, arguments.small)
    began = time.perf_counter()
    print(f"{len(steps)} steps, about five minutes on two quiet cores; what they say goes to {folder / LOG}")
    recovery, log = folder / "results" / "recovery", folder / LOG
    seconds = [run_step(step, number, len(steps), recovery, log) for number, step in enumerate(steps, 1)]
    tell_the_truth(folder)
    say_what_it_is(folder)
    write_csv(folder / STEPS, step_table(folder, steps, seconds))
    report = summary(folder, steps, seconds, time.perf_counter() - began)
    with writing(folder / "summary.txt") as path:
        path.write_text(report + "\n", encoding="utf-8")
    made = subprocess.run([sys.executable, "make_report.py", str(folder), "--title", "The demo"], capture_output=True,
                          text=True)  # fmt: skip
    if made.returncode:
        raise UserError(f"make_report.py failed on {folder}: {made.stderr.strip()}")
    print("\n" + report)
    print(f"Open {folder / 'report.html'} in a browser: everything above, with figures, on one page.")
    return 0


if __name__ == "__main__":
    run(main)
