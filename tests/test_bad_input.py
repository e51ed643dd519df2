"""Every bad input ends in exit code 2 and one line that names the file and the fault, and nothing is written."""

import json

import numpy as np
import pandas as pd
import pytest
from bad_files import FILES, SAYS
from bad_flags import FLAGS
from script_calls import call

import blend_observation_meteorology
import build_observation_windows
import check_ensemble
import evaluate_model
import evaluate_parameter_recovery
import make_report
import plot_param_scatter
import prepare_observation_meteorology
import prepare_observation_nep
import run_perturbations
import sensitivity
import test_inversion
import train
import visit_simulator
import weather as weather_script
from calibration.common.configuration import ARCHITECTURE_FILE
from calibration.common.parameters import DEFAULT_RANGES
from calibration.common.scalers import Scaler
from calibration.common.sites import DEFAULT_SITE, load_site
from calibration.common.units import DYNAMIC_FEATURES
from calibration.inversion.config import DEFAULT_CONFIG
from calibration.weather.daily import forcing_text, generate_weather, write_weather_csv

MAINS = {
    module.__name__: module.main for module in (
        blend_observation_meteorology, build_observation_windows, check_ensemble, evaluate_model,
        evaluate_parameter_recovery, make_report, plot_param_scatter, prepare_observation_meteorology,
        prepare_observation_nep, run_perturbations, sensitivity, test_inversion, train, visit_simulator,
    )
} | {"weather": weather_script.main}  # fmt: skip
# By the first letter of a file's name: the script that reads it, and its flags.
READ_BY = {
    "w": ("weather", ["--check", "{bad}"]), "f": ("weather", ["--check", "{bad}"]),
    "o": ("build_observation_windows", ["--daily", "{weather}", "--obs", "{bad}", "--artifacts-dir", "{scaler}",
                                        "--output", "{out}/w.npz"]),
    "t": ("prepare_observation_nep", ["--input", "{bad}", "--output", "{out}/nep.csv", "--no-figure"]),
    "r": ("run_perturbations", ["--ranges", "{bad}", "--output-dir", "{out}/data", "--n-samples", "2"]),
    "s": ("weather", ["--site", "{bad}", "--output", "{out}/w.csv"]),
    "p": ("visit_simulator", ["--runs", "{bad}", "--weather", "{weather}", "--summary", "{out}/s.csv"]),
    "c": ("test_inversion", ["--config", "{bad}", "--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--mode",
                             "simulation", "--sample-id", "0", "--result-dir", "{out}/r"]),
    "a": ("train", ["--architecture", "{bad}", "--data-dir", "{data}", "--artifacts-dir", "{out}/a"]),
    "n": ("test_inversion", ["--param-load", "{bad}", "--artifacts-dir", "{emulator}", "--data-dir", "{data}", "--mode",
                             "simulation", "--sample-id", "0", "--result-dir", "{out}/r"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory, tiny_training):
    """name -> path of good files."""
    folder = tmp_path_factory.mktemp("good")
    made = generate_weather(load_site(), "2011-01-01", "2012-12-31", seed=3)
    write_weather_csv(folder / "weather.csv", made)
    (folder / "forcing.txt").write_bytes(forcing_text(made, load_site()))
    days = pd.date_range("2012-01-01", "2012-12-31")
    nee = np.random.default_rng(1).normal(-2, 1, len(days)).round(4)
    pd.DataFrame({"date": days.strftime("%Y-%m-%d"), "nee_gcm2": nee, "nee_source": "NEE", "nee_qc": 0.0,
                  "nep_mg_ha": -nee / 100, "obs_mask": 1}).to_csv(folder / "obs.csv", index=False)  # fmt: skip
    stamp = pd.date_range("2019-01-01", periods=400).strftime("%Y%m%d")
    pd.DataFrame({"TIMESTAMP": stamp, "NEE_vUT": np.resize(nee, 400), "NEE_vUT_QC": 0.2}).to_csv(
        folder / "tower.csv", index=False
    )
    (folder / "ranges.csv").write_text('0: "tree_lue", 0.045, 0.06\n1: "tree_pmax", 10, 14\n')
    (folder / "table.csv").write_text("sample_id,tree_lue,tree_pmax\n0,0.05,12\n1,0.051,12.5\n")
    Scaler.fit(DYNAMIC_FEATURES, made.values).save(folder / "scaler" / "scaler_dynamic.json")
    names = json.loads((tiny_training / "artifacts" / "config.json").read_text())["parameter_names"]
    snapshot = {"names": names, "prior": [1.0] * len(names), "optimized": [1.0] * len(names), "metadata": {}}
    (folder / "snapshot.json").write_text(json.dumps(snapshot))
    (folder / "empty").mkdir()
    return {
        "weather": folder / "weather.csv", "forcing": folder / "forcing.txt", "obs": folder / "obs.csv",
        "tower": folder / "tower.csv", "ranges": folder / "ranges.csv", "table": folder / "table.csv",
        "scaler": folder / "scaler", "snapshot": folder / "snapshot.json", "emulator": tiny_training / "artifacts",
        "data": tiny_training / "data", "site": DEFAULT_SITE, "architecture": ARCHITECTURE_FILE,
        "config": DEFAULT_CONFIG,
        "default_ranges": DEFAULT_RANGES, "empty": folder / "empty",
    }  # fmt: skip


def refused(script: str, flags, places: dict, out, capsys, message: str, source: str = "") -> None:
    """The script ends with code 2 and one line that holds `message` (and `source`), and `out` stays empty."""
    code = call(MAINS[script], *[str(flag).format(**places, out=out) for flag in flags])
    said = capsys.readouterr()
    errors = [line for line in said.err.splitlines() if not line.startswith(("notice: ", "warning: "))]
    assert code == 2, (code, said)
    assert len(errors) == 1 and errors[0].startswith("error: "), said.err
    assert message in errors[0] and source in errors[0], errors[0]
    assert "Traceback" not in said.err and list(out.iterdir()) == []


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file(name, good, tmp_path, capsys):
    kind, change = FILES[name]
    source = good[kind]
    bad = tmp_path / (name if "." in name else name + source.suffix)
    text = source.read_text()
    content = change(text)
    assert content != text, "the file was not spoilt"
    bad.write_text(content, errors="surrogateescape")
    out = tmp_path / "out"
    out.mkdir()
    script, flags = READ_BY[name[0]]
    refused(script, flags, good | {"bad": bad}, out, capsys, SAYS[name], bad.name)


@pytest.mark.parametrize("case", FLAGS, ids=[f"{script} {' '.join(flags)}"[:70] for script, flags, _ in FLAGS])
def test_bad_flags(case, good, tmp_path, capsys):
    script, flags, message = case
    refused(script, flags, good, tmp_path, capsys, message)


def test_there_are_as_many_as_promised():
    """docs/reliability.md counts these, beside those of test_hostile_files.py and of each reader's own tests."""
    assert len(FILES) + len(FLAGS) >= 150
