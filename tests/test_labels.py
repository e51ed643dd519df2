"""Labels: train.py stops where outputs contradict them, and the label map is honoured wherever the ensemble is read."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from emulator_examples import TINY
from mislabelled_ensemble import write_ensemble
from script_calls import script

import train
from calibration.common.command_line import UserError, run
from calibration.common.configuration import load_configuration
from calibration.common.parameters import UNUSED, implausible
from calibration.common.sites import load_site
from calibration.common.units import TARGETS
from calibration.emulator.settle import CHECK, settle_labels
from calibration.emulator.trained import load_emulator
from calibration.ensembles.files import Ensemble, load_ensemble
from calibration.ensembles.label_check import CHECKED, LabelCheck
from calibration.ensembles.labels import (
    LabelMap,
    from_dict,
    load_labelled,
    read_labels,
    table_hash,
    write_labels,
)
from calibration.ensembles.rest import culprits, rest_lines, runs_at_rest
from calibration.inversion.inputs import load_matching_ensemble, prior_parameters
from calibration.judgement.judge import Case
from calibration.judgement.simulator_check import simulate_vectors
from calibration.reports.content import Table
from calibration.reports.recovery import case_sections
from calibration.weather.daily import Weather, generate_weather

SWAPPED = {"tree_lue": "tree_pmax", "tree_pmax": "tree_lue"}
WRONG = [{"column": column, "slot": slot, "visible": True} for column, slot in SWAPPED.items()]


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory):
    """Six runs of two years whose columns tree_lf0 and tree_lc0 went into the slots behind them."""
    directory = tmp_path_factory.mktemp("mislabelled")
    weather = generate_weather(load_site(), "2014-01-01", "2016-12-31", seed=5)
    names = ["tree_lf0", "tree_lc0", "tree_lue"]
    write_ensemble(
        directory, weather, load_site(), runs=6, slots={"tree_lf0": "tree_lc0", "tree_lc0": "tree_lr0"}, names=names
    )
    return directory


def test_contradicted_labels_stop_training_with_both_ways_on(mislabelled, tmp_path, monkeypatch, capsys):
    """The verdict is computed once, kept by content, and nothing of the user's is touched."""
    asked = []

    def found(ensemble, site, **options):
        """The search itself is tested in test_check_ensemble.py."""
        asked.append(ensemble)
        return LabelCheck("wrong label", ["  tree_lue -> tree_pmax"], 0.5, 0.001, suspect_columns=WRONG)

    monkeypatch.setattr("calibration.ensembles.label_check.check_labels", found)
    table = (mislabelled / "parameter_summary.csv").read_bytes()
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["x", "--data-dir", str(mislabelled), "--artifacts-dir", str(tmp_path / "a")])
        with pytest.raises(SystemExit) as stopped:
            run(train.main)
        assert stopped.value.code == 2
        captured = capsys.readouterr()
        assert "tree_lue -> tree_pmax" in captured.out
        assert f"--labels {mislabelled / 'parameter_labels.yaml'}" in captured.err and "--labels trust" in captured.err
    assert len(asked) == 1 and (mislabelled / CHECKED).is_file()
    assert (mislabelled / "parameter_summary.csv").read_bytes() == table and not (tmp_path / "a").exists()
    written = read_labels(mislabelled / "parameter_labels.yaml", mislabelled)
    assert written.columns == SWAPPED
    (mislabelled / "parameter_labels.yaml").unlink()
    (mislabelled / CHECKED).unlink()


@pytest.mark.parametrize(
    ("verdict", "misfits", "contradicts"),
    [("wrong label", (0.5, 0.01), True), ("wrong label", (0.5, 0.2), False), ("other weather", (0.5, 0.5), False)],
)
def test_only_what_explains_nearly_all_contradicts(verdict, misfits, contradicts):
    assert LabelCheck(verdict, [], *misfits).contradicts is contradicts


