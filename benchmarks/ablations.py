"""What each part of the emulator is worth: variants at the same number of steps, judged on runs kept for choices.

    python benchmarks/ablations.py --data-dir ENSEMBLE --judge-dir OTHER [--seeds 1 2] [--only NAME ...] [--networks 5]

The judge is an ensemble of other parameter vectors under the same weather, used for choices and never for the reported
accuracy. Its few forests that are not at rest when the spin-up ends are left out: no variant predicts them, and they
would hide every difference. Cold start: 180 days of weather without any flux, then one free run over the test year.
Same optimiser steps and stretches for all; processor seconds beside them. `--networks` trains that many seeds of the
preset and judges their mean and their spread. Rows that are in the CSV files already are kept, so that an interrupted
measurement goes on.
"""

import platform
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd
from conclusions import read_conclusions
from scoring import measures, predict, train_emulator

from calibration.common.command_line import REPOSITORY, make_parser, run, write_csv, write_text
from calibration.common.configuration import load_configuration
from calibration.common.units import FLUX_LABELS, TARGETS
from calibration.ensembles.files import load_ensemble
from dataset import prepare

RESULT = REPOSITORY / "benchmarks" / "results" / "ablations"
SCORES = (*TARGETS, "nse")
AT_REST = 1.0  # Mg C ha-1 year-1: largest mean NEP of a run that counts
FEEDBACK = {"one_step_weight": 0.7, "rollout_weight": 0.3, "teacher_start": 1.0, "teacher_end": 0.3,
            "teacher_steps": 20000}  # fmt: skip
PLAIN = {"first_guess": False}
VARIANTS: dict[str, tuple[dict, dict]] = {
    "recommended": ({}, {}),
    "no training at all (first guess alone)": ({}, {"learning_rate": 1e-9, "epochs": 1, "steps_per_epoch": 1}),
    "flux feedback": ({"flux_feedback": True}, FEEDBACK),
    "without first guess": (PLAIN, {"learning_rate": 6e-3}),
    "without first guess, flux feedback": ({**PLAIN, "flux_feedback": True}, {**FEEDBACK, "learning_rate": 6e-3}),
    "without first guess, ratios only": ({**PLAIN, "static_features": "ratios"}, {"learning_rate": 6e-3}),
    "without first guess, parameters only": ({**PLAIN, "static_features": "none"}, {"learning_rate": 6e-3}),
    "init_state alone": ({"concat_input": False}, {}),
    "concat_input alone": ({"init_state": False}, {}),
    "1 x 64": ({"hidden_size": 64}, {}),
    "1 x 256": ({"hidden_size": 256}, {}),
    "2 x 128": ({"num_layers": 2}, {}),
    "2 x 256": ({"hidden_size": 256, "num_layers": 2}, {}),
    "predicting GPP, NPP, Rh": ({"predicted": ["gpp", "npp", "rh"]}, {}),
    "predicting GPP, NEP, Rh": ({"predicted": ["gpp", "nep", "rh"]}, {}),
    "no group lasso": ({}, {"group_lasso": 0.0}),
    "no output affine": ({"output_affine": False}, {}),
    "four times as long": ({}, {"epochs": 24}),
}


def spread_and_error(predictions: np.ndarray, truth: np.ndarray) -> list[dict]:
    """What an ensemble of networks knows about its error: predictions (network, run, day, 4), truth (run, day, 4).

    By flux: rms spread over rms error of the mean, correlation of spread with |error| over days and over runs (rms).
    """
    mean, spread = predictions.mean(axis=0), predictions.std(axis=0, ddof=1)
    rows = []
    for i, name in enumerate(TARGETS):
        error, width = np.abs(mean - truth)[..., i].astype(np.float64), spread[..., i].astype(np.float64)
        of_run = [np.sqrt(np.square(x).mean(axis=1)) for x in (width, error)]
        rows.append({
            "flux": name, "rms_spread": float(np.sqrt(np.square(width).mean())),
            "rms_error": float(np.sqrt(np.square(error).mean())),
            "correlation_days": float(np.corrcoef(width.ravel(), error.ravel())[0, 1]),
            "correlation_runs": float(np.corrcoef(*np.log(of_run))[0, 1]),
        })  # fmt: skip
    return rows


