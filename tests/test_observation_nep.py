"""prepare_observation_nep.py: known answers, signs, units, quality flags, and every refusal with its message."""

import json

import numpy as np
import pandas as pd
import pytest
from script_calls import call
from tower_examples import fluxnet, japanflux, save

from calibration.common.command_line import REPOSITORY, UserError
from calibration.common.unit_change import find_unit_change
from calibration.reports import kinds, tower
from prepare_observation_nep import main

LHP = REPOSITORY.parent / "shared" / "data" / "lhp" / "japanflux_daily_2012_2016.csv"
CONTRACT = ["date", "nee_gcm2", "nee_source", "nee_qc", "nep_mg_ha", "obs_mask"]


def prepared(tmp_path, table, *flags, name="tower.csv"):
    """Run the script on a table; returns (exit code, observation table or None)."""
    output = tmp_path / "nep.csv"
    code = call(main, "--input", save(table, tmp_path / name), "--output", output, "--no-figure", *flags)
    return code, pd.read_csv(output) if code == 0 else None


def refused(tmp_path, capsys, table, *flags, name="tower.csv") -> str:
    """The one line that the script ends with; nothing may be written."""
    code, _ = prepared(tmp_path, table, *flags, name=name)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert code == 2 and len(lines) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    return lines[0]


def test_nep_is_minus_nee_over_100_and_masked_by_a_low_flag(tmp_path):
    table = japanflux(120)
    table.loc[5, "NEE_vUT"], table.loc[6, "NEE_vUT"], table.loc[7, "NEE_vUT_QC"] = -9999, 812.0, -9999
    code, result = prepared(tmp_path, table, "--qc-threshold", "0.5")
    assert code == 0 and list(result.columns) == CONTRACT and len(result) == 120
    kept = table["NEE_vUT_QC"].between(0, 0.5) & table["NEE_vUT"].between(-50, 50)
    np.testing.assert_array_equal(result["obs_mask"], kept.astype(int))
    np.testing.assert_allclose(result["nep_mg_ha"], -result["nee_gcm2"] / 100, atol=1e-12)
    assert result["nee_gcm2"].isna().sum() == 2 and list(result["date"])[:2] == ["2012-01-01", "2012-01-02"]
    assert (result["nee_source"] == "NEE_vUT").all()
    choices = json.loads((tmp_path / "nep_choices.json").read_text())
    assert choices["qc_best"] == "low" and choices["valid_days"] == kept.sum()


@pytest.mark.parametrize("full", [True, False])
def test_oneflux_keeps_high_flags_and_carries_gpp_reco_and_error(tmp_path, full):
    table = fluxnet(full)
    code, result = prepared(tmp_path, table)
    assert code == 0 and list(result.columns) == [*CONTRACT, "gpp_mg_ha", "reco_mg_ha", "nep_sd_mg_ha"]
    np.testing.assert_array_equal(result["obs_mask"], (table["NEE_VUT_REF_QC"] >= 0.5).astype(int))
    np.testing.assert_allclose(result["gpp_mg_ha"], table["GPP_NT_VUT_REF"] / 100, rtol=1e-9)
    np.testing.assert_allclose(result["reco_mg_ha"], table["RECO_NT_VUT_REF"] / 100, rtol=1e-9)
    np.testing.assert_allclose(result["nep_sd_mg_ha"], table["NEE_VUT_REF_RANDUNC"] / 100, rtol=1e-9)


def test_single_negative_days_of_gpp_are_kept(tmp_path):
    table = fluxnet()
    assert (table["GPP_NT_VUT_REF"] < 0).sum() > 10
    code, result = prepared(tmp_path, table)
    assert code == 0 and (result["gpp_mg_ha"] < 0).sum() == (table["GPP_NT_VUT_REF"] < 0).sum()


def test_period_days_without_rows_and_no_flag(tmp_path, capsys):
    table = japanflux(60).drop(index=[10, 11])
    code, result = prepared(
        tmp_path,
        table,
        "--start",
        "2012-01-05",
        "--end",
        "2012-03-31",
        "--nee-column",
        "NEE_PI_F",
        "--nee-qc-column",
        "",
    )
    assert code == 0 and result["date"].iloc[0] == "2012-01-05" and result["date"].iloc[-1] == "2012-02-29"
    assert "the output covers 2012-01-05 to 2012-02-29" in capsys.readouterr().err
    assert list(result[result["obs_mask"] == 0]["date"]) == ["2012-01-11", "2012-01-12"]
    assert result["nee_qc"].isna().all()


