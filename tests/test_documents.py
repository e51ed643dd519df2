"""The documents: commands that exist with flags that exist, links that lead somewhere, one glossary."""

import re

import pytest
import yaml

from calibration.common.command_line import REPOSITORY
from calibration.reports.glossary import glossary

DOCUMENTS = [
    *sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md")),
    REPOSITORY / "benchmarks" / "README.md",
]  # fmt: skip
COMMAND = re.compile(r"python3? ((?:extras/|benchmarks/)?\w+\.py)((?:[^\n`|&]|\\\n)*)")


def commands(document):
    """(script, flags) of every command line in a document."""
    for script, rest in COMMAND.findall(document.read_text(encoding="utf-8").replace("\\\n", " ")):
        if not script.endswith("SCRIPT.py"):  # any of them
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


def test_summary_of_the_benchmarks_says_what_its_pages_say():
    folder = REPOSITORY / "benchmarks"
    rows = [row for row in (folder / "README.md").read_text(encoding="utf-8").splitlines() if "](results/" in row]
    linked = set()
    for row in rows:
        page = re.search(r"\]\((results/\w+\.md)\)", row).group(1)
        linked.add(folder / page)
        text = (folder / page).read_text(encoding="utf-8")
        assert [number for number in re.findall(r"\*\*(.+?)\*\*", row) if number not in text] == [], row
    assert linked == set((folder / "results").glob("*.md")), "a page without a row, or a row without a page"


@pytest.mark.parametrize("document", ["README.md"])
def test_sentences_for_a_first_time_reader_are_short(document):
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    prose = "\n".join(line for line in prose.splitlines() if not line.startswith(("|", "#", "![", "<img")))
    prose = re.sub(r"\]\([^)]*\)", "]", prose)
    sentences = [" ".join(part.split()) for block in prose.split("\n\n") for part in re.split(r"(?<=[.?!:])\s", block)]
    assert len(sentences) > 40
    assert [sentence for sentence in sentences if len(sentence.split()) > 25] == []


def test_pictures_of_the_readme_are_small():
    images = list((REPOSITORY / "docs" / "images").iterdir())
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in images} == set(re.findall(r"docs/images/([\w.]+)", text))
    assert sum(path.stat().st_size for path in images) < 1_000_000


def test_japanese_readme_follows_the_english_one():
    """What can be compared without Japanese: commands, flags, verdicts, units, and every number of the shared parts."""
    english, japanese = (
        (REPOSITORY / name).read_text(encoding="utf-8") for name in ("README.md", "docs/README.ja.md")
    )
    blocks = [
        [re.sub(r"\s*#.*", "", block) for block in re.findall(r"```\n(.*?)```", text, re.S)]
        for text in (english, japanese)
    ]
    assert blocks[0] == blocks[1]
    flags = [set(re.findall(r"--[a-z][a-z-]+", text)) for text in (english, japanese)]
    assert flags[0] == flags[1]
    for words in ("FITS AND IS INFORMATIVE", "FITS BUT IS UNINFORMATIVE", "CONFLICTS WITH THE MODEL", "JUDGED, NOT"):
        assert f"| {words}" in english and f"| {words}" in japanese
    ours, theirs = english.split("## Units")[1], japanese.split("## 単位")[1]
    assert re.findall(r"`[^`\n]+`", ours) == re.findall(r"`[^`\n]+`", theirs)
    number = re.compile(r"\d+\.\d+|\d{2,}")
    shown = [re.split(r"\n## ", text.split(title)[1])[0] for text, title in
             ((english, "## What the demo shows"), (japanese, "## デモが示すこと"))]  # fmt: skip
    assert set(number.findall(shown[0])) == set(number.findall(shown[1])), "the demo's results"
    pictures = [re.findall(r"images/(\w+\.png)", part) for part in shown]
    assert pictures[0] == pictures[1] and len(pictures[0]) == 3
    ways = [re.findall(r"\]\(([\w./]+)\)", text.split(title)[1]) for text, title in
            ((english, "## Where to read on"), (japanese, "## 続きを読む"))]  # fmt: skip
    ways = [[(folder / way).resolve() for way in found] for folder, found in
            zip((REPOSITORY, REPOSITORY / "docs"), ways, strict=True)]  # fmt: skip
    assert ways[0] == ways[1]
    numbers = set(re.findall(r"\d+\.\d+|\d{2,}", japanese)) - {"30"}  # half-hourly is 30 minutes there
    assert numbers <= set(re.findall(r"\d+\.\d+|\d{2,}", english))
