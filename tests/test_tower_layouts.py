"""Reading tower files of the networks: encodings, line ends, layouts, quality flags, and every refusal."""

import numpy as np
import pandas as pd
import pytest
from tower_examples import fluxnet, japanflux, save

from calibration.common.command_line import UserError
from calibration.tower.file import read_tower_file
from calibration.tower.layouts import LAYOUTS, choose_columns, recognise, variant


@pytest.mark.parametrize(
    ("encoding", "newline", "comment"),
    [("utf-8", "\n", ""), ("utf-8-sig", "\r\n", ""), ("cp932", "\r\n", "# 気象庁 の データ\n"), ("utf-16", "\n", ""),
     ("latin-1", "\n", "# température °C\n"), ("utf-8", "\r", "")],
)  # fmt: skip
def test_same_table_in_every_encoding_and_line_end(tmp_path, encoding, newline, comment):
    table = japanflux(60)
    text = (comment + table.to_csv(index=False)).replace("\n", newline)
    path = tmp_path / "tower.csv"
    path.write_bytes(text.encode(encoding))
    tower = read_tower_file(path)
    assert tower.columns == list(table.columns)
    np.testing.assert_array_equal(tower.numbers("NEE_vUT"), table["NEE_vUT"])
    assert tower.dates[0] == np.datetime64("2012-01-01") and len(tower.dates) == 60


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_unit_row_quotes_and_spreadsheet_tail(tmp_path, separator):
    table = japanflux(40)
    lines = table.to_csv(index=False, sep=separator).splitlines()
    lines[0] = separator.join(f'"{name}"' for name in table.columns)
    lines.insert(1, separator.join(["YYYYMMDD", "gC m-2 d-1", "-", "gC m-2 d-1"]))
    path = tmp_path / "tower.csv"
    path.write_text("\n".join(lines) + f"\n{separator * 3}\n\n")
    tower = read_tower_file(path)
    assert tower.units["NEE_vUT"] == "gC m-2 d-1"
    np.testing.assert_array_equal(tower.numbers("NEE_PI_F"), table["NEE_PI_F"])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_separator_may_end_every_line(tmp_path, separator):
    table = japanflux(30)
    lines = table.to_csv(index=False, sep=separator).splitlines()
    (tmp_path / "tower.csv").write_text("".join(f"{line}{separator}\n" for line in lines))
    tower = read_tower_file(tmp_path / "tower.csv")
    assert tower.columns == list(table.columns)
    np.testing.assert_array_equal(tower.numbers("NEE_PI_F"), table["NEE_PI_F"])


@pytest.mark.parametrize("form", ["%Y%m%d", "%Y-%m-%d", "%Y/%m/%d", "%Y%m%d0000", "%Y-%m-%d 00:00", "%Y%m%d.0"])
def test_forms_of_a_day(tmp_path, form):
    table = japanflux(30)
    table["TIMESTAMP"] = pd.to_datetime(table["TIMESTAMP"]).dt.strftime(form)
    tower = read_tower_file(save(table, tmp_path / "tower.csv"))
    assert list(tower.dates) == list(np.arange("2012-01-01", "2012-01-31", dtype="datetime64[D]"))


def test_missing_codes_and_empty_cells_are_nan(tmp_path):
    table = japanflux(8).astype(object)
    table.loc[:, "NEE_vUT"] = ["-9999", "-9999.9", "", "NA", "1.5", "-9999.0", "nan", "-99999"]
    values = read_tower_file(save(table, tmp_path / "tower.csv")).numbers("NEE_vUT")
    assert list(np.isnan(values)) == [True, True, True, True, False, True, True, True] and values[4] == 1.5


def test_days_may_be_lacking_but_not_invented(tmp_path):
    tower = read_tower_file(save(japanflux(30).drop(index=[3, 4]), tmp_path / "tower.csv"))
    assert len(tower.dates) == 28 and tower.dates[3] == np.datetime64("2012-01-06")


