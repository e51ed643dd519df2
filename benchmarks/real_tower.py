"""The real tower of Lambir Hills, every case with its commands: fits, held-out years, offset, relaxed steady state.

    python benchmarks/real_tower.py --era5 era5_daily_2011_2016.csv --tower japanflux_daily_2012_2016.csv --work real

Runs the scripts as a user does, in --work (finished steps are kept, so the command can be repeated), and writes
benchmarks/results/real_tower.md with the numbers that docs/results.md discusses. Ensembles and training included it
takes about a quarter of an hour on two cores.
"""

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from calibration.common.command_line import UserError, existing_file, make_parser, read_json, run, write_csv, write_text  # noqa: E402
from calibration.common.units import TARGETS  # noqa: E402

RESULT = REPOSITORY / "benchmarks" / "results" / "real_tower.md"
PERIODS = (
    "--train-period 2011-07-05 2014-12-31 --validation-period 2015-01-01 2015-12-31 --test-period 2016-01-01 2016-12-31"
)
FLUXES = {  # observed NEP by name: flags of prepare_observation_nep.py
    "NEE_PI_F": ["--nee-column", "NEE_PI_F", "--nee-qc-column", ""],
    "NEE_vUT": ["--nee-column", "NEE_vUT", "--nee-qc-column", "NEE_vUT_QC", "--qc-threshold", "0.5"],
}
MODELS = {"steady": (180, []), "relaxed": (600, ["--ranges", "configs/range_of_paras_relaxed.csv"])}
YEAR = "--obs-range-start 2012-01-01 --obs-range-end 2012-12-31"
JUNE = "--obs-range-start 2012-06-01 --obs-range-end 2012-06-30"
THREE = "--obs-range-start 2012-01-01 --obs-range-end 2014-12-31 --holdout-start 2015-01-01 --holdout-end 2016-12-31"
OFFSET = " --nuisance offset"
PLAIN = " --config no_discrepancy.yaml"  # the default configuration, but all misfit is noise; made in --work


@dataclass(frozen=True)
class Case:
    """One inversion, or the judgement of another case's parameters over 2012."""

    key: str
    label: str
    flags: str
    model: str = "steady"
    judge: str = ""  # key of the case whose parameters are judged


CASES = [
    Case("month", "(a) from 2012-01-01, 30 days", "--obs-index 0"),
    Case("month_year", "its parameters over 2012", YEAR, judge="month"),
    Case("june", "(b) from 2012-06-01, 30 days", JUNE),
    Case("june_year", "its parameters over 2012", YEAR, judge="june"),
    Case("year", "(c) all of 2012", YEAR),
    Case("year_offset", "the same with an offset", YEAR + OFFSET),
    Case("three", "2012-2014", THREE),
    Case("three_offset", "2012-2014 with an offset", THREE + OFFSET),
    Case("relaxed_year", "2012, relaxed steady state", YEAR, "relaxed"),
    Case("relaxed_three", "2012-2014, relaxed steady state", THREE, "relaxed"),
    Case("relaxed_three_plain", "the same, error model without discrepancy", THREE + PLAIN, "relaxed"),
    Case("relaxed_three_offset", "2012-2014, relaxed, with an offset", THREE + OFFSET, "relaxed"),
]


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--era5", required=True, help="weather CSV of the site, 2011-07-05 to 2016-12-31 or longer")
    parser.add_argument("--tower", required=True, help="daily JapanFlux2024 file of the site, 2012-2016")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "real", help="folder for everything that is made")
    parser.add_argument("--fluxes", nargs="+", default=list(FLUXES), choices=list(FLUXES), help="observed NEP to use")
    parser.add_argument("--output", type=Path, default=RESULT, help="markdown file to write (a CSV goes beside it)")
    arguments = parser.parse_args()
    era5, tower, work = (
        existing_file(arguments.era5).absolute(),
        existing_file(arguments.tower).absolute(),
        arguments.work,
    )
    work = work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    default = (REPOSITORY / "configs" / "inversion_config.yaml").read_text(encoding="utf-8")
    (work / "no_discrepancy.yaml").write_text(default.replace("discrepancy: true", "discrepancy: false"), "utf-8")
    emulators = [skill_of(name, runs, flags, era5, work) for name, (runs, flags) in MODELS.items()]
    rows = []
    for flux in arguments.fluxes:
        step(work / f"{flux}.csv", "prepare_observation_nep.py", "--input", tower, "--start", "2012-01-01",
             "--end", "2016-12-31", *FLUXES[flux], "--output", work / f"{flux}.csv")  # fmt: skip
        for name in MODELS:
            windows = work / name / f"{flux}.npz"
            step(windows, "build_observation_windows.py", "--daily", era5, "--obs", work / f"{flux}.csv",
                 "--artifacts-dir", work / name / "artifacts", "--start", "2012-01-01", "--end", "2016-12-31",
                 "--output", windows)  # fmt: skip
        for case in CASES:
            if flux == "NEE_vUT" and case.key.startswith("june"):
                continue  # a month without one accepted day
            rows += judged(invert(case, flux, work), flux, case)
    table = pd.DataFrame(rows)
    print(table.to_string())
    write_csv(arguments.output.with_suffix(".csv"), table, float_format="%.5f")
    write_text(arguments.output, page(table, pd.DataFrame(emulators)))
    return 0


