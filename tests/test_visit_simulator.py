"""simulate() and the command line of visit_simulator.py."""

import numpy as np
import pandas as pd
import pytest
from carbon_budget import water_residuals
from script_calls import script
from visit_runs import plausible_values, site, weather

from calibration.common.command_line import UserError
from calibration.common.parameters import catalogue
from calibration.ensembles.files import read_daily_file
from calibration.visit.layout import RAW_LAYER, STATE, Soil, parameter_rows
from calibration.visit.simulator import parameter_values, read_runs, simulate
from calibration.weather.daily import Weather, write_weather_csv

# Read by VISIT, but without effect on carbon and water here (visit_carbon_core 9.3); phenology and type have one value.
INERT = [
    f"{layer}_{name}" for layer in ("tree", "c3") for name in ("ctmp_lfdsp", "ctmp_lfshd", "dcd", "root_spt_a",
                                                               "root_spt_b")
]  # fmt: skip


@pytest.fixture(scope="module")
def forests():
    values = plausible_values(3, seed=31)
    return values, simulate(values, weather(), site(), jobs=1)


def test_result_has_the_promised_shapes_and_identities(forests):
    _, result = forests
    days = len(weather().dates)
    assert result.gpp.shape == result.rh.shape == (3, days)
    assert (result.nep == result.npp - result.rh).all()
    assert np.abs(result.nep - (result.gpp - result.er)).max() < 1e-12
    assert (result.targets[:, :, 2] == result.nep).all() and (result.targets[:, :, 3] == result.rh).all()
    assert list(result.years) == [2010, 2011]
    assert result.annual_lai.shape == (3, 2, 2) and result.annual_lai.sum(axis=2).min() > 1.0
    assert result.annual("gpp") == pytest.approx(
        np.stack([result.gpp[:, :365].sum(axis=1), result.gpp[:, 365:].sum(axis=1)], axis=1)
    )


def test_summary_is_made_of_annual_sums_and_population_sd(forests):
    _, result = forests
    summary = result.summary()
    annual = result.annual("nep")
    assert summary["mean_NEP"].to_numpy() == pytest.approx(annual.mean(axis=1))
    assert summary["sd_annual_NEP"].to_numpy() == pytest.approx(np.abs(annual[:, 0] - annual[:, 1]) / 2)
    assert summary["sd_daily_GPP"].to_numpy() == pytest.approx(result.gpp.std(axis=1))


def test_inert_parameters_have_exactly_no_effect(forests):
    values, result = forests
    changed = dict(values)
    for name in INERT:
        low, high = catalogue()[name].minimum, catalogue()[name].maximum
        changed[name] = np.array([low, high, 0.5 * (low + high)])
    assert (simulate(changed, weather(), site(), jobs=1).fluxes == result.fluxes).all()


def test_every_other_parameter_reaches_the_kernel():
    base = parameter_rows(parameter_values({}))
    derived = ("sla", "gs_b2", "qTf0", "qTc0", "qTr0")
    used = [f"{layer}_{name}" for layer in ("tree", "c3") for name in (*RAW_LAYER, *derived)]
    used += [f"soil_{name}" for name in Soil._fields]
    for name in used:
        parameter = catalogue()[name]
        other = parameter.maximum if parameter.maximum != parameter.baseline else parameter.minimum
        assert (parameter_rows(parameter_values({name: other})) != base).any(), name
    alone = {"tree_phenoltype", "tree_phototype", "c3_phenoltype", "c3_phototype"}
    assert set(used) | set(INERT) | alone | {"init_stem_factor", "init_humus_factor"} == set(catalogue())


def test_soil_parameters_never_change_gpp_or_npp(forests):
    values, result = forests
    changed = dict(values)
    for name in Soil._fields[1:]:
        changed[f"soil_{name}"] = values[f"soil_{name}"] * 0.8
    other = simulate(changed, weather(), site(), jobs=1)
    # the loops that the fast spin-up skips come back to 1e-6, not to the last bit, and soils may skip different ones
    assert np.abs(other.gpp / result.gpp - 1).max() < 1e-5
    assert np.abs(other.rh / result.rh - 1).max() > 1e-3


def test_initial_factors_act_at_the_end_of_the_spinup(forests):
    values, result = forests
    changed = values | {"init_stem_factor": np.full(3, 0.5), "init_humus_factor": np.full(3, 0.25)}
    other = simulate(changed, weather(), site(), jobs=1)
    ratio = other.spinup_state / result.spinup_state
    for i, name in enumerate(STATE):
        expected = 0.5 if name.endswith("_stem") else 0.25 if name.startswith("humus_") else 1.0
        assert ratio[:, i] == pytest.approx(expected), name
    assert (other.summary()["mean_NEP"] > result.summary()["mean_NEP"] + 0.5).all()


def test_fast_and_full_agree_in_every_mean_flux_and_pool(forests):
    values, fast = forests
    slow = simulate(values, weather(), site(), spinup="full", jobs=2)
    assert np.abs(fast.fluxes.mean(axis=1) / slow.fluxes.mean(axis=1) - 1).max() < 1e-3
    assert np.abs(fast.annual_pools / slow.annual_pools - 1).max() < 1e-3
    assert (slow.spinup_loops == 1005).all()


def test_runoff_before_2014_keeps_more_water_and_balances(forests):
    values, result = forests
    old = simulate(values, weather(), site(), jobs=1, keep_pools=True, old_runoff=True)
    assert max(np.abs(residual).max() for residual in water_residuals(old).values()) < 1e-9
    upper = STATE.index("water_upper")
    assert (old.annual_pools[:, :, upper] > result.annual_pools[:, :, upper]).all()


