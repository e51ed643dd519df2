"""One look for every figure: sizes of a paper's columns, legible type, colours that colour-blind readers tell apart.

Colours are those of Okabe and Ito (2008, Color Universal Design); no meaning is carried by colour alone: lines differ
in dash, points in shape. A figure function takes arrays, is decorated with `styled`, and returns a Figure.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import matplotlib as mpl
from matplotlib.figure import Figure

from calibration.common.command_line import writing

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
OBSERVED, TRUTH, PRIOR, ESTIMATE, SIMULATOR = "0.35", BLACK, ORANGE, BLUE, GREEN  # the same thing, the same colour
ALERT, QUIET = VERMILION, "0.72"  # what deserves a look, and what does not

COLUMN, PAGE = 3.5, 7.2  # width in inches of one column and of a page's text, as most journals have them
FORMATS = ("png", "pdf", "svg")
DPI = 200

STYLE = {
    "font.size": 7.5, "axes.titlesize": 8, "axes.labelsize": 7.5, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7, "figure.titlesize": 8.5, "axes.titlelocation": "left", "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "lines.linewidth": 1.1,
    "axes.prop_cycle": mpl.cycler(color=CYCLE), "axes.grid": False, "grid.color": "0.9", "grid.linewidth": 0.5,
    "pdf.fonttype": 42, "svg.hashsalt": "visit", "svg.fonttype": "path", "savefig.facecolor": "white",
}  # fmt: skip

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """A figure function whose artists are made in the common style."""

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Figure:
        """`draw` within the style, which is set back afterwards."""
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return inside


def use_format(kind: str) -> None:
    """Save figures as `kind` (of FORMATS) from now on, where their name says nothing else."""
    mpl.rcParams["savefig.format"] = kind


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Save a figure, atomically, in the format of its name's suffix, else of use_format(). Returns the path."""
    path = Path(path)
    if path.suffix[1:].lower() not in FORMATS:
        path = path.with_name(f"{path.name}.{mpl.rcParams['savefig.format']}")
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(path.suffix[1:])  # same numbers, same file
    with mpl.rc_context(STYLE), writing(path) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata=metadata, format=path.suffix[1:].lower())
    return path
