"""Sections to one self-contained HTML file: nothing is requested, every text is escaped, at most 5 MB."""

import base64
import importlib.metadata
import io
import time
from collections.abc import Sequence
from pathlib import Path

from bokeh.embed import components
from bokeh.resources import Resources
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

from calibration.common.command_line import UserError
from calibration.reports.content import Interactive, Picture, Section, Table
from calibration.reports.glossary import anchor, glossary, linked
from calibration.reports.parameters import HELD, HELD_OF_ALL, TESTS

LIMIT = 5_000_000  # bytes of a report
COLOURS = 256  # of a PNG inside it
TEMPLATE = "report.html.jinja"
MIME = {".png": "image/png", ".svg": "image/svg+xml"}
INTERVALS = (
    f"90 percent intervals are meant to hold 90 percent of the true values; {TESTS} they held {HELD_OF_ALL}, of no "
    f"parameter fewer than {min(HELD.values())}: benchmarks/results/recovery.md."
)
VERSIONS = ("numpy", "pandas", "torch", "bokeh")


def render(
    title: str,
    sections: Sequence[Section],
    introduction: str = "",
    limit: int = LIMIT,
    steps: Table | None = None,
    about: str = "",
) -> tuple[str, list[Path]]:
    """The page, and the pictures that did not fit into `limit` bytes (the page names them).

    about: lines below the title, on what this is; steps: how the whole path was run, after the last section.
    """
    blocks = [block for section in sections for block in section.blocks]
    explored = [block for block in blocks if isinstance(block, Interactive)]
    script, divs = components([block.figure for block in explored], wrap_script=True) if explored else ("", ())
    divs = {id(block): Markup(div) for block, div in zip(explored, divs, strict=True)}
    library = Resources(mode="inline", components=["bokeh"], log_level="error").render_js() if explored else ""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    words = glossary()
    environment.filters["address"] = id  # a block's own div
    environment.filters["linked"] = lambda text, used: linked(text, words, used)
    environment.globals["no_words"] = set  # of a card, before its first word is linked
    environment.filters["anchor"] = anchor
    facts = {
        "glossary": words, "intervals": INTERVALS, "steps": steps,
        "title": title, "about": about.splitlines(), "introduction": introduction, "sections": sections, "divs": divs,
        "library": Markup(library), "script": Markup(script), "made": time.strftime("%Y-%m-%d %H:%M"),
        "versions": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS),
    }  # fmt: skip
    page = environment.get_template(TEMPLATE)
    room = limit - len(page.render(**facts, images={}).encode())
    images, left_out = _images([block for block in blocks if isinstance(block, Picture)], room)
    return page.render(**facts, images=images), left_out


def _small(path: Path) -> bytes:
    """A picture's bytes; a PNG with the 256 colours that suit it best, a third of the size and alike to the eye."""
    content = path.read_bytes()
    if path.suffix != ".png":
        return content
    try:
        with Image.open(path) as picture:
            few = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    except (UnidentifiedImageError, OSError):
        raise UserError(f"{path}: not readable as a PNG picture; make it again") from None
    packed = io.BytesIO()
    few.save(packed, "png", optimize=True)
    return min(content, packed.getvalue(), key=len)


def _images(pictures: Sequence[Picture], room: int) -> tuple[dict[Path, str], list[Path]]:
    """Data URIs of the pictures that fit into `room` bytes, in their order, and those that do not."""
    images: dict[Path, str] = {}
    left_out = []
    for picture in pictures:
        encoded = base64.b64encode(_small(picture.path)).decode()
        if len(encoded) > room:
            left_out.append(picture.path)
            continue
        room -= len(encoded) + 100
        images[picture.path] = f"data:{MIME[picture.path.suffix]};base64,{encoded}"
    return images, left_out
