"""One self-contained HTML page for what a script left: verdict first, then figures, tables, and how it was made.

    python make_report.py results/year                 # an inversion -> results/year/report.html
    python make_report.py artifacts                    # a trained emulator
    python make_report.py demo --output demo/report.html   # all results in a folder of folders

RESULT_DIR: an ensemble, a trained emulator, a sensitivity analysis, an inversion, a recovery study, or a folder above
several of them: there the inversion of the most days comes first, then the others in the order of the path. Lines of
RESULT_DIR/about.txt, if you write them, stand below the title: which tower, which question. The page opens from disk
and requests nothing; all figures are inside.
"""

from pathlib import Path

from calibration.common.command_line import UserError, make_parser, run, write_text
from calibration.reports.kinds import sections_of, steps_of
from calibration.reports.page import LIMIT, render


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("result_dir", type=Path, metavar="RESULT_DIR", help="folder with results")
    parser.add_argument("--output", type=Path, help="HTML file to write (default: RESULT_DIR/report.html)")
    parser.add_argument("--title", help="heading of the page (default: from the folder's name)")
    parser.add_argument("--max-mb", type=float, default=LIMIT / 1e6, help="largest size of the page, MB")
    arguments = parser.parse_args()
    if not arguments.max_mb >= 2:
        raise UserError(f"--max-mb is {arguments.max_mb}; it must be 2 or more")
    output = arguments.output or arguments.result_dir / "report.html"
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {output}: give a name that ends in .html")
    sections = sections_of(arguments.result_dir)
    title = arguments.title or f"Report: {arguments.result_dir.resolve().name}"
    introduction, about = (text_of(arguments.result_dir / name) for name in ("summary.txt", "about.txt"))
    steps = steps_of(arguments.result_dir) if len(sections) > 1 else None  # one result says itself how it was made
    html, left_out = render(title, sections, introduction, int(arguments.max_mb * 1e6), steps, about)
    write_text(output, html)
    for path in left_out:
        print(f"left out to stay below {arguments.max_mb:g} MB: {path}")
    print(
        f"{len(sections)} result{'s' if len(sections) > 1 else ''} -> {output} ({output.stat().st_size / 1e6:.1f} MB)"
    )
    return 0


def text_of(path: Path) -> str:
    """A file's text; '' where there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


if __name__ == "__main__":
    run(main)
