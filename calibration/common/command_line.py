"""What every script does at its boundary: reading arguments, reporting bad input, progress, safe writing.

A user's mistake ends in one line on stderr and exit code 2 (no traceback); a defect of ours keeps its traceback.
"""

import argparse
import errno
import json
import os
import struct
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import date, datetime
from pathlib import Path
from tokenize import TokenError
from typing import IO, TYPE_CHECKING, Any, NoReturn
from zipfile import BadZipFile

from threadpoolctl import threadpool_limits
from tqdm import tqdm

if TYPE_CHECKING:
    from numpy import ndarray
    from pandas import DataFrame

CLOSED_PIPE = 141  # 128 + SIGPIPE, as a shell reports other command lines
LONGEST_LINE = 1500  # characters of a message
# What a disk answers that takes no more: full, over the quota, a file too large, read-only, broken.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
# What reading an .npz raises that is damaged, or that another program made: the archive, its compression or encryption,
# NumPy's headers, a shape too large for the memory, an array that is not there.
ARCHIVE_ERRORS = (
    OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, RuntimeError, MemoryError, BadZipFile,
    TokenError, struct.error, zlib.error,
)  # fmt: skip
REPOSITORY = Path(__file__).resolve().parents[2]


class UserError(Exception):
    """Bad input from outside: the message names the file, what was found, what is expected and what to do."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults of every flag (once) and keeps the line breaks of the description."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or "(default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Reports a wrong flag as every other mistake is reported: one line, without the long list of flags before it."""

    def error(self, message: str) -> NoReturn:
        """Print `message` and end with exit code 2."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")

    def parse_args(self, *args: Any, **kwargs: Any) -> argparse.Namespace:
        """As argparse does; with --quiet (add_quiet) nothing is printed from here on but warnings and closing()."""
        found = super().parse_args(*args, **kwargs)
        _Voice.last_words = None
        if getattr(found, "quiet", False):
            _Voice.last_words, sys.stdout = sys.stdout, open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        return found


def one_thread() -> None:
    """Let PyTorch and NumPy compute on one core, for work on small matrices.

    There a second thread gains nothing on a quiet machine, and beside one other busy process the two wait for each
    other: an inversion of a month took 244 s instead of 13 s.
    """
    threadpool_limits(1)


class _Voice:
    """Where closing() speaks while --quiet silences the rest; None: everything is said."""

    last_words: IO[str] | None = None


def add_quiet(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """The flag --quiet of a script that takes long."""
    parser.add_argument("--quiet", action="store_true", help="only warnings and the closing lines; no progress bars")


def closing(result: str | Path, following: str = "", *lines: str) -> None:
    """The last lines of a long script, with --quiet too: what it found, where it is, what to run next."""
    stream = _Voice.last_words or sys.stdout
    for line in (*lines, f"results in {result}" if result else "", f"next: {following}" if following else ""):
        if line:
            print(line, file=stream)


def make_parser(description: str) -> argparse.ArgumentParser:
    """An argument parser with the repository's conventions (defaults shown, no abbreviated flags)."""
    return Parser(description=description, formatter_class=HelpFormatter, allow_abbrev=False)


def from_repository(path: str | Path) -> str:
    """A path as results name it: relative where it lies in the repository, else as it is.

    >>> from_repository(REPOSITORY / "configs" / "range_of_paras.csv"), from_repository("results/fit")
    ('configs/range_of_paras.csv', 'results/fit')
    """
    path = Path(path)
    return path.relative_to(REPOSITORY).as_posix() if path.is_relative_to(REPOSITORY) else str(path)


def iso_date(text: str) -> date:
    """argparse type of a day written YYYY-MM-DD."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no day; expected YYYY-MM-DD, such as 2012-01-31") from None


def run(main: Callable[[], int | None]) -> None:
    """Run a script's main(); exit 0 on success, 2 with one line on a UserError, 130 on Ctrl-C, 141 on a closed pipe.

    Warnings of libraries are not the user's business and stay silent (python -W shows them).
    Output is line-buffered, so that `nohup python train.py > train.log &` can be followed with `tail -f`.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    try:
        code = main()
    except BrokenPipeError:  # `| head -1`: the reader has seen enough
        _discard_output()
        raise SystemExit(CLOSED_PIPE) from None
    except UserError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(code or 0)


