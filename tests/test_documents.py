"""The documents: commands that exist with flags that exist, links that lead somewhere, one glossary."""

import re

import pytest
import yaml

from calibration.common.command_line import REPOSITORY
from calibration.reports.glossary import glossary

MEASUREMENTS = REPOSITORY / "benchmarks" / "README.md"
DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md")), MEASUREMENTS]
COMMAND = re.compile(r"python3? ((?:extras/|benchmarks/)?\w+\.py)((?:[^\n`|&]|\\\n)*)")


def commands(document):
    """(script, flags) of every command line in a document."""
    for script, rest in COMMAND.findall(document.read_text(encoding="utf-8").replace("\\\n", " ")):
        if script != "SCRIPT.py":  # any of them
            yield script, re.findall(r"(?<![\w'-])--[a-z][a-z0-9-]*", rest.split("#")[0])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_and_flag_exists(document):
    library = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "calibration").rglob("*.py"))
    for script, flags in commands(document):
        path = REPOSITORY / script
        assert path.is_file(), f"{document.name}: {script}"
        known = path.read_text(encoding="utf-8") + library
        for flag in flags:
            assert flag in ("--help",) or f'"{flag}"' in known, f"{document.name}: {script} {flag}"


def test_the_cookbook_has_commands_to_check():
    assert len(list(commands(REPOSITORY / "docs" / "cookbook.md"))) > 20


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_section_of_measurements_is_named_on_their_first_page():
    sections = {path.name for path in (MEASUREMENTS.parent / "results").glob("*.md")}
    assert sections == set(re.findall(r"\]\(results/(\w+\.md)\)", MEASUREMENTS.read_text(encoding="utf-8")))


def test_numbers_on_the_first_page_of_measurements_stand_in_their_sections():
    checked = 0
    for entry in re.split(r"\n(?=[|-])", MEASUREMENTS.read_text(encoding="utf-8")):
        sections = re.findall(r"\]\((results/\w+\.md)\)", entry)
        source = "".join((MEASUREMENTS.parent / name).read_text(encoding="utf-8") for name in sections)
        for number in re.findall(r"\d+[.,]\d+", entry if sections else ""):
            checked += 1
            assert number in source, f"{number} in: {entry}"
    assert checked > 50


def test_glossary_is_read_whole():
    words = glossary()
    assert {"informed", "latent", "stretch", "window", "at rest", "90 % interval"} <= set(words)
    assert all(meaning.endswith(".") for meaning in words.values())


def test_citation_is_of_this_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    version = re.search(r'^version = "(.+)"', (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), re.M).group(
        1
    )
    assert citation["cff-version"] == "1.2.0" and citation["version"] == version and citation["authors"]
