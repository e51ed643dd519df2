"""Change the code in one place after another and see whether a test notices: python tests/mutate.py units

A mutant is a module in which one operator, comparison, number, condition or returned value is another. The tests that
concern it run in a process of their own, forked where the libraries are loaded already; a failing test, or one that
takes too long, has caught it. Printed are the mutants that nobody noticed, with their lines, and the share that was
caught. Words of messages, annotations and docstrings stay as they are. The table in docs/reliability.md is what this
printed. (mutmut and cosmic-ray start Python anew for every mutant: five seconds of imports each.)
"""

import argparse
import ast
import copy
import io
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the packages, wherever it is started
ROOT = Path(__file__).resolve().parents[1]

# What is changed, and the tests that concern it, the fastest first.
TARGETS = {
    "units": (
        "calibration/common/units.py",
        ["test_units.py"],
    ),
    "parameters": ("calibration/common/parameters.py", ["test_parameters.py"]),
    "loss": ("calibration/emulator/training.py", ["test_training_steps.py", "test_training_loop.py"]),
    "error_model": ("calibration/inversion/error_model.py", ["test_error_covariance.py", "test_error_model.py"]),
    "error_estimation": (
        "calibration/inversion/error_estimation.py",
        ["test_error_estimation.py", "test_error_model.py"],
    ),
    "emulator_covariance": (
        "calibration/inversion/emulator_covariance.py",
        ["test_error_covariance.py", "test_error_model.py"],
    ),
    "problem": ("calibration/inversion/problem.py", ["test_inversion_methods.py", "test_error_model.py"]),
    "tempering": ("calibration/inversion/tempering.py", ["test_tempering.py"]),
    "latent_map": ("calibration/inversion/latent_map.py", ["test_inversion_methods.py"]),
}  # fmt: skip
SECONDS = 180  # that the tests of a mutant may take
SPOKEN = ("warn", "notice", "say", "progress", "UserError", "print")  # calls whose arguments are words
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.Mod: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.MatMult: ast.Add, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.USub: ast.UAdd, ast.Invert: ast.UAdd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """The module with one place changed."""

    line: int
    said: str
    tree: ast.Module


def places(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node that may change: not what is said, annotated or documented."""

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        if isinstance(node, ast.Raise) or (
            isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in SPOKEN
        ):
            return
        yield node
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child)

    yield from walk(tree)


def changes(node: ast.AST) -> Iterator[tuple[str, object, object]]:
    """(field, other value, index in a list or None) of each way to change a node."""
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp | ast.UnaryOp) and type(node.op) in OPERATORS:
        yield "op", OPERATORS[type(node.op)](), None
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            if type(operator) in OPERATORS:
                yield "ops", OPERATORS[type(operator)](), i
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield "value", not node.value, None
        elif isinstance(node.value, int | float) and node.value is not None:
            yield "value", node.value + 1 if isinstance(node.value, int) else node.value * 1.5 + 0.1, None
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield "test", ast.UnaryOp(ast.Not(), node.test), None
    if isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield "value", ast.Constant(None), None


def mutants(path: Path) -> list[Mutant]:
    """Every mutant of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in list(places(tree)):
        for name, other, index in changes(node):
            before = getattr(node, name)
            line = getattr(node, "lineno", 0)
            old = ast.unparse(node).split("\n")[0]
            if index is None:
                setattr(node, name, other)
            else:
                setattr(node, name, [*before[:index], other, *before[index + 1 :]])
            new = copy.deepcopy(tree)
            said = f"{old[:70]}  ->  {ast.unparse(node).splitlines()[0][:70]}"
            setattr(node, name, before)
            found.append(Mutant(line, said, ast.fix_missing_locations(new)))
    return found


class Changed:
    """A finder that loads one module from a changed tree."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        self.name, self.path = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."), path
        self.code = compile(tree, str(path), "exec")

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The module's own place, with other code."""
        if name != self.name:
            return None
        loader = SourceFileLoader(name, str(self.path))
        loader.get_code = lambda _: self.code
        return spec_from_file_location(name, self.path, loader=loader)


def passes(path: Path, tree: ast.Module | None, tests: list[str], log: Path) -> bool:
    """Whether the tests pass with the changed module; in a forked process."""
    process = os.fork()
    if process == 0:
        os.setpgrp()
        signal.alarm(SECONDS)
        code = 1
        try:
            with log.open("w") as out, redirect_stdout(out), redirect_stderr(io.StringIO()):
                import pytest

                if tree is not None:
                    sys.meta_path.insert(0, Changed(path, tree))
                given = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(ROOT)]
                code = pytest.main([*given, *(str(ROOT / "tests" / name) for name in tests)])
        finally:
            os._exit(int(code))
    return os.waitpid(process, 0)[1] == 0


def main(given: list[str] | None = None) -> int:
    """Exit code 1 where less than 80 percent were caught."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*TARGETS, "all"])
    parser.add_argument("--most", type=int, default=10**6, help="mutants of a module, drawn at random")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lines", type=int, nargs=2, help="only mutants of these lines")
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="what the tests of a mutant said")
    arguments = parser.parse_args(given)
    import hypothesis.strategies  # noqa: F401  loaded once, for all that are forked
    import matplotlib.pyplot  # noqa: F401
    import numba  # noqa: F401
    import pandas  # noqa: F401
    import pytest  # noqa: F401
    import scipy.optimize
    import scipy.stats  # noqa: F401
    import torch

    torch.set_num_threads(1)  # a pool of threads would not live through a fork
    os.chdir(ROOT)
    good = True
    for name in TARGETS if arguments.what == "all" else [arguments.what]:
        path, tests = ROOT / TARGETS[name][0], TARGETS[name][1]
        if not passes(path, None, tests, arguments.log):
            raise SystemExit(f"{name}: the tests fail without any change; see --log FILE")
        every = mutants(path)
        if arguments.lines:
            every = [one for one in every if arguments.lines[0] <= one.line <= arguments.lines[1]]
        chosen = Random(arguments.seed).sample(every, min(arguments.most, len(every)))
        begin, left = time.monotonic(), []
        for one in sorted(chosen, key=lambda mutant: mutant.line):
            if passes(path, one.tree, tests, arguments.log):
                left.append(one)
                print(f"  {TARGETS[name][0]}:{one.line}  {one.said}", flush=True)
        share = 1 - len(left) / max(1, len(chosen))
        good &= share >= 0.8
        print(f"{name}: {len(every)} mutants, {len(chosen)} tried, {len(chosen) - len(left)} caught ({share:.0%}), "
              f"{time.monotonic() - begin:.0f} s", flush=True)  # fmt: skip
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
