"""Mean fluxes of a run from its parameters by Gaussian processes."""

import numpy as np
import torch

from calibration.network.run_means import RunMeans


def test_run_means_are_those_of_the_runs_and_travel_with_the_weights():
    rng = np.random.default_rng(0)
    static = rng.standard_normal((120, 6))
    truth = np.stack([static[:, 0] + 0.5 * static[:, 1] ** 2, static[:, 0], 0 * static[:, 0], static[:, 2]], axis=1)
    means = RunMeans(6, 100)
    means.fit(static[:100], truth[:100])
    found = means(torch.as_tensor(static[100:], dtype=torch.float32)).numpy()
    left = ((found - truth[100:]) ** 2).mean(axis=0) / truth[100:].var(axis=0).clip(1e-6)
    assert (left[[0, 1, 3]] < 0.1).all() and np.abs(found[:, 2]).max() < 1e-6
    other = RunMeans(6, 100)
    other.load_state_dict(means.state_dict())
    assert np.array_equal(other(torch.as_tensor(static[100:], dtype=torch.float32)).numpy(), found)


def test_run_means_survive_a_constant_column_and_values_beyond_the_trained_range():
    rng = np.random.default_rng(1)
    static = np.column_stack([rng.uniform(-1.7, 1.7, 60), np.zeros(60)])
    truth = np.repeat(np.log(static[:, :1] + 1.8), 4, axis=1)
    means = RunMeans(2, 60)
    means.fit(static, truth)
    asked = torch.tensor([[-1.0, 1e-7], [-3.0, 0.0], [3.0, 0.0]])  # a float's last digit; far outside
    found = means(asked).numpy()
    assert abs(found[0, 0] - np.log(0.8)) < 0.05 and np.isfinite(found).all()  # a logarithm of a negative share
