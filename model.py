"""The emulator's network: an LSTM over daily weather, conditioned on VISIT's static parameters.

  parameters -> static side (network/static_side.py) -> the LSTM's first state, an embedding, a gain and offset
  weather    -> LSTM -> read-out -> three fluxes; the fourth follows from NEP = NPP - Rh

`python model.py` prints a short description of every preset.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from calibration.common.command_line import make_parser, run, warn
from calibration.common.scalers import Scaler
from calibration.common.sites import Site
from calibration.common.units import CONTEXT_DAYS, DYNAMIC_FEATURES, FLUX_UNIT, TARGETS
from calibration.network.canopy_equilibrium import GUESSES
from calibration.network.options import NetworkOptions, network_options
from calibration.network.season import rate_amplitude, season, season_of, sun
from calibration.network.shared_dropout import SharedDropout, shared_random
from calibration.network.soil_water import DENSE, LHP_ALTITUDE, LHP_CAPACITY, OPEN, soil_water
from calibration.network.static_features import LHP_DAY, logarithmic_parameters
from calibration.network.static_side import StaticSide, StaticState
from calibration.visit.forcing import upper_capacity

CO2_COLUMN = DYNAMIC_FEATURES.index("a_co2")
EXTRA = 6  # columns that prepare_days() adds: season (2), soil water under two reference forests (4)
DERIVED = {
    "rh": ("npp", "nep", -1.0),
    "nep": ("npp", "rh", -1.0),
    "npp": ("nep", "rh", 1.0),
}  # name: (a, b, sign): a + sign b


class StaticConditionedLSTM(nn.Module):
    """Daily GPP, NPP, NEP and Rh from weather and parameters. Build it with create_model().

    All inputs are scaled (data's scalers); outputs are physical, Mg C ha-1 day-1, in the order of units.TARGETS.
    Methods that end in `_scaled` return fluxes standardised by `target_mean` and `target_scale` (buffers), as the loss
    needs.
    """

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        self._build(options)

    def _build(self, options: NetworkOptions) -> None:
        """Make every part anew; the contract's load_state_dict needs it for checkpoints of another shape."""
        self._modules.clear()
        self._buffers.clear()
        self.options = options
        hidden_size, num_layers = options.hidden_size, options.num_layers
        self.flux_feedback, self.hidden_size, self.num_layers = options.flux_feedback, hidden_size, num_layers
        self.predicted = [TARGETS.index(name) for name in options.predicted]
        (self.derived,) = set(range(len(TARGETS))) - set(self.predicted)
        self.register_buffer("target_mean", torch.zeros(len(TARGETS)))
        self.register_buffer("target_scale", torch.ones(len(TARGETS)))
        self.register_buffer("dynamic_mean", torch.zeros(options.dynamic_dim))
        self.register_buffer("dynamic_scale", torch.ones(options.dynamic_dim))
        self.register_buffer("co2_amplitude", torch.tensor(torch.inf))  # scaled CO2 day-1, see network/season.py
        self.register_buffer("altitude", torch.tensor(LHP_ALTITUDE))  # m
        self.register_buffer("capacity", torch.tensor(LHP_CAPACITY))  # mm, upper and lower bucket of the soil

        self.static = StaticSide(options)
        inputs = options.dynamic_dim + options.embedding_size * options.concat_input
        inputs += len(TARGETS) * options.flux_feedback
        # With a first guess CO2 is an input of the LSTM by choice only: its effect is in the guess, and as a trend with
        # a yearly cycle it is a clock, by which the network would learn the training weather by heart. Forests that
        # were not at rest on the first day need the clock.
        inputs += (GUESSES + EXTRA - (not options.co2_input)) * options.first_guess
        # One nn.LSTM a layer, so that the dropout between layers is ours (same speed as one nn.LSTM of several layers).
        self.lstm = nn.ModuleList(
            nn.LSTM(inputs if layer == 0 else hidden_size, hidden_size, batch_first=True) for layer in range(num_layers)
        )
        self.dropout = SharedDropout(options.dropout)
        with torch.no_grad():  # remember by default: a forest's state changes over months (Gers et al. 2000)
            for layer in self.lstm:
                layer.bias_ih_l0[hidden_size : 2 * hidden_size] += 1.0
        if options.head_width:
            self.head = nn.Sequential(
                nn.Linear(hidden_size, options.head_width), nn.ReLU(), SharedDropout(options.dropout),
                nn.Linear(options.head_width, 3),
            )  # fmt: skip
        else:
            self.head = nn.Linear(hidden_size, 3)
        if options.first_guess:
            last = self.head[-1] if options.head_width else self.head
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    # ---- what travels with the weights -------------------------------------------------------------------------------

    def get_extra_state(self) -> dict[str, Any]:
        """The architecture travels inside the state dict, as plain values (loadable with weights_only=True)."""
        return {"options": self.options.plain()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Nothing to do: load_state_dict has built the architecture already."""

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """As in PyTorch, but a checkpoint of another preset rebuilds this model first.

        So create_model(dynamic_dim=..., static_dim=..., ...) and load_state_dict(checkpoint["model_state_dict"]) work
        for every trained emulator; a different number of inputs stays an error.
        """
        saved = state_dict.get("_extra_state", {}).get("options")
        if saved:
            options = network_options(**saved)
            for name in ("dynamic_dim", "static_dim"):
                if getattr(options, name) != getattr(self.options, name):
                    raise RuntimeError(
                        f"the checkpoint has {name} {getattr(options, name)}, this model {getattr(self.options, name)}"
                    )
            changed = [
                f"{name} {getattr(self.options, name)} -> {getattr(options, name)}"
                for name in ("hidden_size", "num_layers")
                if getattr(options, name) != getattr(self.options, name)
            ]
            if changed:
                warn(f"the model takes the checkpoint's shape: {', '.join(changed)}")
            if options != self.options:
                device, training = self.target_mean.device, self.training
                self._build(options)
                self.to(device).train(training)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    @torch.no_grad()
    def set_scaling(
        self, targets: Scaler, dynamic: Scaler, static: Scaler, parameters: np.ndarray,
        weather: np.ndarray, site: Site, dates: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Take over the data's scalers, training parameters (run, P) physical, training weather (consecutive day, 10)
        in units.UNITS with its dates (day,), and the site's latitude, altitude and soil."""
        self.target_mean.copy_(torch.as_tensor(targets.mean))
        self.target_scale.copy_(torch.as_tensor(targets.scale))
        self.dynamic_mean.copy_(torch.as_tensor(dynamic.mean))
        self.dynamic_scale.copy_(torch.as_tensor(dynamic.scale))
        self.static.features.set_place(site.latitude, site.altitude)
        self.altitude.fill_(site.altitude)
        self.capacity.copy_(torch.tensor([upper_capacity(site), site.lower_capacity]))
        scaled = torch.as_tensor(dynamic.transform(weather), dtype=torch.float32, device=self.target_mean.device)
        self.co2_amplitude.fill_(rate_amplitude(scaled[:, CO2_COLUMN]))
        extra = self.extra_columns(scaled[None], dates)[0].cpu().numpy()
        self.static.features.fit(static.mean, static.scale, parameters, weather, extra)

    # ---- pieces ------------------------------------------------------------------------------------------------------

    def encode_static(self, static_x: torch.Tensor, prepared: tuple | None = None) -> StaticState:
        """static_x (B, P) scaled -> StaticState. `prepared`: rows of static.features(static_x), where known already."""
        return self.static(static_x, prepared)

    @torch.no_grad()
    def extra_columns(self, dynamic: torch.Tensor, dates: np.ndarray | None = None) -> torch.Tensor:
        """Season and soil water (B, T, EXTRA) of scaled weather (B, T, 10), which depend on no parameter."""
        latitude, capacity = self.static.features.latitude, tuple(self.capacity.tolist())
        if dates is not None and self.options.dated:
            when = season_of(dates).to(dynamic).expand(*dynamic.shape[:-1], 2)
        else:
            when = season(dynamic[..., CO2_COLUMN], self.co2_amplitude, southern=bool(latitude < 0))
        weather = dynamic * self.dynamic_scale + self.dynamic_mean
        length, _, above = sun(when, latitude)
        water = [soil_water(weather, length, above, canopy, capacity, self.altitude.item()) for canopy in (OPEN, DENSE)]
        return torch.cat([when, *water], dim=-1)

    def prepare_days(self, dynamic: torch.Tensor, dates: np.ndarray | None = None) -> torch.Tensor:
        """Scaled weather (B, T, 10) of consecutive days -> what advance() takes: with EXTRA columns where they are
        used. Days that are prepared already stay as they are. dates (T,) or (B, T) datetime64[D]; None: unknown.

        The columns depend on a day and the days before it, so a stretch is prepared before it is cut into pieces; and
        the water balance goes day by day, so whoever asks for the same weather often prepares it once.
        """
        if not self.options.first_guess or dynamic.shape[-1] > self.options.dynamic_dim:
            return dynamic
        if len(dynamic) > 1 and dynamic.stride(0) == 0:  # one weather for all
            shared = None if dates is None else np.atleast_2d(dates)[:1]
            return self.prepare_days(dynamic[:1], shared).expand(len(dynamic), -1, -1)
        return torch.cat([dynamic, self.extra_columns(dynamic, dates)], dim=-1)

    def first_guess(self, days: torch.Tensor, static: StaticState) -> torch.Tensor:
        """Scaled first guess of the fluxes (B, T, GUESSES) from prepared days (B, T, 10 + EXTRA)."""
        if days.stride(0) == 0:
            days = days[:1]
        weather = days[..., :-EXTRA] * self.dynamic_scale + self.dynamic_mean
        guess = self.static.features.guess(static.rest, weather, days[..., -EXTRA:])
        extra = guess[..., len(TARGETS) :] / self.target_scale[0]
        return torch.cat([self.to_scaled(guess[..., : len(TARGETS)]), extra], dim=-1).clamp(-20.0, 20.0)

    def advance(
        self, dynamic: torch.Tensor, static: StaticState, state: tuple, flux: torch.Tensor | None = None, skip: int = 0
    ) -> tuple[torch.Tensor, tuple]:
        """Run over `dynamic` (B, T, 10 or more; of prepare_days) from state (h, c), each (layer, B, hidden).

        flux (B, T, 4): scaled fluxes of the day before each day; None = unknown (a tower knows none), then 0.
        Returns scaled fluxes (B, T - skip, 4) without the first `skip` days, and the new state.
        """
        guess = self.first_guess(dynamic, static) if self.options.first_guess else None
        parts = [dynamic]
        if guess is not None:
            columns = CO2_COLUMN + self.options.co2_input  # CO2 is the last of the features
            weather, extra = dynamic[..., :columns], dynamic[..., -EXTRA:]
            parts = [weather, extra[..., :2], (extra[..., 2:] - 0.95) / 0.06]
        if static.embedding is not None:
            # Joined by expansion: adding the embedding's contribution once per vector instead measured no faster, as
            # the input product is one large matrix product over all days.
            parts.append(static.embedding[:, None, :].expand(-1, dynamic.shape[1], -1))
        if self.flux_feedback:
            parts.append(flux if flux is not None else dynamic.new_zeros(*dynamic.shape[:2], len(TARGETS)))
        if guess is not None:
            parts.append(guess)
        hidden = torch.cat(parts, dim=-1)
        last_hidden, last_cell = [], []
        for i, layer in enumerate(self.lstm):
            hidden, (h, c) = layer(
                hidden if i == 0 else self.dropout(hidden), (state[0][i : i + 1], state[1][i : i + 1])
            )
            last_hidden.append(h)
            last_cell.append(c)
        three = self.head(hidden[:, skip:])
        if static.gain is not None:
            three = three * static.gain[:, None, :] + static.offset[:, None, :]
        if guess is not None:
            three = three + guess[:, skip:, self.predicted] * static.trust[:, None, :]
        return self._all_fluxes(three), (torch.cat(last_hidden), torch.cat(last_cell))

    def _all_fluxes(self, three: torch.Tensor) -> torch.Tensor:
        """Three predicted scaled fluxes (..., 3) -> four (..., 4), the derived one from the identity."""
        columns: list[torch.Tensor | None] = [None] * len(TARGETS)
        for i, target in enumerate(self.predicted):
            columns[target] = three[..., i]
        first, second, sign = DERIVED[TARGETS[self.derived]]
        a, b = TARGETS.index(first), TARGETS.index(second)
        mean, scale = self.target_mean, self.target_scale
        physical = columns[a] * scale[a] + mean[a] + sign * (columns[b] * scale[b] + mean[b])
        columns[self.derived] = (physical - mean[self.derived]) / scale[self.derived]
        return torch.stack(columns, dim=-1)

    def to_physical(self, scaled: torch.Tensor) -> torch.Tensor:
        """Scaled fluxes (..., 4) -> Mg C ha-1 day-1, with NEP = NPP - Rh to the last bit."""
        gpp, npp, nep, rh = (scaled * self.target_scale + self.target_mean).unbind(dim=-1)
        rh = npp - nep if self.derived != TARGETS.index("nep") else rh
        return torch.stack([gpp, npp, npp - rh, rh], dim=-1)

    def to_scaled(self, physical: torch.Tensor) -> torch.Tensor:
        """Mg C ha-1 day-1 (..., 4) -> scaled fluxes."""
        return (physical - self.target_mean) / self.target_scale

    # ---- whole passes ------------------------------------------------------------------------------------------------

    def roll(
        self, dynamic: torch.Tensor, static: StaticState, state: tuple, previous: torch.Tensor,
        truth: torch.Tensor | None = None, probability: float = 0.0,
    ) -> torch.Tensor:  # fmt: skip
        """Predict prepared days `dynamic` (B, T, n) one by one from state (h, c), feeding fluxes back. Returns (B, T,
        4) scaled.

        previous (B, 4): the scaled flux of the day before. truth (B, T, 4): true scaled fluxes of the day before each
        day; each day and sample takes the truth with `probability` (teacher forcing), else the model's own prediction.
        Without feedback this is one LSTM call over the stretch.
        """
        if not self.flux_feedback:
            return self.advance(dynamic, static, state)[0]
        if truth is not None and probability >= 1.0:
            return self.advance(dynamic, static, state, truth)[0]
        outputs = []
        for day in range(dynamic.shape[1]):
            if truth is not None and probability > 0.0:
                teach = shared_random((len(dynamic), 1), dynamic.device) < probability
                previous = torch.where(teach, truth[:, day], previous)
            output, state = self.advance(dynamic[:, day : day + 1], static, state, previous[:, None])
            outputs.append(output)
            previous = output[:, 0]
        return torch.cat(outputs, dim=1)

    def forward_scaled(self, context_x, static_x, future_known) -> torch.Tensor:
        """As forward(), scaled fluxes."""
        return self.simulate_scaled(static_x, torch.cat([context_x, future_known], dim=1), context_x.shape[1])

    def forward(self, context_x: torch.Tensor, static_x: torch.Tensor, future_known: torch.Tensor) -> torch.Tensor:
        """Free-running prediction of the horizon.

        context_x (B, 180, 10) scaled weather of the days before, static_x (B, P) scaled parameters, future_known
        (B, 30, 10) scaled weather of the horizon -> (B, 30, 4) GPP, NPP, NEP, Rh in Mg C ha-1 day-1.
        """
        return self.to_physical(self.forward_scaled(context_x, static_x, future_known))

    def simulate_scaled(self, static_x: torch.Tensor, dynamic_x: torch.Tensor, warmup: int) -> torch.Tensor:
        """As simulate(), scaled fluxes."""
        static = self.encode_static(static_x)
        if dynamic_x.dim() == 2:
            dynamic_x = dynamic_x.expand(len(static_x), -1, -1)
        dynamic_x = self.prepare_days(dynamic_x)
        state = (static.hidden, static.cell)
        if not self.flux_feedback:  # one pass over everything
            return self.advance(dynamic_x, static, state, skip=warmup)[0]
        previous = dynamic_x.new_zeros(len(static_x), len(TARGETS))
        if warmup:
            last, state = self.advance(dynamic_x[:, :warmup], static, state, skip=warmup - 1)
            previous = last[:, 0]
        return self.roll(dynamic_x[:, warmup:], static, state, previous)

    def simulate(self, static_x: torch.Tensor, dynamic_x: torch.Tensor, warmup: int = CONTEXT_DAYS) -> torch.Tensor:
        """Free-running prediction over one long stretch, differentiable.

        static_x (B, P) scaled; dynamic_x (D, 10), shared by all, or (B, D, 10), scaled, better with their dates by
        prepare_days(); the first `warmup` days only set the state -> (B, D - warmup, 4) in Mg C ha-1 day-1.
        """
        return self.to_physical(self.simulate_scaled(static_x, dynamic_x, warmup))


def create_model(
    dynamic_dim: int = 10, static_dim: int = 36, hidden_size: int = 256, num_layers: int = 2, dropout: float = 0.1,
    device: str | torch.device = "cpu", **options: Any,
) -> StaticConditionedLSTM:  # fmt: skip
    """The contract's network (preset `specification`) unless `options` (fields of NetworkOptions) say otherwise.

    >>> create_model(static_dim=3)(torch.zeros(2, 180, 10), torch.zeros(2, 3), torch.zeros(2, 30, 10)).shape
    torch.Size([2, 30, 4])
    """
    chosen = network_options(
        dynamic_dim=dynamic_dim, static_dim=static_dim, hidden_size=hidden_size, num_layers=num_layers, dropout=dropout,
        **options,
    )  # fmt: skip
    return StaticConditionedLSTM(chosen).to(device)


def count_parameters(model: nn.Module) -> int:
    """Number of trainable weights."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def network_facts(preset: str, config: Any, names: Sequence[str], values: np.ndarray) -> str:
    """Shapes, parts and weights of a preset's network; values (run, parameter) physical."""
    model = create_model(
        dynamic_dim=len(DYNAMIC_FEATURES), static_dim=len(names), **asdict(config.model), parameter_names=names,
        logarithmic=logarithmic_parameters(names, values),
    )  # fmt: skip
    model.dynamic_mean.copy_(LHP_DAY[0])  # a possible day: 0 K is none
    days, features, width = config.evaluation, len(DYNAMIC_FEATURES), len(names)
    context, future = (torch.zeros(2, length, features) for length in (days.context_days, days.horizon_days))
    output = model(context, torch.zeros(2, width), future)
    static_weights = count_parameters(model.static)
    return (
        f"preset {preset}: LSTM {model.num_layers} x {model.hidden_size}, flux feedback "
        f"{'on' if model.flux_feedback else 'off'}\n"
        f"  context_x (B, {days.context_days}, {features}), static_x (B, {width}), future_known "
        f"(B, {days.horizon_days}, {features}) -> (B, {', '.join(map(str, output.shape[1:]))}) "
        f"{' '.join(TARGETS)} in {FLUX_UNIT}\n"
        f"  {len(model.static.features)} static features ({config.model.static_features}); {count_parameters(model):,} "
        f"weights: static side {static_weights:,}, LSTM {count_parameters(model.lstm):,}, "
        f"read-out {count_parameters(model.head):,}"
    )


def main() -> int:
    from calibration.common.configuration import (  # only this self-description needs them
        ARCHITECTURE_FILE,
        load_configuration,
    )
    from calibration.common.parameters import read_ranges

    parser = make_parser("Describe the emulator's network: shapes, parts and number of weights of each preset.")
    parser.add_argument("--architecture", default=str(ARCHITECTURE_FILE), help="YAML with the presets")
    arguments = parser.parse_args()
    space = read_ranges()
    values = space.unit_to_physical(np.random.default_rng(0).random((64, len(space))))
    for preset in ("specification", "recommended", "with_year", "learned"):
        print(network_facts(preset, load_configuration(arguments.architecture, preset), space.names, values))
    return 0


if __name__ == "__main__":
    run(main)
