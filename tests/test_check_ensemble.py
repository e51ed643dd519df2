"""check_ensemble.py finds wrong labels, other weather and other sites, and raises no alarm where all is right."""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from mislabelled_ensemble import WITHOUT_EFFECT, WRONG_LABELS, write_ensemble

import check_ensemble
import run_perturbations
from calibration.common.command_line import UserError
from calibration.common.parameters import read_ranges
from calibration.common.sites import load_site
from calibration.engines.perturbation import draw
from calibration.ensembles import label_check, label_search
from calibration.ensembles.diagnosis import Evidence, Hypothesis, differences
from calibration.ensembles.label_check import judge
from calibration.ensembles.label_search import Search, other_sites, returned, shifted, swapped
from calibration.visit import forcing
from calibration.weather.daily import Weather, generate_weather, write_weather_csv


@pytest.fixture(scope="module")
def weather():
    return generate_weather(load_site(), "2011-01-01", "2012-12-31", seed=5)


@pytest.fixture(scope="module")
def site():
    return load_site()


def check(monkeypatch, directory, *more):
    """Exit code and report of check_ensemble.main()."""
    report = directory / "report.json"
    monkeypatch.setattr(sys, "argv", ["x", "--data-dir", str(directory), "--report", str(report), "--runs", "4", *more])
    code = check_ensemble.main()
    return code, json.loads(report.read_text())


@pytest.fixture
def young(monkeypatch):
    """Forests of 200 years instead of 2010, those that are written and those that are simulated again: a search makes
    hundreds, and labels tell themselves at any age (the rule at full age: test_no_alarm..., benchmarks/).
    """
    monkeypatch.setattr(forcing, "SPINUP_YEARS", 200)


def no_search(*_, **__):
    pytest.fail("nothing has to be explained here")


def no_variants(monkeypatch):
    """Leave the versions of VISIT out of the search, a dozen simulations: test_visit_variants.py is about them."""
    monkeypatch.setattr(label_check, "explain_by_variant", lambda evidence, start, jobs: [start])


# ---- whole ensembles


def test_the_eight_wrong_labels_are_found(young, tmp_path, weather, site, monkeypatch, capsys):
    """The labels of visit_carbon_core.md 9.2, with the columns that are concerned (all 36: benchmarks/)."""
    no_variants(monkeypatch)
    monkeypatch.setattr(label_search, "other_sites", lambda *_: [])
    monkeypatch.setattr(label_search, "SCREENED", 2)
    write_ensemble(tmp_path, weather, site, runs=4, slots=WRONG_LABELS, names=list(WRONG_LABELS))
    code, report = check(monkeypatch, tmp_path, "--strict")
    assert code == 1 and report["verdict"] == "wrong label"
    assert {record["column"]: record["slot"] for record in report["suspect_columns"]} == WRONG_LABELS
    hidden = [record["column"] for record in report["suspect_columns"] if not record["visible"]]
    assert hidden == list(WITHOUT_EFFECT)
    assert report["misfit"] > 0.05 and report["misfit_explained"] < 1e-4
    assert "verdict: wrong label" in capsys.readouterr().out


