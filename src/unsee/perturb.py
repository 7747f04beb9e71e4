"""Projected gradient descent on the pixels of photos.

Madry et al. 2018, https://arxiv.org/abs/1706.06083, section 2.1: step by the sign of the gradient,
then back into the ball of budget `eps` (maximum norm) and into what a picture can be.

    x <- clip(x_0 + clip(x - step * sign(dL/dx) - x_0, -eps, eps), black, white)

The sign makes photos of a batch independent of one another for any loss that is a sum or a mean of
losses a photo.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unsee.errors import ConfigError


@dataclass(frozen=True)
class PixelSpace:
    """What pixel values a processor can give, after its normalisation.

    Attributes:
        black: Value of a pixel without light, of a shape that broadcasts to the pixel values.
        white: Value of a pixel at full light; above `black`.
        frames: How many copies of each patch stand side by side in a flattened row, equal because
            a photo is a film of so many equal frames (Qwen-VL); 1 elsewhere.
    """

    black: Tensor
    white: Tensor
    frames: int = 1

    @property
    def scale(self) -> Tensor:
        """Pixel values for one unit of light, where black is 0 and white is 1."""
        return self.white - self.black


def pixel_space(image_processor: Any, pixel_values: Tensor) -> PixelSpace:
    """The space of a processor's pixel values.

    Args:
        image_processor: The model's own; its mean, deviation and switches are read.
        pixel_values: What it made of photos: (..., channel, height, width), or, as Qwen-VL has it,
            flattened patches (patch, channel * frames * height * width).

    Raises:
        ConfigError: If the values do not lie within the space, so that it is not theirs.
    """
    of = image_processor
    black, white = torch.zeros(3), torch.ones(3)
    if not getattr(of, "do_rescale", True):
        white = white * 255
    if getattr(of, "do_normalize", True):
        mean, deviation = (torch.tensor(v).expand(3) for v in (of.image_mean, of.image_std))
        black, white = (black - mean) / deviation, (white - mean) / deviation
    frames = 1
    if pixel_values.ndim == 2:
        frames = int(getattr(of, "temporal_patch_size", 1))
        each = pixel_values.shape[1] // 3
        black, white = (end.repeat_interleave(each) for end in (black, white))
    else:
        black, white = (end[:, None, None] for end in (black, white))
    space = PixelSpace(black.to(pixel_values.device), white.to(pixel_values.device), frames)
    # Resampling of a photo never leaves black and white by more than rounding.
    slack = 1e-3 * space.scale
    if ((pixel_values < space.black - slack) | (pixel_values > space.white + slack)).any():
        raise ConfigError(
            f"{type(of).__name__}: expected pixel values between its black and white "
            f"({float(black.min()):.3g} and {float(white.max()):.3g}), got "
            f"{float(pixel_values.min()):.3g} to {float(pixel_values.max()):.3g}; "
            "give pixel values of this processor"
        )
    return space


def pgd(
    pixels: Float[Tensor, "..."],
    loss: Callable[[Tensor], Tensor],
    space: PixelSpace,
    *,
    budget: float,
    step: float,
    iterations: int,
    random_start: bool = True,
    seed: int = 0,
) -> Float[Tensor, "..."]:
    """Photos near some photos on which a loss is lower.

    Args:
        pixels: What the processor made of the photos; left as they are.
        loss: Takes pixel values in float32 and gives a scalar, which is lowered. An attack that
            raises something gives its negative. Only the gradient for the pixels is computed.
        space: Of the pixel values.
        budget: Largest change of a pixel, as a share of the way from black to white (8 of 255
            levels are 8/255), >= 0.
        step: Change of a pixel an iteration, in the same unit, > 0.
        iterations: Steps, >= 0.
        random_start: Whether to begin at a random point of the ball, not at the photos.
        seed: Of the random start.

    Returns:
        Pixel values in float32, within the budget and between black and white.

    Raises:
        ValueError: If a number is out of its range.
    """
    if budget < 0 or step <= 0 or iterations < 0:
        raise ValueError(
            f"pgd: expected budget >= 0, step > 0 and iterations >= 0, got {budget}, {step} and "
            f"{iterations}"
        )
    start = pixels.detach().float()
    scale = space.scale
    low = torch.maximum(start - budget * scale, space.black)
    high = torch.minimum(start + budget * scale, space.white)
    moved = start.clone()
    if random_start:
        noise = torch.rand(start.shape, generator=torch.Generator().manual_seed(seed))
        noise = _alike(noise.to(start.device), space.frames)
        moved = (start + (2 * noise - 1) * budget * scale).clamp(low, high)
    for _ in range(iterations):
        moved.requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss(moved), moved)
        direction = _alike(gradient, space.frames).sign()
        moved = (moved.detach() - step * scale * direction).clamp(low, high)
    return moved.detach()


def pictures(
    image_processor: Any,
    pixels: Float[Tensor, "..."],
    space: PixelSpace,
    grid: Tensor | None = None,
) -> list[Image.Image]:
    """Pictures of which a processor makes such pixel values, rounded to 256 levels.

    Args:
        image_processor: The model's own.
        pixels: (photo, channel, height, width), or flattened patches as Qwen-VL has them.
        space: Of the pixel values.
        grid: For flattened patches, each photo's frames, rows and columns of patches, (photo, 3).

    Raises:
        ConfigError: If photos were cut up in yet another way.
    """
    light = (pixels.detach().float() - space.black) / space.scale
    levels = (255 * light).round().clamp(0, 255).byte().cpu()
    if levels.ndim == 4:
        whole = list(levels)
    elif levels.ndim == 2 and grid is not None:
        whole = _unfolded(image_processor, levels, space.frames, grid.tolist())
    else:
        raise ConfigError(
            f"{type(image_processor).__name__}: expected pixel values of whole photos or flattened "
            f"patches, got shape {tuple(pixels.shape)}, of which no picture can be put together"
        )
    return [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in whole]


def _unfolded(
    image_processor: Any, levels: Tensor, frames: int, grid: list[list[int]]
) -> list[Tensor]:
    """The first frame of each photo, (channel, height, width), from patches in merged blocks."""
    of = image_processor
    patch, merge = of.patch_size, of.merge_size
    found, start = [], 0
    for times, rows, columns in grid:
        count = times * rows * columns
        shape = (times, rows // merge, columns // merge, merge, merge, 3, frames, patch, patch)
        first = levels[start : start + count].reshape(shape)[0, ..., 0, :, :]
        found.append(first.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * patch, columns * patch))
        start += count
    return found


def _alike(values: Tensor, frames: int) -> Tensor:
    """The mean over the frames of a flattened patch, in place of each."""
    if frames == 1:
        return values
    split = values.reshape(len(values), 3, frames, -1)
    return split.mean(2, keepdim=True).expand_as(split).reshape(values.shape)
