"""A tiny model that knows the people of the small split."""

import pytest
import torch

from unsee.data.collate import encode
from unsee.losses import cross_entropy
from unsee.models.load import load


@pytest.fixture(scope="session")
def known_weights(tiny_folder, small_split):
    """Weights of the tiny model after it learned every answer of the split by heart."""
    vlm = load(tiny_folder, dtype="float32", device="cpu")
    sides = (small_split.forget, small_split.visible, small_split.retain, small_split.general)
    batch = encode(vlm, [r for side in sides for r in side], answers=True, side="right")
    optimizer = torch.optim.AdamW(vlm.model.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(60):
        logits = vlm.model(**batch.inputs(), use_cache=False).logits
        cross_entropy(logits, batch.labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {name: tensor.clone() for name, tensor in vlm.model.state_dict().items()}


@pytest.fixture
def knowing_vlm(tiny_vlm, known_weights):
    """The tiny model with what it learned, opened anew for each test."""
    tiny_vlm.model.load_state_dict(known_weights)
    return tiny_vlm
