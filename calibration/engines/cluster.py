"""Work on a Dask cluster whose scheduler and workers know nothing of this repository.

`dask scheduler` and `dask worker` are started in any folder, so nothing that they have to unpickle may name a module of
ours. They get this module's two small functions by value, and bytes: the code as an archive, which a worker unpacks and
imports from, and pickled calls of it. Archive and function are a task of their own that the scheduler can repeat, so
workers that join later, or in place of a killed one, get them too. Only the standard library is imported up here.
"""

import atexit
import builtins
import hashlib
import pickle
import queue
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from calibration.common.command_line import REPOSITORY, UserError

CONNECT_SECONDS = 10  # how long a scheduler may take to answer
WORKERS_SECONDS = 60  # how long the first worker may take to come
LOOK_SECONDS = 2.0  # between two looks whether anything still happens
IDLE_SECONDS = 30  # without any worker, or without work on any, after which we give up
ATTEMPTS = 3  # of a task that a lost connection took away
CODE = ("*.py", "calibration/**/*.py", "configs/**/*")  # what a worker needs of the repository
COMPILED = "calibration/**/__pycache__/*.nb[ci]"  # saves a worker with the same processor half a minute


def _held(content: bytes) -> bytes:
    """Runs on a worker: keeps `content` there for the tasks that need it."""
    return content


def _call(content: bytes, argument: bytes) -> bytes:
    """Runs on a worker: unpack our code (once), and apply the pickled function of `content` to the pickled argument."""
    import importlib
    import os
    import pickle
    import sys
    import tempfile
    import threading
    import types

    shared = sys.modules.setdefault("_calibration_on_worker", types.ModuleType("_calibration_on_worker"))
    lock = shared.__dict__.setdefault("lock", threading.Lock())
    code, key, function = pickle.loads(content)
    with lock:
        if shared.__dict__.get("key") != key:
            user = os.getuid() if hasattr(os, "getuid") else "user"
            place = os.path.join(tempfile.gettempdir(), f"calibration_code_{user}_{key}")
            if os.path.isdir(place) and hasattr(os, "getuid") and os.stat(place).st_uid != os.getuid():
                place += f"_{os.getpid()}"  # somebody else's: not to be trusted
            if not os.path.isdir(place):
                temporary = tempfile.mkdtemp(prefix="calibration_code_")
                for name, (data, changed) in pickle.loads(code).items():
                    path = os.path.join(temporary, *name.split("/"))
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with open(path, "wb") as handle:
                        handle.write(data)
                    os.utime(path, ns=(changed, changed))  # Numba's cache looks at it
                try:
                    os.rename(temporary, place)
                except OSError:  # another worker of this machine was faster
                    import shutil

                    shutil.rmtree(temporary, ignore_errors=True)
            ours = {name.split("/")[0].removesuffix(".py") for name in pickle.loads(code)}
            for name in [name for name in sys.modules if name.split(".")[0] in ours]:
                del sys.modules[name]  # of an earlier version
            sys.path[:] = [place, *(entry for entry in sys.path if "calibration_code_" not in entry)]
            importlib.invalidate_caches()
            shared.__dict__.update(key=key, functions={})
        functions = shared.__dict__["functions"]
        name = hash(function)
        if name not in functions:
            functions.clear()  # of earlier calls: each holds its engine
            functions[name] = pickle.loads(function)
        call = functions[name]
    return pickle.dumps(call(pickle.loads(argument)))


def _by_value(function: types.FunctionType) -> types.FunctionType:
    """A twin of a function without globals that Dask pickles with its code, as it does what is typed in a session."""
    twin = types.FunctionType(function.__code__, {"__builtins__": builtins, "__name__": "__main__"}, function.__name__)
    twin.__module__ = "__main__"
    return twin


def connect(address: str):
    """A client of the Dask scheduler at `address` with at least one worker. UserError when nobody answers."""
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_SECONDS)
        client.wait_for_workers(1, timeout=WORKERS_SECONDS)
    except (OSError, TimeoutError, ValueError) as error:
        raise UserError(
            f"--dask-scheduler {address}: no scheduler with workers answers ({error}); start `dask scheduler` and "
            "`dask worker` first"
        ) from None
    atexit.register(client.close)
    return client


