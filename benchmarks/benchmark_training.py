"""Training speed: sequences against the plain way, side by side in one run, and the LSTM against the machine's GEMM
rate.

    python benchmarks/benchmark_training.py [--seconds 20] [--data-dir data]

The plain way is the contract read naively: one window a sample, stride 1, batch 64, a loop over its 210 days, teacher
forcing, each target day computed once for every window that holds it. Same network (2 x 256, flux feedback), same
optimiser. Both are timed for --seconds on this machine's cores; nothing is extrapolated except the time of one epoch.
Target days a second are *distinct* ones: run-days whose loss was computed, counted once per pass over the data.
"""

import platform
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from command_line import REPOSITORY, make_parser, run, writing
from configuration import load_configuration
from cross_fit import build_model
from dataset import load_data, window_starts
from training_loop import draw_stretches, make_optimizer, prepare_inputs, stretch_losses

RESULT = REPOSITORY / "benchmarks" / "results" / "training_speed.md"


def gemm_rate(size: int = 2048, repeats: int = 10) -> float:
    """float32 matrix product, FLOP/s, best of `repeats`."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = 0.0
    for _ in range(repeats):
        began = time.perf_counter()
        a @ b
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def lstm_rate(batch: int = 256, days: int = 90, inputs: int = 74, hidden: int = 256) -> tuple[float, float]:
    """FLOP/s inside nn.LSTM 2 x hidden, forward + backward, and day-steps/s."""
    layers = [torch.nn.LSTM(inputs, hidden, batch_first=True), torch.nn.LSTM(hidden, hidden, batch_first=True)]
    x = torch.randn(batch, days, inputs)
    flop = 3 * 2 * 4 * hidden * ((inputs + hidden) + 2 * hidden) * batch * days  # forward, two products backward
    best = np.inf
    for _ in range(6):
        began = time.perf_counter()
        layers[1](layers[0](x)[0])[0].sum().backward()
        best = min(best, time.perf_counter() - began)
    return flop / best, batch * days / best


def plain_steps(data, model, options, seconds: float) -> tuple[int, float]:
    """The naive loop: steps done in `seconds` and the seconds taken."""
    optimizer = make_optimizer(model, options)
    starts = window_starts(data.periods["train"], 180, 30)
    generator = torch.Generator().manual_seed(0)
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        runs = torch.as_tensor(data.seen)[torch.randint(len(data.seen), (64,), generator=generator)]
        first = torch.as_tensor(starts)[torch.randint(len(starts), (64,), generator=generator)] - 180
        dynamic, fluxes = data.stretch(runs, first, 210)
        static = model.encode_static(data.static[runs])
        state, previous, outputs = (static.hidden, static.cell), torch.zeros(64, 4), []
        for day in range(210):
            output, state = model.advance(dynamic[:, day : day + 1], static, state, previous[:, None])
            if day >= 180:
                outputs.append(output)
            previous = fluxes[:, day] if day >= 179 else torch.zeros(64, 4)
        loss = (torch.cat(outputs, dim=1) - fluxes[:, 180:]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        steps += 1
    return steps, time.perf_counter() - began


def sequence_steps(data, model, config, seconds: float) -> tuple[int, float]:
    """The repository's loop: steps done in `seconds` and the seconds taken."""
    options, optimizer = config.training, make_optimizer(model, config.training)
    prepared, generator = prepare_inputs(model, data), torch.Generator().manual_seed(0)
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        runs, starts = draw_stretches(data, options, generator)
        one_step, free = stretch_losses(model, data, options, prepared, runs, starts, 30, 1.0)
        loss = options.rollout_weight * free + (options.one_step_weight * one_step if one_step is not None else 0.0)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.gradient_clip)
        optimizer.step()
        steps += 1
    return steps, time.perf_counter() - began


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--data-dir", default=str(REPOSITORY / "data"), help="ensemble of run_perturbations.py")
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds for each way")
    parser.add_argument("--output", default=str(RESULT), help="markdown file with the result")
    arguments = parser.parse_args()
    config = load_configuration(preset="specification")
    data = load_data(config, arguments.data_dir)
    days = data.periods["train"]
    target_days = len(data.seen) * (days.stop - days.start - 180)
    windows = len(data.seen) * len(window_starts(days, 180, 30))
    rows = []
    torch.manual_seed(0)
    steps, taken = plain_steps(data, build_model(config, data, torch.device("cpu")), config.training, arguments.seconds)
    pass_seconds = windows / (steps * 64 / taken)  # once over all windows = once over all target days
    plain = target_days / pass_seconds
    rows.append(("plain: windows of 180 + 30 days, stride 1, per-day loop", plain, pass_seconds))
    for name in ("specification", "recommended"):
        preset = load_configuration(preset=name).for_runs(len(data.ensemble.sample_ids))
        model = build_model(preset, data, torch.device("cpu"))
        steps, taken = sequence_steps(data, model, preset, arguments.seconds)
        rate = steps * preset.training.batch_size * preset.training.scored_days / taken
        shape = f"{preset.model.num_layers} x {preset.model.hidden_size}"
        rows.append((f"sequences, preset {name} ({shape})", rate, target_days / rate))
    peak = gemm_rate()
    inside, day_steps = lstm_rate()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines = [
        "## Training speed", "",
        f"`python benchmarks/benchmark_training.py --seconds {arguments.seconds:g}` on "
        f"{platform.processor() or platform.machine()}, "
        f"{torch.get_num_threads()} thread(s), torch {torch.__version__}; {len(data.ensemble.sample_ids)} runs.", "",
        "| way | distinct target days/s | one pass over the training data | against plain |", "|---|---|---|---|",
        *(f"| {name} | {rate:,.0f} | {taken / 60:,.1f} min | {rate / plain:.0f} x |" for name, rate, taken in rows), "",
        f"Inside the LSTM (2 x 256, forward + backward): {inside / 1e9:.0f} GFLOP/s of {peak / 1e9:.0f} "
        "GFLOP/s measured for a "
        f"2048^3 float32 matrix product ({100 * inside / peak:.0f} %), {day_steps:,.0f} day-steps/s. "
        f"Peak memory of this benchmark: {memory:.2f} GB.",
    ]  # fmt: skip
    with writing(arguments.output) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    run(main)
