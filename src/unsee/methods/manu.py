"""MANU: prune the neurons that tell the forget set with a photo from the forget set without.

Liu et al. 2025, "Modality-aware neuron pruning for unlearning in multimodal large language models",
https://arxiv.org/abs/2502.15910. No training. For a neuron, with M and A the mean of |z|, N the
share of tokens with |z| > level, V the variance of |z| and E the mean of z^2, once over records
with their photos (m) and once over the same records without (t):

    I(D)  = |A_m - A_t| / (A_m + A_t + e)  +  |N_m - N_t| / (N_m + N_t + e)
          + sqrt(V_m + V_t)  +  sqrt( |E_m - E_t| / (E_m + E_t + e) )
    score = I(D_f) / (I(D_r) + e)

The `share` of neurons with the highest scores, over all blocks together, is silenced: their columns
in the layer that reads them become 0, so that undoing it needs nothing but those columns.

Our reading where the paper leaves a choice: all tokens but padding count, question and answer
alike; N and E are means, not sums, since a photo's many tokens would drown a question's; a vision
block answers to no photo with nothing. Public code departs from the formulas and from itself: the
authors' scores each statistic by forget over retain without a text side, leaves N out, and looks at
the last three blocks and layers only; others scale activations by 0.9 instead of pruning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from unsee.data.records import Record, Split
from unsee.method import Progress
from unsee.methods import METHODS
from unsee.models.load import VLM
from unsee.neurons import Responses, neuron_readers, responses
from unsee.sampling import drawn_records
from unsee.settings import Settings, Space, Span

_FLOOR = 1e-8


def importance(multi: Responses, text: Responses) -> Float[Tensor, " neuron"]:
    """I: how differently neurons answer to records with and without their photos.

    Args:
        multi: Responses to photos and questions.
        text: Responses to the questions alone.

    Returns:
        At least 0; 0 for a neuron that never answers.
    """
    means = _gap(multi.mean, text.mean)
    rates = _gap(multi.rate, text.rate)
    spread = (multi.variance + text.variance).sqrt()
    return means + rates + spread + _gap(multi.energy, text.energy).sqrt()


def _gap(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs() / (a + b + _FLOOR)


def forget_score(
    forget: Float[Tensor, " neuron"], retain: Float[Tensor, " neuron"]
) -> Float[Tensor, " neuron"]:
    """S: importance to the forget set over importance to what is kept."""
    return forget / (retain + _FLOOR)


def highest(
    scores: Mapping[str, Float[Tensor, " neuron"]], share: float
) -> dict[str, Bool[Tensor, " neuron"]]:
    """The neurons with the highest scores of all layers together.

    Args:
        scores: Layer -> score of each neuron.
        share: Of all neurons, in (0, 1); at least one neuron is taken.

    Returns:
        Layer -> True on those taken; of equal scores, those of earlier layers.
    """
    together = torch.cat(list(scores.values()))
    count = max(1, int(share * len(together)))
    taken = torch.zeros(len(together), dtype=torch.bool)
    taken[together.argsort(descending=True, stable=True)[:count]] = True
    parts = taken.split([len(own) for own in scores.values()])
    return dict(zip(scores, parts, strict=True))


@METHODS.register("manu")
class MANU(Settings):
    """Modality-aware neuron pruning (arXiv 2502.15910); no training.

    The share is one that the paper studies; nothing is tuned on the built-in world yet.

    Attributes:
        parts: Where neurons are pruned: vision, language, or some blocks or layers, such as
            `language.layers[-3:]`.
        share: Of all neurons there, how many are pruned.
        level: |z| above which a neuron counts as firing.
        records: Records with a photo that each side is measured on, at most.
        batch_size: Records a forward pass.
    """

    kind: ClassVar[str] = "weights"
    space: ClassVar[Space] = {"share": Span(0.01, 0.7), "level": (0.05, 0.1, 0.3)}

    parts: tuple[str, ...] = Field(("vision", "language"), min_length=1)
    share: float = Field(0.05, gt=0, lt=1)
    level: float = Field(0.1, ge=0)
    records: int = Field(256, ge=1)
    batch_size: int = Field(8, ge=1)

    def editable(self, vlm: VLM) -> list[str]:
        """Weights of the layers that read the neurons."""
        return [f"{path}.weight" for path in neuron_readers(vlm, self.parts)]

    def edit(
        self, vlm: VLM, split: Split, *, seed: int, progress: Progress | None = None
    ) -> tuple[str, ...]:
        """Measure both sides with and without photos, and prune."""
        kept = (*split.retain, *split.general)
        sides = [
            drawn_records(records, self.records, seed=seed, side=side, photos=True)
            for side, records in (("to forget", split.forget), ("to keep", kept))
        ]
        total, done = 2 * sum(len(side) for side in sides), 0
        readers = neuron_readers(vlm, self.parts)

        def told(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress("measure", done, total)

        def measured(records: Sequence[Record]) -> dict[str, Responses]:
            size = self.batch_size
            return responses(vlm, records, readers, level=self.level, batch_size=size, told=told)

        forget, retain = (
            (measured(side), measured([replace(record, image=None) for record in side]))
            for side in sides
        )
        scores = {
            path: forget_score(
                importance(forget[0][path], forget[1][path]),
                importance(retain[0][path], retain[1][path]),
            )
            for path in readers
        }
        changed = []
        with torch.no_grad():
            for path, pruned in highest(scores, self.share).items():
                if pruned.any():
                    weight = vlm.model.get_submodule(path).weight
                    weight[:, pruned.to(weight.device)] = 0
                    changed.append(f"{path}.weight")
        return tuple(changed)
