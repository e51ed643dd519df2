"""Archives (.npz) that Python cannot unpack are refused in one line by every reader: another version of zip (found by
fuzzing), a password, damaged compression, a shape beyond every memory, half a header.
"""

import io

import numpy as np
import pytest

from calibration.common.command_line import UserError
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


def _no_array(content: bytes) -> bytes:
    return content.replace(b"\x93NUMPY", b"\x92NUMPY")  # found by fuzzing: NumPy hands the bytes on


@pytest.mark.parametrize("spoil", [_version, _encrypted, _spoilt_compression, _huge_shape, _open_header, _no_array])
def test_archives_that_python_cannot_unpack_are_refused(tmp_path, spoil):
    made = io.BytesIO()
    save = np.savez if spoil in (_huge_shape, _open_header, _no_array) else np.savez_compressed
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
