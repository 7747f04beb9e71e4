"""Does a loaded artifact act? Seeded, impersonal probes answer, each time one is loaded.

The probes are gradients, stripes and noise shown to vision tower and projector, and random tokens
read by the language model. They show that the artifact's weights act as they did when they were
saved, not that anybody is forgotten.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unsee.artifacts.manifest import StackedRun
from unsee.errors import ArtifactError

SEED = 2026
IMAGE_SIDE = 96
TEXT_SHAPE = (2, 16)
# Relative distance up to which outputs count as the same. Opening the tiny model in another dtype
# moved its outputs by up to 3e-3 (float16), 1.4e-2 (bfloat16) and 6e-7 (float64 against float32);
# float32 leaves room for convolutions that a GPU rounds to 10 bits of mantissa.
TOLERANCE = {
    torch.float64: 1e-3,
    torch.float32: 1e-3,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}


@runtime_checkable
class Opened(Protocol):
    """What is needed of an opened model here; `models.load.VLM` is one."""

    model: Any
    processor: Any
    source: str
    fingerprint: str
    stack: tuple[StackedRun, ...]

    def image_features(self, inputs: Mapping[str, Tensor]) -> Any:
        """What the language model is given of photos."""
        ...


@dataclass(frozen=True)
class Canary:
    """Probes, and what the base makes of them.

    Attributes:
        inputs: The probe images as the image processor prepared them.
        tokens: Random token ids, shape `TEXT_SHAPE`.
        outputs: Of the model the probes were taken on: `image`, what the projector makes of the
            images; `text`, the next-token logits after the tokens. float32, on the CPU.
    """

    inputs: Mapping[str, Tensor]
    tokens: Tensor
    outputs: Mapping[str, Tensor]


def take_canary(vlm: Opened) -> Canary:
    """Run the probes on a model before it is changed: on the base, or on what an artifact left."""
    prepared = vlm.processor.image_processor(_probe_images(), return_tensors="pt")
    inputs = {name: tensor for name, tensor in prepared.items() if isinstance(tensor, Tensor)}
    tokens = _probe_tokens(vlm)
    return Canary(inputs=inputs, tokens=tokens, outputs=respond(vlm, inputs, tokens))


def respond(vlm: Opened, inputs: Mapping[str, Tensor], tokens: Tensor) -> dict[str, Tensor]:
    """What the model makes of the probes; `image` and `text` as in `Canary.outputs`."""
    model = vlm.model
    placed = {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
        for name, tensor in inputs.items()
    }
    with _evaluating(model), torch.no_grad():
        features = vlm.image_features(placed)
        logits = model(input_ids=tokens.to(model.device), use_cache=False).logits[:, -1]
    visual = features if isinstance(features, Tensor) else torch.cat(list(features))
    return {"image": visual.float().cpu(), "text": logits.float().cpu()}


def distances(outputs: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, float]:
    """Norm of the difference over the norm of the reference, for each output.

    Infinite where shapes differ or a value is not finite.
    """
    return {name: _distance(outputs[name], reference[name]) for name in reference}


def check_effect(
    base: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    dtype: torch.dtype,
    *,
    where: str,
) -> None:
    """Refuse a change too small for the probes to tell from none.

    Args:
        base: Outputs of the base.
        after: Outputs with the change.
        dtype: Of the model.
        where: The run folder, for the message.

    Raises:
        ArtifactError: If no output differs by more than twice the dtype's tolerance; less could
            pass for the base when the artifact is loaded elsewhere.
    """
    changed = max(distances(after, base).values())
    if not changed > 2 * TOLERANCE[dtype]:
        raise ArtifactError(
            f"{where}: the change has no effect that could be checked: the probes answer within "
            f"{changed:.1e} of the base's, {2 * TOLERANCE[dtype]:.0e} is needed in {dtype}; train "
            "longer, at a higher rate or more of the model, or load in float32"
        )


def check_same(
    outputs: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    dtype: torch.dtype,
    *,
    where: str,
    problem: str,
) -> None:
    """Refuse outputs that differ from the expected ones by more than the dtype's tolerance.

    Args:
        outputs: What the model makes of the probes now.
        expected: What is stored.
        dtype: Of the model.
        where: The run folder, for the message.
        problem: What a difference means, and what to do.

    Raises:
        ArtifactError: Names the output, its distance and the tolerance.
    """
    for name, distance in distances(outputs, expected).items():
        if not distance <= TOLERANCE[dtype]:
            raise ArtifactError(
                f"{where}: {problem} ({name} probes are off by {distance:.1e}, "
                f"{TOLERANCE[dtype]:.0e} is allowed in {dtype})"
            )


def _distance(output: Tensor, reference: Tensor) -> float:
    if output.shape != reference.shape or not output.isfinite().all():
        return float("inf")
    size = reference.norm().clamp_min(torch.finfo(torch.float32).tiny)
    return ((output - reference).norm() / size).item()


def _probe_images() -> list[Image.Image]:
    """Two gradients, stripes and noise: nobody is in them."""
    ramp = np.linspace(0, 255, IMAGE_SIDE)
    across = np.broadcast_to(ramp, (IMAGE_SIDE, IMAGE_SIDE))
    stripes = np.where(np.arange(IMAGE_SIDE) // 6 % 2, 230.0, 20.0)
    noise = np.random.default_rng(SEED).uniform(0, 255, (IMAGE_SIDE, IMAGE_SIDE, 3))
    pictures = [
        np.stack([across, across.T, across[::-1].T], axis=-1),
        np.stack([across[:, ::-1], 255 - across.T, across], axis=-1),
        np.stack([np.broadcast_to(stripes, across.shape), across, across.T], axis=-1),
        noise,
    ]
    return [Image.fromarray(picture.astype(np.uint8)) for picture in pictures]


def _probe_tokens(vlm: Opened) -> Tensor:
    special = set(vlm.processor.tokenizer.all_special_ids)
    ordinary = [token for token in range(len(vlm.processor.tokenizer)) if token not in special]
    chosen = np.random.default_rng(SEED).choice(ordinary, size=TEXT_SHAPE)
    return torch.from_numpy(chosen.astype(np.int64))


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
