"""The pieces of the training loop: stretches, losses, schedules, weight decay, and what makes an epoch the best."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from emulator_examples import made

from calibration.common.configuration import load_configuration
from calibration.common.units import TARGETS
from calibration.emulator.training import (
    TrainingState,
    draw_stretches,
    learning_rate,
    make_optimizer,
    prepare_inputs,
    stopped_early,
    stretch_losses,
    teacher_probability,
    validate,
    validation_score,
    validation_set,
)
from calibration.emulator.training import train as run_training


def test_both_terms_are_different_passes_and_the_gradient_flows():
    config, data, model = made("specification")
    generator = torch.Generator().manual_seed(0)
    runs, starts = draw_stretches(data, config.training, generator)
    prepared = prepare_inputs(model, data)
    one_step, free = stretch_losses(model, data, config.training, prepared, runs, starts, 30, 1.0)
    assert not torch.isclose(one_step, free, rtol=1e-4)
    model.eval()
    losses = stretch_losses(model, data, config.training, prepared, runs, starts, 30, 0.0)
    assert torch.equal(*losses)  # without teacher the two passes are the same prediction
    free.backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())


def test_stretches_stay_in_training_period_and_use_every_seen_run():
    config, data, _ = made("recommended")
    options = replace(config.training, batch_size=700)
    runs, starts = draw_stretches(data, options, torch.Generator().manual_seed(0))
    assert (np.bincount(runs, minlength=8)[data.seen] == 100).all() and not set(runs.tolist()) & set(
        data.unseen.tolist()
    )
    days, length = data.periods["train"], options.warmup_days + options.scored_days
    assert starts.min() == days.start and starts.max() == days.stop - length


def test_static_features_computed_once_equal_those_computed_each_time():
    config, data, model = made("recommended")
    model.eval()
    _, features, rest = prepare_inputs(model, data)
    rows = torch.tensor([4, 1])
    state, again = (
        model.encode_static(data.static[rows], (features[rows], rest[rows])),
        model.encode_static(data.static[rows]),
    )
    assert torch.allclose(state.hidden, again.hidden, atol=1e-6) and torch.allclose(state.rest, again.rest)


def test_training_reduces_the_error():
    config, data, model = made("recommended")
    schedule = {"epochs": 12, "steps_per_epoch": 25, "batch_size": 24, "warmup_steps": 5, "learning_rate": 6e-3}
    config = config.override("training", **schedule)
    config = config.override("evaluation", validation_windows=32)
    windows = validation_set(data, config)
    before = validate(model, data, config, prepare_inputs(model, data)[0], *windows)
    state, generator = TrainingState(), torch.Generator().manual_seed(0)
    optimizer = make_optimizer(model, config.training)
    run_training(model, optimizer, data, config, state, generator, lambda row, best: None)
    after = validate(model, data, config, prepare_inputs(model, data)[0], *windows)
    assert all(after[name] < 0.5 * before[name] for name in before)


def test_schedules_have_their_corners():
    options = load_configuration(preset="specification").training
    assert learning_rate(options, 0, 0.0) == pytest.approx(2e-3 / 500)
    assert learning_rate(options, 499, 0.0) == pytest.approx(2e-3)
    assert learning_rate(options, 10_000, 0.5) == pytest.approx(1e-3)
    assert learning_rate(options, 10_000, 1.0) == pytest.approx(0.0)
    assert teacher_probability(options, 0, 1000) == 1.0
    assert teacher_probability(options, 500, 1000) == pytest.approx(0.65)
    assert teacher_probability(options, 5000, 1_000_000) == pytest.approx(1 - 0.7 / 4)
    assert teacher_probability(options, 30_000, 1_000_000) == pytest.approx(0.3)
    assert stopped_early(TrainingState(epoch=20, best_epoch=10), options)
    assert not stopped_early(TrainingState(epoch=19, best_epoch=10), options)
    assert not stopped_early(TrainingState(epoch=900, best_epoch=1), replace(options, patience=0))


def test_weight_decay_and_lasso_reach_the_static_side_only():
    config, data, model = made("recommended")
    static, rest = make_optimizer(model, config.training).param_groups
    assert (static["weight_decay"], rest["weight_decay"]) == (
        config.training.static_weight_decay,
        config.training.weight_decay,
    )
    lstm = {id(weight) for weight in model.lstm.parameters()}
    assert lstm <= {id(weight) for weight in rest["params"]} and not lstm & {id(weight) for weight in static["params"]}
    assert len(static["params"]) + len(rest["params"]) == len(list(model.parameters()))
    first = model.static.trunk[0].weight
    assert model.static.group_lasso().item() == pytest.approx(first.norm(dim=0).sum().item())


def test_the_best_epoch_is_that_of_all_fluxes_not_of_nep_alone():
    config, _, model = made("recommended")
    scale = dict(zip(TARGETS, model.target_scale.tolist(), strict=True))
    even = {name: 0.1 * scale[name] for name in TARGETS}
    assert validation_score(even, model, config.training) == pytest.approx(0.1)
    worse_gpp = even | {"gpp": 0.3 * scale["gpp"], "nep": 0.09 * scale["nep"]}
    assert validation_score(worse_gpp, model, config.training) > 0.15
