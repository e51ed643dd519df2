"""The mean fluxes of a run from its parameters alone, by Gaussian processes: what is known where no closed form is.

Two of them, averaged: of the parameters and of their logarithms inside the trained ranges, as a rate may act either
way. Left out one by one, runs of the two wide ensembles are predicted better by the average than by either (mean
squared error of GPP by 2 to 15 percent in five splits of six, 5 percent worse in one).

One Matern 5/2 kernel with a length scale for each parameter serves all fluxes (Rasmussen & Williams 2006, ch. 2 and 4);
scikit-learn finds it, and the prediction is a differentiable product that travels with the weights.
"""

import warnings

import numpy as np
import torch
from torch import nn

RUN_MEANS = ("gpp", "npp", "nep", "rh")  # as units.TARGETS, scaled
MOST_RUNS = 400  # behind the kernel's search: its cost grows with their cube
VIEWS = 2  # the parameters, and their logarithms
LOG_OFFSET = 0.05  # of a range: the logarithm is taken of the position in it plus this
LOG_SPREAD = 0.72  # sd of that logarithm for values that fill the range evenly


class RunMeans(nn.Module):
    """Scaled parameters (B, P) -> scaled mean fluxes of a run (B, 4), in the order of units.TARGETS."""

    def __init__(self, width: int, runs: int = 0) -> None:
        super().__init__()
        self.register_buffer("lowest", torch.zeros(width))  # of the runs, scaled
        self.register_buffer("span", torch.ones(width))
        self.register_buffer("inputs", torch.zeros(VIEWS, runs, width))  # divided by the length scales
        self.register_buffer("lengths", torch.ones(VIEWS, width))
        self.register_buffer("weights", torch.zeros(VIEWS, runs, len(RUN_MEANS)))
        self.register_buffer("offset", torch.zeros(len(RUN_MEANS)))

    def fit(self, static: np.ndarray, means: np.ndarray, seed: int = 0) -> None:
        """Learn from runs: static (run, P) scaled parameters, means (run, 4) scaled fluxes over the training period."""
        static, means = torch.as_tensor(np.asarray(static, np.float64)), np.asarray(means, dtype=np.float64)
        self.lowest = static.amin(dim=0).float()
        self.span = (static.amax(dim=0) - static.amin(dim=0)).clamp(min=1e-3).float()
        offset = means.mean(axis=0)
        scale = np.maximum(means.std(axis=0), 1e-9)
        few = np.random.default_rng(seed).permutation(len(static))[:MOST_RUNS]
        y = (means - offset) / scale
        found = [_gaussian_process(view.double().numpy(), y, few) for view in self._views(static)]
        inputs, lengths, weights = (np.stack(parts) for parts in zip(*found, strict=True))
        self.inputs, self.lengths = torch.as_tensor(inputs).float(), torch.as_tensor(lengths).float()
        self.weights = torch.as_tensor(weights * scale / VIEWS).float()
        self.offset = torch.as_tensor(offset).float()

    def _views(self, static_x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """static_x (B, P) scaled: as it is, and the logarithm of the position in the range, of unit spread."""
        position = ((static_x - self.lowest) / self.span).clamp(min=0.0)
        return static_x, torch.log(position + LOG_OFFSET) / LOG_SPREAD

    def forward(self, static_x: torch.Tensor) -> torch.Tensor:
        """static_x (B, P) scaled -> (B, 4) scaled mean fluxes."""
        mean = self.offset
        for view, lengths, inputs, weights in zip(
            self._views(static_x), self.lengths, self.inputs, self.weights, strict=True
        ):
            squared = (view / lengths)[:, None, :] - inputs
            distance = (5 * squared.square().sum(-1)).clamp(min=1e-12).sqrt()
            kernel = (1 + distance + distance.square() / 3) * torch.exp(-distance)
            mean = mean + kernel @ weights
        return mean


def _gaussian_process(static: np.ndarray, y: np.ndarray, few: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs (run, P) divided by length scales, length scales (P,), weights (run, 4); y (run, 4) standardised fluxes.

    few: the runs that the kernel is found on.
    """
    from sklearn.exceptions import ConvergenceWarning  # a second's import that only training needs
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    kernel = ConstantKernel(1.0) * Matern(np.full(static.shape[1], 5.0), (0.3, 1e3), nu=2.5) + WhiteKernel(0.1)
    columns = [RUN_MEANS.index(name) for name in ("gpp", "npp", "rh")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = GaussianProcessRegressor(kernel).fit(static[few], y[few][:, columns]).kernel_
    weights = np.linalg.solve(found(static), y) * found.k1.k1.constant_value
    return static / found.k1.k2.length_scale, found.k1.k2.length_scale, weights
