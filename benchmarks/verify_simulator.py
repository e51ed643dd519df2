"""The process model beside the real VISIT: every published run of VISIT at LHP, simulated and compared.

    python benchmarks/verify_simulator.py

reads the reference runs, their weather and the one fully known run of the V2-LHS ensemble from --data-dir, and writes
the section benchmarks/results/verify_simulator.md and the figure beside it; --numbers also writes the figure's data.
"""

import argparse
import platform
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from calibration.common.command_line import existing_file, make_parser, run, write_csv, write_text, writing  # noqa: E402
from calibration.common.sites import Site, load_site  # noqa: E402
from calibration.visit.forcing import spinup_forcing  # noqa: E402
from calibration.visit.layout import HUMUS, LITTER, STATE, ground_row, parameter_rows  # noqa: E402
from calibration.visit.simulator import SUMMARY_FLUXES, parameter_values, simulate  # noqa: E402
from calibration.visit.spinup import Loop, trace  # noqa: E402
from calibration.weather.daily import Weather, read_weather  # noqa: E402

# Largest RMSE (Mg C ha-1 year-1) and smallest Pearson correlation that are asked for.
TARGETS = {"GPP": (0.080, 0.9999), "NPP": (0.040, 0.9999), "ER": (0.060, 0.9999), "NEP": (0.038, 0.9997)}
# Steps of one parameter that VISIT reads but does not use for carbon or water at LHP.
INERT = ("over_", "under_", "c4_", "ctmp", "dcd", "root_spt")
# The published run (visit_carbon_core 10.2): printed by the real VISIT.
REAL_SAMPLE_0 = [
    ("spin-up GPP, years 3-7", [2.06, 2.78, 3.73, 5.14, 6.70]),
    ("GPP of 2012-2016 in the last loop", [34.57, 34.03, 33.29, 34.07, 32.97]),
    ("NEP of 2012-2016 in the last loop", [0.36, 0.16, -0.32, 0.12, -0.65]),
    ("last loop, mean LAI", [8.24]),
    ("last loop, mean plant carbon", [6.11]),
    ("last loop, mean soil carbon", [61.7]),
    ("experiment, mean GPP NPP NEP", [34.47, 21.02, 0.29]),
]


