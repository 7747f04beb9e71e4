"""Open-MMUnlearning's scores on MLLMU-Bench: forget quality, model utility, robustness.

Chen et al. 2026, https://arxiv.org/abs/2610.10358; formulas in `unsee.metrics.omm`. Prompts,
parsing and examples are MLLMU-Bench's. What the paper leaves open or we cannot have is **our
reading**, listed in docs/benchmarks.md; wrong answers and scores of general ability are read
from files that lie beside the benchmark's.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unsee.audit.omm_attacks import (
    INPUT_ATTACKS,
    PROBES,
    cell,
    changes,
    input_attacks,
    membership,
)
from unsee.audit.omm_files import (
    ABILITY,
    ANSWERS,
    Rivals,
    general_ability,
    known_in_text,
    refuse_lacking,
    rivals,
)
from unsee.audit.published_mllmu import MLLMUSheets, Sheet, mllmu_sheets
from unsee.data.records import Record, Split
from unsee.metrics import mllmu, omm
from unsee.metrics.distributions import js_distance, ks_statistic
from unsee.metrics.probability import answer_probability, truth_ratio
from unsee.replies import Replies, records_digest

COMPONENTS = "Open-MMUnlearning, components"
AGGREGATES = "Open-MMUnlearning"
_SAMPLES = "truth ratios"

_WAYS = ("image", "text")
_TASKS = ("cloze", "classification", "rouge_l")

Cells = dict[str, dict[str, Any]]
Value = Callable[[str], omm.Score]


@dataclass(frozen=True)
class OMMSheets:
    """All that the protocol asks.

    Attributes:
        sheets: MLLMU-Bench's four splits.
        rivals: Open questions on the photos of those to forget.
        split: What the method was given, and what is asked.
        ability: Scores of general ability by model, measured elsewhere; 0..1.
        seed: Of examples, relearning, probes and the universal change.
        iterations: Steps of the universal change.
    """

    sheets: tuple[Sheet, ...]
    rivals: tuple[Rivals, ...]
    split: Split
    ability: Mapping[str, Mapping[str, float]]
    seed: int
    iterations: int = 500
    max_new_tokens: int = 50

    def scores(self, replies: Replies) -> dict[str, Cells]:
        """MLLMU-Bench's scores by split, and the components of the aggregates."""
        table: dict[str, Cells] = MLLMUSheets(self.sheets).scores(replies)
        found: Cells = dict(_tasks(table))
        ratios, likely = self._truth(replies)
        found["truth ratio"] = cell(float(ratios.mean()), len(ratios))
        found["probability"] = cell(float(likely.mean()), len(likely))
        found |= self._model_side(replies)
        found |= input_attacks(
            replies, self.split, self._gaps(), iterations=self.iterations, seed=self.seed
        )
        found |= membership(replies.vlm, self.split, seed=self.seed)
        # Read again by `between`, and by nobody else.
        found[_SAMPLES] = {"samples": ratios}
        return table | {COMPONENTS: found}

    def between(self, tables: Mapping[str, dict[str, Cells]]) -> None:
        """Adds distances to the model that never knew, general ability, and the aggregates."""
        ratios = {name: t[COMPONENTS].pop(_SAMPLES)["samples"] for name, t in tables.items()}
        for name, table in tables.items():
            found = table[COMPONENTS]
            for distance, measure in {"ks": ks_statistic, "js": js_distance}.items():
                found[distance] = cell(measure(ratios[name], ratios["gold"]), len(ratios[name]))
            for ability in omm.GENERAL:
                value = self.ability.get(name, {}).get(ability)
                why = f"{ABILITY} does not say it of {name}"
                found[ability] = {"not_scored": why} if value is None else cell(value)
            table[AGGREGATES] = aggregates(found)

    def _truth(self, replies: Replies) -> tuple[np.ndarray, np.ndarray]:
        """Truth ratio of each question, higher where the truth is preferred less; probability."""

        def means(rows: Sequence[tuple[Record, str]]) -> np.ndarray:
            sums, tokens = replies.logprobs([replace(r, answer=text) for r, text in rows])
            return sums / tokens

        own = means([(row.asked, row.asked.answer) for row in self.rivals])
        other = means([(row.asked, row.paraphrase) for row in self.rivals])
        wrong = iter(means([(row.asked, text) for row in self.rivals for text in row.wrong]))
        ratios = [
            1 - truth_ratio(float(true), [float(next(wrong)) for _ in row.wrong])
            for row, true in zip(self.rivals, (own + other) / 2, strict=True)
        ]
        return np.array(ratios), answer_probability(own, np.ones(len(own)))

    def _model_side(self, replies: Replies) -> Cells:
        """Task forgetting, on photos, once the weights were changed."""
        photos = [
            replace(sheet, records=tuple(own), asked=tuple(put))
            for sheet in self.sheets
            if sheet.split in ("forget", "test")
            for own, put in [_on_photos(sheet)]
        ]
        asked = [record for sheet in photos for record in sheet.asked]
        found: Cells = {}
        learned = records_digest(self.split.forget, self.seed)
        for name, change in changes(replies.vlm, self.split, seed=self.seed).items():
            if isinstance(change, str):
                found[name] = {"not_scored": change}
                continue
            told = replies.under(f"omm-{name}-{learned}")
            with change(replies.vlm) if told.lacks(asked) else nullcontext():
                tasks = _tasks(MLLMUSheets(tuple(photos)).scores(told))
            found[name] = _forgetting(tasks, "forget image", "test image")
        return found

    def _gaps(self) -> dict[str, list[Record]]:
        """Gaps on photos, put without examples, of those to forget and of their other photos."""
        return {
            sheet.split: [
                replace(record, question=mllmu.prompt(record), form="open")
                for record in sheet.records
                if record.form == "cloze" and record.image is not None
            ]
            for sheet in self.sheets
            if sheet.split in ("forget", "test")
        }


