"""Fuzz the readers: spoil good files in ways that nobody thought of. python tests/fuzz_readers.py --minutes 2

Only UserError may leave a reader, within a second a megabyte (and a second at least). What hypothesis finds it shrinks
and prints. test_fuzz_readers.py runs a few examples of each; docs/reliability.md holds the long run.
"""

import argparse
import io
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the packages, wherever it is started

from calibration.common.command_line import UserError
from calibration.common.configuration import ARCHITECTURE_FILE, load_configuration
from calibration.common.parameters import DEFAULT_RANGES, read_ranges
from calibration.common.scalers import Scaler, load_scaler
from calibration.common.sites import DEFAULT_SITE, load_site
from calibration.common.units import DYNAMIC_FEATURES, POSSIBLE, TARGETS
from calibration.ensembles.files import SUMMARY, failed_samples
from calibration.ensembles.labels import LabelMap, read_labels, table_hash
from calibration.ensembles.parameter_table import read_parameter_summary
from calibration.inversion.config import DEFAULT_CONFIG, load_inversion_config
from calibration.judgement.tables import load_snapshot
from calibration.tower.file import read_tower_file
from calibration.tower.layouts import choose_columns
from calibration.tower.observation_csv import read_observations
from calibration.tower.windows import load_windows
from calibration.visit.parameter_file import fill_template, read_slots
from calibration.weather.daily import forcing_text, generate_weather, read_weather
from calibration.weather.daily_text import daily_template, daily_text, read_daily_file

SITE = load_site()
SCALER = Scaler(DYNAMIC_FEATURES, np.array([(low + high) / 2 for low, high in POSSIBLE.values()]), np.ones(10))
WEATHER = generate_weather(SITE, "2011-01-01", "2011-02-28", seed=3)
NAMES = ("tree_lue", "tree_pmax", "soil_sr_lf")
TABLE = b"sample_id,tree_lue,tree_lf0,tree_lc0\n0,0.05,0.1,0.2\n"
# What files hold that they should not: other numbers, signs, ends of lines, bytes of other encodings and formats.
PIECES = [
    b"", b"\0", b"\n", b"\r\n", b"\r", b",", b";", b"\t", b" ", b'"', b"'", b"#", b":", b"-", b"{", b"}", b"[", b"]",
    b"&a",
    b"*a", b"nan", b"NaN", b"inf", b"-inf", b"-9999", b"9999", b"1e308", b"1e400", b"-1", b"0", b"00", b"1.5", b"1,5",
    b"0x10", b"1_0", b"1e5", b"99999999999999999999999", b"true", b"null", b"~", b"2012-02-30", b"0000-00-00",
    b"99999-01-01", b"1600-01-01", b"year", b"sample_id", "\u00e4\u00b0C\u22121".encode(), b"\xe4", b"\xff\xfe",
    b"\xef\xbb\xbf", b"PK\x03\x04", b"<html>", b"!!python/name:os.system", b"\x1a", b"\xe2\x80\xa8",
]  # fmt: skip


def _tower(path: Path) -> None:
    tower = read_tower_file(path)
    tower.numbers(choose_columns(tower).nee)


def _windows(path: Path) -> None:
    load_windows(path, DYNAMIC_FEATURES, SCALER)


def _labels(path: Path) -> None:
    (path.parent / SUMMARY).write_bytes(TABLE)  # the table that the map is for
    read_labels(path, path.parent)


def _good_labels() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, SUMMARY).write_bytes(TABLE)
        found = LabelMap({"tree_lf0": "tree_lc0", "tree_lc0": None}, table_hash(folder), ("tree_lue",))
    return json.dumps(found.as_dict(), indent=1).encode()  # JSON is YAML


def _csv(columns: str, row: Callable[[int], str], count: int = 8) -> bytes:
    return "\n".join([columns, *(row(i) for i in range(count)), ""]).encode()


def _good_windows() -> bytes:
    made = io.BytesIO()
    np.savez(
        made, context_x=np.zeros((2, 3, 10)), future_known=np.zeros((2, 4, 10)), y_obs=np.zeros((2, 4, 4)),
        obs_mask=np.ones((2, 4)), window_start=np.array(["2012-01-01", "2012-01-05"]),
        feature_names=np.array(DYNAMIC_FEATURES), target_names=np.array(TARGETS), scaler_mean=SCALER.mean,
        scaler_scale=SCALER.scale,
    )  # fmt: skip
    return made.getvalue()


