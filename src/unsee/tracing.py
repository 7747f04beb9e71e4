"""Causal tracing: which language layers a fact passes through.

Meng et al. 2022, https://arxiv.org/abs/2202.05262, section 2, on photos: what the model is told of
the photo is spoilt with noise, and the output of one layer's MLP at a time is put back to what it
was. The more of the answer's probability that brings back, the more of the fact the layer adds.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unsee.answering import answer_logits
from unsee.data.collate import encode
from unsee.data.records import Record
from unsee.losses import sequence_logprob
from unsee.models.hooks import captured, edited, replaced
from unsee.models.load import VLM
from unsee.models.passes import Edit, Pass


def causal_effects(
    vlm: VLM,
    records: Sequence[Record],
    *,
    noise: float = 3.0,
    seed: int = 0,
    batch_size: int = 8,
) -> Float[Tensor, " layer"]:
    """What putting back each layer's MLP does for the answers, averaged over records.

    Args:
        vlm: The model; it is left as it is.
        records: Questions on photos, with the answers to be traced.
        noise: Of the Gaussian noise on image tokens, in standard deviations of these tokens.
        seed: Seeds the noise.
        batch_size: Records a forward pass, >= 1.

    Returns:
        P(answer | spoilt photo, MLP put back) - P(answer | spoilt photo), from -1 to 1.
    """
    layout = vlm.layout
    layers = layout.language_layer_paths(vlm.model)
    paths = [f"{layer}.{layout.language_mlp_out}" for layer in layers]
    effects = torch.zeros(len(layers))
    for start in range(0, len(records), batch_size):
        rows = records[start : start + batch_size]
        batch = encode(vlm, rows, answers=True, side="right").to(vlm.device)

        def chance(batch=batch) -> Tensor:
            return sequence_logprob(*answer_logits(vlm, batch)).exp().sum()

        spoil = {layers[0]: [_spoiler(noise, f"{seed}-{start}")]}
        with torch.no_grad():
            with captured(vlm.model, {path: path for path in paths}) as clean:
                chance()
            clean = dict(clean)
            with edited(vlm.model, layout, spoil):
                spoilt = chance()
                for number, path in enumerate(paths):
                    with replaced(vlm.model, {path: clean[path]}):
                        effects[number] += (chance() - spoilt).cpu()
    return effects / len(records)


def _spoiler(noise: float, seed: str) -> Edit:
    """Adds the same noise to the image tokens of every pass."""

    def spoil(hidden: Tensor, now: Pass) -> Tensor:
        chosen = hidden[now.image_tokens].float()
        generator = torch.Generator().manual_seed(int.from_bytes(seed.encode(), "big") % 2**63)
        draw = torch.randn(chosen.shape, generator=generator).to(chosen)
        spoilt = hidden.clone()
        spoilt[now.image_tokens] = (chosen + noise * chosen.std() * draw).to(hidden.dtype)
        return spoilt

    return spoil


def strongest_window(effects: Float[Tensor, " layer"], width: int) -> range:
    """The layers in a row with the greatest total effect; the first of equals.

    Args:
        effects: Of each layer.
        width: How many layers, >= 1; all where there are fewer.
    """
    width = min(width, len(effects))
    totals = effects.unfold(0, width, 1).sum(1)
    first = int(totals.argmax())
    return range(first, first + width)