def test_no_alarm_for_an_ensemble_from_here_with_a_cut_period(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(label_check, "search", no_search)
    arguments = ["--n-samples", "4", "--seed", "9", "--start", "2015-03-01", "--end", "2015-12-31", "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", ["x", *arguments, "--output-dir", str(tmp_path)])
    assert run_perturbations.main() == 0
    code, report = check(monkeypatch, tmp_path, "--strict")
    assert code == 0 and report["verdict"] == "agrees" and report["misfit"] < 1e-5
    assert report["suspect_columns"] == [] and report["site_constants"] == {}

    (tmp_path / "parameter_log.json").unlink()  # now the weather of the spin-up is unknown
    with pytest.raises(UserError, match="no whole calendar year"):
        check(monkeypatch, tmp_path)
    whole = generate_weather(load_site(), "2010-01-01", "2019-12-31", seed=9)
    write_weather_csv(tmp_path / "whole.csv", whole)
    assert check(monkeypatch, tmp_path, "--weather", str(tmp_path / "whole.csv"))[1]["verdict"] == "agrees"


def test_other_weather_is_told_apart(young, tmp_path, weather, site, monkeypatch, capsys):
    monkeypatch.setattr(label_check, "search", no_search)
    other = generate_weather(site, "2011-01-01", "2012-12-31", seed=6)
    write_ensemble(tmp_path, weather, site, runs=4, file_weather=other, names=["tree_lue", "tree_pmax"])
    assert check(monkeypatch, tmp_path)[1]["verdict"] == "other weather"
    write_weather_csv(tmp_path / "weather.csv", weather)
    assert check(monkeypatch, tmp_path, "--weather", str(tmp_path / "weather.csv"))[1]["verdict"] == "other weather"
    assert "weather.csv differs from the daily files' own columns: tmp_sfc on 2011-01-01" in capsys.readouterr().out


def test_other_site_constants_are_told_apart(young, tmp_path, weather, site, monkeypatch):
    no_variants(monkeypatch)
    rivals = {"lower_capacity", "upper_capacity", "altitude", "texture"}
    monkeypatch.setattr(
        label_search, "other_sites", lambda *given: [one for one in other_sites(*given) if rivals & set(one.constants)]
    )
    monkeypatch.setattr(label_search, "SCREENED", 2)
    write_ensemble(tmp_path, weather, replace(site, lower_capacity=800.0), runs=4, names=["tree_lue", "c3_lc0"])
    _, report = check(monkeypatch, tmp_path)
    assert report["verdict"] == "other site constants" and report["suspect_columns"] == []
    assert report["site_constants"]["lower_capacity"] == pytest.approx(800.0, rel=0.03)


def test_columns_that_the_model_does_not_have(tmp_path, weather, site, monkeypatch, capsys):
    write_ensemble(tmp_path, weather, site, runs=3, names=["tree_lue", "tree_pmax"])
    table = pd.read_csv(tmp_path / "parameter_summary.csv")
    table.assign(bark_colour=[1, 2, 3]).to_csv(tmp_path / "parameter_summary.csv", index=False)
    assert check(monkeypatch, tmp_path)[1]["verdict"] == "agrees"
    assert "columns that the process model does not have are left out: bark_colour" in capsys.readouterr().err
    table[["sample_id"]].assign(bark_colour=[1, 2, 3]).to_csv(tmp_path / "parameter_summary.csv", index=False)
    with pytest.raises(UserError, match="none of the columns bark_colour, ... is a parameter"):
        check(monkeypatch, tmp_path)
    with pytest.raises(UserError, match="--runs is 2; at least 3"):
        check(monkeypatch, tmp_path, "--runs", "2")


# ---- the parts


@pytest.fixture(scope="module")
def evidence(site):
    space = read_ranges()
    days = np.datetime64("2011-01-01") + np.arange(5)
    weather = Weather(days, np.ones((5, 10)), "none")
    return Evidence(space.names, draw(space, 20, 1), np.ones((20, 5, 3)), weather, 0, site)


def test_differences_are_zero_for_equal_fluxes_and_bounded():
    found = np.random.default_rng(1).gamma(2.0, 0.03, (3, 400, 3))
    assert (differences(found, found) == 0).all()
    opposite = differences(-found, found)
    assert (np.abs(opposite) <= 2 / 0.5).all()
    tripled = differences(np.stack([3 * found]), found)[0]
    np.testing.assert_allclose(tripled[:, :3], 1.0, atol=0.05)  # 3 against 1: 2 / mean of 2
    np.testing.assert_allclose(tripled[:, 3:], 2 / 3, atol=0.01)
    dead = np.zeros_like(found)
    assert (np.abs(differences(dead, dead)) == 0).all()


def test_candidates_hold_the_wrong_blocks_and_only_plausible_ones(evidence):
    moves = [hypothesis.moved for hypothesis in shifted(evidence, Hypothesis(), (-1, 1))]
    assert {"tree_alloc_ass": "tree_albedo", "tree_alloc_abg": "tree_alloc_ass"} in moves
    assert {"tree_lf0": "tree_lc0", "tree_lc0": "tree_lr0", "tree_lr0": "tree_dcd"} in moves
    assert not any(move.get("tree_topt") == "tree_tmin" for move in moves)  # 20-30 deg C is no lower limit
    assert not any(slot == "tree_phenoltype" for move in moves for slot in move.values())
    single = next(move for move in moves if move.get("tree_lf0") == "tree_lc0" and len(move) == 2)
    assert single["tree_lc0"] is None  # its slot is taken: it ends nowhere

    swaps = [hypothesis.moved for hypothesis in swapped(evidence, Hypothesis())]
    assert {"tree_qTf0": "tree_qTc0", "tree_qTc0": "tree_qTf0"} in swaps
    assert {"tree_lue": "c3_lue", "c3_lue": "tree_lue"} in swaps
    assert not any(set(move) == {"tree_sla", "tree_lue"} for move in swaps)


def test_steps_build_on_each_other(evidence):
    base = Hypothesis({"tree_lf0": "tree_lc0", "tree_lc0": None})
    further = [hypothesis.moved for hypothesis in shifted(evidence, base, (1,))]
    assert {"tree_lf0": "tree_lc0", "tree_lc0": "tree_lr0", "tree_lr0": None} in further
    assert Hypothesis({"tree_lc0": None}).complexity > Hypothesis({"tree_lc0": "tree_lr0"}).complexity
    back = [hypothesis.moved for hypothesis in returned(evidence, base)]
    assert back == [{"tree_lc0": None}, {}, {"tree_lf0": None}]  # one at a time, and with the column whose slot it has
    places = other_sites(evidence, base)
    assert all(place.moved == base.moved and len(place.constants) == 1 for place in places)
    assert {name for place in places for name in place.constants} >= {"lower_capacity", "altitude", "texture"}


@pytest.mark.parametrize(
    ("before", "after", "best", "verdict"),
    [
        (0.20, 0.001, Hypothesis({"tree_lf0": "tree_lc0"}), "wrong label"),
        (0.20, 0.001, Hypothesis({}, {"altitude": 800.0}), "other site constants"),
        (0.20, 0.15, Hypothesis({"tree_lf0": "tree_lc0"}), "unexplained"),
        (0.012, 0.007, Hypothesis({"tree_lf0": "tree_lc0"}), "agrees"),  # as much as the model itself may err
        (0.012, 0.0001, Hypothesis({"c3_lf0": "c3_lc0"}), "wrong label"),  # but this explains it all
    ],
)
def test_verdicts(before, after, best, verdict):
    assert judge(Search([(Hypothesis(), before), (best, after)])) == verdict
