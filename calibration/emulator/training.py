"""The training loop: batches of stretches, the two loss terms, schedules, and one epoch after another.

A *stretch* is one run and a span of consecutive days: the first `warmup_days` only set the state, the `scored_days`
after them are targets. A *step* is one optimiser step on `batch_size` stretches; an *epoch* is `steps_per_epoch` steps
and one validation. Every target day is computed once per stretch, not once per window that contains it.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as distributed

from calibration.common.command_line import UserError, progress
from calibration.common.configuration import Configuration, TrainingOptions
from calibration.common.units import TARGETS
from calibration.network.shared_dropout import PROCESSES
from dataset import TrainingData, window_starts
from model import StaticConditionedLSTM

VALIDATION_KEY = "val_rollout_rmse_30"  # of NEP, Mg C ha-1 day-1
SCORE_KEY = "val_score"  # of all four fluxes, see validation_score(): decides on the best epoch and on early stopping


@dataclass
class TrainingState:
    """Everything that changes during training besides the weights; goes into checkpoint_latest.pt."""

    step: int = 0
    epoch: int = 0
    best: float = math.inf
    best_epoch: int = 0
    seconds: float = 0.0  # spent in all sessions
    history: dict[str, list] = field(default_factory=dict)


def draw_stretches(
    data: TrainingData, options: TrainingOptions, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch,) run indices and first days: every seen run equally often, days at random within the training period."""
    count = options.batch_size
    repeats = math.ceil(count / len(data.seen))
    order = torch.cat([torch.randperm(len(data.seen), generator=generator) for _ in range(repeats)])[:count]
    days = data.periods["train"]
    latest = days.stop - days.start - options.warmup_days - options.scored_days
    starts = days.start + torch.randint(0, latest + 1, (count,), generator=generator)
    device = data.fluxes.device
    return torch.as_tensor(data.seen)[order].to(device), starts.to(device)