def test_layouts_are_told_apart(tmp_path):
    cases = [
        (japanflux(40), "x.csv", "japanflux", ""),
        (fluxnet(True, 40), "FLX_DE-Xyz_FLUXNET2015_FULLSET_DD_2019-2020_1-4.csv", "fluxnet2015", " FULLSET"),
        (fluxnet(False, 40), "FLX_DE-Xyz_FLUXNET2015_SUBSET_DD_2019-2020_1-4.csv", "fluxnet2015", " SUBSET"),
        (fluxnet(False, 40), "ICOSETC_BE-Xyz_FLUXNET_DD_L2.csv", "icos", " SUBSET"),
        (fluxnet(True, 40), "FLX_BE-Xyz_FLUXNET2015_FULLSET_DD_1996-2020_beta-3.csv", "icos", " FULLSET"),
        (fluxnet(True, 40), "AMF_US-Xyz_FLUXNET_FULLSET_DD_1991-2020_3-5.csv", "ameriflux", " FULLSET"),
    ]
    for table, name, layout, kind in cases:
        tower = read_tower_file(save(table, tmp_path / name))
        assert (recognise(tower).name, variant(tower)) == (layout, kind)
    weather_only = fluxnet(True, 40).filter(regex="TIMESTAMP|^TA|^SW|^VPD")
    assert recognise(read_tower_file(save(weather_only, tmp_path / "m.csv"))).qc_best == "high"


def test_default_columns_and_partition(tmp_path):
    columns = choose_columns(read_tower_file(save(fluxnet(True, 60), tmp_path / "a.csv")))
    assert (columns.nee, columns.qc, columns.qc_best) == ("NEE_VUT_REF", "NEE_VUT_REF_QC", "high")
    assert (columns.gpp, columns.reco) == ("GPP_NT_VUT_REF", "RECO_NT_VUT_REF")
    assert columns.uncertainty == "NEE_VUT_REF_RANDUNC"
    only_cut = fluxnet(True, 60)
    only_cut = only_cut[[name for name in only_cut if "VUT" not in name]]
    assert choose_columns(read_tower_file(save(only_cut, tmp_path / "b.csv"))).nee == "NEE_CUT_REF"
    no_nt = fluxnet(True, 60)
    no_nt[["GPP_NT_VUT_REF", "RECO_NT_VUT_REF"]] = -9999
    columns = choose_columns(read_tower_file(save(no_nt, tmp_path / "c.csv")))
    assert (columns.gpp, columns.reco) == ("GPP_DT_VUT_REF", "RECO_DT_VUT_REF")
    japan = read_tower_file(save(japanflux(60), tmp_path / "d.csv"))
    columns = choose_columns(japan)
    assert (columns.nee, columns.qc, columns.qc_best) == ("NEE_vUT", "NEE_vUT_QC", "low")
    assert choose_columns(japan, nee="NEE_PI_F").qc is None
    assert choose_columns(japan, qc="").qc is None


def flagged(tmp_path, name: str, values, layout: str = "auto", **options):
    table = japanflux(60)[["TIMESTAMP", "NEE_vUT"]]
    table[name] = np.resize(values, 60)
    return choose_columns(read_tower_file(save(table, tmp_path / "t.csv")), layout, "NEE_vUT", name, **options).qc_best


def test_direction_of_the_flag(tmp_path):
    assert flagged(tmp_path, "NEE_vUT_QC", [0.1, 0.9]) == "low"  # by its name, though no value exceeds 1
    assert flagged(tmp_path, "NEE_VUT_REF_QC", [0.1, 0.9]) == "high"
    assert flagged(tmp_path, "MY_FLAG", [0.5, 1.7]) == "low"  # a share cannot exceed 1
    assert flagged(tmp_path, "MY_FLAG", [0.5, 0.7], qc_best="high") == "high"
    with pytest.raises(
        UserError, match="neither its name nor its values tell whether 0 or 1 is best; say it with --qc"
    ):
        flagged(tmp_path, "MY_FLAG", [0.1, 0.9])
    with pytest.raises(UserError, match=r"share of good data by its name \(1 best\), but reaches 1.7"):
        flagged(tmp_path, "NEE_VUT_REF_QC", [0.1, 1.7])
    with pytest.raises(
        UserError, match=r"runs from 0 to 96, but a daily flag is a share \(0 to 1\) or a mean of flags"
    ):
        flagged(tmp_path, "NEE_vUT_QC", [0, 96])
    with pytest.raises(UserError, match="has no value at all"):
        flagged(tmp_path, "NEE_vUT_QC", [-9999])


