"""Reading what scripts left, with one line of help where a file is missing, damaged or of another version."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from calibration.common.command_line import REPOSITORY, UserError, existing_file, read_json, read_table
from calibration.common.provenance import records_of, script_of, sha256
from calibration.reports.content import Facts, Picture

PICTURES = (".svg", ".png")  # what a browser shows, the sharper one first


def table(path: Path, columns: Sequence[str], script: str, may_be_empty: bool = False) -> pd.DataFrame:
    """A CSV of `script` with at least `columns`. UserError when it is missing, damaged, empty or of another version."""
    frame = read_table(path, f"half a result: run {script} again")
    missing = [name for name in columns if name not in frame]
    if missing:
        raise UserError(f"{path}: column '{missing[0]}' is missing, so another version made it: run {script} again")
    if frame.empty and not may_be_empty:
        raise UserError(f"{path}: holds no rows; run {script} again")
    return frame


def content(path: Path, keys: Sequence[str], script: str) -> dict[str, Any]:
    """A JSON object of `script` with at least `keys`. UserError as table()."""
    existing_file(path, f"half a result: run {script} again")
    found = read_json(path)
    missing = [key for key in keys if not isinstance(found, dict) or key not in found]
    if missing:
        raise UserError(f"{path}: '{missing[0]}' is missing, so another version made it: run {script} again")
    return found


def text(path: Path, script: str) -> str:
    """A text file of `script`, not empty."""
    existing_file(path, f"half a result: run {script} again")
    found = path.read_text(encoding="utf-8", errors="replace")
    if not found.strip():
        raise UserError(f"{path}: is empty; run {script} again")
    return found


def pictures(directory: Path, wanted: dict[str, str], prefix: str = "") -> list[Picture]:
    """The figures of `wanted` (name without suffix -> caption) that exist as SVG or PNG."""
    found = []
    for name, caption in wanted.items():
        for suffix in PICTURES:
            path = directory / f"{prefix}{name}{suffix}"
            if path.is_file():
                found.append(Picture(path, caption, caption.split(".")[0]))
                break
    return found


def where(path: str | Path) -> Path:
    """A path that a result mentions: as it is, or below the repository."""
    path = Path(path)
    return path if path.is_absolute() or path.exists() else REPOSITORY / path


def records(directory: Path, of: str = "") -> list[Facts]:
    """What scripts recorded of themselves in `directory`: command, times, seeds, versions, hashes of the inputs.

    of: beginning of a result's file name: its records alone, where several results lie beside each other.
    """
    found = []
    for path in (path for path in records_of(directory) if path.name.startswith(of)):
        record = content(path, ("command", "versions", "inputs"), f"{script_of(path)}.py")
        items = [(key, str(value)) for key, value in record.items() if key not in ("versions", "inputs", "tool")]
        items += [(f"{key} of these scripts", value) for key, value in record.get("tool", {}).items() if value]
        items.append(("versions", ", ".join(f"{name} {version}" for name, version in record["versions"].items())))
        items += [(f"SHA-256 of {name}: {item['path']}", item["sha256"]) for name, item in record["inputs"].items()]
        found.append(Facts(f"Recorded by {script_of(path)}.py when it ran", items))
    return found


def made_by(
    directory: Path, known: dict[str, Any], inputs: dict[str, str | Path | None], title: str = "As its files say",
    of: str = "",
) -> list[Facts]:  # fmt: skip
    """How a result was made: records of the scripts (`of`: see records()), then what its own files say (`known`, below
    `title`).

    inputs: name -> file or folder, hashed now where no record holds their hashes from when the script ran.
    """
    found = records(directory, of)
    items = [(key, str(value)) for key, value in known.items() if value not in (None, "", [], {})]
    if items:
        found.append(Facts(title, items))
    if not records(directory, of):
        hashed = [
            (f"{name}: {path}", sha256(where(path)) or "no longer there") for name, path in inputs.items() if path
        ]
        found.append(Facts("Inputs (SHA-256 at the time of this report)", hashed))
    return found
