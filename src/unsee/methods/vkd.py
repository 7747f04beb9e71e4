"""VKD: visual knowledge distillation.

Wang et al. 2025, "MLLM Machine Unlearning via Visual Knowledge Distillation",
https://arxiv.org/abs/2512.11325. The paper's equations are not public to us. Known are its
ingredients: the language model is frozen and only visual parts are trained; intermediate visual
features of a frozen teacher supervise forgetting and keeping; an output-level loss remains;
partial fine-tuning and a saliency mask confine the change. Everything more exact than that is
**our reading**, with defaults from runs on development people; docs/results/vkd-ablation.md shows
what each setting does.

With z(I) the supervised features of image I, T the teacher, D_f, D_r and D_v the forget records,
the kept records and the identity-free questions on the forget photos, d a distance:

    L =  w_f  E_{I in D_f} d(z(I), target(I))     pull a forgotten face to `target`
       + w_o  E_{D_f} out(answer)                 push its answers down, at the output
       + w_d  E_{I in D_r} d(z(I), z_T(I))        hold everybody else's features in place
       + w_r  E_{D_r + D_v} CE(answer)            and their answers, and what anyone can see
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from unsee.answering import answer_logits
from unsee.data.images import Photo
from unsee.data.records import Split
from unsee.errors import ConfigError, DataError
from unsee.losses import (
    DISTANCES,
    cross_entropy,
    gradient_ascent,
    hinge_away,
    npo,
    sequence_logprob,
    unlikelihood,
)
from unsee.method import Terms, Trained
from unsee.methods import METHODS
from unsee.models.load import VLM
from unsee.saliency import apply_mask, fisher_ratio_mask
from unsee.sampling import PairBatch, Sampler
from unsee.settings import Space, Span
from unsee.teacher import Pass, Teacher, feature_path, visual_features


@dataclass
class State:
    """Made once a run from the starting model.

    Attributes:
        teacher: Gives and remembers the features of photos.
        shift: For target `neutral`, what to add to the features of each forget photo.
        stand_in: For target `stranger`, the photo whose features stand in for each forget photo.
        mask: Name -> 1 where a weight may follow the forget gradient, in its shape.
    """

    teacher: Teacher
    shift: dict[Photo, Tensor] = field(default_factory=dict)
    stand_in: dict[Photo, Photo] = field(default_factory=dict)
    mask: dict[str, Tensor] = field(default_factory=dict)


@METHODS.register("vkd")
class VKD(Trained):
    """Visual knowledge distillation (our reading of arXiv 2512.11325).

    Attributes:
        lr: Peak learning rate.
        average: Share of the last steps whose weights are averaged: one run draws the line
            between look-alikes here, another there, and their mean lies between.
        target: Where features of forgotten faces go. `away`: from the teacher's, up to `margin`;
            `stranger`: to the teacher's of the most similar unknown face among the general photos;
            `neutral`: the teacher's, with the mean over the person's photos exchanged for that of
            the most similar unknown faces; `pruned`: to those of a teacher without its
            forget-specific neurons; `base`: to those of `pretrained`.
        margin: Distance at which `away` stops pushing.
        neighbours: Unknown faces averaged by `neutral`.
        pruned_share: Share of MLP neurons a block that `pruned` silences.
        pretrained: Folder of the model before it learned the subjects, for `base`.
        feature: `projector`, `vision[k]` (block k) or `language[k]` (visual tokens after layer k).
        distance: `cosine` (1 - cosine), `mse` (relative) or `cka` (1 - linear CKA).
        output: Output-level term: `none`, `ascent`, `unlikelihood` (bounded ascent) or `npo`.
        output_every: Output terms run every so many steps; 0 for never: no language-model pass.
        beta: Inverse temperature of `npo`.
        forget_weight: w_f. 0 leaves the feature term out.
        output_weight: w_o.
        distill_weight: w_d, on retain and general photos.
        retain_weight: w_r.
        blocks: Vision blocks trained, counted from the last one that is used; -1 for the tower.
        projector: Whether the projector is trained.
        mask: `none`; `gradient`: the forget gradient is masked; `step`: masked weights never move.
        mask_threshold: Ratio of forget to retain Fisher information from which a weight is salient.
        mask_batches: Batches that the Fisher information is averaged over.
        teacher_noise: Noise on the teacher's weights, in their standard deviations.
        teacher_bits: 8 rounds the teacher's weights to 8 bits a row; 0 leaves them.
        teacher: Folder of a teacher other than the starting model.
    """

    kind: ClassVar[str] = "weights"
    space: ClassVar[Space] = {
        "lr": Span(1e-4, 3e-3),
        "steps": (100, 150, 200, 300),
        "output_weight": Span(0.3, 3),
        "distill_weight": Span(1, 30),
    }

    lr: float = Field(1e-3, gt=0)
    average: float = Field(0.6, ge=0, lt=1)
    target: Literal["away", "stranger", "neutral", "pruned", "base"] = "neutral"
    margin: float = Field(0.5, gt=0)
    neighbours: int = Field(4, ge=1)
    pruned_share: float = Field(0.1, gt=0, lt=1)
    pretrained: str | None = None
    feature: str = Field("language[2]", pattern=r"^(projector|(vision|language)\[-?\d+\])$")
    distance: Literal["cosine", "mse", "cka"] = "mse"
    output: Literal["none", "ascent", "unlikelihood", "npo"] = "unlikelihood"
    output_every: int = Field(1, ge=0)
    beta: float = Field(0.4, gt=0)
    forget_weight: float = Field(1.0, ge=0)
    output_weight: float = Field(1.0, ge=0)
    distill_weight: float = Field(10.0, ge=0)
    retain_weight: float = Field(1.0, ge=0)
    blocks: int = Field(-1, ge=-1)
    projector: bool = True
    mask: Literal["none", "gradient", "step"] = "none"
    mask_threshold: float = Field(1.0, gt=0)
    mask_batches: int = Field(8, ge=1)
    teacher_noise: float = Field(0.0, ge=0)
    teacher_bits: Literal[0, 8] = 0
    teacher: str | None = None

    def trainable(self, vlm: VLM) -> list[str]:
        """Parameters of the projector and of the last `blocks` vision blocks that are used."""
        parts = ["projector"] if self.projector else []
        if self.blocks == -1:
            parts.append("vision")
        elif self.blocks:
            used = vlm.layout.used_vision_blocks(vlm.model)
            if self.blocks > used:
                raise ConfigError(
                    f"method.blocks: expected at most {used} for {vlm.source}, got {self.blocks}"
                )
            parts.append(f"vision.blocks[{used - self.blocks}:{used}]")
        if not parts:
            raise ConfigError("method: blocks=0 with projector=false trains nothing")
        return vlm.layout.parameter_names(vlm.model, parts)

    def prepare(self, vlm: VLM, split: Split, *, seed: int) -> State:
        """Teacher, targets and mask, on the starting model.

        Raises:
            DataError: If the target needs unknown faces and there are no general photos.
            ConfigError: If target `base` is asked for without `pretrained`, or nothing that is
                trained reaches the supervised feature.
        """
        self._refuse_idle_feature(vlm)
        teacher = Teacher.of(
            vlm,
            self.feature,
            folder=self.teacher,
            noise=self.teacher_noise,
            bits=self.teacher_bits,
            seed=seed,
        )
        state = State(teacher)
        if self.forget_weight and self.target in ("stranger", "neutral"):
            self._place_targets(vlm, split, state)
        elif self.target == "pruned":
            state.teacher.pruned_from(vlm, split, self.pruned_share)
        elif self.target == "base":
            if self.pretrained is None:
                raise ConfigError(
                    "method.target='base' needs method.pretrained: the folder of the model before "
                    "it learned the subjects"
                )
            state.teacher.forget_weights = Teacher.of(
                vlm, self.feature, folder=self.pretrained
            ).weights
        if self.mask != "none":
            sampler = Sampler(vlm, split, self, seed)
            state.mask = fisher_ratio_mask(
                vlm, sampler, batches=self.mask_batches, threshold=self.mask_threshold
            )
        return state

    def loss(self, vlm: VLM, batch: PairBatch, state: State) -> Terms:
        """The terms of one step; see the formula at the head of the file."""
        with_output = self.output_every > 0 and batch.step % self.output_every == 0
        return Terms(
            forget=self._forget_terms(vlm, batch, state, with_output),
            retain=lambda: self._retain_terms(vlm, batch, state, with_output),
        )

    def _forget_terms(
        self, vlm: VLM, batch: PairBatch, state: State, with_output: bool
    ) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        mine = visual_features(vlm, batch.forget.batch, self.feature, logits=with_output)
        if self.forget_weight and batch.forget.photos:
            terms["feature"] = self.forget_weight * self._forget_distance(
                mine.features, batch, state, vlm
            )
        if with_output and self.output != "none":
            terms["output"] = self.output_weight * self._output(vlm, batch, mine, state)
        return terms

    def _retain_terms(
        self, vlm: VLM, batch: PairBatch, state: State, with_output: bool
    ) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        kept = visual_features(vlm, batch.keep.batch, self.feature, logits=with_output)
        if self.distill_weight:
            photos = batch.keep.photos
            chosen = [i for i, (p, _) in enumerate(photos) if p not in batch.forget_photos]
            if chosen:
                known = state.teacher.features(vlm, [photos[i] for i in chosen])
                distance = DISTANCES[self.distance](kept.features[chosen], known)
                terms["distill"] = self.distill_weight * distance.mean()
        if with_output and self.retain_weight:
            terms["answers"] = self.retain_weight * cross_entropy(kept.logits, kept.labels)
        return terms

    def mask_forget(self, vlm: VLM, state: State) -> None:
        """Zeroes the forget gradient where retain depends on the weight more than forget does."""
        if self.mask == "gradient":
            apply_mask(vlm, state.mask)

    def constrain_step(self, vlm: VLM, before: Mapping[str, Tensor], state: State) -> None:
        """Takes back the step of weights outside the mask."""
        if self.mask == "step":
            for name, p in vlm.model.named_parameters():
                if name in state.mask:
                    p.copy_(torch.where(state.mask[name].bool(), p, before[name]))

    def _refuse_idle_feature(self, vlm: VLM) -> None:
        """Features of a block before the trained ones are constants, and so would the terms be."""
        path = feature_path(vlm, self.feature)
        blocks = vlm.layout.vision_block_paths(vlm.model)
        if self.blocks == -1 or path not in blocks:
            return
        first = vlm.layout.used_vision_blocks(vlm.model) - self.blocks
        if blocks.index(path) < first:
            raise ConfigError(
                f"method.feature: expected a block from vision[{first}] on, which is where "
                f"method.blocks={self.blocks} begins to train, got {self.feature!r}"
            )

    def _forget_distance(
        self, features: Tensor, batch: PairBatch, state: State, vlm: VLM
    ) -> Tensor:
        photos = batch.forget.photos
        distance = DISTANCES[self.distance]
        if self.target == "away":
            left = state.teacher.features(vlm, photos)
            left = left + torch.stack(
                [_nudge(p, row) for (p, _), row in zip(photos, left, strict=True)]
            )
            return hinge_away(distance(features, left), self.margin)
        if self.target == "stranger":
            aims = state.teacher.features(vlm, [(state.stand_in[p], 0) for p, _ in photos])
        elif self.target == "neutral":
            aims = state.teacher.features(vlm, photos)
            aims = aims + torch.stack([state.shift[p] for p, _ in photos])[:, None]
        else:
            aims = state.teacher.features(vlm, photos, forget=True)
        return distance(features, aims).mean()

    def _output(self, vlm: VLM, batch: PairBatch, mine: Pass, state: State) -> Tensor:
        if self.output == "ascent":
            return gradient_ascent(mine.logits, mine.labels)
        if self.output == "unlikelihood":
            return unlikelihood(mine.logits, mine.labels)
        with torch.no_grad(), state.teacher.in_place(vlm):
            reference = sequence_logprob(*answer_logits(vlm, batch.forget.batch))
        return npo(sequence_logprob(mine.logits, mine.labels), reference, beta=self.beta)

    def _place_targets(self, vlm: VLM, split: Split, state: State) -> None:
        """Finds the unknown faces nearest to each forget photo in the teacher's features."""
        known = {record.image for record in (*split.forget, *split.retain)}
        shown = OrderedDict.fromkeys(r.image for r in split.general if r.image is not None)
        unknown = [photo for photo in shown if photo not in known]
        if not unknown:
            raise DataError(
                f"method.target={self.target!r} needs photos of unknown faces among the general "
                "photos, got none; give --general or choose target 'away'"
            )
        people: dict[str, list[Photo]] = {}
        for record in split.forget:
            if record.image is not None and record.image not in people.setdefault(
                record.subject, []
            ):
                people[record.subject].append(record.image)
        theirs = state.teacher.features(vlm, [(p, 0) for p in unknown]).mean(1)
        for photos in people.values():
            own = state.teacher.features(vlm, [(p, 0) for p in photos]).mean(1)
            similarity = F.cosine_similarity(own[:, None], theirs[None], dim=-1)
            together = similarity.mean(0)
            near = together.topk(min(self.neighbours, len(unknown))).indices
            shift = theirs[near].mean(0) - own.mean(0)
            for photo, row in zip(photos, similarity, strict=True):
                state.stand_in[photo] = unknown[int(row.argmax())]
                state.shift[photo] = shift


def _nudge(photo: Photo, features: Tensor) -> Tensor:
    """A hundredth of the features' spread in a direction of the photo's own.

    Every distance is least, and its gradient 0, at the teacher's own features, where the student
    begins: without a nudge `away` alone never would.
    """
    generator = torch.Generator().manual_seed(int(photo.key[:15], 16))
    direction = torch.randn(features.shape, generator=generator).to(features)
    return 0.01 * features.std() * direction
