"""Open-MMUnlearning's attacks: changed weights, changed questions, members told from others.

Chen et al. 2026, https://arxiv.org/abs/2610.10358, appendix A.2. Where its code does otherwise than
its text, or needs what is not public, this is **our reading**, listed in docs/benchmarks.md.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from unsee.attacks import attacks_named
from unsee.attacks.membership import Membership
from unsee.attacks.protocol import Attack, Detects, Given
from unsee.attacks.relearning import Lesson, Relearning
from unsee.attacks.universal import Universal
from unsee.attacks.weights import Int4
from unsee.data.records import Record, Split
from unsee.metrics import mllmu, omm
from unsee.metrics.membership import auc
from unsee.models.load import VLM
from unsee.models.truncated import first_layers
from unsee.replies import Replies
from unsee.train import train

INPUT_ATTACKS = ("figstep", "jailbreak", "image rephrasing", "universal change")
# Of LLaVA's 32 layers the paper probes the 16th and the 24th.
PROBES = {"probe at 50%": 1 / 2, "probe at 75%": 3 / 4}
# As published, but that a step has four rows at once where the probe's has four in turn.
_BATCH = 4
_RELEARNING_LR = 2e-5
_PROBE_LR = 1e-5
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
    rephrased = "noise, crop, blur, occlusion, colour"
    change = {"iterations": iterations, "batch": _PHOTOS_A_STEP}
    tried: dict[str, tuple[Mapping[str, Attack | Detects], str]] = {
        "figstep": (attacks_named("typographic"), "forget"),
        "jailbreak": (attacks_named("jailbreak"), "forget"),
        "image rephrasing": (attacks_named(rephrased), "test"),
        "universal change": ({"universal": Universal.model_validate(change)}, "forget"),
    }
    return {
        name: _success(replies, attacks, given, gaps[of]) for name, (attacks, of) in tried.items()
    }


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


def _success(
    replies: Replies,
    attacks: Mapping[str, Attack | Detects],
    given: Given,
    records: Sequence[Record],
) -> dict[str, Any]:
    """Mean over all tries of the share of answers that come."""
    rows: list[Record] = []
    said: list[str] = []
    for attack in attacks.values():
        tries = attack.tries(replies.vlm, given) if isinstance(attack, Attack) else ()
        if isinstance(tries, str):
            return {"not_scored": tries}
        for one in tries:
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
