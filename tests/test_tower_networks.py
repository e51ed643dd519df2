"""The networks' layouts, however they are written: a file is read right or refused, never read wrong."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from script_calls import call
from tower_examples import NETWORKS, network_file

from calibration.common.command_line import UserError
from calibration.tower.file import read_tower_file
from calibration.tower.layouts import HIGH, choose_columns, recognise
from calibration.tower.nep import prepare
from calibration.tower.weather_columns import TowerWeather
from prepare_observation_nep import main

FAMILY = {name: name for name in NETWORKS} | {
    "japanflux_allvars": "japanflux", "fullset": "fluxnet2015", "subset": "fluxnet2015", "warm_winter": "icos",
}  # fmt: skip


def write(example, path, *, case=str, separator=",", code="-9999", units=None, before=(), decimal="."):
    """Write a network's table; case: of names; units: the cell of a second header line; before: lines of metadata."""
    table = example.table.rename(columns=case)
    text = table.to_csv(index=False, sep=separator, na_rep=code, decimal=decimal, lineterminator="\n")
    header, body = text.split("\n", 1)
    rows = [*before, header]
    if units is not None:
        rows.append(separator.join("YYYYMMDD" if k == 0 else "1" if name.upper().endswith("_QC") else units
                                   for k, name in enumerate(table.columns)))  # fmt: skip
    path.write_text("\n".join(rows) + "\n" + body, encoding="utf-8")
    return path


def check_read(example, path, **options):
    """The NEE and the mask of a file are those that its network means."""
    tower = read_tower_file(path)
    columns = choose_columns(tower, **options)
    table = prepare(tower, columns)
    assert columns.nee.upper() == example.nee.upper()
    np.testing.assert_array_equal(table["nee_gcm2"].isna(), example.table[example.nee].isna())
    np.testing.assert_allclose(table["nee_gcm2"], example.table[example.nee], atol=1e-9)
    if columns.qc is not None:
        np.testing.assert_array_equal(table["obs_mask"].to_numpy() == 1, example.good)
    return tower, columns


@pytest.mark.parametrize("network", NETWORKS)
def test_each_network_as_it_comes(tmp_path, network):
    example = network_file(network)
    tower, columns = check_read(example, write(example, tmp_path / example.name))
    assert recognise(tower).name == FAMILY[network] and columns.qc is not None
    assert columns.gpp is not None and columns.reco is not None


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_each_network_in_any_case_under_its_own_name(tmp_path, network, case):
    example = network_file(network, seed=4)
    check_read(example, write(example, tmp_path / example.name, case=case, units="x", before=("Site: XX-Abc", "")))


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(NETWORKS), st.integers(0, 10_000), st.sampled_from([str, str.lower, str.upper, str.title]),
    st.sampled_from([",", ";", "\t", "|"]), st.sampled_from(["-9999", "-9999.0", "-6999", "", "NA", "-99999", "NaN"]),
    st.sampled_from([None, "x", "-"]), st.sampled_from([(), ("# made up",), ("Site,XX-Abc", "Version,3")]),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_read_right_or_refused_never_wrong(
    tmp_path_factory, network, seed, case, separator, code, units, before, own_name, commas
):
    example = network_file(network, seed, 120)
    path = tmp_path_factory.mktemp("n") / (example.name if own_name else "tower.csv")
    decimal = "," if commas and separator != "," else "."
    write(example, path, case=case, separator=separator, code=code, units=units, before=before, decimal=decimal)
    try:
        check_read(example, path)
    except UserError as error:
        assert str(path) in str(error)
        # As published, a file must be read; AsiaFlux's flags need enough gaps to prove their direction.
        assert not own_name or case is not str or network == "asiaflux", error


def test_japanflux_without_nee_vut(tmp_path, capsys):
    """Fault 1: a file with NEE_vUT_USTAR50 alone passed for FLUXNET2015, and its filled days for measured ones."""
    example = network_file("japanflux_allvars")
    for name in (example.name, "mine.csv"):
        _, columns = check_read(example, write(example, tmp_path / name), nee="NEE_vUT_USTAR50")
        assert columns.qc_best == "low"
    path = write(example, tmp_path / "capitals.csv", case=str.upper)
    with pytest.raises(UserError, match="ONEFlux writes with VUT and JapanFlux with vUT .* say it with --layout"):
        check_read(example, path)
    assert call(main, "--input", path, "--nee-column", "NEE_VUT_USTAR50", "--output", tmp_path / "o.csv") == 2
    assert "neither its name nor its values tell whether 0 or 1 is best" in capsys.readouterr().err
    check_read(example, path, nee="NEE_VUT_USTAR50", layout_name="japanflux")


