"""The binary copy of an ensemble: same content, follows every change, made again when damaged, never in the way."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from small_ensemble import DAYS, file_of

from calibration.common.command_line import REPOSITORY, UserError
from calibration.common.units import DAILY_COLUMNS
from calibration.ensembles import store as ensemble_store
from calibration.ensembles.files import load_ensemble


def test_copy_has_the_same_content(ensemble, monkeypatch):
    first = load_ensemble(ensemble)
    monkeypatch.setattr("calibration.ensembles.files._parse_all", lambda *_: pytest.fail("the copy was not used"))
    second = load_ensemble(ensemble)
    for name in ("sample_ids", "dates", "dynamic", "fluxes", "parameters"):
        assert (getattr(first, name) == getattr(second, name)).all(), name
    assert second.fluxes.dtype == first.fluxes.dtype and second.dynamic.dtype == first.dynamic.dtype


def test_copy_follows_a_changed_file_even_with_old_size_and_time(ensemble):
    load_ensemble(ensemble)
    path = file_of(ensemble, 2)
    before = path.stat()
    lines = path.read_text().split("\n")
    fields = lines[4].split(" ")
    fields[14] = "0.5" + fields[14][3:]
    lines[4] = " ".join(fields)
    path.write_text("\n".join(lines))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert load_ensemble(ensemble).fluxes[2, 4, 0] == np.float32(fields[14])


def test_copied_folder_uses_its_copy(ensemble, tmp_path_factory, monkeypatch):
    first = load_ensemble(ensemble)
    copied = tmp_path_factory.mktemp("copied") / "data"
    shutil.copytree(ensemble, copied, copy_function=shutil.copyfile)  # new times
    monkeypatch.setattr("calibration.ensembles.files._parse_all", lambda *_: pytest.fail("the copy was not used"))
    assert (load_ensemble(copied).fluxes == first.fluxes).all()


def test_copy_is_not_used_for_other_samples_or_columns(ensemble):
    load_ensemble(ensemble)
    key = ensemble_store.key(np.arange(4), None)
    files = [file_of(ensemble, i) for i in range(4)]
    assert ensemble_store.read(ensemble / "ensemble.npz", files, key) is not None
    for other in (ensemble_store.key(np.arange(3), None), ensemble_store.key(np.arange(4), DAILY_COLUMNS)):
        assert ensemble_store.read(ensemble / "ensemble.npz", files, other) is None


def test_damaged_copy_is_made_again(ensemble):
    first = load_ensemble(ensemble)
    copy = ensemble / "ensemble.npz"
    copy.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])
    assert (load_ensemble(ensemble).fluxes == first.fluxes).all()
    with np.load(copy) as archive:
        assert archive["fluxes"].shape == first.fluxes.shape


def test_copy_alone_without_text_files(ensemble):
    first = load_ensemble(ensemble)
    for sample in range(4):
        file_of(ensemble, sample).unlink()
    assert (load_ensemble(ensemble).fluxes == first.fluxes).all()
    table = pd.read_csv(ensemble / "parameter_summary.csv")
    table.iloc[[2, 0]].to_csv(ensemble / "parameter_summary.csv", index=False)
    assert (load_ensemble(ensemble).fluxes == first.fluxes[[0, 2]]).all()
    table.loc[0, "sample_id"] = 77
    table.to_csv(ensemble / "parameter_summary.csv", index=False)
    with pytest.raises(UserError, match="holds no sample 77"):
        load_ensemble(ensemble)


def test_two_processes_may_start_at_once(ensemble):
    code = (
        "from calibration.ensembles.files import load_ensemble; "
        f"print(load_ensemble({str(ensemble)!r}).fluxes.sum(dtype='f8'))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    sums = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert sums == {f"{load_ensemble(ensemble).fluxes.sum(dtype='f8')}\n"}
    assert [path.name for path in ensemble.iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_costs_only_the_copy(ensemble, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ensemble_store, "write", full)
    assert load_ensemble(ensemble).fluxes.shape == (4, DAYS, 4)
    assert "no binary copy left (No space left on device)" in capsys.readouterr().err
