"""Programs that worker processes start: run with a time limit, killed with all that they started, never left behind.

A program can be kept from writing anywhere but in its working directory by Linux's Landlock. VISIT writes to relative
paths, for which a private copy of its folder would do; but a path compiled into a binary is no relative one. Where
there is no Landlock (before Linux 5.13, other systems), the copy is all the protection there is.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls, the same on every processor
NO_NEW_PRIVILEGES = 38  # of prctl
PATH_BENEATH = 1
# Bits of the rights that change files (linux/landlock.h): write file; remove and make of every kind; link; truncate.
WRITE_FILE, REMOVE_DIR, MAKE_SYM, REFER, TRUNCATE = 1, 4, 12, 13, 14

TIME_TO_LEAVE = 10.0  # s that a worker has to leave its folder once its parent is gone

_running: set[int] = set()  # programs of this process that have not ended
_working: set[Path] = set()  # their working directories
_starting = threading.Lock()  # held while a program or folder is made and noted above
_parent_gone = threading.Event()


@contextmanager
def _start() -> Iterator[None]:
    """Make something that must be noted, unless this worker is about to end: then nothing new begins."""
    with _starting:
        if _parent_gone.is_set():
            raise SystemExit("the process that started this worker is gone")
        yield


def _kill_group(pid: int) -> None:
    """Kill a program started by execute together with everything that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


@contextmanager
def working_directory(label: str, scratch: Path | None) -> Iterator[Path]:
    """A private folder that goes when the block ends, or when this worker's parent does (prepare_worker)."""
    with _start():
        workdir = Path(tempfile.mkdtemp(prefix=f"visit_{label}_", dir=scratch))
        _working.add(workdir)
    try:
        yield workdir
    finally:
        shutil.rmtree(workdir, ignore_errors=True)
        _working.discard(workdir)


def execute(
    command: Sequence[str], workdir: Path, log, timeout: float, restrict: Callable[[], None] | None = None
) -> str:
    """Run a command in `workdir`, output into `log`; '' on success, else why it failed. Kills what it started.

    restrict: called in the child before the program starts; see writes_only_in.
    """
    try:
        with _start():
            process = subprocess.Popen(
                command, cwd=workdir, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True, preexec_fn=restrict,
            )  # fmt: skip
            _running.add(process.pid)
    except OSError as error:
        return f"cannot start {command[0]}: {error.strerror}"
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        return f"timeout: still running after {timeout:g} s"
    finally:
        # the whole group: a wrapper script's children too, also when this process is interrupted
        if process.poll() is None:
            _kill_group(process.pid)
        process.wait()
        _running.discard(process.pid)
    if code < 0:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"exit code {code}" if code else ""


def prepare_worker(parent: int) -> None:
    """Make this worker process leave Ctrl-C to process `parent`, and end when that is gone, even by kill -9.

    The program that the worker waits for ends with it, and their working directories go: the worker itself leaves them
    (a folder that is removed while it is being filled would be made again), at most TIME_TO_LEAVE later.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        """End this worker, and the program it waits for, once its parent is gone."""
        while os.getppid() == parent:
            time.sleep(0.5)
        _parent_gone.set()
        if _starting.acquire(timeout=TIME_TO_LEAVE):  # what is being started now is noted then, or its disk hangs
            _starting.release()
        for pid in list(_running):
            _kill_group(pid)
        latest = time.monotonic() + TIME_TO_LEAVE
        while _working and time.monotonic() < latest:
            time.sleep(0.05)
        for workdir in list(_working):
            shutil.rmtree(workdir, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# ---- Landlock
class _Ruleset(ctypes.Structure):
    _fields_ = [("handled", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def _call(number: int, *arguments) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    return library.syscall(ctypes.c_long(number), *arguments)


def version() -> int:
    """Version of Landlock in this kernel, 0: none."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, _call(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def writes_only_in(folders: Sequence[Path]) -> tuple[Callable[[], None] | None, int]:
    """A function for Popen's preexec_fn that forbids the program, and all it starts, to change files elsewhere.

    Returns it with a file descriptor to close when the program has started; (None, -1) where that is not possible.
    Devices such as /dev/null stay writable.
    """
    known = version()
    if not known:
        return None, -1
    bits = [WRITE_FILE, *range(REMOVE_DIR, MAKE_SYM + 1), *([REFER] if known >= 2 else [])]
    bits += [TRUNCATE] if known >= 3 else []
    rights = sum(1 << bit for bit in bits)
    ruleset = _Ruleset(rights)
    handle = _call(CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(ctypes.sizeof(ruleset)), ctypes.c_uint32(0))
    if handle < 0:
        return None, -1
    for folder in (*folders, Path("/dev")):
        try:
            descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        beneath = _Beneath(rights, descriptor)
        _call(ADD_RULE, ctypes.c_int(handle), ctypes.c_int(PATH_BENEATH), ctypes.byref(beneath), ctypes.c_uint32(0))
        os.close(descriptor)
    library = ctypes.CDLL(None, use_errno=True)

    def restrict() -> None:
        """Runs in the child, between fork and exec: two system calls and nothing that could wait for a lock."""
        library.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        library.syscall(ctypes.c_long(RESTRICT_SELF), ctypes.c_int(handle), ctypes.c_uint32(0))

    return restrict, handle
