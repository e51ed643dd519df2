"""Files of the earlier scripts: range tables with a header, nested configurations, param_names, lists as logs."""

import json
from pathlib import Path

import numpy as np
import pytest
from emulator_examples import NAMES, TINY, tiny_ensemble, write_ensemble
from script_calls import script

from calibration.common.command_line import UserError
from calibration.common.parameters import read_ranges
from calibration.ensembles.files import failed_samples, load_ensemble
from calibration.inversion.config import load_inversion_config, resolve_bounds_file
from calibration.judgement.tables import load_snapshot

TABLE = """index_and_name, range_min, range_max
3: "tree_alloc_ass", 0.01, tree_alloc_abg
4: "tree_alloc_abg", 0.5, 0.9
# second layer
a line of prose without three fields
40: "soil_sr_lf", 0.5, 2.0
"""


def test_range_table_with_a_header(tmp_path, capsys):
    path = tmp_path / "ranges.csv"
    path.write_text(TABLE)
    space = read_ranges(path)
    assert space.names == ("tree_alloc_ass", "tree_alloc_abg", "soil_sr_lf") and space.tied_to == (1, -1, -1)
    np.testing.assert_array_equal(space.upper, [0.9, 0.9, 2.0])
    err = capsys.readouterr().err
    assert "3 ranges read, 1 with another parameter as maximum; line 1 (index_and_name, range_min, range_max)" in err
    assert "line 5 has no three fields and is skipped" in err


def test_range_table_with_the_index_in_its_own_column(tmp_path):
    path = tmp_path / "ranges.csv"
    path.write_text("index,name,min,max\n3,tree_sla,85,255\n4,tree_lue,0.03,0.07\n")
    assert read_ranges(path).names == ("tree_sla", "tree_lue")


def test_a_wrong_number_is_no_header(tmp_path):
    path = tmp_path / "ranges.csv"
    for text, what in (
        ('0: "tree_sla", low, high\n', "minimum of tree_sla is 'low'"),
        ("name, min, max\ntree_sla, low, 255\n", "line 2: the minimum of tree_sla is 'low'"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=what):
            read_ranges(path)


NESTED = """inversion:
  lr: 0.2
  max_iters: 200
  lambda_prior: 0.0
  clip_raw_params:
    enabled: true
  bounds_file: bounds.yaml
"""


def test_configuration_under_inversion(tmp_path, capsys, monkeypatch):
    path = tmp_path / "nested.yaml"
    path.write_text(NESTED)
    (tmp_path / "bounds.yaml").write_text("parameter_bounds: {tree_sla: {min: 1, max: 2}}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_inversion_config(path)
    assert (config.method, config.lr, config.max_iters, config.lambda_prior) == ("adam", 0.2, 200, 0.0)
    assert resolve_bounds_file(config, path) == tmp_path / "bounds.yaml"
    assert "lr and max_iters without a method mean method: adam" in capsys.readouterr().err
    path.write_text(NESTED + "  speed: 3\n")
    with pytest.raises(UserError, match="unknown key 'speed'"):
        load_inversion_config(path)
    path.write_text(NESTED + "lr: 3\n")
    with pytest.raises(UserError, match="lr stands at the top and under inversion"):
        load_inversion_config(path)


def test_snapshot_with_param_names(tmp_path, capsys):
    path = tmp_path / "snapshot.json"
    content = {"param_names": ["b", "a"], "prior": [1.0, 2.0], "optimized": [1.5, 2.5], "metadata": {"mode": "x"}}
    path.write_text(json.dumps(content))
    prior, optimized, metadata = load_snapshot(path, ("a", "b"))
    assert prior.tolist() == [2.0, 1.0] and optimized.tolist() == [2.5, 1.5] and metadata == {"mode": "x"}
    assert "param_names, as earlier scripts wrote, are read as names (2)" in capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny ensemble with the log (a list) and the results (sample_idx, success) of the earlier scripts."""
    directory = write_ensemble(tmp_path_factory.mktemp("earlier"), tiny_ensemble(runs=9))
    (directory / "parameter_log.json").write_text(json.dumps([{"sample": 0, "values": {"tree_pmax": 1.0}}]))
    (directory / "experiment_results.csv").write_text(
        "sample_idx,success,elapsed_sec,message\n0,True,4.7,\n4,False,9.0,crashed\n"
    )
    return directory


def test_log_that_is_a_list_and_failed_runs(folder, capsys):
    assert failed_samples(folder / "experiment_results.csv") == {4}
    assert load_ensemble(folder).sample_ids.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert "1 failed runs left out (samples 4;" in capsys.readouterr().err


def test_the_two_stage_experiment_runs_on_such_a_folder(folder, tmp_path):
    """Train, invert one window with the nested configuration, judge its parameters: nothing is edited."""
    trained = script("train.py", "--data-dir", folder, "--artifacts-dir", tmp_path / "a", *TINY)
    assert trained.returncode == 0, trained.stderr
    assert "1 failed runs left out" in trained.stderr
    bounds = "".join(f"  {n}: {{min: 0.0, max: 500.0}}\n" for n in NAMES)
    (tmp_path / "bounds.yaml").write_text("parameter_bounds:\n" + bounds)
    (tmp_path / "nested.yaml").write_text(NESTED.replace("200", "3"))
    common = ["--artifacts-dir", tmp_path / "a", "--data-dir", folder, "--no-plots"]
    first = script("test_inversion.py", *common, "--config", tmp_path / "nested.yaml", "--result-dir", tmp_path / "r",
                   "--window-index", 5)  # fmt: skip
    assert first.returncode == 0, first.stderr
    snapshot = json.loads((tmp_path / "r" / "params_snapshot.json").read_text())
    snapshot["param_names"] = snapshot.pop("names")
    (tmp_path / "earlier.json").write_text(json.dumps(snapshot))
    second = script("test_inversion.py", *common, "--param-load", tmp_path / "earlier.json", "--result-dir",
                    tmp_path / "r2", "--window-index", 9)  # fmt: skip
    assert second.returncode == 0, second.stderr
    assert "JUDGED, NOT FITTED" in second.stdout
