"""Dropout and random draws that do not depend on how a batch is split over processes (torchrun).

Process `rank` of `world` holds every world-th sample of a batch. All draw the whole batch's numbers from equally seeded
generators and take their own rows, so that several processes train exactly what one would.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Processes:
    """This process' number among those that train one network, and how many they are."""

    rank: int = 0
    world: int = 1


PROCESSES = Processes()  # of this program: train.py sets it when torchrun has started several


@contextmanager
def one_process() -> Iterator[None]:
    """Inside, this process works for itself: networks that the others do not train."""
    before = (PROCESSES.rank, PROCESSES.world)
    PROCESSES.rank, PROCESSES.world = 0, 1
    try:
        yield
    finally:
        PROCESSES.rank, PROCESSES.world = before


class SharedDropout(nn.Module):
    """nn.Dropout with a mask that several processes agree on; the first dimension is the batch."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x with some entries 0 while training, of the same shape."""
        if not self.training or self.probability == 0.0:
            return x
        return x * (shared_random(x.shape, x.device) >= self.probability) / (1.0 - self.probability)


def shared_random(shape: Sequence[int], device: torch.device) -> torch.Tensor:
    """Uniform random numbers 0-1 of `shape`: this process' rows of the whole batch's."""
    rank, world = PROCESSES.rank, PROCESSES.world
    return torch.rand(shape[0] * world, *shape[1:], device=device)[rank::world]
