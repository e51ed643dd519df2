"""Figures: known numbers behind them, one look, the format that is asked for; and records of how a result was made."""

import hashlib
import json
import sys
import time

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb

from calibration.common import figure_style, provenance
from calibration.common.command_line import REPOSITORY
from calibration.common.provenance import sha256, write_record
from calibration.emulator.figures import runs_figure
from calibration.ensembles.rest import rests_like_others
from calibration.inversion.data import stretch_from_arrays
from calibration.judgement.figures import (
    conflict_figure,
    identifiability_figure,
    nep_comparison,
    parameter_changes,
    residual_months,
    residuals_by_month,
)
from calibration.judgement.judge import judge_flux


@pytest.fixture(autouse=True)
def png_again():
    """The format is a setting of the process: put it back."""
    yield
    figure_style.use_format("png")


def a_figure():
    return parameter_changes(["a", "b"], np.array([0.5, 0.5]), np.array([0.2, 0.8]), None, None, [], "x", "note")


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_figures_are_saved_in_the_format_asked_for(tmp_path, kind, start):
    figure_style.use_format(kind)
    path = figure_style.save_figure(a_figure(), tmp_path / "sample0.5_changes")
    assert path == tmp_path / f"sample0.5_changes.{kind}" and path.read_bytes().startswith(start)
    again = figure_style.save_figure(a_figure(), tmp_path / "again")
    assert again.read_bytes() == path.read_bytes()  # the same numbers, the same file
    assert figure_style.save_figure(a_figure(), tmp_path / "named.svg").read_bytes().startswith(b"<?xml")
    assert {p.suffix for p in tmp_path.iterdir()} <= {f".{kind}", ".svg"}


def test_the_style_does_not_leak():
    before = mpl.rcParams["font.size"]
    a_figure()
    assert mpl.rcParams["font.size"] == before


def luminance(color):
    """Relative luminance (WCAG 2) of a colour."""
    parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_colours_of_one_figure_differ_in_lightness_too():
    """Prior, estimate and truth are told apart in grey as well: luminances at least a quarter apart in contrast."""
    values = sorted(luminance(c) for c in (figure_style.PRIOR, figure_style.ESTIMATE, figure_style.TRUTH))
    assert all((high + 0.05) / (low + 0.05) > 1.25 for low, high in zip(values, values[1:], strict=False))


def test_parameters_are_sorted_by_information_gained():
    names, ratio = ["dull", "sharp", "fixed", "middle"], np.array([0.98, 0.2, np.nan, 0.6])
    half = np.full(4, 0.5)
    figure = parameter_changes(names, half, half, half - 0.1, half + 0.1, ["sharp"], "x", "note", sd_ratio=ratio)
    axes = figure.axes[0]
    height = dict(zip((t.get_text() for t in axes.get_yticklabels()), axes.get_yticks(), strict=True))
    assert sorted(names, key=height.get, reverse=True) == ["sharp", "middle", "dull", "fixed"]
    bold = [t.get_text() for t in axes.get_yticklabels() if t.get_fontweight() == "bold"]
    assert bold == ["sharp"]


def test_identifiability_shows_correlations_of_the_most_informed():
    rng = np.random.default_rng(0)
    names, ratio = [f"p{i}" for i in range(20)], rng.random(20)
    figure = identifiability_figure(names, ratio, np.eye(20), np.ones(20))
    matrix = next(axes for axes in figure.axes if axes.images)
    best = [names[i] for i in np.argsort(ratio)[:12]]
    assert [label.get_text() for label in matrix.get_yticklabels()] == best


def test_residuals_by_month_are_those_of_the_days():
    dates = np.arange(np.datetime64("2011-01-01"), np.datetime64("2013-01-01"))
    month = dates.astype("datetime64[M]").astype(int) % 12 + 1
    residual = np.where(month == 7, 1.0, 0.0) + np.where(dates >= np.datetime64("2012-01-01"), 10.0, 0.0)
    table = residual_months(dates, residual, dates < np.datetime64("2012-01-01")).set_index(["set", "month"])
    assert len(table) == 24 and table.loc[("fitted", 2), "days"] == 28 and table.loc[("held out", 2), "days"] == 29
    assert table.loc[("fitted", 7), "mean"] == 1 and table.loc[("held out", 7), "q50"] == 11
    assert table.loc[("fitted", 1), "standard_error"] == 0
    labels = [t.get_text() for t in residuals_by_month(table.reset_index(), "NEP").axes[0].get_legend().get_texts()]
    assert len(labels) == 2


