"""An emulator with a known answer: fluxes are linear in the scaled parameters, so posteriors are Gaussian."""

import numpy as np
import torch

from calibration.common.parameters import make_space
from calibration.common.scalers import Scaler
from inverse_estimator import StaticParameterInverter

PARAMETERS = ("a", "b", "c")
FEATURES = 4
CONTEXT = 5
NOISE = 0.004
QUIET = {"error_model": {"observation_sd": NOISE, "emulator": False, "discrepancy": False}}
UNBOUNDED = {**QUIET, "clip_raw_params": {"enabled": False}}
TRUTH = np.array([0.5, -1.0, 0.3])  # scaled


class LinearEmulator(torch.nn.Module):
    """NEP of a day = sum_p (weather . mixing)_p x scaled parameter_p x 0.01; GPP = 2 NEP, NPP = 3 NEP, Rh = NPP - NEP.

    `unit` scales all fluxes (1 = Mg C ha-1 day-1, 100 = g C m-2 day-1); `curvature` makes it non-linear.
    """

    def __init__(self, unit: float = 1.0, curvature: float = 0.0, parameters: int = len(PARAMETERS)) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.mixing = torch.nn.Parameter(torch.randn(FEATURES, parameters, generator=generator))
        self.dropout = torch.nn.Dropout(0.5)
        self.unit, self.curvature = unit, curvature
        self.calls = 0

    def simulate(self, static_x: torch.Tensor, dynamic_x: torch.Tensor, warmup: int) -> torch.Tensor:
        """As model.simulate: (B, P), (D, F) or (B, D, F) -> (B, D - warmup, 4)."""
        self.calls += 1
        weather = dynamic_x if dynamic_x.dim() == 3 else dynamic_x[None]
        bent = static_x + self.curvature * static_x**3
        nep = 0.01 * self.unit * self.dropout(weather @ self.mixing @ bent[:, :, None])[:, warmup:, 0]
        return torch.stack([2 * nep, 3 * nep, nep, 2 * nep], dim=-1)


def scalers(parameters: int = len(PARAMETERS)) -> tuple[Scaler, Scaler]:
    """Static and dynamic scaler."""
    names = tuple(f"p{i}" for i in range(parameters)) if parameters != len(PARAMETERS) else PARAMETERS
    static = Scaler(names, np.arange(1.0, parameters + 1), np.linspace(0.1, 0.3, parameters))
    return static, Scaler(tuple(f"x{i}" for i in range(FEATURES)), np.zeros(FEATURES), np.ones(FEATURES))


_static = scalers()[0]
SPACE = make_space(
    [(n, m - 2 * s, m + 2 * s) for n, m, s in zip(PARAMETERS, _static.mean, _static.scale, strict=True)], "test"
)


def emulate(model, parameters, weather):
    """Physical parameters (run, parameter), weather (day, F) -> fluxes (run, day, 4) of all days but the context."""
    scaled = torch.as_tensor((parameters - _static.mean) / _static.scale, dtype=torch.float32)
    with torch.no_grad():
        return model.eval().simulate(scaled, torch.as_tensor(weather, dtype=torch.float32), CONTEXT).numpy()


def window_data(days: int = 60, seed: int = 0, windows: int = 1, context: int = CONTEXT):
    """context (n, context, F) and future (n, day, F) weather of consecutive, non-overlapping windows."""
    rng = np.random.default_rng(seed)
    weather = rng.standard_normal((context + days * windows, FEATURES)).astype(np.float32)
    context_x = np.stack([weather[k * days : k * days + context] for k in range(windows)])
    future = np.stack([weather[k * days + context : (k + 1) * days + context] for k in range(windows)])
    return context_x, future


def design_matrix(model: LinearEmulator, future: np.ndarray) -> np.ndarray:
    """d NEP / d scaled parameter (day, parameter)."""
    return 0.01 * model.unit * future @ model.mixing.detach().numpy()


def problem(model, days=60, seed=1, noise=NOISE):
    """Window arrays of one linear problem: context, future, y_obs, mask."""
    context, future = window_data(days)
    nep = design_matrix(model, future[0]) @ TRUTH
    nep = nep + noise * np.random.default_rng(seed).standard_normal(days)
    y = np.zeros((1, days, 4))
    y[0, :, 2] = nep
    return context, future, y, np.ones((1, days))


def inverter(model, config, **options):
    """The inverter of a linear emulator."""
    static, dynamic = scalers()
    return StaticParameterInverter(model, static, dynamic, config, "cpu", PARAMETERS, **options)