def _good_scaler(suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        Scaler(("a", "b"), np.array([1.0, 2.0]), np.array([1.0, 3.0])).save(Path(folder) / "s.json")
        return (Path(folder) / f"s.{suffix}").read_bytes()


def readers() -> dict[str, tuple[str, bytes, Callable[[Path], object]]]:
    """Reader -> the name of its file, a good one, and the function of the path."""
    fluxes = np.full((len(WEATHER.dates), 4), 0.05)
    daily = daily_text(daily_template(WEATHER.dates, WEATHER.values), fluxes, {}).encode()
    csv = WEATHER.frame().head(20).to_csv(index=False).encode()
    snapshot = {"names": list(NAMES), "prior": [1.0, 2.0, 3.0], "optimized": [1.0, 2.0, 3.0], "metadata": {"a": "x"}}
    tower = _csv("TIMESTAMP,NEE_vUT,NEE_vUT_QC,TA_F", lambda i: f"201901{i + 1:02d},{-1.5 + 0.1 * i:.2f},0.2,25.1", 28)
    slots = dict(list(read_slots().items())[:5])
    numbers = {slot.slot: slot.baseline for slot in slots.values()}
    parameters = "".join(f"{numbers.get(i, 0.0):g}  # slot {i}\n" for i in range(max(numbers) + 1)).encode()
    bounds = b"parameter_bounds:\n  a: {min: 1, max: 2}\n  b: {min: 0.5, max_from: a}\n"
    results = _csv("sample_id,status,seconds", lambda i: f"{i},ok,0.{i}")
    return {
        "daily file": ("LHP_1_daily_0000.txt", b"\n".join(daily.split(b"\n")[:20]) + b"\n", read_daily_file),
        "parameter_summary.csv": ("p.csv", _csv("sample_id," + ",".join(NAMES), lambda i: f"{i},0.05,1{i}.5,1.25"),
                                  read_parameter_summary),
        "experiment_results.csv": ("e.csv", results, failed_samples),
        "ranges CSV": ("r.csv", DEFAULT_RANGES.read_bytes(), read_ranges),
        "bounds YAML": ("b.yaml", bounds, read_ranges),
        "tower CSV": ("FLX_XX-Abc_DD.csv", tower, _tower),
        "observation CSV": ("o.csv", _csv("date,nee_gcm2,nee_source,nee_qc,nep_mg_ha,obs_mask",
                                          lambda i: f"2012-01-0{i + 1},-2.{i},NEE,0.1,0.02{i},1"), read_observations),
        "weather CSV": ("w.csv", csv, lambda path: read_weather(path, SITE)),
        "forcing text": ("f.txt", b"\n".join(forcing_text(WEATHER, SITE).split(b"\n")[:20]) + b"\n",
                         lambda path: read_weather(path, SITE)),
        "label map": ("parameter_labels.yaml", _good_labels(), _labels),
        "windows .npz": ("w.npz", _good_windows(), _windows),
        "snapshot JSON": ("n.json", json.dumps(snapshot).encode(), lambda path: load_snapshot(path, NAMES)),
        "architecture YAML": ("a.yaml", ARCHITECTURE_FILE.read_bytes(), load_configuration),
        "inversion YAML": ("c.yaml", DEFAULT_CONFIG.read_bytes(), load_inversion_config),
        "site YAML": ("s.yaml", DEFAULT_SITE.read_bytes(), load_site),
        "parameter file": ("v.par", parameters, lambda path: fill_template(
            path, path.read_bytes(), dict.fromkeys(slots, 1.0), slots)),
        "scaler JSON": ("s.json", _good_scaler("json"), load_scaler),
        "scaler pickle": ("s.pkl", _good_scaler("pkl"), load_scaler),
    }  # fmt: skip


@st.composite
def spoilt(draw, good: bytes) -> bytes:
    """`good` after a few changes: pieces put in or in place of something, lines and bytes moved, doubled or cut."""
    content = good
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from("piece replace bytes cut drop double swap fields".split()))
        length = draw(st.integers(0, 12))
        if kind == "piece":
            content = content[:place] + draw(st.sampled_from(PIECES)) + content[place:]
        elif kind == "replace":
            content = content[:place] + draw(st.sampled_from(PIECES)) + content[place + length :]
        elif kind == "bytes":
            content = content[:place] + draw(st.binary(max_size=6)) + content[place + length :]
        elif kind == "cut":
            content = content[:place]
        elif kind == "drop":
            content = content[:place] + content[place + 10 * length :]
        elif kind == "double":
            content = content[:place] + content[max(0, place - 10 * length) :]
        else:
            separator = b"\n" if kind == "swap" else b","
            parts = content.split(separator)
            a, b = draw(st.integers(0, len(parts) - 1)), draw(st.integers(0, len(parts) - 1))
            parts[a], parts[b] = parts[b], parts[a]
            content = separator.join(parts)
    return content


def fuzz(name: str, folder: Path, examples: int, database: bool = False) -> int:
    """Give `examples` spoilt files to a reader; raises what it should not have raised. Returns how many it refused."""
    file, good, read = readers()[name]
    path, refused = folder / file, 0
    path.write_bytes(good)
    with redirect_stderr(io.StringIO()):
        read(path)  # the good file is good

    @settings(max_examples=examples, deadline=None, derandomize=not database, database=None, print_blob=False,
              phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(content=spoilt(good))
    def one(content: bytes) -> None:
        nonlocal refused
        path.write_bytes(content)
        begin = time.perf_counter()
        try:
            with redirect_stderr(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(path)
        except UserError as error:
            refused += 1
            assert str(error).strip()
        seconds = time.perf_counter() - begin
        assert seconds < 3 + len(content) / 1e6, f"{seconds:.1f} s for {len(content)} bytes"

    one()
    return refused


def main() -> int:
    """Fuzz every reader for some minutes; print a row each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2, help="for each reader")
    parser.add_argument("--only", nargs="+", default=list(readers()))
    arguments = parser.parse_args()
    faults = 0
    print("| reader | files | refused | read | faults |\n|---|---|---|---|---|", flush=True)
    for name in arguments.only:
        files = refused = 0
        end = time.monotonic() + 60 * arguments.minutes
        fault = ""
        with tempfile.TemporaryDirectory() as folder:
            while time.monotonic() < end and not fault:
                try:
                    refused += fuzz(name, Path(folder), 500, database=True)
                    files += 500
                except Exception as error:  # whatever leaves a reader is what is looked for
                    content = next(path for path in Path(folder).iterdir()).read_bytes()
                    fault = f"{type(error).__name__}: {error}"[:200].replace("\n", " ") + f" {content[:300]!r}"
        faults += bool(fault)
        print(f"| {name} | {files} | {refused} | {files - refused} | {fault or 0} |", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
