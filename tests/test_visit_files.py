"""Daily files and ensembles: round trips, users' variants, every kind of damage with its message."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from small_ensemble import DAYS, NAMES, file_of, fluxes_of

from calibration.common.command_line import UserError
from calibration.common.parameters import catalogue
from calibration.common.units import DAILY_COLUMNS, DYNAMIC_FEATURES, TARGETS
from calibration.ensembles.files import (
    daily_template,
    load_ensemble,
    read_daily_file,
    round_as_written,
    write_daily_file,
)
from calibration.weather.daily_text import PARAMETER_COLUMNS


def edit(path, line, change):
    """Apply `change` to the fields of one line (from 1) of a daily file."""
    lines = path.read_text().split("\n")
    lines[line - 1] = " ".join(change(lines[line - 1].split()))
    path.write_text("\n".join(lines))


# ---- the format


def test_text_has_the_columns_of_visit(ensemble, weather):
    table = np.loadtxt(file_of(ensemble, 0))
    assert table.shape == (DAYS, 18 + 51)
    assert table[0, :4].tolist() == [2011, 151, 6, 1]  # doy counts from 0
    leap_day = np.flatnonzero((table[:, 0] == 2012) & (table[:, 2] == 2) & (table[:, 3] == 29))
    assert table[leap_day, 1].tolist() == [59]
    gpp, npp, er, nep = table[:, 14:18].T
    assert np.abs(nep - (gpp - er)).max() < 1e-9
    values = table[0, 18:]
    assert values[PARAMETER_COLUMNS.index("tree_sla")] == catalogue()["tree_sla"].baseline
    assert values[PARAMETER_COLUMNS.index("tree_lue")] == pytest.approx(
        pd.read_csv(ensemble / "parameter_summary.csv").tree_lue[0], rel=1e-6
    )
    assert values[30:45].tolist() == [0.0] * 15  # C4: no cover here


def test_file_round_trip(ensemble, weather):
    run = read_daily_file(file_of(ensemble, 2))
    assert (run.dates == weather[0]).all()
    np.testing.assert_allclose(run.dynamic, weather[1], rtol=1e-8)
    np.testing.assert_allclose(run.fluxes, fluxes_of(2), atol=1e-9)
    assert run.width == 69


def test_rounding_matches_the_printed_text(tmp_path, weather):
    fluxes = fluxes_of(7) * np.logspace(-6, 0, DAYS)[:, None]
    fluxes[3] = [0.0, -1e-310, 1e-320, 0.0]
    write_daily_file(tmp_path / "a_daily_1.txt", *weather, fluxes)
    read = read_daily_file(tmp_path / "a_daily_1.txt").fluxes[:, :3]
    assert (round_as_written(fluxes[:, :3]).astype(np.float32) == read.astype(np.float32)).all()


def test_a_shared_template_gives_the_same_file(tmp_path, weather):
    write_daily_file(tmp_path / "a.txt", *weather, fluxes_of(0))
    write_daily_file(tmp_path / "b.txt", *weather, fluxes_of(0), template=daily_template(*weather))
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()


def test_header_row_and_other_order(ensemble, tmp_path_factory, weather):
    folder = tmp_path_factory.mktemp("variant")
    table = pd.DataFrame(np.loadtxt(file_of(ensemble, 1))[:, :18], columns=DAILY_COLUMNS)
    order = [*DAILY_COLUMNS[::-1]]
    calendar = {"year": int, "doy": int, "month": int, "day": int}
    table[order].astype(calendar).to_csv(folder / "header.txt", sep=" ", index=False)
    table[order].astype(calendar).to_csv(folder / "bare.txt", sep="\t", index=False, header=False)
    table["doy"] = -9.0
    table.drop(columns="er")[["doy", *(c for c in order if c not in ("doy", "er"))]].to_csv(
        folder / "no_doy.txt", sep=" ", index=False, header=False
    )
    expected = read_daily_file(file_of(ensemble, 1))
    for run in (
        read_daily_file(folder / "header.txt"),
        read_daily_file(folder / "bare.txt", columns=order),
        read_daily_file(folder / "no_doy.txt", columns=["-", *(c for c in order if c not in ("doy", "er"))]),
    ):
        assert (run.dates == expected.dates).all()
        np.testing.assert_allclose(run.fluxes, expected.fluxes, atol=1e-12)
        np.testing.assert_allclose(run.dynamic, expected.dynamic, rtol=1e-12)
    with pytest.raises(UserError, match=r"bare.txt, line 1: .* check the unit and the column order"):
        read_daily_file(folder / "bare.txt")


# ---- ensembles


def test_ensemble_arrays(ensemble, weather):
    loaded = load_ensemble(ensemble, cache=False)
    assert loaded.sample_ids.tolist() == [0, 1, 2, 3]
    assert loaded.fluxes.shape == (4, DAYS, 4) and loaded.fluxes.dtype == np.float32
    for i in range(4):
        np.testing.assert_allclose(loaded.fluxes[i], fluxes_of(i), atol=1e-8)
    gpp, npp, nep, rh = np.moveaxis(loaded.fluxes, 2, 0)
    np.testing.assert_allclose(nep, npp - rh, atol=1e-8)
    assert loaded.parameter_names == NAMES and loaded.parameters.shape == (4, 3)
    assert loaded.dynamic.shape == (DAYS, 10) and (loaded.dates == weather[0]).all()
    assert TARGETS == ("gpp", "npp", "nep", "rh") and len(DYNAMIC_FEATURES) == 10


def test_names_in_any_case_and_rows_in_any_order(ensemble):
    table = pd.read_csv(ensemble / "parameter_summary.csv").rename(columns={"tree_lue": "TREE_LUE"})
    table.iloc[::-1].to_csv(ensemble / "parameter_summary.csv", index=False)
    loaded = load_ensemble(ensemble)
    assert loaded.parameter_names == NAMES
    assert loaded.sample_ids.tolist() == [0, 1, 2, 3]
    assert (loaded.parameters[:, 0] == table.sort_values("sample_id")["TREE_LUE"]).all()


def test_failed_runs_are_left_out_with_a_notice(ensemble, capsys):
    file_of(ensemble, 1).unlink()
    pd.DataFrame({"sample_id": [0.0, 1.0, 2.0, 3.0], "status": ["ok", "failed", "ok", "ok"]}).to_csv(
        ensemble / "experiment_results.csv", index=False
    )
    assert load_ensemble(ensemble).sample_ids.tolist() == [0, 2, 3]
    assert "1 failed runs left out (samples 1;" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"sample_id,status\n1,\xff\n"])
def test_damaged_results_table_is_named(ensemble, content):
    (ensemble / "experiment_results.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"experiment_results.csv: not readable as CSV .*; restore it, or remove it"):
        load_ensemble(ensemble)


def test_constant_parameter_stays_with_a_notice(ensemble, capsys):
    table = pd.read_csv(ensemble / "parameter_summary.csv")
    table["tree_pmax"] = 20.0
    table.to_csv(ensemble / "parameter_summary.csv", index=False)
    assert load_ensemble(ensemble).constant_parameters == ("tree_pmax",)
    assert "tree_pmax is 20 in every run: kept fixed" in capsys.readouterr().err


# ---- the binary copy


# ---- bad input: one line with the file, what was found, what is expected, what to do


def cut_in_a_row(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def cut_between_rows(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:500]))


def drop_line(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:99] + lines[100:]))


def repeat_line(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:100] + lines[99:]))


def drop_a_column(path):
    path.write_text("".join(" ".join(line.split()[:-1]) + "\n" for line in path.read_text().splitlines()))


def few_columns(path):
    path.write_text("".join(" ".join(line.split()[:17]) + "\n" for line in path.read_text().splitlines()))


def shift_dates(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[30:]))


def set_field(line, field, value):
    return lambda path: edit(path, line, lambda fields: [*fields[:field], value, *fields[field + 1 :]])


DAMAGE = {
    "cut in a row": (cut_in_a_row, r"line \d+: \d+ columns where the other rows have 69; the file looks cut short"),
    "cut between rows": (cut_between_rows, r"500 days, 2011-06-01 to .*, the other files have 800, .*cut short"),
    "missing day": (drop_line, r"line 100: 2011-09-09 follows 2011-09-07, a day is missing; expected 2011-09-08"),
    "repeated day": (repeat_line, r"line 101: 2011-09-08 follows 2011-09-08, a day is repeated"),
    "one row short": (lambda path: edit(path, 7, lambda f: f[:-1]), r"line 7: 68 columns where the other rows have 69"),
    "one row long": (lambda path: edit(path, 7, lambda f: [*f, "1"]), r"line 7: 70 columns"),
    "a column less": (drop_a_column, r"68 columns, the other files have 69"),
    "too few columns": (few_columns, r"17 columns, expected at least 18 \(year doy month"),
    "NaN flux": (set_field(12, 16, "nan"), r"line 12: er is nan, expected -5 to 5 Mg C ha-1 day-1; the model failed"),
    "NaN weather": (set_field(12, 4, "NaN"), r"line 12: tmp_sfc is nan, expected 180 to 350 K"),
    "infinite": (set_field(12, 14, "inf"), r"line 12: gpp is inf"),
    "stars": (set_field(12, 15, "*****"), r"line 12, column 16: '\*\*\*\*\*' is not a number"),
    "other unit": (set_field(12, 10, "8.4"), r"line 12: prate_sfc is 8.4, expected 0 to 0.02 kg m-2 s-1; check the"),
    "other dates": (shift_dates, r"770 days, 2011-07-01 to .*, the other files have 800"),
    "no date": (set_field(3, 3, "32"), r"line 3: year 2011, doy 153, month 6, day 32 is no date"),
    "doy from 1": (set_field(3, 1, "154"), r"doy 154, month 6, day 3 is no date \(doy counts from 0\)"),
    "other weather": (set_field(9, 5, "301.5"), r"tmp_2m on 2011-06-09 is 301.5, in LHP_.*txt it is .*one weather"),
    "empty": (lambda path: path.write_text(""), r"the file is empty"),
    "binary": (lambda path: path.write_bytes(bytes(range(256)) * 9), r"not a text file \(it holds zero bytes\)"),
    "control byte": (lambda path: path.write_bytes(path.read_bytes().replace(b"\n2", b"\n2\b", 1)),
                     r"line 2: holds the control byte 0x08"),
    "control byte beside blanks": (lambda path: path.write_bytes(path.read_bytes().replace(b" ", b" \x02 ", 1)),
                                   r"line 1: holds the control byte 0x02"),
    "a quote around fields": (lambda path: path.write_text(re.sub(r"^((?:\S+ +){4})(.*)", r'\1"\2"',
                                                                  path.read_text(), count=1)),
                              r"not readable as a table .*; run this sample again"),
    "header only": (lambda path: path.write_text(" ".join(DAILY_COLUMNS)), r"no rows below the header"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("sample", [0, 2])  # the damaged file is named, be it the first or not
def test_damaged_file(ensemble, kind, sample):
    damage, message = DAMAGE[kind]
    damage(file_of(ensemble, sample))
    before = sorted(ensemble.iterdir())
    with pytest.raises(UserError, match=message) as error:
        load_ensemble(ensemble)
    assert str(error.value).startswith(str(file_of(ensemble, sample)))
    assert sorted(ensemble.iterdir()) == before


SUMMARY_DAMAGE = {
    "sample without file": (lambda t: pd.concat([t, t.assign(sample_id=t.sample_id + 10)]),
                            r"sample 10 has no file .*4 missing of 8"),
    "duplicate id": (lambda t: t.assign(sample_id=[0, 1, 1, 3]), r"line 4: sample_id 1 is there twice"),
    "NaN": (lambda t: t.assign(tree_lue=[0.1, np.nan, 0.2, 0.3]), r"line 3: tree_lue is empty or NaN"),
    "NaN column": (lambda t: t.assign(tree_lue=np.nan), r"line 2: tree_lue is empty or NaN, .*fill or remove the"),
    "text": (lambda t: t.assign(tree_lue=["a", "b", "c", "d"]), r"line 2: tree_lue is 'a'"),
    "no id": (lambda t: t.drop(columns="sample_id"), r"column 'sample_id' is missing"),
    "fractional id": (lambda t: t.assign(sample_id=[0, 1, 2.5, 3]), r"line 4: sample_id is '2.5', expected a whole"),
    "same parameter twice": (lambda t: t.assign(TREE_LUE=1.0), r"tree_lue has 2 columns"),
    "same column twice": (lambda t: t.assign(x=1.0).rename(columns={"x": "tree_lue"}), r"tree_lue has 2 columns; keep"),
    "huge id": (lambda t: t.assign(sample_id=[0, 1, 1e30, 3]), r"line 4: sample_id is '1e\+30', expected a whole"),
    "row numbers": (lambda t: t.reset_index(names="Unnamed: 0"), r"column 1 has no name, as a table's row numbers"),
    "id twice": (lambda t: t.assign(x=1.0).rename(columns={"x": "sample_id"}), r"sample_id has 2 columns; keep one"),
    "no parameters": (lambda t: t[["sample_id"]], r"holds no runs or no parameters"),
    "no runs": (lambda t: t.iloc[:0], r"holds no runs"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SUMMARY_DAMAGE)
def test_bad_parameter_summary(ensemble, kind):
    change, message = SUMMARY_DAMAGE[kind]
    path = ensemble / "parameter_summary.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(UserError, match=message) as error:
        load_ensemble(ensemble)
    assert "parameter_summary.csv" in str(error.value)


def test_files_without_a_row_are_left_out_with_a_notice(ensemble, capsys):
    path = ensemble / "parameter_summary.csv"
    pd.read_csv(path).iloc[:2].to_csv(path, index=False)
    assert load_ensemble(ensemble).sample_ids.tolist() == [0, 1]
    assert "2 daily files without a row in parameter_summary.csv left out (sample 2)" in capsys.readouterr().err


def test_an_unfinished_ensemble_says_how_to_go_on(ensemble):
    file_of(ensemble, 2).unlink()
    (ensemble / "parameter_log.json").write_text("{}")
    with pytest.raises(UserError, match="sample 2 has no file .* the run_perturbations.py command that began it"):
        load_ensemble(ensemble)


def test_two_files_of_one_sample(ensemble):
    shutil.copy(file_of(ensemble, 3), ensemble / "LHP_20260101_daily_0003.txt")
    with pytest.raises(UserError, match="sample 3 is in LHP_20250101_daily_0003.txt too"):
        load_ensemble(ensemble)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="run run_perturbations.py"):
        load_ensemble(tmp_path)
    (tmp_path / "parameter_summary.csv").write_text("sample_id,tree_lue\n0,0.05\n")
    with pytest.raises(UserError, match="no daily files like LHP_<stamp>_daily_0000.txt and no ensemble.npz"):
        load_ensemble(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["parameter_summary.csv"]
