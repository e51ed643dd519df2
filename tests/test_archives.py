"""Archives (.npz) that Python cannot unpack are refused in one line by every reader: another version of zip (found by
fuzzing), a password, damaged compression, a shape beyond every memory, half a header.
"""

import io
from zipfile import ZipFile

import numpy as np
import pytest

from calibration.common.command_line import UserError, read_arrays
from calibration.common.units import DYNAMIC_FEATURES
from calibration.emulator.error import load_errors
from calibration.ensembles import store
from calibration.tower.windows import load_windows


def _version(content: bytes) -> bytes:
    at = content.index(b"PK\x01\x02")  # the first entry of the directory: version that is needed, flags, method
    return content[: at + 6] + b"\xd2\x00" + content[at + 8 :]


def _encrypted(content: bytes) -> bytes:
    for sign, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at += content.index(sign)
        content = content[:at] + b"\x01\x00" + content[at + 2 :]
    return content


def _spoilt_compression(content: bytes) -> bytes:
    return content[:60] + b"\xff" * 40 + content[100:]


def _huge_shape(content: bytes) -> bytes:
    return content.replace(b"(3000,), }          ", b"(3000000000000,), } ")


def _open_header(content: bytes) -> bytes:
    return content.replace(b"(3000,), }", b"(3000,),  ")


@pytest.mark.parametrize("spoil", [_version, _encrypted, _spoilt_compression, _huge_shape, _open_header])
def test_archives_that_python_cannot_unpack_are_refused(tmp_path, spoil):
    made = io.BytesIO()
    save = np.savez if spoil in (_huge_shape, _open_header) else np.savez_compressed
    save(made, **{name: np.random.default_rng(0).random(3000) for name in ("context_x", "dates", "sample_ids", "meta")})
    spoilt = spoil(made.getvalue())
    assert spoilt != made.getvalue()
    for name in ("w.npz", "ensemble.npz", "emulator_error.npz"):
        (tmp_path / name).write_bytes(spoilt)
    (tmp_path / "emulator_error.json").write_text("{}")
    with pytest.raises(UserError, match="not readable as .npz"):
        load_windows(tmp_path / "w.npz", DYNAMIC_FEATURES, None)
    with pytest.raises(UserError):
        store.read_alone(tmp_path / "ensemble.npz", np.array([0]))
    with pytest.raises(UserError, match="not readable"):
        load_errors(tmp_path)


def test_a_member_that_is_no_array_is_refused_by_every_reader(tmp_path):
    """Found by fuzzing: of a member without its sign NumPy hands on the bytes, as they are."""
    names = ("context_x", "dates", "error", "parameters", "distance", "meta", "sample_ids", "dynamic", "fluxes")
    for name in ("w.npz", "ensemble.npz", "emulator_error.npz"):
        with ZipFile(tmp_path / name, "w") as archive:
            for member in names:
                archive.writestr(f"{member}.npy", "no sign of NumPy")
    (tmp_path / "emulator_error.json").write_text("{}")
    with pytest.raises(ValueError, match="context_x is no array"):
        read_arrays(tmp_path / "w.npz")
    with pytest.raises(UserError, match="not readable as .npz .context_x is no array"):
        load_windows(tmp_path / "w.npz", DYNAMIC_FEATURES, None)
    with pytest.raises(UserError, match="not a complete ensemble copy"):
        store.read_alone(tmp_path / "ensemble.npz", np.array([0]))
    with pytest.raises(UserError, match="not readable .context_x is no array"):
        load_errors(tmp_path)
