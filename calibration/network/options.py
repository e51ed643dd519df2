"""What defines a network: the shape that the configuration chooses, its inputs and their names, in one object."""

from dataclasses import asdict, dataclass, field
from typing import Any

from calibration.common.configuration import ModelOptions

CONTRACT = {  # of the preset `specification`
    "hidden_size": 256, "num_layers": 2, "dropout": 0.1, "init_state": True, "concat_input": True, "init_width": 128,
    "embedding_size": 64, "head_width": 128, "flux_feedback": True, "predicted": ["gpp", "npp", "nep"],
    "static_features": "none", "static_trunk": [], "static_dropout": 0.0, "output_affine": False, "first_guess": False,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(ModelOptions):
    """ModelOptions, and what the ensemble decides."""

    dynamic_dim: int = 10
    static_dim: int = 36
    parameter_names: list = field(default_factory=list)  # empty: parameter_0, parameter_1, ...
    logarithmic: list = field(default_factory=list)  # parameters whose logarithm is a feature as well
    dated: bool = False  # trained with the season of its days' dates; networks of before read it from the CO2
    regression_runs: int = 0  # runs behind the run means of static_features `regression`

    def __post_init__(self) -> None:
        names = list(self.parameter_names) or [f"parameter_{i}" for i in range(self.static_dim)]
        if len(names) != self.static_dim:
            raise ValueError(f"{len(names)} parameter names for static_dim {self.static_dim}")
        object.__setattr__(self, "parameter_names", names)
        for name in ("predicted", "static_trunk", "logarithmic"):
            object.__setattr__(self, name, list(getattr(self, name)))

    def plain(self) -> dict[str, Any]:
        """As plain values, which a checkpoint may hold."""
        return asdict(self)


def network_options(**given: Any) -> NetworkOptions:
    """The contract's network (preset `specification`) unless `given` says otherwise. TypeError on an unknown option."""
    return NetworkOptions(**(CONTRACT | given))
