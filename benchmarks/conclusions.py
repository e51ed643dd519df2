"""Sentences below the tables of a results page: written by hand in `<page>_conclusions.txt`, one `title: text` a line,
so that a repeated measurement renews the numbers and keeps (or, edited, corrects) the words."""

from pathlib import Path


def read_conclusions(page: Path) -> dict[str, str]:
    """title -> text for the page `<name>.md` (or any suffix); none when there is no such file."""
    path = page.with_name(f"{page.stem}_conclusions.txt")
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line)