def comparison(real: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """One row a variable: mean of both, mean difference, RMSE, largest difference, Pearson correlation."""
    rows = []
    for kind in ("mean", "sd_annual", "sd_daily"):
        for flux in SUMMARY_FLUXES:
            a, b = ours[f"{kind}_{flux}"].to_numpy(), real[f"{kind}_{flux}"].to_numpy()
            rows.append((
                f"{kind}_{flux}", b.mean(), b.std(), a.mean(), (a - b).mean(), np.sqrt(((a - b) ** 2).mean()),
                np.abs(a - b).max(), np.corrcoef(a, b)[0, 1],
            ))  # fmt: skip
    names = ["variable", "real", "real sd", "ours", "bias", "RMSE", "largest", "Pearson"]
    return pd.DataFrame(rows, columns=names).set_index("variable")


def steps(real: pd.DataFrame, ours: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray, list[str]]:
    """Differences between neighbouring runs of a trajectory, in which one parameter moved.

    -> table by flux (Pearson of all steps and of those below 1 Mg C ha-1 year-1), (step,) index of the second run,
    and the parameter moved.
    """
    parameters = [n for n in real if not n.startswith(("mean_", "sd_")) and n not in ("sample_id", "trajectory")]
    at = np.flatnonzero(np.diff(real["trajectory"]) == 0) + 1
    moved = [next(n for n in parameters if real[n].iloc[k] != real[n].iloc[k - 1]) for k in at]
    inert = np.array([any(part in name for part in INERT) for name in moved])
    rows = []
    for flux in SUMMARY_FLUXES:
        a, b = (np.diff(table[f"mean_{flux}"])[at - 1] for table in (ours, real))
        small = np.abs(b) < 1.0
        rows.append((
            flux, np.corrcoef(a, b)[0, 1], np.corrcoef(a[small], b[small])[0, 1], int(small.sum()),
            int((a[inert] != 0).sum()), int(inert.sum()),
        ))  # fmt: skip
    names = ["flux", "Pearson", "Pearson of small steps", "small steps", "inert steps with an effect", "inert steps"]
    return pd.DataFrame(rows, columns=names).set_index("flux"), at, moved


def sample_0(path: Path, weather: Weather, site: Site) -> tuple[list[tuple[str, list[float], list[float]]], float]:
    """The published run under its true slots: (quantity, real, ours) rows; and its GPP under its labels, year 4 on."""
    table = pd.read_csv(path).to_dict("records")
    loop = Loop(*spinup_forcing(weather.dates, weather.values, site))
    values = parameter_values({row["true_slot"]: row["value"] for row in table})
    fluxes, pools = trace(parameter_rows(values)[0], ground_row(site), loop)
    decade = pools[-10:].mean(axis=0)
    lai = (decade[0] * values["tree_sla"][0] + decade[4] * values["c3_sla"][0]) * 2.2 / 200.0
    plants = [STATE.index(f"{layer}_{organ}") for layer in ("tree", "c3") for organ in ("foliage", "stem", "root")]
    means = simulate(values, weather, site).summary().iloc[0]
    ours = [
        fluxes[2:7, 0], fluxes[-8:-3, 0], fluxes[-8:-3, 3], [lai], [decade[plants].sum()],
        [decade[LITTER : HUMUS + 3].sum()], [means["mean_GPP"], means["mean_NPP"], means["mean_NEP"]],
    ]  # fmt: skip
    literal = parameter_values({row["label"]: row["value"] for row in table})
    dead, _ = trace(parameter_rows(literal)[0], ground_row(site), Loop(loop.forcing, 1))
    rows = [(name, real, list(map(float, mine))) for (name, real), mine in zip(REAL_SAMPLE_0, ours, strict=True)]
    return rows, float(dead[3:, 0].max())


def draw(real: pd.DataFrame, ours: pd.DataFrame, at: np.ndarray) -> Figure:
    """Runs (above) and steps of one parameter (below): ours against real, one column a flux, Mg C ha-1 year-1."""
    figure = Figure(figsize=(13, 6.6), layout="constrained")
    axes = figure.subplots(2, 4)
    for column, flux in enumerate(SUMMARY_FLUXES):
        a, b = ours[f"mean_{flux}"].to_numpy(), real[f"mean_{flux}"].to_numpy()
        panels = [
            (a, b, f"{flux} of {len(a)} runs"),
            (np.diff(a)[at - 1], np.diff(b)[at - 1], f"{flux}: one parameter moved"),
        ]
        for row, (x, y, title) in enumerate(panels):
            axis = axes[row, column]
            ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())])
            axis.plot(ends, ends, color="0.6", linewidth=1, zorder=0)
            axis.plot(y, x, "o", markersize=3.5, alpha=0.5, color="tab:green" if row == 0 else "tab:blue", mew=0)
            misfit = np.sqrt(((x - y) ** 2).mean())
            axis.text(0.04, 0.95, f"RMSE {misfit:.3f}\nr {np.corrcoef(x, y)[0, 1]:.5f}", va="top",
                      transform=axis.transAxes)  # fmt: skip
            axis.set_title(title, fontsize=10)
            # most runs are small plants and most steps small: both must be seen beside the forests
            if row == 1 or x.min() < 0:
                axis.set_xscale("symlog", linthresh=0.01 if row else 1.0)
                axis.set_yscale("symlog", linthresh=0.01 if row else 1.0)
                axis.set_xticks([-10.0, -0.1, 0.0, 0.1, 10.0] if row else [-10.0, -1.0, 0.0, 1.0])
            else:
                axis.set_xscale("log")
                axis.set_yscale("log")
            axis.set_xlabel("real VISIT" if row == 0 else "change in real VISIT")
            if column == 0:
                axis.set_ylabel(("this model" if row == 0 else "change in this model") + "\n(Mg C ha-1 year-1)")
    return figure


