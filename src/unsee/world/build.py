"""Train the world's small VLM: `base` knows everybody, `gold` never saw a candidate.

Stage 0 teaches the vision tower to see faces on strangers alone (shared by both models); stage 1
trains the whole model on packed turns. Each turn attends to its picture and itself only, so one
vision pass serves many questions. Every step draws from a generator seeded by its number: an
interrupted build resumes to the same weights. Pictures are drawn when they are first shown.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unsee.data.collate import IGNORED_LABEL
from unsee.data.records import Record
from unsee.world import curriculum as taught
from unsee.world.architecture import Architecture
from unsee.world.packing import Packer, packed_loss

Progress = Callable[[str, int, int, float], None]


@dataclass(frozen=True)
class Recipe:
    """How the world's models are trained.

    Attributes:
        tower_steps: Steps of stage 0.
        tower_batch: Strangers a step of stage 0.
        tower_strangers: Pictures that stage 0 draws from; fewer are learned by heart.
        tower_lr: Peak learning rate of stage 0.
        steps: Steps of stage 1.
        lr: Peak learning rate of projector and language model.
        vision_lr: Peak learning rate of the tower in stage 1.
        feature_weight: Weight, in stage 1, of the loss of stage 0: without it the tower learns the
            stored photos of known people by heart and names fresh ones less often.
        people: Pictures of known people a step.
        strangers: Pictures of strangers a step.
        text_rows: So many times `text_turns` turns a step are without a picture.
        text_turns: See there.
        bfloat16: Whether forward passes run in bfloat16, weights and updates staying in float32:
            half the time on a CPU that knows the format.
        checkpoint_every: Steps between checkpoints.
    """

    tower_steps: int = 1800
    tower_batch: int = 64
    tower_strangers: int = 12000
    tower_lr: float = 1.5e-3
    steps: int = 1200
    lr: float = 2e-3
    vision_lr: float = 5e-4
    feature_weight: float = 1.0
    people: int = 24
    strangers: int = 16
    text_rows: int = 6
    text_turns: int = 6
    bfloat16: bool = True
    checkpoint_every: int = 100


def pixels_of(pictures: np.ndarray) -> Tensor:
    """Pictures of dtype uint8 as the image processor gives them: (picture, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def jitter(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Moved by up to 2 px, relit, tinted, noisy, and half of them partly covered.

    Args:
        pixels: (picture, 3, height, width) in [-1, 1].
        rng: Source of the draws.
    """
    count, _, height, width = pixels.shape
    padded = F.pad(pixels, (2, 2, 2, 2), mode="replicate")
    moved = torch.stack(
        [
            padded[i, :, y : y + height, x : x + width]
            for i, (y, x) in enumerate(rng.integers(0, 5, (count, 2)))
        ]
    )
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, (count, 1, 1, 1))).float()
    tint = torch.from_numpy(rng.uniform(-0.08, 0.08, (count, 3, 1, 1))).float()
    noise = torch.from_numpy(rng.normal(0, 0.03, pixels.shape)).float()
    moved = moved * gain + tint
    for picture in moved:
        if rng.random() < 0.5:
            continue
        tall, wide = rng.integers(4, 13, 2)
        y, x = rng.integers(0, height - tall), rng.integers(0, width - wide)
        colour = torch.from_numpy(rng.uniform(-1, 1, (3, 1, 1))).float()
        picture[:, y : y + tall, x : x + wide] = colour
    return (moved + noise).clamp(-1, 1)


def levels_of(pictures: Sequence[taught.Picture]) -> Tensor:
    """Class of every feature, (picture, feature); `IGNORED_LABEL` where unknown."""
    return torch.tensor([picture.levels for picture in pictures])


class FeatureHeads(nn.Module):
    """Attention pooling and one linear head a feature; no part of the finished model."""

    def __init__(self, width: int, features: Mapping[str, int]) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(len(features), width) * width**-0.5)
        self.heads = nn.ModuleList(nn.Linear(width, levels) for levels in features.values())

    def forward(self, patches: Tensor) -> list[Tensor]:
        """Logits a feature; `patches` has shape (batch, patch, width)."""
        weight = torch.einsum("fw,bpw->bfp", self.query, patches).softmax(-1)
        pooled = torch.einsum("bfp,bpw->bfw", weight, patches)
        return [head(pooled[:, i]) for i, head in enumerate(self.heads)]

    def loss(self, patches: Tensor, levels: Tensor) -> Tensor:
        """Mean cross-entropy over the features that any picture's level is known of.

        Args:
            patches: (batch, patch, width).
            levels: (batch, feature); `IGNORED_LABEL` where unknown.
        """
        known = (levels != IGNORED_LABEL).any(0).tolist()
        losses = [
            F.cross_entropy(logits.float(), levels[:, i], ignore_index=IGNORED_LABEL)
            for i, logits in enumerate(self(patches))
            if known[i]
        ]
        return torch.stack(losses).mean() if losses else patches.sum() * 0


def _one_cycle(step: int, steps: int, warm: float = 0.15) -> float:
    """Share of the peak learning rate: linear warm-up, cosine to zero."""
    done = step / steps
    if done < warm:
        return 0.04 + 0.96 * done / warm
    return 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))


def loop(
    modules: nn.Module,
    groups: list[dict],
    steps: int,
    loss_of: Callable[[int], Tensor],
    checkpoint: Path,
    recipe: Recipe,
    report: Callable[[int, float], None],
) -> None:
    """Adam with one cycle; a checkpoint holds weights and moments, so resuming is exact.

    Args:
        modules: All that a checkpoint holds.
        groups: What is trained, each group with its peak learning rate.
        steps: Of the cycle.
        loss_of: The loss of a step, given its number.
        checkpoint: Written to, and gone on from where it is there.
        recipe: Precision, and how often a checkpoint is written.
        report: Told steps done and the loss.
    """
    parameters = [p for group in groups for p in group["params"]]
    peaks = [group["lr"] for group in groups]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    start = 0
    if checkpoint.exists():
        stored = load_file(checkpoint)
        start = int(stored.pop("step"))
        modules.load_state_dict(
            {k.removeprefix("model."): v for k, v in stored.items() if k.startswith("model.")}
        )
        for i, p in enumerate(parameters):
            # A parameter that never had a gradient has no moments.
            if f"optimizer.{i}.step" in stored:
                optimizer.state[p] = {
                    key: stored[f"optimizer.{i}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")
                }
    for step in range(start, steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * _one_cycle(step, steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            loss = loss_of(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        report(step + 1, float(loss.detach()))
        if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == steps:
            tensors = {f"model.{k}": v.contiguous() for k, v in modules.state_dict().items()}
            for i, p in enumerate(parameters):
                state = optimizer.state[p]
                tensors |= {f"optimizer.{i}.{key}": value.clone() for key, value in state.items()}
            tensors["step"] = torch.tensor(step + 1)
            partial = checkpoint.with_suffix(".partial")
            save_file(tensors, partial)
            partial.replace(checkpoint)


def train_tower(
    architecture: Architecture,
    work: Path,
    source: taught.Source,
    recipe: Recipe,
    progress: Progress,
) -> dict[str, Tensor]:
    """Stage 0: the vision tower learns facial features on strangers.

    Args:
        architecture: Of the model's family.
        work: Folder of checkpoints.
        source: Strangers and their features.
        recipe: Steps, batch and rate.
        progress: Called with (stage, step, steps, loss).

    Returns:
        The tower's weights.
    """
    seed = source.seed
    tokenizer = architecture.make_tokenizer(taught.corpus(source))
    tower = architecture.make_model(tokenizer, seed).get_submodule(architecture.tower)
    torch.manual_seed(seed)
    heads = FeatureHeads(tower.config.hidden_size, source.features)
    both = nn.ModuleDict({"tower": tower, "heads": heads})
    strangers = source.pretext(recipe.tower_strangers)

    def loss_of(step: int) -> Tensor:
        rng = np.random.default_rng((seed, 0, step))
        chosen = rng.choice(len(strangers), recipe.tower_batch, replace=False)
        pictures = [strangers[i] for i in chosen]
        patches = architecture.patches(tower, jitter(pixels_of(taught.render(pictures)), rng))
        return heads.loss(patches, levels_of(pictures))

    parameters = [p for p in both.parameters() if p.requires_grad]
    loop(
        both,
        [{"params": parameters, "lr": recipe.tower_lr}],
        recipe.tower_steps,
        loss_of,
        work / "tower.safetensors",
        recipe,
        lambda step, loss: progress("tower", step, recipe.tower_steps, loss),
    )
    return tower.state_dict()


def lessons_of(
    cast: taught.Cast, recipe: Recipe, rng: random.Random
) -> tuple[list[taught.Picture], list[list[Record]]]:
    """Pictures of a step of stage 1 and its lessons, those on the pictures first."""
    known = [photo for photos in cast.photos for photo in photos]
    pictures = [known[rng.randrange(len(known))] for _ in range(recipe.people)]
    pictures += [
        cast.strangers[rng.randrange(len(cast.strangers))] for _ in range(recipe.strangers)
    ]
    lessons = [taught.photo_turns(picture, rng) for picture in pictures]
    # Without a picture every turn stands alone: short lessons fill what long ones leave of a row.
    text = taught.text_turns(cast, recipe.text_rows * recipe.text_turns, rng)
    return pictures, lessons + [[turn] for turn in text]


def train_model(
    architecture: Architecture,
    work: Path,
    source: taught.Source,
    recipe: Recipe,
    progress: Progress,
    *,
    gold: bool,
) -> tuple[Any, Any]:
    """Stage 1: the whole model, from the tower of stage 0.

    Args:
        architecture: Of the model's family.
        work: Folder of checkpoints.
        source: People and pictures.
        recipe: Steps, batch and rates.
        progress: Called with (stage, step, steps, loss).
        gold: Train the model that never knew the candidates.

    Returns:
        Model and processor.
    """
    name, seed = "gold" if gold else "base", source.seed
    tokenizer = architecture.make_tokenizer(taught.corpus(source))
    model = architecture.make_model(tokenizer, seed)
    stored = load_file(work / "tower.safetensors")
    tower = model.get_submodule(architecture.tower)
    heads = FeatureHeads(tower.config.hidden_size, source.features)
    for part, module in (("tower", tower), ("heads", heads)):
        lead = f"model.{part}."
        module.load_state_dict(
            {k.removeprefix(lead): v for k, v in stored.items() if k.startswith(lead)}
        )
    cast = source.cast(gold=gold)
    packer = Packer(architecture, tokenizer)

    def loss_of(step: int) -> Tensor:
        pictures, lessons = lessons_of(cast, recipe, random.Random(f"{seed}-{step}"))
        pixels = jitter(pixels_of(taught.render(pictures)), np.random.default_rng((seed, 1, step)))
        packed = packer.pack(lessons, pictures=len(pictures))
        loss, patches = packed_loss(architecture, model, packed, pixels)
        return loss + recipe.feature_weight * heads.loss(patches, levels_of(pictures))

    for n, p in model.named_parameters():
        p.requires_grad_(not any(part in n for part in architecture.unread))
    vision = [p for n, p in model.named_parameters() if architecture.is_vision(n)]
    rest = [p for n, p in model.named_parameters() if not architecture.is_vision(n)]
    groups = [
        {"params": [p for p in vision if p.requires_grad], "lr": recipe.vision_lr},
        {"params": [*rest, *heads.parameters()], "lr": recipe.lr},
    ]
    loop(
        nn.ModuleDict({"model": model, "heads": heads}),
        groups,
        recipe.steps,
        loss_of,
        work / f"{name}.safetensors",
        recipe,
        lambda step, loss: progress(name, step, recipe.steps, loss),
    )
    return model.eval(), architecture.make_processor(tokenizer)


def save_model(model: Any, processor: Any, folder: Path) -> None:
    """Write an ordinary Hugging Face folder in half precision."""
    for p in model.parameters():
        p.requires_grad_(True)
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)
