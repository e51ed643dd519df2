"""Kills, full disks, folders that cannot be written, two processes at once: earlier results stay whole, and it is said.

kill_scripts.py does the same to every script, fifty times; its table is in docs/reliability.md.
"""

import multiprocessing
import resource
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from emulator_examples import TINY
from kill_scripts import Count, Scene, compare, content, harass
from matplotlib.figure import Figure

import train
from calibration.common.command_line import UserError, write_csv, write_json, write_text
from calibration.common.figure_style import save_figure
from calibration.common.folder_lock import only_process_in
from calibration.common.scalers import Scaler
from calibration.common.sites import load_site
from calibration.common.units import DYNAMIC_FEATURES, TARGETS
from calibration.emulator.record import save_checkpoint
from calibration.ensembles import store
from calibration.inversion.posterior import save_arviz
from calibration.reports.content import GOOD, Section, Text
from calibration.reports.page import render
from calibration.tower.windows import Windows
from calibration.weather.daily import generate_weather, write_weather_csv
from calibration.weather.daily_text import write_daily_file

WEATHER = generate_weather(load_site(), "2011-01-01", "2012-12-31", seed=11)


# ---- SIGKILL


@pytest.fixture(scope="module")
def windows_scene(tmp_path_factory):
    """build_observation_windows.py over an earlier file with other windows."""
    root = tmp_path_factory.mktemp("windows")
    write_weather_csv(root / "w.csv", WEATHER)
    days = pd.date_range("2012-01-01", "2012-12-31").strftime("%Y-%m-%d")
    pd.DataFrame({"date": days, "nee_gcm2": -2.0, "nee_source": "NEE", "nee_qc": 0.0, "nep_mg_ha": 0.02,
                  "obs_mask": 1}).to_csv(root / "nep.csv", index=False)  # fmt: skip
    Scaler.fit(DYNAMIC_FEATURES, WEATHER.values).save(root / "artifacts" / "scaler_dynamic.json")
    (root / "earlier").mkdir()
    (root / "earlier" / "w.npz").write_bytes(b"an earlier file")
    return root, lambda out: [
        "build_observation_windows.py", "--daily", root / "w.csv", "--obs", root / "nep.csv", "--artifacts-dir",
        root / "artifacts", "--output", out / "w.npz",
    ]  # fmt: skip


def test_killed_while_windows_are_built(windows_scene, tmp_path):
    root, command = windows_scene
    scene = Scene("windows", command)
    count = harass(scene, tmp_path, 2, np.random.default_rng(3))
    assert count.kills == 2 and count.finished >= 1 and count.faults == []


def test_killed_while_training(tiny_training, tmp_path):
    def command(folder):
        resume = ["--resume"] if (folder / "checkpoint_latest.pt").is_file() else []
        return ["train.py", "--data-dir", tiny_training / "data", "--artifacts-dir", folder, *TINY, "--hidden-size", 8,
                *resume]  # fmt: skip

    count = harass(Scene("training", command), tmp_path, 1, np.random.default_rng(5))
    assert count.kills == 1 and count.finished >= 1 and count.faults == []


