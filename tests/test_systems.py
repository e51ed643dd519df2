"""Where the scripts run: read-only installations, closed pipes, noisy libraries."""

import os
import subprocess
import sys

import pytest

from calibration.common.command_line import REPOSITORY
from calibration.visit.compile_cache import prepare_cache


def test_a_reader_that_leaves_is_no_error(tmp_path):
    command = f"{sys.executable} weather.py --output {tmp_path}/w.csv --start 2015-01-01 --end 2015-03-01 | head -1"
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert result.stderr == "" and result.stdout.startswith("wrote ") and result.returncode in (0, 141)


@pytest.fixture
def no_place(tmp_path, monkeypatch):
    """Neither the source tree nor the home folder can be written (a file stands where a folder should be)."""
    (tmp_path / "source").mkdir()
    for name in ("source/__pycache__", "home"):
        (tmp_path / name).write_text("")
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield tmp_path
    os.environ.pop("NUMBA_CACHE_DIR", None)


def test_compiled_code_goes_to_a_private_folder_in_a_read_only_installation(no_place):
    assert prepare_cache(no_place / "source")
    folder = os.environ["NUMBA_CACHE_DIR"]
    assert folder.startswith(str(no_place)) and os.stat(folder).st_mode & 0o077 == 0
    del os.environ["NUMBA_CACHE_DIR"]
    os.chmod(folder, 0o777)  # somebody else could put code there
    assert prepare_cache(no_place / "source") and os.environ["NUMBA_CACHE_DIR"] != folder


def test_a_usual_installation_keeps_numbas_own_places(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert prepare_cache(tmp_path) and "NUMBA_CACHE_DIR" not in os.environ
