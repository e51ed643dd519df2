"""--reproduce RESULT_DIR: run a script again as its record says, elsewhere, and compare the results number by number.

On the same machine with the same versions the same seed gives the same bits. Other processors and versions round
otherwise: what is then called the same agrees within TOLERANCE of the largest value of its column or array.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from calibration.common.command_line import REPOSITORY, UserError, existing_file, read_arrays, read_json, warn
from calibration.common.provenance import SUFFIX, records_of, sha256, versions

TOLERANCE = 1e-6
# Flags that do not belong to a second run: value flags with their value, and switches.
LEFT_OUT = {"--param-save": 1, "--daily-dir": 1, "--resume": 0, "--overwrite": 0, "--report": 0, "--strict": 0}
TIMES = ("seconds", "finished", "created", "date_created", "made")  # names, or their beginnings, of what always differs
TIME = re.compile(r"\d s\b|seconds")  # in a line of text
# Drawn or converted from files that are compared; where there is nothing else, their bytes are.
NOT_NUMBERS = (".png", ".svg", ".pdf", ".html", ".pkl", ".nc")


def add_reproduce(parser: argparse.ArgumentParser, flag: str) -> None:
    """Add --reproduce to a script that writes records; `flag`: of the folder or file that its results go to."""

    class Reproduce(argparse.Action):
        """Like --help: done at once, whatever else is given."""

        def __call__(self, parser, namespace, values, option_string=None) -> NoReturn:
            """Run again, compare, print a line a file, end."""
            lines, code = reproduce(Path(sys.argv[0]).stem, Path(values), flag)
            print("\n".join(lines))
            parser.exit(code)

    parser.add_argument(
        "--reproduce", metavar="RESULT_DIR", action=Reproduce, default=argparse.SUPPRESS,
        help="run again what made RESULT_DIR, in a temporary folder, and compare; exit code 1 where numbers differ",
    )  # fmt: skip


def reproduce(script: str, directory: Path, flag: str) -> tuple[list[str], int]:
    """Lines to print and the exit code: 0 where all numbers of all results of `script` in `directory` agree.

    UserError when there is no record, an input has changed since, or the script fails now.
    """
    records = records_of(directory, script)
    if not records:
        existing_file(directory / f"{script}{SUFFIX}", f"{script}.py leaves it with its results")
    found: dict[str, float] = {}
    for path in records:
        found |= compare_again(script, directory, path, flag)
    lines = [f"{name}: {verdict(difference)}" for name, difference in found.items()]
    bad = sum(difference > TOLERANCE for difference in found.values())
    lines.append(f"{len(found) - bad} of {len(found)} files of {directory} come out the same, {bad} do not")
    return lines, 1 if bad or not found else 0


def compare_again(script: str, directory: Path, path: Path, flag: str) -> dict[str, float]:
    """Run what the record `path` tells of, elsewhere: file -> largest difference, as compare_folders()."""
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("arguments"), list):
        raise UserError(f"{path}: holds no 'arguments', so an earlier version made it")
    before = Path(record.get("working_directory", "."))
    where = before if before.is_dir() else Path.cwd()
    for name, item in record.get("inputs", {}).items():
        if item["sha256"] and sha256(where / item["path"]) != item["sha256"]:
            raise UserError(
                f"{item['path']} ({name}) is not what it was when {directory} was made (SHA-256 "
                f"{item['sha256'][:12]}...); restore it"
            )
    others = [f"{k} {v} (now {versions().get(k)})" for k, v in record["versions"].items() if versions().get(k) != v]
    if others:
        warn(f"made with {', '.join(others)}: numbers may differ in their last digits")
    with tempfile.TemporaryDirectory(prefix="reproduced-") as temporary:
        again = Path(temporary) / "again"
        # Scripts that write one file are given its name in the other folder.
        arguments = second_arguments(record["arguments"], flag, again / Path(record.get("output", "")).name)
        command = [sys.executable, str(REPOSITORY / f"{script}.py"), *arguments]
        done = subprocess.run(command, cwd=where, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise UserError(f"{script}.py fails now with what made {directory}: {said}")
        return compare_folders(directory, again, SUFFIX)


def second_arguments(arguments: Sequence[str], flag: str, directory: Path) -> list[str]:
    """The command line of a second run: into `directory`, and without what would touch other files.

    >>> second_arguments(["--seed", "1", "--result-dir=a", "--report"], "--result-dir", Path("b"))
    ['--seed', '1', '--result-dir', 'b']
    """
    kept, skip = [], 0
    for word in arguments:
        name, given, _ = word.partition("=")
        if skip:
            skip -= 1
        elif name == flag or name in LEFT_OUT:
            skip = 0 if given else 1 if name == flag else LEFT_OUT[name]
        else:
            kept.append(word)
    return [*kept, flag, str(directory)]


def verdict(difference: float) -> str:
    """A difference in words."""
    if difference == 0:
        return "identical"
    if not np.isfinite(difference):
        return "differs: other entries, missing or not readable"
    return f"{'the same within' if difference <= TOLERANCE else 'differs by'} {difference:.1e}"


def compare_folders(before: Path, again: Path, leave_out: str) -> dict[str, float]:
    """File -> largest difference, relative to the largest value beside it, for every file with numbers in `again`."""
    files = [
        path for path in sorted(again.rglob("*")) if path.is_file() and not path.name.endswith(leave_out)
        and not any(part.startswith(".") for part in path.relative_to(again).parts)
    ]  # fmt: skip
    numbers = [path for path in files if path.suffix not in NOT_NUMBERS]
    names = [path.relative_to(again).as_posix() for path in numbers or files]
    return {name: difference(before / name, again / name, (str(before), str(again))) for name in names}


def difference(first: Path, second: Path, folders: tuple[str, str]) -> float:
    """Largest relative difference of two files' values; inf where one lacks what the other has.

    folders: names of the two result folders, which either text may mention: inputs may lie beside the first result.
    """
    if second.suffix in NOT_NUMBERS:
        return 0.0 if first.is_file() and first.read_bytes() == second.read_bytes() else np.inf
    try:
        a, b = (dict(_values(path, folders)) for path in (first, second))
    except (OSError, ValueError, UnicodeDecodeError):
        return np.inf
    if a.keys() != b.keys():
        return np.inf
    return max((_apart(a[name], b[name]) for name in a), default=0.0)


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape or a.dtype.kind in "OUS" or b.dtype.kind in "OUS":
        return 0.0 if a.shape == b.shape and (a == b).all() else np.inf
    if np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
        return 0.0
    if a.dtype.kind not in "fiu" or (np.isnan(a) != np.isnan(b)).any():
        return np.inf
    return float(np.nanmax(np.abs(a.astype(float) - b)) / max(np.nanmax(np.abs(a)), 1e-300))


def _values(path: Path, folders: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Name -> array of what a file holds, without times and without the names of `folders`."""
    if path.suffix == ".json":
        yield from _leaves("", json.loads(_text(path, folders)))
    elif path.suffix == ".csv":
        for name, column in pd.read_csv(path).items():
            if not str(name).startswith(TIMES):
                yield str(name), column.fillna("").to_numpy() if column.dtype.kind not in "fiub" else column.to_numpy()
    elif path.suffix == ".npz":
        yield from ((name, array) for name, array in read_arrays(path).items() if name != "meta")
    elif path.suffix == ".pt":
        import torch  # slow to import: only where there are weights

        for name, weights in torch.load(path, map_location="cpu", weights_only=True)["model_state_dict"].items():
            if isinstance(weights, torch.Tensor):
                yield name, weights.numpy()
    else:
        lines = _text(path, folders).splitlines()
        yield "text", np.array([line for line in lines if not TIME.search(line)], dtype=str)


def _text(path: Path, leave_out: Sequence[str]) -> str:
    text = path.read_text(encoding="utf-8")
    for name in leave_out:
        text = text.replace(name, "")
    return text


def _leaves(name: str, value: Any) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if not str(key).startswith(TIMES) and key not in ("command", "training_seconds", "versions"):
                yield from _leaves(f"{name}.{key}", item)
    elif isinstance(value, list) and not all(isinstance(item, int | float) for item in value):
        for i, item in enumerate(value):
            yield from _leaves(f"{name}.{i}", item)
    else:
        yield name, np.asarray(value if value is not None else "null")