def weighted_mse(prediction: torch.Tensor, truth: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean squared error of scaled fluxes (..., 4) with weights (4,) that sum to 1."""
    return ((prediction - truth).square().mean(dim=tuple(range(prediction.dim() - 1))) * weights).sum()


@torch.no_grad()
def prepare_inputs(model: StaticConditionedLSTM, data: TrainingData) -> tuple[torch.Tensor, ...]:
    """Prepared days (day, n) and static features of all runs: they have no weights, so once is enough."""
    days = model.prepare_days(data.dynamic[None], data.ensemble.dates)[0]
    parts = [model.static.features(part) for part in data.static.split(256)]
    return (days, *(torch.cat(column) for column in zip(*parts, strict=True)))


def stretch_losses(
    model: StaticConditionedLSTM, data: TrainingData, options: TrainingOptions, prepared: tuple[torch.Tensor, ...],
    runs: torch.Tensor, starts: torch.Tensor, horizon: int, probability: float,
) -> tuple[torch.Tensor | None, torch.Tensor]:  # fmt: skip
    """One-step and free-running loss of a batch of stretches (runs, starts: (B,)); prepared: of prepare_inputs().

    Without flux feedback there is one pass and one loss (the first is None). With it the stretch is encoded once,
    without fluxes, as at a tower; from every `horizon`-th day of its scored part two passes of `horizon` days start:
    one that takes the true flux of the day before with `probability`, one that runs on its own predictions.
    """
    weights = torch.tensor([options.flux_weights[name] for name in TARGETS], device=starts.device)
    weights = weights / weights.sum()
    warmup = options.warmup_days
    dynamic, fluxes = data.stretch(runs, starts, warmup + options.scored_days, prepared[0])
    static = model.encode_static(data.static[runs], prepared=tuple(part[runs] for part in prepared[1:]))
    state = (static.hidden, static.cell)
    if not model.flux_feedback:
        predicted, _ = model.advance(dynamic, static, state, skip=warmup)
        return None, weighted_mse(predicted, fluxes[:, warmup:], weights)
    rollouts = options.scored_days // horizon
    first, hidden_states, cell_states, previous = 0, [], [], []
    for i in range(rollouts):  # walk along the context, keeping the state where a rollout starts
        last = warmup + i * horizon
        output, state = model.advance(dynamic[:, first:last], static, state, skip=last - first - 1)
        hidden_states.append(state[0])
        cell_states.append(state[1])
        previous.append(output[:, 0])
        first = last
    state = (torch.cat(hidden_states, dim=1), torch.cat(cell_states, dim=1))
    start_flux, static = torch.cat(previous), static.repeat(rollouts)

    def chunks(x, offset=0):
        """(B, day, n) -> (rollout x B, horizon, n), in the order of the states; units as x."""
        return torch.cat([x[:, warmup + i * horizon + offset :][:, :horizon] for i in range(rollouts)])

    weather, truth, truth_before = chunks(dynamic), chunks(fluxes), chunks(fluxes, offset=-1)
    one_step = model.roll(weather, static, state, start_flux, truth_before, probability)
    free = model.roll(weather, static, state, start_flux)
    return weighted_mse(one_step, truth, weights), weighted_mse(free, truth, weights)


def make_optimizer(model: StaticConditionedLSTM, options: TrainingOptions) -> torch.optim.AdamW:
    """AdamW with a weight decay of its own for the static side (Loshchilov & Hutter 2019)."""
    static = list(model.static.parameters())
    known = {id(weight) for weight in static}
    rest = [weight for weight in model.parameters() if id(weight) not in known]
    groups = [
        {"params": static, "weight_decay": options.static_weight_decay},
        {"params": rest, "weight_decay": options.weight_decay},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate)


def learning_rate(options: TrainingOptions, step: int, share: float) -> float:
    """Linear warm-up over warmup_steps, then a cosine to 0; `share` (0-1) of the training is done."""
    warm = min(1.0, (step + 1) / max(1, options.warmup_steps))
    return options.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))


def teacher_probability(options: TrainingOptions, step: int, total: int) -> float:
    """Scheduled sampling (Bengio et al. 2015): linear from teacher_start to teacher_end."""
    share = min(1.0, step / max(1, min(options.teacher_steps, total)))
    return options.teacher_start + (options.teacher_end - options.teacher_start) * share


def validation_set(data: TrainingData, config: Configuration) -> tuple[torch.Tensor, torch.Tensor]:
    """Fixed (run, first day of the context) pairs of seen runs in the validation period."""
    context, horizon = config.evaluation.context_days, config.evaluation.horizon_days
    starts = torch.as_tensor(window_starts(data.periods["validation"], context, horizon))
    if not len(starts):
        raise UserError(
            f"the validation period {data.splits.validation[0]} to {data.splits.validation[1]} holds no window "
            f"of {context} days "
            f"of context and {horizon} days; choose a longer --validation-period or one with days before it"
        )
    generator = torch.Generator().manual_seed(1)
    count = config.evaluation.validation_windows
    runs = torch.as_tensor(data.seen)[torch.randint(len(data.seen), (count,), generator=generator)]
    device = data.fluxes.device
    return runs.to(device), (starts[torch.randint(len(starts), (count,), generator=generator)] - context).to(device)


@torch.no_grad()
def validate(
    model: StaticConditionedLSTM, data: TrainingData, config: Configuration, prepared: torch.Tensor,
    runs: torch.Tensor, starts: torch.Tensor,
) -> dict[str, float]:  # fmt: skip
    """Rollout_RMSE@30 of each flux on the validation windows, Mg C ha-1 day-1, free running; prepared days (day, n)."""
    context, horizon = config.evaluation.context_days, config.evaluation.horizon_days
    model.eval()
    squares = torch.zeros(len(TARGETS), device=runs.device)
    for part in torch.arange(len(runs), device=runs.device).split(64):
        dynamic, fluxes = data.stretch(runs[part], starts[part], context + horizon, prepared)
        predicted = model.simulate_scaled(data.static[runs[part]], dynamic, context)
        squares += (predicted - fluxes[:, context:]).square().mean(dim=1).sum(dim=0)
    rmse = ((squares / len(runs)).sqrt() * model.target_scale).tolist()
    return dict(zip(TARGETS, rmse, strict=True))


def validation_score(rmse: dict[str, float], model: StaticConditionedLSTM, options: TrainingOptions) -> float:
    """Rollout_RMSE@30 (Mg C ha-1 day-1) in units of each flux's sd, root mean square weighted as the loss weighs.

    NEP alone chose epochs at random: its error is settled early, while that of GPP still falls by half.
    """
    scale = dict(zip(TARGETS, model.target_scale.tolist(), strict=True))
    weights = options.flux_weights
    squares = sum(weights[name] * (rmse[name] / scale[name]) ** 2 for name in TARGETS)
    return math.sqrt(squares / sum(weights.values()))


def average_gradients(model: StaticConditionedLSTM) -> None:
    """Mean of the gradients over all processes, in one message."""
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= PROCESSES.world
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def train(
    model: StaticConditionedLSTM, optimizer: torch.optim.Optimizer, data: TrainingData, config: Configuration,
    state: TrainingState, generator: torch.Generator, on_epoch: Callable[[dict[str, Any], bool], None],
    max_seconds: float | None = None, mixed_precision: bool = False,
) -> None:  # fmt: skip
    """Train until the epochs, the patience or max_seconds are used up; `on_epoch(row, is_best)` saves after each epoch.

    With max_seconds the learning rate follows whichever is further, steps or time, so that training ends annealed.
    UserError when the loss is not finite.
    """
    options, horizon = config.training, config.evaluation.horizon_days
    total = options.epochs * options.steps_per_epoch
    rank, world = PROCESSES.rank, PROCESSES.world
    if options.batch_size % world:
        raise UserError(
            f"--batch-size {options.batch_size} cannot be shared by {world} processes; choose a multiple of {world}"
        )
    days = data.periods["train"]
    if days.stop - days.start < options.warmup_days + options.scored_days:
        raise UserError(
            f"the training period has {days.stop - days.start} days, a stretch needs "
            f"{options.warmup_days + options.scored_days}; "
            "choose a longer --train-period, or lower warmup_days or scored_days in the YAML"
        )
    windows = validation_set(data, config)
    prepared = prepare_inputs(model, data)
    began = time.monotonic() - state.seconds
    bar = progress(total=total, initial=state.step, desc="training", unit="step")
    while state.epoch < options.epochs and not stopped_early(state, options):
        if max_seconds is not None and time.monotonic() - began > max_seconds:
            break
        model.train()
        sums = torch.zeros(3)
        for _ in range(options.steps_per_epoch):
            share = state.step / total
            if max_seconds is not None:
                share = max(share, (time.monotonic() - began) / max_seconds)
            rate = learning_rate(options, state.step, share)
            for group in optimizer.param_groups:
                group["lr"] = rate
            runs, starts = draw_stretches(data, options, generator)
            probability = teacher_probability(options, state.step, total)
            with torch.autocast(starts.device.type, torch.bfloat16, enabled=mixed_precision):
                one_step, free = stretch_losses(
                    model, data, options, prepared, runs[rank::world], starts[rank::world], horizon, probability
                )
            loss = options.rollout_weight * free
            if one_step is not None:
                loss = loss + options.one_step_weight * one_step
            objective = loss + options.group_lasso * model.static.group_lasso() if options.group_lasso else loss
            optimizer.zero_grad(set_to_none=True)
            objective.backward()
            if world > 1:
                average_gradients(model)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), options.gradient_clip)
            parts = torch.stack(
                [loss.detach(), (one_step if one_step is not None else free).detach(), free.detach()]
            ).cpu()
            if not (torch.isfinite(parts).all() and torch.isfinite(norm)):
                kept = (
                    f"checkpoint_best.pt of epoch {state.best_epoch} stays"
                    if state.best_epoch
                    else "no checkpoint was written yet"
                )
                raise UserError(
                    f"the loss became {parts[0].item()} (gradient norm {norm.item()}) at step "
                    f"{state.step + 1}, learning rate {rate:.2e}; "
                    f"try a lower --learning-rate (a third) or --gradient-clip, or more training.warmup_steps; {kept}"
                )
            optimizer.step()
            sums += parts
            state.step += 1
            bar.update()
            if max_seconds is not None and share >= 1.0:
                break
        taken = state.step - state.epoch * options.steps_per_epoch
        sums /= max(1, min(taken, options.steps_per_epoch))
        if world > 1:
            distributed.all_reduce(sums)
            sums /= world
        rmse = validate(model, data, config, prepared[0], *windows)
        state.epoch += 1
        row: dict[str, Any] = {
            "epoch": state.epoch, "step": state.step, "train_loss": sums[0].item(),
            "train_one_step_loss": sums[1].item() if model.flux_feedback else None,
            "train_rollout_loss": sums[2].item(),
            "learning_rate": rate, "teacher_probability": probability if model.flux_feedback else None,
            VALIDATION_KEY: rmse["nep"],
            **{f"{VALIDATION_KEY}_{name}": value for name, value in rmse.items() if name != "nep"},
            SCORE_KEY: validation_score(rmse, model, options),
        }  # fmt: skip
        for key, value in row.items():
            state.history.setdefault(key, []).append(value)
        is_best = row[SCORE_KEY] < state.best
        if is_best:
            state.best, state.best_epoch = row[SCORE_KEY], state.epoch
        state.seconds = time.monotonic() - began
        bar.set_postfix(loss=f"{row['train_loss']:.4f}", val=f"{rmse['nep']:.5f}")
        on_epoch(row, is_best)
    bar.close()


def stopped_early(state: TrainingState, options: TrainingOptions) -> bool:
    """True when `patience` epochs have passed since the best one (patience 0: never)."""
    return bool(options.patience) and state.epoch - state.best_epoch >= options.patience