def test_cold_weather_warns_once_that_there_is_no_snow(capsys):
    made = weather()
    values = made.values.copy()
    values[:, :4] -= 30.0
    values[:, 7] *= 0.1
    cold = Weather(made.dates, values, "cold")
    result = simulate({}, cold, site(), jobs=1)
    assert np.isfinite(result.fluxes).all() and result.pools is None
    assert capsys.readouterr().err.count("snow is not simulated") == 1


def test_names_in_any_case_scalars_and_defaults():
    by_case = parameter_values({"TREE_QTF0": [1.8, 2.2], "c3_lue": 0.05})
    assert by_case["tree_qTf0"].tolist() == [1.8, 2.2] and by_case["c3_lue"].tolist() == [0.05, 0.05]
    assert by_case["tree_sla"].tolist() == [170.0, 170.0]


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"tree_luu": 0.05}, "tree_luu.*did you mean 'tree_lue'"),
        ({"tree_lue": [0.05, 0.5]}, r"tree_lue of run 1 is 0.5, allowed is 0.005 to 0.12 mol mol-1"),
        ({"tree_lue": [np.nan]}, "tree_lue of run 0 is nan"),
        ({"tree_qTf0": 2.0, "tree_qtf0": 2.0}, "same parameter"),
        ({"tree_lue": [0.05, 0.06], "tree_sla": [100, 120, 140]}, r"different numbers of runs: \[2, 3\]"),
        ({"tree_lue": ["0.05", "bright"]}, "holds 'bright', expected numbers"),
        ({"tree_lue": []}, "holds no runs"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(UserError, match=message):
        parameter_values(parameters)


def test_weather_without_a_whole_year_is_refused():
    short = weather().between("2010-03-01", "2011-11-30")
    with pytest.raises(UserError, match="2010-03-01 to 2011-11-30.*no whole calendar year"):
        simulate({}, short, site())


def write_runs(path, text):
    path.write_text(text)
    return path


RUNS = "sample_id,tree_lue,TREE_QTF0,mean_GPP,over_ke_d,trajectory\n3,0.05,2.1,1,1,0\n7,0.06,2.0,1,1,0\n"


@pytest.mark.parametrize(
    "change, message",
    [
        (("tree_lue", "tree_luu"), "column 'tree_luu' is no parameter.*tree_lue"),
        (("0.05", "abc"), "column 'tree_lue' holds 'abc'"),
        (("0.05", "9"), "tree_lue of sample_id 3 is 9, allowed is 0.005 to 0.12"),
        (("0.05", ""), "tree_lue of sample_id 3 is nan"),
        (("sample_id", "id"), "column 'sample_id' is missing"),
        (("\n7", "\n3"), "sample_id 3 is there more than once"),
        (("\n7", "\n7.5"), "line 3: sample_id is .*7.5.*whole number"),
    ],
)
def test_bad_runs_files_are_named(tmp_path, change, message):
    path = write_runs(tmp_path / "runs.csv", RUNS.replace(*change))
    with pytest.raises(UserError, match=message) as caught:
        read_runs(path)
    assert "runs.csv" in str(caught.value)


@pytest.mark.parametrize("text", ["", "sample_id,tree_lue\n"])
def test_empty_runs_files_are_refused(tmp_path, text):
    with pytest.raises(UserError, match="runs.csv"):
        read_runs(write_runs(tmp_path / "runs.csv", text))


def test_command_line_writes_summary_and_daily_files(tmp_path):
    runs = write_runs(tmp_path / "runs.csv", RUNS)
    write_weather_csv(tmp_path / "weather.csv", weather())
    out, daily = tmp_path / "out" / "summary.csv", tmp_path / "daily"
    done = script(
        "visit_simulator.py", "--runs", runs, "--weather", tmp_path / "weather.csv", "--summary", out, "--daily-dir",
        daily, "--jobs", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(out)
    measures = [f"{kind}_{flux}" for kind in ("mean", "sd_annual", "sd_daily") for flux in ("GPP", "NPP", "ER", "NEP")]
    assert list(table.columns) == ["sample_id", *measures]
    assert table["sample_id"].tolist() == [3, 7]
    expected = simulate({"tree_lue": [0.05, 0.06], "tree_qTf0": [2.1, 2.0]}, weather(), site())
    assert table["mean_GPP"].to_numpy() == pytest.approx(expected.summary()["mean_GPP"].to_numpy(), rel=1e-6)
    files = sorted(daily.iterdir())
    assert [path.name[:4] + path.name[-15:] for path in files] == ["LHP__daily_0003.txt", "LHP__daily_0007.txt"]
    back = read_daily_file(files[1])
    assert (back.dates == weather().dates).all()
    assert np.abs(back.fluxes - expected.targets[1]).max() < 1e-8
    assert np.allclose(back.dynamic, weather().values, rtol=1e-8)


def test_command_line_refuses_bad_input_in_one_line_and_writes_nothing(tmp_path):
    runs = write_runs(tmp_path / "runs.csv", RUNS.replace("0.05", "9"))
    write_weather_csv(tmp_path / "weather.csv", weather())
    out = tmp_path / "summary.csv"
    done = script("visit_simulator.py", "--runs", runs, "--weather", tmp_path / "weather.csv", "--summary", out)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not out.exists()
