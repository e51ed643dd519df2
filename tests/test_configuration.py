"""LHP_architecture.yaml: typed, complete, and loud about mistakes."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from calibration.common.command_line import UserError
from calibration.common.configuration import ARCHITECTURE_FILE, fit_splits, from_dict, load_configuration, period


@pytest.fixture
def content():
    return yaml.safe_load(ARCHITECTURE_FILE.read_text())


def written(tmp_path, content):
    path = tmp_path / "architecture.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_specification_preset_is_the_contract_to_the_number():
    config = load_configuration(preset="specification")
    model, training = config.model, config.training
    assert (model.hidden_size, model.num_layers, model.dropout, model.init_width, model.embedding_size) == (
        256,
        2,
        0.1,
        128,
        64,
    )
    assert model.flux_feedback and model.init_state and model.concat_input and model.head_width == 128
    assert (training.one_step_weight, training.rollout_weight) == (0.7, 0.3)
    assert (training.teacher_start, training.teacher_end, training.teacher_steps) == (1.0, 0.3, 20000)
    assert (training.learning_rate, training.weight_decay, training.warmup_steps) == (2e-3, 1e-4, 500)
    assert (training.gradient_clip, training.batch_size, training.epochs, training.patience, training.seed) == (
        1.0,
        64,
        50,
        10,
        2025,
    )
    assert config.splits.train == ["2010-01-01", "2017-12-31"] and config.splits.test == ["2019-01-01", "2019-12-31"]
    assert config.splits.unseen_share == 0.1


def test_recommended_is_the_default_and_round_trips():
    config = load_configuration()
    assert config.preset == "recommended"
    assert from_dict(config.as_dict(), ARCHITECTURE_FILE) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(extra=1), "unknown key 'extra' in the top level"),
        (lambda c: c["presets"]["recommended"]["model"].update(hiden=1), "unknown key 'hiden' in model"),
        (
            lambda c: c["presets"]["specification"].update(optimizer=1),
            "unknown key 'optimizer' in presets.specification",
        ),
        (lambda c: c["presets"]["recommended"]["training"].pop("seed"), "key 'seed' is missing in training"),
        (
            lambda c: c["presets"]["recommended"]["training"].update(epochs="many"),
            "training.epochs is 'many', expected int",
        ),
        (lambda c: c["presets"]["recommended"]["training"].update(one_step_weight=0.5), "same number"),
        (lambda c: c["presets"]["recommended"]["training"]["by_runs"].update({600: {"epoch": 3}}), "by_runs.600.epoch"),
        (lambda c: c["presets"]["recommended"]["model"].update(predicted=["gpp", "npp"]), "name three of"),
        (lambda c: c["presets"]["recommended"]["model"].update(static_features="none"), "first_guess needs"),
        (lambda c: c["splits"].update(validation=[2016, 2017]), "must follow each other"),
        (lambda c: c["splits"].update(train=[2017, 2010]), "comes after the last"),
        (lambda c: c["splits"].update(train=["spring", 2017]), "expected a year or a date"),
        (lambda c: c.update(preset="best"), "no preset 'best'"),
    ],
)
def test_each_mistake_is_named(tmp_path, content, change, message):
    change(content)
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        load_configuration(written(tmp_path, content))


def test_flags_win_over_settings_by_ensemble_size(content, tmp_path):
    content["presets"]["recommended"]["training"]["by_runs"] = {
        600: {"epochs": 7},
        2000: {"epochs": 9, "group_lasso": 0.5},
    }
    config = load_configuration(written(tmp_path, content))
    assert config.for_runs(180).training.epochs == config.training.epochs
    assert config.for_runs(600).training.epochs == 7
    assert config.for_runs(2500).training.group_lasso == 0.5
    overridden = config.override("training", epochs=3, learning_rate=None).for_runs(2500)
    assert (overridden.training.epochs, overridden.training.group_lasso) == (3, 0.5)
    with pytest.raises(UserError, match="training.epochs is 0"):
        config.override("training", epochs=0)


def test_period_reads_years_and_dates():
    assert period([2011, "2014-06-30"], "here") == ("2011-01-01", "2014-06-30")


def test_periods_follow_an_ensemble_of_other_years(capsys):
    splits = load_configuration().splits
    days = np.arange("2011-07-05", "2017-01-01", dtype="datetime64[D]")
    fitted = fit_splits(splits, days, given_by_user=False)
    assert fitted.train == ["2011-07-05", "2014-12-31"]
    assert fitted.validation == ["2015-01-01", "2015-12-31"] and fitted.test == ["2016-01-01", "2016-12-31"]
    assert "training on 2011-07-05" in capsys.readouterr().err
    with pytest.raises(UserError, match="covers 2011-07-05 to 2016-12-31"):
        fit_splits(splits, days, given_by_user=True)
    short = fit_splits(splits, days[:500], given_by_user=False)
    assert (
        short.train[1] < short.validation[0] <= short.validation[1] < short.test[0] <= short.test[1] == str(days[499])
    )
    inside = replace(
        splits,
        train=["2012-01-01", "2014-12-31"],
        validation=["2015-01-01", "2015-12-31"],
        test=["2016-01-01", "2016-12-31"],
    )
    assert fit_splits(inside, days, given_by_user=True) == inside