def step(result: Path, script: str, *arguments) -> None:
    """Run a script unless what it makes is there; UserError with its output when it fails."""
    if result.exists():
        return
    command = [script, *map(str, arguments)]
    print("python " + " ".join(command), flush=True)
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{script} ended with exit code {done.returncode}: {(done.stderr or done.stdout)[-500:]}")
    print(f"  {time.perf_counter() - begin:.0f} s", flush=True)


def skill_of(name: str, runs: int, flags: list[str], era5: Path, work: Path) -> dict:
    """Make one ensemble and its emulator under the real weather; its R2 on the test year 2016, by split."""
    data, artifacts = work / name / "data", work / name / "artifacts"
    step(data / "experiment_results.csv", "run_perturbations.py", "--n-samples", runs, "--seed", 1, "--weather", era5,
         "--output-dir", data, "--no-text", *flags)  # fmt: skip
    step(
        artifacts / "emulator_error.json",
        "train.py",
        "--data-dir",
        data,
        "--artifacts-dir",
        artifacts,
        *PERIODS.split(),
    )
    step(artifacts / "evaluation.json", "evaluate_model.py", "--data-dir", data, "--artifacts-dir", artifacts)
    return {"model": name, "runs": runs} | read_json(artifacts / "evaluation.json")


def invert(case: Case, flux: str, work: Path) -> Path:
    """The case's result folder, fitted or judged if it is not there yet."""
    result, model = work / case.model / flux / case.key, work / case.model
    flags = [work / flag if flag.endswith(".yaml") else flag for flag in case.flags.split()]
    if case.judge:
        flags = ["--param-load", work / case.model / flux / case.judge / "params_snapshot.json", *flags]
    step(result / "inversion_summary.txt", "test_inversion.py", "--mode", "observation",
         "--obs-npz", model / f"{flux}.npz", "--artifacts-dir", model / "artifacts", "--data-dir", model / "data",
         *flags, "--result-dir", result)  # fmt: skip
    return result


def judged(result: Path, flux: str, case: Case) -> list[dict]:
    """Rows of the table: the fitted days and, where there are any, the held-out ones."""
    skill = pd.read_csv(result / "skill.csv").set_index(["days", "model"])
    snapshot = read_json(result / "params_snapshot.json")["metadata"]
    summary = (result / "inversion_summary.txt").read_text(encoding="utf-8")
    verdict = summary.split(":")[0]
    inside = dict(re.findall(r"(fitted|holdout) days inside the 90 percent predictive band: (\d+) percent", summary))
    rows = []
    for days in skill.index.get_level_values("days").unique():
        here = skill.loc[days]
        prior, optimized = here.loc["prior"], here.loc["optimized"]
        rows.append({
            "flux": flux, "case": case.label if days == "fitted" else "held out: 2015-2016", "days": int(prior["n"]),
            "offset": snapshot["offsets"].get("nep") if snapshot.get("offsets") else None,
            "rmse_prior": prior["rmse"], "rmse": optimized["rmse"], "r2": optimized["r2"],
            "correlation": optimized["correlation"], "rmse_constant": here.loc["constant", "rmse"],
            "rmse_climatology": here.loc["climatology", "rmse"], "inside_90": float(inside.get(days, "nan")),
            "verdict": verdict if days == "fitted" else "", "at_bounds": len(snapshot["at_bounds"]),
            "seconds": snapshot["seconds"] if days == "fitted" else None,
        })  # fmt: skip
    return rows


def page(table: pd.DataFrame, emulators: pd.DataFrame) -> str:
    """The section benchmarks/results/real_tower.md."""
    lines = [
        "## The real tower", "",
        "`python benchmarks/real_tower.py --era5 era5_daily_2011_2016.csv --tower japanflux_daily_2012_2016.csv`. "
        "RMSE in Mg C ha-1 day-1, R2 against the observed mean of the same days; constant and smoothed climatology are "
        "fitted on the fitted days. docs/results.md discusses these numbers.", "",
        "| emulator, real weather, unseen runs in 2016 | GPP R2 | NPP R2 | NEP R2 | Rh R2 | seen NEP R2 |",
        "|" + "---|" * 6,
    ]  # fmt: skip
    for emulator in emulators.to_dict("records"):
        unseen, seen = emulator["unseen"], emulator["seen"]
        values = " | ".join(f"{unseen[flux]['r2']:.3f}" for flux in TARGETS)
        lines.append(f"| {emulator['model']}, {emulator['runs']} runs | {values} | {seen['nep']['r2']:.3f} |")
    lines += [
        "",
        "| flux | case | days | prior RMSE | fitted RMSE | R2 | correlation | constant | climatology "
        "| inside the 90 % band | verdict | s |", "|" + "---|" * 12,
    ]  # fmt: skip
    for row in table.to_dict("records"):
        label = row["case"] + (f" ({row['offset']:+.4f})" if pd.notna(row["offset"]) and row["verdict"] else "")
        inside = f"{row['inside_90']:.0f} %" if pd.notna(row["inside_90"]) else ""
        seconds = f"{row['seconds']:.0f}" if pd.notna(row["seconds"]) else ""
        lines.append(
            f"| {row['flux']} | {label} | {row['days']} | {row['rmse_prior']:.4f} | {row['rmse']:.4f} | "
            f"{row['r2']:.2f} | {row['correlation']:.2f} | {row['rmse_constant']:.4f} | "
            f"{row['rmse_climatology']:.4f} | {inside} | {row['verdict'].lower()} | {seconds} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run(main)
