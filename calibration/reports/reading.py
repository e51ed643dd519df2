"""Reading what scripts left, with one line of help where a file is missing, damaged or of another version."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from calibration.common.command_line import REPOSITORY, UserError, existing_file, read_json
from calibration.reports.content import Facts, Picture

PICTURES = (".svg", ".png")  # what a browser shows, the sharper one first
RECORD = "run_record.json"  # of common/provenance.py, where the script left one
HASHED = ("checkpoint_best.pt", "parameter_summary.csv")  # what stands for a folder: an emulator, an ensemble


def table(path: Path, columns: Sequence[str], script: str, may_be_empty: bool = False) -> pd.DataFrame:
    """A CSV of `script` with at least `columns`. UserError when it is missing, damaged, empty or of another version."""
    existing_file(path, f"half a result: run {script} again")
    try:
        frame = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as CSV ({error}); run {script} again") from None
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


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes; of what stands for a folder (HASHED); '' where there is nothing."""
    if path.is_dir():
        path = next((path / name for name in HASHED if (path / name).is_file()), path)
    if not path.is_file():
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def inputs_of(directory: Path, named: dict[str, str | Path | None]) -> Facts:
    """The inputs with their SHA-256: as the script recorded them, else as they are at the report."""
    record = directory / RECORD
    if record.is_file():
        recorded = content(record, ["inputs"], "the script")["inputs"]
        items = [(f"{name}: {item['path']}", item["sha256"]) for name, item in recorded.items()]
        return Facts("Inputs (SHA-256 when it ran)", items)
    items = []
    for name, path in named.items():
        if path is not None:
            digest = sha256(where(path))
            items.append((f"{name}: {path}", digest or "no longer there"))
    return Facts("Inputs (SHA-256 at the time of this report)", items)


def made_by(directory: Path, known: dict[str, Any]) -> Facts:
    """Command, versions, seeds and times: what the script recorded, and `known` from the result's own files."""
    items = {key: str(value) for key, value in known.items() if value not in (None, "", [], {})}
    record = directory / RECORD
    if record.is_file():
        recorded = content(record, ["command", "versions"], "the script")
        items = {"command": recorded["command"]} | items
        for key in ("started", "seconds"):
            if key in recorded:
                items[key] = str(recorded[key])
        items["versions"] = ", ".join(f"{name} {version}" for name, version in recorded["versions"].items())
    return Facts("How it was made", list(items.items()))
