"""Training speed: sequences against the plain way, side by side in one run; the LSTM against the machine's GEMM rate;
time to a skill; peak memory.

    python benchmarks/benchmark_training.py --data-dir E180 [--parts rates gemm target memory] [--memory-dirs E180 ...]

The plain way is the contract read naively: one window a sample, stride 1, batch 64, a loop over its 210 days, teacher
forcing, each target day computed once for every window that holds it. Same optimiser; network 2 x 256 with flux
feedback, as the contract has it. Target days a second are *distinct* ones: run-days whose loss was computed, counted
once per pass over the data. Parts that are measured alone renew their rows of training.json; the page holds all.
"""

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from conclusions import read_conclusions
from scoring import predict

from calibration.common import skill
from calibration.common.command_line import REPOSITORY, make_parser, read_json, run, write_json, write_text
from calibration.common.configuration import load_configuration
from calibration.common.sites import load_site
from calibration.emulator.cross_fit import build_model
from calibration.emulator.training import draw_stretches, make_optimizer, prepare_inputs, stretch_losses
from dataset import load_data, window_starts

RESULT = REPOSITORY / "benchmarks" / "results" / "training"
PARTS = ("rates", "gemm", "target", "memory")
CONTEXT, HORIZON, BATCH = 180, 30, 64
PLAIN = "plain: windows of 180 + 30 days, stride 1, per-day loop"


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


def plain_step(data, model, optimizer, starts: torch.Tensor, generator: torch.Generator) -> None:
    """One optimiser step of the naive loop."""
    runs = torch.as_tensor(data.seen)[torch.randint(len(data.seen), (BATCH,), generator=generator)]
    first = starts[torch.randint(len(starts), (BATCH,), generator=generator)] - CONTEXT
    dynamic, fluxes = data.stretch(runs, first, CONTEXT + HORIZON)
    static = model.encode_static(data.static[runs])
    state, previous, outputs = (static.hidden, static.cell), torch.zeros(BATCH, 4), []
    for day in range(CONTEXT + HORIZON):
        output, state = model.advance(dynamic[:, day : day + 1], static, state, previous[:, None])
        if day >= CONTEXT:
            outputs.append(output)
        previous = fluxes[:, day] if day >= CONTEXT - 1 else torch.zeros(BATCH, 4)
    loss = (torch.cat(outputs, dim=1) - fluxes[:, CONTEXT:]).square().mean()
    finish_step(model, optimizer, loss)


def sequence_step(data, model, optimizer, options, prepared, generator: torch.Generator) -> None:
    """One optimiser step of the repository's loop."""
    runs, starts = draw_stretches(data, options, generator)
    one_step, free = stretch_losses(model, data, options, prepared, runs, starts, HORIZON, 1.0)
    loss = options.rollout_weight * free + (options.one_step_weight * one_step if one_step is not None else 0.0)
    if options.group_lasso:
        loss = loss + options.group_lasso * model.static.group_lasso()
    finish_step(model, optimizer, loss)


def finish_step(model, optimizer, loss: torch.Tensor) -> None:
    """Backward pass, clipping, step."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def stepper(config, data, plain: bool):
    """(network, function that makes one optimiser step)."""
    torch.manual_seed(0)
    model = build_model(config, data, torch.device("cpu"), load_site())
    optimizer, generator = make_optimizer(model, config.training), torch.Generator().manual_seed(0)
    if plain:
        starts = torch.as_tensor(window_starts(data.periods["train"], CONTEXT, HORIZON))
        return model, lambda: plain_step(data, model, optimizer, starts, generator)
    prepared = prepare_inputs(model, data)
    return model, lambda: sequence_step(data, model, optimizer, config.training, prepared, generator)


def without_guess(config):
    """The recommended preset's way for a network that knows no closed forms of VISIT."""
    model = replace(config.model, first_guess=False, static_features="ratios")
    return replace(config, model=model, training=replace(config.training, learning_rate=6e-3))


def ways(runs: int) -> list[tuple[str, object, bool]]:
    """(label, configuration, plain way or not)."""
    contract, best = (load_configuration(preset=name).for_runs(runs) for name in ("specification", "recommended"))
    wide = replace(best, model=replace(best.model, hidden_size=256, num_layers=2))
    return [
        (PLAIN, contract, True), ("sequences, preset specification (2 x 256, feedback)", contract, False),
        ("sequences, preset recommended with 2 x 256", wide, False),
        ("sequences, preset recommended (1 x 128)", best, False),
    ]  # fmt: skip


def rates(data, seconds: float) -> list[dict]:
    """Distinct target days a second of each way, timed for `seconds`."""
    days, rows = data.periods["train"], []
    target_days = len(data.seen) * (days.stop - days.start - CONTEXT)
    windows = len(data.seen) * len(window_starts(days, CONTEXT, HORIZON))
    for label, config, plain in ways(len(data.ensemble.sample_ids)):
        _, step = stepper(config, data, plain)
        step()  # buffers
        steps, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            step()
            steps += 1
        taken = (time.perf_counter() - began) / steps
        options = config.training
        # once over all windows = once over all target days
        rate = target_days / (windows / BATCH * taken) if plain else options.batch_size * options.scored_days / taken
        rows.append({"way": label, "rate": rate, "pass_minutes": target_days / rate / 60})
        print(rows[-1], flush=True)
    return rows


def unseen_r2(model, data) -> float:
    """R2 of NEP: unseen runs, one free run over the test year."""
    model.eval()
    days = data.periods["test"]
    predicted = predict(model, data, data.ensemble.parameters[data.unseen], days)
    model.train()
    return skill.r2(predicted[..., 2], data.truth(data.unseen, days)[..., 2])


