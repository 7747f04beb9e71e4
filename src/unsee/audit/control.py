"""A control that merely hides: the base, taught to refuse, and no further than it takes.

An attack that cannot bring back what is merely hidden says nothing about what is gone. Refusals are
learned (`unsee.methods.po`) to the very questions that attacks start from, on photos as they are,
while the questions that the method was given about the same people are still answered. Then the
change is taken back as far as it goes while hardly a question is answered:

    w = base + a (refusing - base)    with the least a that hides

So all that was known is still beneath, and little holds it down. It is the weakest hiding there is:
what brings it back may still miss what is hidden better, and what does not has no power at all. Our
own construction; benchmarks/hidden_control.py shows which attacks find which control out.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from unsee.answering import generate_answers
from unsee.artifacts.files import atomic_write_bytes
from unsee.audit.attacking import ATTACKED_SET
from unsee.data.records import Record, Split
from unsee.forget import split_digest
from unsee.methods.po import PO
from unsee.metrics.answers import mentions
from unsee.models.load import VLM
from unsee.models.restore import restored
from unsee.train import may_change, train

AUTO = "auto"
STEPS = (40, 80, 160)
# Share of the questions that may still be answered.
HIDDEN_AT = 0.1
FEWEST_KNOWN = 0.5
_QUESTIONS = 48
_HALVINGS = 5

Progress = Callable[[str, int, int], None]

REFUSING = PO.model_validate(
    {
        "parts": ("language.layers[-2:]",),
        "lr": 1e-3,
        "variants": 1,
        "forget_batch": 16,
        "visible_batch": 8,
        "retain_batch": 4,
        "general_batch": 4,
    }
)


@dataclass(frozen=True)
class Control:
    """Weights that merely hide.

    Attributes:
        tensors: Those that differ from the base's, by name.
        steps: For which refusals were learned.
        share: Of the change that is left, a.
        mark: Tells replies of this control from those of others.
    """

    tensors: Mapping[str, Tensor]
    steps: int
    share: float
    mark: str

    @property
    def told(self) -> dict[str, Any]:
        """What a report says of how it was made."""
        return {"steps": self.steps, "share": self.share}


def as_asked(split: Split) -> Split:
    """Hides the questions that attacks start from; what the method was given is to be answered."""
    asked = tuple(r for r in split.audit.get(ATTACKED_SET, ()) if r.form == "open")
    return replace(split, forget=asked, visible=split.forget)


def hidden(
    vlm: VLM,
    split: Split,
    folder: Path | None,
    *,
    refusing: PO | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Control | str:
    """A control for a base, made once for what is to be hidden and kept.

    Args:
        vlm: The base, which comes back as it was.
        split: What is to be hidden, in the place of what is to be forgotten, and what to keep;
            see `as_asked`.
        folder: Where controls are kept, a file each; None keeps it nowhere.
        refusing: How refusals are learned, `REFUSING` if None; its steps are chosen here, the
            fewest of `STEPS`.
        seed: Of the training.
        progress: Told stage, steps done and steps.

    Returns:
        The control, or why there is none.
    """
    refusing = refusing or REFUSING
    digest = [vlm.identity, split_digest(split), refusing.model_dump(mode="json"), seed]
    mark = f"control-{hashlib.sha256(json.dumps(digest).encode()).hexdigest()[:12]}"
    path = folder / f"{mark}.safetensors" if folder is not None else None
    if path is not None and path.exists():
        return _read(path, mark)
    asked = [r for r in split.forget if r.form == "open" and r.image is not None]
    if not asked:
        return f"there are no open questions on photos in {ATTACKED_SET}"
    sample = asked[:: -(-len(asked) // _QUESTIONS)]
    if _answered(vlm, sample) < FEWEST_KNOWN:
        return "the model before answers too few of the questions to hide"
    names = may_change(vlm, refusing)
    for steps in STEPS:
        method = refusing.model_copy(update={"steps": steps})
        with restored(vlm.model, names):
            old = _copies(vlm, names)
            train(vlm, split, method, seed=seed, progress=_named(progress))
            new = _copies(vlm, names)
            share = _least(lambda a, old=old, new=new: _hides(vlm, old, new, a, sample))
            if share is not None:
                _put(vlm, old, new, share)
                made = Control(_copies(vlm, names), steps, share, mark)
                if path is not None:
                    told = {"steps": str(steps), "share": repr(share)}
                    atomic_write_bytes(path, save(dict(made.tensors), metadata=told))
                return made
    return f"{STEPS[-1]} steps of refusing do not hide the answers"


@contextmanager
def under_control(vlm: VLM, control: Control) -> Iterator[VLM]:
    """The base as the control while the block runs; behind it as it was, bit for bit."""
    with restored(vlm.model, control.tensors):
        _put(vlm, control.tensors, control.tensors, 1.0)
        yield vlm


def _read(path: Path, mark: str) -> Control:
    with safe_open(path, framework="pt") as file:
        told = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return Control(tensors, int(told["steps"]), float(told["share"]), mark)


def _answered(vlm: VLM, records: list[Record]) -> float:
    answers = generate_answers(vlm, records)
    return float(np.mean([mentions(r, a) for r, a in zip(records, answers, strict=True)]))


def _hides(
    vlm: VLM,
    old: Mapping[str, Tensor],
    new: Mapping[str, Tensor],
    share: float,
    sample: list[Record],
) -> bool:
    _put(vlm, old, new, share)
    return _answered(vlm, sample) <= HIDDEN_AT


def _least(hides: Callable[[float], bool]) -> float | None:
    """The least share that hides, to 1/32; None if all of the change does not."""
    if not hides(1.0):
        return None
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if hides(middle) else (middle, high)
    return high


def _put(vlm: VLM, old: Mapping[str, Tensor], new: Mapping[str, Tensor], share: float) -> None:
    own = vlm.model.state_dict()
    with torch.no_grad():
        for name, tensor in old.items():
            mixed = torch.lerp(tensor.float(), new[name].float(), share)
            own[name].copy_(mixed.to(tensor.dtype))


def _copies(vlm: VLM, names: list[str]) -> dict[str, Tensor]:
    own = vlm.model.state_dict()
    return {name: own[name].detach().to("cpu", copy=True) for name in names}


def _named(progress: Progress | None) -> Progress | None:
    """The same bar under a name of its own."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(f"control: {stage}", done, total)
