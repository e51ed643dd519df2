"""How good is the trained emulator: on the test period, for seen and for unseen runs, beside baselines.

    python evaluate_model.py                 # artifacts/ and the ensemble it was trained on
    python evaluate_model.py --artifacts-dir A --data-dir D --window-stride 1

Two protocols. *Year*: one free run over the whole test period after 180 days of context (rmse, mae, mape, r2,
nse_median). *Windows*: 30-day free runs, each after its own 180 days of context, a start every --window-stride days
(rollout_rmse_30; the same numbers by window as evaluation_windows.csv). Fluxes in Mg C ha-1 day-1.

evaluation.json: {split: {variable: {metric: value}}} with splits seen and unseen; beside the metrics of a variable,
"baselines": {constant | persistence | climatology | arx | gaussian_process | boosting: {metric: value}}.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from calibration.common.command_line import REPOSITORY, UserError, add_quiet, closing, make_parser, run, warn
from calibration.common.figure_style import FORMATS, use_format
from calibration.common.provenance import write_record
from calibration.common.reproduction import add_reproduce
from calibration.common.units import FLUX_LABELS, TARGETS
from calibration.emulator.baselines import NAMES
from calibration.emulator.evaluation import SPLITS, evaluate, load_matching, write_evaluation
from calibration.emulator.trained import load_emulator


def main() -> int:
    arguments = parse_arguments()
    use_format(arguments.figure_format)
    began = time.perf_counter()
    emulator = load_emulator(arguments.artifacts_dir, arguments.device)
    data = load_matching(emulator, Path(arguments.data_dir or emulator.data_directory))
    stride = arguments.window_stride
    if stride is None:
        stride = emulator.configuration.evaluation.window_stride
    if stride < 1 or arguments.max_seen_runs < 1:
        raise UserError("--window-stride and --max-seen-runs must be 1 or more")
    count = min(arguments.max_seen_runs, len(data.seen))
    if count < len(data.seen):
        warn(f"evaluating {count} of {len(data.seen)} seen runs (--max-seen-runs); all unseen ones are used")
    runs = {"seen": data.seen[np.linspace(0, len(data.seen) - 1, count).astype(int)], "unseen": data.unseen}
    found = evaluate(emulator, data, runs, stride)
    output = Path(arguments.output_dir or arguments.artifacts_dir)
    write_evaluation(found, data, output, not arguments.no_figures)
    print_summary(found.metrics)
    print(f"test period {data.splits.test[0]} to {data.splits.test[1]}, {time.perf_counter() - began:.0f} s")
    write_record(output, began, {"emulator": arguments.artifacts_dir, "ensemble": data.ensemble.directory})
    if arguments.report:
        from calibration.reports.kinds import report_on  # slow to import: loaded only where it is needed

        print(f"report: {report_on(output)}")
    r2 = found.metrics["unseen"]["nep"]["r2"]
    closing(
        output,
        f"python build_observation_windows.py --daily WEATHER.csv --artifacts-dir {arguments.artifacts_dir}",
        f"R2 of NEP in the test period, runs it has never seen: {r2:.3f}",
    )
    return 0


def print_summary(evaluation: dict) -> None:
    """The main numbers on one screen."""
    print(
        f"{'split':7s}{'flux':5s}{'RMSE':>9s}{'MAE':>9s}{'MAPE %':>8s}{'R2':>8s}{'RMSE@30':>9s}{'NSE med':>9s}   R2 of "
        + ", ".join(NAMES)
    )
    for split in SPLITS:
        for variable in TARGETS:
            m = evaluation[split][variable]
            others = "  ".join(f"{m['baselines'][name]['r2']:6.3f}" for name in NAMES)
            print(
                f"{split:7s}{FLUX_LABELS[variable]:5s}{m['rmse']:9.5f}{m['mae']:9.5f}{m['mape']:8.2f}{m['r2']:8.4f}"
                f"{m['rollout_rmse_30']:9.5f}{m['nse_median']:9.4f}   {others}"
            )
    for split in SPLITS:
        restless = evaluation[split]["nep"]["not_at_rest"]
        if restless and evaluation[split]["nep"]["r2_at_rest"] is not None:
            without = ", ".join(f"{FLUX_LABELS[name]} {evaluation[split][name]['r2_at_rest']:.4f}" for name in TARGETS)
            print(f"{split}: {restless} runs are not at rest (evaluation_worst_runs.csv); R2 without them: {without}")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__)
    add_quiet(parser)
    parser.add_argument("--artifacts-dir", default=str(REPOSITORY / "artifacts"), help="folder of the trained emulator")
    parser.add_argument("--data-dir", help="folder of the ensemble (default: the one it was trained on)")
    parser.add_argument("--output-dir", help="folder for the results (default: --artifacts-dir)")
    parser.add_argument("--window-stride", type=int, help="days between 30-day windows (default: YAML's at training)")
    parser.add_argument("--max-seen-runs", type=int, default=200, help="seen runs that are evaluated, evenly picked")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--no-figures", action="store_true", help="numbers only")
    parser.add_argument("--figure-format", choices=FORMATS, default="png", help="pdf or svg for a paper")
    parser.add_argument("--report", action="store_true", help="also write report.html: all on a page (make_report.py)")
    add_reproduce(parser, "--output-dir")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
