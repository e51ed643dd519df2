"""`preset: auto`: short trainings decide, an earlier preset wins a tie; how long the chosen one runs."""

import numpy as np
import pytest
import torch
from emulator_examples import small, tiny_ensemble

from calibration.common.configuration import load_configuration
from calibration.common.sites import load_site
from calibration.emulator import choice
from calibration.emulator.choice import PresetTrial, candidates, capped_r2, fitting_epochs, table
from dataset import prepare


def trial(preset="recommended", r2=0.9, seconds=0.1, **training):
    config = load_configuration(preset=preset)
    config = config.override("training", **training) if training else config
    return PresetTrial(config, dict.fromkeys(("gpp", "npp", "nep", "rh"), r2), seconds)


def test_short_trainings_decide_and_are_said():
    presets, said = [small("specification"), small("learned")], []
    data = prepare(tiny_ensemble(runs=30), presets[0].splits)
    config, trials = choice.choose(presets, data, torch.device("cpu"), load_site(), 600.0, True, said.append)
    assert {one.config.preset for one in trials} == {"specification", "learned"}
    assert config.preset == trials[0].config.preset and config.training.epochs == presets[0].training.epochs
    assert said[0].startswith("choosing among specification, learned,") and "at most 10.0 minutes" in said[0]
    assert said[-1] == table(trials) and all(one.seconds > 0 for one in trials)
    assert all(0 <= r2 <= 1 for one in trials for r2 in one.r2.values())


def test_too_few_runs_are_not_asked(capsys):
    presets = [small("specification"), small("learned")]
    data = prepare(tiny_ensemble(runs=8), presets[0].splits)
    config, trials = choice.choose(presets, data, torch.device("cpu"), load_site(), 600.0, True, print)
    assert config is presets[0] and trials == []
    said = " ".join(capsys.readouterr().err.split())
    assert "too few to choose a preset by evidence (20); it is specification" in said


@pytest.mark.parametrize(("second", "winner"), [(0.905, "specification"), (0.915, "recommended")])
def test_a_later_preset_must_leave_clearly_less(monkeypatch, second, winner):
    trials = [trial("specification", 0.9), trial("recommended", second)]  # 0.9 of what the first leaves is 0.91
    monkeypatch.setattr(choice, "split_seen", lambda data, folds: [(np.arange(3), np.arange(3, 5))])
    monkeypatch.setattr(choice, "replace", lambda data, **changed: data)
    monkeypatch.setattr(choice, "training_days", lambda preset: 1)
    monkeypatch.setattr(choice, "in_parallel", lambda *_: trials)
    found = choice.try_out([one.config for one in trials], None, "cpu", None, 1.0)
    assert found[0].config.preset == winner and {one.config.preset for one in found} == {"specification", "recommended"}


def test_presets_with_closed_forms_need_visits_names_and_trust_in_them():
    presets = [load_configuration(preset=name) for name in ("specification", "recommended")]
    plain = [one.preset for one in presets if one.model.static_features in ("none", "regression")]
    assert [one.preset for one in candidates(presets, ["tree_lue", "mine"], True)] == ["specification", "recommended"]
    assert [one.preset for one in candidates(presets, ["mine"], True)] == plain
    assert [one.preset for one in candidates(presets, ["tree_lue"], False)] == plain


def test_one_forest_taken_for_dead_counts_once():
    truth = np.array([[1.0, 3.0], [1.0, 3.0]])  # variance 1
    assert capped_r2(truth, truth) == 1
    assert capped_r2(truth + 0.5, truth) == pytest.approx(0.75)
    assert capped_r2(truth + [[0.0], [100.0]], truth) == pytest.approx(0.5)


def test_epochs_are_what_the_time_allows_within_bounds():
    one = trial(seconds=0.5, epochs=40, steps_per_epoch=10)  # 5 s an epoch
    assert fitting_epochs(one, 2.0, 100.0) == 10
    assert fitting_epochs(one, 2.0, 1e6) == 40 and fitting_epochs(one, 2.0, 0.0) == 3
    assert fitting_epochs(trial(epochs=2, steps_per_epoch=10), 1.0, 0.0) == 2


def test_the_table_marks_the_first():
    lines = table([trial("recommended", 0.91), trial("specification", 0.5)]).splitlines()
    assert lines[1].split() == ["recommended", *["0.910"] * 4, "0.9100", "<-", "chosen"]
    assert lines[2].split() == ["specification", *["0.500"] * 4, "0.5000"]
