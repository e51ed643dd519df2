"""Strange machines: a path with every sign, another working directory, LANG=C, a source tree that cannot be written,
no GPU, line ends of Windows; and results that are made again from their record.
"""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fuzz_readers import readers

from calibration.common.command_line import REPOSITORY, UserError
from calibration.common.reproduction import TOLERANCE, compare_folders, reproduce, second_arguments
from calibration.common.scalers import Scaler
from calibration.common.sites import load_site
from calibration.common.units import DYNAMIC_FEATURES
from calibration.weather.daily import generate_weather, write_weather_csv

BINARY = ("windows .npz", "scaler pickle")
WITHOUT_MARK = ("parameter file", "forcing text")  # VISIT's own programs write no byte order mark, and read none


def run(name: str, *arguments: object, **options) -> subprocess.CompletedProcess:
    """A script as on a machine that speaks no language but ASCII's and has no GPU."""
    plain = {"LANG": "C", "LC_ALL": "C", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    plain["PATH"] = os.environ["PATH"]
    command = [sys.executable, str(REPOSITORY / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, env=plain, timeout=300, **options)


def test_a_path_with_every_sign_in_another_folder_under_lang_c(tmp_path):
    folder = tmp_path / "Übung 100% {x} $HOME 'a' μ"
    folder.mkdir()
    made = generate_weather(load_site(), "2011-01-01", "2012-12-31", seed=3)
    write_weather_csv(folder / "w.csv", made)
    days = pd.date_range("2012-01-01", periods=90).strftime("%Y-%m-%d")
    pd.DataFrame({"date": days, "nee_gcm2": -2.0, "nee_source": "NEE", "nee_qc": 0.0, "nep_mg_ha": 0.02,
                  "obs_mask": 1}).to_csv(folder / "nep.csv", index=False)  # fmt: skip
    Scaler.fit(DYNAMIC_FEATURES, made.values).save(folder / "scaler_dynamic.json")
    done = run("build_observation_windows.py", "--daily", "w.csv", "--obs", "nep.csv", "--artifacts-dir", ".",
               "--scaler", "scaler_dynamic.json", "--output", "out/w.npz", cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out" / "w.npz", allow_pickle=False) as arrays:
        assert len(arrays["window_start"]) == 61
    wrong = run("build_observation_windows.py", "--daily", folder / "none.csv", "--obs", folder / "nep.csv", "--scaler",
                folder / "scaler_dynamic.json", cwd=tmp_path)  # fmt: skip
    assert wrong.returncode == 2 and b"none.csv: no such file" in wrong.stderr and b"Traceback" not in wrong.stderr


@pytest.mark.parametrize("name", ["kill_scripts.py", "fuzz_readers.py", "fuzz_by_coverage.py", "load_check.py"])
def test_checks_that_are_run_by_hand_start_as_their_first_line_says(tmp_path, name):
    done = run(f"tests/{name}", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"usage: " + name.encode() in done.stdout


def test_compiled_code_finds_a_place_although_numba_was_imported_first(tmp_path):
    """As a user without a home, of a source tree that is read-only: numba reads its setting when it is imported."""
    code = (
        "import numba\nfrom pathlib import Path\nfrom calibration.visit import compile_cache\n"
        "compile_cache._can_write = lambda folder: False\nassert compile_cache.prepare_cache()\n"
        "print(numba.config.CACHE_DIR)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY,
                          env=environment | {"TMPDIR": str(tmp_path)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == tmp_path


@pytest.mark.parametrize(("name", "change"), [
    (name, change) for name in readers() for change in ("line ends of Windows", "a byte order mark")
    if name not in BINARY and (change.startswith("line") or name not in WITHOUT_MARK)
])  # fmt: skip
def test_a_file_from_windows_says_the_same(tmp_path, name, change):
    file, good, read = readers()[name]
    path = tmp_path / file
    with redirect_stderr(io.StringIO()):
        path.write_bytes(good)
        expected = read(path)
        path.write_bytes(good.replace(b"\n", b"\r\n") if change.startswith("line") else b"\xef\xbb\xbf" + good)
        found = read(path)
    if name == "parameter file":
        found = found.replace(b"\r\n", b"\n")
    assert _plain(found) == _plain(expected)


def _plain(value: object) -> str:
    with np.printoptions(threshold=10**6, precision=17):
        return repr(value)


# ---- made again


def test_what_belongs_to_the_first_run_only_is_left_out():
    given = ["--sample-id", "3", "--result-dir", "a b", "--param-save", "p.json", "--overwrite", "--seed=4", "--report"]
    assert second_arguments(given, "--result-dir", Path("new")) == [
        "--sample-id", "3", "--seed=4", "--result-dir", "new",
    ]  # fmt: skip


def test_an_inversion_is_made_again_from_its_record(tiny_training, tmp_path, monkeypatch):
    result = tmp_path / "a result"
    arguments = ["--mode", "simulation", "--sample-id", "0", "--starts", "2", "--no-plots", "--artifacts-dir",
                 tiny_training / "artifacts", "--data-dir", tiny_training / "data", "--result-dir", result]  # fmt: skip
    done = run("test_inversion.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((result / "test_inversion_record.json").read_text())
    assert record["arguments"] == [str(a) for a in arguments] and record["working_directory"] == str(tmp_path)
    inputs = record["inputs"]
    assert len(inputs["emulator"]["sha256"]) == 64 and "method:" in inputs["configuration"]["content"]
    lines, code = reproduce("test_inversion", result, "--result-dir")
    assert code == 0, lines
    assert {line.split(": ")[1] for line in lines[:-1]} == {"identical"} and len(lines) > 8

    table = pd.read_csv(result / "parameter_values.csv")
    table.loc[0, "optimized"] *= 1.001
    table.to_csv(result / "parameter_values.csv", index=False)
    record["inputs"]["configuration"]["sha256"] = "0" * 64
    (result / "test_inversion_record.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="is not what it was when .* was made"):
        reproduce("test_inversion", result, "--result-dir")
    (result / "test_inversion_record.json").write_text("{}")
    with pytest.raises(UserError, match="holds no 'arguments'"):
        reproduce("test_inversion", result, "--result-dir")
    with pytest.raises(UserError, match="no such file; train.py leaves it"):
        reproduce("train", result, "--artifacts-dir")


def test_differences_are_found_and_sized(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, factor in ((first, 1.0), (second, 1.0 + 1e-9)):
        folder.mkdir()
        pd.DataFrame({"x": [1.0, 2.0 * factor], "word": ["p", "q"], "seconds": [factor, 1]}).to_csv(
            folder / "t.csv", index=False
        )
        np.savez(folder / "a.npz", x=np.array([1.0, np.nan, factor]))
        (folder / "j.json").write_text(json.dumps({"a": [1, 2], "seconds": factor, "b": {"c": str(folder)}}))
        (folder / "s.txt").write_text(f"in {folder}\ntime {factor} s\n")
        (folder / "p.png").write_bytes(str(folder).encode())
    found = compare_folders(first, second, "_record.json")
    assert found.pop("j.json") == 0 and found.pop("s.txt") == 0
    assert set(found) == {"t.csv", "a.npz"} and all(0 < value < TOLERANCE for value in found.values())
    (second / "j.json").write_text(json.dumps({"a": [1, 3], "b": {"c": str(second)}}))
    (second / "extra.csv").write_text("x\n1\n")
    (second / "s.txt").write_text("other\n")
    found = compare_folders(first, second, "_record.json")
    assert found["j.json"] == 0.5 and found["extra.csv"] == np.inf and found["s.txt"] == np.inf
