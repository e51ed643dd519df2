"""Pieces of the emulator's benchmarks whose mistakes nobody would see in a table."""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from emulator_examples import tiny_ensemble

from calibration.common.command_line import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

from ablations import VARIANTS, spread_and_error
from benchmark_training import PLAIN, page
from conclusions import read_conclusions
from learning_curve import windows
from learning_curve_report import figure, worst_runs, write_report

from calibration.common import skill
from calibration.common.configuration import check, load_configuration
from calibration.common.units import TARGETS
from dataset import prepare


@pytest.fixture(scope="module")
def data():
    return prepare(tiny_ensemble(runs=30), replace(load_configuration().splits, unseen_share=0.3))


def test_spread_of_honest_networks_is_their_error_and_that_of_twins_is_none():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(40, 50, 4))
    scale = np.exp(rng.normal(size=(1, 40, 1, 1)))  # some runs are harder
    honest = truth + scale * rng.normal(size=(40, 40, 50, 4))
    row = spread_and_error(honest, truth)[0]
    assert row["flux"] == "gpp" and row["correlation_runs"] > 0.9
    assert row["rms_error"] == pytest.approx(row["rms_spread"] / np.sqrt(40), rel=0.1)  # of the mean of 40
    twins = np.repeat((truth + rng.normal(size=truth.shape))[None], 3, axis=0) + 1e-9 * rng.normal(size=(3, 1, 1, 1))
    assert spread_and_error(twins, truth)[2]["rms_spread"] < 1e-8


def test_every_variant_is_a_valid_configuration():
    base = load_configuration(preset="recommended")
    for model, training in VARIANTS.values():
        check(replace(base, model=replace(base.model, **model), training=replace(base.training, **training)), "variant")


def test_windows_cover_the_test_year_and_score_the_truth_perfectly(data):
    runs, seen = data.unseen, []

    def truth(days):
        seen.append(days)
        return data.truth(runs, days)

    assert windows(data, runs, 7, truth)["nep"] == 1.0
    period = data.periods["test"]
    assert seen[0].start == period.start and period.stop - seen[-1].stop < 7
    off = windows(data, runs, 7, lambda days: data.truth(runs, days) + 0.01)
    assert off["nep_rmse"] == pytest.approx(0.01, rel=1e-4) and off["nep"] < 1.0


def test_worst_runs_are_named_with_what_is_unusual(data):
    truth = data.truth(data.unseen, data.periods["test"])
    predicted = truth.copy()
    predicted[4] += 0.02
    table = worst_runs(data, predicted)
    worst = table.iloc[0]
    run = data.unseen[4]
    assert worst["sample_id"] == data.ensemble.sample_ids[run] and (table["nse_nep"].iloc[1:] == 1.0).all()
    assert worst["rmse_gpp"] == pytest.approx(0.02, rel=1e-3) and worst["distance"] > 0
    values = data.ensemble.parameters
    unit = (values[run] - values.min(axis=0)) / np.maximum(np.ptp(values, axis=0), 1e-30)
    moving = np.ptp(values, axis=0) > 0
    extreme = data.ensemble.parameter_names[int(np.argmax(np.where(moving, np.abs(unit - 0.5), 0)))]
    assert extreme in worst["extreme"]
    assert worst["nse_nep"] == pytest.approx(skill.nse_by_run(predicted[4:5, :, 2], truth[4:5, :, 2])[0])


def test_report_keeps_the_words_written_by_hand(data, tmp_path):
    names = (*TARGETS, "nse")
    rows = pd.DataFrame([
        {"runs": runs, "preset": "recommended", "seed": 1, "processor_seconds": 9.0, "epochs": 6, "best_epoch": 2,
         **{f"{kind}_{name}": 0.72 + runs / 1000 for kind in ("seen", "unseen", "all") for name in names},
         **{f"mean_{name}": runs / 200 for name in names}}
        for runs in (90, 180)
    ])  # fmt: skip
    keys = [
        f"{kind}_{name}" for kind in ("constant", "persistence", "climatology", "arx", "gb", "gp") for name in names
    ]
    baselines = pd.DataFrame([{"runs": 180, **dict.fromkeys(keys, 0.1)}])
    baselines = baselines.assign(**{f"{n}_window_{k}": 0.1 for n in ("constant", "persistence", "climatology", "arx")
                                    for k in (*TARGETS, "nep_rmse")})  # fmt: skip
    worst = worst_runs(data, data.truth(data.unseen, data.periods["test"]))
    (tmp_path / "curve_conclusions.txt").write_text("Beside the baselines: ratios: it wins.\nno title\n")
    assert read_conclusions(tmp_path / "curve") == {"Beside the baselines": "ratios: it wins."}
    write_report(tmp_path / "curve", rows, baselines, worst, 7, "a machine")
    text = (tmp_path / "curve.md").read_text()
    assert "ratios: it wins." in text and "| 180 | recommended | 1 | 9 | 6 (2) | 0.9000 |" in text
    assert "| predecessor, as published | 180 | seen | 0.983 | 0.979 | 0.864 |" in text
    assert len(figure(rows, baselines).axes) == 2
    write_report(tmp_path / "bare", rows, pd.DataFrame(), pd.DataFrame(), 7, "a machine")  # --no-baselines
    assert "| 180 | recommended | 1 |" in (tmp_path / "bare.md").read_text()


def test_training_page_says_what_was_not_reached(tmp_path):
    rows = [{"way": PLAIN, "rate": 40.0, "pass_minutes": 185.0}, {"way": "ours", "rate": 4000.0, "pass_minutes": 1.85}]
    target = [{"way": PLAIN, "seconds": 600.0, "r2": 0.3, "reached": False, "course": []}]
    result = {"rates": {"rows": rows, "seconds": 20.0, "settings": "here"},
              "target": {"rows": target, "target": 0.95, "minutes": 10.0, "settings": "here"}}  # fmt: skip
    text = "\n".join(page(result, tmp_path / "training"))
    assert "| ours | 4,000 | 1.9 min | 100 x |" in text or "| ours | 4,000 | 1.8 min | 100 x |" in text
    assert f"| {PLAIN} | not reached in 600 | 0.300 |" in text