def _discard_output() -> None:
    """Let what is still to be flushed at exit go nowhere instead of into a closed pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())


def one_line(message: str) -> str:
    """`message` on one line that a terminal can show: the middle of a very long one (a file's content) is left out."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(message.split()))
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE * 2 // 3]} ... {line[-LONGEST_LINE // 3 :]}"


def warn(message: str) -> None:
    """Print one warning line to stderr."""
    print(f"warning: {one_line(message)}", file=sys.stderr)


def notice(message: str) -> None:
    """Print one line to stderr about something that is handled and worth knowing."""
    print(f"notice: {one_line(message)}", file=sys.stderr)


def progress(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """A tqdm bar (rate and remaining time), silent when stderr is not a terminal, and with --quiet."""
    silent = _Voice.last_words is not None or not sys.stderr.isatty()
    return tqdm(iterable, disable=silent, dynamic_ncols=True, **options)


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to it only if the block succeeds: no half-written results.

    The temporary name keeps the suffix (NumPy and matplotlib look at it). Parent folders are made. UserError when
    nothing can be written there.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a file for the output")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:  # a file where the folder should be, no permission, a full disk
        raise UserError(f"{path}: cannot be written ({error.strerror}); give another place for the output") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; results take the permissions any other file would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        kept = "; the earlier file is kept" if path.exists() else ""
        raise UserError(f"{path}: cannot be written ({error.strerror}); make room{kept}") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically. Non-finite numbers are refused (they are not JSON)."""
    with writing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8), atomically."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: str | Path, table: "DataFrame", index: bool = False, **options: Any) -> None:
    """Write a table (pandas) as CSV, atomically; options go to DataFrame.to_csv."""
    with writing(path) as temporary:
        table.to_csv(temporary, index=index, **options)


def silent(line: str) -> None:
    """Hears a line and says nothing: for work that nobody watches."""


def read_json(path: str | Path) -> Any:
    """Read a JSON file; UserError names the file and line when it is missing or broken."""
    path = existing_file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, no UTF-8, or a number of 5000 digits
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{path}: not readable as JSON ({reason}); write it again or restore it") from None


def read_arrays(path: str | Path, names: Iterable[str] | None = None) -> "dict[str, ndarray]":
    """The arrays of an .npz file, all or `names`; nothing in it is unpickled. Raises one of ARCHIVE_ERRORS where it is
    damaged or lacks one: what a reader makes of that is its own.
    """
    import numpy as np  # as above: not every script needs it at once

    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in (archive.files if names is None else names)}
    strange = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if strange:  # NumPy hands on the bytes of a member without its sign
        raise ValueError(f"{strange[0]} is no array")
    return arrays


def read_table(path: str | Path, hint: str, **options: Any) -> "DataFrame":
    """Read a CSV that a user gives or a script left; UserError, ending with `hint`, when it is missing or no table."""
    import pandas as pd  # slow to import: scripts that read no table need not wait

    path = existing_file(path, hint)
    try:
        return pd.read_csv(path, **{"encoding": "utf-8-sig", **options})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as CSV ({error}); {hint}") from None


def output_folder(path: str | Path, flag: str) -> Path:
    """`path` if it is a folder or can become one, for a script to ask before its work. UserError names `flag`."""
    path = Path(path)
    place = next((p for p in (path, *path.absolute().parents) if p.exists()), Path("/"))
    if not place.is_dir():
        raise UserError(f"{flag} {path}: {place if place != path else 'it'} is a file; give a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{flag} {path}: no permission to write in {place}; give another folder")
    return path


def not_an_input(output: str | Path, *inputs: str | Path | None, flag: str = "--output") -> None:
    """UserError when an output would replace one of the files it is made from (None: an input not given)."""
    for given in inputs:
        if given is not None and Path(output).resolve() == Path(given).resolve():
            raise UserError(f"{flag} {output} is an input; give another name")


def existing_file(path: str | Path, hint: str = "check the path") -> Path:
    """Return `path` if it is a file, else raise a UserError that ends with `hint`."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; {hint}")
    return path
