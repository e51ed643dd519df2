"""The inversion's YAML: what is shipped is valid, what is wrong is named."""


import pytest

from calibration.common.command_line import REPOSITORY, UserError
from calibration.inversion.config import load_inversion_config, make_inversion_config


def test_shipped_configurations_are_valid():
    for name in ("inversion_config.yaml", "inversion_config_bounds.yaml"):
        config = load_inversion_config(REPOSITORY / "configs" / name)
        assert config.method == "gauss_newton" and config.number_of_starts == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"methods": "adam"}, "unknown key 'methods'"),
        ({"gauss_newton": {"steps": 3}}, r"unknown key 'gauss_newton\.steps'"),
        ({"method": "newton"}, "method is 'newton', allowed is gauss_newton, adam, ensemble"),
        ({"lr": "fast"}, "lr is 'fast', expected float"),
        ({"max_iters": 2.5}, "max_iters is 2.5, expected int"),
        ({"lambda_prior": -1}, "lambda_prior is -1.0, allowed is null or >= 0"),
        ({"clip_raw_params": True}, "clip_raw_params must hold 'key: value' lines"),
        ({"nuisance": "slope"}, "nuisance is 'slope', allowed is none, offset"),
        ({"target_weights": {"gpp": 2}}, "target_weights is 'gpp', allowed is one of the targets"),
    ],
)
def test_bad_configurations(content, message):
    with pytest.raises(UserError, match=message):
        make_inversion_config(content, "here.yaml")


def test_numbers_written_as_text_are_numbers():
    assert make_inversion_config({"lr": "1e-3", "max_iters": "50"}).lr == 1e-3
