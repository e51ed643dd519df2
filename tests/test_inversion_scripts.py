"""test_inversion.py on a tiny trained emulator."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from emulator_examples import NAMES, tiny_ensemble
from script_calls import run_script, script

import test_inversion as inversion_script
from calibration.common.command_line import UserError
from calibration.common.units import DAILY_COLUMNS, TARGETS
from calibration.emulator.trained import load_emulator
from calibration.ensembles.files import write_daily_file
from calibration.inversion.inputs import load_matching_ensemble
from calibration.judgement.tables import TRUTH, save_truth
from calibration.reports import inversion
from calibration.tower.windows import Windows

CONTRACT = {
    "nep_comparison.png", "loss_history.png", "parameter_changes.png", "parameter_values.csv", "params_snapshot.json",
    "inversion_summary.txt",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tiny_training, tmp_path_factory) -> Path:
    """data/, artifacts/, windows.npz (every 10 days of 2017, run 1 as the tower, two days masked) and a fast config."""
    folder = tmp_path_factory.mktemp("inversion")
    ensemble = tiny_ensemble(runs=12)
    for name in ("data", "artifacts"):
        (folder / name).symlink_to(tiny_training / name)
    emulator = load_emulator(folder / "artifacts")
    scaled = emulator.dynamic_scaler.transform(ensemble.dynamic)
    first = int(np.searchsorted(ensemble.dates, np.datetime64("2017-01-01")))
    starts = first + np.arange(0, 300, 10)
    fluxes = np.full((len(starts), 30, 4), np.nan, dtype=np.float32)
    fluxes[:, :, 2] = np.stack([ensemble.fluxes[1, s : s + 30, 2] for s in starts])
    valid = np.stack([~np.isin(np.arange(s, s + 30), [first + 3, first + 12]) for s in starts])
    y_mask = np.zeros(fluxes.shape, dtype=bool)
    y_mask[:, :, 2] = valid
    Windows(
        np.stack([scaled[s - 180 : s] for s in starts]).astype(np.float32),
        np.stack([scaled[s : s + 30] for s in starts]).astype(np.float32), fluxes, valid, y_mask,
        ensemble.dates[starts], emulator.feature_names, TARGETS, emulator.dynamic_scaler.mean,
        emulator.dynamic_scaler.scale,
    ).save(folder / "windows.npz")  # fmt: skip
    (folder / "fast.yaml").write_text(
        "starts: 2\nsamples: 300\nbounds_file: emulator\ngauss_newton: {max_iterations: 4}\nmax_iters: 20\n"
    )
    return folder


def invert(trained: Path, results: Path, *arguments) -> int:
    return run_script(
        inversion_script, "--data-dir", trained / "data", "--artifacts-dir", trained / "artifacts", "--config",
        trained / "fast.yaml", "--result-dir", results, "--no-plots", *arguments,
    )  # fmt: skip


def observed(trained: Path, results: Path, *arguments) -> int:
    return invert(trained, results, "--obs-npz", trained / "windows.npz", *arguments)


def test_observation_mode_leaves_every_file_of_the_contract(trained, tmp_path):
    result = script(
        "test_inversion.py", "--artifacts-dir", trained / "artifacts", "--config", trained / "fast.yaml",
        "--result-dir", tmp_path, "--mode", "observation", "--obs-npz", trained / "windows.npz",
        "--obs-index", 0, "--param-save", tmp_path / "kept.json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert CONTRACT | {"posterior.npz", "posterior.nc", "prior_conflict.csv"} <= {p.name for p in tmp_path.iterdir()}
    table = pd.read_csv(tmp_path / "parameter_values.csv")
    assert list(table.columns) == ["param_name", "prior", "optimized", "delta", "delta_pct"]
    # Without --data-dir the prior comes from the ensemble that the emulator was trained on.
    np.testing.assert_allclose(table["prior"], tiny_ensemble(runs=12).parameters.mean(axis=0))
    assert table["param_name"].tolist() == list(NAMES)
    np.testing.assert_allclose(table["delta"], table["optimized"] - table["prior"], atol=1e-12)
    snapshot = json.loads((tmp_path / "params_snapshot.json").read_text())
    assert set(snapshot) == {"names", "prior", "optimized", "metadata"}
    np.testing.assert_allclose(snapshot["optimized"], table["optimized"])
    assert snapshot == json.loads((tmp_path / "kept.json").read_text())
    summary = (tmp_path / "inversion_summary.txt").read_text()
    assert summary.split(":")[0] in (
        "FITS AND IS INFORMATIVE",
        "FITS BUT IS UNINFORMATIVE",
        "CONFLICTS WITH THE MODEL",
    )
    for line in ("windows: 1", "NEP valid observations: 28", "NEP RMSE prior", "NEP RMSE optimized", "NEP improvement",
                 "NEP R2 optimized (against the observed mean)", "climatology", "constant"):  # fmt: skip
        assert line in summary
    assert not list(tmp_path.glob(".*")), "temporary files are left"


def test_two_stage_use_judges_a_range_with_loaded_parameters(trained, tmp_path):
    observed(trained, tmp_path / "fit", "--obs-index", 0)
    snapshot = tmp_path / "fit" / "params_snapshot.json"
    year = ("--obs-range-start", "2017-01-01", "--obs-range-end", "2017-06-30")
    observed(trained, tmp_path / "year", "--param-load", snapshot, *year)
    summary = (tmp_path / "year" / "inversion_summary.txt").read_text()
    # 19 windows start in the range; 181 days minus the two masked ones, each counted once although windows overlap,
    # minus the 28 that the parameters were fitted to
    assert "windows: 19" in summary and "NEP valid observations: 151" in summary
    assert summary.startswith("JUDGED, NOT FITTED") and "on 151 days that they were not fitted to" in summary
    told = "test out of sample: 28 more observed days, to which they were fitted, are left out"
    assert told in summary
    assert {"inversion_summary.txt", "parameter_values.csv"} <= {p.name for p in (tmp_path / "year").iterdir()}
    loaded = json.loads((tmp_path / "year" / "params_snapshot.json").read_text())
    assert loaded["optimized"] == json.loads(snapshot.read_text())["optimized"]
    series = pd.read_csv(tmp_path / "year" / "nep_comparison.csv")
    good = series[series["valid"] == 1]
    rmse = float(np.sqrt(np.mean((good["optimized"] - good["observed"]) ** 2)))
    assert f"NEP RMSE optimized: {rmse:.5f}" in summary
    series = series.set_index("date")
    assert not series.loc["2017-01-01":"2017-01-30", "valid"].any() and series.loc["2017-01-31", "valid"]
    # nothing was fitted to these days, and nothing says so
    assert "  judged  optimized" in summary and "  fitted  " not in summary
    assert set(pd.read_csv(tmp_path / "year" / "skill.csv")["days"]) == {"judged"}
    assert set(pd.read_csv(tmp_path / "year" / "nep_residuals_by_month.csv")["set"]) == {"judged"}
    section = inversion.section(tmp_path / "year")
    tables = {block.headers[0]: block for block in section.blocks if block.kind == "table"}
    assert "On the judged days (151)" in " ".join(section.meaning) and told in " ".join(section.meaning)
    titles = [block.title for block in section.made if block.kind == "facts"]
    assert "Of the inversion that the parameters come from" in titles
    assert {row[0] for row in tables["days"].rows} == {"judged"} and "not fitted to them" in tables["days"].caption
    assert "given parameters" in [row[1] for row in tables["days"].rows]
    assert tables["parameter"].headers == ["parameter", "meaning", "unit", "prior", "value"]
    assert tables["month"].headers == ["month", "observed days", "observed mean", "residual mean", "RMSE", "one-sided"]
    legend = [item.label.value for block in section.blocks if block.kind == "interactive"
              for item in block.figure.legend[0].items]  # fmt: skip
    assert {"observed", "given parameters"} <= set(legend) and not {"observed, fitted", "estimate"} & set(legend)
    # as earlier versions wrote it
    table = pd.read_csv(tmp_path / "year" / "skill.csv").replace({"days": {"judged": "fitted"}})
    table.to_csv(tmp_path / "year" / "skill.csv", index=False)
    assert inversion.section(tmp_path / "year").meaning == section.meaning


def test_days_that_made_the_parameters_do_not_judge_them(trained, tmp_path):
    """Where none other is left, or where they are not known, the page says that it is no test out of sample."""
    observed(trained, tmp_path / "fit", "--obs-index", 0)
    path = tmp_path / "fit" / "params_snapshot.json"
    snapshot = json.loads(path.read_text())
    assert snapshot["metadata"]["fitted_days"][0][0] == "2017-01-01"
    assert snapshot["metadata"]["errors"]["nep"]["observations"] == 28
    said = inversion.section(tmp_path / "fit").meaning
    assert any("errors of NEP in the fit" in line and "meant for 90 percent, holds" in line for line in said)
    observed(trained, tmp_path / "same", "--param-load", path, "--obs-index", 0)
    summary = (tmp_path / "same" / "inversion_summary.txt").read_text()
    assert "NEP valid observations: 28" in summary and "no test out of sample: all of these 28 days" in summary
    del snapshot["metadata"]["fitted_days"]
    path.write_text(json.dumps(snapshot))
    observed(trained, tmp_path / "earlier", "--param-load", path, "--obs-index", 0)
    summary = (tmp_path / "earlier" / "inversion_summary.txt").read_text()
    assert "on these days" in summary and "is not recorded; some of these 28" in summary


def test_range_step_and_most_windows(trained, tmp_path):
    year = ("--obs-range-start", "2017-01-01", "--obs-range-end", "2017-12-31")
    observed(trained, tmp_path, *year, "--obs-range-step", 3, "--max-obs-windows", 2)
    summary = (tmp_path / "inversion_summary.txt").read_text()
    assert "windows: 2" in summary and "observed days 2017-01-01 to 2017-03-01" in summary


def test_held_out_days_are_judged_but_not_fitted(trained, tmp_path):
    save_truth(tmp_path, {"tree_pmax": 1.0}, "an earlier run in this folder")
    observed(
        trained, tmp_path, "--obs-range-start", "2017-01-01", "--obs-range-end", "2017-04-30", "--holdout-start",
        "2017-05-01", "--holdout-end", "2017-06-30", "--nuisance", "offset",
    )  # fmt: skip
    summary = (tmp_path / "inversion_summary.txt").read_text()
    assert "NEP valid observations: 118" in summary and "NEP valid observations, held out: 61" in summary
    assert "constant offset of NEP" in summary
    skill = pd.read_csv(tmp_path / "skill.csv", index_col=[0, 1])
    assert set(skill.loc["holdout"].index) == {"prior", "optimized", "constant", "climatology"}
    assert not (tmp_path / TRUTH).exists(), "nobody knows a tower's true parameters"
    section = inversion.section(tmp_path)
    tables = {block.headers[0]: block for block in section.blocks[::-1] if block.kind == "table"}
    assert {row[0] for row in tables["days"].rows} == {"fitted", "held out"}
    held = list(tables["month"].headers).index("of them held out")
    assert {row[0]: row[held] for row in tables["month"].rows if row[held]} == {"2017-05": 31, "2017-06": 30}


@pytest.fixture(scope="module")
def fitted(trained, tmp_path_factory) -> Path:
    """The result folder of one window's inversion, to be read."""
    folder = tmp_path_factory.mktemp("fitted")
    observed(trained, folder, "--obs-index", 2)
    return folder


