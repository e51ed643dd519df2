"""scikit-learn's StandardScaler out of a pickle (pickle or joblib) without running anything that the pickle names.

A pickle is a program: it may name any function of any library and have it called. Here it finds objects of this module
in place of the few names that a StandardScaler and its NumPy arrays consist of, and nothing else; neither scikit-learn
nor NumPy's own unpickling is called. So the version of scikit-learn that wrote it does not matter either.

The pure Python unpickler is used (as joblib does): it stands after each object exactly where that object ends, where
joblib puts an array's bytes, and a number in the stream cannot make it reserve memory.
"""

import bz2
import gzip
import io
import lzma
import pickle
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

MOST_BYTES = 16 * 2**20  # of a scaler, also when decompressed; one of 36 columns has some 2000
# What reading a damaged or foreign stream raises, here or in the unpickler.
UNREADABLE = (
    pickle.UnpicklingError, zlib.error, lzma.LZMAError, struct.error, ArithmeticError, AssertionError, AttributeError,
    EOFError, LookupError, MemoryError, OSError, TypeError, ValueError,
)  # fmt: skip
COMPRESSED: dict[bytes, Callable[[io.BytesIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file), b"BZ": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile, b"\x5d\x00": lzma.LZMAFile,
}  # fmt: skip
ZLIB = b"\x78"


@dataclass(frozen=True)
class PickledScaler:
    """Content of a pickled StandardScaler: mean and scale (column,), and the columns' names where it has them."""

    mean: np.ndarray
    scale: np.ndarray
    names: tuple[str, ...] | None


def read_pickled_scaler(path: Path) -> PickledScaler:
    """The StandardScaler in a pickle of any scikit-learn since 0.22, plain or by joblib (not lz4).

    Raises one of UNREADABLE, with the reason, when it is damaged or holds anything else.
    """
    with path.open("rb") as file:
        content = _decompressed(file.read(MOST_BYTES + 1))
    if len(content) > MOST_BYTES:
        raise pickle.UnpicklingError(f"more than {MOST_BYTES >> 20} MB, which no scaler has")
    found = _Reader(io.BytesIO(content)).load()
    if not isinstance(found, _Scaler):
        raise pickle.UnpicklingError("it holds no StandardScaler")
    return found.content()


def _decompressed(content: bytes) -> bytes:
    """`content` without joblib's compression; at most one byte more than MOST_BYTES."""
    if content.startswith(ZLIB):
        return zlib.decompressobj().decompress(content, MOST_BYTES + 1)
    for magic, opened in COMPRESSED.items():
        if content.startswith(magic):
            return opened(io.BytesIO(content)).read(MOST_BYTES + 1)
    return content


# ---- What a pickle's names stand for here. A part is made first and given its state later, as the stream says.
def _refuse(what: str) -> NoReturn:
    raise pickle.UnpicklingError(what)


class _Part:
    def build(self, state: Any, file: io.BytesIO) -> None:
        """Take the state that the stream gives."""
        _refuse(f"a {type(self).__name__.strip('_').lower()} has no state")


class _Scaler(_Part):
    state: dict[str, Any] | None = None

    def build(self, state: Any, file: io.BytesIO) -> None:
        """The scaler's attributes."""
        self.state = state if isinstance(state, dict) else _refuse("the StandardScaler has no attributes")

    def content(self) -> PickledScaler:
        """Mean and scale as they act: without centring the mean is 0, without scaling the scale is 1."""
        if self.state is None:
            _refuse("the StandardScaler has no attributes")
        numbers = {name: _numbers(self.state.get(name)) for name in ("mean_", "scale_")}
        known = next((array for array in numbers.values() if array is not None), None)
        if known is None:
            _refuse("the StandardScaler was never fitted (no mean_ and no scale_)")
        centred = self.state.get("with_mean", True) is not False and numbers["mean_"] is not None
        names = self.state.get("feature_names_in_")
        if isinstance(names, _Array) and names.values is not None:
            names = tuple(str(name) for name in names.values.ravel())
        return PickledScaler(
            numbers["mean_"] if centred else np.zeros_like(known),
            numbers["scale_"] if numbers["scale_"] is not None else np.ones_like(known),
            names if isinstance(names, tuple) else None,
        )


def _numbers(found: Any) -> np.ndarray | None:
    """An attribute of the scaler as float64 (column,); None where it has none."""
    if found is None:
        return None
    if not isinstance(found, _Array) or found.values is None or found.values.dtype.kind not in "fiu":
        _refuse("the StandardScaler's mean_ and scale_ are no arrays of numbers")
    return found.values.astype(np.float64).ravel()


class _Dtype(_Part):
    """A dtype of plain numbers, text, or objects (which are then texts)."""

    def __init__(self, text: Any, align: Any = False, copy: Any = True) -> None:
        if not isinstance(text, str) or not re.fullmatch(r"[fiub][1248]|U\d{1,4}|O8?", text):
            _refuse(f"an array of {text!r}, expected numbers or names")
        self.text, self.order = text, "="

    def build(self, state: Any, file: io.BytesIO) -> None:
        """NumPy's state of a dtype, of which only the byte order says anything for plain numbers."""
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
            _refuse("an array of records, expected numbers or names")
        self.order = state[1]

    @property
    def of_objects(self) -> bool:
        """Whether elements are objects."""
        return self.text.startswith("O")

    def array(self, raw: Any, shape: Any, order: str) -> np.ndarray:
        """raw bytes as an array of `shape`; it owns its numbers."""
        if self.of_objects or not isinstance(raw, bytes | bytearray):
            _refuse("an array whose content is no bytes")
        dtype = np.dtype(self.text).newbyteorder(self.order if self.order != "|" else "=")
        return np.frombuffer(bytes(raw), dtype).reshape(_shape(shape), order=order)


def _shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n <= MOST_BYTES for n in shape):
        _refuse(f"an array of shape {str(shape)[:40]}")
    return shape


