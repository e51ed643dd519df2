"""Accuracy on unseen parameter vectors against the number of runs, beside a Gaussian process on run means.

    python benchmarks/learning_curve.py --ensembles E180 E600 E2000 [--seeds 1 2 3] [--presets recommended]

Each ensemble comes from run_perturbations.py (or is a nested subset, `DIR:90` = its first 90 runs). 10 percent of its
runs are never trained on; they are the unseen ones. Test year, free running over the whole year after 180 days of
context. The Gaussian process predicts each flux's mean over the test year from the parameters; its R2 is that of run
means, where the emulator's is given too. Writes a table (.md, .csv) and a figure (.png).
"""

import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scoring import predict, score
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

import skill
from command_line import REPOSITORY, make_parser, run, writing
from configuration import load_configuration
from emulator_figures import save_figure
from units import FLUX_LABELS, TARGETS
from visit_files import load_ensemble

RESULT = REPOSITORY / "benchmarks" / "results" / "learning_curve"


def nested(text: str):
    """`DIR` or `DIR:n` (the first n runs) -> Ensemble."""
    directory, _, count = text.partition(":")
    ensemble = load_ensemble(directory)
    if not count:
        return ensemble
    n = int(count)
    return replace(
        ensemble, sample_ids=ensemble.sample_ids[:n], fluxes=ensemble.fluxes[:n], parameters=ensemble.parameters[:n]
    )


def gaussian_process(data, days: slice) -> dict[str, float]:
    """R2 of run-mean fluxes of unseen runs, anisotropic RBF kernel on scaled parameters (at most 400 training runs)."""
    static = data.static.numpy()
    train = data.seen[:400]
    result = {}
    for i, name in enumerate(TARGETS):
        y = data.ensemble.fluxes[:, days, i].mean(axis=1)
        kernel = ConstantKernel() * RBF(np.full(static.shape[1], 10.0), (1.0, 1e3)) + WhiteKernel(0.05)
        model = GaussianProcessRegressor(kernel, normalize_y=True).fit(static[train], y[train])
        result[name] = skill.r2(model.predict(static[data.unseen]), y[data.unseen])
    return result


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--ensembles", nargs="+", required=True, help="folders, or FOLDER:n for its first n runs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[2025], help="training seeds")
    parser.add_argument("--presets", nargs="+", default=["recommended"], help="presets to train")
    parser.add_argument("--no-gaussian-process", action="store_true", help="leave the Gaussian process out")
    parser.add_argument("--output", default=str(RESULT), help="path of the results without suffix")
    arguments = parser.parse_args()
    rows = []
    for text in arguments.ensembles:
        ensemble = nested(text)
        for preset in arguments.presets:
            for seed in arguments.seeds:
                config = load_configuration(preset=preset).override("training", seed=seed)
                result, model, data = score(config, ensemble)
                days = data.periods["test"]
                means = predict(model, data, ensemble.parameters[data.unseen], days).mean(axis=1)
                truth = data.truth(data.unseen, days).mean(axis=1)
                row = {
                    "runs": len(ensemble.sample_ids),
                    "preset": preset,
                    "seed": seed,
                    "seconds": round(result.seconds),
                }
                row |= {f"seen_{k}": v for k, v in result.seen.items()} | {
                    f"unseen_{k}": v for k, v in result.unseen.items()
                }
                row |= {f"mean_{n}": skill.r2(means[:, i], truth[:, i]) for i, n in enumerate(TARGETS)}
                if not arguments.no_gaussian_process and seed == arguments.seeds[0]:
                    row |= {f"gp_{n}": v for n, v in gaussian_process(data, days).items()}
                rows.append(row)
                table = pd.DataFrame(rows)
                print(table.iloc[-1].to_string(), flush=True)
                write(Path(arguments.output), table, arguments)
    return 0


def write(path: Path, table: pd.DataFrame, arguments) -> None:
    """The CSV, the markdown table and the figure."""
    with writing(path.with_suffix(".csv")) as temporary:
        table.to_csv(temporary, index=False, float_format="%.5f")
    keys = ["seen_nep", *(f"unseen_{name}" for name in (*TARGETS, "nse"))]
    lines = [
        "## Accuracy and learning curve", "",
        f"`python benchmarks/learning_curve.py --seeds {' '.join(map(str, arguments.seeds))}` on {platform.machine()}; "
        "10 percent of the runs unseen; test year, free running after 180 days of context; GP = Gaussian "
        "process on run means, "
        "emulator's R2 of run means beside it.", "",
        "| runs | preset | seed | s | seen NEP | unseen GPP | unseen NPP | unseen NEP | unseen Rh | median NSE of NEP "
        "| run means GPP / NPP / NEP / Rh | GP on run means |", "|" + "---|" * 12,
    ]  # fmt: skip
    for row in table.to_dict("records"):
        means = " / ".join(f"{row[f'mean_{n}']:.3f}" for n in TARGETS)
        known = "gp_gpp" in row and np.isfinite(row["gp_gpp"])
        gp = " / ".join(f"{row[f'gp_{n}']:.3f}" for n in TARGETS) if known else ""
        values = " | ".join(f"{row[key]:.4f}" for key in keys)
        lines.append(
            f"| {row['runs']} | {row['preset']} | {row['seed']} | {row['seconds']} | {values} | {means} | {gp} |"
        )
    with writing(path.with_suffix(".md")) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    mean = table[table["preset"] == arguments.presets[0]].groupby("runs").mean(numeric_only=True)
    for i, name in enumerate(TARGETS):
        axes.plot(mean.index, 1 - mean[f"unseen_{name}"], marker="o", color=f"C{i}", label=FLUX_LABELS[name])
        if f"gp_{name}" in mean and name != "nep":
            axes.plot(
                mean.index, 1 - mean[f"gp_{name}"], ls=":", color=f"C{i}", label=f"{FLUX_LABELS[name]}, GP on run means"
            )
    axes.set(xscale="log", yscale="log", xlabel="runs in the ensemble", ylabel="1 - R2 on unseen runs, test year")
    axes.legend(fontsize=8, ncols=2)
    save_figure(figure, path.with_suffix(".png"))


if __name__ == "__main__":
    run(main)
