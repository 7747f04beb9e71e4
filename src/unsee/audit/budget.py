"""Which attacks fit into a time: the strongest first, by what is measured and what they cost.

How strong an attack is, a control that merely hides has shown (benchmarks/hidden_control.py writes
`strengths.json`); one that was not measured there stands behind those that have power and before
the others. What it costs on this model is counted in questions and in rows of training, of which
each is timed once.
"""

import hashlib
import json
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import torch

from unsee.answering import answer_logits, generate_answers
from unsee.artifacts.files import atomic_write_json, read_json
from unsee.attacks.protocol import Attack, Detects, Given, Group, Try
from unsee.attacks.relearning import RelearningPicked
from unsee.audit.attacking import ATTACKED_SET
from unsee.data.collate import IGNORED_LABEL, encode
from unsee.data.records import Record, Split
from unsee.losses import cross_entropy
from unsee.metrics.recovery import RECOVERED_FOR_POWER
from unsee.models.load import VLM
from unsee.models.passes import asking, scoring
from unsee.replies import records_digest

FILE_NAME = "budget.json"
STRENGTHS = "strengths.json"
_TIMED = 8


@dataclass(frozen=True)
class Pace:
    """What a model takes, in seconds.

    Attributes:
        answer_s: To answer a question.
        fit_s: For a row of a pass forth and back.
    """

    answer_s: float
    fit_s: float


@dataclass(frozen=True)
class LeftOut:
    """An attack for which there was no time.

    Attributes:
        why: Said in its place.
    """

    group: ClassVar[Group] = "prompts"
    why: str

    def tries(self, vlm: VLM, given: Given) -> Sequence[Try] | str:
        """None, and why."""
        return self.why


def within(
    attacks: Mapping[str, Attack | Detects],
    minutes: float,
    vlm: VLM,
    split: Split,
    folder: Path | None,
    *,
    models: int,
    kinds: Container[str] = (),
    seed: int = 0,
    spent_s: float = 0.0,
    pace: Callable[[VLM, Sequence[Record]], Pace] | None = None,
) -> tuple[dict[str, Attack | Detects], dict[str, Any]]:
    """The strongest attacks that fit; the others say that there was no time for them.

    What was chosen is kept, so that an audit that is gone on with is the same audit.

    Args:
        attacks: By name.
        minutes: For all attacks on all models.
        vlm: The base, on which is timed.
        split: What the method was given, and what is asked.
        folder: Where the choice is kept; None keeps it nowhere.
        models: How many models are attacked.
        kinds: What the runs under audit change: "weights", "eraser".
        seed: Of the attacks.
        spent_s: Seconds that were spent on a control before.
        pace: Times a model; `paced` if None.

    Returns:
        All attacks in their order, and what a report says of the choice.
    """
    records = [r for r in split.audit.get(ATTACKED_SET, ()) if r.form == "open"]
    tables = {name: _settings(attack) for name, attack in attacks.items()}
    content = [vlm.identity, records_digest(records, seed), tables, minutes, models]
    mark = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
    told = _kept(folder, mark)
    if told is None:
        given = Given(
            split, changes_weights="weights" in kinds, has_eraser="eraser" in kinds, seed=seed
        )
        told = {"mark": mark, "minutes": minutes, "expected_s": {}, "left_out": []}
        if records:
            found = (pace or paced)(vlm, records)
            costs = {
                name: models * _cost_s(attack, vlm, given, len(records), found)
                for name, attack in attacks.items()
            }
            fitting = strongest(costs, strengths(), 60 * minutes - spent_s)
            told["expected_s"] = {name: round(seconds, 3) for name, seconds in costs.items()}
            told["left_out"] = [name for name in attacks if name not in fitting]
        if folder is not None:
            atomic_write_json(folder / FILE_NAME, told)
    why = f"the budget of {minutes:g} minutes leaves no time"
    chosen: dict[str, Attack | Detects] = {
        name: LeftOut(why) if name in told["left_out"] else attack
        for name, attack in attacks.items()
    }
    return chosen, {key: value for key, value in told.items() if key != "mark"}


def strongest(
    costs_s: Mapping[str, float], strength: Mapping[str, float], seconds: float
) -> list[str]:
    """Names of attacks that fit into a time, the strongest first, of equals the cheapest.

    One that does not fit is passed over for weaker ones that do.

    Args:
        costs_s: Expected seconds of each.
        strength: Share of a control that each brought back; `RECOVERED_FOR_POWER` where unknown.
        seconds: For all together.
    """

    def rank(name: str) -> tuple[float, float]:
        return -strength.get(name, RECOVERED_FOR_POWER), costs_s[name]

    chosen, left = [], seconds
    for name in sorted(costs_s, key=rank):
        if costs_s[name] <= left:
            chosen.append(name)
            left -= costs_s[name]
    return chosen


def strengths() -> dict[str, float]:
    """Share of a control that merely hides which each attack brought back when it was measured."""
    text = files("unsee.audit").joinpath(STRENGTHS).read_text(encoding="utf-8")
    return json.loads(text)["recovered"]


def paced(vlm: VLM, records: Sequence[Record]) -> Pace:
    """Times a few answers, and a pass forth and back, each at its second time."""
    few = list(records[:_TIMED])

    def fit() -> None:
        batch = encode(vlm, few, answers=True, side="right").to(vlm.device)
        embeddings = vlm.model.get_input_embeddings().weight
        wanted, own = embeddings.requires_grad, scoring(batch.labels == IGNORED_LABEL)
        embeddings.requires_grad_(True)
        try:
            with torch.enable_grad(), own, asking([record.form for record in few]):
                torch.autograd.grad(cross_entropy(*answer_logits(vlm, batch)), embeddings)
        finally:
            embeddings.requires_grad_(wanted)

    return Pace(_second_s(lambda: generate_answers(vlm, few)) / len(few), _second_s(fit) / len(few))


def _second_s(work: Callable[[], object]) -> float:
    work()
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _cost_s(attack: Any, vlm: VLM, given: Given, questions: int, pace: Pace) -> float:
    """Expected seconds on one model; nothing for an attack that cannot be run."""
    if isinstance(attack, RelearningPicked):
        # Its budget is picked once it is known that there is time for it.
        attack = attack.model_copy(update={"recovered": attack.needed})
    tries = attack.tries(vlm, given) if isinstance(attack, Attack) else ()
    if isinstance(tries, str):
        return 0.0
    fitted = getattr(attack, "rows", None)
    rows = fitted(questions) if fitted is not None else 0
    return len(tries) * questions * pace.answer_s + rows * pace.fit_s


def _kept(folder: Path | None, mark: str) -> dict[str, Any] | None:
    """What was chosen before for the same attacks, questions and time."""
    path = folder / FILE_NAME if folder is not None else None
    if path is None or not path.exists():
        return None
    told = read_json(path)
    return told if isinstance(told, dict) and told.get("mark") == mark else None


def _settings(attack: Any) -> Any:
    return attack.model_dump(mode="json") if hasattr(attack, "model_dump") else {}
