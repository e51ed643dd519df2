"""The three pictures of the README, docs/images/*.png, from one run of the demo.

After `make demo`: python extras/draw_readme_pictures.py. The README's numbers come from the same run: demo/summary.txt
and the report's section "Inversion: year". They differ a little from machine to machine, so change both or neither.
"""

import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from calibration.common.command_line import REPOSITORY, make_parser, read_json, run, writing
from calibration.common.figure_style import DPI
from calibration.common.parameters import make_space
from calibration.inversion.posterior import INFORMED
from calibration.judgement.figures import parameter_changes
from calibration.judgement.tables import TRUTH
from calibration.reports.reading import where

IMAGES = REPOSITORY / "docs" / "images"
WIDTH = 1000  # pixels at most: a README shows no more
COLOURS = 128  # few keep a picture of lines small


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "demo", help="what make demo left")
    parser.add_argument("--output-dir", type=Path, default=IMAGES, help="folder of the pictures")
    arguments = parser.parse_args()
    year = arguments.folder / "results" / "year"
    pictures = {
        "emulator": (arguments.folder / "artifacts" / "evaluation_rmse.png").read_bytes(),
        "nep": (year / "nep_comparison.png").read_bytes(), "parameters": parameters_with_truth(year),
    }  # fmt: skip
    for name, content in pictures.items():
        with writing(arguments.output_dir / f"{name}.png") as path:
            path.write_bytes(small(content))
    return 0


def parameters_with_truth(year: Path) -> bytes:
    """PNG of the figure of prior and posterior with the true values, which the inversion itself was not given."""
    table = pd.read_csv(year / "posterior_summary.csv")
    free = table["sd_ratio"].notna().to_numpy()
    names, ratio = list(table["param_name"][free]), table["sd_ratio"].to_numpy()[free]
    snapshot, truth = read_json(year / "params_snapshot.json"), read_json(year / TRUTH)["parameters"]
    config = where(snapshot["metadata"]["artifacts"]) / "config.json"
    space = make_space([tuple(entry) for entry in read_json(config)["parameter_space"]], config)
    with np.load(year / "posterior.npz") as file:
        samples = file["samples"]

    def place(vectors: np.ndarray) -> np.ndarray:
        """Physical (..., parameter) -> (..., free parameter), places in the ranges, ties held."""
        return space.physical_to_unit(vectors)[..., free]

    low, high = np.quantile(place(samples), [0.05, 0.95], axis=0, method="weibull")  # as Posterior.interval
    true = np.array([truth.get(name, value) for name, value in zip(table["param_name"], table["prior"], strict=True)])
    figure = parameter_changes(
        names, *(place(table[name].to_numpy()) for name in ("prior", "optimized")), low, high,
        [name for name, value in zip(names, ratio, strict=True) if value < INFORMED], "position in its range (0-1)",
        snapshot["metadata"]["verdict"], place(true), ratio,
    )  # fmt: skip
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()


def small(content: bytes) -> bytes:
    """A PNG at most WIDTH pixels wide, with few colours."""
    with Image.open(io.BytesIO(content)) as picture:
        share = min(1.0, WIDTH / picture.width)
        size = tuple(np.round(share * np.array(picture.size)).astype(int).tolist())
        packed = io.BytesIO()
        picture = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        few = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(packed, "png", optimize=True)
    return packed.getvalue()


if __name__ == "__main__":
    run(main)
