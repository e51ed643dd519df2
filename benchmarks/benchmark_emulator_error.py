"""Does the emulator's error model hold on runs that neither training nor the error model has seen? And does the error
grow with the lead time?

    python benchmarks/benchmark_emulator_error.py --artifacts-dirs A180 A2000 --judge-dir OTHER

The judge is an ensemble of other parameter vectors under the same weather. Its errors are counted inside the bands of
emulator_error.json, once as train.py leaves them, once from the runs alone that training kept back. Writes a page, the
numbers behind its figure (.csv) and the figure (.png).
"""

import platform
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd
from conclusions import read_conclusions
from matplotlib.figure import Figure

from calibration.common.command_line import REPOSITORY, make_parser, run, write_csv, write_text
from calibration.common.figure_style import save_figure
from calibration.common.units import FLUX_LABELS, TARGETS
from calibration.emulator.trained import Emulator, load_emulator
from calibration.ensembles.files import Ensemble, load_ensemble

RESULT = REPOSITORY / "benchmarks" / "results" / "emulator_error"
CONTEXT = 180
AT_REST = 1.0  # Mg C ha-1 year-1: |mean NEP| above it means a forest not at rest when the spin-up ended
LEADS = (1, 2, 3, 5, 7, 10, 14, 20, 30, 45, 60, 90, 120, 180, 270, 365, 545, 730, 1095, 1460, 1825)  # days
TABLE_LEADS = (1, 7, 30, 90, 365, 1825)
LAGS = (1, 7, 30, 90, 365)


def judge_errors(emulator: Emulator, judge: Ensemble) -> np.ndarray:
    """Errors (run, day, 4) on the judge's runs, free running over all days after the context, Mg C ha-1 day-1."""
    predicted = emulator.predict(judge.parameters, judge.dynamic, CONTEXT, check_ranges=False)
    return predicted - judge.fluxes[:, CONTEXT:]


