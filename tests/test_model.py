"""The network: contract, identities, equality of its ways of running, gradients, and its static side."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from script_calls import script

from calibration.common.configuration import load_configuration
from calibration.common.parameters import catalogue, read_ranges
from calibration.common.scalers import Scaler
from calibration.common.sites import Site, load_site
from calibration.common.units import DYNAMIC_FEATURES, TARGETS
from calibration.network.canopy_equilibrium import REST, at_rest, first_guess
from calibration.network.leaf_weather import read_days
from calibration.network.options import CONTRACT, network_options
from calibration.network.season import season_of, sun
from calibration.network.shared_dropout import PROCESSES, SharedDropout
from calibration.network.soil_water import DENSE, OPEN, soil_water
from calibration.network.static_features import StaticFeatures, logarithmic_parameters
from calibration.weather.atmosphere import background_co2
from model import StaticConditionedLSTM, create_model

SPACE = read_ranges()
LATITUDE = torch.tensor(4.2)
SEASONLESS = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0]).expand(1, 96, 6), LATITUDE
RECOMMENDED = {
    "hidden_size": 16, "num_layers": 1, "dropout": 0.0, "head_width": 0, "flux_feedback": False, "static_trunk": [24],
    "static_features": "equilibrium", "output_affine": True, "first_guess": True, "embedding_size": 8,
}  # fmt: skip
SPECIFICATION = {"hidden_size": 12, "num_layers": 2, "dropout": 0.1}


def weather_days(count: int, seed: int = 0) -> np.ndarray:
    """(day, 10) plausible physical weather."""
    rng = np.random.default_rng(seed)
    middle = np.array([300.7, 300.0, 301.2, 300.9, 214.0, 35.0, 9e-5, 0.0189, 1.25, 408.0])
    spread = np.array([0.8, 0.8, 0.7, 0.7, 40.0, 20.0, 3e-5, 6e-4, 0.3, 4.0])
    return middle + spread * rng.uniform(-1.5, 1.5, (count, 10))


def fitted(
    options: dict, seed: int = 0, weather: np.ndarray | None = None, site: Site | None = None
) -> tuple[StaticConditionedLSTM, torch.Tensor, torch.Tensor]:
    """A model with scalings of plausible data and random read-outs, weather (120, 10), parameters (5, 36), scaled."""
    torch.manual_seed(seed)
    weather = weather_days(120) if weather is None else weather
    parameters = SPACE.unit_to_physical(np.random.default_rng(1).random((40, len(SPACE))))
    logarithmic = logarithmic_parameters(SPACE.names, parameters)
    model = create_model(static_dim=len(SPACE), parameter_names=SPACE.names, logarithmic=logarithmic, **options)
    dynamic, static = Scaler.fit(DYNAMIC_FEATURES, weather), Scaler.fit(SPACE.names, parameters)
    targets = Scaler(TARGETS, np.array([0.12, 0.044, 0.001, 0.043]), np.array([0.035, 0.019, 0.013, 0.013]))
    model.set_scaling(targets, dynamic, static, parameters, weather, site or load_site())
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(std=0.05)
    scaled = torch.as_tensor(static.transform(parameters[:5]), dtype=torch.float32)
    return model.eval(), torch.as_tensor(dynamic.transform(weather), dtype=torch.float32), scaled


BOTH = pytest.mark.parametrize("options", [RECOMMENDED, SPECIFICATION], ids=["recommended", "specification"])


def test_contract_call_builds_the_contract_network():
    model = create_model(dynamic_dim=10, static_dim=36, hidden_size=256, num_layers=2, dropout=0.1, device="cpu")
    output = model(torch.zeros(3, 180, 10), torch.zeros(3, 36), torch.zeros(3, 30, 10))
    assert output.shape == (3, 30, 4)
    assert model.flux_feedback and len(model.lstm) == 2 and model.lstm[0].input_size == 10 + 64 + 4


@BOTH
def test_nep_is_npp_minus_rh_to_the_last_bit(options):
    model, dynamic, static = fitted(options)
    gpp, npp, nep, rh = model.simulate(static, dynamic, 20).unbind(-1)
    assert torch.equal(nep, npp - rh) and (gpp != npp).any()


def test_the_contract_is_the_preset_of_the_yaml():
    preset = asdict(load_configuration(preset="specification").model)
    assert {name: preset[name] for name in CONTRACT} == CONTRACT
    assert asdict(network_options()) | preset == asdict(network_options())


@pytest.mark.parametrize("predicted", [["gpp", "npp", "nep"], ["gpp", "npp", "rh"], ["gpp", "nep", "rh"]])
def test_any_three_fluxes_may_be_predicted(predicted):
    model, dynamic, static = fitted({**RECOMMENDED, "predicted": predicted})
    physical = model.simulate(static, dynamic, 20)
    assert torch.equal(physical[..., 2], physical[..., 1] - physical[..., 3])
    assert torch.allclose(model.to_physical(model.simulate_scaled(static, dynamic, 20)), physical)
    assert torch.allclose(model.to_scaled(physical), model.simulate_scaled(static, dynamic, 20), atol=1e-4)


@BOTH
def test_forward_equals_simulate_over_the_same_days(options):
    model, dynamic, static = fitted(options)
    both = dynamic.expand(5, -1, -1)
    assert torch.allclose(model(both[:, :90], static, both[:, 90:]), model.simulate(static, dynamic, 90), atol=1e-6)


def test_prepared_days_give_the_same_as_days_prepared_on_the_way():
    model, dynamic, static = fitted(RECOMMENDED)
    first = model.simulate(static, dynamic, 30)
    prepared = model.prepare_days(dynamic[None])
    assert prepared.shape[-1] > dynamic.shape[-1] and torch.equal(model.prepare_days(prepared), prepared)
    assert torch.equal(model.simulate(static, prepared[0], 30), first)
    assert torch.allclose(model.double().simulate(static.double(), dynamic.double(), 30).float(), first, atol=1e-3)


def test_the_year_reaches_the_network_only_by_choice():
    without, with_year = (fitted({**RECOMMENDED, "co2_input": chosen})[0] for chosen in (False, True))
    assert with_year.lstm[0].input_size == without.lstm[0].input_size + 1


def test_one_pass_equals_day_by_day():
    model, dynamic, static = fitted(RECOMMENDED)
    state_of, prepared = model.encode_static(static), model.prepare_days(dynamic[:40].expand(5, -1, -1))
    state, days = (state_of.hidden, state_of.cell), []
    for day in range(40):
        output, state = model.advance(prepared[:, day : day + 1], state_of, state)
        days.append(output)
    assert torch.allclose(torch.cat(days, dim=1), model.simulate_scaled(static, dynamic[:40], 0), atol=1e-5)


def test_feedback_uses_truth_under_teacher_forcing_and_itself_when_free():
    model, dynamic, static = fitted(SPECIFICATION)
    state_of = model.encode_static(static)
    start, previous = (state_of.hidden, state_of.cell), torch.zeros(5, 4)
    weather, truth = dynamic[:20].expand(5, -1, -1), torch.randn(5, 20, 4)

    def roll(*arguments):
        return model.roll(weather, state_of, start, previous, *arguments)

    free, forced = roll(), roll(truth, 1.0)
    assert not torch.allclose(free, forced, atol=1e-3)
    assert torch.equal(free, roll(truth, 0.0))
    days, state = [], start  # forced, by hand
    for day in range(20):
        output, state = model.advance(weather[:, day : day + 1], state_of, state, truth[:, day : day + 1])
        days.append(output)
    assert torch.allclose(torch.cat(days, dim=1), forced, atol=1e-5)
    changed = truth.clone()
    changed[:, 5] += 1.0  # the flux before day 5 reaches day 5 and later, never earlier days
    difference = (roll(changed, 1.0) - forced).abs().amax(dim=(0, 2))
    assert (difference[:5] == 0).all() and (difference[5:] > 0).all()
    torch.manual_seed(0)
    mixed = roll(truth, 0.5)
    assert not torch.allclose(mixed, free, atol=1e-4) and not torch.allclose(mixed, forced, atol=1e-4)


@BOTH
def test_gradient_reaches_every_parameter_and_repeats_bitwise(options):
    model, dynamic, static = fitted(options)
    gradients = []
    for _ in range(2):
        static_x = static.clone().requires_grad_()
        model.simulate(static_x, dynamic, 30)[..., 2].square().sum().backward()
        gradients.append(static_x.grad)
    assert torch.equal(*gradients)
    assert torch.isfinite(gradients[0]).all() and (gradients[0].abs().sum(dim=0) > 0).all()


@BOTH
def test_gradient_is_the_difference_quotient(options):
    model, dynamic, static = fitted(options)
    model, dynamic, static = model.double(), dynamic.double(), static[:1].double()
    direction = torch.randn(1, static.shape[1], dtype=torch.double, generator=torch.Generator().manual_seed(0))

    def value(step):
        return model.simulate(static + step * direction, dynamic, 30).sum()

    static_x = static.clone().requires_grad_()
    model.simulate(static_x, dynamic, 30).sum().backward()
    quotient = (value(1e-6) - value(-1e-6)) / 2e-6
    assert (static_x.grad * direction).sum().item() == pytest.approx(quotient.item(), rel=2e-3)


@BOTH
def test_weights_load_through_the_contract_call(options, tmp_path, capsys):
    model, dynamic, static = fitted(options)
    torch.save({"model_state_dict": model.state_dict()}, tmp_path / "checkpoint.pt")
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    fresh = create_model(dynamic_dim=10, static_dim=36, hidden_size=256, num_layers=2, dropout=0.1, device="cpu").eval()
    fresh.load_state_dict(checkpoint["model_state_dict"])
    assert "takes the checkpoint's shape" in capsys.readouterr().err
    assert torch.equal(fresh.simulate(static, dynamic, 30), model.simulate(static, dynamic, 30))
    with pytest.raises(RuntimeError, match="static_dim 36, this model 35"):
        create_model(static_dim=35).load_state_dict(checkpoint["model_state_dict"])


@pytest.mark.parametrize("switch", ["init_state", "concat_input"])
def test_either_path_alone_carries_the_parameters(switch):
    off = {"init_state": switch == "init_state", "concat_input": switch == "concat_input"}
    model, dynamic, static = fitted({**SPECIFICATION, **off})
    output = model.simulate(static, dynamic, 0)
    assert (output[0] - output[1]).abs().max() > 1e-6


def test_dropout_is_off_in_evaluation_and_the_same_however_a_batch_is_split():
    layer, x = SharedDropout(0.5), torch.ones(6, 3)
    assert torch.equal(layer.eval()(x), x)
    layer.train()
    torch.manual_seed(7)
    whole = layer(x)
    try:
        PROCESSES.world = 2
        for rank in (0, 1):
            PROCESSES.rank = rank
            torch.manual_seed(7)
            assert torch.equal(layer(x[rank::2]), whole[rank::2])
    finally:
        PROCESSES.rank, PROCESSES.world = 0, 1
    assert set(whole.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("kind", ["none", "ratios", "equilibrium"])
def test_static_features_take_any_names_and_stay_finite(kind):
    rng = np.random.default_rng(0)
    names = ("tree_sla", "unheard_of", "SOIL_SR_LF", "constant", "may_be_zero")
    values = np.column_stack(
        [rng.uniform(85, 255, 30), rng.uniform(1, 9, 30), rng.uniform(1, 2, 30), np.full(30, 3.0), np.zeros(30)]
    )
    logarithmic = logarithmic_parameters(names, values)
    assert "unheard_of" in logarithmic and "constant" not in logarithmic and "may_be_zero" not in logarithmic
    features = StaticFeatures(
        network_options(static_dim=5, parameter_names=names, logarithmic=logarithmic, static_features=kind)
    )
    scaler = Scaler.fit(names, values)
    features.fit(scaler.mean, scaler.scale, values, weather_days(50))
    result, _ = features(torch.as_tensor(scaler.transform(values), dtype=torch.float32))
    assert result.shape == (30, len(features)) and torch.isfinite(result).all()
    assert result.std(dim=0).max() < 1.5
    far = torch.full((1, len(names)), 30.0)
    assert torch.isfinite(features(far)[0]).all()


def test_dates_are_the_season_whatever_the_co2():
    """Measured, constant or VISIT's own: with dates the sun is the same; a network of before reads its CO2."""
    dates = np.arange("2015-01-01", "2017-01-01", dtype="datetime64[D]")
    doy = (dates - dates.astype("datetime64[Y]")).astype(int)
    assert torch.allclose(season_of(dates), torch.as_tensor(np.stack([np.sin(2 * np.pi * doy / 365), np.cos(
        2 * np.pi * doy / 365)], axis=-1)).float(), atol=1e-6)  # fmt: skip
    of_visit = background_co2(4.2, dates.astype("datetime64[Y]").astype(int) + 1970, doy)
    measured = 400 + np.random.default_rng(3).normal(0, 8, len(dates))
    prepared = {}
    for name, co2 in (("VISIT", of_visit), ("measured", measured), ("constant", np.full(len(dates), 400.0))):
        weather = weather_days(len(dates))
        weather[:, -1] = co2
        model, dynamic, _ = fitted(RECOMMENDED | {"dated": True}, weather=weather)
        prepared[name] = model.prepare_days(dynamic[None], dates)[0, :, -6:]
        of_before, _, _ = fitted(RECOMMENDED, weather=weather)
        assert not torch.equal(of_before.prepare_days(dynamic[None], dates)[0, :4, -6:], prepared[name][:4])
    assert torch.equal(prepared["VISIT"], prepared["measured"]) and torch.equal(
        prepared["VISIT"], prepared["constant"]
    )
    both = model.prepare_days(torch.stack([dynamic[:30], dynamic[365:395]]), np.stack([dates[:30], dates[365:395]]))
    assert torch.equal(both[0, :, -6:-4], both[1, :, -6:-4])  # the same days of two years


