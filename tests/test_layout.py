"""The house: what stands in the root, how large rooms are, who imports whom, and that its plan is up to date."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from calibration.common.command_line import REPOSITORY
from extras import draw_architecture
from extras.draw_architecture import PARAMETER_WAY, ROOMS, SHARED, WEATHER_WAY, imports, modules, room_imports

ROOT_ENTRIES, MODULES_OF_A_PACKAGE, LINES = 30, 14, 380


def tracked() -> list[Path]:
    """Files that belong to the repository: known to git or about to be; every file where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    made = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if made.returncode:
        pytest.skip("not a git checkout: what belongs to the repository is not known")
    return [Path(line) for line in made.stdout.splitlines() if (REPOSITORY / line).is_file()]


def test_the_root_is_seen_at_a_glance():
    entries = {path.parts[0] for path in tracked() if not path.parts[0].startswith(".")}
    assert len(entries) <= ROOT_ENTRIES, sorted(entries)


def test_rooms_are_small():
    count: dict[str, int] = {}
    for path in modules():
        if len(path.parts) == 3 and path.stem != "__init__":
            count[path.parts[1]] = count.get(path.parts[1], 0) + 1
    assert set(count) == {room for rooms in ROOMS for room in rooms} - {"scripts", *SHARED}
    assert max(count.values()) <= MODULES_OF_A_PACKAGE, count


def test_files_are_short():
    lengths = {path: len((REPOSITORY / path).read_text(encoding="utf-8").splitlines()) for path in tracked()
               if path.suffix == ".py" and path.parts[0] != "tests"}  # fmt: skip
    assert {path: n for path, n in lengths.items() if n > LINES} == {}


def test_rooms_import_only_what_is_below_them():
    """The packages are held by import-linter; this holds the modules in the root too."""
    floor = {room: i for i, rooms in enumerate(ROOMS) for room in rooms}
    upwards = [(room, other) for room, others in room_imports().items() for other in others
               if floor[other] <= floor[room]]  # fmt: skip
    assert upwards == []


def test_libraries_know_no_flags():
    """The command line is read by scripts and by what they share; the tools for it lie in common."""
    knowing = {path.parts[1] for path in modules()
               if len(path.parts) == 3 and "argparse" in (REPOSITORY / path).read_text(encoding="utf-8")}  # fmt: skip
    assert knowing == {"common", "workflows"}


def test_nothing_imports_a_script():
    """Scripts in the root are run, not imported; a test may call main()."""
    scripts = {path.stem for path in modules() if len(path.parts) == 1} - set(SHARED)
    others = [path for path in tracked() if path.suffix == ".py" and path.parts[0] != "tests"]
    found = {str(path): imports(path) & scripts for path in others}
    assert {path: names for path, names in found.items() if names} == {}


def test_every_module_says_what_it_is_for():
    for path in modules():
        assert ast.get_docstring(ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))), path


def test_picture_and_ways_are_those_of_the_code():
    again = "run python extras/draw_architecture.py"
    document = draw_architecture.DOCUMENT.read_text(encoding="utf-8")
    assert draw_architecture.with_ways(document) == document, again
    assert draw_architecture.PICTURE.read_text(encoding="utf-8") == draw_architecture.picture(), again


def test_ways_are_short_and_lead_along_files_that_exist():
    assert len(WEATHER_WAY) <= 20 and len(PARAMETER_WAY) <= 15
    for way in (WEATHER_WAY, PARAMETER_WAY):
        assert len({file for file, _ in way}) == len(way)
        assert [file for file, _ in way if not (REPOSITORY / file).is_file()] == []


@pytest.mark.parametrize("document", ["docs/architecture.md", "README.md"])
def test_files_that_a_document_names_exist(document):
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:calibration|configs|extras|docs|tests|benchmarks)/[\w./-]+\.\w+)`", text))
    assert named, "the pattern finds nothing"
    assert sorted(name for name in named if not (REPOSITORY / name).exists()) == []


def test_a_module_is_found_from_the_table_or_a_way():
    """Every module of the packages is named in the words of the plan: in the table or on a way."""
    text = draw_architecture.DOCUMENT.read_text(encoding="utf-8")
    packaged = [path for path in modules() if len(path.parts) == 3 and path.stem != "__init__"]
    assert [str(path) for path in packaged if f"`{path}`" not in text] == []
