"""Sentences and tables of reports, each made from a few numbers: parameters, misfit, runs, words, steps."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from calibration.common.command_line import REPOSITORY, UserError
from calibration.common.parameters import make_space
from calibration.conflict import misfit
from calibration.inversion.config import make_inversion_config
from calibration.judgement.judge import Case
from calibration.judgement.tables import save_truth
from calibration.reports import emulator, inversion, kinds, page, parameters
from calibration.reports.content import GOOD
from calibration.reports.glossary import linked

EVIL = "</script><script>document.title='stolen'</script>"


def test_steps_of_a_whole_path_are_read_and_checked(tmp_path):
    path = tmp_path / "steps.csv"
    path.write_text(f"step,script,seconds,seed\n{EVIL},a.py,1.5,20250\nb,b.py,2,\n")
    table = kinds.steps_of(tmp_path)
    assert table.cells()[0][3][0] == "20250" and table.rows[1][3] is None and "4 seconds in all" in table.caption
    assert EVIL not in page.render("t", [], steps=table)[0]
    path.write_text("step,script,seconds,seed\na,a.py,soon,1\n")
    with pytest.raises(UserError, match="seconds or seeds of the steps are no numbers"):
        kinds.steps_of(tmp_path)


def test_parameters_that_were_not_free_count_neither_as_hit_nor_as_miss(tmp_path):
    save_truth(tmp_path, {"a": 1.0, "b": 9.0, "c": 2.0}, "made up")
    table = pd.DataFrame({"param_name": ["a", "b", "c", "d"], "low_90": [0.0, 0.0, 5.0, 0.0],
                          "high_90": [2.0, 2.0, 5.0, 1.0], "sd_ratio": [0.5, 0.9, np.nan, 0.9]})  # fmt: skip
    table, sentence = parameters.with_truth(table, tmp_path)
    assert "1 of 2 lie inside" in sentence and sentence.endswith("Outside: b.")
    assert list(table["inside"]) == [True, False, None, None]


def test_the_verdict_says_which_parameters_are_known_only_together(tmp_path):
    path = tmp_path / "posterior_correlation.csv"
    assert parameters.correlation_sentence(path) == ""
    values = np.eye(4)
    for i, j, r in ((0, 1, 0.55), (0, 2, -0.9), (1, 3, 0.6), (2, 3, -0.7), (1, 2, 0.4)):
        values[i, j] = values[j, i] = r
    names = list("abcd")
    pd.DataFrame(values, names, names).rename_axis("param_name").to_csv(path)
    assert parameters.correlation_sentence(path).endswith(
        ": c with a (-0.90), d with c (-0.70), d with b (+0.60), and 1 more pairs."
    )
    pd.DataFrame(np.eye(4), names, names).rename_axis("param_name").to_csv(path)
    assert parameters.correlation_sentence(path) == ""
    pd.DataFrame(np.eye(4)[:3], names[:3], names).rename_axis("param_name").to_csv(path)
    with pytest.raises(UserError, match="4 columns for 3 parameters"):
        parameters.correlation_sentence(path)


def test_the_verdict_says_where_the_posterior_lies_in_several_places(tmp_path):
    path = tmp_path / "posterior.npz"
    assert parameters.modes_sentence(path) == ""
    np.savez(path, mode_weights=[1.0])
    assert parameters.modes_sentence(path) == ""
    np.savez(path, mode_weights=[0.1, 0.25, 0.65])
    sentence = parameters.modes_sentence(path)
    assert "in 3 places" in sentence and "65, 25 and 10 percent" in sentence and "estimate's place 10)" in sentence
    assert "not where" not in sentence
    np.savez(path, mode_weights=[0.05, 0.3, 0.65])
    assert "not where most of the posterior lies: it holds 5 percent" in parameters.modes_sentence(path)
    np.savez(path, mode_weights=[0.6, 0.398, 0.002])
    sentence = parameters.modes_sentence(path)
    assert "in 2 places, which hold 60 and 40 percent" in sentence and "not where" not in sentence
    np.savez(path, mode_weights=[0.004, 0.003, 0.993])
    sentence = parameters.modes_sentence(path)
    assert "places" not in sentence and "it holds 0.4 percent of it. Use the intervals" in sentence
    np.savez(path, mode_weights=[0.993, 0.007])
    assert parameters.modes_sentence(path) == ""
    path.write_bytes(b"PK")
    with pytest.raises(UserError, match="not readable as a posterior"):
        parameters.modes_sentence(path)


def posterior_of(ratios):
    """A table of parameters with these posterior over prior sds."""
    return pd.DataFrame({"param_name": list(ratios), "unit": "-", "optimized": 1.0, "low_90": 0.0, "high_90": 2.0,
                         "sd_ratio": list(ratios.values())})  # fmt: skip


def test_informed_parameters_are_said_with_what_their_intervals_held_in_tests():
    sentence = parameters.informed_sentence(posterior_of({"a": 1.0, "tree_lue": 0.5, "b": 0.6963, "c": 0.73}))
    assert sentence.startswith("Informed, of 4 parameters: tree_lue 1 (90 percent interval 0 to 2")
    for words in ("prior's 0.50)", "prior's 0.696, borderline)", "Just short of it: c (0.730).",
                  "those of tree_lue 86 percent", f"those of all parameters {parameters.HELD_OF_ALL}"):  # fmt: skip
        assert words in sentence, words
    sentence = parameters.informed_sentence(posterior_of({"b": 0.5}))
    assert "a little less" not in sentence and f"held {parameters.HELD_OF_ALL} percent" in sentence
    sentence = parameters.informed_sentence(posterior_of({"b": 0.71, "c": 0.9}))
    assert sentence.startswith("No parameter's posterior sd") and sentence.endswith("Just short of it: b (0.710).")


def test_what_intervals_held_is_what_was_measured():
    page_text = (REPOSITORY / "benchmarks" / "results" / "recovery.md").read_text(encoding="utf-8")
    informed = re.search(r"Of the informed: (.*?); of no parameter below 0.85", page_text).group(1)
    assert informed == ", ".join(f"{name} {share / 100:.2f}" for name, share in parameters.HELD.items())
    of_all = re.search(r"coverage (0\.\d+) \(standard error 0.005\), annual NEP 0.89,", page_text).group(1)
    assert round(100 * float(of_all)) == parameters.HELD_OF_ALL
    assert "they held 89, of no parameter fewer than 85" in page.render("t", [])[0]


def test_months_before_the_fit_are_told_with_the_rule_that_decides(tmp_path):
    """A mean outside the band of the prior's means is no conflict by itself, and the words say so."""
    path = tmp_path / "prior_conflict.csv"
    pd.DataFrame({"month": ["2019-04"], "days": [29], "observed_mean": [0.0], "prior_mean": [0.15], "prior_low": [0.1],
                  "prior_high": [0.2], "share_outside": [0.14], "conflict": [False]}  # fmt: skip
                 ).to_csv(path, index=False)  # fmt: skip
    (block,) = inversion.conflict_blocks(path)
    assert "less than the model can do" in block.caption and "more than 20 percent of a month's" in block.caption
    assert not block.marked and "no parameter" not in inversion.FIGURES["prior_conflict"]


