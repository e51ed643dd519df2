"""Strange machines: a path with every sign, another working directory, LANG=C, a source tree that cannot be written,
no GPU, line ends of Windows.
"""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fuzz_readers import readers

from calibration.common.command_line import REPOSITORY
from calibration.common.scalers import Scaler
from calibration.common.sites import load_site
from calibration.common.units import DYNAMIC_FEATURES
from calibration.weather.daily import generate_weather, write_weather_csv

BINARY = ("windows .npz", "scaler pickle")
WITHOUT_MARK = ("parameter file", "forcing text")  # VISIT's own programs write no byte order mark, and read none


def run(name: str, *arguments: object, **options) -> subprocess.CompletedProcess:
    """A script as on a machine that speaks no language but ASCII's and has no GPU."""
    plain = {"LANG": "C", "LC_ALL": "C", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    # The kernels that OpenBLAS was told to take decide the last digits: a run is compared with others of this machine.
    plain |= {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("OPENBLAS_")}
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
