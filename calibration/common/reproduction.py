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

from calibration.common.command_line import REPOSITORY, UserError, existing_file, read_json, warn
from calibration.common.provenance import SUFFIX, sha256, versions

TOLERANCE = 1e-6
# Flags that do not belong to a second run: value flags with their value, and switches.
LEFT_OUT = {"--param-save": 1, "--resume": 0, "--overwrite": 0, "--report": 0}
TIMES = ("seconds", "finished", "created", "date_created", "made")  # names, or their beginnings, of what always differs
TIME = re.compile(r"\d s\b|seconds")  # in a line of text
NOT_NUMBERS = (".png", ".svg", ".pdf", ".html", ".pkl", ".nc")  # drawn or converted from files that are compared


def add_reproduce(parser: argparse.ArgumentParser, flag: str) -> None:
    """Add --reproduce to a script that writes a record; `flag`: of the folder that its results go to."""

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
    """Lines to print and the exit code: 0 where all numbers agree.

    UserError when there is no record, an input has changed since, or the script fails now.
    """
    record = read_json(existing_file(directory / f"{script}{SUFFIX}", f"{script}.py leaves it with its results"))
    if not isinstance(record, dict) or not isinstance(record.get("arguments"), list):
        raise UserError(f"{directory / f'{script}{SUFFIX}'}: holds no 'arguments', so an earlier version made it")
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
        arguments = second_arguments(record["arguments"], flag, again)
        command = [sys.executable, str(REPOSITORY / f"{script}.py"), *arguments]
        done = subprocess.run(command, cwd=where, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise UserError(f"{script}.py fails now with what made {directory}: {said}")
        found = compare_folders(directory, again, SUFFIX)
    lines = [f"{name}: {verdict(difference)}" for name, difference in found.items()]
    bad = sum(difference > TOLERANCE for difference in found.values())
    lines.append(f"{len(found) - bad} of {len(found)} files of {directory} come out the same, {bad} do not")
    return lines, 1 if bad or not found else 0


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
            skip = 0 if given else LEFT_OUT.get(name, 1)
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
    found = {}
    for path in sorted(again.rglob("*")):
        name = path.relative_to(again).as_posix()
        hidden = any(part.startswith(".") for part in path.relative_to(again).parts)
        if path.is_file() and not hidden and path.suffix not in NOT_NUMBERS and not name.endswith(leave_out):
            found[name] = difference(before / name, path, (str(before), str(again)))
    return found


def difference(first: Path, second: Path, folders: tuple[str, str]) -> float:
    """Largest relative difference of two files' values; inf where one lacks what the other has.

    folders: names of the two result folders, which texts may mention.
    """
    try:
        a, b = (dict(_values(path, folder)) for path, folder in zip((first, second), folders, strict=True))
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


def _values(path: Path, folder: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name -> array of what a file holds, without times."""
    if path.suffix == ".json":
        yield from _leaves("", json.loads(path.read_text(encoding="utf-8").replace(folder, "")))
    elif path.suffix == ".csv":
        for name, column in pd.read_csv(path).items():
            if not str(name).startswith(TIMES):
                yield str(name), column.fillna("").to_numpy() if column.dtype.kind not in "fiub" else column.to_numpy()
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            yield from ((name, archive[name]) for name in archive.files if name != "meta")
    elif path.suffix == ".pt":
        import torch  # slow to import: only where there are weights

        for name, weights in torch.load(path, map_location="cpu", weights_only=True)["model_state_dict"].items():
            if isinstance(weights, torch.Tensor):
                yield name, weights.numpy()
    else:
        lines = path.read_text(encoding="utf-8").replace(folder, "").splitlines()
        yield "text", np.array([line for line in lines if not TIME.search(line)], dtype=str)


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