@BOTH
def test_later_weather_changes_no_earlier_day(options):
    dates = np.arange("2015-01-01", "2017-01-01", dtype="datetime64[D]")
    doy = (dates - dates.astype("datetime64[Y]")).astype(int)
    weather = weather_days(len(dates))
    weather[:, -1] = background_co2(4.2, dates.astype("datetime64[Y]").astype(int) + 1970, doy)
    model, _, static = fitted(options, weather=weather)
    assert torch.isfinite(model.co2_amplitude)  # the season is known here
    dynamic = (torch.as_tensor(weather, dtype=torch.float32) - model.dynamic_mean) / model.dynamic_scale
    whole = model.simulate(static, dynamic, 180)
    for days in (300, 370):
        assert torch.allclose(model.simulate(static, dynamic[:days], 180), whole[:, : days - 180], atol=1e-6)


def test_site_sets_sun_air_and_soil():
    model, dynamic, _ = fitted(RECOMMENDED)
    days = dynamic[None].expand(1, -1, -1)
    before = model.extra_columns(days)
    empty = {"upper_capacity": 60.0, "lower_capacity": 90.0, "altitude": 1500.0}
    model, dynamic, _ = fitted(RECOMMENDED, site=replace(load_site(), **empty))
    assert model.capacity.tolist() == [60.0, 90.0] and model.altitude.item() == 1500.0
    assert 830 < model.static.features.pressure.item() < 870  # hPa
    assert (model.extra_columns(days)[0, 60:, 3] < before[0, 60:, 3]).all()  # small buckets run dry