def timestamps(form: str, step: str, count: int = 60) -> pd.DataFrame:
    table = japanflux(count)
    table["TIMESTAMP"] = pd.date_range("2012-01-01", periods=count, freq=step).strftime(form)
    return table


def half_hourly_pair() -> pd.DataFrame:
    start = pd.date_range("2012-01-01", periods=96, freq="30min")
    return pd.DataFrame({
        "TIMESTAMP_START": start.strftime("%Y%m%d%H%M"),
        "TIMESTAMP_END": (start + pd.Timedelta("30min")).strftime("%Y%m%d%H%M"), "FC": 1.0,
    })  # fmt: skip


def weekly() -> pd.DataFrame:
    start = pd.date_range("2012-01-01", periods=52, freq="7D")
    return pd.DataFrame({
        "TIMESTAMP_START": start.strftime("%Y%m%d"), "TIMESTAMP_END": (start + pd.Timedelta("6D")).strftime("%Y%m%d"),
        "NEE_VUT_REF": 1.0,
    })  # fmt: skip


def two_sites() -> pd.DataFrame:
    table = japanflux(60)
    table["SITE_ID"] = ["MY-LHP"] * 30 + ["JP-Tak"] * 30
    return table


HALF_HOURLY_REASON = "fluxes are umol m-2 s-1 and gaps are unfilled; give the network's daily file"
REFUSED = [
    (half_hourly_pair, f"START steps by 30 minutes, so this is a half-hourly file, where {HALF_HOURLY_REASON}"),
    (lambda: timestamps("%Y%m%d%H%M", "60min"), "TIMESTAMP steps by 60 minutes, so this is an hourly file"),
    (lambda: timestamps("%Y%m%d", "30min", 480), "each day is there 48 times, so this is a half-hourly or hourly file"),
    (weekly, "rows span 7 days, so this is a weekly file"),
    (lambda: timestamps("%Y%m", "MS"), "TIMESTAMP is like 201201, so this is a monthly file"),
    (lambda: timestamps("%Y", "YS"), "TIMESTAMP is like 2012, so this is a yearly file"),
    (two_sites, r"column SITE_ID holds 2 sites \(MY-LHP, JP-Tak\); give one site's file"),
    (lambda: japanflux(9).rename(columns={"TIMESTAMP": "WHEN"}), r"has no column TIMESTAMP \(YYYYMMDD\); found WHEN"),
    (lambda: japanflux(40).iloc[[*range(20), 19, *range(20, 40)]], "line 22: 2012-01-20 is there twice; every day may"),
    (lambda: japanflux(40).iloc[[0, 2, 1, *range(3, 40)]], "line 4: 2012-01-02 comes after 2012-01-03, out of order"),
    (lambda: pd.concat([japanflux(40)] * 2), "line 42: 2012-01-01 is there twice; two sites or files in one"),
    (lambda: japanflux(3).assign(TIMESTAMP=["20120228", "20120229", "20120230"]),
     "line 4: TIMESTAMP is '20120230', a day that does not exist"),
    (lambda: japanflux(3).assign(TIMESTAMP=["20120228", "29 Feb", "20120301"]),
     "line 3: TIMESTAMP is '29 Feb', expected a day as YYYYMMDD"),
    (lambda: japanflux(0), "has a header but no rows; expected one row a day"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_refusals(tmp_path, make, message):
    path = save(make(), tmp_path / "tower.csv")
    with pytest.raises(UserError, match=message) as caught:
        read_tower_file(path)
    assert str(path) in str(caught.value)


def test_damaged_files(tmp_path):
    path = tmp_path / "tower.csv"
    lines = japanflux(30).to_csv(index=False).splitlines()
    path.write_text("\n".join(lines[:20] + [lines[20][:12]]))
    with pytest.raises(UserError, match="line 21 has 2 fields, the header has 4; the file is damaged or cut short"):
        read_tower_file(path)
    path.write_bytes(b"PK\x03\x04\x00\x00zip")
    with pytest.raises(UserError, match="is not a text file"):
        read_tower_file(path)
    path.write_text("")
    with pytest.raises(UserError, match="is empty"):
        read_tower_file(path)
    path.write_text("\n".join([*lines[:5], lines[5].rsplit(",", 1)[0] + ",n.v."]))
    with pytest.raises(UserError, match=r"line 6: NEE_PI_F is 'n\.v\.', expected a number with a decimal point"):
        read_tower_file(path).numbers("NEE_PI_F")
    path.write_text("\n".join(line + f",{line.split(',')[1]}" for line in lines))
    with pytest.raises(UserError, match="has 2 columns named NEE_vUT; remove or rename all but one"):
        read_tower_file(path).numbers("NEE_vUT")


def test_two_files_with_their_headers(tmp_path):
    text = japanflux(30).to_csv(index=False)
    (tmp_path / "tower.csv").write_text(text + text)
    with pytest.raises(UserError, match="line 32 repeats the header: two files in one; give one site's file"):
        read_tower_file(tmp_path / "tower.csv")


def test_refused_columns(tmp_path):
    tower = read_tower_file(save(fluxnet(True, 60), tmp_path / "a.csv"))
    for column, message in [
        ("NEE_VUT_REF_NIGHT", "is no daily NEE"), ("NEE_VUT_REF_RANDUNC", "is no daily NEE"),
        ("NEE", "has no column NEE; similar ones are NEE_VUT_REF"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=message):
            choose_columns(tower, nee=column)
    base = japanflux(60).rename(columns={"NEE_vUT": "FC", "NEE_PI_F": "NEP_F"})
    tower = read_tower_file(save(base, tmp_path / "b.csv"))
    with pytest.raises(
        UserError, match=r"FC is a flux in umol m-2 s-1 \(by its name\), but daily sums in g C m-2 day-1"
    ):
        choose_columns(tower, nee="FC")
    with pytest.raises(UserError, match=r"NEP_F is NEP \(positive = uptake\) by its name"):
        choose_columns(tower, nee="NEP_F")
    with pytest.raises(
        UserError, match="has none of NEE_vUT, NEE_vUT_REF, .*, NEE_PI; similar ones are NEE_vUT_QC; name the column"
    ):
        choose_columns(tower)
    both = japanflux(60).assign(NEE_VUT_REF=1.0)
    with pytest.raises(UserError, match="columns of both JapanFlux .* and ONEFlux .* say which to use with --layout"):
        choose_columns(read_tower_file(save(both, tmp_path / "c.csv")))
    assert choose_columns(read_tower_file(tmp_path / "c.csv"), "japanflux").nee == "NEE_vUT"
    units = "TIMESTAMP,NEE_vUT\n-,umolCO2 m-2 s-1\n20120101,1.0\n20120102,1.0\n"
    (tmp_path / "d.csv").write_text(units)
    with pytest.raises(UserError, match="its unit is given as 'umolCO2 m-2 s-1'"):
        choose_columns(read_tower_file(tmp_path / "d.csv"))
    (tmp_path / "f.csv").write_text(units.replace("NEE_vUT\n-,umolCO2 m-2 s-1", "NEE_vUT [umol m-2 s-1]"))
    with pytest.raises(UserError, match="its unit is given as 'umol m-2 s-1'"):
        choose_columns(read_tower_file(tmp_path / "f.csv"))
    with pytest.raises(UserError, match="has none of NEE_VUT_REF"):
        choose_columns(read_tower_file(save(japanflux(60), tmp_path / "e.csv")), "icos")
    assert set(LAYOUTS) == {
        "japanflux", "fluxnet2015", "fluxnet", "icos", "ameriflux", "ozflux", "asiaflux", "other",
    }  # fmt: skip
