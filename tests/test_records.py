"""Results are made again from the records that scripts leave beside them, and compared number by number."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from script_calls import script
from test_machines import run
from tower_examples import fluxnet, save

from calibration.common.command_line import UserError
from calibration.common.provenance import sha256
from calibration.common.reproduction import TOLERANCE, compare_folders, reproduce, second_arguments
from calibration.common.scalers import Scaler
from calibration.common.units import DYNAMIC_FEATURES
from calibration.reports.kinds import sections_of, steps_of
from calibration.weather.daily import read_weather


def test_what_belongs_to_the_first_run_only_is_left_out():
    given = ["--sample-id", "3", "--result-dir", "a b", "--param-save", "p.json", "--overwrite", "--seed=4", "--report"]
    assert second_arguments(given, "--result-dir", Path("new")) == [
        "--sample-id", "3", "--seed=4", "--result-dir", "new",
    ]  # fmt: skip


def test_an_inversion_is_made_again_from_its_record(tiny_training, tmp_path, monkeypatch):
    result = tmp_path / "a result"
    arguments = ["--mode", "simulation", "--sample-id", "0", "--starts", "2", "--no-plots", "--artifacts-dir",
                 tiny_training / "artifacts", "--data-dir", tiny_training / "data", "--result-dir", result]  # fmt: skip
    done = run("test_inversion.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((result / "test_inversion_record.json").read_text())
    assert record["arguments"] == [str(a) for a in arguments] and record["working_directory"] == str(tmp_path)
    inputs = record["inputs"]
    assert len(inputs["emulator"]["sha256"]) == 64 and "method:" in inputs["configuration"]["content"]
    lines, code = reproduce("test_inversion", result, "--result-dir")
    assert code == 0, lines
    assert {line.split(": ")[1] for line in lines[:-1]} == {"identical"} and len(lines) > 8

    table = pd.read_csv(result / "parameter_values.csv")
    table.loc[0, "optimized"] *= 1.001
    table.to_csv(result / "parameter_values.csv", index=False)
    record["inputs"]["configuration"]["sha256"] = "0" * 64
    (result / "test_inversion_record.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="is not what it was when .* was made"):
        reproduce("test_inversion", result, "--result-dir")
    (result / "test_inversion_record.json").write_text("{}")
    with pytest.raises(UserError, match="holds no 'arguments'"):
        reproduce("test_inversion", result, "--result-dir")
    with pytest.raises(UserError, match="no such file; train.py leaves it"):
        reproduce("train", result, "--artifacts-dir")


def test_differences_are_found_and_sized(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, factor in ((first, 1.0), (second, 1.0 + 1e-9)):
        folder.mkdir()
        pd.DataFrame({"x": [1.0, 2.0 * factor], "word": ["p", "q"], "seconds": [factor, 1]}).to_csv(
            folder / "t.csv", index=False
        )
        np.savez(folder / "a.npz", x=np.array([1.0, np.nan, factor]))
        (folder / "j.json").write_text(json.dumps({"a": [1, 2], "seconds": factor, "b": {"c": str(folder)}}))
        (folder / "s.txt").write_text(f"in {folder}\ntime {factor} s\n")
        (folder / "p.png").write_bytes(str(folder).encode())
    found = compare_folders(first, second, "_record.json")
    assert found.pop("j.json") == 0 and found.pop("s.txt") == 0
    assert set(found) == {"t.csv", "a.npz"} and all(0 < value < TOLERANCE for value in found.values())
    (second / "j.json").write_text(json.dumps({"a": [1, 3], "b": {"c": str(second)}}))
    (second / "extra.csv").write_text("x\n1\n")
    (second / "s.txt").write_text("other\n")
    found = compare_folders(first, second, "_record.json")
    assert found["j.json"] == 0.5 and found["extra.csv"] == np.inf and found["s.txt"] == np.inf


# ---- scripts whose result is a file: it may lie beside others, each with a record of its own


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with all that comes from a tower file: weather, NEP twice, windows, a forcing text."""
    folder = tmp_path_factory.mktemp("prepared")

    def made(name, *arguments):
        done = script(name, *arguments)
        assert done.returncode == 0, done.stderr
        return done

    weather, tower = folder / "weather.csv", save(fluxnet(count=366), folder / "tower.csv")
    made("weather.py", "--start", "2018-01-01", "--end", "2019-12-31", "--seed", 7, "--output", weather)
    made("weather.py", "--convert", weather, "--output", folder / "era5.txt")
    Scaler.fit(DYNAMIC_FEATURES, read_weather(weather).values).save(folder / "scaler_dynamic.json")
    for name, threshold in (("nep_obs.csv", 0.5), ("nep_obs_strict.csv", 0.8)):
        made("prepare_observation_nep.py", "--input", tower, "--qc-threshold", threshold, "--no-figure",
             f"--output={folder / name}")  # fmt: skip
    made("prepare_observation_meteorology.py", "--input", tower, "--era5", weather, "--no-figure", "--output",
         folder / "met_obs.csv")  # fmt: skip
    everything = [flag for name in ("tmp_2m", "tmp_sfc", "spfh_2m", "prate_sfc", "dswrf_sfc", "wind_10m")
                  for flag in ("--trust-era5", name)]  # fmt: skip
    made("blend_observation_meteorology.py", "--era5-input", folder / "era5.txt", "--obs-csv", folder / "met_obs.csv",
         "--output", folder / "blend.txt", *everything)  # fmt: skip
    made("build_observation_windows.py", "--daily", weather, "--obs", folder / "nep_obs.csv", "--scaler",
         folder / "scaler_dynamic.json", "--artifacts-dir", folder, "--stride", 30, "--output",
         folder / "obs_windows.npz")  # fmt: skip
    return folder