def test_tables_by_year_and_month(tmp_path):
    table = fluxnet(count=400)
    table.loc[100:119, "NEE_VUT_REF_QC"] = 0.0
    _, result = prepared(tmp_path, table)
    years = pd.read_csv(tmp_path / "nep_by_year.csv", dtype={"year": str}).set_index("year")
    assert list(years.index) == ["2019", "2020", "all"]
    assert years.loc["all", "valid_days"] == result["obs_mask"].sum()
    assert years.loc["2019", "longest_gap_days"] >= 20
    valid = result[result["obs_mask"] == 1]
    assert years.loc["all", "mean_nep_mg_ha"] == pytest.approx(valid["nep_mg_ha"].mean(), rel=1e-5)
    months = pd.read_csv(tmp_path / "nep_by_month.csv").set_index("month")
    assert months["days"].sum() == 400 and months.loc["2019-01", "days"] == 31


REVERSED = "looks reversed"


def nee_columns(table) -> list[str]:
    return [name for name in table if name.startswith("NEE_") and not name.endswith(("_QC", "_RANDUNC"))]


def test_reversed_signs_are_refused(tmp_path, capsys):
    partition = fluxnet()
    partition["NEE_VUT_REF"] *= -1
    message = refused(tmp_path, capsys, partition)
    assert "the sign of NEE_VUT_REF looks reversed: NEE_VUT_REF opposes RECO_NT_VUT_REF - GPP_NT_VUT_REF" in message
    assert "change the sign in the file, or say with --force that it is right" in message

    everything = fluxnet()
    everything[nee_columns(everything)] *= -1
    night = everything[[name for name in everything if not name.startswith(("GPP", "RECO"))]]
    assert "release at night is negative (median NEE_VUT_REF_NIGHT" in refused(tmp_path, capsys, night)
    only_weather = night[[name for name in night if not name.endswith(("_NIGHT", "_DAY"))]]
    message = refused(tmp_path, capsys, only_weather.assign(SW_IN_F=np.where(only_weather.SW_IN_F < 60, 15.0, 250.0)))
    assert "uptake on dark days" in message

    one_year = fluxnet(count=1096)
    one_year.loc[366:730, "NEE_VUT_REF"] *= -1
    assert "in 2020 (correlation" in refused(tmp_path, capsys, one_year)

    japan = japanflux()
    japan["NEE_vUT"] *= -1
    assert "NEE_vUT and NEE_PI_F have opposite signs" in refused(tmp_path, capsys, japan)
    japan["NEE_PI_F"] *= -1
    japan[["NEE_vUT", "NEE_PI_F"]] += 0.5
    assert "a mean release of" in refused(tmp_path, capsys, japan)

    gpp = fluxnet()
    gpp["GPP_NT_VUT_REF"] *= -1
    assert REVERSED in refused(tmp_path, capsys, gpp)


def test_force_uses_a_reversed_sign_with_a_warning(tmp_path, capsys):
    table = fluxnet()
    table["NEE_VUT_REF"] *= -1
    code, result = prepared(tmp_path, table, "--force")
    assert code == 0 and "used as it is, because of --force" in capsys.readouterr().err
    np.testing.assert_allclose(result["nep_mg_ha"], -table["NEE_VUT_REF"] / 100, atol=1e-9)


def test_right_signs_pass(tmp_path):
    for table in (fluxnet(seed=5), fluxnet(False, seed=6), japanflux(seed=7)):
        assert prepared(tmp_path, table)[0] == 0


def test_a_unit_that_changes_half_way_is_warned_of(tmp_path, capsys):
    table = fluxnet(count=1461, seed=3)
    nee = table["NEE_VUT_REF"].to_numpy()
    dates = pd.to_datetime(table["TIMESTAMP"]).to_numpy().astype("datetime64[D]")
    assert find_unit_change(nee, dates) is None  # a season is no jump
    for factor in (10.0, 1 / 23.6, 100.0):
        change = find_unit_change(np.where(np.arange(1461) < 800, nee, factor * nee), dates)
        assert abs((change.day - dates[800]).astype(int)) <= 20 and change.ratio == pytest.approx(factor, rel=0.6)
    no_partition = table[[name for name in table if not name.startswith(("GPP", "RECO"))]].copy()
    no_partition.loc[800:, "NEE_VUT_REF"] *= 10
    assert prepared(tmp_path, no_partition)[0] == 0
    assert "and keeps it, as if its unit had changed" in capsys.readouterr().err