def test_the_verdict_says_what_the_process_model_itself_makes_of_the_estimate():
    series = pd.DataFrame({"observed": [1.0, 3.0, 9.0], "valid": [1, 1, 0], "optimized": [1.0, 2.0, 0.0]})
    assert inversion.process_sentence(series, "NEP") == ""
    sentence = inversion.process_sentence(series.assign(simulator=[2.0, 4.0, 0.0]), "NEP")
    assert "Part of the fit is thus the emulator's error" in sentence
    assert "Part of" not in inversion.process_sentence(series.assign(simulator=series["optimized"] * 1.01), "NEP")
    assert "NEP with RMSE 1.0000" in sentence and "(R2 0.00)" in sentence and "the emulator with 0.7071" in sentence
    assert "They differ by RMSE 1.58114, bias (emulator - process model) -1.50000." in sentence


@pytest.mark.parametrize(
    ("truth", "observation_sd", "said"), [(np.ones(1), None, True), (np.ones(1), 0.005, False), (None, None, False)]
)
def test_intervals_are_too_narrow_only_where_no_noise_is_supposed(truth, observation_sd, said):
    result = SimpleNamespace(config=make_inversion_config({"error_model": {"observation_sd": observation_sd}}))
    assert Case([], [], "", 1, truth).without_noise(result) is said


def test_a_misfit_is_split_into_mean_season_and_days():
    dates = np.arange(np.datetime64("2011-01-01"), np.datetime64("2015-01-01"))
    phase = 2 * np.pi * (dates - dates[0]).astype(int) / 365.25
    noise = np.random.default_rng(0).standard_normal(len(dates))
    for mean, season, day, most in ((-3.0, 1.0, 1.0, "mean"), (0.2, 3.0, 1.0, "season"), (0.2, 1.0, 3.0, "day to day")):
        residual = mean + season * np.sqrt(2) * np.sin(phase) + day * noise
        parts = misfit.misfit_parts(dates, residual)
        assert max(parts, key=lambda name: parts[name][1]) == most
        assert parts["mean"][0] == pytest.approx(abs(mean), abs=0.1) and parts["season"][0] == pytest.approx(
            season, rel=0.25
        )
        assert sum(share for _, share in parts.values()) == pytest.approx(1)
        series = pd.DataFrame({"date": dates.astype(str), "valid": 1, "observed": 0.0, "optimized": residual})
        sentence = inversion.conflict_sentence(series, "NEP")
        assert f"Mostly {'' if most == 'day to day' else 'the '}{most}" in sentence
        assert ("below the tower" in sentence) == (mean < 0)


