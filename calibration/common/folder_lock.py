"""One process at a time in a folder of results: a lock that ends with the process, however it ends."""

from pathlib import Path

from filelock import FileLock, Timeout

from calibration.common.command_line import UserError

LOCK = ".lock"


def only_process_in(directory: str | Path, script: str) -> FileLock | None:
    """Take `directory` (made where it is missing) for this process, until the returned lock is released or collected.

    UserError when another process holds it or the folder cannot be written. None where the disk knows no locks (some
    network disks).
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise UserError(f"{directory}: another {script} is writing here; wait for it or stop it") from None
    except NotImplementedError:
        return None
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror}); give another folder") from None
    return lock