def test_posterior_files_are_readable_and_agree(fitted):
    import xarray

    with np.load(fitted / "posterior.npz") as archive:
        names, samples = list(archive["names"]), archive["samples"]
        assert archive["nep_samples"].shape[1] == 30
    table = pd.read_csv(fitted / "posterior_summary.csv").set_index("param_name")
    assert (table["low_90"] <= table["high_90"]).all()
    np.testing.assert_allclose(table["mean"], samples.mean(axis=0), rtol=1e-6)
    group = xarray.open_dataset(fitted / "posterior.nc", group="posterior", engine="h5netcdf")
    assert group["tree_pmax"].dims == ("chain", "draw")
    np.testing.assert_allclose(group["tree_pmax"][0], samples[:, names.index("tree_pmax")])


def test_bands_of_the_true_flux_and_of_observations(fitted):
    import xarray

    series = pd.read_csv(fitted / "nep_comparison.csv")
    assert (series["observed_low_90"] < series["low_90"]).all() and (series["low_90"] < series["high_90"]).all()
    assert (series["high_90"] < series["observed_high_90"]).all()
    used = series[series["fitted"] == 1]
    share = used["observed"].between(used["observed_low_90"], used["observed_high_90"]).mean()
    summary = (fitted / "inversion_summary.txt").read_text()
    assert f"fitted days inside the 90 percent predictive band: {100 * share:.0f} percent" in summary
    sd = float(summary.split("observation sd ")[1].split()[0])
    predicted = xarray.open_dataset(fitted / "posterior.nc", group="posterior_predictive", engine="h5netcdf")
    noise = (predicted["nep"] - predicted["true_nep"]).to_numpy()
    assert noise.std() == pytest.approx(sd, rel=0.05)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_arviz_reads_the_posterior(fitted):
    arviz = pytest.importorskip("arviz")
    data = arviz.from_netcdf(fitted / "posterior.nc", engine="h5netcdf")
    assert {"posterior", "posterior_predictive", "observed_data"} <= set(data.groups())
    assert "tree_pmax" in arviz.summary(data, var_names=["tree_pmax"]).index


