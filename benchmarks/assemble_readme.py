"""benchmarks/README.md from the sections that the benchmark scripts leave in benchmarks/results/*.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from calibration.common.command_line import UserError, make_parser, run, writing

HERE = Path(__file__).resolve().parent
ORDER = (
    "verify_simulator", "simulator", "ensemble", "learning_curve", "ablations", "emulator", "training", "prediction",
    "inversion", "recovery", "observations",
)  # fmt: skip
INTRODUCTION = """# Measurements

Made by the scripts in this folder, each with its command and machine; speeds are ratios measured side by side in one
run. Assembled by `python benchmarks/assemble_readme.py` from `benchmarks/results/`; run a script to renew its section.
"""


def position(path: Path) -> tuple[int, str]:
    """Sort key: the order of the pipeline, then the name."""
    first = next((i for i, name in enumerate(ORDER) if path.stem.startswith(name)), len(ORDER))
    return first, path.stem


def main() -> int:
    make_parser(__doc__).parse_args()
    sections = sorted((HERE / "results").glob("*.md"), key=position)
    if not sections:
        raise UserError(f"{HERE / 'results'}: no section yet; run a benchmark script first")
    texts = [path.read_text(encoding="utf-8").strip().replace("](", "](results/") for path in sections]
    texts = [text.replace("](results/http", "](http").replace("](results/results/", "](results/") for text in texts]
    with writing(HERE / "README.md") as temporary:
        temporary.write_text(INTRODUCTION + "\n" + "\n\n".join(texts) + "\n", encoding="utf-8")
    print(f"wrote {HERE / 'README.md'} from {', '.join(path.name for path in sections)}")
    return 0


if __name__ == "__main__":
    run(main)
