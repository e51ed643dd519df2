"""evaluate_parameter_recovery.py on one case, and plot_param_scatter.py, with a tiny trained emulator."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from emulator_examples import NAMES, tiny_ensemble
from script_calls import run_script

import evaluate_parameter_recovery
import plot_param_scatter
from calibration.common.command_line import UserError


@pytest.fixture(scope="module")
def trained(tiny_training, tmp_path_factory) -> Path:
    """artifacts/ and a fast config."""
    folder = tmp_path_factory.mktemp("recovery")
    for name in ("data", "artifacts"):
        (folder / name).symlink_to(tiny_training / name)
    (folder / "fast.yaml").write_text(
        "starts: 2\nsamples: 300\nbounds_file: emulator\ngauss_newton: {max_iterations: 4}\nmax_iters: 20\n"
    )
    return folder


def recover(trained: Path, results: Path, *arguments) -> int:
    return run_script(
        evaluate_parameter_recovery, "--artifacts-dir", trained / "artifacts", "--config", trained / "fast.yaml",
        "--result-dir", results, *arguments,
    )  # fmt: skip


@pytest.fixture(scope="module")
def recovered(trained, tmp_path_factory) -> Path:
    """The folder of one recovery case, to be read."""
    folder = tmp_path_factory.mktemp("recovered")
    recover(trained, folder, "--sample-id", 3, "--window-index", 2, "--trace-params", "TREE_PMAX", "--trace-stride", 2)
    return folder


def test_recovery_writes_its_files_and_the_scatter_reads_them(recovered, tmp_path):
    kinds = {p.name.split("_", 4)[-1] for p in recovered.iterdir()}
    assert {"params.csv", "summary.json", "overview.png", "param_bars.png", "param_traces.png"} <= kinds
    path = next(recovered.glob("sample003_win0002_mean_*_params.csv"))
    table = pd.read_csv(path)
    np.testing.assert_allclose(table["error_estimated"], table["estimated"] - table["true"])
    ensemble = tiny_ensemble(runs=12)
    np.testing.assert_allclose(table["true"], ensemble.parameters[3])
    np.testing.assert_allclose(table["prior"], ensemble.parameters.mean(axis=0))
    ranges = tmp_path / "ranges.csv"
    ranges.write_text("".join(f'{i}: "{n}", {0.01 * (i + 1)}, 500\n' for i, n in enumerate(NAMES)))
    assert run_script(plot_param_scatter, path, "--range-csv", ranges, "--include-prior") == 0
    assert path.with_name(path.stem + "_norm_scatter.png").is_file()
    assert run_script(plot_param_scatter, path) == 0  # the ranges of the emulator's ensemble, which the CSV holds


def test_scatter_uses_the_ensembles_own_ranges_where_others_do_not_hold(trained, recovered, tmp_path, capsys):
    path = next(recovered.glob("*_params.csv"))
    far = tmp_path / "ranges.csv"
    far.write_text("".join(f'{i}: "{n}", 1000, 5000\n' for i, n in enumerate(NAMES)))
    assert run_script(plot_param_scatter, path, "--range-csv", far) == 0
    out, err = capsys.readouterr()
    assert "ranges.csv: 10 of 10 values lie outside these ranges" in err and "ranges of the ensemble are used" in err
    assert float(out.split("estimated ")[-1].split()[0]) < 1.0
    bare = tmp_path / "bare_params.csv"
    pd.read_csv(path).drop(columns=["range_low", "range_high"]).to_csv(bare, index=False)
    assert run_script(plot_param_scatter, bare, "--artifacts-dir", trained / "artifacts") == 0
    with pytest.raises(UserError, match="so they are not those of the ensemble; give the ensemble's own ranges"):
        run_script(plot_param_scatter, bare, "--range-csv", far, "--artifacts-dir", tmp_path)
    with pytest.raises(UserError, match="holds no ranges, and .* is no emulator of these parameters"):
        run_script(plot_param_scatter, bare, "--artifacts-dir", tmp_path)


def test_prior_modes(trained, tmp_path):
    recover(trained, tmp_path, "--sample-id", 3, "--prior-mode", "true", "--no-plots")
    summary = json.loads(next(tmp_path.glob("sample003_win0000_true_*_summary.json")).read_text())
    assert summary["range_error_prior"] == 0
    assert not list(tmp_path.glob("*.png"))
    recover(trained, tmp_path, "--prior-mode", "sample", "--prior-sample-id", 5, "--no-plots")
    table = pd.read_csv(next(tmp_path.glob("sample000_win0000_sample_*_params.csv")))
    np.testing.assert_allclose(table["prior"], tiny_ensemble(runs=12).parameters[5])
    with pytest.raises(UserError, match="needs --prior-sample-id"):
        recover(trained, tmp_path, "--prior-mode", "sample")
    with pytest.raises(UserError, match="has no parameter 'pmax'"):
        recover(trained, tmp_path, "--trace-params", "pmax")


def test_scatter_refuses_other_tables(tmp_path):
    path = tmp_path / "x_params.csv"
    path.write_text("param_name,true\ntree_pmax,1\n")
    with pytest.raises(UserError, match="has no column 'estimated'"):
        run_script(plot_param_scatter, path)
    path.write_text("param_name,true,estimated\ntree_pmax,1,many\n")
    with pytest.raises(UserError, match="line 2: estimated is 'many', expected a number"):
        run_script(plot_param_scatter, path)
