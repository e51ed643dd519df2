"""The binary copy of an ensemble (ensemble.npz): written beside the text files, trusted only while they are unchanged.

A text file counts as unchanged when its size, modification and change time are those recorded, or else when its
content has the recorded hash (a copied folder has new times). Writing goes through a temporary name and a rename, so
processes that start at once at worst both write the same thing.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calibration.common.command_line import ARCHIVE_ERRORS, UserError, read_arrays, writing

VERSION = 1  # raise it when the content or its meaning changes: older copies are then ignored
ARRAYS = ("sample_ids", "dates", "dynamic", "fluxes")


def digest(content: bytes) -> str:
    """Hash of a file's content."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def signatures(paths: Sequence[Path]) -> list[list[int]]:
    """Size, modification and change time (ns) of every file; the change time cannot be set back by a program."""
    stats = [path.stat() for path in paths]
    return [[stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for stat in stats]


def key(sample_ids: np.ndarray, columns: Sequence[str] | None) -> dict:
    """What besides the files' content decides what is read from them."""
    return {"version": VERSION, "samples": [int(i) for i in sample_ids], "columns": list(columns) if columns else None}


def write(
    path: Path, key: dict, dates: np.ndarray, dynamic: np.ndarray, fluxes: np.ndarray,
    signatures: Sequence | None = None, digests: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """Write the copy atomically.

    dates (day,) datetime64[D]; dynamic (day, 10) in units.UNITS; fluxes (run, day, 4) float32, Mg C ha-1 day-1;
    signatures and digests: one a text file, in the order of key["samples"]; None when there are no text files.
    """
    meta = {"key": key, "signatures": signatures, "digests": digests}
    with writing(path) as temporary:
        np.savez(
            temporary, sample_ids=np.array(key["samples"], dtype=np.int64),
            dates=np.datetime_as_string(dates, unit="D"), dynamic=dynamic,
            fluxes=np.ascontiguousarray(fluxes, dtype=np.float32), meta=np.array(json.dumps(meta)),
        )  # fmt: skip


def _open(path: Path) -> tuple[dict, dict[str, np.ndarray]] | None:
    """Meta data and arrays of a copy, or None when the file is no (complete, readable) copy."""
    try:
        arrays = read_arrays(path, ("meta", *ARRAYS))
        meta = json.loads(str(arrays.pop("meta")))
    except ARCHIVE_ERRORS:
        return None
    arrays["dates"] = arrays["dates"].astype("datetime64[D]")
    return meta, arrays


def read(path: Path, files: Sequence[Path], key: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """dates, dynamic, fluxes (see write) if the copy at `path` has the content of `files` under `key`, else None."""
    opened = _open(path) if path.is_file() else None
    if opened is None or opened[0]["key"] != key or opened[0]["digests"] is None:
        return None
    meta, arrays = opened
    for file, now, then, known in zip(files, signatures(files), meta["signatures"], meta["digests"], strict=True):
        if now != then and (now[0] != then[0] or digest(file.read_bytes()) != known):
            return None
    return arrays["dates"], arrays["dynamic"], arrays["fluxes"]


def read_alone(path: Path, sample_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dates, dynamic, fluxes of `sample_ids` from a copy without text files. UserError when one is not in it."""
    opened = _open(path)
    if opened is None or opened[0]["key"]["version"] != VERSION:
        raise UserError(f"{path}: not a complete ensemble copy of this version; run run_perturbations.py again")
    _, arrays = opened
    row = {int(sample): i for i, sample in enumerate(arrays["sample_ids"])}
    missing = [int(sample) for sample in sample_ids if int(sample) not in row]
    if missing:
        raise UserError(f"{path}: holds no sample {missing[0]} ({len(missing)} missing); run it or remove its row")
    index = [row[int(sample)] for sample in sample_ids]
    return arrays["dates"], arrays["dynamic"], arrays["fluxes"][index]
