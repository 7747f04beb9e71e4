"""PGD by hand, at its limit, against a slow loop, and at the edges of what a picture can be."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from unsee.data.collate import encode
from unsee.errors import ConfigError
from unsee.losses import cross_entropy
from unsee.perturb import PixelSpace, pgd, pictures, pixel_space

UNIT = PixelSpace(black=torch.zeros(()), white=torch.ones(()))
CLIP = SimpleNamespace(image_mean=[0.5, 0.4, 0.3], image_std=[0.25, 0.2, 0.1])
FEW = {"budget": 0.1, "step": 0.04, "iterations": 5, "random_start": False}


def photos(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_two_steps_by_hand():
    """d/dx (x - 0.5)^2 is positive above 0.5 and negative below: both pixels go towards it."""
    moved = pgd(
        torch.tensor([0.2, 0.9]),
        lambda x: (x - 0.5).square().sum(),
        UNIT,
        budget=0.1,
        step=0.07,
        iterations=2,
        random_start=False,
    )
    torch.testing.assert_close(moved, torch.tensor([0.3, 0.8]))  # 0.34 and 0.76 before the ball


def test_a_linear_loss_ends_in_the_corner_of_the_ball_wherever_it_starts():
    weights = torch.tensor([1.0, -2.0, 3.0, 0.5])
    start = torch.tensor([0.5, 0.5, 0.05, 0.98])
    for seed in range(3):
        moved = pgd(
            start,
            lambda x: (weights * x).sum(),
            UNIT,
            budget=0.1,
            step=0.02,
            iterations=11,
            seed=seed,
        )
        torch.testing.assert_close(moved, torch.tensor([0.4, 0.6, 0.0, 0.88]))


def test_no_iterations_or_no_budget_leave_the_photo():
    pixels = photos(1, 3, 4, 4)
    for numbers in ({"budget": 0.1, "iterations": 0}, {"budget": 0.0, "iterations": 3}):
        moved = pgd(pixels, torch.sum, UNIT, step=0.1, random_start=False, **numbers)
        assert torch.equal(moved, pixels)


def test_it_agrees_with_a_slow_loop_in_plain_python():
    space = pixel_space(CLIP, torch.zeros(1, 3, 2, 2))
    pixels = space.black + photos(2, 3, 2, 2) * space.scale
    target = space.black + photos(2, 3, 2, 2, seed=1) * space.scale
    moved = pgd(pixels, lambda x: (x - target).pow(4).sum(), space, **FEW)
    for at in range(pixels.numel()):
        n, c, h, w = (int(i) for i in torch.unravel_index(torch.tensor(at), pixels.shape))
        black = (0 - CLIP.image_mean[c]) / CLIP.image_std[c]
        scale = 1 / CLIP.image_std[c]
        first = x = pixels[n, c, h, w].item()
        goal = target[n, c, h, w].item()
        for _ in range(FEW["iterations"]):
            slope = 4 * (x - goal) ** 3
            x -= FEW["step"] * scale * (slope > 0) - FEW["step"] * scale * (slope < 0)
            x = min(max(x, first - FEW["budget"] * scale), first + FEW["budget"] * scale)
            x = min(max(x, black), black + scale)
        assert moved[n, c, h, w].item() == pytest.approx(x, abs=1e-5)


def test_the_photo_stays_in_its_budget_and_between_black_and_white():
    space = pixel_space(CLIP, torch.zeros(1, 3, 8, 8))
    pixels = space.black + photos(4, 3, 8, 8).round() * space.scale  # all black or white
    weights = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    moved = pgd(pixels, lambda x: (weights * x).sum(), space, **{**FEW, "random_start": True})
    light = (moved - space.black) / space.scale
    assert light.min() >= -1e-6
    assert light.max() <= 1 + 1e-6
    assert ((moved - pixels).abs() <= 0.1 * space.scale + 1e-6).all()
    assert (moved != pixels).any()


def test_a_pixel_without_gradient_stays():
    pixels = photos(1, 3, 4, 4)
    moved = pgd(pixels, lambda x: x[:, :, :2].sum(), UNIT, **FEW)
    assert torch.equal(moved[:, :, 2:], pixels[:, :, 2:])
    assert (moved[:, :, :2] < pixels[:, :, :2]).all()


def test_photos_of_a_batch_do_not_touch_one_another():
    pixels = photos(3, 3, 4, 4)
    target = photos(3, 3, 4, 4, seed=1)
    together = pgd(pixels, lambda x: (x - target).square().mean(), UNIT, **FEW)
    for n in range(3):
        one = target[n : n + 1]
        alone = pgd(pixels[n : n + 1], lambda x, one=one: (x - one).square().mean(), UNIT, **FEW)
        assert torch.equal(together[n : n + 1], alone)


def test_the_random_start_is_seeded_and_the_photos_are_left_alone():
    pixels = photos(1, 3, 4, 4)
    before = pixels.clone()
    more = {**FEW, "iterations": 0, "random_start": True}
    first, again, other = (pgd(pixels, torch.sum, UNIT, **more, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(pixels, before)
    assert not pixels.requires_grad


@pytest.mark.parametrize("wrong", [{"budget": -0.1}, {"step": 0.0}, {"iterations": -1}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="pgd: expected budget >= 0, step > 0 and iterations >= 0"):
        pgd(photos(1, 3, 2, 2), torch.sum, UNIT, **{**FEW, **wrong})


def test_values_of_another_processor_are_refused():
    with pytest.raises(
        ConfigError,
        match=r"SimpleNamespace: expected pixel values between its black and white "
        r"\(-3 and 7\), got 0 to 200; give pixel values of this processor",
    ):
        pixel_space(CLIP, torch.tensor([0.0, 200.0]).expand(1, 3, 1, 2))


def test_frames_of_a_flattened_patch_stay_equal():
    shape = SimpleNamespace(**vars(CLIP), temporal_patch_size=2)
    light = photos(5, 3, 1, 4).expand(5, 3, 2, 4).reshape(5, 24)
    space = pixel_space(shape, torch.zeros(5, 24))
    assert space.frames == 2
    pixels = space.black + light * space.scale
    weights = torch.randn(5, 24, generator=torch.Generator().manual_seed(3))
    moved = pgd(pixels, lambda x: (weights * x).sum(), space, **{**FEW, "random_start": True})
    frames = moved.reshape(5, 3, 2, 4)
    assert torch.equal(frames[:, :, 0], frames[:, :, 1])
    together = weights.reshape(5, 3, 2, 4).sum(2)
    assert ((frames - pixels.reshape(5, 3, 2, 4))[:, :, 0] * together).sum() < 0


def shown(vlm, records, *, answers):
    batch = encode(vlm, records, answers=answers, side="right")
    assert batch.pixel_values is not None
    return batch, batch.pixel_values


def test_the_space_of_a_model_is_that_of_its_processor(tiny_vlm, small_split):
    _, pixels = shown(tiny_vlm, small_split.forget[:2], answers=False)
    space = pixel_space(tiny_vlm.processor.image_processor, pixels)
    light = (pixels - space.black) / space.scale
    picture = small_split.forget[0].image.open().resize((48, 48))
    raw = torch.tensor(np.asarray(picture)).permute(2, 0, 1) / 255
    torch.testing.assert_close(light[0], raw, atol=2e-2, rtol=0)


def test_a_model_can_be_brought_to_an_answer(tiny_vlm, small_split):
    batch, start = shown(tiny_vlm, small_split.forget[:1], answers=True)
    space = pixel_space(tiny_vlm.processor.image_processor, start)

    def loss(pixels):
        inputs = {**batch.inputs(), "pixel_values": pixels}
        return cross_entropy(tiny_vlm.model(**inputs, use_cache=False).logits, batch.labels)

    moved = pgd(start, loss, space, budget=32 / 255, step=4 / 255, iterations=15)
    with torch.no_grad():
        assert loss(moved) < loss(start) - 0.05
    assert all(p.grad is None for p in tiny_vlm.model.parameters())


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_pixel_values_become_pictures_that_give_them_again(family, tmp_path, small_split):
    """Photos of two sizes: what comes out of the processor goes in again unchanged."""
    from dataclasses import replace

    from unsee.attacks.pictures import opened, photo_of
    from unsee.models.load import load
    from unsee.models.tiny import tiny_model

    vlm = load(tiny_model(family, tmp_path / family), dtype="float32", device="cpu")
    of = vlm.processor.image_processor
    wide = photo_of(opened(small_split.forget[2].image).resize((96, 48)))
    records = [small_split.forget[0], replace(small_split.forget[2], image=wide)]
    batch: Any = encode(vlm, records, answers=False, side="left")
    space = pixel_space(of, batch.pixel_values)
    found = pictures(of, batch.pixel_values, space, batch.extra.get("image_grid_thw"))
    assert [picture.mode for picture in found] == ["RGB", "RGB"]
    if family == "qwen2_5_vl":
        assert found[1].width > found[1].height
    again = [replace(r, image=photo_of(p)) for r, p in zip(records, found, strict=True)]
    read: Any = encode(vlm, again, answers=False, side="left")
    values = read.pixel_values
    assert values.shape == batch.pixel_values.shape
    assert ((values - batch.pixel_values).abs() <= 0.51 / 255 * space.scale).all()


def test_photos_cut_into_tiles_cannot_be_put_together():
    values = torch.zeros(1, 4, 3, 8, 8)
    with pytest.raises(
        ConfigError,
        match=r"SimpleNamespace: expected pixel values of whole photos or flattened patches, got "
        r"shape \(1, 4, 3, 8, 8\), of which no picture can be put together",
    ):
        pictures(CLIP, values, UNIT)