def stretch(dates, nep, mask):
    """Observed days of NEP as the inversion sees them."""
    observed = np.column_stack([nep * 0, nep * 0, nep, nep * 0])  # order of units.TARGETS
    return stretch_from_arrays(np.zeros((5, 2)), np.zeros((len(nep), 2)), observed, mask, start=str(dates[0]))


@pytest.mark.parametrize("count", [1, 12])
def test_months_before_the_fit_are_boxes_of_a_whole_month(count):
    """Seen with a single month too, and the first and the last as wide as the others."""
    table = pd.DataFrame({"month": [f"2019-{k + 1:02d}" for k in range(count)], "observed_mean": 0.0, "prior_mean": 0.5,
                          "prior_low": 0.2, "prior_high": 0.8, "share_outside": 0.1, "conflict": False})  # fmt: skip
    top = conflict_figure(table, "sentence", "NEP").axes[0]
    boxes = [(bar.get_x(), bar.get_width(), bar.get_y(), bar.get_height()) for bar in top.patches]
    np.testing.assert_allclose(boxes, [(k - 0.5, 1, 0.2, 0.6) for k in range(count)])
    left, right = top.get_xlim()
    assert left < -0.5 and right > count - 0.5


def test_held_out_days_and_baselines_are_drawn():
    dates = np.arange(np.datetime64("2012-01-01"), np.datetime64("2012-12-31"))
    values = np.sin(np.arange(len(dates)) / 9)
    fitted = np.arange(len(dates)) < 200
    item = judge_flux("nep", [stretch(dates, values, fitted)], [stretch(dates, values, ~fitted)], values, values)
    assert (item.valid & ~item.fitted).sum() == len(dates) - 200
    figure = nep_comparison(item, "verdict", baselines={"constant": np.zeros(len(dates))})
    labels = {t.get_text() for axes in figure.axes if axes.get_legend() for t in axes.get_legend().get_texts()}
    assert {"observed, held out", "held out", "baseline: constant"} <= labels
    units = [axes.get_ylabel() for axes in figure.axes[:2]]
    assert all("Mg C ha-1 day-1" in unit for unit in units)


def test_runs_not_at_rest_are_told_apart_and_named():
    nep, gpp = np.r_[np.linspace(0.3, 0.5, 30), -6.0], np.full(31, 40.0)
    rest = rests_like_others(nep, gpp)
    assert rest[:30].all() and not rest[30]
    assert rests_like_others(10 * nep[:30], gpp[:30]).all()  # a young forest among young forests is none to be left out
    figure = runs_figure(gpp, np.linspace(1e-3, 2e-3, 31), rest, [f"run {i}" for i in range(31)])
    assert [text.get_text() for text in figure.axes[0].texts] == ["run 30"]


def test_outside_a_checkout_and_without_git_a_record_has_no_commit(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "9.9"\n')
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    assert provenance.tool() == {"version": "9.9", "commit": ""}
    (tmp_path / ".git").mkdir()  # empty: git knows no commit
    assert provenance.tool()["commit"] == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.tool()["commit"] == ""


def test_a_record_holds_command_versions_and_hashes(tmp_path, monkeypatch):
    (tmp_path / "in.csv").write_bytes(b"a,b\n")
    (tmp_path / "ensemble").mkdir()
    (tmp_path / "ensemble" / "parameter_summary.csv").write_bytes(b"x")
    monkeypatch.setattr(sys, "argv", ["/somewhere/test_inversion.py", "--seed", "3"])
    write_record(tmp_path, time.perf_counter() - 2, {"data": tmp_path / "in.csv", "weather": None,
                                                     "ensemble": tmp_path / "ensemble"}, seed=3)  # fmt: skip
    record = json.loads((tmp_path / "test_inversion_record.json").read_text())
    assert record["threads"] == torch.get_num_threads()
    assert f'version = "{record["tool"]["version"]}"' in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert record["command"] == "python test_inversion.py --seed 3" and record["seed"] == 3 and record["seconds"] >= 2
    assert record["versions"]["numpy"] == np.__version__ and set(record["inputs"]) == {"data", "ensemble"}
    assert record["inputs"]["data"]["sha256"] == hashlib.sha256(b"a,b\n").hexdigest()
    assert record["inputs"]["ensemble"]["sha256"] == hashlib.sha256(b"x").hexdigest()
    assert sha256(tmp_path / "absent") == ""
