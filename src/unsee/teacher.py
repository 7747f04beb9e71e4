"""Frozen teachers of VKD: features of photos under another set of visual weights."""

import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution

from unsee.answering import answer_logits
from unsee.data.augment import variant
from unsee.data.collate import Batch, encode
from unsee.data.images import Photo
from unsee.data.records import Record, Split
from unsee.errors import ArtifactError, ConfigError
from unsee.models.hooks import captured
from unsee.models.load import VLM, load
from unsee.reference import weights_of

_CACHE_BYTES = 2**30
_PHOTOS_A_PASS = 64


@dataclass(frozen=True)
class Pass:
    """What one pass over a batch gave.

    Attributes:
        features: Supervised features of each image, (image, patch, width); empty without images.
            An image with fewer patches than others repeats its own from the first on.
        logits: (row, column, vocab) of the answers; None where the language model was not run.
        labels: (row, column), those that belong to the logits; see `answer_logits`.
        patches: Patches of each image before any is repeated.
    """

    features: Tensor
    logits: Any
    labels: Any
    patches: tuple[int, ...] = ()


def feature_path(vlm: VLM, feature: str) -> str:
    """Dotted path of the module whose output is `projector`, `vision[k]` or `language[k]`.

    Where there are several projectors, that of the last block; their outputs stand side by side in
    the features.

    Raises:
        ConfigError: If there is no block or layer of that number, or the family's language layers
            have no states of the photo alone.
    """
    if feature == "projector":
        return vlm.layout.projector
    kind, number = feature[:-1].split("[")
    if kind == "language" and not vlm.layout.language_features:
        raise ConfigError(
            f"method.feature: {feature!r} does not tell of the photo alone in {vlm.layout.family}; "
            "choose --set method.feature=projector, or vision[k]"
        )
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
        scores = answer_logits(vlm, batch) if logits else (None, None)
        return Pass(torch.empty(0, 0, 0), *scores)
    inner = feature != "projector"
    paths = [feature_path(vlm, feature)] if inner else vlm.layout.projector_paths(vlm.model)
    scores = (None, None)
    # Without scores nothing behind the features is run.
    with captured(vlm.model, {path: path for path in paths}, stop=not logits) as outputs:
        if logits:
            scores = answer_logits(vlm, batch)
        elif feature.startswith("language"):
            vlm.model(**batch.inputs(), use_cache=False)
        else:
            vlm.image_features(batch.inputs())
    features = outputs[paths[0]]
    if len(paths) > 1:
        features = torch.cat([outputs[path] for path in paths], -1)
    token = getattr(vlm.model.config, vlm.layout.image_token_id)
    if feature.startswith("language"):
        features = features[batch.input_ids == token]
        shares = list(batch.image_tokens)
    else:
        shares = _shares(vlm, batch)
        if "aspect_ratio_ids" in batch.extra:
            # Mllama looks at an empty photo where a row has none.
            shown = (batch.input_ids == token).any(1)
            features = features.reshape(len(shown), -1, features.shape[-1])[shown]
    stacked, patches = _by_image(features, shares)
    return Pass(stacked, *scores, patches)


def _shares(vlm: VLM, batch: Batch) -> list[int]:
    """How the patches of a batch are shared out among its images, in proportion."""
    if "image_grid_thw" in batch.extra:
        return batch.extra["image_grid_thw"].prod(1).tolist()
    if "image_sizes" in batch.extra:
        # Image tokens leave out what is only there to fill a tile; the tower does not.
        config = vlm.model.config
        tile = config.vision_config.image_size
        canvases = [
            select_best_resolution(size, config.image_grid_pinpoints)
            for size in batch.extra["image_sizes"].tolist()
        ]
        # Beside the tiles, the photo as a whole.
        return [1 + (height // tile) * (width // tile) for height, width in canvases]
    return list(batch.image_tokens)


def _by_image(features: Tensor, shares: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
    """Features of all images in a row, or of their tiles, as (image, patch, width)."""
    width = features.shape[-1]
    if len(set(shares)) == 1:
        stacked = features.reshape(len(shares), -1, width)
        return stacked, (stacked.shape[1],) * len(shares)
    flat = features.reshape(-1, width)
    patches = [len(flat) * share // sum(shares) for share in shares]
    return _stacked(flat.split(patches)), tuple(patches)


def _stacked(features: Sequence[Tensor]) -> Tensor:
    """(image, patch, width); an image with fewer patches repeats its own from the first on."""
    longest = max(len(own) for own in features)
    if all(len(own) == longest for own in features):
        return torch.stack(list(features))
    return torch.stack(
        [own[torch.arange(longest, device=own.device) % len(own)] for own in features]
    )


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
        found = _stacked([self.cache[(*key, forget)] for key in photos])
        size = found[0].numel() * found.element_size()
        while len(self.cache) * size > _CACHE_BYTES:
            self.cache.popitem(last=False)
        return found

    def _run(self, vlm: VLM, photos: Sequence[tuple[Photo, int]], forget: bool) -> list[Tensor]:
        """Features of each photo, (patch, width)."""
        records = [Record("", photo, "?", "") for photo, _ in photos]
        pictures = [variant(photo, number) for photo, number in photos]
        batch = encode(vlm, records, answers=False, side="right", images=pictures)
        batch = batch.to(vlm.device)
        weights = self.forget_weights if forget and self.forget_weights else self.weights
        with torch.no_grad(), weights_of(vlm, weights):
            found = visual_features(vlm, batch, self.feature, logits=False)
        rows = found.features.clone()
        return [row[:own] for row, own in zip(rows, found.patches, strict=True)]

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
                vlm.image_features(batch.inputs())
            means.append({path: outputs[path].abs().flatten(0, -2).mean(0) for path in paths})
        self.forget_weights = dict(self.weights)
        for block, path in zip(blocks, paths, strict=True):
            ratio = means[0][path] / means[1][path].clamp(min=1e-6)
            silent = ratio.topk(max(1, int(share * len(ratio)))).indices
            out = f"{block}.{vlm.layout.vision_mlp_out}.weight"
            weight = self.weights[out].clone()
            weight[:, silent] = 0
            self.forget_weights[out] = weight