def test_the_map_is_honoured_from_training_to_prior_and_simulator(mislabelled, tmp_path):
    labels = LabelMap({"tree_lf0": "tree_lc0", "tree_lc0": None}, table_hash(mislabelled), ("tree_lc0",))
    path = write_labels(tmp_path, labels)
    out = tmp_path / "a"
    flags = [flag for flag in TINY if flag not in ("--labels", "trust")]
    done = script(
        "train.py", "--data-dir", mislabelled, "--artifacts-dir", out, *flags, "--hidden-size", 8, "--labels", path
    )
    assert done.returncode == 0, done.stderr
    assert "labels put right: tree_lf0 (slot 37, tree_lc0), tree_lc0 (no slot)" in done.stdout
    assert "nothing can be learned of them: tree_lc0" in done.stdout
    emulator = load_emulator(out)
    own = load_ensemble(mislabelled)
    names = ("tree_lc0", f"{UNUSED}tree_lc0", "tree_lue")
    assert emulator.parameter_names == names and emulator.labels == labels
    assert emulator.shown == {"tree_lc0": "tree_lf0 (slot 37, tree_lc0)", names[1]: "tree_lc0 (no slot)"}
    assert Case([], [], "", 0, shown=emulator.shown).written(names)[::2] == ["tree_lf0 (slot 37, tree_lc0)", "tree_lue"]
    assert np.array_equal(load_matching_ensemble(emulator, mislabelled).parameters, own.parameters)
    prior, _ = prior_parameters(emulator, mislabelled)
    assert np.allclose(prior, own.parameters.mean(axis=0))
    weather = Weather(own.dates, own.dynamic, "the ensemble's")
    here = simulate_vectors(own.parameters[:2], names, weather, load_site())
    there = simulate_vectors(own.parameters[:2, [0, 2]], ("tree_lc0", "tree_lue"), weather, load_site())
    assert np.array_equal(here, there)  # a column without a slot reaches no process model
    evaluated = script("evaluate_model.py", "--artifacts-dir", out, "--no-figures", "--window-stride", 200)
    assert evaluated.returncode == 0, evaluated.stderr
    baselines = json.loads((out / "evaluation.json").read_text())["unseen"]["gpp"]["baselines"]
    assert {"gaussian_process", "boosting"} < set(baselines)
    recovered = script("evaluate_parameter_recovery.py", "--artifacts-dir", out, "--data-dir", mislabelled, "--starts",
                       1, "--result-dir", tmp_path / "r")  # fmt: skip
    assert recovered.returncode == 0, recovered.stderr
    table = pd.read_csv(next((tmp_path / "r").glob("*params.csv")))
    assert tuple(table["param_name"]) == names  # what other scripts look up
    assert table["label"].tolist() == ["tree_lf0 (slot 37, tree_lc0)", "tree_lc0 (no slot)", "tree_lue"]
    (section,) = case_sections(tmp_path / "r")
    shown = next(block for block in section.blocks if isinstance(block, Table))
    assert [row[0] for row in shown.rows] == table["label"].tolist()
    studied = script("evaluate_parameter_recovery.py", "--artifacts-dir", out, "--data-dir", mislabelled, "--starts", 1,
                     "--cases", 2, "--span", 20, "--jobs", 1, "--no-plots", "--result-dir", tmp_path / "s")  # fmt: skip
    assert studied.returncode == 0, studied.stderr
    assert "covered too rarely: none; too often: none (95 percent interval" in studied.stdout  # two cases
    assert pd.read_csv(tmp_path / "s" / "recovery_parameters.csv")["label"].tolist() == table["label"].tolist()


def test_another_table_is_taken_as_labelled_right(mislabelled, tmp_path):
    config = load_configuration()
    labels = LabelMap({"tree_lf0": "tree_lc0", "tree_lc0": "tree_lr0"}, "another table")
    options = dataclasses.replace(config.data, label_map=labels.as_dict())
    assert load_labelled(mislabelled, options).parameter_names == ("tree_lf0", "tree_lc0", "tree_lue")
    fitting = dataclasses.replace(labels, table=table_hash(mislabelled))
    options = dataclasses.replace(config.data, label_map=fitting.as_dict())
    assert load_labelled(mislabelled, options).parameter_names == ("tree_lc0", "tree_lr0", "tree_lue")


def test_ranges_of_the_log_follow_the_columns():
    labels = LabelMap({"tree_lf0": "tree_lc0", "tree_tmax": None}, "x")
    given = {"tree_lf0": {"min": 0.1, "max": 1.0}, "tree_topt": {"min": 20.0, "max_from": "tree_tmax"}}
    assert labels.ranges(given) == {
        "tree_lc0": {"min": 0.1, "max": 1.0}, "tree_topt": {"min": 20.0, "max_from": f"{UNUSED}tree_tmax"}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a list", "is no label map"),
        ("columns: {tree_lue: tree_pmax}", "table_sha256 is missing"),
        ("table_sha256: x\ncolumns: {tree_lue: bark}", "goes to slot 'bark'"),
        ("table_sha256: x\ncolumns: {tree_lue: 9999}", "goes to slot 9999"),
        ("table_sha256: x\ncolumns: {tree_lue: true}", "goes to slot True"),
        ("table_sha256: x\ncolumns: {tree_lue: tree_sla, tree_pmax: tree_sla}", "into one slot, tree_sla"),
        ("table_sha256: x\ncolumns: {}\nwithout_effect: 3", "without_effect is 3"),
        ("table_sha256: x\ncolumns: {}\nother: 3", "is no label map"),
        ("table_sha256: x\ncolumns: {}", "was made for another ensemble"),
        ("{", "not readable as YAML"),
    ],
)
def test_bad_maps_are_one_line_and_write_nothing(content, message, mislabelled, tmp_path, monkeypatch, capsys):
    path = tmp_path / "map.yaml"
    path.write_text(content)
    monkeypatch.setattr(
        "sys.argv",
        ["x", "--data-dir", str(mislabelled), "--artifacts-dir", str(tmp_path / "a"), "--labels", str(path)],
    )
    with pytest.raises(SystemExit) as stopped:
        run(train.main)
    assert stopped.value.code == 2 and message in capsys.readouterr().err and not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [({"bark": "tree_sla"}, "has no column bark"), ({"tree_lf0": "tree_lue"}, "tree_lf0 and tree_lue into one slot")],
)
def test_maps_that_do_not_fit_the_table(columns, message):
    labels = from_dict({"table_sha256": "x", "columns": columns}, "map.yaml")
    with pytest.raises(UserError, match=message):
        labels.renamed(("tree_lf0", "tree_lue"), "table.csv")


def test_a_map_corrected_by_hand_is_not_overwritten(tmp_path):
    (tmp_path / "parameter_labels.yaml").write_text("my own")
    path = write_labels(tmp_path, LabelMap(SWAPPED, "x"))
    assert path.name == "parameter_labels_2.yaml" and (tmp_path / "parameter_labels.yaml").read_text() == "my own"
    assert write_labels(tmp_path, LabelMap(SWAPPED, "x")) == path  # the same again: nothing more
    assert from_dict(yaml.safe_load(path.read_text()), path).columns == SWAPPED


def test_names_that_the_model_does_not_know_are_not_checked(tmp_path):
    weather = generate_weather(load_site(), "2014-01-01", "2014-12-31", seed=5)
    write_ensemble(tmp_path, weather, load_site(), runs=3, names=["tree_lue"])
    table = pd.read_csv(tmp_path / "parameter_summary.csv")
    table.rename(columns={"tree_lue": "bark"}).to_csv(tmp_path / "parameter_summary.csv", index=False)
    said = []
    assert settle_labels(CHECK, load_ensemble(tmp_path), load_site(), tmp_path / "a", said.append) is None
    assert "none of the columns is a parameter of VISIT" in said[0] and not (tmp_path / CHECKED).exists()


# ---- what is said of an ensemble beforehand


def restless_ensemble(runs=60):
    """Runs whose NEP leaves zero where tree_tmax is low; tree_lue has nothing to do with it."""
    rng = np.random.default_rng(0)
    parameters = np.column_stack([rng.uniform(25, 50, runs), rng.uniform(0.03, 0.07, runs)])
    low = parameters[:, 0] < 28
    fluxes = np.ones((runs, 5, 4), dtype=np.float32)
    fluxes[:, :, TARGETS.index("nep")] = 0.001 * rng.standard_normal((runs, 1)) + 0.3 * low[:, None]
    days = np.datetime64("2011-01-01") + np.arange(5)
    names = ("tree_tmax", "tree_lue")
    return Ensemble(Path("tiny"), np.arange(runs), days, np.ones((5, 10)), fluxes, parameters, names), low


def test_forests_not_at_rest_are_named_with_the_column_that_makes_them_so():
    ensemble, low = restless_ensemble()
    assert np.array_equal(runs_at_rest(ensemble), ~low) and 2 < low.sum() < 15
    (one,) = culprits(ensemble.parameter_names, ensemble.parameters, ~low)
    assert one.name == "tree_tmax" and one.restless[1] < 28 < one.all_runs[1] and one.plausible == (40.0, 50.0)
    lines = rest_lines(ensemble)
    assert lines[0].startswith(f"not at rest: {low.sum()} of 60 runs") and "plausible is 40 to 50" in lines[1]
    assert culprits(ensemble.parameter_names, ensemble.parameters, np.ones(60, bool)) == []


def test_an_albedo_of_snow_is_said_and_simulated(tmp_path):
    (tmp_path / "ranges.csv").write_text('0: "tree_albedo", 0.2, 0.9\n')
    flags = ["--n-samples", 3, "--ranges", tmp_path / "ranges.csv", "--start", "2015-01-01", "--end", "2015-12-31",
             "--output-dir", tmp_path / "data", "--jobs", 1]  # fmt: skip
    done = script("run_perturbations.py", *flags)
    assert done.returncode == 0, done.stderr
    assert "implausible values, simulated as they are: tree_albedo up to 0." in done.stderr
    assert load_ensemble(tmp_path / "data").parameters.max() > 0.6
    assert implausible(("tree_albedo", "tree_lue"), np.array([[0.3, 0.9]])) == ""
