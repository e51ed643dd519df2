"""A trained emulator loaded from its folder: predictions, ranges, and folders that do not fit together."""

import json
import shutil

import numpy as np
import pytest
import torch
from emulator_examples import NAMES, tiny_ensemble

from calibration.common.command_line import UserError
from calibration.common.parameters import make_space, read_ranges
from calibration.emulator.trained import load_emulator, space_entries, warn_of_older_closed_forms
from model import create_model


@pytest.fixture
def folder(tiny_training):
    return tiny_training / "artifacts"


@pytest.fixture
def emulator(folder):
    return load_emulator(folder)


def test_prediction_is_the_model_on_scaled_inputs_in_any_batch_size(emulator):
    ensemble = tiny_ensemble()
    weather = ensemble.dynamic[:250]
    result = emulator.predict(ensemble.parameters, weather)
    assert result.shape == (8, 70, 4) and result.dtype == np.float32
    assert np.allclose(result, emulator.predict(ensemble.parameters, weather, batch=3), atol=1e-7)
    static = torch.as_tensor(emulator.static_scaler.transform(ensemble.parameters), dtype=torch.float32)
    dynamic = torch.as_tensor(emulator.dynamic_scaler.transform(weather), dtype=torch.float32)[None].expand(8, -1, -1)
    window = emulator.model(dynamic[:, :180], static, dynamic[:, 180:210]).numpy()
    assert np.allclose(emulator.predict(ensemble.parameters, weather[:210]), window, atol=1e-6)
    # Weather that is appended later changes no earlier day, season and soil water included.
    assert np.allclose(result[:, :30], window, atol=1e-6)
    assert np.array_equal(result[..., 2], result[..., 1] - result[..., 3])


def test_model_is_frozen_with_dropout_off(emulator):
    assert not emulator.model.training and not any(weight.requires_grad for weight in emulator.model.parameters())


def test_values_outside_the_trained_ranges_are_named(emulator, capsys):
    ensemble = tiny_ensemble()
    emulator.predict(ensemble.parameters, ensemble.dynamic[:200])
    assert not capsys.readouterr().err
    far = ensemble.parameters[:2].copy()
    far[1, NAMES.index("tree_pmax")] = 99.0
    far[0, NAMES.index("c3_sla")] = 191.0  # constant in training
    emulator.predict(far, ensemble.dynamic[:200])
    warning = capsys.readouterr().err
    assert "tree_pmax = 99 (trained" in warning and "c3_sla = 191" in warning and "tree_lue" not in warning
    assert set(emulator.outside_ranges(far)) == {"tree_pmax", "c3_sla"}


def test_wrong_shapes_say_what_is_expected(emulator):
    ensemble = tiny_ensemble()
    with pytest.raises(UserError, match="4 parameters given"):
        emulator.predict(ensemble.parameters[:, :4], ensemble.dynamic[:200])
    with pytest.raises(UserError, match="more than 180 days"):
        emulator.predict(ensemble.parameters, ensemble.dynamic[:180])
    with pytest.raises(UserError, match="no parameter 'tree_x'"):
        emulator.parameter_index(["TREE_PMAX", "tree_x"])
    assert emulator.parameter_index(["TREE_PMAX"]) == [0]


def test_weights_load_by_hand_as_the_contract_promises(folder, emulator):
    checkpoint = torch.load(folder / "checkpoint_best.pt", weights_only=True)
    model = create_model(dynamic_dim=10, static_dim=5, hidden_size=256, num_layers=2, dropout=0.1, device="cpu")
    model.load_state_dict(checkpoint["model_state_dict"])
    model.eval()
    inputs = torch.randn(2, 180, 10), torch.randn(2, 5), torch.randn(2, 30, 10)
    assert torch.equal(model(*inputs), emulator.model(*inputs))


def test_an_emulator_of_older_closed_forms_warns_where_its_wood_is_fast(tmp_path, capsys, folder):
    fast, slow = (make_space([("TREE_LC0", 1e-5, high), ("tree_pmax", 10, 20)], "ranges") for high in (0.09, 2e-4))
    for features, made_with, space in (("equilibrium", 2, fast), ("equilibrium", 1, slow), ("regression", 1, fast)):
        warn_of_older_closed_forms(tmp_path, features, made_with, space)
    assert not capsys.readouterr().err
    warn_of_older_closed_forms(tmp_path, "equilibrium", 1, fast)
    assert "whose wood turns over in weeks" in capsys.readouterr().err
    assert json.loads((folder / "config.json").read_text())["closed_forms"] == 2