@pytest.mark.parametrize(("name", "outputs", "inputs", "files"), [
    ("weather", ["weather.csv", "era5.txt"], ["weather"], ["weather.csv", "era5.txt"]),
    ("prepare_observation_nep", ["nep_obs.csv", "nep_obs_strict.csv"], ["tower file"],
     ["nep_obs.csv", "nep_obs_by_year.csv", "nep_obs_choices.json", "nep_obs_strict.csv"]),
    ("prepare_observation_meteorology", ["met_obs.csv"], ["tower file", "ERA5"],
     ["met_obs.csv", "met_obs_comparison.csv", "met_obs_choices.json"]),
    ("blend_observation_meteorology", ["blend.txt"], ["ERA5", "tower weather", "its sources"],
     ["blend.txt", "blend.txt.json"]),
    ("build_observation_windows", ["obs_windows.npz"], ["weather", "observations", "scaler"],
     ["obs_windows.npz", "obs_windows_facts.json", "obs_windows_observed.csv"]),
])  # fmt: skip
def test_what_is_prepared_from_a_tower_is_made_again(prepared, name, outputs, inputs, files):
    records = [json.loads((prepared / f"{output}.{name}_record.json").read_text()) for output in outputs]
    assert [record["output"] for record in records] == outputs
    for what in inputs:
        given = records[-1]["inputs"][what]
        assert given["sha256"] == sha256(given["path"]) != ""
    before = sorted(prepared.iterdir())
    lines, code = reproduce(name, prepared, "--output")
    assert code == 0, lines
    assert {f"{file}: identical" for file in files} <= set(lines)
    assert sorted(prepared.iterdir()) == before  # made elsewhere


def test_a_seed_is_in_the_record_of_generated_weather_and_in_no_other(prepared):
    records = [
        json.loads((prepared / f"{name}.weather_record.json").read_text()) for name in ("weather.csv", "era5.txt")
    ]
    assert [record["seed"] for record in records] == [7, None]


def test_a_report_shows_beside_each_result_its_own_record(prepared):
    shown = {section.title: [facts.title for facts in section.made] for section in sections_of(prepared)}
    assert shown["Tower NEP: nep_obs"] == shown["Tower NEP: nep_obs_strict"]
    assert [title for title in shown["Tower NEP: nep_obs"] if title.startswith("Recorded by")] == [
        "Recorded by prepare_observation_nep.py when it ran"
    ]
    scripts = [row[0] for row in steps_of(prepared).rows]
    assert sorted(scripts) == ["blend_observation_meteorology.py", "build_observation_windows.py",
                               "prepare_observation_meteorology.py", "prepare_observation_nep.py",
                               "prepare_observation_nep.py", "weather.py", "weather.py"]  # fmt: skip


def test_a_value_that_was_changed_by_hand_is_found(prepared, tmp_path, capsys):
    tower = save(fluxnet(count=366), tmp_path / "tower.csv")
    arguments = ("--input", tower, "--no-figure", "--output", tmp_path / "out" / "nep.csv")
    assert script("prepare_observation_nep.py", *arguments).returncode == 0
    path = tmp_path / "out" / "nep.csv"
    table = pd.read_csv(path)
    table.loc[3, "nep_mg_ha"] += 0.01
    table.to_csv(path, index=False)
    done = script("prepare_observation_nep.py", "--reproduce", tmp_path / "out")
    assert done.returncode == 1 and "nep.csv: differs by" in done.stdout and "1 do not" in done.stdout
    tower.write_text(tower.read_text() + "\n")
    done = script("prepare_observation_nep.py", "--reproduce", tmp_path / "out")
    assert done.returncode == 2 and "(tower file) is not what it was" in done.stderr
    done = script("prepare_observation_nep.py", "--reproduce", tmp_path)
    assert done.returncode == 2 and "prepare_observation_nep_record.json: no such file" in done.stderr


def test_a_figure_alone_is_compared_byte_by_byte(tmp_path):
    (tmp_path / "r.csv").write_text("tree_sla,100,200\ntree_lue,0.04,0.06\n")
    rows = ["param_name,true,prior,estimated", "tree_sla,120,150,130", "tree_lue,0.05,0.05,0.045", ""]
    (tmp_path / "params.csv").write_text("\n".join(rows))
    made = script("plot_param_scatter.py", tmp_path / "params.csv", "--range-csv", tmp_path / "r.csv")
    assert made.returncode == 0, made.stderr
    lines, code = reproduce("plot_param_scatter", tmp_path, "--output")
    assert code == 0 and lines[0] == "params_norm_scatter.png: identical"
    assert compare_folders(tmp_path, tmp_path, "_record.json").keys() == {"params.csv", "r.csv"}  # numbers before bytes
    other = tmp_path / "other"
    other.mkdir()
    (other / "params_norm_scatter.png").write_bytes(b"another")
    assert compare_folders(tmp_path, other, "_record.json") == {"params_norm_scatter.png": np.inf}


def test_flags_of_files_that_a_second_run_must_not_touch():
    """--report is the file that check_ensemble.py writes, in other scripts a switch; --daily-dir writes more files."""
    assert second_arguments(["--strict"], "--report", Path("r")) == ["--report", "r"]  # its exit code is no failure
    given = ["--runs", "r.csv", "--daily-dir", "d", "--summary=s.csv", "--jobs", "1"]
    assert second_arguments(given, "--summary", Path("new")) == ["--runs", "r.csv", "--jobs", "1", "--summary", "new"]
    assert second_arguments(["--runs", "4", "--report", "r.json"], "--report", Path("new")) == [
        "--runs", "4", "--report", "new",
    ]  # fmt: skip