class _Array(_Part):
    values: np.ndarray | None = None

    def build(self, state: Any, file: io.BytesIO) -> None:
        """NumPy's state of an array: version, shape, dtype, whether in Fortran's order, bytes or a list of objects."""
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype):
            _refuse("an array without a dtype")
        if dtype.of_objects:
            self.values = _texts(raw).reshape(_shape(shape))
        else:
            self.values = dtype.array(raw, shape, "F" if fortran else "C")


def _texts(items: Any) -> np.ndarray:
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        _refuse("an array of objects that are no texts")
    return np.array(items, dtype=str)


class _JoblibArray(_Array):
    """joblib's wrapper: the array's bytes follow in the file."""

    def build(self, state: Any, file: io.BytesIO) -> None:
        """joblib's attributes of the wrapper; then the array is read."""
        dtype, shape = state["dtype"], _shape(state["shape"])
        if not isinstance(dtype, _Dtype):
            _refuse("an array without a dtype")
        if dtype.of_objects:  # a pickle inside the pickle
            inner = _Reader(file).load()
            if not isinstance(inner, _Array) or inner.values is None:
                _refuse("an array of objects that is none")
            self.values = inner.values
            return
        if state.get("numpy_array_alignment_bytes") is not None:
            file.read(int.from_bytes(file.read(1), "little"))
        size = prod(shape) * np.dtype(dtype.text).itemsize
        raw = file.read(min(size, MOST_BYTES))
        if len(raw) != size:
            raise EOFError("an array is cut short")
        self.values = dtype.array(raw, shape, "F" if state.get("order") == "F" else "C")


def _scalar(dtype: Any, raw: Any = b"") -> Any:
    return dtype.array(raw, (), "C")[()] if isinstance(dtype, _Dtype) else _refuse("a number without a dtype")


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.build((1, shape, dtype, order == "F", raw), io.BytesIO())
    return array


def _from_text(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes as old protocols write them."""
    if not isinstance(text, str) or encoding != "latin1":
        _refuse("bytes in an encoding that pickle does not use")
    return text.encode("latin1")


def _empty(kind: Any, *_: Any) -> Any:
    return kind() if kind in (_Scaler, _Array) else _refuse("an object of another kind")


ADMITTED: dict[tuple[str, str], Any] = {
    ("sklearn.preprocessing._data", "StandardScaler"): _Scaler,
    ("sklearn.preprocessing.data", "StandardScaler"): _Scaler,  # before 0.22
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _JoblibArray,
    ("sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper"): _JoblibArray,
    ("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _from_text,
    ("copyreg", "_reconstructor"): _empty, ("copy_reg", "_reconstructor"): _empty,
    ("builtins", "object"): object, ("__builtin__", "object"): object,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _empty for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}  # fmt: skip


class _Reader(pickle._Unpickler):
    """The unpickler that knows ADMITTED and nothing else."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.file = file

    def find_class(self, module: str, name: str) -> Any:
        """What stands for module.name here."""
        if (module, name) not in ADMITTED:
            _refuse(f"it names {module}.{name}, which no StandardScaler needs: it could run a stranger's code")
        return ADMITTED[module, name]

    def load_build(self) -> None:
        """Give the last object its state: ours have `build`, and nothing else may be changed."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Part):
            _refuse("it gives a state to what has none")
        self.stack[-1].build(state, self.file)

    dispatch[pickle.BUILD[0]] = load_build

    def load_bytearray(self) -> None:
        """A bytearray of protocol 5; Python's own makes room for as many bytes as it announces before it reads one."""
        (size,) = struct.unpack("<Q", self.read(8))
        if size > MOST_BYTES:
            _refuse(f"a bytearray of {size} bytes, which no scaler has")
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray
