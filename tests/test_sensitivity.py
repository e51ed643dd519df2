"""Sensitivity analysis: designs and indices against known answers, information of a tower, and sensitivity.py."""

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from script_calls import script

import sensitivity
from calibration.common.command_line import UserError
from calibration.common.parameters import make_space, read_ranges
from calibration.ensembles.rest import rests_like_others
from calibration.exploration import design, fluxes, information, reference, summary

SPACE = make_space([("a", 0.0, 1.0), ("b", 0.0, 1.0), ("c", 0.0, 1.0)], "test")
ALL = np.ones(512, dtype=bool)


def test_sobol_indices_of_the_ishigami_function():
    """Known answers of Ishigami and Homma (1990) with a = 7, b = 0.1 on (-pi, pi)."""
    plan = design.sobol_design(SPACE, 512, seed=1)

    def ishigami(unit):
        x = (2 * unit - 1) * np.pi
        return np.sin(x[:, 0]) + 7 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])

    values = design.evaluate(plan, SPACE, ishigami)
    table = design.indices(plan, {"y": values}, 1, ALL).set_index("parameter")
    assert table["S1"].to_numpy() == pytest.approx([0.314, 0.442, 0.0], abs=0.05)
    assert table["ST"].to_numpy() == pytest.approx([0.558, 0.442, 0.244], abs=0.05)
    assert (np.abs(table["ST"] - [0.558, 0.442, 0.244]) < 2 * table["ST_conf"]).all()


def test_elementary_effects_of_a_linear_function_are_its_slopes():
    plan = design.morris_design(SPACE, 5, seed=1)
    slopes = np.array([3.0, -2.0, 0.0])
    outputs = plan.unit @ np.stack([slopes, 2 * slopes], axis=1)
    effects = design.elementary_effects(plan, outputs)
    assert effects == pytest.approx(np.tile(np.stack([slopes, 2 * slopes], axis=1), (5, 1, 1)))
    table = design.indices(plan, {"y": outputs[:, 0]}, 1, np.ones(5, bool)).set_index("parameter")
    assert table["mu_star"].to_numpy() == pytest.approx([3, 2, 0]) and table["mu"].to_numpy() == pytest.approx(slopes)
    assert table["sigma"].to_numpy() == pytest.approx([0, 0, 0], abs=1e-12)


def test_a_shorter_sobol_design_is_the_beginning_of_a_longer_one():
    """What makes the process model's fewer runs the same as the emulator's."""
    few, many = (design.sobol_design(SPACE, n, seed=3) for n in (8, 32))
    assert np.array_equal(few.unit, many.first(8).unit)


def test_designs_hold_ranges_and_ties():
    space = read_ranges()
    for plan in (design.morris_design(space, 3, 0), design.sobol_design(space, 4, 0)):
        values = space.unit_to_physical(plan.unit)
        index = space.names.index("tree_alloc_ass"), space.names.index("tree_alloc_abg")
        assert (values[:, index[0]] <= values[:, index[1]] + 1e-12).all()
        assert (values >= space.lower - 1e-12).all() and (values <= space.upper + 1e-12).all()


def test_groups_that_hold_a_forest_not_at_rest_are_left_out():
    plan = design.morris_design(SPACE, 4, seed=1)
    values = plan.unit @ [1.0, 0.0, 0.0]
    values[5] = 1e6  # a dying forest in the second trajectory
    groups = design.kept(plan, rests_like_others(values, np.full(16, 40.0)))
    assert list(groups) == [True, False, True, True]
    assert design.indices(plan, {"y": values}, 1, groups)["mu_star"].to_numpy() == pytest.approx([1, 0, 0])
    with pytest.raises(UserError, match="only 0 of 4 morris groups"):
        design.indices(plan, {"y": values}, 1, np.zeros(4, bool))


def test_a_quantity_that_nothing_changes_has_no_sensitivity():
    plan = design.sobol_design(SPACE, 4, seed=1)
    table = design.indices(plan, {"y": np.full(len(plan.unit), 0.3)}, 1, np.ones(4, bool))
    assert (table[["ST", "S1", "ST_conf"]] == 0).all().all()


def test_information_of_one_parameter_is_the_textbook_posterior():
    """n days of slope g and error s: precision 12 + n g^2 / s^2 against the prior's 12."""
    effects = np.full((3, 1, 40), 0.02)
    expected = np.sqrt(12 / (12 + 40 * 0.02**2 / 0.01**2))
    assert information.sd_ratios(effects, 0.01) == pytest.approx(np.full((3, 1), expected))


def test_what_acts_alike_is_informed_in_combination_only_and_more_days_never_hurt():
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((1, 1, 400))
    effects = np.concatenate([signal, signal, 0.3 * rng.standard_normal((1, 1, 400))], axis=1)
    table = information.information_table(effects, ("a", "b", "c"), [30, 400], 0.05)
    by = table.set_index(["days", "parameter"])["sd_ratio"]
    assert by[400, "a"] == pytest.approx(np.sqrt(0.5), abs=0.01)  # only a + b is known
    assert by[400, "c"] < 0.1 and (by[400] <= by[30] + 1e-9).all()
    sentence = information.answer(table, 0.05, "process model")
    assert "400 days: c (" in sentence and "Of 3 parameters" in sentence


def test_period_and_sums():
    dates = np.arange(np.datetime64("2015-01-01"), np.datetime64("2018-01-01"))
    period = fluxes.choose_period(dates, None, 30, 180)
    assert str(period.start) == "2017-01-01" and period.days == 365
    made = np.ones((2, 365, 4)) * [1.0, 2.0, 3.0, 4.0]
    sums = fluxes.sums(made)
    assert sums["annual GPP"][0] == 365 and sums["30-day NEP"][1] == 90 and sums["annual Rh"][0] == 4 * 365
    with pytest.raises(UserError, match="choose a start from 2015-06-30 to 2017-01-01"):
        fluxes.choose_period(dates, np.datetime64("2017-02-01"), 30, 180)
    with pytest.raises(UserError, match="the weather has 1096 days"):
        fluxes.choose_period(dates, None, 2000, 180)


def reference_table():
    """One trajectory of three runs in which b, then a moved."""
    return pd.DataFrame({
        "sample_id": [0, 1, 2], "trajectory": [0, 0, 0], "tree_lue": [1.0, 1.0, 2.0], "tree_qtf0": [5.0, 7.0, 7.0],
        "mean_GPP": [10.0, 10.5, 12.0], "mean_NPP": [5.0, 5.0, 5.0], "mean_ER": [9.0, 9.0, 9.5],
        "mean_NEP": [1.0, 1.5, 2.5],
    })  # fmt: skip


def test_effects_of_real_runs_are_attributed_to_what_moved():
    real = reference_table()
    table = reference.compare(real, real, "runs.csv").set_index(["flux", "parameter"])
    assert table.loc[("GPP", "tree_qTf0"), "real"] == pytest.approx(0.5)
    assert table.loc[("GPP", "tree_lue"), "process_model"] == pytest.approx(1.5)
    real.loc[2, "tree_qtf0"] = 6.0
    with pytest.raises(UserError, match=r"runs.csv, line 4: 2 parameters differ"):
        reference.moves(real, "runs.csv")


def test_agreement_names_what_lies_apart():
    one = pd.DataFrame({"quantity": "q", "parameter": ["a", "b"], "ST": [0.9, 0.1], "ST_conf": 0.1})
    other = one.assign(ST=[0.2, 0.15])
    table = summary.agreement("sobol", summary.side_by_side({"x": one, "y": other}), "x", "y")
    assert table.loc[0, "apart"] == 1 and table.loc[0, "largest_at"] == "a"
    assert table.loc[0, "rank_correlation"] == pytest.approx(1.0)


@pytest.fixture(scope="module")
def trained(tiny_training, tmp_path_factory):
    """A folder with a tiny emulator of an analytic forest; one of its parameters the process model does not know."""
    return shutil.copytree(tiny_training, tmp_path_factory.mktemp("sensitivity") / "project")


def test_the_script_answers_in_its_first_line(trained):
    result = trained / "result"
    done = script("sensitivity.py", "--artifacts-dir", trained / "artifacts", "--data-dir", trained / "data",
                  "--result-dir", result, "--samples", 4, "--trajectories", 3, "--days", 30, 100, "--quiet",
                  "--figure-format", "svg")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "no parameter my_parameter: the emulator alone" in done.stderr
    first = (result / "sensitivity_summary.txt").read_text().splitlines()[0]
    assert first.startswith("Of 5 parameters, daily NEP of a tower") and done.stdout.splitlines()[0] == first
    sobol = pd.read_csv(result / "sensitivity_sobol.csv")
    assert len(sobol) == 6 * 5 and {"emulator_ST", "emulator_ST_conf"} <= set(sobol)
    assert json.loads((result / "sensitivity.json").read_text())["sobol_runs"]["emulator"]["runs"] == 28
    assert (result / "tower_information_emulator.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samples", "100"], "--samples is 100; it must be a power of 2"),
        (["--noise", "0"], "--noise is 0.0; it must be above 0"),
        (["--days", "1"], "--days holds 1"),
        (["--trajectories", "1"], "--trajectories is 1; it must be 2 or more"),
        (["--reference", "x.csv"], "--reference and --reference-weather belong together"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(monkeypatch, arguments, message):
    monkeypatch.setattr(sys, "argv", ["sensitivity.py", *arguments])
    with pytest.raises(UserError, match=message):
        sensitivity.parse_arguments()


def test_bad_input_leaves_nothing(trained):
    done = script("sensitivity.py", "--artifacts-dir", trained / "artifacts", "--data-dir", trained / "data",
                  "--result-dir", trained / "refused", "--models", "process_model")  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "no parameter my_parameter; use --models emulator" in done.stderr.splitlines()[-1]
    assert not (trained / "refused").exists()