def time_to_target(data, target: float, minutes: float) -> list[dict]:
    """Training seconds (judging not counted) until R2 of NEP on unseen runs passes `target`, at most `minutes`."""
    contract, _, _, best = (config for _, config, _ in ways(len(data.ensemble.sample_ids)))
    rows = []
    for label, config, plain, every in (
        ("sequences, preset recommended", best, False, 1.0),
        ("the same without VISIT's closed forms", without_guess(best), False, 5.0),
        (PLAIN, contract, True, 60.0),
    ):
        model, step = stepper(config, data, plain)
        reached, spent = unseen_r2(model, data), 0.0
        course = [(0.0, reached)]
        while reached < target and spent < minutes * 60:
            model.train()
            began = time.perf_counter()
            while time.perf_counter() - began < every:
                step()
            spent += time.perf_counter() - began
            reached = unseen_r2(model, data)
            course.append((round(spent, 1), round(reached, 4)))
            print(label, course[-1], flush=True)
        rows.append({"way": label, "seconds": spent, "r2": reached, "reached": reached >= target, "course": course})
    return rows


def memory(directories: list[str]) -> list[dict]:
    """Peak memory (GB) of train.py itself, two short epochs and the whole error model."""
    rows = []
    for directory in directories:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "train.py", "--data-dir", directory, "--artifacts-dir", folder, "--epochs", "2"]
            done = subprocess.run([*command, "--steps-per-epoch", "10"], cwd=REPOSITORY, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        runs = int(done.stdout.split(" runs x ")[0].split()[-1])
        rows.append({"runs": runs, "gb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20})
        print(rows[-1], flush=True)
    return rows


def page(result: dict, output: Path) -> list[str]:
    """The markdown page from everything measured so far."""
    texts = read_conclusions(output)
    lines = ["## Training speed", ""]
    if "rates" in result:
        part = result["rates"]
        plain = part["rows"][0]["rate"]
        lines += [f"{part['settings']}. All ways in one run, {part['seconds']:g} s each.", "",
                  "| way | distinct target days/s | one pass over the training data | against plain |",
                  "|---|---|---|---|"]  # fmt: skip
        lines += [
            f"| {r['way']} | {r['rate']:,.0f} | {r['pass_minutes']:,.1f} min | {r['rate'] / plain:.0f} x |"
            for r in part["rows"]
        ]
        lines += ["", texts["rates"]] if "rates" in texts else []
    for key in ("gemm", "gemm_cores"):
        if key in result:
            g = result[key]
            lines += ["", f"Inside the LSTM (2 x 256, forward + backward): {g['lstm'] / 1e9:.0f} GFLOP/s of "
                      f"{g['gemm'] / 1e9:.0f} GFLOP/s measured for a 2048^3 float32 matrix product "
                      f"({100 * g['lstm'] / g['gemm']:.0f} %), {g['day_steps']:,.0f} day-steps/s; "
                      f"{g['settings']}."]  # fmt: skip
    if "target" in result:
        part = result["target"]
        lines += ["", f"Training time to an R2 of {part['target']} for NEP on unseen runs (test year, free running; "
                  f"judging not counted; stopped after {part['minutes']:g} min); {part['settings']}:", "",
                  "| way | s | R2 at the end |", "|---|---|---|"]  # fmt: skip
        for r in part["rows"]:
            time_ = f"{r['seconds']:.0f}" if r["reached"] else f"not reached in {r['seconds']:.0f}"
            lines.append(f"| {r['way']} | {time_} | {r['r2']:.3f} |")
        lines += ["", texts["target"]] if "target" in texts else []
    if "memory" in result:
        listed = "; ".join(f"{r['runs']} runs: {r['gb']:.2f} GB" for r in result["memory"]["rows"])
        lines += ["", f"Peak memory of train.py, error model included: {listed}."]
    return lines


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--data-dir", default=str(REPOSITORY / "data"), help="ensemble of run_perturbations.py")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds for each way (rates)")
    parser.add_argument("--target", type=float, default=0.95, help="R2 of NEP to reach")
    parser.add_argument("--minutes", type=float, default=10.0, help="longest training of a way (target)")
    parser.add_argument(
        "--memory-dirs", nargs="*", help="ensembles for the peak memory, small ones first (default: --data-dir)"
    )
    parser.add_argument("--output", default=str(RESULT), help="path of the results without suffix")
    arguments = parser.parse_args()
    output = Path(arguments.output)
    stored = output.with_suffix(".json")
    result = read_json(stored) if stored.is_file() else {}
    threads = torch.get_num_threads()
    settings = f"{platform.machine()}, {threads} thread(s), torch {torch.__version__}"
    if "memory" in arguments.parts:  # first, as a child's peak counts what its parent held when it was started
        result["memory"] = {"rows": memory(arguments.memory_dirs or [arguments.data_dir])}
    if "gemm" in arguments.parts:
        inside, day_steps = lstm_rate()
        key = "gemm" if threads == 1 else "gemm_cores"
        result[key] = {"lstm": inside, "day_steps": day_steps, "gemm": gemm_rate(), "settings": settings}
    if {"rates", "target"} & set(arguments.parts):
        data = load_data(load_configuration(preset="specification"), arguments.data_dir)
        settings += f", {len(data.ensemble.sample_ids)} runs"
        if "rates" in arguments.parts:
            rows = rates(data, arguments.seconds)
            result["rates"] = {"rows": rows, "seconds": arguments.seconds, "settings": settings}
        if "target" in arguments.parts:
            rows = time_to_target(data, arguments.target, arguments.minutes)
            result["target"] = {
                "rows": rows, "target": arguments.target, "minutes": arguments.minutes, "settings": settings
            }  # fmt: skip
    write_json(stored, result)
    lines = page(result, output)
    write_text(output.with_suffix(".md"), "\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    run(main)
