"""The same questions asked again under attacks, and what that brings back beside gold."""

import hashlib
import json
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unsee.attacks.protocol import Attack, Detects, Given, Reading, Signals, Try
from unsee.audit.detection import detection_cell, detection_judgement, with_reference
from unsee.audit.outcomes import NO_GOLD, Found, Outcome, beside_gold, outcome_of
from unsee.data.records import Record, Split
from unsee.metrics import recovery
from unsee.metrics.answers import mentions
from unsee.metrics.intervals import mean_interval
from unsee.models.load import VLM
from unsee.replies import Progress, Replies

ATTACKED_SET = "forget_unseen"
NO_QUESTIONS = f"there are no open questions in {ATTACKED_SET}"

OpenReplies = Callable[[VLM, str, str, Progress | None], Replies]


class Campaign:
    """All attacks of an audit, on one model after the other.

    Args:
        base: The model before, which every other is compared with.
        split: What the method was given, and what is asked.
        attacks: By name; none asks nothing.
        replies: Opens the replies of a model, given its name, a mark for what is changed while they
            are given, and whom to tell of progress.
        changed: Names of base's tensors that runs will change in place.
        kinds: What the runs under audit change: "weights", "eraser".
        seed: Of the attacks and the intervals.
        progress: Told stage, questions done and questions in all.
    """

    def __init__(
        self,
        base: VLM,
        split: Split,
        attacks: Mapping[str, Attack | Detects],
        replies: OpenReplies,
        *,
        changed: Iterable[str] = (),
        kinds: Container[str] = (),
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self._base = base
        self._identity = base.identity
        self._split = split
        self._attacks = attacks
        self._replies = replies
        self._kinds = kinds
        self._seed = seed
        self._progress = progress
        self._records = tuple(
            record for record in split.audit.get(ATTACKED_SET, ()) if record.form == "open"
        )
        # Of what is changed in place there is no other copy to mix back in.
        names = set(changed) if attacks else set()
        self._old = {
            name: tensor.detach().to("cpu", copy=True)
            for name, tensor in base.model.state_dict().items()
            if name in names
        }
        self._outcomes: dict[str, dict[str, Found]] = {}
        self._wall_s: dict[str, float] = {}
        self._found: dict[Any, Any] = {}

    def attack(self, vlm: VLM, name: str, mark: str = "") -> None:
        """Ask one model everything under every attack; behind that it is as before, bit for bit.

        The erased model comes first: what is fitted on it is what the others are asked with.

        Args:
            vlm: The model, as it answers.
            name: "base", "erased", "gold" or "control".
            mark: Of the erasers that it runs under.
        """
        if not self._attacks:
            return
        started = time.monotonic()
        given = Given(
            split=self._split,
            changes_weights="weights" in self._kinds,
            has_eraser="eraser" in self._kinds,
            base=self._old_tensors(vlm, name),
            seed=self._seed,
            found=self._found,
        )
        self._outcomes[name] = self._attempt(vlm, name, mark, given)
        self._wall_s[name] = time.monotonic() - started

    def cells(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Cells of `report.json` by model and attack; judgement stands with the erased model."""
        judged = "erased" if "erased" in self._outcomes else "base"
        cells: dict[str, dict[str, dict[str, Any]]] = {
            model: {} for model in self._outcomes if model != "control"
        }
        for key, attack in self._attacks.items():
            found = self._found_by(key)
            gold = found.get("gold")
            found = {
                model: with_reference(outcome, gold) if isinstance(outcome, Signals) else outcome
                for model, outcome in found.items()
            }
            refused = found[judged]
            for model, row in cells.items():
                outcome = refused if isinstance(refused, str) else found[model]
                if isinstance(outcome, str):
                    row[key] = {"not_scored": outcome}
                    continue
                row[key] = self._cell(outcome, attack)
                if model == judged:
                    row[key] |= self._judgement(outcome, found, attack)
        return cells

    def _found_by(self, key: str) -> dict[str, Found]:
        """What each model gave away under an attack, told beside gold where it has to be."""
        found = {model: outcomes[key] for model, outcomes in self._outcomes.items()}
        gold = found.get("gold", NO_GOLD)
        return {model: beside_gold(outcome, gold) for model, outcome in found.items()}

    def _cell(self, outcome: Outcome | Signals, attack: Any) -> dict[str, Any]:
        if isinstance(outcome, Signals):
            return detection_cell(outcome, attack, _settings(attack), self._seed)
        return _cell(outcome, attack, self._records, self._seed)

    def _judgement(
        self, outcome: Outcome | Signals, found: Mapping[str, Found], attack: Any
    ) -> dict[str, Any]:
        if isinstance(outcome, Signals):
            signals = {m: o for m, o in found.items() if not isinstance(o, Outcome)}
            return detection_judgement(outcome, signals, self._seed)
        outcomes = {m: o for m, o in found.items() if not isinstance(o, Signals)}
        said = _judgement(outcome, outcomes, self._records, self._seed)
        weak = getattr(attack, "why_weak", "")
        if weak and said["power"]:
            said |= {"power": False, "power_why": weak}
        gold = outcomes.get("gold")
        if attack.group == "relearning" and isinstance(gold, Outcome):
            said["gain"] = _gain(outcome, gold, self._records, self._seed)
        return said

    def samples(self) -> dict[str, dict[str, NDArray[np.float64]]]:
        """Success with each question, by model and attack; NaN where one could not be asked.

        An attack that asks no questions, such as on membership, has none.
        """
        samples: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in self._outcomes}
        for key in self._attacks:
            for model, outcome in self._found_by(key).items():
                if isinstance(outcome, Outcome):
                    samples[model][key] = outcome.success
        return samples

    def about(
        self,
        control: Iterable[Path] = (),
        made: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """What a report says about the attacks as a whole; nothing without any.

        Args:
            control: Runs that merely hide.
            made: How a control was made instead, or why none was.
            more: What else there is to say, by name; what is None is left out.
        """
        if not self._attacks:
            return {}
        said = {
            "set": ATTACKED_SET,
            "questions": len(self._records),
            "right": "the answer stands in the reply",
            "control": [str(folder) for folder in control],
            "wall_s": self._wall_s,
        }
        if made is not None:
            said["made_control"] = dict(made)
        return {"attacks": said | {name: told for name, told in more.items() if told is not None}}

    def _attempt(self, vlm: VLM, name: str, mark: str, given: Given) -> dict[str, Found]:
        if not self._records:
            return dict.fromkeys(self._attacks, NO_QUESTIONS)
        outcomes: dict[str, Found] = {
            key: attack.signals(vlm, given)
            for key, attack in self._attacks.items()
            if isinstance(attack, Detects)
        }
        plans = {
            key: attack.tries(vlm, given)
            for key, attack in self._attacks.items()
            if isinstance(attack, Attack)
        }
        count = sum(len(plan) for plan in plans.values() if not isinstance(plan, str))
        gauge = _Gauge(self._progress, f"{name}: attacks", count * len(self._records))
        told = self._replies(vlm, name, mark, gauge)
        plain = _right(self._records, told.answers(self._records))
        for key, plan in plans.items():
            if isinstance(plan, str):
                outcomes[key] = plan
                continue
            readings = {}
            for one in plan:
                changed = told
                if one.change is not None:
                    marks = filter(None, (mark, self._mark(key, one)))
                    changed = self._replies(vlm, name, "-".join(marks), gauge)
                readings[one.name] = _try(vlm, one, self._records, told, changed)
                gauge.advance(len(self._records))
            outcome = outcome_of(plain, readings)
            outcomes[key] = outcome if outcome.asked.any() else "no question can be asked so"
        return outcomes

    def _old_tensors(self, vlm: VLM, name: str) -> Mapping[str, Tensor]:
        """Base's tensors where a model may have others."""
        if name == "base":
            return {}
        return self._old if vlm is self._base else self._base.model.state_dict()

    def _mark(self, key: str, one: Try) -> str:
        """What a changed model's answers are kept under; base counts, since it may be mixed in."""
        made_of = [one.made_of] if one.made_of else []
        content = json.dumps([_settings(self._attacks[key]), self._identity, *made_of])
        return f"{key}.{one.name}.{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def _try(vlm: VLM, one: Try, records: Sequence[Record], told: Replies, changed: Replies) -> Reading:
    if one.read is not None:
        return one.read(vlm, records)
    asked = one.ask(records, told.answers)
    rows = [row for row, record in enumerate(asked) if record is not None]
    posed = [record for record in asked if record is not None]
    # Training, say, is not done again for what was answered before.
    change = one.change(vlm) if one.change and changed.lacks(posed) else nullcontext()
    with change:
        answers = (changed if one.change else told).answers(posed)
    success = np.full(len(records), np.nan)
    success[rows] = _right(posed, answers)
    return Reading(success)


def _right(records: Sequence[Record], answers: Sequence[str]) -> NDArray[np.float64]:
    return np.array([mentions(r, a) for r, a in zip(records, answers, strict=True)])


def _settings(attack: Any) -> dict[str, Any]:
    return attack.model_dump(mode="json") if hasattr(attack, "model_dump") else {}


def _cell(outcome: Outcome, attack: Attack, records: Sequence[Record], seed: int) -> dict[str, Any]:
    asked = outcome.asked
    people = [record.subject for record, kept in zip(records, asked, strict=True) if kept]
    found = mean_interval(outcome.success[asked], people, seed=seed)
    tries = {name: v[~np.isnan(v)] for name, v in outcome.tries.items()}
    beside: dict[str, Any] = {"beside": outcome.beside} if outcome.beside else {}
    if outcome.measure:
        beside["measure"] = outcome.measure
    return {
        "value": found.value,
        "ci": [found.low, found.high],
        "n": found.n,
        "group": attack.group,
        "budget": {"tries": len(tries), "settings": _settings(attack)},
        "plain": outcome.before_and_under[0],
        "tries": {name: float(v.mean()) for name, v in tries.items() if len(v)},
    } | beside


def _judgement(
    outcome: Outcome,
    found: Mapping[str, Outcome | str],
    records: Sequence[Record],
    seed: int,
) -> dict[str, Any]:
    """How far above gold the erased model is, and whether the attack has power."""
    base, gold, control = (found.get(model) for model in ("base", "gold", "control"))
    said: dict[str, Any] = {"above_gold": {"not_scored": NO_GOLD}}
    if isinstance(gold, str):
        said["above_gold"] = {"not_scored": gold}
    elif gold is not None:
        people = [record.subject for record in records]
        gap = recovery.above_gold(outcome.success, gold.success, people, seed=seed)
        said["above_gold"] = {"value": gap.value, "ci": [gap.low, gap.high]}
    kept = None
    if isinstance(base, Outcome):
        before, under = base.before_and_under
        kept = recovery.base_kept(under, before)
        said["base_kept"] = kept
    regained = None
    if isinstance(control, Outcome):
        beside = gold.before_and_under if isinstance(gold, Outcome) else None
        regained = recovery.hidden_recovered(control.before_and_under, beside)
        before, under = control.before_and_under
        said["control"] = {"plain": before, "value": under, "recovered": regained}
    said["power"], said["power_why"] = recovery.power(kept, regained)
    return said


def _gain(erased: Outcome, gold: Outcome, records: Sequence[Record], seed: int) -> dict[str, Any]:
    """AG, and what it is."""
    found = recovery.average_gain(
        np.stack(list(erased.tries.values())),
        erased.plain,
        np.stack(list(gold.tries.values())),
        gold.plain,
        [record.subject for record in records],
        seed=seed,
    )
    return {
        "value": found.mean.value,
        "ci": [found.mean.low, found.mean.high],
        "tries": dict(zip(erased.tries, found.by_try, strict=True)),
        "definition": recovery.AVERAGE_GAIN,
    }


@dataclass
class _Gauge:
    """One bar for all attacks on a model; it never goes back."""

    progress: Progress | None
    stage: str
    total: int
    before: int = 0
    furthest: int = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.furthest = max(self.furthest, min(self.before + done, self.total))
        if self.progress is not None:
            self.progress(self.stage, self.furthest, self.total)

    def advance(self, questions: int) -> None:
        """A try is done."""
        self.before += questions
        self("", 0, 0)
