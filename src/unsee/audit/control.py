"""A control that merely hides: the base, taught to refuse, and no further than it takes.

An attack that cannot bring back what is merely hidden says nothing about what is gone. Refusals
are learned at the output (`unsee.methods.po`) in the fewest steps of `STEPS` after which hardly a
given question about the subjects is answered: all that was known is still beneath, and little holds
it down. Our own construction; benchmarks/hidden_control.py shows which attacks find it out.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from unsee.answering import generate_answers
from unsee.data.records import Record, Split
from unsee.erasers.storage import under_artifacts
from unsee.forget import Run, forget, split_digest
from unsee.methods.po import PO
from unsee.metrics.answers import mentions
from unsee.models.load import VLM

AUTO = "auto"
STEPS = (10, 20, 40, 80, 160)
# Share of the given questions that may still be answered.
HIDDEN_AT = 0.1
FEWEST_KNOWN = 0.5
_QUESTIONS = 48

Progress = Callable[[str, int, int], None]

REFUSING = PO(
    parts=("language.layers[-1:]", "head"),
    lr=1e-3,
    forget_batch=8,
    visible_batch=2,
    retain_batch=6,
    general_batch=8,
    checkpoint_every=0,
)


def hidden(
    vlm: VLM,
    split: Split,
    folder: Path,
    *,
    refusing: PO = REFUSING,
    seed: int = 0,
    progress: Progress | None = None,
) -> Run | str:
    """A run that merely hides; made once for a base, what is forgotten and the settings.

    Args:
        vlm: The base, which comes back as it was.
        split: What was to be forgotten, and what to keep.
        folder: Where control runs are kept, a folder each; one that is there is used again.
        refusing: How refusals are learned; its steps are chosen here.
        seed: Of the training.
        progress: As for `unsee.forget`.

    Returns:
        The run, or why there is none.
    """
    asked = _given(split)
    if not asked:
        return "the method was given no open questions on photos"
    if _answered(vlm, asked) < FEWEST_KNOWN:
        return "the model before answers too few of the questions that the method was given"
    digest = [vlm.identity, split_digest(split), refusing.model_dump(mode="json"), seed]
    key = hashlib.sha256(json.dumps(digest).encode()).hexdigest()[:12]
    for steps in STEPS:
        method = refusing.model_copy(update={"steps": steps})
        out = folder / f"control-{key}-{steps}"
        run = forget(vlm, split, method=method, seed=seed, out=out, progress=progress)
        with under_artifacts(vlm, [out]):
            if _answered(vlm, asked) <= HIDDEN_AT:
                return run
    return f"{STEPS[-1]} steps of refusing do not hide the answers"


def _given(split: Split) -> list[Record]:
    """Some open questions that the method is given, spread over its photos."""
    asked = [r for r in split.forget if r.form == "open" and r.image is not None]
    return asked[:: max(1, -(-len(asked) // _QUESTIONS))]


def _answered(vlm: VLM, records: list[Record]) -> float:
    answers = generate_answers(vlm, records)
    return float(np.mean([mentions(r, a) for r, a in zip(records, answers, strict=True)]))