def test_name_and_columns_of_different_networks_are_asked_about(tmp_path):
    example = network_file("japanflux")
    with pytest.raises(UserError, match="is FLUXNET2015 .* by the file's name, but its columns are those of JapanFlux"):
        check_read(example, write(example, tmp_path / "FLX_XX-Abc_FLUXNET2015_SUBSET_DD_2019-2020_1-4.csv"))


def test_gaps_and_nights_prove_the_direction(tmp_path):
    generator = np.random.default_rng(1)
    days = pd.date_range("2019-01-01", periods=200).strftime("%Y%m%d")
    bad = generator.random(200) < 0.3
    share = np.where(bad, generator.uniform(0, 0.3, 200), generator.uniform(0.4, 1, 200))
    nee = generator.normal(-1, 2, 200)
    for best, flag in (("high", share), ("low", 1 - share)):
        table = pd.DataFrame({"TIMESTAMP": days, "NEE_X": nee, "NEE_X_QC": flag})
        path = tmp_path / f"{best}.csv"
        table.assign(FC=np.where(bad, -9999, nee)).to_csv(path, index=False)
        assert choose_columns(read_tower_file(path), nee="NEE_X").qc_best == best
        night = 0.2 if best == "high" else 0.8
        table.assign(NEE_X_NIGHT_QC=night, NEE_X_DAY_QC=1 - night).to_csv(path, index=False)
        assert choose_columns(read_tower_file(path), nee="NEE_X").qc_best == best
        table.to_csv(path, index=False)
        with pytest.raises(UserError, match="neither its name nor its values tell"):
            choose_columns(read_tower_file(path), nee="NEE_X")
    contradiction = pd.DataFrame(
        {"TIMESTAMP": days, "NEE_vUT": nee, "NEE_vUT_QC": share, "FC": np.where(bad, -9999, nee)}
    )
    contradiction.to_csv(path, index=False)
    with pytest.raises(UserError, match="by its network low values .* are best, but by the file high ones are"):
        choose_columns(read_tower_file(path))


def test_the_next_column_with_values_is_used_and_said(tmp_path, capsys):
    example = network_file("fullset")
    table = example.table.assign(NEE_VUT_REF=np.nan)
    table.to_csv(tmp_path / example.name, index=False, na_rep="-9999")
    assert choose_columns(read_tower_file(tmp_path / example.name)).nee == "NEE_CUT_REF"
    assert "NEE_VUT_REF holds no value; NEE_CUT_REF is used instead" in capsys.readouterr().err


@pytest.mark.parametrize(("form", "message"), [
    ("gCO2 m-2 d-1", "is given in 'gCO2 m-2 d-1', but daily sums in g C m-2 day-1 are needed; convert it"),
    ("kgC ha-1 d-1", "is given in 'kgC ha-1 d-1'"), ("umol m-2 s-1", "is a flux in umol m-2 s-1"),
])  # fmt: skip
def test_another_unit_in_the_header_is_refused(tmp_path, form, message):
    example = network_file("asiaflux")
    path = tmp_path / example.name
    example.table.rename(columns={"NEE": f"NEE ({form})"}).to_csv(path, index=False)
    with pytest.raises(UserError, match=re.escape(message)):
        choose_columns(read_tower_file(path))


def test_metadata_before_the_header_is_said(tmp_path, capsys):
    example = network_file("subset")
    path = write(example, tmp_path / example.name, before=("Site: XX-Abc", "Version: 3", ""))
    assert call(main, "--input", path, "--output", tmp_path / "nep.csv", "--no-figure") == 0
    assert "2 lines of metadata before the header (line 4) skipped" in capsys.readouterr().out


def test_weather_flags_follow_the_same_recogniser(tmp_path):
    for network in ("japanflux_allvars", "fullset"):
        example = network_file(network)
        tower = read_tower_file(write(example, tmp_path / example.name))
        layout = recognise(tower)
        found = TowerWeather(tower, layout, 0.5, None, {})["TA"]
        flag = example.table["TA_F_QC"]
        good = flag >= 0.5 if layout.qc_best == HIGH else flag <= 0.5
        assert (~np.isnan(found))[good].all()
        if network == "japanflux_allvars":
            assert np.isnan(found)[~good].all()
