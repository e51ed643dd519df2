"""What each part of the emulator is worth: variants at the same number of steps, judged on runs kept for choices.

    python benchmarks/ablations.py --data-dir ENSEMBLE --judge-dir OTHER [--epochs 5] [--only NAME ...]

The judge is an ensemble of other parameter vectors under the same weather, used for choices and never for the reported
accuracy. R2 on the test year, free running over the whole year after 180 days of context.
"""

import platform
from dataclasses import replace

from scoring import score

from command_line import REPOSITORY, make_parser, run, writing
from configuration import load_configuration
from units import TARGETS
from visit_files import load_ensemble

RESULT = REPOSITORY / "benchmarks" / "results" / "ablations.md"
FEEDBACK = {"one_step_weight": 0.7, "rollout_weight": 0.3, "teacher_start": 1.0, "teacher_end": 0.3,
            "teacher_steps": 20000, "warmup_days": 30, "batch_size": 64}  # fmt: skip
PLAIN = {"first_guess": False}
VARIANTS: dict[str, tuple[dict, dict]] = {
    "recommended": ({}, {}),
    "no training at all (first guess alone)": ({}, {"learning_rate": 1e-9}),
    "without first guess": (PLAIN, {}),
    "without first guess, ratios only": ({**PLAIN, "static_features": "ratios"}, {}),
    "without first guess, parameters only": ({**PLAIN, "static_features": "none"}, {}),
    "flux feedback": ({"flux_feedback": True}, FEEDBACK),
    "flux feedback, without first guess": ({**PLAIN, "flux_feedback": True}, FEEDBACK),
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
}


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--data-dir", required=True, help="ensemble to train on")
    parser.add_argument("--judge-dir", required=True, help="ensemble of other parameter vectors under the same weather")
    parser.add_argument("--epochs", type=int, help="epochs of every variant (default: the preset's)")
    parser.add_argument("--only", nargs="*", help="variants to run (default: all)", choices=list(VARIANTS))
    parser.add_argument("--output", default=str(RESULT), help="markdown file with the table")
    arguments = parser.parse_args()
    ensemble, judge = load_ensemble(arguments.data_dir), load_ensemble(arguments.judge_dir)
    base = load_configuration(preset="recommended").override("training", epochs=arguments.epochs)
    names = arguments.only or list(VARIANTS)
    head = ["variant", "s", *(f"{t.upper() if t != 'rh' else 'Rh'}" for t in TARGETS), "median NSE of NEP", "seen NEP"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    print("\n".join(lines))
    for name in names:
        model, training = VARIANTS[name]
        config = replace(base, model=replace(base.model, **model), training=replace(base.training, **training))
        result, _, _ = score(config, ensemble, judge)
        cells = [
            name,
            f"{result.seconds:.0f}",
            *(f"{result.unseen[t]:.4f}" for t in (*TARGETS, "nse")),
            f"{result.seen['nep']:.4f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
        text = [
            "## Ablations", "",
            f"`python benchmarks/ablations.py --epochs {base.training.epochs}`: {len(ensemble.sample_ids)} "
            "runs, judged on "
            f"{len(judge.sample_ids)} other parameter vectors (the set for choices), test year, free running; "
            f"{platform.machine()}, other jobs beside it (compare accuracies, not seconds).", "", *lines,
        ]  # fmt: skip
        with writing(arguments.output) as temporary:
            temporary.write_text("\n".join(text) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    run(main)
