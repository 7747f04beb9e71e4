"""Cells of a table on the built-in world: one method, draw and seed each, kept as they finish."""

import hashlib
import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unsee.answering import generate_answers
from unsee.artifacts import versions
from unsee.audit.scoring import text_logits
from unsee.data.records import Record, Split
from unsee.data.world import Part, known_records, read_split
from unsee.erasers import ERASERS
from unsee.erasers.protocol import Fits, Scope, erased
from unsee.methods import METHODS
from unsee.metrics.answers import accuracy, known_answers
from unsee.metrics.paired import PairedSet, paired_difference
from unsee.metrics.sets import score_sets
from unsee.metrics.summary import forget_sets, keep_sets, summarise
from unsee.models.load import VLM, load
from unsee.models.restore import restored
from unsee.settings import resolve
from unsee.train import train
from unsee.trials import spread, with_bystanders

PHOTOS = 5
# Choices are made on at most so many questions a set, spread evenly; results use all of them.
DEVELOPMENT_QUESTIONS = 160


def tail(family: str) -> str:
    """What names of files end in that are not of the first family."""
    return "" if family == "llava" else f"-{family}"


def with_family(command: str, family: str) -> str:
    """A script's command line for a family."""
    return command if family == "llava" else f"{command} --family {family}"


@dataclass(frozen=True)
class Cell:
    """One run: a method with its settings on a draw."""

    method: str
    settings: Mapping[str, Any]
    draw: str
    seed: int
    part: Part = "report"
    scope: Scope = "visual"

    def resolved(self) -> Any:
        """The method or eraser."""
        registry = ERASERS if self.method in ERASERS.names() else METHODS
        return resolve(registry.get(self.method), self.settings, where=self.method)

    @property
    def key(self) -> str:
        """Name of the cell's file; every setting counts: changed defaults make new cells."""
        settings = self.resolved().model_dump(mode="json")
        scope = [] if self.scope == "visual" else [self.scope]
        text = json.dumps([self.method, settings, self.draw, self.seed, self.part, *scope])
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        return f"{self.method}-{self.draw}-{self.seed}-{digest}"


