"""The project's own words, for every report; their only home is docs/glossary.md."""

from calibration.common.command_line import REPOSITORY, existing_file

GLOSSARY_FILE = REPOSITORY / "docs" / "glossary.md"


def glossary() -> dict[str, str]:
    """Word -> meaning, in the order of the table. UserError when the file is gone."""
    lines = existing_file(GLOSSARY_FILE, "it belongs to the repository").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("|")]
    return {word: meaning for word, meaning in rows[2:]}  # below the heading and its rule
