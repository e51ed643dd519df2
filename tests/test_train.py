"""Training: both presets as scripts, resume, two processes, and how it fails."""

import json
import math
import shutil
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from emulator_examples import TINY, made, tiny_ensemble, write_ensemble
from script_calls import process, script

import train
from calibration.common.command_line import run
from calibration.common.configuration import ARCHITECTURE_FILE
from calibration.common.sites import load_site
from calibration.common.units import DYNAMIC_FEATURES
from calibration.emulator.cross_fit import folds_needed, split_seen
from calibration.emulator.trained import load_emulator
from calibration.ensembles.files import load_ensemble


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_ensemble(tmp_path_factory.mktemp("ensemble"), tiny_ensemble())


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Flag for the repository's numbers with few validation windows, which take most of a tiny training's time."""
    content = yaml.safe_load(ARCHITECTURE_FILE.read_text(encoding="utf-8"))
    content["evaluation"]["validation_windows"] = 8
    path = tmp_path_factory.mktemp("architecture") / "architecture.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return ["--architecture", str(path)]


def run_train(arguments, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", *map(str, arguments)])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train.main()
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("preset", ["recommended", "specification"])
def test_script_trains_and_leaves_a_loadable_emulator(preset, directory, tmp_path):
    out = tmp_path / "artifacts"
    done = script(
        "train.py", "--preset", preset, "--data-dir", directory, "--artifacts-dir", out, *TINY, "--hidden-size", 8
    )
    assert done.returncode == 0, done.stderr
    assert "val Rollout_RMSE@30" in done.stdout and "error sd on 1 unseen runs" in done.stdout
    names = {path.name for path in out.iterdir()}
    assert names >= {
        "config.json", "checkpoint_best.pt", "checkpoint_latest.pt", "training_history.json", "training_loss.png",
        "scaler_dynamic.json", "scaler_dynamic.pkl", "scaler_static.json", "emulator_error.json", "emulator_error.npz",
    }  # fmt: skip
    assert (directory / "scaler_dynamic.pkl").is_file()
    history = json.loads((out / "training_history.json").read_text())
    assert history["epoch"] == [1, 2] and history["step"] == [2, 4]
    if preset == "specification":  # two genuinely different terms
        assert not math.isclose(history["train_one_step_loss"][0], history["train_rollout_loss"][0], rel_tol=1e-4)
        loss = 0.7 * history["train_one_step_loss"][0] + 0.3 * history["train_rollout_loss"][0]
        assert history["train_loss"][0] == pytest.approx(loss, rel=1e-5)
    record = json.loads((out / "config.json").read_text())
    config, ranges = record["configuration"], record["feature_ranges"]
    ensemble = load_ensemble(directory)
    first, last = (np.datetime64(day) for day in config["splits"]["train"])
    weather = ensemble.dynamic[(ensemble.dates >= first) & (ensemble.dates <= last)]
    assert list(ranges) == list(DYNAMIC_FEATURES) and 0 < len(weather) < len(ensemble.dates)
    np.testing.assert_array_equal(list(ranges.values()), np.column_stack([weather.min(axis=0), weather.max(axis=0)]))
    assert config["preset"] == preset and config["model"]["hidden_size"] == 8 and config["training"]["epochs"] == 2
    assert load_emulator(out).model.flux_feedback is (preset == "specification")


def test_an_ensemble_of_another_site_is_said(tmp_path, capsys):
    site = load_site()
    log = {"settings": {"site": {"name": "HYY", "latitude": 61.85, "altitude": site.altitude}}}
    (tmp_path / "parameter_log.json").write_text(json.dumps(log))
    train.warn_of_another_site(tmp_path, site)
    assert "made with name HYY" in (said := capsys.readouterr().err) and "give the ensemble's site with --site" in said
    other = replace(site, path=tmp_path / "hyy.yaml", name="HYY", latitude=61.85)
    train.warn_of_another_site(tmp_path, other)
    train.warn_of_another_site(tmp_path / "without_log", other)
    assert capsys.readouterr().err == ""
    train.warn_of_another_site(tmp_path / "without_log", site)
    assert "site: LHP (default; --site FILE for another), for" in capsys.readouterr().err


def test_a_refused_ensemble_costs_no_earlier_emulator(directory, tmp_path, monkeypatch, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(directory, data)
    (data / "parameter_log.json").write_text("{")
    out.mkdir()
    (out / "checkpoint_best.pt").write_bytes(b"earlier")
    monkeypatch.setattr("sys.argv", ["train.py", "--data-dir", str(data), "--artifacts-dir", str(out), *TINY])
    with pytest.raises(SystemExit) as stop:
        run(train.main)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2 and "parameter_log.json: not readable as JSON" in error
    left = [(path.name, path.read_bytes()) for path in out.iterdir() if path.name != ".lock"]
    assert left == [("checkpoint_best.pt", b"earlier")]


def test_no_ensemble_says_what_to_do_and_writes_nothing(tmp_path):
    done = script("train.py", "--data-dir", tmp_path / "nothing", "--artifacts-dir", tmp_path / "out")
    assert done.returncode == 2 and "run_perturbations.py" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--preset", "best"], "no preset 'best'"),
        (["--train-period", "2015", "2016", "--validation-period", "2016", "2016"], "must follow each other"),
        (["--epochs", "0"], "training.epochs is 0"),
        (["--artifacts-dir", __file__], "is a file; give a folder"),
        (["--max-minutes", "-1"], "--max-minutes is -1"),
        (["--device", "cuda:77"], "use --device cpu"),
        (["--mixed-precision", "--device", "cpu"], "needs a GPU"),
        (["--resume"], "checkpoint_latest.pt: no such file"),
        (["--test-period", "2031", "2032"], "the ensemble covers 2015-01-01 to 2017-12-31"),
    ],
)
def test_bad_flags_are_one_line_and_exit_2(flags, message, directory, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "sys.argv",
        ["x", "--data-dir", str(directory), "--artifacts-dir", str(tmp_path / "a"), "--labels", "trust", *flags],
    )
    with pytest.raises(SystemExit) as stop:
        run(train.main)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2 and error.startswith("error: ") and message in error


def test_killed_and_resumed_ends_as_uninterrupted_bitwise(directory, quick, tmp_path, monkeypatch):
    flags = [*TINY, *quick, "--data-dir", directory, "--hidden-size", 8, "--epochs", 4, "--preset", "specification"]
    run_train([*flags, "--artifacts-dir", tmp_path / "whole"], monkeypatch)

    class Killed(BaseException):
        pass

    original, saved = train.write_json, []

    def killing(path, content):  # after the checkpoints of epoch 2, in the middle of saving
        if path.name == "training_history.json":
            saved.append(path)
            if len(saved) == 2:
                raise Killed
        original(path, content)

    monkeypatch.setattr(train, "write_json", killing)
    with pytest.raises(Killed):
        run_train([*flags, "--artifacts-dir", tmp_path / "parts"], monkeypatch)
    monkeypatch.setattr(train, "write_json", original)
    torch.rand(5)  # another process would have other random numbers
    run_train([*flags, "--artifacts-dir", tmp_path / "parts", "--resume"], monkeypatch)
    histories = [(tmp_path / name / "training_history.json").read_text() for name in ("whole", "parts")]
    assert histories[0] == histories[1]
    for name in ("checkpoint_best.pt", "checkpoint_latest.pt"):
        whole, parts = (
            torch.load(tmp_path / n / name, weights_only=True)["model_state_dict"] for n in ("whole", "parts")
        )
        for key, value in whole.items():
            assert key == "_extra_state" or torch.equal(value, parts[key]), key


def test_resume_refuses_other_settings_and_other_data(directory, quick, tmp_path, monkeypatch):
    flags = [*TINY, *quick, "--hidden-size", 8, "--artifacts-dir", tmp_path / "a"]
    run_train([*flags, "--data-dir", directory], monkeypatch)
    with pytest.raises(train.UserError, match="training.learning_rate 0.00"):
        run_train([*flags, "--data-dir", directory, "--resume", "--learning-rate", 0.5], monkeypatch)
    other = write_ensemble(tmp_path / "other", tiny_ensemble(seed=5))
    with pytest.raises(train.UserError, match="another ensemble"):
        run_train([*flags, "--data-dir", other, "--resume"], monkeypatch)


def test_same_seed_same_result_other_seed_another(directory, quick, tmp_path, monkeypatch):
    histories, flags = [], [*TINY, *quick, "--hidden-size", 8, "--data-dir", directory]
    for i, seed in enumerate((1, 1, 2)):
        run_train([*flags, "--seed", seed, "--artifacts-dir", tmp_path / str(i)], monkeypatch)
        histories.append((tmp_path / str(i) / "training_history.json").read_text())
    assert histories[0] == histories[1] != histories[2]


def test_error_model_rests_on_runs_that_further_networks_have_not_seen(directory, quick, tmp_path, monkeypatch, capsys):
    flags = [*TINY, *quick, "--hidden-size", 8, "--data-dir", directory]
    run_train([*flags, "--artifacts-dir", tmp_path / "few"], monkeypatch)
    run_train([*flags, "--artifacts-dir", tmp_path / "many", "--error-runs", 3], monkeypatch)
    few, many = load_emulator(tmp_path / "few"), load_emulator(tmp_path / "many")
    weights = few.model.state_dict()
    for key, value in many.model.state_dict().items():  # the emulator itself is the same
        assert key == "_extra_state" or torch.equal(value, weights[key]), key
    assert [few.errors.summary[k] for k in ("runs", "kept_back", "cross_fitted")] == [1, 1, 0]
    assert [many.errors.summary[k] for k in ("runs", "kept_back", "cross_fitted")] == [5, 1, 4]  # 2 + 2 of 7 seen ones
    np.testing.assert_array_equal(many.errors.error[:1], few.errors.error)
    ensemble = load_ensemble(directory)
    left_out = [np.flatnonzero((ensemble.parameters == row).all(axis=1)).item() for row in many.errors.parameters]
    assert len(set(left_out)) == 5 and many.errors.distance.min() > 0.0  # never one of its own network's runs
    capsys.readouterr()
    run_train([*flags, "--artifacts-dir", tmp_path / "late", "--error-runs", 3, "--max-minutes", 1e-4], monkeypatch)
    assert "--max-minutes leaves no time" in capsys.readouterr().err
    assert load_emulator(tmp_path / "late").errors.summary["runs"] == 1


def test_cross_fitting_leaves_every_run_out_once():
    _, data, _ = made("recommended")
    assert [folds_needed(data, wanted) for wanted in (0, 1, 2, 3, 8, 1000)] == [0, 0, 1, 2, 3, 3]  # 7 seen: 3 at most
    kept, left_out = zip(*split_seen(data, 5), strict=True)
    assert sorted(np.concatenate(left_out).tolist()) == sorted(data.seen.tolist())
    assert all(not set(a) & set(b) and len(a) + len(b) == 7 for a, b in zip(kept, left_out, strict=True))


def test_two_processes_give_the_loss_curve_of_one(directory, quick, tmp_path, monkeypatch):
    presets, calls = ("recommended", "specification"), []
    for preset in presets:
        flags = ["--preset", preset, "--data-dir", directory, *TINY, *quick, "--hidden-size", 8, "--epochs", 3]
        run_train([*flags, "--artifacts-dir", tmp_path / "one" / preset], monkeypatch)
        calls += [*flags, "--artifacts-dir", tmp_path / "two" / preset, "--"]
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    two = process("tests/two_trainings.py", *calls[:-1], launcher=launcher)
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("trained in") == len(presets)  # only rank 0 speaks and writes
    for preset in presets:
        files = [tmp_path / name / preset / "training_history.json" for name in ("one", "two")]
        a, b = (json.loads(path.read_text()) for path in files)
        for key in ("train_loss", "train_rollout_loss", "val_rollout_rmse_30"):
            assert np.allclose(a[key], b[key], rtol=1e-4, atol=0), (preset, key)


def test_loss_that_is_not_finite_stops_with_advice_and_keeps_the_best(directory, tmp_path, monkeypatch):
    out = tmp_path / "a"
    flags = [*TINY, "--data-dir", directory, "--hidden-size", 8, "--artifacts-dir", out, "--epochs", 3]
    original, calls = train.train.__globals__["stretch_losses"], []

    def breaking(*arguments):
        calls.append(1)
        one_step, free = original(*arguments)
        return one_step, free * (math.nan if len(calls) > 3 else 1.0)

    monkeypatch.setitem(train.train.__globals__, "stretch_losses", breaking)
    with pytest.raises(train.UserError, match=r"nan .* at step 4, learning rate .*--learning-rate .*epoch 1 stays"):
        run_train(flags, monkeypatch)
    assert torch.load(out / "checkpoint_best.pt", weights_only=True)["epoch"] == 1


def test_running_out_of_memory_names_what_to_lower(directory, tmp_path, monkeypatch):
    def full(*arguments):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 TB")

    monkeypatch.setattr(train, "train", full)
    with pytest.raises(train.UserError, match="lower --batch-size"):
        run_train([*TINY, "--data-dir", directory, "--artifacts-dir", tmp_path], monkeypatch)


def test_time_limit_ends_training_annealed(directory, quick, tmp_path, monkeypatch):
    seconds = iter(range(10**6))
    clock = types.SimpleNamespace(monotonic=lambda: float(next(seconds)))  # every look at the clock takes a second
    monkeypatch.setitem(train.train.__globals__, "time", clock)
    flags = [*TINY, *quick, "--data-dir", directory, "--hidden-size", 8, "--artifacts-dir", tmp_path, "--epochs", 5000]
    run_train([*flags, "--max-minutes", 2], monkeypatch)
    history = json.loads((tmp_path / "training_history.json").read_text())
    assert 20 < len(history["epoch"]) < 120
    assert history["learning_rate"][-1] < 0.1 * max(history["learning_rate"])


def test_tensorboard_by_flag(directory, quick, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    flags = [*TINY, *quick, "--data-dir", directory, "--hidden-size", 8, "--artifacts-dir", tmp_path / "a"]
    run_train([*flags, "--tensorboard", tmp_path / "board"], monkeypatch)
    assert list((tmp_path / "board").glob("events*"))
