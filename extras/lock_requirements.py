"""Pin every package with its hashes: tests/requirements.lock from tests/requirements.txt, by uv (pip install uv).

    python extras/lock_requirements.py

For all systems and Python versions at once, from the package index that uv is set to. CUDA's libraries, which PyPI's
torch needs on Linux and torch's CPU build does not, go into tests/requirements-cuda.lock; the Makefile installs them
where torch is not a CPU build. Then review what changed (docs/dependencies.md) and run make audit.
"""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the packages, wherever it is started

from calibration.common.command_line import REPOSITORY, UserError, make_parser, run, writing

SOURCE, LOCK = REPOSITORY / "tests" / "requirements.txt", REPOSITORY / "tests" / "requirements.lock"
CUDA, CUDA_LOCK = ("nvidia-", "cuda-", "triton"), LOCK.with_name("requirements-cuda.lock")
HEAD = "# Written by extras/lock_requirements.py; install with --require-hashes --no-deps\n"
# torch's CPU build for Linux and Python 3.11 from PyTorch's own index, a third of the size; PyPI does not list it.
TORCH_CPU = "    --hash=sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"


def main() -> None:
    make_parser(__doc__).parse_args()
    command = ["uv", "pip", "compile", str(SOURCE), "--universal", "--python-version", "3.11", "--generate-hashes",
               "--no-header", "--no-annotate", "--quiet"]  # fmt: skip
    try:
        made = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError("uv is not installed; pip install uv") from None
    if made.returncode:
        raise UserError(f"{' '.join(command[:3])}: {made.stderr}")
    parts = {LOCK: HEAD, CUDA_LOCK: HEAD}
    for line in made.stdout.splitlines():
        if not line.startswith((" ", "#")):
            lock = CUDA_LOCK if line.startswith(CUDA) else LOCK
        parts[lock] += f"{line}\n"
        if line.startswith("torch=="):
            parts[lock] += f"{TORCH_CPU} \\\n"
    for path, content in parts.items():
        with writing(path) as temporary:
            temporary.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    run(main)
