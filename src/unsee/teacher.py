"""Frozen teachers of VKD: features of photos under another set of visual weights."""

import random
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unsee.data.augment import variant
from unsee.data.collate import Batch, encode
from unsee.data.images import Photo
from unsee.data.records import Record, Split
from unsee.errors import ArtifactError, ConfigError
from unsee.models.hooks import captured
from unsee.models.load import VLM, load

_CACHE_BYTES = 2**30
_PHOTOS_A_PASS = 64


@dataclass(frozen=True)
class Pass:
    """What one pass over a batch gave.

    Attributes:
        features: Supervised features of each image, (image, patch, width); empty without images.
        logits: (row, seq, vocab); None where the language model was not run.
    """

    features: Tensor
    logits: Any


def feature_path(vlm: VLM, feature: str) -> str:
    """Dotted path of the module whose output is `projector`, `vision[k]` or `language[k]`.

    Raises:
        ConfigError: If there is no block or layer of that number.
    """
    if feature == "projector":
        return vlm.layout.projector
    kind, number = feature[:-1].split("[")
    paths = (
        vlm.layout.vision_block_paths(vlm.model)
        if kind == "vision"
        else vlm.layout.language_layer_paths(vlm.model)
    )
    try:
        return paths[int(number)]
    except IndexError:
        raise ConfigError(
            f"method.feature: expected {kind}[k] with k below {len(paths)}, got {feature!r}"
        ) from None


def visual_features(vlm: VLM, batch: Batch, feature: str, *, logits: bool) -> Pass:
    """Run the visual part, and the language model where it is needed, and keep the features.

    Args:
        vlm: Model to run, with gradients where they are on.
        batch: Rows with and without images.
        feature: See `feature_path`.
        logits: Whether to run the language model to the end.
    """
    if batch.pixel_values is None:
        scores = vlm.model(**batch.inputs(), use_cache=False).logits if logits else None
        return Pass(torch.empty(0, 0, 0), scores)
    path = feature_path(vlm, feature)
    with captured(vlm.model, {"feature": path}) as outputs:
        scores = None
        if logits or feature.startswith("language"):
            scores = vlm.model(**batch.inputs(), use_cache=False).logits
        else:
            visual = {k: v for k, v in batch.inputs().items() if "pixel" in k or "grid" in k}
            vlm.model.get_image_features(**visual)
    features = outputs["feature"]
    if feature.startswith("language"):
        token = getattr(vlm.model.config, vlm.layout.image_token_id)
        where = batch.input_ids == token
        rows = where.any(1)
        features = features[rows][where[rows]].reshape(int(rows.sum()), -1, features.shape[-1])
    return Pass(features, scores)


