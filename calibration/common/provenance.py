"""How a result was made: command, time, versions and hashes of the inputs, left beside it.

A folder of results holds <script>_record.json; a file that may lie beside others of its kind has one of its own,
<file>.<script>_record.json.
"""

import contextlib
import hashlib
import importlib.metadata
import platform
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from calibration.common.command_line import REPOSITORY, write_json

PACKAGES = ("numpy", "scipy", "pandas", "torch", "numba", "SALib")
STANDS_FOR_A_FOLDER = ("checkpoint_best.pt", "parameter_summary.csv")  # of an emulator, of an ensemble
SUFFIX = "_record.json"
STEPS = "steps.csv"  # of a whole path: step, script, seconds, seed, command


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, of what stands for a folder (its weights or its parameters), '' where nothing is."""
    path = Path(path)
    if path.is_dir():
        path = next((path / name for name in STANDS_FOR_A_FOLDER if (path / name).is_file()), path)
    if not path.is_file():
        return ""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def script_of(record: str | Path) -> str:
    """The script that left a record, without .py.

    >>> script_of("results/test_inversion_record.json"), script_of("nep_obs.csv.prepare_observation_nep_record.json")
    ('test_inversion', 'prepare_observation_nep')
    """
    return Path(record).name.removesuffix(SUFFIX).rpartition(".")[2]


def records_of(directory: str | Path, script: str = "*") -> list[Path]:
    """The records in a folder, of all scripts or of one."""
    return sorted({*Path(directory).glob(f"{script}{SUFFIX}"), *Path(directory).glob(f"*.{script}{SUFFIX}")})


def write_record(
    directory: str | Path, began: float, inputs: Mapping[str, str | Path | None], output: str = "", **known: Any
) -> None:
    """Write the record of what the script left in `directory`; `output`: name of the file there that is the result.

    began: time.perf_counter() at the start; inputs: name -> file or folder (None: not given); known: seeds and whatever
    else decides the result, as plain values.
    """
    script = Path(sys.argv[0])
    of_file = {"output": output} if output else {}
    write_json(Path(directory) / f"{output}{'.' if output else ''}{script.stem}{SUFFIX}", {
        "command": shlex.join(["python", script.name, *sys.argv[1:]]),
        "arguments": sys.argv[1:], "working_directory": str(Path.cwd()),
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - began, 1), **of_file, **known,
        "tool": tool(), "threads": threads(), "versions": versions(),
        "inputs": {name: _input(Path(path)) for name, path in inputs.items() if path},
    })  # fmt: skip


def tool() -> dict[str, str]:
    """Version of these scripts, and the git commit ("-dirty": with changes); '' without a checkout or git."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    commit = ""
    if (REPOSITORY / ".git").exists():  # else git would answer for a checkout around this folder
        command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            commit = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    return {"version": project["version"], "commit": commit}


def threads() -> int | None:
    """Threads of torch, which decide the last digits of a training; None where the script did not load it."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None


def _input(path: Path) -> dict[str, str]:
    """Path and hash; of a configuration its text too, which may be edited later."""
    found = {"path": str(path), "sha256": sha256(path)}
    if path.suffix in (".yaml", ".yml") and path.is_file():
        found["content"] = path.read_text(encoding="utf-8", errors="replace")
    return found


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}
