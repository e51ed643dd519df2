"""The mean fluxes of a run from its parameters alone, by a Gaussian process: what is known where no closed form is.

One Matern 5/2 kernel with a length scale for each parameter serves all fluxes (Rasmussen & Williams 2006, ch. 2 and 4);
scikit-learn finds it, and the prediction is a differentiable product that travels with the weights.
"""

import warnings

import numpy as np
import torch
from torch import nn

RUN_MEANS = ("gpp", "npp", "nep", "rh")  # as units.TARGETS, scaled
MOST_RUNS = 400  # behind the kernel's search: its cost grows with their cube


class RunMeans(nn.Module):
    """Scaled parameters (B, P) -> scaled mean fluxes of a run (B, 4), in the order of units.TARGETS."""

    def __init__(self, width: int, runs: int = 0) -> None:
        super().__init__()
        self.register_buffer("inputs", torch.zeros(runs, width))  # (run, P), divided by the length scales
        self.register_buffer("lengths", torch.ones(width))
        self.register_buffer("weights", torch.zeros(runs, len(RUN_MEANS)))
        self.register_buffer("offset", torch.zeros(len(RUN_MEANS)))

    def fit(self, static: np.ndarray, means: np.ndarray, seed: int = 0) -> None:
        """Learn from runs: static (run, P) scaled parameters, means (run, 4) scaled fluxes over the training period."""
        from sklearn.exceptions import ConvergenceWarning  # a second's import that only training needs
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        static, means = np.asarray(static, dtype=np.float64), np.asarray(means, dtype=np.float64)
        offset = means.mean(axis=0)
        scale = np.maximum(means.std(axis=0), 1e-9)
        y = (means - offset) / scale
        few = np.random.default_rng(seed).permutation(len(static))[:MOST_RUNS]
        kernel = ConstantKernel(1.0) * Matern(np.full(static.shape[1], 5.0), (0.3, 1e3), nu=2.5) + WhiteKernel(0.1)
        columns = [RUN_MEANS.index(name) for name in ("gpp", "npp", "rh")]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = GaussianProcessRegressor(kernel).fit(static[few], y[few][:, columns]).kernel_
        covariance = found(static)
        weights = np.linalg.solve(covariance, y) * scale
        lengths = found.k1.k2.length_scale
        self.lengths = torch.as_tensor(lengths, dtype=torch.float32)
        self.inputs = torch.as_tensor(static / lengths, dtype=torch.float32)
        self.weights = torch.as_tensor(weights * found.k1.k1.constant_value, dtype=torch.float32)
        self.offset = torch.as_tensor(offset, dtype=torch.float32)

    def forward(self, static_x: torch.Tensor) -> torch.Tensor:
        """static_x (B, P) scaled -> (B, 4) scaled mean fluxes."""
        squared = (static_x / self.lengths)[:, None, :] - self.inputs
        distance = (5 * squared.square().sum(-1)).clamp(min=1e-12).sqrt()
        kernel = (1 + distance + distance.square() / 3) * torch.exp(-distance)
        return kernel @ self.weights + self.offset