def test_the_judge_of_the_kills_sees_damage(tmp_path):
    """What a kill could leave, and what must not pass for whole."""
    for name, damaged in (
        ("a.json", b'{"x": 1'), ("a.npz", b"PK\x03\x04 cut"), ("a.pt", b"PK"), ("a.html", b"<html><body>"),
        ("a.txt", b"half a li"), ("a.csv", b""), ("a.png", b"\x89PNG\r\n"), ("a.pkl", b"\x80\x04"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(Exception):  # noqa: B017 (each format has its own)
            content(tmp_path / name)
    for folder, words in (("one", ["kept", "lost"]), ("two", ["kept", "found"])):
        for word in words:
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{word}.json").write_text(f'{{"folder": "{folder}", "seconds": {len(words)}}}')
    count = Count()
    compare(tmp_path / "one", tmp_path / "two", count)
    assert [fault.split(": ")[1] for fault in count.faults] == [
        "found.json is too much", "lost.json is missing", "kept.json differs from the undisturbed run's",
    ]  # fmt: skip


# ---- a disk that takes no more


@contextmanager
def full_disk(limit: int = 300):
    """Files of this process can grow to `limit` bytes: the next write answers 'file too large', as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _windows() -> Windows:
    zeros = np.zeros((4, 30, 10), dtype=np.float32)
    flux, mask = np.zeros((4, 30, 4), dtype=np.float32), np.ones((4, 30), dtype=bool)
    return Windows(
        np.zeros((4, 180, 10), dtype=np.float32), zeros, flux, mask, np.ones((4, 30, 4), dtype=bool),
        np.array(["2012-01-01"] * 4, dtype="datetime64[D]"), DYNAMIC_FEATURES, TARGETS, np.zeros(10), np.ones(10),
    )  # fmt: skip


def _figure() -> Figure:
    figure = Figure()
    figure.add_subplot().plot(np.random.default_rng(0).random(500))
    return figure


_POSTERIOR = SimpleNamespace(
    names=("a",), physical=np.random.default_rng(0).random((2000, 1)), chains=None, diagnostics=None
)
_DAYS = np.datetime64("2012-01-01") + np.arange(50)
WRITERS = {
    "x.json": lambda path: write_json(path, list(range(1000))),
    "x.csv": lambda path: write_csv(path, pd.DataFrame(np.random.default_rng(0).random((100, 5)))),
    "x.npz": lambda path: _windows().save(path),
    "ensemble.npz": lambda path: store.write(
        path, store.key(np.arange(2), None), WEATHER.dates, WEATHER.values, np.zeros((2, 731, 4), np.float32)
    ),
    "x.pt": lambda path: save_checkpoint(path, {"weights": torch.rand(1000)}),
    "x.png": lambda path: save_figure(_figure(), path.with_suffix("")),
    "x.nc": lambda path: save_arviz(
        path, _POSTERIOR, {"nep": np.zeros((2000, 50))}, _DAYS, {"nep": np.zeros(50)}
    ),
    "x.html": lambda path: write_text(path, render("title", [Section("s", GOOD, "v", [], [Text("t" * 5000)], [])])[0]),
    "x_daily_0000.txt": lambda path: write_daily_file(path, WEATHER.dates, WEATHER.values, np.zeros((731, 4)), {}),
    "weather.csv": lambda path: write_weather_csv(path, WEATHER),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_said_and_costs_nothing(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"the earlier result")
    with full_disk(), pytest.raises(UserError, match=rf"{name}: cannot be written \(.*\); make room"):
        WRITERS[name](path)
    assert path.read_bytes() == b"the earlier result"
    assert [found.name for found in tmp_path.iterdir()] == [name]  # no rubbish that fills the disk further
    WRITERS[name](path)
    assert path.stat().st_size > 300


def run_training(monkeypatch, folder, out):
    arguments = ["--data-dir", str(folder / "data"), "--artifacts-dir", str(out), *TINY]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    return train.main()


@pytest.mark.parametrize("how", ["limit", "usage"])
def test_a_full_disk_costs_no_earlier_emulator(tiny_training, tmp_path, monkeypatch, how):
    out = shutil.copytree(tiny_training / "artifacts", tmp_path / "artifacts")
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}
    if how == "limit":
        with full_disk(20_000), pytest.raises(UserError, match="checkpoint_latest.pt: cannot be written"):
            run_training(monkeypatch, tiny_training, out)
    else:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50_000))
        with pytest.raises(UserError, match="0 MB free, training needs"):
            run_training(monkeypatch, tiny_training, out)
        before.pop("checkpoint_latest.pt")  # of the training that was begun
    assert {name: (out / name).read_bytes() for name in before} == before


# ---- two at once, and folders that cannot be written


def _hold(folder, held, go):
    lock = only_process_in(folder, "train.py")
    held.set()
    go.wait(60)
    del lock


def test_a_second_training_in_one_folder_is_refused(tiny_training, tmp_path, monkeypatch):
    context = multiprocessing.get_context("fork")
    held, go = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, held, go))
    other.start()
    assert held.wait(60)
    with pytest.raises(UserError, match=r"another train.py is writing here; wait for it or stop it"):
        run_training(monkeypatch, tiny_training, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    other.kill()  # a lock ends with its process, however that ends
    other.join()
    only_process_in(tmp_path, "train.py").release()


def test_a_lock_is_given_back_and_a_file_in_its_place_is_named(tmp_path):
    first = only_process_in(tmp_path / "new", "train.py")
    with pytest.raises(UserError, match="another train.py is writing here"):
        only_process_in(tmp_path / "new", "train.py")
    first.release()
    only_process_in(tmp_path / "new", "train.py").release()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: cannot be written \(File exists\)"):
        only_process_in(tmp_path / "file", "train.py")


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    """Root may write anywhere, so the refusal is made: every way of making a file there answers 'permission denied'."""
    path = tmp_path / "x.json"
    path.write_text("{}")

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(tempfile, "mkstemp", denied)
    with pytest.raises(UserError, match=r"x.json: cannot be written \(Permission denied\); give another place"):
        write_json(path, {"a": 1})
    assert path.read_text() == "{}" and Path(path).exists()