class Table:
    """Runs cells on one world and keeps their answers in a folder."""

    def __init__(self, world: Path, folder: Path) -> None:
        self.world = world
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.models: dict[str, VLM] = {}
        self.splits: dict[tuple[str, Part], Split] = {}
        self.known = known_answers(known_records(world))

    def vlm(self, name: str) -> VLM:
        """`base` or `gold`."""
        if name not in self.models:
            self.models[name] = load(self.world / name)
        return self.models[name]

    def split(self, draw: str, part: Part) -> Split:
        """The split of a draw."""
        if (draw, part) not in self.splits:
            split = read_split(self.world, draw, photos=PHOTOS, part=part)
            if part == "dev":
                split = with_bystanders(split)
                audit = {n: spread(rows, DEVELOPMENT_QUESTIONS) for n, rows in split.audit.items()}
                split = replace(split, audit=audit)
            self.splits[draw, part] = split
        return self.splits[draw, part]

    def plain(self, name: str, draw: str, part: Part) -> dict[str, Any]:
        """Answers of base or gold to everything that is asked of a draw."""
        vlm = self.vlm(name)
        split = self.split(draw, part)
        path = self.folder / f"{name}-{draw}-{part}-{vlm.fingerprint}.json"
        return kept(path, split, lambda: {"answers": answered(vlm, split)})

    def run(self, cell: Cell) -> dict[str, Any]:
        """Answers and cost of a cell; trained or fitted only if it is not there yet."""
        split = self.split(cell.draw, cell.part)
        work = self._fit if isinstance(cell.resolved(), Fits) else self._train
        return kept(self.path(cell), split, lambda: work(self.vlm("base"), cell))

    def path(self, cell: Cell) -> Path:
        """Where a cell is kept."""
        return self.folder / f"{cell.key}-{self.vlm('base').fingerprint}.json"

    def _train(self, vlm: VLM, cell: Cell) -> dict[str, Any]:
        split = self.split(cell.draw, cell.part)
        method = cell.resolved()
        told = [r for name in ("forget_text", "retain_text") for r in split.audit[name]]
        before = text_logits(vlm, told)
        with restored(vlm.model):
            result = train(vlm, split, method, seed=cell.seed)
            answers = answered(vlm, split)
            same = sum(a == b for a, b in zip(before, text_logits(vlm, told), strict=True))
        language = (vlm.layout.language_model, vlm.layout.head)
        return {
            "cell": {**cell.__dict__, "settings": method.model_dump(mode="json")},
            "answers": answers,
            "text_logits_identical": [same, len(before)],
            "changed_in_language": sum(name.startswith(language) for name in result.changed),
            "seconds": result.seconds,
            "trained_parameters": result.trained_parameters,
            "last_terms": result.terms[-1],
        }

    def _fit(self, vlm: VLM, cell: Cell) -> dict[str, Any]:
        split = self.split(cell.draw, cell.part)
        method = cell.resolved()
        told = [r for name in ("forget_text", "retain_text") for r in split.audit[name]]
        before = text_logits(vlm, told)
        started = time.monotonic()
        eraser = method.fit(vlm, split, seed=cell.seed, scope=cell.scope)
        seconds = time.monotonic() - started
        with erased(vlm, [eraser]):
            answers = answered(vlm, split)
            same = sum(a == b for a, b in zip(before, text_logits(vlm, told), strict=True))
        after = text_logits(vlm, told)
        return {
            "cell": {**cell.__dict__, "settings": method.model_dump(mode="json")},
            "answers": answers,
            "text_logits_identical": [same, len(before)],
            "restored": before == after,
            "seconds": seconds,
            "notes": [dict(note) for note in eraser.notes],
        }

    def pooled(self, cells: Sequence[Cell]) -> "Pool":
        """Records and answers of some cells together, beside base's and gold's."""
        records: dict[str, list[Record]] = defaultdict(list)
        answers: dict[str, dict[str, list[str]]] = {
            name: defaultdict(list) for name in ("base", "erased", "gold")
        }
        for cell in cells:
            split = self.split(cell.draw, cell.part)
            found = {
                "base": self.plain("base", cell.draw, cell.part),
                "gold": self.plain("gold", cell.draw, cell.part),
                "erased": self.run(cell),
            }
            for name, asked in split.audit.items():
                records[name] += asked
                for model, table in found.items():
                    answers[model][name] += table["answers"][name]
        return Pool(dict(records), {m: dict(a) for m, a in answers.items()}, self.known)


@dataclass
class Pool:
    """Answers of base, erased and gold to the same records."""

    records: dict[str, list[Record]]
    answers: dict[str, dict[str, list[str]]]
    known: Mapping[str, set[str]]

    def scores(self) -> dict[str, Any]:
        """Scores by model, set and metric, as in report.json."""
        return {
            model: score_sets(self.records, answers, known=self.known)
            for model, answers in self.answers.items()
        }

    def summary(
        self, scores: Mapping[str, Any] | None = None, scope: Scope = "visual"
    ) -> dict[str, Any]:
        """The summary of report.json."""
        scores = scores or self.scores()
        return summarise(
            scores["base"], scores["erased"], scores["gold"], reference="gold", scope=scope
        )

    def right(self, model: str, name: str) -> tuple[list[str], np.ndarray]:
        """Subjects and rightness of the open questions of a set."""
        rows = [
            (r.subject, accuracy(r, a))
            for r, a in zip(self.records[name], self.answers[model][name], strict=True)
            if r.form == "open"
        ]
        return [s for s, _ in rows], np.array([v for _, v in rows])

    def accuracy(self, model: str, names: Sequence[str]) -> float:
        """Pooled accuracy on the open questions of some sets."""
        return float(np.mean(np.concatenate([self.right(model, name)[1] for name in names])))


