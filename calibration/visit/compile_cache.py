"""Where compiled code is kept: beside the source, in the user's cache, else in a private temporary folder.

Numba refuses to compile with a cache where neither the source tree nor the home folder can be written, as in a
container or in a cluster's module folder.
"""

import os
import stat
import sys
import tempfile
from pathlib import Path


def prepare_cache(source: Path = Path(__file__).parent) -> bool:
    """Give Numba a folder it can write, by NUMBA_CACHE_DIR where its usual ones cannot be; False: there is none."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        return True
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~")) / ".cache")
    if any(_can_write(folder) for folder in (source / "__pycache__", users / "numba")):
        return True
    try:
        folder = _private_folder(Path(tempfile.gettempdir()) / f"visit-compiled-{os.getuid()}")
    except OSError:  # not even a temporary folder: compile anew in every process
        return False
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    if "numba" in sys.modules:  # it read the environment when it was imported
        sys.modules["numba"].config.CACHE_DIR = str(folder)
    return True


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _private_folder(folder: Path) -> Path:
    """`folder` if it is ours alone (cached code is run: nobody else may put some there), else a new one."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="visit-compiled-"))
