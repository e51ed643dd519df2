"""Draw docs/architecture.svg from the imports, and write the two ways through the code into docs/architecture.md.

After a module has moved: python extras/draw_architecture.py. A test compares both files with what it would write.
"""

import ast
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from textwrap import wrap
from xml.sax.saxutils import escape

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from calibration.common.command_line import REPOSITORY, make_parser, run, write_text

DOCUMENT, PICTURE = REPOSITORY / "docs" / "architecture.md", REPOSITORY / "docs" / "architecture.svg"
SHARED = ("dataset", "model", "inverse_estimator")  # real code in the root; the other root modules are scripts
# Rooms from the top of the house to the ground: each imports only from those below it.
ROOMS = (
    ("scripts",), ("reports",), ("conflict",), ("workflows",), ("judgement",), ("exploration",), ("inverse_estimator",),
    ("inversion",), ("emulator",), ("model", "dataset"),
    ("tower",), ("engines",), ("ensembles",), ("network",), ("visit",), ("weather",), ("common",),
)  # fmt: skip
# What happens to one day of weather, and to one parameter, from a file to a posterior: file and what is done in it.
WEATHER_WAY = (
    ("calibration/weather/daily_text.py", "a line of a daily file becomes numbers"),
    ("calibration/weather/daily.py", "the day in units.DYNAMIC_FEATURES, checked against what is possible"),
    ("calibration/visit/forcing.py", "sun, humidity, decay: what the process model computes from weather alone"),
    ("calibration/visit/kernel.py", "day after day, eight samples side by side"),
    ("calibration/visit/physics.py", "leaves, stomata, water, growth, soil carbon of that day"),
    ("calibration/visit/simulator.py", "spin-up and run of many parameter vectors: the day's fluxes"),
    ("calibration/engines/writer.py", "a run's daily file"),
    ("calibration/ensembles/files.py", "weather and fluxes of all runs as arrays"),
    ("dataset.py", "training, validation and test days"),
    ("calibration/common/scalers.py", "zero mean, unit variance; kept in the checkpoint"),
    ("calibration/network/season.py", "the season of the day"),
    ("calibration/network/soil_water.py", "the soil water of the days before"),
    ("calibration/network/canopy_equilibrium.py", "a first guess of the day's fluxes"),
    ("model.py", "the LSTM over the days: four fluxes"),
    ("calibration/emulator/training.py", "the loss of the day"),
    ("calibration/tower/windows.py", "the tower's days as windows, with their weather"),
    ("calibration/inversion/inputs.py", "the windows or the run that are fitted"),
    ("calibration/inversion/data.py", "windows back to stretches of days: a day counts once"),
    ("calibration/inversion/problem.py", "the day's residual: its share of the posterior"),
)
PARAMETER_WAY = (
    ("calibration/common/parameters.py", "name, unit, range, tie, and the bijection to latent space"),
    ("calibration/engines/perturbation.py", "drawn by Latin hypercube"),
    ("calibration/engines/builtin.py", "given to the process model, or (command.py) to your VISIT"),
    ("calibration/visit/layout.py", "in the kernel's units and order"),
    ("calibration/visit/kernel.py", "handed to every day"),
    ("calibration/visit/physics.py", "what it does"),
    ("calibration/engines/writer.py", "its row of parameter_summary.csv"),
    ("calibration/ensembles/files.py", "read back beside the runs"),
    ("dataset.py", "seen or unseen"),
    ("calibration/common/scalers.py", "scaled"),
    ("calibration/network/static_side.py", "made into what the LSTM starts from"),
    ("model.py", "conditions the LSTM"),
    ("calibration/inversion/latent_map.py", "free or fixed, bounds, latent value"),
    ("calibration/inversion/problem.py", "moved until the cost is least"),
    ("calibration/inversion/posterior.py", "its samples and interval"),
)
BEGIN, END = "<!-- ways: written by extras/draw_architecture.py -->", "<!-- end of ways -->"
WIDTH, LEFT, BOX = 1180, 20, 880  # pixels
LINE, LETTERS = 17, 112  # height of a text line; letters in one
COLOURS = {"weather": "#1f6fb2", "parameter": "#c8551b"}


def modules() -> list[Path]:
    """Every module of the packages and of the root, relative to the repository."""
    found = [*REPOSITORY.glob("*.py"), *(REPOSITORY / "calibration").glob("*/*.py")]
    return sorted(path.relative_to(REPOSITORY) for path in found)


def imports(path: Path) -> set[str]:
    """Names of this repository that the file imports, dotted: calibration.common.units, dataset.

    >>> "calibration.common.units" in imports(Path("dataset.py"))
    True
    """
    found = set()
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    own = {".".join(module.with_suffix("").parts) for module in modules()}
    return found & own


def room_of(path: Path) -> str:
    """The room of a module: its package, itself for dataset, model, inverse_estimator, else scripts."""
    if len(path.parts) == 3:
        return path.parts[1]
    return path.stem if path.stem in SHARED else "scripts"


def room_imports() -> dict[str, set[str]]:
    """Which rooms each room imports from, itself left out."""
    result: dict[str, set[str]] = {}
    for path in modules():
        for name in imports(path):
            parts = name.split(".")
            there = parts[1] if len(parts) > 2 else parts[0]
            result.setdefault(room_of(path), set()).add(there)
    return {room: others - {room} for room, others in result.items()}


