"""Versions of VISIT in the process model: each moves the fluxes as published, and check_ensemble.py tells it."""

from dataclasses import replace

import numpy as np
import pytest

from calibration.common.command_line import UserError
from calibration.common.sites import Variant, load_site, with_variant
from calibration.ensembles.diagnosis import Evidence
from calibration.ensembles.variants import describe_variant, explain_by_variant, fit, identical_runs
from calibration.visit import forcing
from calibration.visit.simulator import simulate
from calibration.weather.daily import generate_weather


@pytest.fixture(scope="module")
def weather():
    return generate_weather(load_site(), "2010-01-01", "2012-12-31", seed=5)


@pytest.fixture(scope="module")
def base(weather):
    return simulate({}, weather, load_site(), jobs=1)


def changed(weather, base, **variant):
    """Change of annual GPP, NPP and NEP, Mg C ha-1 year-1, rms change of daily GPP, and the result itself."""
    result = simulate({}, weather, replace(load_site(), variant=Variant(**variant)), jobs=1)
    names = ("gpp", "npp", "nep", "er", "rh")
    change = {name: float((result.annual(name) - base.annual(name)).mean()) for name in names}
    return change, float(np.sqrt(((result.gpp - base.gpp) ** 2).mean())), result


def test_exports_that_count_take_a_quarter_of_a_ton_from_nep_alone(weather, base):
    """Published for LHP: annual NEP 0.226 against 0.473."""
    change, daily, result = changed(weather, base, exports_in_nep=True)
    assert change["nep"] == pytest.approx(-0.247, abs=0.05)
    assert daily == 0 and change["npp"] == change["er"] == change["rh"] == 0
    flows = simulate({}, weather, load_site(), jobs=1, keep_pools=True)
    from calibration.visit.layout import FLOWS

    exports = sum(flows.flows[:, :, FLOWS.index(name)] for name in ("doc_export", "erosion"))
    np.testing.assert_allclose(base.nep - result.nep, exports, atol=1e-15)


@pytest.mark.parametrize(
    ("variant", "flux", "published", "within"),
    [
        ({"old_runoff": True}, "gpp", 0.06, 0.05),
        ({"random_spinup": True}, "nep", -0.07, 0.15),
        ({"first_co2_year": 2000}, "gpp", -1.06, 0.15),
        ({"pressure": 1005.0}, "gpp", 0.10, 0.03),
    ],
)
def test_published_effects(weather, base, variant, flux, published, within):
    change, daily, _ = changed(weather, base, **variant)
    assert change[flux] == pytest.approx(published, abs=within) and daily > 0


def test_capped_sapwood_is_seen_in_small_plants_only(weather, base):
    """Published: daily GPP RMSE 8e-5."""
    change, daily, _ = changed(weather, base, sapwood_cap=True)
    assert 1e-6 < daily < 3e-4 and abs(change["gpp"]) < 0.02


def test_pressure_comes_from_the_forcing_where_it_has_one(weather, base):
    site = replace(load_site(), variant=Variant(pressure="forcing"))
    measured = replace(weather, pressure=np.full(len(weather), 100500.0))
    constant = changed(weather, base, pressure=1005.0)[2]
    np.testing.assert_array_equal(simulate({}, measured, site, jobs=1).fluxes, constant.fluxes)
    with pytest.raises(UserError, match="needs weather with pressure"):
        simulate({}, weather, site, jobs=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("variant: {sapwood: true}", "unknown variant 'sapwood'; known are exports_in_nep"),
        ("variant: {old_runoff: 1}", "variant old_runoff is 1, allowed is true or false"),
        ("variant: {pressure: 101325}", "variant pressure is 101325, allowed is altitude, forcing or 400 to 1100 hPa"),
        ("variant: {first_co2_year: 10}", "variant first_co2_year is 10"),
        ("variant: exports", "variant must be 'name: value' lines"),
    ],
)
def test_unfit_variants(tmp_path, text, message):
    kept = load_site().path.read_text().split("variant:")[0]
    (tmp_path / "site.yaml").write_text(kept + text + "\n")
    with pytest.raises(UserError, match=message):
        load_site(tmp_path / "site.yaml")


def test_variants_of_a_yaml_and_of_the_command_line(tmp_path):
    kept = load_site().path.read_text().split("variant:")[0]
    (tmp_path / "old.yaml").write_text(kept)  # a file from before there were variants
    assert load_site(tmp_path / "old.yaml").variant == Variant() == load_site().variant
    (tmp_path / "site.yaml").write_text(kept + "variant: {old_runoff: true}\n")
    site = with_variant(load_site(tmp_path / "site.yaml"), ["exports_in_nep", "pressure=1005.5"])
    assert site.variant == Variant(exports_in_nep=True, old_runoff=True, pressure=1005.5)
    assert "variant" not in load_site().constants and site.constants["variant"]["old_runoff"] is True
    with pytest.raises(UserError, match="--variant: unknown variant 'x'"):
        with_variant(site, ["x=1"])


def evidence_of(weather, variant):
    values = {"tree_lue": np.array([0.045, 0.06]), "tree_sla": np.array([150.0, 200.0])}
    result = simulate(values, weather, replace(load_site(), variant=variant), jobs=1)
    fluxes = np.stack([result.gpp, result.npp, result.npp - result.nep], axis=-1)
    return Evidence(tuple(values), np.stack(list(values.values()), axis=1), fluxes, weather, 0, load_site())


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        (Variant(exports_in_nep=True), "export of dissolved and eroded carbon counted in NEP"),
        (Variant(old_runoff=True, first_co2_year=2008), "runoff as before 2014, CO2 that starts at the year 2008"),
    ],
)
def test_the_variant_behind_an_ensemble_is_named(weather, variant, words, monkeypatch):
    monkeypatch.setattr(forcing, "SPINUP_YEARS", 600)  # a search makes dozens
    year = weather.between("2010-01-01", "2010-12-31")  # a short loop of the spin-up
    evidence = evidence_of(year, variant)
    way = explain_by_variant(evidence, fit(evidence, evidence.site.variant, 1), jobs=2)
    assert describe_variant(way[0].variant, way[-1].variant) == words
    assert way[-1].misfit < 1e-5 and abs(way[-1].nep) < 1e-5


def test_nep_is_judged_where_gpp_and_rh_hardly_differ(weather):
    evidence = evidence_of(weather, Variant())
    assert fit(evidence, Variant(), jobs=1).misfit < 1e-9
    off = replace(evidence, fluxes=evidence.fluxes - np.array([0.0, 0.0, 0.25 / 365.25]))
    assert fit(off, Variant(), jobs=1).nep == pytest.approx(-0.25, abs=1e-6)
    assert fit(off, Variant(), jobs=1).misfit > 0.09


def test_identical_runs_are_told_except_dead_forests():
    fluxes = np.full((4, 5, 4), 0.1, dtype=np.float32)
    fluxes[0], fluxes[1] = 0.2, 0.3
    parameters = np.arange(4.0)[:, None]
    assert identical_runs([7, 8, 9, 10], parameters, fluxes) == (9, 10)
    assert identical_runs([7, 8, 9, 10], np.ones((4, 1)), fluxes) is None
    fluxes[2:] = 0.0
    assert identical_runs([7, 8, 9, 10], parameters, fluxes) is None
