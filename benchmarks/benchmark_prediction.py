"""Sample-days per second of a batch of parameter vectors: the emulator against the process model, same cores, one run.

    python benchmarks/benchmark_prediction.py --artifacts-dir artifacts [--samples 100]

Both compute the same parameter vectors under the same weather and write nothing. The process model needs its spin-up
for every vector; its rate includes that, since it is what an answer costs.
"""

import os
import platform
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from calibration.common.command_line import REPOSITORY, make_parser, run, write_text
from calibration.common.sites import load_site
from calibration.emulator.trained import load_emulator
from calibration.visit.simulator import simulate
from calibration.weather.daily import generate_weather

RESULT = REPOSITORY / "benchmarks" / "results" / "prediction.md"


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--artifacts-dir", default=str(REPOSITORY / "artifacts"), help="folder of the trained emulator")
    parser.add_argument("--samples", type=int, default=100, help="parameter vectors")
    parser.add_argument("--output", default=str(RESULT), help="markdown file with the result")
    arguments = parser.parse_args()
    emulator, site = load_emulator(arguments.artifacts_dir), load_site()
    weather = generate_weather(site, "2010-01-01", "2019-12-31", 1)
    unit = np.random.default_rng(0).random((arguments.samples, len(emulator.space)))
    parameters = emulator.space.unit_to_physical(unit)
    emulator.predict(parameters[:2], weather.values)  # first calls set up buffers and compile
    simulate({name: parameters[:2, i] for i, name in enumerate(emulator.parameter_names)}, weather, site)
    began = time.perf_counter()
    fast = emulator.predict(parameters, weather.values)
    emulator_seconds = time.perf_counter() - began
    began = time.perf_counter()
    truth = simulate({name: parameters[:, i] for i, name in enumerate(emulator.parameter_names)}, weather, site)
    simulator_seconds = time.perf_counter() - began
    days = arguments.samples * len(weather.dates)
    error = float(np.sqrt(np.mean((fast[..., 2] - truth.nep[:, 180:]) ** 2)))
    lines = [
        "## Prediction speed", "",
        f"`python benchmarks/benchmark_prediction.py --samples {arguments.samples}` on {platform.machine()}, "
        f"{len(os.sched_getaffinity(0))} cores, torch threads {torch.get_num_threads()}: {arguments.samples} parameter "
        f"vectors x {len(weather.dates)} days.", "",
        "| | s | sample-days/s |", "|---|---|---|",
        f"| emulator | {emulator_seconds:.2f} | {days / emulator_seconds:,.0f} |",
        f"| visit_simulator.py with its spin-up | {simulator_seconds:.2f} | {days / simulator_seconds:,.0f} |", "",
        f"The emulator is {simulator_seconds / emulator_seconds:.1f} times as fast here; NEP RMSE between them "
        f"{error:.5f} Mg C ha-1 day-1. It is also differentiable, which the process model is not.",
    ]  # fmt: skip
    write_text(arguments.output, "\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    run(main)