def test_buckets_fill_and_dry_as_the_weather_says():
    weather = torch.as_tensor(np.tile(weather_days(1), (300, 1)))[None].clone()
    length, above = torch.full((1, 300), 12.0), torch.full((1, 300), 1330.0)
    weather[0, :, 6] = 2e-4  # 17 mm a day
    wet = soil_water(weather, length, above)[0]
    weather[0, :, 6] = 0.0
    dry = soil_water(weather, length, above)[0]
    assert (wet > 0.97).all() and (dry[1:] <= dry[:-1] + 1e-9).all() and dry[-1].max() < 0.6 and (dry > 0).all()
    assert (soil_water(weather, length, above, DENSE)[0, 20:] < dry[20:]).all()  # more leaves, more transpiration


def test_carbon_cycle_at_rest_obeys_its_balances():
    baseline = {name: torch.full((1, 1), p.baseline, dtype=torch.double) for name, p in catalogue().items()}
    typical = read_days(torch.as_tensor(weather_days(96))[None], *SEASONLESS)
    packed, features = at_rest(baseline, typical)
    rest = dict(zip(REST, packed[0, : len(REST)].tolist(), strict=True))
    guess = first_guess(packed, typical, typical)[0].mean(dim=0)
    gpp, npp, nep, rh = guess[:4].tolist()
    assert 20 < 365 * gpp < 60 and 3 < rest["tree_leaf_area"] < 9
    assert npp == pytest.approx(features["npp"].item(), rel=1e-3)  # the mean of the days is the solved mean
    assert gpp == pytest.approx(features["gpp"].item(), rel=1e-6)
    assert rh == pytest.approx(rest["respired"] + rest["humified"], rel=1e-3)
    assert nep == pytest.approx(npp - rh, abs=1e-9) and abs(nep) < 0.15 * npp  # litter returns what is produced


