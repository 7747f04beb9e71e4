"""A method in the middle of training, with the model it started from beside it."""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from unsee.models.load import VLM, load
from unsee.sampling import PairBatch, Sampler
from unsee.train import _trainable

FEW = {
    "steps": 3,
    "lr": 1e-2,
    "forget_batch": 3,
    "visible_batch": 1,
    "retain_batch": 2,
    "general_batch": 2,
    "variants": 2,
    "checkpoint_every": 0,
}


@dataclass
class Midway:
    """What a method has in the middle of training.

    Attributes:
        method: Its settings.
        vlm: The model, some way from the start.
        start: Another copy of the model, at the start.
        batch: What a step sees.
        state: What was prepared at the start.
    """

    method: Any
    vlm: VLM
    start: VLM
    batch: PairBatch
    state: Any

    def terms(self):
        """Values of the step's terms, by name."""
        terms = self.method.loss(self.vlm, self.batch, self.state)
        return {name: value.item() for name, value in (terms.forget | terms.retain).items()}


@pytest.fixture
def fresh(tiny_folder):
    """Opens the same tiny model anew."""
    return lambda: load(tiny_folder, dtype="float32", device="cpu")


@pytest.fixture(params=[{}, {"lora_rank": 2}], ids=["full", "adapters"])
def midway(request, tiny_folder, small_split):
    """Opens a `Midway` of a method, its weights or adapters moved at random."""

    @contextmanager
    def opened(cls, **settings):
        method = cls.model_validate(FEW | settings | request.param)
        vlm, start = (load(tiny_folder, dtype="float32", device="cpu") for _ in range(2))
        with _trainable(vlm, method) as moving:
            state = method.prepare(vlm, small_split, seed=0)
            generator = torch.Generator().manual_seed(1)
            with torch.no_grad():
                for p in moving.values():
                    p.add_(0.05 * torch.randn(p.shape, generator=generator))
            batch = Sampler(vlm, small_split, method, 0).draw(4)
            yield Midway(method, vlm, start, batch, state)

    return opened