@contextmanager
def weights_of(vlm: VLM, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The model with some of its parameters exchanged, for passes without gradients."""
    parameters = dict(vlm.model.named_parameters())
    own = {name: parameters[name].data for name in weights}
    try:
        for name, tensor in weights.items():
            parameters[name].data = tensor
        yield
    finally:
        for name, tensor in own.items():
            parameters[name].data = tensor


@dataclass
class Teacher:
    """Visual weights that do not move, and the features they give.

    Attributes:
        feature: See `feature_path`.
        weights: Visual parameters, by full name.
        forget_weights: Those that give the targets of forget photos, where they differ.
        cache: Features by photo, variant and which weights; the oldest go first.
    """

    feature: str
    weights: dict[str, Tensor]
    forget_weights: dict[str, Tensor] | None = None
    cache: OrderedDict[tuple[Photo, int, bool], Tensor] = field(default_factory=OrderedDict)

    @classmethod
    def of(
        cls,
        vlm: VLM,
        feature: str,
        *,
        folder: str | None = None,
        noise: float = 0.0,
        bits: int = 0,
        seed: int = 0,
    ) -> "Teacher":
        """The starting model's visual weights, or those of another checkpoint; degraded if asked.

        Args:
            vlm: Starting model.
            feature: See `feature_path`.
            folder: Another checkpoint of the same architecture.
            noise: Gaussian noise on each tensor, in its own standard deviations.
            bits: 8 for rounding each row to 8 bits, 0 for none.
            seed: Seeds the noise.

        Raises:
            ArtifactError: If the other checkpoint has other visual parameters.
        """
        source = vlm if folder is None else load(folder, dtype=vlm.dtype, device=vlm.device)
        names = vlm.layout.parameter_names(vlm.model, ["vision", "projector"])
        own, other = dict(vlm.model.named_parameters()), dict(source.model.named_parameters())
        misfit = [n for n in names if n not in other or other[n].shape != own[n].shape]
        if misfit:
            raise ArtifactError(
                f"{folder}: expected the visual parameters of {vlm.source}, got another shape or "
                f"none for {misfit[0]}; choose a checkpoint of the same architecture"
            )
        generator = torch.Generator().manual_seed(seed)
        weights = {}
        for name in names:
            tensor = other[name].detach().clone()
            if noise:
                draw = torch.randn(tensor.shape, generator=generator).to(tensor)
                tensor += noise * tensor.std(correction=0) * draw
            if bits and tensor.ndim > 1:
                scale = tensor.flatten(1).abs().amax(1).clamp(min=1e-12) / (2 ** (bits - 1) - 1)
                scale = scale.reshape(-1, *[1] * (tensor.ndim - 1))
                tensor = (tensor / scale).round() * scale
            weights[name] = tensor
        return cls(feature, weights)

    def features(
        self, vlm: VLM, photos: Sequence[tuple[Photo, int]], *, forget: bool = False
    ) -> Tensor:
        """Features of variants of photos, (photo, patch, width), without gradients.

        Args:
            vlm: The model in training, whose frozen parts are used.
            photos: Photo and number of the variant.
            forget: Use the weights that give the targets of forget photos.
        """
        missing = [key for key in OrderedDict.fromkeys(photos) if (*key, forget) not in self.cache]
        for start in range(0, len(missing), _PHOTOS_A_PASS):
            part = missing[start : start + _PHOTOS_A_PASS]
            for key, features in zip(part, self._run(vlm, part, forget), strict=True):
                self.cache[(*key, forget)] = features
        found = torch.stack([self.cache[(*key, forget)] for key in photos])
        size = found[0].numel() * found.element_size()
        while len(self.cache) * size > _CACHE_BYTES:
            self.cache.popitem(last=False)
        return found

    def _run(self, vlm: VLM, photos: Sequence[tuple[Photo, int]], forget: bool) -> Tensor:
        records = [Record("", photo, "?", "") for photo, _ in photos]
        pictures = [variant(photo, number) for photo, number in photos]
        batch = encode(vlm, records, answers=False, side="right", images=pictures)
        batch = batch.to(vlm.device)
        weights = self.forget_weights if forget and self.forget_weights else self.weights
        with torch.no_grad(), weights_of(vlm, weights):
            return visual_features(vlm, batch, self.feature, logits=False).features.clone()

    @contextmanager
    def in_place(self, vlm: VLM) -> Iterator[None]:
        """The model with the teacher's visual weights."""
        with weights_of(vlm, self.weights):
            yield

    def pruned_from(self, vlm: VLM, split: Split, share: float) -> None:
        """Silences the neurons that answer most to the forget photos, for their targets only.

        Our reading of "neuron pruning": in the MLP of each vision block, the `share` of neurons
        with the highest ratio of mean absolute activation on forget photos to that on retain and
        general photos.
        """
        rng = random.Random(0)
        blocks = vlm.layout.vision_block_paths(vlm.model)
        paths = [f"{block}.{vlm.layout.vision_mlp_in}" for block in blocks]
        means = []
        for records in (split.forget, (*split.retain, *split.general)):
            photos = list(OrderedDict.fromkeys(r.image for r in records if r.image is not None))
            photos = rng.sample(photos, min(len(photos), _PHOTOS_A_PASS))
            batch = encode(
                vlm, [Record("", p, "?", "") for p in photos], answers=False, side="right"
            ).to(vlm.device)
            with (
                torch.no_grad(),
                self.in_place(vlm),
                captured(vlm.model, {path: path for path in paths}) as outputs,
            ):
                vlm.model.get_image_features(pixel_values=batch.pixel_values)
            means.append({path: outputs[path].abs().mean((0, 1)) for path in paths})
        self.forget_weights = dict(self.weights)
        for block, path in zip(blocks, paths, strict=True):
            ratio = means[0][path] / means[1][path].clamp(min=1e-6)
            silent = ratio.topk(max(1, int(share * len(ratio)))).indices
            out = f"{block}.{vlm.layout.vision_mlp_out}.weight"
            weight = self.weights[out].clone()
            weight[:, silent] = 0
            self.forget_weights[out] = weight
