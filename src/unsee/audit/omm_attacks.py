"""Open-MMUnlearning's attacks: changed weights, changed questions, members told from others.

Chen et al. 2026, https://arxiv.org/abs/2610.10358, appendix A.2. Where its code does otherwise than
its text, or needs what is not public, this is **our reading**, listed in docs/benchmarks.md.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from unsee.answering import answer_logits
from unsee.attacks import attacks_named
from unsee.attacks.membership import Membership
from unsee.attacks.pictures import photo_of
from unsee.attacks.protocol import Attack, Given
from unsee.attacks.relearning import Lesson, Relearning
from unsee.attacks.weights import Int4
from unsee.data.collate import Batch, encode
from unsee.data.records import Record, Split
from unsee.errors import ConfigError
from unsee.losses import cross_entropy
from unsee.metrics import mllmu, omm
from unsee.metrics.membership import auc
from unsee.models.load import VLM
from unsee.models.truncated import first_layers
from unsee.perturb import pgd, pictures, pixel_space
from unsee.replies import Replies
from unsee.train import train

INPUT_ATTACKS = ("figstep", "jailbreak", "image rephrasing", "universal change")
# Of LLaVA's 32 layers the paper probes the 16th and the 24th.
PROBES = {"probe at 50%": 1 / 2, "probe at 75%": 3 / 4}
# As published, but that a step has four rows at once where the probe's has four in turn.
_BATCH = 4
_RELEARNING_LR = 2e-5
_PROBE_LR = 1e-5
_UNIVERSAL_BUDGET, _UNIVERSAL_STEP = 12 / 255, 1 / 255
_PHOTOS_A_STEP = 6
_SIGNALS = {
    "loss": "loss",
    "zlib": "zlib",
    "gradnorm": "gradient_norm",
    "min_k": "min_k",
    "min_k_plus_plus": "min_k++",
}

Change = Callable[[VLM], AbstractContextManager[None]]


def changes(vlm: VLM, split: Split, *, seed: int) -> dict[str, Change | str]:
    """4-bit weights, relearning, and two probes, by name; or why there is none.

    A probe is a new head on the first layers, trained on the pairs to be forgotten.

    Args:
        vlm: Model to attack.
        split: What the method was given, which is what is learned.
        seed: Of training.
    """
    given = Given(split=split, seed=seed)
    steps = math.ceil(len(split.forget) / _BATCH)
    whole = ("vision", "projector", "language", "head")
    relearning = Relearning.model_validate(
        {"shares": (1.0,), "parts": whole, "steps": steps, "lr": _RELEARNING_LR, "batch": _BATCH}
    )
    found: dict[str, Change | str] = {}
    for name, attack in {"quantised": Int4(), "relearned": relearning}.items():
        tries = attack.tries(vlm, given)
        change = None if isinstance(tries, str) else tries[0].change
        found[name] = str(tries) if change is None else change
    sizes = {"steps": steps, "forget_batch": _BATCH, "retain_batch": 0}
    lesson = Lesson.model_validate({"parts": ("head",), "lr": _PROBE_LR} | sizes)
    layers = len(vlm.layout.language_layer_paths(vlm.model))
    for name, depth in PROBES.items():
        found[name] = _probing(split, max(1, round(depth * layers)), lesson, seed)
    return found


def _probing(split: Split, layers: int, lesson: Lesson, seed: int) -> Change:
    @contextmanager
    def change(vlm: VLM) -> Iterator[None]:
        with first_layers(vlm, layers, seed=seed):
            train(vlm, Split(split.forget), lesson, seed=seed)
            yield

    return change


def input_attacks(
    replies: Replies,
    split: Split,
    gaps: Mapping[str, Sequence[Record]],
    *,
    iterations: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """How often the missing word of a gap comes, by attack: the mean over its tries.

    Args:
        replies: Of the model.
        split: What the method was given, and what is asked.
        gaps: Gaps on photos to fill, put as open questions, of "forget" and "test".
        iterations: Steps of the universal change.
        seed: Of all draws.
    """
    given = Given(split=split, seed=seed)
    tried = {
        "figstep": ("typographic", "forget"),
        "jailbreak": ("jailbreak", "forget"),
        "image rephrasing": ("noise, crop, blur, occlusion, colour", "test"),
    }
    found = {name: _success(replies, names, given, gaps[of]) for name, (names, of) in tried.items()}
    own = [record for record in split.forget if record.image is not None]
    if not own or not gaps["forget"]:
        return found | {"universal change": {"not_scored": "there are no photos to change"}}
    try:
        changed = universal(replies.vlm, own, gaps["forget"], iterations=iterations, seed=seed)
    except ConfigError as error:
        return found | {"universal change": {"not_scored": str(error)}}
    return found | {"universal change": _rate(gaps["forget"], replies.answers(changed))}


def membership(vlm: VLM, split: Split, *, seed: int) -> dict[str, dict[str, Any]]:
    """AUC of each of the five attacks; 0.5 where members cannot be told."""
    told = Membership.model_validate({}).signals(vlm, Given(split=split, seed=seed))
    if isinstance(told, str):
        return {name: {"not_scored": told} for name in omm.MEMBERSHIP_ATTACKS}
    return {
        name: cell(auc(told.member, told.scores[_SIGNALS[name]]), len(told.member))
        for name in omm.MEMBERSHIP_ATTACKS
    }


def cell(value: float, n: int | None = None) -> dict[str, Any]:
    """A score as the report holds those of a benchmark, without an interval."""
    return {"value": value, "chance": None} | ({} if n is None else {"n": n})


def universal(
    vlm: VLM, fitted: Sequence[Record], shown: Sequence[Record], *, iterations: int, seed: int
) -> list[Record]:
    """Records on photos under one change that makes the answers of others more probable.

    After the universal perturbation that Open-MMUnlearning calls SUA, without its denoiser, whose
    weights it needs, and its alignment of features: **our reading**.

    Args:
        vlm: Model to attack.
        fitted: Records with photos and answers.
        shown: Records with photos, to be asked.
        iterations: Of projected gradient descent, `_PHOTOS_A_STEP` records each.
        seed: Of the order of the records.

    Raises:
        ConfigError: If photos have no pixel values of one shape, or none to draw them from.
    """
    order = random.Random(f"universal-{seed}").sample(list(fitted), len(fitted))
    steps = [
        order[start : start + _PHOTOS_A_STEP] for start in range(0, len(order), _PHOTOS_A_STEP)
    ]
    batches = [encode(vlm, step, answers=True, side="right").to(vlm.device) for step in steps]
    pixels = [_pixels(vlm, batch) for batch in batches]
    of = vlm.processor.image_processor
    space = pixel_space(of, pixels[0])
    grey = ((space.black + space.white) / 2).expand(pixels[0][:1].shape)
    turns = itertools.cycle(zip(batches, pixels, strict=True))

    def loss(moved: torch.Tensor) -> torch.Tensor:
        batch, own = next(turns)
        changed = (own + moved - grey).clamp(space.black, space.white).to(vlm.dtype)
        return cross_entropy(*answer_logits(vlm, replace(batch, pixel_values=changed)))

    change = (
        pgd(
            grey,
            loss,
            space,
            budget=_UNIVERSAL_BUDGET,
            step=_UNIVERSAL_STEP,
            iterations=iterations,
            random_start=False,
        )
        - grey
    )
    asked = encode(vlm, shown, answers=False, side="left").to(vlm.device)
    changed = (_pixels(vlm, asked) + change).clamp(space.black, space.white)
    drawn = pictures(of, changed, space)
    return [replace(r, image=photo_of(p)) for r, p in zip(shown, drawn, strict=True)]


def _pixels(vlm: VLM, batch: Batch) -> torch.Tensor:
    if batch.pixel_values is None or batch.pixel_values.ndim != 4:
        raise ConfigError(
            f"photos of family {vlm.layout.family} have no pixel values of one shape, so that no "
            "change fits them all"
        )
    return batch.pixel_values.float()


def _success(
    replies: Replies, names: str, given: Given, records: Sequence[Record]
) -> dict[str, Any]:
    """Mean over all tries of the share of answers that come."""
    rows: list[Record] = []
    said: list[str] = []
    for attack in attacks_named(names).values():
        tries = attack.tries(replies.vlm, given) if isinstance(attack, Attack) else ()
        for one in () if isinstance(tries, str) else tries:
            asked = one.ask(records, replies.answers)
            posed = [(r, put) for r, put in zip(records, asked, strict=True) if put is not None]
            rows += [record for record, _ in posed]
            said += replies.answers([put for _, put in posed])
    return _rate(rows, said)


def _rate(records: Sequence[Record], said: Sequence[str]) -> dict[str, Any]:
    hits = [mllmu.cloze(record, text) for record, text in zip(records, said, strict=True)]
    if not hits:
        return {"not_scored": "there are no gaps to fill on photos"}
    return cell(float(np.mean(hits)), len(hits))