def essential(edges: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The imports that no chain of others implies (transitive reduction), sorted."""

    def reach(start: str) -> set[str]:
        """Rooms below a room, by any number of imports."""
        below, todo = set(), [start]
        while todo:
            for other in edges.get(todo.pop(), set()) - below:
                below.add(other)
                todo.append(other)
        return below

    return sorted(
        (room, other)
        for room, others in edges.items()
        for other in others
        if not any(other in reach(between) for between in others - {other})
    )


def sentence(room: str) -> str:
    """The first sentence of what a room says of itself."""
    if room == "scripts":
        return "What a user runs: arguments and the story of the job; nothing imports them."
    path = REPOSITORY / f"{room}.py" if room in SHARED else REPOSITORY / "calibration" / room / "__init__.py"
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).split("\n\n")[0].replace("\n", " ")


def steps(path: Path) -> list[tuple[str, int]]:
    """The ways that pass a module and its place in each."""
    ways = {"weather": WEATHER_WAY, "parameter": PARAMETER_WAY}
    return [(name, i + 1) for name, way in ways.items() for i, (file, _) in enumerate(way) if file == path.as_posix()]


def picture() -> str:
    """The SVG: rooms from top to ground with their modules, numbered where a way passes, and arrows of imports."""
    shapes, middle, y = [], {}, 46
    for rooms in ROOMS:
        for room in rooms:
            shapes_of_room, height = _room(room, y)
            middle[room] = y + height // 2
            shapes += shapes_of_room
            y += height + 8
    edges = essential(room_imports())
    for k, (room, other) in enumerate(sorted(edges, key=lambda e: (middle[e[1]] - middle[e[0]], e))):
        x, a, b = LEFT + BOX, middle[room] + 4, middle[other] - 4
        out = x + min(30 + 16 * k, WIDTH - x - 20)
        shapes.append(f'<path d="M{x},{a} C{out},{a} {out},{b} {x},{b}" class="arrow"/>')
    blue, orange = COLOURS["weather"], COLOURS["parameter"]
    head = f"""<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 10}" viewBox="0 0 {WIDTH} {y + 10}">
<style>
text {{ font-family: sans-serif; font-size: 12px; fill: #222 }}
.name {{ font-weight: bold; font-size: 14px }}
.room {{ fill: #f4f4f0; stroke: #888 }}
.arrow {{ fill: none; stroke: #555; marker-end: url(#head) }}
.weather {{ fill: {blue}; font-weight: bold }} .parameter {{ fill: {orange}; font-weight: bold }}
</style>
<defs><marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto"><path d="M0,0 L8,4 L0,8 z"/>
</marker></defs>
<text x="{LEFT}" y="24">An arrow: imports from (what follows from others is left out). Numbers: the way of
<tspan class="weather">a day of weather</tspan> and of <tspan class="parameter">a parameter</tspan>
to a posterior.</text>
"""
    return head + "\n".join(shapes) + "\n</svg>\n"


def _room(room: str, y: int) -> tuple[list[str], int]:
    """Shapes of a room at height y, and its height."""
    members = [path for path in modules() if room_of(path) == room and path.stem != "__init__"]
    title = "scripts in the root" if room == "scripts" else f"{room}.py" if room in SHARED else f"calibration/{room}/"
    lines = wrap(sentence(room), LETTERS)
    rows: list[list[Path]] = [[]]
    for path in members:
        if sum(len(p.name) + 6 for p in rows[-1]) + len(path.name) > LETTERS:
            rows.append([])
        rows[-1].append(path)
    if room in SHARED:  # the module is the title: only its numbers are wanted
        title, rows = "", [members]
    height = LINE * ((title != "") + len(lines) + len(rows)) + 12
    shapes = [f'<rect x="{LEFT}" y="{y}" width="{BOX}" height="{height}" rx="6" class="room"/>']
    at = y + LINE
    if title:
        shapes.append(f'<text x="{LEFT + 10}" y="{at}" class="name">{escape(title)}</text>')
        at += LINE
    texts = [escape(line) for line in lines]
    module_texts = ["   ".join(_module(path) for path in row) for row in rows]
    for text in module_texts + texts if room in SHARED else texts + module_texts:
        shapes.append(f'<text x="{LEFT + 10}" y="{at}" xml:space="preserve">{text}</text>')
        at += LINE
    return shapes, height


def _module(path: Path) -> str:
    """A module's name and its numbers on the ways, as SVG text."""
    marks = "".join(f'<tspan class="{way}"> {number}</tspan>' for way, number in steps(path))
    name = escape(path.name)
    return (f'<tspan class="name">{name}</tspan>' if path.stem in SHARED else name) + marks


def ways() -> str:
    """Both ways as Markdown lists."""

    def listed(way: Iterable[tuple[str, str]]) -> str:
        """A numbered list of files."""
        return "\n".join(f"{i}. `{file}`: {what}" for i, (file, what) in enumerate(way, 1))

    return (
        f"{BEGIN}\n**One day of weather**, {len(WEATHER_WAY)} files:\n\n{listed(WEATHER_WAY)}\n\n"
        f"**One parameter**, {len(PARAMETER_WAY)} files:\n\n{listed(PARAMETER_WAY)}\n{END}"
    )


def with_ways(document: str) -> str:
    """The document with its two lists written anew."""
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: ways(), document, flags=re.DOTALL)


def main() -> int:
    make_parser(__doc__).parse_args()
    for path, text in ((PICTURE, picture()), (DOCUMENT, with_ways(DOCUMENT.read_text(encoding="utf-8")))):
        write_text(path, text)
    print(f"wrote {PICTURE} and the ways in {DOCUMENT}")
    return 0


if __name__ == "__main__":
    run(main)
