"""The project's own words, for every report; their only home is docs/glossary.md."""

import re

from markupsafe import Markup, escape

from calibration.common.command_line import REPOSITORY, existing_file

ALSO = {"informed": ("inform", "informative", "uninformative")}  # forms of a word that verdicts use
GLOSSARY_FILE = REPOSITORY / "docs" / "glossary.md"


def glossary() -> dict[str, str]:
    """Word -> meaning, in the order of the table. UserError when the file is gone."""
    lines = existing_file(GLOSSARY_FILE, "it belongs to the repository").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("|")]
    return {word: meaning for word, meaning in rows[2:]}  # below the heading and its rule


def anchor(word: str) -> str:
    """The place of a word of the glossary on a page.

    >>> anchor("90 % interval")
    'word-90-interval'
    """
    return "word-" + re.sub(r"\W+", "-", word.lower()).strip("-")


def linked(text: str, words: dict[str, str], used: set[str]) -> Markup:
    """`text`, escaped, with the first mention of every word of glossary() leading to its meaning on the same page.

    used: words that were linked before, which are not linked again; those linked here are added.
    """
    forms = {form.lower(): word for word in words for form in _forms(word)}
    longest_first = sorted(forms, key=len, reverse=True)
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})(s?)\b", re.IGNORECASE)
    parts, last = [], 0
    for found in pattern.finditer(text):
        word = forms[found.group(1).lower()]
        if word in used:
            continue
        used.add(word)
        parts += [escape(text[last : found.start()]),
                  Markup('<a class="word" href="#{}">{}</a>').format(anchor(word), found.group(0))]  # fmt: skip
        last = found.end()
    return Markup("").join([*parts, escape(text[last:])])


def _forms(word: str) -> list[str]:
    """How a word of the table stands in a text: "seen, unseen runs" as two, "%" also as "percent", see ALSO."""
    *first, last = word.split(", ")
    forms = [*ALSO.get(word, ()), *(f"{part} {last.split()[-1]}" for part in first), last]
    return [*forms, *(form.replace("%", "percent") for form in forms if "%" in form)]