def test_simulation_mode_with_the_other_methods(trained, tmp_path):
    for method in ("adam", "ensemble"):
        invert(
            trained,
            tmp_path / method,
            "--mode",
            "simulation",
            "--sample-id",
            2,
            "--window-index",
            5,
            "--method",
            method,
        )
        assert {p.name for p in (tmp_path / method).iterdir()} >= {n for n in CONTRACT if not n.endswith(".png")}
    invert(trained, tmp_path / "free", "--sample-id", 2, "--unconstrained", "--targets", "nep,gpp,er")
    assert "No posterior" in (tmp_path / "free" / "inversion_summary.txt").read_text()
    assert {"gpp_comparison.csv", "er_comparison.csv"} <= {p.name for p in (tmp_path / "free").iterdir()}


def test_free_and_fix(trained, tmp_path):
    observed(trained, tmp_path, "--free", "tree_pmax", "tree_lue", "--fix", "tree_lue")
    table = pd.read_csv(tmp_path / "parameter_values.csv").set_index("param_name")
    assert table["delta"].drop("tree_pmax").abs().max() == 0 and table["delta"]["tree_pmax"] != 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--obs-index", "99"], r"--obs-index 99 is out of range: .*windows.npz holds windows 0 to 29"),
        (["--obs-range-start", "2019-01-01"], "no window of .* starts between 2019-01-01 and .*start 2017-01-01 to"),
        (["--obs-range-start", "2017-05-01", "--obs-range-end", "2017-04-01"], "lies after --obs-range-end"),
        (["--obs-range-end", "2016-04-01"], "--obs-range-end 2016-04-01 lies before 2017-01-01, the first start"),
        (["--obs-index", "1", "--obs-range-start", "2017-01-01"], "give one of them"),
        (["--obs-prior-sample", "77"], "has no sample 77; it holds 12 samples, 0 to 11"),
        (["--holdout-start", "2017-01-01"], "belong together"),
        (["--obs-npz", "absent.npz"], "absent.npz: no such file"),
        (["--free", "nothing"], "unknown parameter 'nothing'"),
        (["--fix", *NAMES], "no parameter is left free"),
        (["--targets", "nep,gpp"], "no valid observation of gpp"),
        (["--targets", "nee"], "target_variable is 'nee', allowed is nep, gpp"),
        (["--param-load", "absent.json"], "absent.json: no such file"),
        (["--method", "ensemble", "--unconstrained"], "has no prior to draw an ensemble from"),
        (["--artifacts-dir", "absent"], "config.json: no such file; train an emulator first"),
    ],
)
def test_bad_input_of_the_inversion(trained, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        observed(trained, tmp_path / "results", *arguments)
    assert not (tmp_path / "results").exists(), "bad input must write nothing"


def test_window_index_and_sample_out_of_range(trained, tmp_path):
    with pytest.raises(UserError, match=r"--window-index 5000 is out of range: .* has windows 0 to \d+"):
        invert(trained, tmp_path, "--mode", "simulation", "--window-index", 5000)
    with pytest.raises(UserError, match="has no sample 50; it holds 12 samples, 0 to 11"):
        invert(trained, tmp_path, "--mode", "simulation", "--sample-id", 50)


def test_files_with_another_column_order_are_read_as_in_training(tmp_path):
    ensemble = tiny_ensemble(runs=2, end="2015-03-31")
    order = (*DAILY_COLUMNS[:4], *DAILY_COLUMNS[:3:-1])
    for sample, fluxes in enumerate(ensemble.fluxes):
        path = tmp_path / f"LHP_1_daily_{sample:04d}.txt"
        write_daily_file(path, ensemble.dates, ensemble.dynamic, fluxes)
        rows = [line.split() for line in path.read_text().splitlines()]
        at = [DAILY_COLUMNS.index(name) for name in order]
        path.write_text("".join(" ".join(row[i] for i in at) + "\n" for row in rows))
    table = pd.DataFrame(ensemble.parameters, columns=list(NAMES))
    table.insert(0, "sample_id", ensemble.sample_ids)
    table.to_csv(tmp_path / "parameter_summary.csv", index=False)
    data = SimpleNamespace(column_order=list(order), drop_columns=None, label_map=None)
    emulator = SimpleNamespace(configuration=SimpleNamespace(data=data), parameter_names=NAMES, directory=tmp_path)
    np.testing.assert_allclose(load_matching_ensemble(emulator, tmp_path).fluxes, ensemble.fluxes, atol=1e-7)
    data.column_order = None
    with pytest.raises(UserError, match="check the unit and the column order"):
        load_matching_ensemble(emulator, tmp_path)


def test_bad_snapshots(trained, tmp_path):
    path = tmp_path / "snapshot.json"
    for content, message in (
        ({"names": ["a"], "optimized": [1]}, "unknown parameter 'a'"),
        ({"names": list(NAMES)[1:], "optimized": [1] * 4}, "no value for 'tree_pmax'"),
        ({"names": list(NAMES), "optimized": [1, 2]}, "'prior' must hold 5 finite numbers"),
        ({"values": 3}, "holds no 'names' and 'optimized'"),
        ({"names": 3, "optimized": [1]}, "holds no 'names' and 'optimized'"),
        ({"names": list(NAMES), "optimized": [1] * 5, "metadata": [1]}, "give a params_snapshot.json of"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=message):
            observed(trained, tmp_path / "r", "--param-load", path)
    path.write_text("{broken")
    with pytest.raises(UserError, match="not readable as JSON"):
        observed(trained, tmp_path / "r", "--param-load", path)


def test_exit_code_and_one_line(trained, tmp_path):
    result = script("test_inversion.py", "--artifacts-dir", tmp_path, "--result-dir", tmp_path / "r")
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
    assert not (tmp_path / "r").exists()


def test_a_result_directory_that_is_a_file_is_refused_before_the_work(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for name in ("test_inversion.py", "evaluate_parameter_recovery.py"):
        for place in (taken, taken / "below"):  # --artifacts-dir does not exist: the folder is looked at first
            result = script(name, "--artifacts-dir", tmp_path / "none", "--result-dir", place)
            assert result.returncode == 2 and "--result-dir" in result.stderr and "is a file" in result.stderr
    assert taken.read_text() == "mine"
