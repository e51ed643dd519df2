"""Recovery studies side by side: are the inversion's intervals right, and what do they tell, by span, noise and runs?

Runs evaluate_parameter_recovery.py --cases for every row of the plan (or continues it: finished cases are kept), and
writes benchmarks/results/recovery.md with two figures. A row that was not run is left out; each row says its cases.

Example
  python benchmarks/recovery_table.py --artifacts-dir artifacts --data-dir data \\
      --small-artifacts artifacts_180 --small-data data_180
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conclusions import read_conclusions  # noqa: E402

from calibration.common.command_line import REPOSITORY, UserError, make_parser, read_json, run, write_text, writing  # noqa: E402

RESULTS = REPOSITORY / "benchmarks" / "results"
SPAN_NAMES = {30: "30 days", 365: "1 year", 1826: "5 years"}
SKILLS = ("tree_pmax", "tree_lue")  # parameters whose skill the issue asks for
COLORS = {"large": "tab:blue", "small": "tab:orange"}


@dataclass(frozen=True)
class Row:
    """One study: emulator (large or small), observed days, noise sd (Mg C ha-1 day-1), fluxes, simulator runs."""

    emulator: str
    span: int
    noise: float
    targets: str = "nep"
    refine: int = 0

    @property
    def name(self) -> str:
        """Folder of the study."""
        fluxes = "" if self.targets == "nep" else "_" + self.targets.replace(" ", "-")
        return f"{self.emulator}_{self.span}_{self.noise:g}{fluxes}{f'_refine{self.refine}' if self.refine else ''}"


ALL_FLUXES = "nep gpp er"
SPANS = (30, 365, 1826)
PLAN = (
    *(Row(emulator, span, noise) for emulator in ("large", "small") for noise in (0.005, 0.015) for span in SPANS),
    *(Row("large", span, 0.005, refine=50) for span in SPANS),
    *(Row("large", span, 0.005, ALL_FLUXES) for span in SPANS),
)


def main() -> int:
    arguments = parse_arguments()
    folders = {
        "large": (arguments.artifacts_dir, arguments.data_dir),
        "small": (arguments.small_artifacts, arguments.small_data),
    }
    wanted = [row for row in PLAN if folders[row.emulator][0] and (not arguments.rows or row.name in arguments.rows)]
    if not arguments.table_only:
        for row in wanted:
            study(row, folders[row.emulator], arguments)
    studies = {
        row: read_json(arguments.result_dir / row.name / "recovery_study.json")
        for row in PLAN
        if (arguments.result_dir / row.name / "recovery_study.json").is_file()
    }
    if not studies:
        raise UserError(f"{arguments.result_dir}: holds no finished study; run without --table-only first")
    for name, figure in {
        "recovery_coverage": coverage_figure(studies),
        "recovery_skill": skill_figure(studies),
    }.items():
        with writing(RESULTS / f"{name}.png") as temporary:
            figure.savefig(temporary, dpi=110)
    write_text(RESULTS / "recovery.md", table(studies, folders, arguments))
    print(f"wrote {RESULTS / 'recovery.md'} ({len(studies)} studies)")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--artifacts-dir", default=str(REPOSITORY / "artifacts"), help="the emulator from many runs")
    add("--data-dir", default=str(REPOSITORY / "data"), help="its ensemble")
    add("--small-artifacts", help="the emulator from few runs (default: none)")
    add("--small-data", help="its ensemble")
    add("--cases", type=int, default=100, help="cases of a row")
    add("--starts", type=int, default=3, help="starting points of an inversion")
    add("--rows", nargs="+", metavar="NAME", help=f"only these studies: {' '.join(row.name for row in PLAN)}")
    add("--jobs", type=int, help="processes (default: all cores)")
    add("--result-dir", type=Path, default=REPOSITORY / "results" / "recovery", help="folder of the studies")
    add("--table-only", action="store_true", help="run nothing, write the table of what is there")
    arguments = parser.parse_args()
    known = [row.name for row in PLAN]
    for name in arguments.rows or ():
        if name not in known:
            raise UserError(f"--rows {name}: no such study; known are {', '.join(known)}")
    return arguments


def study(row: Row, folders: tuple[str, str], arguments: argparse.Namespace) -> None:
    """Run or continue one study in a process of its own."""
    command = [
        sys.executable, str(REPOSITORY / "evaluate_parameter_recovery.py"), "--artifacts-dir", folders[0],
        "--data-dir", folders[1], "--cases", arguments.cases, "--span", row.span, "--noise", row.noise, "--targets",
        *row.targets.split(), "--starts", arguments.starts, "--result-dir", arguments.result_dir / row.name,
        *(("--refine", row.refine) if row.refine else ()), *(("--jobs", arguments.jobs) if arguments.jobs else ()),
    ]  # fmt: skip
    begin = time.perf_counter()
    print(f"{row.name}: {arguments.cases} cases", flush=True)
    if subprocess.run([str(part) for part in command], check=False).returncode:
        raise UserError(f"the study {row.name} failed; see its message above")
    print(f"{row.name}: {time.perf_counter() - begin:.0f} s", flush=True)


def worst_against_prior(item: dict) -> tuple[str, float]:
    """The parameter whose range error exceeds the prior's most, and by how much."""
    excess = {n: p["range_error_estimated"] - p["range_error_prior"] for n, p in item["parameters"].items()}
    name = max(excess, key=excess.get)
    return name, excess[name]


