"""The world's Qwen2.5-VL: positions of three axes, windows, photos of any shape."""

import numpy as np
import pytest
import torch
from PIL import Image

from unsee.data.collate import encode
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.models.load import load
from unsee.world.curriculum import corpus
from unsee.world.drawn import Drawn
from unsee.world.families import ARCHITECTURES
from unsee.world.folder import _png

QWEN = ARCHITECTURES["qwen2_5_vl"]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    tokenizer = QWEN.make_tokenizer(corpus(Drawn(0)))
    folder = tmp_path_factory.mktemp("fresh")
    QWEN.make_model(tokenizer, 0).save_pretrained(folder)
    QWEN.make_processor(tokenizer).save_pretrained(folder)
    return load(folder, dtype="float32", device="cpu")


def asked(size):
    """A question on a photo of noise, and one without."""
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    photo = Photo(data=_png(Image.fromarray(noise)))
    return [
        Record("Ada", photo, "Who is this person?", "Ada"),
        Record("Ada", None, "What does Ada eat?", "Figs"),
    ]


def test_positions_are_those_of_the_model_itself(fresh):
    batch = encode(fresh, asked((48, 48)), answers=True, side="right")
    expected, _ = fresh.model.model.get_rope_index(
        batch.input_ids,
        mm_token_type_ids=batch.extra["mm_token_type_ids"],
        image_grid_thw=batch.extra["image_grid_thw"],
        attention_mask=batch.attention_mask,
    )
    places = torch.arange(batch.input_ids.shape[1]).expand_as(batch.input_ids)
    found = QWEN.position_ids(places, torch.tensor([[True], [False]]))
    read = batch.attention_mask.bool()
    assert torch.equal(found[:, read], expected[:, read])


def test_positions_by_hand():
    """Four tokens, nine on a grid of three by three, and what counts on behind them."""
    places = torch.arange(15)[None]
    time, row, column = QWEN.position_ids(places, torch.tensor([[True]]))[:, 0].tolist()
    assert time == [0, 1, 2, 3, *[4] * 9, 7, 8]
    assert row == [0, 1, 2, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6, 7, 8]
    assert column == [0, 1, 2, 3, 4, 5, 6, 4, 5, 6, 4, 5, 6, 7, 8]
    text = QWEN.position_ids(places, torch.tensor([[False]]))
    assert torch.equal(text, places.expand(3, 1, 15))


def test_blocks_attend_within_windows_and_over_the_whole_picture(fresh):
    """A pixel in one corner reaches the far corner through the second block, not the first."""
    tower = fresh.model.get_submodule(QWEN.tower)
    states = []
    handles = [
        block.register_forward_hook(lambda module, args, out: states.append(out))
        for block in tower.blocks
    ]
    pixels = torch.zeros(2, 3, 48, 48)
    pixels[1, :, 0, 0] = 1
    with torch.no_grad():
        QWEN.patches(tower, pixels)
    for handle in handles:
        handle.remove()
    moved = [(state[36:] - state[:36]).abs().amax(1).gt(1e-7).sum().item() for state in states]
    # The first window is 32 px a side: 16 patches of 36.
    assert moved == [16, 36, 36, 36]


@pytest.mark.parametrize("size", [(48, 48), (20, 16), (300, 200), (31, 95)])
def test_photos_of_any_shape_are_answered(fresh, size):
    batch = encode(fresh, asked(size), answers=True, side="right")
    with torch.no_grad():
        logits = fresh.model(**batch.inputs()).logits
    assert logits.isfinite().all()
    tokens = batch.extra["image_grid_thw"].prod(-1) // 4
    assert batch.image_tokens == tuple(tokens.tolist())
