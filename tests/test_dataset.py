"""Splits, scaling and batches of an ensemble."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from emulator_examples import NAMES, tiny_ensemble, write_ensemble
from script_calls import script

from calibration.common.command_line import UserError
from calibration.common.configuration import load_configuration
from calibration.common.scalers import Scaler, load_scaler
from dataset import choose_unseen, day_slice, prepare, window_starts


@pytest.fixture(scope="module")
def ensemble():
    return tiny_ensemble()


@pytest.fixture(scope="module")
def data(ensemble):
    return prepare(ensemble, load_configuration().splits)


def test_unseen_runs_are_a_repeatable_share_and_never_seen():
    seen, unseen = choose_unseen(180, 0.1, 2025)
    assert len(unseen) == 18 and len(seen) == 162 and not set(seen) & set(unseen)
    assert np.array_equal(choose_unseen(180, 0.1, 2025)[1], unseen)
    assert not np.array_equal(choose_unseen(180, 0.1, 2026)[1], unseen)
    assert len(choose_unseen(3, 0.1, 0)[1]) == 1
    with pytest.raises(UserError, match="at least 2"):
        choose_unseen(1, 0.1, 0)


def test_scalers_know_only_seen_runs_in_the_training_period(ensemble, data):
    changed = replace(
        ensemble, fluxes=ensemble.fluxes.copy(), parameters=ensemble.parameters.copy(), dynamic=ensemble.dynamic.copy()
    )
    later = slice(data.periods["train"].stop, None)
    changed.fluxes[data.unseen] += 1.0
    changed.fluxes[:, later] += 1.0
    changed.dynamic[later] += 1.0
    changed.parameters[data.unseen] += 1.0
    other = prepare(changed, load_configuration().splits)
    for name in ("dynamic_scaler", "static_scaler", "target_scaler"):
        assert np.array_equal(getattr(other, name).mean, getattr(data, name).mean)
        assert np.array_equal(getattr(other, name).scale, getattr(data, name).scale)


def test_scaled_targets_have_unit_spread_and_invert(ensemble, data):
    train = data.fluxes[data.seen][:, data.periods["train"]]
    assert torch.allclose(train.mean(dim=(0, 1)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(train.std(dim=(0, 1)), torch.ones(4), atol=1e-3)
    back = data.target_scaler.inverse(data.fluxes.double().numpy())
    assert np.allclose(back, ensemble.fluxes, atol=1e-7)


def test_constant_parameter_becomes_zero(data):
    assert torch.equal(data.static[:, NAMES.index("c3_sla")], torch.zeros(len(data.static)))
    assert torch.isfinite(data.static).all()


def test_periods_do_not_overlap_and_context_reaches_back(ensemble, data):
    train, validation, test = (data.periods[name] for name in ("train", "validation", "test"))
    assert train.stop == validation.start and validation.stop == test.start and test.stop == len(ensemble.dates)
    starts = window_starts(test, 180, 30)
    assert starts[0] == test.start and starts[-1] + 30 == test.stop and len(starts) == 336
    assert window_starts(train, 180, 30)[0] == 180
    assert list(window_starts(test, 180, 30, stride=100)) == [test.start + 100 * i for i in range(4)]
    assert day_slice(ensemble.dates, "2016-02-01", "2016-02-29") == slice(396, 425)


def test_stretch_is_the_right_run_and_days(ensemble, data):
    dynamic, fluxes = data.stretch(torch.tensor([3, 0]), torch.tensor([10, 500]), 7)
    assert dynamic.shape == (2, 7, 10) and fluxes.shape == (2, 7, 4)
    assert np.allclose(data.target_scaler.inverse(fluxes[1].double().numpy()), ensemble.fluxes[0, 500:507], atol=1e-7)
    assert torch.equal(dynamic[0], data.dynamic[10:17])


def test_scaler_twins_agree_and_a_lone_pickle_warns(tmp_path, capsys):
    rng = np.random.default_rng(0)
    scaler = Scaler.fit(("a", "b"), rng.normal(size=(50, 2)) * [1.0, 1e-4] + [5.0, 0.0])
    scaler.save(tmp_path / "scaler.pkl")
    loaded = load_scaler(tmp_path / "scaler.pkl")
    assert loaded.names == ("a", "b") and np.array_equal(loaded.scale, scaler.scale) and not capsys.readouterr().err
    (tmp_path / "scaler.json").unlink()
    pickled = load_scaler(tmp_path / "scaler.pkl")
    assert "pickle" in capsys.readouterr().err
    values = rng.normal(size=(4, 2))
    assert np.allclose(pickled.transform(values), scaler.transform(values))
    assert np.allclose(scaler.inverse(scaler.transform(values)), values)
    with pytest.raises(UserError, match="no such scaler"):
        load_scaler(tmp_path / "other.json")
    whole = (tmp_path / "scaler.pkl").read_bytes()
    for content in (b"", b"abc", whole[:100], b"\x80\x04cno_such_module\nThing\n."):
        (tmp_path / "scaler.pkl").write_bytes(content)
        with pytest.raises(UserError, match="scaler.pkl: not readable as a pickle .*; run train.py again"):
            load_scaler(tmp_path / "scaler.pkl")


def test_script_describes_the_ensemble_or_says_how_to_make_one(tmp_path, ensemble):
    directory = write_ensemble(tmp_path / "data", ensemble)
    done = script("dataset.py", "--data-dir", directory)
    assert done.returncode == 0 and "8 runs x 1096 days" in done.stdout and "7 seen, 1 unseen" in done.stdout
    assert "c3_sla is 190 in every run" in done.stderr
    missing = script("dataset.py", "--data-dir", tmp_path / "nothing")
    assert missing.returncode == 2 and "run_perturbations.py" in missing.stderr and "Traceback" not in missing.stderr
