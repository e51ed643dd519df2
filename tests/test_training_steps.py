"""The training loop by its definitions: losses, scores and rows computed again by hand, and when it stops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from emulator_examples import made

from calibration.common.command_line import UserError
from calibration.common.units import TARGETS
from calibration.emulator import training
from calibration.emulator.training import (
    TrainingState,
    average_gradients,
    draw_stretches,
    learning_rate,
    make_optimizer,
    prepare_inputs,
    stretch_losses,
    teacher_probability,
    validate,
    validation_score,
    validation_set,
    weighted_mse,
)
from calibration.network.shared_dropout import PROCESSES


def options_of(config, **changes):
    return replace(config.training, **changes)


def test_squared_errors_are_weighted_by_flux():
    apart = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(5, 7, 4)
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1])
    assert weighted_mse(apart + 1, torch.ones(5, 7, 4), weights).item() == pytest.approx(0.4 + 1.2 + 1.8 + 1.6)


def flux_weights(options) -> torch.Tensor:
    given = torch.tensor([options.flux_weights[name] for name in TARGETS])
    return given / given.sum()


def test_one_pass_is_scored_on_the_days_after_the_warm_up():
    config, data, model = made("recommended")
    options = options_of(config, flux_weights={"gpp": 4.0, "npp": 1.0, "nep": 2.0, "rh": 1.0}, scored_days=41)
    runs, starts = torch.tensor([4, 1]), torch.tensor([3, 50])
    model.eval()
    one_step, free = stretch_losses(model, data, options, prepare_inputs(model, data), runs, starts, 30, 0.0)
    days = starts[:, None] + torch.arange(options.warmup_days + 41)
    days_of_all = prepare_inputs(model, data)[0][days]  # soil water looks back beyond the stretch
    predicted = model.simulate_scaled(data.static[runs], days_of_all, options.warmup_days)
    truth = data.fluxes[runs[:, None], days[:, options.warmup_days :]]
    assert one_step is None
    assert free.item() == pytest.approx(weighted_mse(predicted, truth, flux_weights(options)).item(), rel=1e-5)


def test_with_feedback_each_rollout_starts_from_a_state_that_has_seen_no_flux():
    config, data, model = made("specification")
    options = options_of(config, scored_days=25)  # two rollouts of ten days, five days are left over
    runs, starts, horizon, warmup = torch.tensor([2, 5, 0]), torch.tensor([7, 0, 90]), 10, options.warmup_days
    model.eval()
    one_step, free = stretch_losses(model, data, options, prepare_inputs(model, data), runs, starts, horizon, 1.0)
    wanted_free, wanted_one = [], []
    for i in range(2):
        first = warmup + i * horizon
        days = starts[:, None] + torch.arange(first + horizon)
        weather, static = data.dynamic[days], data.static[runs]
        truth = data.fluxes[runs[:, None], days]
        alone = model.simulate_scaled(static, weather, first)
        wanted_free.append(weighted_mse(alone, truth[:, first:], flux_weights(options)))
        encoded = model.encode_static(static)
        _, state = model.advance(weather[:, :first], encoded, (encoded.hidden, encoded.cell))
        taught, _ = model.advance(weather[:, first:], encoded, state, truth[:, first - 1 : -1])  # the day before each
        wanted_one.append(weighted_mse(taught, truth[:, first:], flux_weights(options)))
    assert free.item() == pytest.approx(torch.stack(wanted_free).mean().item(), rel=1e-5)
    assert one_step.item() == pytest.approx(torch.stack(wanted_one).mean().item(), rel=1e-5)


def test_a_batch_uses_seen_runs_as_evenly_as_it_can():
    config, data, _ = made("recommended")
    seen = len(data.seen)
    for count, most in ((seen - 2, 1), (seen, 1), (seen + 1, 2), (3 * seen - 1, 3)):
        runs, starts = draw_stretches(data, options_of(config, batch_size=count), torch.Generator().manual_seed(count))
        assert len(runs) == len(starts) == count
        found = np.bincount(runs, minlength=8)[data.seen]
        assert found.max() == most and found.min() >= most - 1 and found.sum() == count
    again = draw_stretches(data, options_of(config, batch_size=9), torch.Generator().manual_seed(4))
    other = draw_stretches(data, options_of(config, batch_size=9), torch.Generator().manual_seed(4))
    assert torch.equal(again[0], other[0]) and torch.equal(again[1], other[1])


def test_ends_of_the_schedules():
    config, _, model = made("specification")
    options = options_of(config, warmup_steps=0, learning_rate=2e-3, teacher_steps=0)
    assert learning_rate(options, 0, 0.0) == pytest.approx(2e-3)  # no warm-up
    assert learning_rate(options, 0, 1.5) == pytest.approx(0.0)  # a session may take longer than planned
    assert learning_rate(options_of(config, warmup_steps=4), 1, 0.0) == pytest.approx(config.training.learning_rate / 2)
    assert teacher_probability(options, 0, 10) == options.teacher_start
    assert teacher_probability(options, 1, 10) == pytest.approx(options.teacher_end)
    assert {group["lr"] for group in make_optimizer(model, options).param_groups} == {2e-3}


def test_validation_windows_are_fixed_ones_of_seen_runs_inside_the_period():
    config, data, _ = made("recommended")
    config = config.override("evaluation", validation_windows=300)
    runs, starts = validation_set(data, config)
    days, context, horizon = data.periods["validation"], *(
        getattr(config.evaluation, name) for name in ("context_days", "horizon_days"))  # fmt: skip
    assert len(runs) == len(starts) == 300 and set(runs.tolist()) == set(data.seen.tolist())
    targets = starts + context
    assert targets.min() >= days.start and targets.max() + horizon <= days.stop and starts.min() >= 0
    assert targets.max() - targets.min() > 0.8 * (days.stop - days.start - horizon)
    assert all(torch.equal(a, b) for a, b in zip(validation_set(data, config), (runs, starts), strict=True))
    short = replace(data, periods={**data.periods, "validation": slice(days.start, days.start + horizon - 1)})
    with pytest.raises(
        UserError, match=f"holds no window of {context} days of context and {horizon} days; choose"
    ):
        validation_set(short, config)


def test_validation_is_the_root_mean_square_over_windows_and_days():
    config, data, model = made("recommended")
    config = config.override("evaluation", validation_windows=70)  # more than one part of 64
    runs, starts = validation_set(data, config)
    context, horizon = config.evaluation.context_days, config.evaluation.horizon_days
    model.train()  # validate() itself switches dropout off
    prepared = prepare_inputs(model, data)[0]
    found = validate(model, data, config, prepared, runs, starts)
    days = starts[:, None] + torch.arange(context + horizon)
    with torch.no_grad():
        predicted = model.simulate(data.static[runs], prepared[days], context).numpy()
    truth = data.ensemble.fluxes[runs.numpy()[:, None], days[:, context:].numpy()]
    rmse = np.sqrt(np.mean((predicted - truth).astype(float) ** 2, axis=(0, 1)))
    assert list(found) == list(TARGETS)
    for i, name in enumerate(TARGETS):  # Mg C ha-1 day-1
        assert found[name] == pytest.approx(rmse[i], rel=2e-3), name
    assert not any(part.training for part in model.modules())


def test_score_weighs_the_fluxes_as_the_loss_does():
    config, _, model = made("recommended")
    scale = dict(zip(TARGETS, model.target_scale.tolist(), strict=True))
    options = options_of(config, flux_weights={"gpp": 3.0, "npp": 1.0, "nep": 4.0, "rh": 2.0})
    rmse = {name: factor * scale[name] for name, factor in zip(TARGETS, (0.1, 0.2, 0.3, 0.4), strict=True)}
    assert validation_score(rmse, model, options) == pytest.approx(math.sqrt((0.03 + 0.04 + 0.36 + 0.32) / 10))


def test_gradients_of_all_processes_are_averaged(monkeypatch):
    _, _, model = made("recommended")
    weights = list(model.parameters())
    for i, weight in enumerate(weights[1:]):  # the first has none
        weight.grad = torch.full_like(weight, float(i))
    monkeypatch.setattr(training.distributed, "all_reduce", lambda flat: flat.add_(5.0))  # what the others add
    monkeypatch.setattr(PROCESSES, "world", 2)
    average_gradients(model)
    assert weights[0].grad is None
    for i, weight in enumerate(weights[1:]):
        torch.testing.assert_close(weight.grad, torch.full_like(weight, (i + 5.0) / 2))


# --- the loop ---------------------------------------------------------------------------------------------------------


class Loop:
    """A training whose losses, validation and clock are given: what is left is the loop itself."""

    def __init__(self, monkeypatch, preset="recommended", losses=None, rmse=None, **changes):
        changes = {"epochs": 3, "steps_per_epoch": 4, "batch_size": 6, "patience": 0, "group_lasso": 0.0,
                   "weight_decay": 0.0, "static_weight_decay": 0.0, "warmup_steps": 1, **changes}  # fmt: skip
        config, self.data, self.model = made(preset)
        self.config = config.override("training", **changes)
        self.state, self.rows, self.batches, self.clock = TrainingState(), [], [], 0.0
        self.optimizer = make_optimizer(self.model, self.config.training)
        self.losses, self.rmse = losses, rmse
        if losses is not None:
            monkeypatch.setattr(training, "stretch_losses", self._losses)
        if rmse is not None:
            monkeypatch.setattr(training, "validate", lambda *_: self.rmse(self.state.epoch + 1))
        monkeypatch.setattr(training.time, "monotonic", self._now)

    def _now(self) -> float:
        self.clock += 1.0  # every look at the clock takes a second
        return self.clock

    def _losses(self, model, data, options, prepared, runs, starts, horizon, probability):
        self.batches.append((len(runs), probability))
        nothing = 0.0 * sum(weight.sum() for weight in model.parameters())
        one_step, free = self.losses(len(self.batches))
        return None if one_step is None else one_step + nothing, free + nothing

    def run(self, **given):
        training.train(self.model, self.optimizer, self.data, self.config, self.state, torch.Generator().manual_seed(0),
                       lambda row, best: self.rows.append((row, best)), **given)  # fmt: skip
        return self


def even(value):
    """Validation rmse of an epoch, the same for all fluxes."""
    return dict.fromkeys(TARGETS, value)


def test_a_row_holds_the_means_of_its_epoch(monkeypatch):
    loop = Loop(monkeypatch, "specification", lambda step: (float(step), 10.0 * step), lambda epoch: even(1.0 / epoch),
                one_step_weight=0.7, rollout_weight=0.3, learning_rate=1e-3, warmup_steps=2, teacher_start=1.0,
                teacher_end=0.4, teacher_steps=12).run()  # fmt: skip
    rows = [row for row, _ in loop.rows]
    assert [row["epoch"] for row in rows] == [1, 2, 3] and [row["step"] for row in rows] == [4, 8, 12]
    assert [row["train_one_step_loss"] for row in rows] == [2.5, 6.5, 10.5]
    assert [row["train_rollout_loss"] for row in rows] == [25.0, 65.0, 105.0]
    np.testing.assert_allclose([row["train_loss"] for row in rows], [0.7 * m + 3 * m for m in (2.5, 6.5, 10.5)])
    probability = [1 - 0.6 * step / 12 for step in range(12)]
    assert loop.batches == [(6, pytest.approx(p)) for p in probability]
    assert [row["teacher_probability"] for row in rows] == pytest.approx(probability[3::4])
    wanted = [1e-3 * 0.5 * (1 + math.cos(math.pi * step / 12)) for step in (3, 7, 11)]
    assert [row["learning_rate"] for row in rows] == pytest.approx(wanted)
    assert {group["lr"] for group in loop.optimizer.param_groups} == {rows[-1]["learning_rate"]}
    assert [row["val_rollout_rmse_30"] for row in rows] == pytest.approx([1, 1 / 2, 1 / 3])
    assert rows[1]["val_rollout_rmse_30_gpp"] == pytest.approx(1 / 2) and "val_rollout_rmse_30_nep" not in rows[0]
    assert rows[1]["val_score"] == pytest.approx(validation_score(even(0.5), loop.model, loop.config.training))
    assert loop.state.history == {key: [row[key] for row in rows] for key in rows[0]}


def test_without_feedback_there_is_one_loss_and_no_teacher(monkeypatch):
    loop = Loop(monkeypatch, losses=lambda step: (None, 2.0), rmse=lambda _: even(1.0), rollout_weight=0.5).run()
    row = loop.rows[0][0]
    assert row["train_loss"] == 1.0 and row["train_rollout_loss"] == 2.0
    assert row["train_one_step_loss"] is None and row["teacher_probability"] is None


def test_the_best_epoch_is_kept_and_patience_ends_the_training(monkeypatch):
    scores = [5.0, 3.0, 3.0, 4.0, 2.0]
    loop = Loop(monkeypatch, losses=lambda _: (None, 1.0), rmse=lambda epoch: even(scores[epoch - 1]), epochs=5,
                patience=3).run()  # fmt: skip
    assert [best for _, best in loop.rows] == [True, True, False, False, True]  # as good is not better
    assert loop.state.best_epoch == 5 and loop.state.best == loop.rows[-1][0]["val_score"]
    loop = Loop(monkeypatch, losses=lambda _: (None, 1.0), rmse=lambda epoch: even(scores[epoch - 1]), epochs=5,
                patience=2).run()  # fmt: skip
    assert loop.state.epoch == 4 and loop.state.best_epoch == 2
    loop.run()  # what has ended stays so
    assert loop.state.epoch == 4


def test_time_that_is_up_ends_the_training_with_a_learning_rate_of_nothing(monkeypatch):
    loop = Loop(monkeypatch, losses=lambda _: (None, 3.0), rmse=lambda _: even(1.0), epochs=50, rollout_weight=1.0)
    loop.run(max_seconds=11.5)
    # A second for each look: one an epoch, one a step: epochs end at seconds 6 (with a look for the record) and 12.
    assert loop.state.epoch == 2 and 4 < loop.state.step <= 8 and loop.rows[-1][0]["learning_rate"] < 2e-4
    assert all(row["train_loss"] == pytest.approx(3.0) for row, _ in loop.rows)  # of the steps that were taken
    rates = [row["learning_rate"] for row, _ in loop.rows]
    assert rates == sorted(rates, reverse=True)
    none = Loop(monkeypatch, losses=lambda _: (None, 3.0), rmse=lambda _: even(1.0)).run(max_seconds=0.5)
    assert none.rows == [] and none.batches == []


def test_time_within_an_epoch_and_of_earlier_sessions_counts(monkeypatch):
    loop = Loop(monkeypatch, losses=lambda _: (None, 3.0), rmse=lambda _: even(1.0), steps_per_epoch=100,
                rollout_weight=1.0).run(max_seconds=10)  # fmt: skip
    assert len(loop.batches) < 12 and loop.state.epoch == 1 and loop.rows[0][0]["train_loss"] == pytest.approx(3.0)
    assert loop.rows[0][0]["learning_rate"] == pytest.approx(0.0, abs=1e-9)
    assert loop.state.seconds == pytest.approx(len(loop.batches) + 2)
    loop = Loop(monkeypatch, losses=lambda _: (None, 3.0), rmse=lambda _: even(1.0), epochs=1)
    loop.state.seconds = 100.0
    assert loop.run().state.seconds == pytest.approx(101.0)
    loop = Loop(monkeypatch, losses=lambda _: (None, 3.0), rmse=lambda _: even(1.0))
    loop.state.seconds = 100.0
    assert loop.run(max_seconds=100).rows == []


def test_gradients_are_clipped_and_the_lasso_shrinks_the_static_side(monkeypatch):
    loop = Loop(monkeypatch, losses=lambda _: (None, 0.0), rmse=lambda _: even(1.0), epochs=1, steps_per_epoch=1,
                learning_rate=0.01, group_lasso=1e6, gradient_clip=0.5)  # fmt: skip
    loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=1.0)
    before = [weight.detach().clone() for weight in loop.model.parameters()]
    lasso = loop.model.static.group_lasso().item()
    loop.run()
    moved = torch.cat([(a - b).flatten() for a, b in zip(before, loop.model.parameters(), strict=True)]).norm().item()
    assert moved == pytest.approx(0.01 * 0.5, rel=1e-4)  # learning rate times the largest norm
    assert loop.model.static.group_lasso().item() < lasso
    assert loop.rows[0][0]["train_loss"] == 0  # the penalty is not part of the loss that is compared
    still = Loop(monkeypatch, losses=lambda _: (None, 0.0), rmse=lambda _: even(1.0), epochs=1)
    before = still.model.static.group_lasso().item()
    assert still.run().model.static.group_lasso().item() == before


def test_a_loss_that_is_no_number_moves_no_weight(monkeypatch):
    for best, words in ((0, "no checkpoint was written yet"), (3, "checkpoint_best.pt of epoch 3 stays")):
        loop = Loop(monkeypatch, losses=lambda step: (None, 1.0 if step < 3 else math.nan), rmse=lambda _: even(1.0))
        if best:
            loop.state.best_epoch = best
        with pytest.raises(UserError, match=rf"the loss became nan .* at step 3, learning rate .*{words}"):
            loop.run()
        assert all(torch.isfinite(weight).all() for weight in loop.model.parameters())
        assert loop.state.step == 2 and loop.rows == []


def test_a_gradient_that_is_no_number_moves_no_weight_though_the_loss_is_one(monkeypatch):
    loop = Loop(monkeypatch, losses=lambda _: (None, 1.0), rmse=lambda _: even(1.0), group_lasso=1.0, rollout_weight=1)
    first = next(loop.model.static.parameters())
    monkeypatch.setattr(loop.model.static, "group_lasso", lambda: (0.0 * first.sum()).sqrt())  # 0, its slope is nan
    with pytest.raises(UserError, match=r"the loss became 1.0 \(gradient norm nan\) at step 1"):
        loop.run()
    assert torch.isfinite(first).all()


def test_several_processes_share_a_batch_and_add_up_their_losses(monkeypatch):
    monkeypatch.setattr(PROCESSES, "world", 2)
    monkeypatch.setattr(PROCESSES, "rank", 1)
    monkeypatch.setattr(training.distributed, "all_reduce", lambda values: values.mul_(2.0))  # the other is the same
    loop = Loop(monkeypatch, losses=lambda _: (None, 3.0), rmse=lambda _: even(1.0), rollout_weight=1.0).run()
    assert {count for count, _ in loop.batches} == {3}
    assert loop.rows[0][0]["train_loss"] == pytest.approx(3.0)
    monkeypatch.setattr(PROCESSES, "world", 4)
    with pytest.raises(UserError, match="--batch-size 6 cannot be shared by 4 processes; choose a multiple of 4"):
        loop.run()


def test_a_training_period_of_one_stretch_is_enough_and_a_day_less_is_not(monkeypatch):
    loop = Loop(monkeypatch, losses=lambda _: (None, 3.0), rmse=lambda _: even(1.0), epochs=1)
    need, first = loop.config.training.warmup_days + loop.config.training.scored_days, loop.data.periods["train"].start
    whole = loop.data
    loop.data = replace(whole, periods={**whole.periods, "train": slice(first, first + need)})
    assert loop.run().state.epoch == 1
    loop.data = replace(whole, periods={**whole.periods, "train": slice(first, first + need - 1)})
    loop.config = loop.config.override("training", epochs=2)
    with pytest.raises(UserError, match=f"the training period has {need - 1} days, a stretch needs {need}"):
        loop.run()