def cores(client) -> int:
    """Threads of all workers."""
    return max(1, sum(client.nthreads().values()))


class WorkerLostError(Exception):
    """A task's worker died each time it was tried."""


def on_cluster(
    client, function: Callable[[Any], Any], arguments: Sequence[Any]
) -> Iterator[tuple[int, Any]]:
    """(index, function(argument)) of every argument as they finish; a WorkerLostError where workers died of it.

    function, arguments and results are pickled; function must live in this repository or a library. A UserError of it
    is raised here. UserError, within IDLE_SECONDS or so, when a task cannot be read or no result can come any more.
    """
    if not arguments:
        return
    done: queue.Queue = queue.Queue()
    import cloudpickle

    code, key = _code()
    call = cloudpickle.dumps(function)
    label = hashlib.sha256(key.encode() + call).hexdigest()[:16]
    held = pickle.dumps((code, key, call))
    content = client.submit(_by_value(_held), held, key=f"visit-code-{label}", retries=ATTEMPTS)
    unfinished: dict[int, Any] = {}
    tries = dict.fromkeys(range(len(arguments)), 0)

    def submit(index: int) -> None:
        """Hand in one task, under a new name so that a lost one is not taken for done."""
        tries[index] += 1
        task = f"visit-{label}-{index}-{tries[index]}-{time.monotonic_ns()}"
        future = client.submit(_by_value(_call), content, cloudpickle.dumps(arguments[index]), key=task, pure=False)
        unfinished[index] = future
        future.add_done_callback(lambda _, index=index: done.put(index))

    for index in range(len(arguments)):
        submit(index)
    watch = _Watch(client)
    while unfinished:
        try:
            index = done.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            watch.look()
            continue
        watch.rest()
        future = unfinished.pop(index)
        if future.status == "finished":
            yield index, pickle.loads(future.result())
        elif future.status == "error":
            yield index, _failure(future)
        elif tries[index] < ATTEMPTS and client.status == "running":  # cancelled or lost
            submit(index)
        else:
            raise UserError(f"--dask-scheduler {_address(client)}: the connection was lost; start the command again")


def _failure(future) -> WorkerLostError:
    """WorkerLostError when that is why a task failed; raises everything else."""
    from distributed import KilledWorker

    error = future.exception()
    if isinstance(error, KilledWorker):
        return WorkerLostError(str(error))
    if isinstance(error, UserError):
        raise error
    raise UserError(
        f"--dask-scheduler: a task could not be run there: {type(error).__name__}: {error}; the workers need the "
        f"Python ({sys.version_info.major}.{sys.version_info.minor} here) and the packages of requirements.txt"
    )


class _Watch:
    """Notices that nothing can come any more: the scheduler is gone, no worker is left, or none has work."""

    def __init__(self, client) -> None:
        self.client, self.since = client, None

    def rest(self) -> None:
        """A result came."""
        self.since = None

    def look(self) -> None:
        """UserError when nothing has happened for too long."""
        client = self.client
        if client.status != "running":
            why, patience = "the scheduler does not answer", 0
        elif not client.nthreads():
            why, patience = "no worker is left", IDLE_SECONDS
        elif not any(client.processing().values()):
            why, patience = "no worker has been given any work", IDLE_SECONDS
        else:
            self.since = None
            return
        self.since = self.since or time.monotonic()
        if time.monotonic() - self.since >= patience:
            raise UserError(
                f"--dask-scheduler {_address(client)}: {why}, so no result comes; what is finished is kept: start "
                "scheduler and workers again, then the same command"
            )


def _address(client) -> str:
    return client.scheduler.address if client.scheduler is not None else "?"


def _code() -> tuple[bytes, str]:
    """Pickled name -> content and modification time (ns) of every file a worker needs, and a key of the sources."""
    sources = [path for pattern in CODE for path in sorted(REPOSITORY.glob(pattern)) if path.is_file()]
    sources = [path for path in sources if "__pycache__" not in path.parts]
    key = hashlib.sha256(b"\0".join(path.name.encode() + path.read_bytes() for path in sources)).hexdigest()[:16]
    files = [*sources, *REPOSITORY.glob(COMPILED)]
    found = {p.relative_to(REPOSITORY).as_posix(): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}
    return pickle.dumps(found), key
