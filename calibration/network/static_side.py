"""The static side of the emulator's network: from VISIT's parameters to what the recurrent side starts from.

parameters -> features (static_features.py) -> trunk -> the LSTM's first state (init_state), an embedding that joins
every day's input (concat_input) and, by choice, a gain and offset on the outputs (output_affine) and the trust in
the first guess (first_guess)
"""

from dataclasses import dataclass

import torch
from torch import nn

from calibration.common.units import TARGETS
from calibration.network.options import NetworkOptions
from calibration.network.shared_dropout import SharedDropout
from calibration.network.static_features import StaticFeatures

LEARNED_GAIN = 0.5  # most of the logarithm of the gain on outputs where no first guess carries the size of a forest
PREDICTED = 3  # fluxes that the network predicts; the fourth follows


@dataclass
class StaticState:
    """What the static side hands to the recurrent one, for B parameter vectors."""

    hidden: torch.Tensor  # (layer, B, hidden)
    cell: torch.Tensor  # (layer, B, hidden)
    embedding: torch.Tensor | None  # (B, embedding)
    gain: torch.Tensor | None  # (B, 3)
    offset: torch.Tensor | None  # (B, 3), scaled fluxes
    trust: torch.Tensor | None  # (B, 3) weight of the first guess, about 1
    rest: torch.Tensor  # (B, n) pools and parameters behind the first guess

    def repeat(self, times: int) -> "StaticState":
        """The same vectors `times` times along the batch: order (time, B)."""

        def tile(x, dim):
            """x, `times` times along `dim`; None stays None."""
            return None if x is None else torch.cat([x] * times, dim=dim)

        return StaticState(tile(self.hidden, 1), tile(self.cell, 1), tile(self.embedding, 0), tile(self.gain, 0),
                           tile(self.offset, 0), tile(self.trust, 0), tile(self.rest, 0))  # fmt: skip


class StaticSide(nn.Module):
    """Scaled parameters (B, P) -> StaticState; options as in LHP_architecture.yaml."""

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        self.hidden_size, self.num_layers = options.hidden_size, options.num_layers
        self.features = StaticFeatures(options)
        width = len(self.features)
        layers: list[nn.Module] = []
        for size in options.static_trunk:
            layers += [nn.Linear(width, size), nn.SiLU(), SharedDropout(options.static_dropout)]
            width = size
        self.trunk = nn.Sequential(*layers)
        state_size = 2 * options.num_layers * options.hidden_size
        if not options.init_state:
            self.init_state = None
        elif options.static_trunk:
            self.init_state = nn.Linear(width, state_size)
        else:
            hidden = options.init_width
            self.init_state = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, state_size))
        self.embed = nn.Linear(width, options.embedding_size) if options.concat_input else None
        self.affine = nn.Linear(width, 2 * PREDICTED) if options.output_affine else None
        self.affine_features = nn.Linear(len(self.features), PREDICTED) if options.output_affine else None
        self.trust = nn.Linear(width, PREDICTED) if options.first_guess else None
        self.predicted = [TARGETS.index(name) for name in options.predicted]
        for layer in (self.affine, self.affine_features, self.trust):  # training starts from the first guess itself
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, static_x: torch.Tensor, prepared: tuple | None = None) -> StaticState:
        """static_x (B, P) scaled -> StaticState. `prepared`: rows of features(static_x), where known already."""
        features, rest = self.features(static_x) if prepared is None else prepared
        trunk = self.trunk(features)
        shape = (self.num_layers, len(static_x), self.hidden_size)
        if self.init_state is not None:
            hidden, cell = self.init_state(trunk).view(len(static_x), 2, *shape[::2]).permute(1, 2, 0, 3).unbind(0)
        else:
            hidden = cell = static_x.new_zeros(shape)
        gain = offset = None
        if self.affine is not None:
            log_gain, offset = self.affine(trunk).chunk(2, dim=-1)
            if self.features.means is None:
                gain = torch.exp(log_gain.clamp(-3.0, 3.0))
            else:  # far from the runs that taught it a free gain makes a forest of another size
                gain = torch.exp(LEARNED_GAIN * torch.tanh(log_gain / LEARNED_GAIN))
            offset = offset + self.affine_features(features)
        embedding = self.embed(trunk) if self.embed is not None else None
        trust = 1.0 + self.trust(trunk) if self.trust is not None else None
        if self.features.means is not None:  # what the run means leave is all that is left to learn
            level = rest[:, self.predicted]
            gain, offset = (torch.ones_like(level), level) if offset is None else (gain, offset + level)
        return StaticState(hidden.contiguous(), cell.contiguous(), embedding, gain, offset, trust, rest)

    def group_lasso(self) -> torch.Tensor:
        """Sum of the column norms of the trunk's first layer (Yuan & Lin 2006): whole features are dropped."""
        return self.trunk[0].weight.norm(dim=0).sum() if len(self.trunk) else torch.zeros(())