def lead_errors(emulator: Emulator, judge: Ensemble, starts: int = 12) -> pd.DataFrame:
    """RMSE by lead time (lead, flux) of free runs that start cold, 180 days of weather before, on `starts` days spread
    over the years; a long lead is averaged over the days around it (5 percent to each side)."""
    last = len(judge.dates) - LEADS[-1] * 21 // 20 - 1
    first_days = np.linspace(CONTEXT, last, starts).astype(int)
    squares = np.zeros((len(LEADS), len(TARGETS)))
    for start in first_days:
        stop = start + LEADS[-1] * 21 // 20
        predicted = emulator.predict(
            judge.parameters, judge.dynamic[start - CONTEXT : stop], CONTEXT, check_ranges=False
        )
        error = np.square(predicted - judge.fluxes[:, start:stop], dtype=np.float64)
        for k, lead in enumerate(LEADS):
            squares[k] += error[:, lead - 1 - lead // 20 : lead + lead // 20].mean(axis=(0, 1))
    table = pd.DataFrame(np.sqrt(squares / starts), columns=list(TARGETS))
    return table.assign(lead=LEADS)


def coverages(emulator: Emulator, error: np.ndarray) -> list[dict]:
    """Share of the judge's errors inside 90 percent bands: from all runs of the error model, from those kept back."""
    errors, rows = emulator.errors, []
    kept = errors.summary["kept_back"]
    sources = [("as train.py leaves it", errors.error)]
    if kept < len(errors.error):
        sources.append(("from the runs kept back alone", errors.error[:kept]))
    for label, known in sources:
        band = np.quantile(np.abs(known), 0.9, axis=(0, 1))
        inside = (np.abs(error) <= band).mean(axis=(0, 1))
        rows.append({"source": label, "runs": len(known), **dict(zip(TARGETS, inside, strict=True))})
    return rows


def figure(leads: pd.DataFrame) -> Figure:
    """RMSE against lead time, one panel a flux, one line an emulator."""
    figure = Figure(figsize=(9.5, 3.0), layout="constrained")
    for axes, name in zip(figure.subplots(1, 4), TARGETS, strict=True):
        for runs, part in leads.groupby("runs"):
            axes.plot(part["lead"], 1000 * part[name], marker=".", ms=4, label=f"{runs} runs")
        axes.set(xscale="log", xlabel="lead time, days", title=FLUX_LABELS[name])
        axes.set_ylim(bottom=0)
    figure.axes[0].set_ylabel("RMSE, 1e-3 Mg C ha$^{-1}$ day$^{-1}$")
    figure.axes[0].legend(fontsize=8)
    return figure


def page(emulators: list[Emulator], judge: Ensemble, tables: dict, leads: pd.DataFrame) -> list[str]:
    """The markdown page."""
    labels = " | ".join(FLUX_LABELS[name] for name in TARGETS)
    lines = [
        "## Emulator's error model", "",
        f"`python benchmarks/benchmark_emulator_error.py`: judged on {len(judge.sample_ids)} further parameter vectors "
        "(a Latin hypercube of another seed, used by neither training nor error model), same weather, all days after "
        f"180 days of context; {platform.machine()}. Share of their errors inside the 90 percent bands (asked for: 87 "
        "to 93 percent):", "",
        f"| runs trained from | bands | runs behind them | {labels} |", "|" + "---|" * 7,
    ]  # fmt: skip
    for emulator in emulators:
        for row in tables[emulator.directory]:
            cells = " | ".join(f"{100 * row[name]:.1f} %" for name in TARGETS)
            lines.append(f"| {count(emulator)} | {row['source']} | {row['runs']} | {cells} |")
    lines += ["", "{coverage}", "", "What emulator_error.json holds (1e-3 Mg C ha-1 day-1):", "",
              "| runs | flux | sd | run mean | seasonal | daily | sd on the judge's runs (at rest) | autocorrelation, "
              f"lag {', '.join(map(str, LAGS))} | kurtosis | rms by distance: slope, correlation |",
              "|" + "---|" * 10]  # fmt: skip
    for emulator in emulators:
        for name in TARGETS:
            f = emulator.errors.summary["fluxes"][name]
            lags = ", ".join(f"{f['autocorrelation'][lag]:.2f}" for lag in LAGS)
            parts = " | ".join(f"{1000 * f[key]:.2f}" for key in ("sd", "run_mean_sd", "seasonal_sd", "daily_sd"))
            there = " ".join(f"{1000 * sd[TARGETS.index(name)]:.2f}" for sd in tables[emulator.directory, "sd"])
            there = there.replace(" ", " (") + ")"
            slope, correlation = f["distance"]["slope"], f["distance"]["correlation"]
            lines.append(
                f"| {count(emulator)} | {FLUX_LABELS[name]} | {parts} | {there} | {lags} | {f['kurtosis']:.0f} "
                f"| {slope:.1f}, {correlation:.2f} |"
            )
    lines += ["", "{parts}", "", "### Horizon", "",
              "RMSE by lead time of cold-start free runs on the judge's runs at rest, 12 first days spread over the "
              "years, 1e-3 Mg C ha-1 day-1:", "",
              f"| runs | flux | {' | '.join(f'day {lead}' for lead in TABLE_LEADS)} |",
              "|" + "---|" * (2 + len(TABLE_LEADS))]  # fmt: skip
    for runs, part in leads.groupby("runs"):
        for name in TARGETS:
            values = part.set_index("lead")[name]
            cells = " | ".join(f"{1000 * values[lead]:.2f}" for lead in TABLE_LEADS)
            lines.append(f"| {runs} | {FLUX_LABELS[name]} | {cells} |")
    return [*lines, "", "{horizon}", "", "![RMSE against lead time](emulator_error.png)"]


def count(emulator: Emulator) -> int:
    """Runs of the ensemble that an emulator was trained on."""
    return emulator.config["data"]["runs"]


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--artifacts-dirs", nargs="+", required=True, help="folders of trained emulators")
    parser.add_argument("--judge-dir", required=True, help="ensemble of other parameter vectors under the same weather")
    parser.add_argument("--output", default=str(RESULT), help="path of the results without suffix")
    arguments = parser.parse_args()
    judge, output = load_ensemble(arguments.judge_dir), Path(arguments.output)
    rest = np.abs(judge.fluxes[:, :, TARGETS.index("nep")].mean(axis=1)) * 365 < AT_REST
    settled = replace(judge, fluxes=judge.fluxes[rest], parameters=judge.parameters[rest])
    emulators = [load_emulator(directory) for directory in arguments.artifacts_dirs]
    tables, leads = {}, []
    for emulator in emulators:
        error = judge_errors(emulator, judge)
        tables[emulator.directory] = coverages(emulator, error)
        tables[emulator.directory, "sd"] = [
            np.sqrt(np.square(part, dtype=np.float64).mean(axis=(0, 1))) for part in (error, error[rest])
        ]
        leads.append(lead_errors(emulator, settled).assign(runs=count(emulator)))
    leads = pd.concat(leads)
    write_csv(output.with_suffix(".csv"), leads, float_format="%.6g")
    save_figure(figure(leads), output.with_suffix(".png"))
    text = "\n".join(page(emulators, judge, tables, leads))
    texts = read_conclusions(output)
    for title in ("coverage", "parts", "horizon"):
        text = text.replace("{" + title + "}\n\n", texts[title] + "\n\n" if title in texts else "")
    write_text(output.with_suffix(".md"), text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    run(main)