def networks(config, data, judge, days: slice, number: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of single networks, of means of 3 and of all; and spread_and_error() of all."""
    truth, predictions, seconds = judge.fluxes[:, days], [], []
    for seed in range(1, number + 1):
        began = time.process_time()
        model, _ = train_emulator(config.override("training", seed=seed), data)
        seconds.append(time.process_time() - began)
        predictions.append(predict(model, data, judge.parameters, days))
    predictions = np.stack(predictions)
    rows = []
    for size in sorted({1, min(3, number), number}):
        groups = [np.roll(np.arange(number), -k)[:size] for k in range(number if size < number else 1)]
        scores = pd.DataFrame([measures(predictions[group].mean(axis=0), truth) for group in groups])
        rows.append({"networks": size, "processor_seconds": size * np.mean(seconds), **scores.mean().to_dict()})
    return pd.DataFrame(rows), pd.DataFrame(spread_and_error(predictions, truth))


def page(rows: pd.DataFrame, sizes: pd.DataFrame, spread: pd.DataFrame, settings: str, path: Path) -> list[str]:
    """The markdown page."""
    texts = read_conclusions(path)
    labels = [*(FLUX_LABELS[name] for name in TARGETS), "median NSE of NEP"]
    lines = ["## What the emulator's parts are worth", "", settings, "",
             f"| variant | seeds | processor s | {' | '.join(labels)} | seen NEP |", "|" + "---|" * 9]  # fmt: skip
    for name in VARIANTS:
        part = rows[rows["variant"] == name]
        if len(part):
            values = part.mean(numeric_only=True)
            cells = " | ".join(f"{values[key]:.4f}" for key in (*SCORES, "seen_nep"))
            lines.append(f"| {name} | {len(part)} | {values['processor_seconds']:.0f} | {cells} |")
    if "variants" in texts:
        lines += ["", *(part.strip() for part in texts["variants"].split("//"))]
    if len(sizes):
        lines += ["", "### Several networks", "",
                  "Means of networks of the preset that differ in their seed, judged alike; below, the spread of all "
                  "of them beside the error of their mean.", "",
                  f"| networks | processor s | {' | '.join(labels)} |", "|" + "---|" * 7]  # fmt: skip
        for row in sizes.to_dict("records"):
            cells = " | ".join(f"{row[key]:.4f}" for key in SCORES)
            lines.append(f"| {row['networks']} | {row['processor_seconds']:.0f} | {cells} |")
        lines += ["", "| flux | rms spread / rms error | correlation of spread and error, days | the same, runs (ln) |",
                  "|---|---|---|---|"]  # fmt: skip
        for row in spread.to_dict("records"):
            lines.append(
                f"| {FLUX_LABELS[row['flux']]} | {row['rms_spread'] / row['rms_error']:.2f} "
                f"| {row['correlation_days']:.2f} | {row['correlation_runs']:.2f} |"
            )
        if "networks" in texts:
            lines += ["", texts["networks"]]
    return lines


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--data-dir", required=True, help="ensemble to train on")
    parser.add_argument("--judge-dir", required=True, help="ensemble of other parameter vectors under the same weather")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2], help="training seeds of every variant")
    parser.add_argument("--only", nargs="*", help="variants to run (default: all)", choices=list(VARIANTS))
    parser.add_argument("--networks", type=int, default=0, help="seeds of the preset for the ensemble of networks")
    parser.add_argument("--output", default=str(RESULT), help="path of the results without suffix")
    arguments = parser.parse_args()
    output = Path(arguments.output)
    paths = [output.with_name(output.name + end) for end in (".csv", "_networks.csv", "_spread.csv")]
    tables = [pd.read_csv(path) if path.is_file() else pd.DataFrame() for path in paths]
    ensemble, judge = load_ensemble(arguments.data_dir), load_ensemble(arguments.judge_dir)
    rest = np.abs(judge.fluxes[:, :, TARGETS.index("nep")].mean(axis=1)) * 365 < AT_REST
    judge = replace(
        judge, sample_ids=judge.sample_ids[rest], fluxes=judge.fluxes[rest], parameters=judge.parameters[rest]
    )
    base = load_configuration(preset="recommended").for_runs(len(ensemble.sample_ids))
    data = prepare(ensemble, base.splits)
    days = data.periods["test"]
    step = base.training
    settings = (
        f"`python benchmarks/ablations.py` (several calls): trained on {len(ensemble.sample_ids)} runs "
        f"({len(data.seen)} seen), judged on {len(judge.sample_ids)} other parameter vectors (the set for choices; "
        f"{(~rest).sum()} forests that were not at rest when the spin-up ended are left out), R2 on the test year, "
        "cold start and free running. All variants: "
        f"{step.epochs * step.steps_per_epoch} steps of {step.batch_size} stretches of {step.warmup_days} + "
        f"{step.scored_days} days, unless their name says otherwise; without first guess the learning rate is 6e-3 "
        f"instead of {step.learning_rate:g}. One thread, {platform.machine()}; means over seeds."
    )

    def write() -> None:
        for path, table in zip(paths, tables, strict=True):
            if len(table):
                write_csv(path, table, float_format="%.6g")
        write_text(output.with_suffix(".md"), "\n".join(page(*tables, settings, output)) + "\n")

    for seed in arguments.seeds:
        for name in VARIANTS if arguments.only is None else arguments.only:
            known = tables[0]
            if len(known) and ((known["variant"] == name) & (known["seed"] == seed)).any():
                continue
            model, training = VARIANTS[name]
            config = replace(base, model=replace(base.model, **model), training=replace(base.training, **training))
            began = time.process_time()
            network, _ = train_emulator(config.override("training", seed=seed), data)
            row = {"variant": name, "seed": seed, "processor_seconds": time.process_time() - began}
            row |= measures(predict(network, data, judge.parameters, days), judge.fluxes[:, days])
            some = data.seen[:60]
            seen = measures(predict(network, data, ensemble.parameters[some], days), data.truth(some, days))
            tables[0] = pd.concat([known, pd.DataFrame([row | {"seen_nep": seen["nep"]}])])
            print(tables[0].tail(1).to_string(header=len(tables[0]) == 1), flush=True)
            write()
    if arguments.networks and not len(tables[1]):
        tables[1:] = networks(base, data, judge, days, arguments.networks)
        print(tables[1].to_string(), tables[2].to_string(), sep="\n")
    write()
    return 0


if __name__ == "__main__":
    run(main)