def test_first_guess_is_near_the_process_model():

    from calibration.visit.kernel import STATE
    from calibration.visit.simulator import simulate
    from calibration.weather.daily import generate_weather

    weather = generate_weather(load_site(), "2010-01-01", "2013-12-31", 1)
    unit = np.vstack([np.full((1, len(SPACE)), 0.5), 0.3 + 0.4 * np.random.default_rng(0).random((3, len(SPACE)))])
    physical = SPACE.unit_to_physical(unit)
    runs = {name: physical[:, i] for i, name in enumerate(SPACE.names)}
    truth = simulate(runs, weather, load_site(), keep_pools=True)
    values = {name: torch.full((len(physical), 1), p.baseline) for name, p in catalogue().items()}
    values |= {name: torch.as_tensor(physical[:, i : i + 1], dtype=torch.float32) for i, name in enumerate(SPACE.names)}
    days = torch.as_tensor(weather.values, dtype=torch.float32)[None]
    doy = (weather.dates - weather.dates.astype("datetime64[Y]")).astype(int)
    angle = torch.as_tensor(2 * np.pi * doy / 365, dtype=torch.float32)[None]
    when = torch.stack([angle.sin(), angle.cos()], dim=-1)
    length, _, above = sun(when, LATITUDE)
    extra = torch.cat([when, *(soil_water(days, length, above, canopy) for canopy in (OPEN, DENSE))], dim=-1)
    read, typical = read_days(days, extra, LATITUDE), read_days(days[:, ::10], extra[:, ::10], LATITUDE)
    packed, _ = at_rest(values, typical)
    guess = first_guess(packed, read, typical).numpy()
    for i, flux in ((0, truth.gpp), (1, truth.npp), (2, truth.nep)):
        for run in range(len(physical)):
            assert np.corrcoef(guess[run, :, i], flux[run])[0, 1] > 0.98
    lower = truth.pools[:, 200:, STATE.index("water_lower")] / 477.0
    for run, area in enumerate(truth.annual_lai[:, :, 0].mean(axis=1)):  # interpolated between the reference forests
        share = min(max((area - OPEN.leaf_area[0]) / (DENSE.leaf_area[0] - OPEN.leaf_area[0]), 0.0), 1.0)
        water = (extra[0, 200:, 3] * (1 - share) + extra[0, 200:, 5] * share).numpy()
        assert np.corrcoef(water, lower[run])[0, 1] > 0.95 and abs(water.mean() - lower[run].mean()) < 0.02
    assert np.abs(guess[..., 0].mean(axis=1) / truth.gpp.mean(axis=1) - 1).max() < 0.2


def test_script_describes_the_presets_without_a_warning():
    done = script("model.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert "preset specification: LSTM 2 x 256, flux feedback on" in done.stdout and done.stdout.count("preset ") == 4