def report(
    table: pd.DataFrame, stepped: pd.DataFrame, published: list, dead: float, baseline: pd.Series, extra: dict,
    arguments: argparse.Namespace,
) -> str:  # fmt: skip
    """The Markdown section."""
    lines = [
        "## Process model beside the real VISIT", "",
        f"`python benchmarks/verify_simulator.py`: {extra['runs']} runs of the real VISIT at LHP (Morris design, one "
        f"parameter moved from run to run), weather of 2010-2019 with its unknown years filled, {arguments.spinup} "
        f"spin-up, {extra['seconds']:.0f} s. Machine: {extra['machine']}. Fluxes in Mg C ha-1 year-1; sd_daily in Mg C "
        "ha-1 day-1; population sd.", "",
        "| variable | real VISIT: mean (sd) | this model | difference | RMSE | largest | Pearson | asked for |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, row in table.iterrows():
        digits = 4 if name.startswith("sd_daily") else 3
        flux = name.rsplit("_", 1)[1]
        asked = f"RMSE {TARGETS[flux][0]:.3f}, r {TARGETS[flux][1]}" if name.startswith("mean") else ""
        lines.append(
            f"| {name} | {row['real']:.{digits}f} ({row['real sd']:.{digits}f}) | {row['ours']:.{digits}f} | "
            f"{row['bias']:+.{digits}f} | {row['RMSE']:.{digits}f} | {row['largest']:.{digits}f} | "
            f"{row['Pearson']:.6f} | {asked} |"
        )
    lines += [
        "", "The day-to-day sd is a little high because filled years vary more than the real ones did; the filled rain "
        "is the likely cause of the GPP that is low by 0.5 percent in forests.", "",
        "![Real VISIT and this model](verify_simulator.png)", "",
        "Differences between neighbouring runs:", "",
        "| flux | Pearson | Pearson of steps below 1 | inert parameter with an effect here |", "|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {flux} | {row['Pearson']:.6f} | {row['Pearson of small steps']:.5f} ({row['small steps']:.0f}) | "
        f"{row['inert steps with an effect']:.0f} of {row['inert steps']:.0f} |"
        for flux, row in stepped.iterrows()
    ]
    lines += ["", "The one published run of which all 36 values are known, under the slots really changed:", "",
              "| quantity | real VISIT | this model |", "|---|---|---|"]  # fmt: skip
    for name, real, ours in published:
        lines.append(f"| {name} | {' '.join(f'{v:g}' for v in real)} | {' '.join(f'{v:.2f}' for v in ours)} |")
    lines += [
        "", f"Under its labels taken literally the forest dies: GPP at most {dead:.1e} from spin-up year 4 on.", "",
        "Baseline parameters: GPP {mean_GPP:.2f}, NPP {mean_NPP:.2f}, ER {mean_ER:.2f}, NEP {mean_NEP:.3f}.".format(
            **baseline),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=REPOSITORY.parent / "shared" / "data",
        help="folder with lhp/ and visit_reference/",
    )
    parser.add_argument("--spinup", choices=("fast", "full"), default="fast", help="spin-up of the compared runs")
    parser.add_argument("--old-runoff", action="store_true", help="runoff of the upper soil as in VISIT before 2014")
    parser.add_argument("--output-dir", type=Path, default=REPOSITORY / "benchmarks" / "results",
                        help="folder for verify_simulator.md and .png")  # fmt: skip
    parser.add_argument("--numbers", type=Path, help="CSV to write: real and simulated values of every run")
    arguments = parser.parse_args()
    site = load_site()
    weather = read_weather(existing_file(arguments.data_dir / "lhp" / "era5_daily_filled_2010_2019.csv"), site)
    reference = arguments.data_dir / "visit_reference"
    real = pd.read_csv(existing_file(reference / "visit_lhp_morris_runs.csv"))
    begin = time.perf_counter()
    ours = simulate(
        real, weather, site, spinup=arguments.spinup, progress=True, old_runoff=arguments.old_runoff
    ).summary()
    seconds = time.perf_counter() - begin
    table = comparison(real, ours)
    stepped, at, _ = steps(real, ours)
    published, dead = sample_0(existing_file(reference / "visit_lhp_v2lhs_sample0.csv"), weather, site)
    baseline = simulate({}, weather, site).summary().iloc[0]
    extra = {
        "runs": len(real),
        "seconds": seconds,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }

    output = arguments.output_dir
    if arguments.numbers:
        numbers = pd.concat([real["sample_id"], real[table.index].add_prefix("real_"), ours[table.index]], axis=1)
        write_csv(arguments.numbers, numbers, float_format="%.6g")
    with writing(output / "verify_simulator.png") as path:
        draw(real, ours, at).savefig(path, dpi=85)
    text = report(table, stepped, published, dead, baseline, extra, arguments)
    write_text(output / "verify_simulator.md", text)
    print(text)
    failed = [f for f, (rmse, r) in TARGETS.items()
              if table.loc[f"mean_{f}", "RMSE"] > rmse or table.loc[f"mean_{f}", "Pearson"] < r]  # fmt: skip
    print(f"asked for and not reached: {', '.join(failed)}" if failed else "all that is asked for is reached")
    return 1 if failed else 0


if __name__ == "__main__":
    run(main)