def test_ranges_come_from_the_log_where_it_knows_them():
    values = np.column_stack([np.linspace(0.2, 0.3, 5), np.linspace(0.5, 0.8, 5), np.linspace(1, 2, 5)])
    names = ["tree_alloc_ass", "tree_alloc_abg", "odd"]
    ranges = {
        "tree_alloc_ass": {"min": 0.05, "max_from": "tree_alloc_abg"},
        "tree_alloc_abg": {"min": 0.275, "max": 0.825},
    }
    log = {"settings": {"ranges": ranges}}  # as run_perturbations.py writes parameter_log.json
    space = make_space([tuple(entry) for entry in space_entries(names, values, log)], "here")
    assert (
        space.tied_to == (1, -1, -1)
        and space.lower.tolist() == [0.05, 0.275, 1.0]
        and space.upper[1:].tolist() == [0.825, 2.0]
    )
    assert space_entries(names, values) == [  # no run comes near the tie: independent ranges say the same
        ["tree_alloc_ass", 0.2, 0.3],
        ["tree_alloc_abg", 0.5, 0.8],
        ["odd", 1.0, 2.0],
    ]
    narrow = {"settings": {"ranges": {"odd": {"min": 1.5, "max": 1.6}}}}  # a log of another ensemble
    assert space_entries(names, values, narrow)[2] == ["odd", 1.0, 2.0]


def test_a_tie_that_every_run_obeys_is_kept_without_a_log():
    space = read_ranges()
    values = space.unit_to_physical(np.random.default_rng(0).random((60, len(space))))
    found = make_space([tuple(entry) for entry in space_entries(space.names, values)], "here")
    assert found.tied_to == space.tied_to and max(space.tied_to) >= 0
    np.testing.assert_allclose(found.unit_to_physical(found.physical_to_unit(values)), values)
    values[0, 0] = values[0, 1] + 0.01  # one run beyond its tie: the ranges were independent
    assert make_space([tuple(entry) for entry in space_entries(space.names, values)], "here").tied_to[0] == -1


def spoil(folder, tmp_path, change):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    change(copy)
    return copy


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit_json(name, **values):
    def change(copy):
        content = json.loads((copy / name).read_text()) | values
        (copy / name).write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda copy: (copy / "config.json").unlink(), "train an emulator first"),
        (lambda copy: (copy / "config.json").write_text("{"), "not readable as JSON"),
        (edit_json("config.json", target_names=["nep"]), "targets are"),
        (edit_json("config.json", parameter_names=["a", "b", "c", "d", "e"]), "mixes two models"),
        (
            lambda copy: (copy / "checkpoint_best.pt").write_bytes(b"PK\x03\x04 cut short"),
            "not readable as a checkpoint",
        ),
        (lambda copy: torch.save({"weights": 1}, copy / "checkpoint_best.pt"), "belongs to another program"),
        (edit_json("scaler_static.json", names=["a", "b", "c", "d", "e"]), "mixes two models"),
        (edit_json("scaler_dynamic.json", scale=[0.0] * 10), "scales above 0"),
        (
            edit_json("scaler_dynamic.json", mean=[1.0] * 10),
            "is not the scaler that checkpoint_best.pt",
        ),
        (
            edit_json("scaler_static.json", scale=[9.0] * 5),
            "is not the scaler that checkpoint_best.pt",
        ),
        (lambda copy: (copy / "checkpoint_best.pt").write_bytes(b""), r"not readable as a checkpoint \(cut short\)"),
        (lambda copy: cut(copy / "checkpoint_best.pt"), "not readable as a checkpoint"),
        (lambda copy: cut(copy / "emulator_error.npz"), "emulator_error.npz: not readable"),
    ],
)
def test_a_folder_that_does_not_fit_together_is_refused(folder, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        load_emulator(spoil(folder, tmp_path, change))


def test_a_device_that_does_not_exist_is_refused(folder):
    with pytest.raises(UserError, match="--device cuda:77: not usable here .*; use --device cpu"):
        load_emulator(folder, "cuda:77")