def table(studies: dict[Row, dict], folders: dict, arguments: argparse.Namespace) -> str:
    """The markdown page."""
    lines = [
        "## Recovery of known parameters",
        "",
        "Truths are the process model's output for parameter vectors never trained on, with white noise. Coverage: "
        "share of true values (36 parameters) inside their 90 percent interval; in brackets its standard error over "
        "cases. Error / range: mean |estimate - truth| / width of the range, prior -> estimate. Annual NEP: coverage "
        "of its 90 percent band and the band's mean width (Mg C ha-1 year-1). Ranks: parameters whose rank histogram "
        "is rejected at 1 percent after correction for 36 tests. Informed: median posterior sd below 0.7 prior sd.",
        "",
        "| emulator | days | noise | fluxes | cases | coverage 90 | error / range | annual NEP | ranks rejected | "
        "tree_pmax skill (coverage) | tree_lue skill (coverage) | informed | worse than the prior (worst excess) | "
        "starts | s a case |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row, item in studies.items():
        emulator = f"{row.emulator}{f', --refine {row.refine}' if row.refine else ''}"
        chosen = [item["parameters"].get(name) for name in SKILLS]
        skill = [f"{p['skill']:.2f} ({p['coverage_90']:.2f})" if p else "-" for p in chosen]
        name, excess = worst_against_prior(item)
        worse = ", ".join(item["worse_than_prior"]) or "none"
        lines.append(
            f"| {emulator} | {row.span} | {row.noise:g} | {row.targets.replace(' ', '+')} | {item['cases']} | "
            f"{item['coverage_90']:.3f} ({coverage_error(row, arguments):.3f}) | {item['range_error_prior']:.3f} -> "
            f"{item['range_error_estimated']:.3f} | {item['annual_nep_coverage_90']:.2f} "
            f"({item['annual_nep_width_90']:.2f}) | {len(item['rank_rejected'])} | {skill[0]} | {skill[1]} | "
            f"{item['informed_parameters']} | {worse} ({name} {excess:+.3f}) | "
            f"{item['settings']['starts']} | {item['seconds_per_case']:.1f} |"
        )
    lines += ["", "Informed parameters by study: "]
    for row, item in studies.items():
        rejected = f"; ranks rejected: {', '.join(item['rank_rejected'])}" if item["rank_rejected"] else ""
        lines.append(f"- {label(row)}: {', '.join(item['informed_names']) or 'none'}{rejected}")
    lines += [
        "", "![coverage](recovery_coverage.png)", "", "![skill](recovery_skill.png)", "",
        f"`python benchmarks/recovery_table.py --cases {arguments.cases} --starts {arguments.starts}`; "
        f"{emulator_words(folders)}; {platform.machine()}, {os.cpu_count()} cores, one process a study. Rows hold the "
        "cases they list (a study can be continued); below some 50 the rank test has little power. Seconds are of the "
        "last inversion of a case, without the simulator runs of --refine.", "",
    ]  # fmt: skip
    for text in read_conclusions(RESULTS / "recovery.md").values():
        lines += [text, ""]
    return "\n".join(lines)


def emulator_words(folders: dict) -> str:
    """How many runs each emulator was trained from."""
    words = []
    for size, (artifacts, _) in folders.items():
        if artifacts and (Path(artifacts) / "config.json").is_file():
            words.append(f"{size} = {read_json(Path(artifacts) / 'config.json')['data']['runs']} runs")
    return ", ".join(words) or "not given"


def coverage_error(row: Row, arguments: argparse.Namespace) -> float:
    """Standard error of the mean coverage, from its spread over cases."""
    files = sorted((arguments.result_dir / row.name / "cases").glob("case_*.json"))
    shares = [np.mean(read_json(path)["inside_90"]) for path in files]
    return float(np.std(shares, ddof=1) / np.sqrt(len(shares))) if len(shares) > 1 else float("nan")


def label(row: Row) -> str:
    """A study in a few words."""
    fluxes = "" if row.targets == "nep" else ", NEP + GPP + ER"
    refined = f", refined by {row.refine} runs a round" if row.refine else ""
    return f"{row.emulator} emulator, {SPAN_NAMES.get(row.span, row.span)}, noise {row.noise:g}{fluxes}{refined}"


def coverage_figure(studies: dict[Row, dict]) -> Figure:
    """Coverage of parameters (spread over the 36) and of annual NEP by study, with the wanted range."""
    figure = Figure(figsize=(9, 1.2 + 0.42 * len(studies)), layout="constrained")
    ax = figure.subplots()
    y = np.arange(len(studies))[::-1]
    ax.axvspan(0.85, 0.95, color="0.92", label="wanted, 0.85 to 0.95")
    ax.axvline(0.9, color="k", lw=0.8)
    for k, (row, item) in zip(y, studies.items(), strict=True):
        values = [p["coverage_90"] for p in item["parameters"].values()]
        first = k == y[0]
        ax.plot(values, np.full(len(values), k), "|", color="0.6", ms=8, label="single parameters" if first else None)
        ax.plot(item["coverage_90"], k, "o", color=COLORS[row.emulator], ms=7,
                label="mean of the parameters" if first else None)  # fmt: skip
        ax.plot(
            item["annual_nep_coverage_90"], k, "D", mfc="none", color="k", ms=6, label="annual NEP" if first else None
        )
    ax.set_yticks(y, [f"{label(row)} ({item['cases']})" for row, item in studies.items()], fontsize=8)
    ax.set_ylim(-0.7, len(studies) - 0.3)
    ax.set_xlabel("share of truths inside the 90 % interval (cases in brackets)")
    ax.legend(fontsize=8, frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.3, 1.0))
    return figure


