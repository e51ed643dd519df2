"""Packages: what is imported is listed, what is listed is used, and the lock pins all of it with hashes."""

import ast
import importlib.metadata
import re
import sys
from functools import cache

import pytest
from test_layout import tracked

from calibration.common.command_line import REPOSITORY

MAIN, TESTS = REPOSITORY / "requirements.txt", REPOSITORY / "tests" / "requirements.txt"
LOCKS = (REPOSITORY / "tests" / "requirements.lock", REPOSITORY / "tests" / "requirements-cuda.lock")
# Used without an import of their own name.
TOOLS = {
    "ruff": "make test", "import-linter": "make test", "pytest-xdist": "make test (-n 2)",
    "h5netcdf": "xarray's engine of that name", "tensorboard": "torch.utils.tensorboard",
}  # fmt: skip


def normal(name: str) -> str:
    """A distribution's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def listed(path) -> set[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return {normal(re.match(r"[\w.-]+", line)[0]) for line in lines if line and not line.startswith("-")}


@cache
def imported() -> dict[str, set[str]]:
    """Distribution -> files that import it, by import statements and pytest.importorskip."""
    distributions = importlib.metadata.packages_distributions()
    files = [path for path in tracked() if path.suffix == ".py"]
    own = {path.stem for path in files} | {part for path in files for part in path.parts[:-1]}
    found: dict[str, set[str]] = {}
    for path in files:
        for node in ast.walk(ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip":
                names = [node.args[0].value]
            for module in {name.split(".")[0] for name in names} - own - set(sys.stdlib_module_names):
                name = normal(distributions.get(module, [module])[0])
                found.setdefault(name, set()).add(str(path))
    return found


def test_what_is_imported_is_listed():
    elsewhere = ("tests", "benchmarks")
    users = {name for name, files in imported().items() if any(not f.startswith(elsewhere) for f in files)}
    assert users - listed(MAIN) == set()
    assert set(imported()) - listed(MAIN) - listed(TESTS) == set()


def test_what_is_listed_is_used():
    assert (listed(MAIN) | listed(TESTS)) - set(imported()) - set(TOOLS) == set()
    only_tests = {name for name, files in imported().items() if all(file.startswith("tests") for file in files)}
    assert listed(MAIN) & only_tests - set(TOOLS) == set(), "tests/requirements.txt is their place"


def test_every_line_says_why():
    for path in (MAIN, TESTS):
        assert [line for line in path.read_text().splitlines() if not line.startswith("-") and "# " not in line] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_the_lock_pins_every_package_with_hashes(lock):
    entries = re.split(r"(?m)^(?=[a-z])", lock.read_text())[1:]
    assert entries
    for entry in entries:
        assert re.match(r"[\w.-]+(\[\w+\])?==[\w.]+", entry), entry[:60]
        assert "--hash=sha256:" in entry and not re.search(r"https?:|@ |--index|--find-links", entry), entry[:60]


def test_the_lock_holds_what_is_listed():
    """make test installs from the lock alone: a line added to a requirements.txt needs extras/lock_requirements.py."""
    locked = {normal(match) for match in re.findall(r"(?m)^([\w.-]+)(?:\[\w+\])?==", LOCKS[0].read_text())}
    assert (listed(MAIN) | listed(TESTS)) - locked == set()


def test_the_review_names_every_dependency():
    review = (REPOSITORY / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = {normal(name) for name in re.findall(r"(?m)^\| `([\w.-]+)", review)}
    assert rows == listed(MAIN) | listed(TESTS)