def aggregates(found: Mapping[str, Mapping[str, Any]]) -> Cells:
    """Forget quality, model utility, robustness, their parts and their mean, from components.

    Args:
        found: Cells by component; one without a value leaves out what it is part of.
    """
    parts: dict[str, Callable[[Value], omm.Score]] = {
        "forget quality": lambda value: omm.forget_quality(
            _read(value, "forget image"),
            _read(value, "test image"),
            truth_ratio=value("truth ratio"),
            probability=value("probability"),
            ks=value("ks"),
            js=value("js"),
        ),
        "model utility": lambda value: omm.model_utility(
            [_read(value, f"{s} {way}") for s in ("retain", "celebrity") for way in _WAYS],
            [value(name) for name in omm.GENERAL],
        ),
        "model side": lambda value: omm.model_side(
            value("quantised"), value("relearned"), [value(name) for name in PROBES]
        ),
        "input side": lambda value: omm.input_side(
            _read(value, "forget text").forgetting(),
            [_safe(value(name)) for name in INPUT_ATTACKS],
        ),
        "output side": lambda value: omm.output_side(
            [
                None if (told := value(name)) is None else omm.membership_safety(told)
                for name in omm.MEMBERSHIP_ATTACKS
            ]
        ),
    }
    scores: dict[str, omm.Score] = {}
    lacking: dict[str, set[str]] = {}
    for part, compute in parts.items():
        lacking[part] = missing = set()

        def value(name: str, missing: set[str] = missing) -> omm.Score:
            told = found.get(name, {}).get("value")
            if told is None:
                missing.add(name)
            return told

        scores[part] = compute(value)
    means = {
        "robustness": (omm.robustness, ("model side", "input side", "output side")),
        "overall": (omm.overall, ("forget quality", "model utility", "robustness")),
    }
    for mean, (compute, names) in means.items():
        scores[mean] = compute(*(scores[name] for name in names))
        lacking[mean] = set().union(*(lacking[name] for name in names))
    return {
        name: {"not_scored": f"lacks {', '.join(sorted(lacking[name]))}"}
        if score is None
        else cell(score)
        for name, score in scores.items()
    }


def _read(value: Value, split: str) -> omm.Tasks:
    return omm.Tasks(*(value(f"{split} {task}") for task in _TASKS))


def _safe(success: omm.Score) -> omm.Score:
    return None if success is None else 1 - success


def _tasks(table: Mapping[str, Mapping[str, Any]]) -> Cells:
    """Cells of the three tasks of each split, on photos and in text."""
    absent = {"not_scored": "there are no such questions"}
    return {
        f"{split} {way} {task}": dict(cells.get(f"{way} {task}", absent))
        for split, cells in table.items()
        for way in _WAYS
        for task in _TASKS
        if (split, way) != ("test", "text")
    }


def _forgetting(cells: Cells, *splits: str) -> dict[str, Any]:
    """Mean task forgetting of some splits."""
    found = [_read(lambda name: cells[name].get("value"), split).forgetting() for split in splits]
    if any(value is None for value in found):
        return {"not_scored": f"a task of {' or '.join(splits)} is missing"}
    return cell(float(np.mean([value for value in found if value is not None])))


def _on_photos(sheet: Sheet) -> tuple[list[Record], list[Record]]:
    pairs = [
        (own, put)
        for own, put in zip(sheet.records, sheet.asked, strict=True)
        if own.image is not None
    ]
    return [own for own, _ in pairs], [put for _, put in pairs]


def omm_sheets(folder: Path, part: str, split: Split, *, seed: int, gold: bool) -> OMMSheets:
    """What the protocol asks for a split of MLLMU-Bench.

    Args:
        folder: Local copy of the benchmark, with `ANSWERS` and, if there is one, `ABILITY` in it.
        part: Split of those to forget, such as `forget_10`.
        split: What the method was given, and what is asked.
        seed: Of all draws.
        gold: Whether a model that never knew is audited too.

    Raises:
        ConfigError: If something that the protocol needs is not there; all of it is named.
        DataError: With the faults of the files.
    """
    refuse_lacking(folder, part, split, gold=gold)
    known = (*split.audit["celebrity"], *known_in_text(folder))
    return OMMSheets(
        mllmu_sheets({**split.audit, "celebrity": known}, seed),
        rivals(folder / ANSWERS, part, split.audit.get("forget_seen", ())),
        split,
        general_ability(folder / ABILITY),
        seed,
    )