def skill_figure(studies: dict[Row, dict]) -> Figure:
    """Posterior over prior sd of the best informed parameters by study."""
    plain = {row: item for row, item in studies.items() if not row.refine} or studies
    first = next(iter(plain.values()))["parameters"]
    best = {n: min(item["parameters"][n]["sd_ratio"] for item in plain.values()) for n in first}
    names = sorted(best, key=best.get)[:12]
    figure = Figure(figsize=(9, 5), layout="constrained")
    ax = figure.subplots()
    x = np.arange(len(names))
    markers = {30: "o", 365: "s", 1826: "^"}
    for row, item in plain.items():
        values = [item["parameters"][n]["sd_ratio"] for n in names]
        full = row.targets != "nep"
        ax.plot(x + 0.18 * (row.noise > 0.01), values, markers.get(row.span, "x"), ms=6, ls="none",
                color="tab:green" if full else COLORS[row.emulator], mfc="none" if row.noise > 0.01 else None,
                label=label(row))  # fmt: skip
    ax.axhline(0.7, color="k", lw=0.8, ls="--")
    ax.set_xticks(x, names, rotation=40, ha="right", fontsize=8)
    ax.set_ylim(0, 1.05)
    ax.set_ylabel("median posterior sd / prior sd (below 0.7: informed)")
    ax.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


if __name__ == "__main__":
    run(main)