BAD_INPUT = [
    (("--nee-column", "NEE_XYZ"), "has no column NEE_XYZ; similar ones are NEE_vUT, NEE_vUT_QC, NEE_PI_F; choose with"),
    (("--nee-qc-column", "QC"), "has no column QC; found TIMESTAMP, NEE_vUT, NEE_vUT_QC, NEE_PI_F; choose with --nee"),
    (("--start", "2020-01-01"), "holds 2012-01-01 to 2013-02-03, nothing from 2020-01-01 to its end; choose days"),
    (("--start", "2012-05-01", "--end", "2012-04-01"), "--start 2012-05-01 is after --end 2012-04-01"),
    (("--qc-threshold", "0.01"), "no valid observation left from 2012-01-01 to 2013-02-03: of 400 days NEE_vUT is"),
    (("--qc-threshold", "7"), "--qc-threshold is 7, allowed is 0 to 3 for NEE_vUT_QC (low is best)"),
    (("--layout", "ameriflux"), "has none of NEE_VUT_REF, NEE_CUT_REF"),
    (("--qc-best", "high", "--qc-threshold", "2"), "--qc-threshold is 2, allowed is 0 to 1 for NEE_vUT_QC (high is"),
]


@pytest.mark.parametrize(("flags", "message"), BAD_INPUT)
def test_bad_input(tmp_path, capsys, flags, message):
    assert message in refused(tmp_path, capsys, japanflux(), *flags)


def test_no_observation_at_all(tmp_path, capsys):
    table = japanflux(50).assign(NEE_vUT=-9999.0, NEE_PI_F=-9999.0)
    message = refused(tmp_path, capsys, table)
    assert "missing or impossible on 50; choose other days or another --nee-column" in message


def test_a_missing_file_is_one_line(tmp_path, capsys):
    assert call(main, "--input", tmp_path / "no.csv", "--output", tmp_path / "o.csv") == 2
    assert "no.csv: no such file; give the daily CSV of a flux tower" in capsys.readouterr().err


def test_gap_filled_flux_without_a_flag_is_said(tmp_path, capsys):
    assert prepared(tmp_path, fluxnet(), "--nee-qc-column", "")[0] == 0
    assert "without QC, filled days count as measured" in capsys.readouterr().err


def test_figure_is_written(tmp_path):
    path = save(japanflux(90), tmp_path / "tower.csv")
    assert call(main, "--input", path, "--output", tmp_path / "nep.csv") == 0
    assert (tmp_path / "nep.png").stat().st_size > 10_000


@pytest.mark.real_data
@pytest.mark.skipif(not LHP.is_file(), reason=f"{LHP.name} is not here")
def test_facts_of_the_lhp_file(tmp_path):
    output = tmp_path / "nep.csv"
    flags = ["--input", LHP, "--output", output, "--start", "2012-01-01", "--end", "2016-12-31", "--no-figure"]
    assert call(main, *flags, "--nee-column", "NEE_vUT", "--nee-qc-column", "NEE_vUT_QC", "--qc-threshold", "0.5") == 0
    result = pd.read_csv(output)
    assert len(result) == 1827 and result["obs_mask"].sum() == 249
    assert result["obs_mask"][result["date"].str.startswith("2012")].sum() == 117
    assert call(main, *flags, "--nee-column", "NEE_PI_F", "--nee-qc-column", "") == 0
    nep = pd.read_csv(output)["nep_mg_ha"]
    assert (round(nep.mean(), 4), round(nep.std(), 4)) == (0.0229, 0.0197)
    reversed_file = pd.read_csv(LHP)
    reversed_file[["NEE_vUT", "NEE_PI_F"]] *= -1
    reversed_path = tmp_path / "reversed.csv"
    reversed_file.to_csv(reversed_path, index=False)
    assert call(main, "--input", reversed_path, "--output", output, "--nee-column", "NEE_PI_F") == 2


def test_the_report_says_how_many_days_are_valid_and_what_to_expect_of_their_mean(tmp_path):
    table = japanflux(400)
    table["NEE_vUT"] = -3.0  # 0.03 Mg C ha-1 day-1, 11 a year: far from a forest at rest
    table.loc[100:180, "NEE_vUT"] = -9999
    output = tmp_path / "nep.csv"
    flags = ("--input", save(table, tmp_path / "tower.csv"), "--output", output, "--nee-qc-column", "")
    assert call(main, *flags, "--report") == 0
    [section] = tower.sections(tmp_path)
    assert section.verdict == "READ WITH CARE: 319 of 400 days are valid (80 percent), the longest gap is 81 days."
    assert "times 365.25 +11.0 Mg C ha-1 year-1: of these years alone" in section.meaning[1]
    assert "expect a conflict" in section.meaning[1]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert section.verdict in page and 'src="data:image/png;base64' in page
    assert "conflict" not in tower.sink_sentence(0.001)


def test_half_a_record_of_a_tower_is_named(tmp_path):
    output = tmp_path / "nep.csv"
    call(main, "--input", save(japanflux(60), tmp_path / "tower.csv"), "--output", output, "--no-figure")
    (tmp_path / "nep_by_year.csv").unlink()
    with pytest.raises(UserError, match="nep_by_year.csv: no such file; half a result: run prepare_observation_nep"):
        kinds.sections_of(tmp_path)