def paired_score(a: Pool, b: Pool) -> dict[str, Any]:
    """Difference of `summary.score` between two methods on the same draws and seeds.

    Returns:
        `difference` (a - b), its 95 % interval, and whether that excludes 0.
    """
    scores = a.scores()
    left_out = a.summary(scores)["left_out"]

    def paired(name: str) -> PairedSet:
        return PairedSet(
            subjects=a.right("base", name)[0],
            base=a.right("base", name)[1],
            reference=a.right("gold", name)[1],
            one=a.right("erased", name)[1],
            other=b.right("erased", name)[1],
            chance=scores["base"][name]["accuracy"]["chance"] or 0.0,
        )

    kept = [n for n in keep_sets("visual") if n not in left_out and n in a.records]
    found = paired_difference(
        {name: paired(name) for name in forget_sets("visual")},
        {name: paired(name) for name in kept},
    )
    return {
        "difference": found.value,
        "ci": [found.low, found.high],
        "resolved": found.resolved,
    }


def flat(scores: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The cells that the tables show, by set: accuracy, and unknown and wrong-name rates."""
    shown = ("accuracy", "unknown_rate", "wrong_name_rate", "choice_accuracy", "cloze_accuracy")
    return {name: {m: cells[m] for m in shown if m in cells} for name, cells in scores.items()}


def conditions(command: str, device: str = "cpu") -> dict[str, Any]:
    """How and on what a result was made."""
    here = f"CPU, {os.cpu_count()} cores, {platform.machine()}"
    return {
        "command": command,
        "versions": versions(),
        "device": here if device == "cpu" else torch.cuda.get_device_name(device),
    }


def sets_table(tables: Mapping[str, Any]) -> list[str]:
    """A Markdown table of sets, from the `flat` scores of each model."""
    head = ["set", "n", "chance", *tables]
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, metrics in next(iter(tables.values())).items():
        rates = ("unknown_rate", "wrong_name_rate")
        shown = ("accuracy", *rates) if name in forget_sets("visual") else ("accuracy",)
        out += [_row(name, metric, metrics[metric], tables) for metric in shown]
    return out


def _row(name: str, metric: str, first: Mapping[str, Any], tables: Mapping[str, Any]) -> str:
    label = f"`{name}`" + ("" if metric == "accuracy" else f" {metric.replace('_', ' ')}")
    chance = first.get("chance")
    shown = [label, str(first.get("n", "-")), "-" if chance is None else f"{100 * chance:.0f}"]
    for table in tables.values():
        cell = table[name][metric]
        if "value" in cell:
            low, high = (100 * end for end in cell["ci"])
            shown.append(f"{100 * cell['value']:.1f} [{low:.0f}, {high:.0f}]")
        else:
            shown.append("not scored")
    return "| " + " | ".join(shown) + " |"


def bars_table(bars: Mapping[str, Any]) -> list[str]:
    """A Markdown table of bars: figure, bound, and whether it is met."""
    out = ["| bar | figure | bound | met |", "|---|---|---|---|"]
    for name, bar in bars.items():
        bound = f"<= {bar['at_most']:.4f}" if "at_most" in bar else f">= {bar['at_least']:.4f}"
        met = "yes" if bar["met"] else "**no**"
        out.append(f"| {name} | {bar['value']:.4f} | {bound} | {met} |")
    return out


def provenance(command: str, table: Table) -> dict[str, Any]:
    """What a result file says about how it was made on a world."""
    return {
        **conditions(command),
        "base_fingerprint": table.vlm("base").fingerprint,
        "gold_fingerprint": table.vlm("gold").fingerprint,
        "photos_per_person": PHOTOS,
    }


def write(path: Path, content: Any) -> None:
    """Write a result file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def answered(vlm: VLM, split: Split) -> dict[str, list[str]]:
    """Answers to everything that is asked of a split, by set."""
    everything = [record for records in split.audit.values() for record in records]
    replies = iter(generate_answers(vlm, everything, batch_size=128))
    return {name: [next(replies) for _ in records] for name, records in split.audit.items()}


def kept(path: Path, split: Split, make: Any) -> dict[str, Any]:
    """What was found with the very questions of this split, or found now."""
    asked = hashlib.sha256(
        json.dumps(
            [
                (name, r.subject, r.question, r.answer, r.image and r.image.key)
                for name, records in split.audit.items()
                for r in records
            ]
        ).encode()
    ).hexdigest()[:16]
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.get("asked") == asked:
            return found
    started = time.monotonic()
    content = make() | {"asked": asked}
    write(path, content | {"wall_s": time.monotonic() - started})
    return json.loads(path.read_text(encoding="utf-8"))