@pytest.mark.parametrize(
    ("rmse", "words"), [(0.001, "GOOD ENOUGH"), (0.004, "USABLE WITH CARE"), (0.006, "NOT GOOD ENOUGH")]
)
def test_the_emulators_verdict_follows_its_error_beside_a_towers(rmse, words):
    evaluation = {"unseen": {"nep": {"rmse": rmse, "r2": 0.9, "baselines": {"arx": {"rmse": 0.02}}}}}
    verdict, tone, meaning = emulator.judged(evaluation)
    assert "Good enough means: an RMSE of NEP on unseen runs below 0.0025" in meaning[0]
    assert verdict.startswith(words) and (tone == GOOD) == (words == "GOOD ENOUGH")
    evaluation["unseen"]["nep"]["baselines"]["arx"]["rmse"] = rmse / 2
    assert emulator.judged(evaluation)[0].startswith("NOT GOOD ENOUGH")


def test_why_the_worst_run_is_predicted_worst(tmp_path):
    """Known answers: a run that errs by its mean, and one that errs by its shape; b is tied to a."""
    space = make_space([("a", 0.0, 10.0), ("b", 0.0, "a")], "test")
    table = pd.DataFrame({
        "sample_id": [1, 2, 3], "rmse_nep": [0.001, 0.004, 0.001], "bias_nep": [0.0, -0.0036, 0.0005],
        "rmse_npp": [0.002, 0.001, 0.001], "rmse_rh": [0.001, 0.003, 0.001], "mean_gpp": 0.1, "nse_nep": 0.9,
        "at_rest": [True, False, True], "a": [4.9, 4.0, 2.0], "b": [2.45, 3.96, 1.0],
    })  # fmt: skip
    path = tmp_path / "evaluation_worst_runs.csv"
    table.to_csv(path, index=False)
    shown, (bias, sentence) = emulator.worst_runs(path, space)
    assert bias == "On average NEP lies 0.38 Mg C ha-1 year-1 too low, in 1 of 3 unseen runs on this side."
    for words in ("Run 2 is predicted worst: NEP RMSE 0.00400, 4.0 times", "mostly bias (it lies too low)",
                  "the bias is 81 percent", "Rh errs more than NPP (0.00300 against 0.00100)", "It is not at rest.",
                  "the upper end of b, 1.0 percent of the range away", "20.0 is usual, so it lies nearer"):  # fmt: skip
        assert words in sentence, sentence
    assert [row[0] for row in shown.rows] == [2, 1, 3]
    place = list(shown.headers).index("nearest limit")
    assert [row[place] for row in shown.rows] == ["upper end of b", "lower end of a", "lower end of a"]

    table.loc[1, ["rmse_nep", "at_rest"]] = 0.0005, True
    table.drop(columns="b").to_csv(path, index=False)
    shown, (_, sentence) = emulator.worst_runs(path, space)
    assert "mostly shape, not bias" in sentence and "NPP errs more" in sentence and "at rest" not in sentence
    assert "limit" not in sentence and "nearest limit" not in shown.headers
    table.iloc[:0].to_csv(path, index=False)
    assert emulator.worst_runs(path, space)[1] == []


def test_a_bias_of_all_runs_is_said_beside_what_nep_is():
    table = pd.DataFrame({"bias_nep": [0.0003, 0.0004], "mean_nep": [0.001, 0.003]})
    assert emulator.bias_sentence(table) == (
        "On average NEP lies 0.13 Mg C ha-1 year-1 too high, in 2 of 2 unseen runs on this side; in the test period "
        "the process model's own is 0.37 to 1.10."
    )


def test_words_of_cards_lead_to_their_meaning():
    words, used = {"at rest": "A.", "90 % interval": "B.", "seen, unseen runs": "C.", "informed": "D."}, set()
    html = linked("INFORMED <b>: informed, 90 percent intervals; Unseen runs at restaurants", words, used)
    assert html == (
        '<a class="word" href="#word-informed">INFORMED</a> &lt;b&gt;: informed, '
        '<a class="word" href="#word-90-interval">90 percent intervals</a>; '
        '<a class="word" href="#word-seen-unseen-runs">Unseen runs</a> at restaurants'
    )
    assert 'word-informed">UNINFORMATIVE</a>' in linked("UNINFORMATIVE", words, set())
    assert linked("informed & at rest", words, used) == (
        'informed &amp; <a class="word" href="#word-at-rest">at rest</a>'
    )
