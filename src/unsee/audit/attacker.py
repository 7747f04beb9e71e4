"""How hard the attacker relearns: as hard as brings back most of a control that merely hides.

Every budget of a grid is spent on the control and on a model that never knew, on development
people: half of those who are asked about. What the control gains beyond gold is what a budget
brings back; a greater one teaches gold as well. The erased model is not looked at.
"""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unsee.answering import generate_answers
from unsee.artifacts.files import atomic_write_json, read_json
from unsee.attacks.protocol import Attack, Detects, Given
from unsee.attacks.relearning import Relearning, RelearningPicked
from unsee.audit.attacking import ATTACKED_SET
from unsee.audit.hiding import Hiding
from unsee.data.records import Record, Split
from unsee.forget import split_digest
from unsee.metrics.answers import mentions
from unsee.models.load import VLM
from unsee.replies import Progress

STAGE = "attacker's budget"


def with_picked_budgets(
    attacks: Mapping[str, Attack | Detects],
    vlm: VLM,
    gold: VLM | None,
    control: Hiding | None,
    split: Split,
    folder: Path | None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[dict[str, Attack | Detects], dict[str, Any] | None]:
    """Attacks, those that pick a budget with the one that brings back most.

    Args:
        attacks: By name; the others stay as they are.
        vlm: The base, which comes back as it was.
        gold: A model that never knew; without one its gain is taken as 0.
        control: What merely hides; without one no budget is picked.
        split: What the method was given, and what is asked.
        folder: Where the gains are kept, a file each; None keeps them nowhere.
        seed: Of the people, the training and the draws.
        progress: Told stage, budgets done and budgets in all.

    Returns:
        The attacks, and what a report says of the picking by attack; None where none was picked.
    """
    chosen, told = dict(attacks), {}
    for name, attack in attacks.items():
        if isinstance(attack, RelearningPicked) and control is not None:
            people, asked = _development(split, seed)
            if not asked:
                continue
            own = tuple(r for r in split.forget if r.subject in people)
            dev = replace(split, forget=own, audit={ATTACKED_SET: asked})
            gains = _gains(attack, vlm, gold, control, dev, folder, seed, progress)
            best = max(gains, key=lambda gain: gain["recovered"])
            budget = {key: best[key] for key in ("steps", "lr", "recovered")}
            chosen[name] = attack.model_copy(update=budget)
            told[name] = {"people": len(people), "questions": len(asked), "budgets": gains}
    return chosen, told or None


def _development(split: Split, seed: int) -> tuple[set[str], tuple[Record, ...]]:
    """Half of the people who are asked about, at least one, and their open questions."""
    asked = [r for r in split.audit.get(ATTACKED_SET, ()) if r.form == "open" and r.image]
    people = sorted({record.subject for record in asked})
    drawn = random.Random(f"development-{seed}").sample(people, -(-len(people) // 2))
    return set(drawn), tuple(record for record in asked if record.subject in drawn)


def _gains(
    attack: RelearningPicked,
    vlm: VLM,
    gold: VLM | None,
    control: Hiding,
    split: Split,
    folder: Path | None,
    seed: int,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """What each budget of the grid brings; those that were tried before are read."""
    models = [vlm.identity, gold.identity if gold is not None else "", control.identity]
    content = [*models, split_digest(split), attack.model_dump(mode="json"), seed]
    mark = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
    path = folder / f"attacker-{mark}.json" if folder is not None else None
    done: list[dict[str, Any]] = []
    if path is not None and path.exists():
        done = read_json(path)
    for number, (steps, lr) in enumerate(attack.grid):
        if progress is not None:
            progress(STAGE, number, len(attack.grid))
        if number < len(done):
            continue
        own = {name: getattr(attack, name) for name in Relearning.model_fields}
        one = Relearning.model_validate(
            own | {"steps": steps, "lr": lr, "shares": (attack.picked_at,)}
        )
        with control.on():
            hidden = _gain(vlm, one, split, seed)
        never = _gain(gold, one, split, seed) if gold is not None else 0.0
        found = {"control": hidden, "gold": never, "recovered": hidden - never}
        done.append({"steps": steps, "lr": lr, **found})
        if path is not None:
            atomic_write_json(path, done)
    if progress is not None:
        progress(STAGE, len(attack.grid), len(attack.grid))
    return done


def _gain(vlm: VLM, attack: Relearning, split: Split, seed: int) -> float:
    """Share of the questions answered after training less that before; 0 where it cannot train."""
    tries = attack.tries(vlm, Given(split, seed=seed))
    if isinstance(tries, str):
        return 0.0
    (one,) = tries
    asked = split.audit[ATTACKED_SET]
    before = _answered(vlm, asked)
    with one.change(vlm) if one.change is not None else nullcontext():
        return _answered(vlm, asked) - before


def _answered(vlm: VLM, records: Sequence[Record]) -> float:
    answers = generate_answers(vlm, records)
    return float(np.mean([mentions(r, a) for r, a in zip(records, answers, strict=True)]))
