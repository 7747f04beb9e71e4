"""Prompts that gates are fitted on, as states: a subject's, and those on which none may fire."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unsee.data.records import Record, Split
from unsee.erasers.gates import unit_rms
from unsee.erasers.protocol import Scope
from unsee.erasers.statistics import digest_of, remembered
from unsee.models.load import VLM
from unsee.states import last_states, state_batches

FOLDS = 3
# Rows by which kept states are recognised.
PROBES = 4
PERSON = "this person"


@dataclass(frozen=True)
class Moments:
    """Sums over states, all that the published gate is solved from; no state itself is kept.

    Attributes:
        gram: Sum of h h^T, (layer, width, width) in float64.
        total: Sum of h, (layer, width) in float64.
        rows: How many states.
    """

    gram: Tensor
    total: Tensor
    rows: int

    @classmethod
    def of(
        cls, vlm: VLM, records: Sequence[Record], variants: Sequence[int], layers: Sequence[int]
    ) -> "Moments":
        """Of records on variants of their photos; a batch is added and let go."""
        gram, total = torch.zeros(()), torch.zeros(())
        for _, states in state_batches(vlm, records, layers, variants=variants):
            by_layer = states.double().transpose(0, 1)
            gram = gram.to(by_layer) + by_layer.mT @ by_layer
            total = total.to(by_layer) + by_layer.sum(1)
        return cls(gram.cpu(), total.cpu(), len(records))


@dataclass(frozen=True)
class Kept:
    """States on which no calibrated gate should fire; the same for all subjects.

    Unlike the published gate, this one needs the rows themselves: its loss weighs each anew at
    every step, each subject adds rows of its own, and thresholds are read off the scores of single
    rows by gates that had not seen them. That is one layer of at most `kept_rows` rows: 49 MB of
    3,000 at width 4,096.

    Attributes:
        states: (row, layer, width).
        people: Who each row is about; folds never part a person.
        shown: Whether each row has a photo.
        group: "retain" or "general" for each row.
        layers: Numbers of the layers.
    """

    states: Tensor
    people: tuple[str, ...]
    shown: tuple[bool, ...]
    group: tuple[str, ...]
    layers: tuple[int, ...]

    @property
    def rows(self) -> int:
        """How many states."""
        return len(self.people)


def kept_states(
    vlm: VLM,
    split: Split,
    layers: Sequence[int],
    *,
    count: int,
    variants: int,
    seed: int,
    scope: Scope,
) -> Kept:
    """States of prompts about people to keep and strangers, on variants of their photos.

    Args:
        vlm: The base; left as it is.
        split: Whom to keep.
        layers: Numbers of the layers to read at.
        count: Most prompts with a photo, a third of them about strangers; with scope "both" as
            many without.
        variants: A photo is shown in one of so many.
        seed: Of both choices.
        scope: Whether prompts without a photo are collected.

    Returns:
        The states, read once a base and from then on taken from the user's cache.
    """
    groups, records, numbers = _to_keep(split, count, variants, seed, scope)

    def read(count: int | None = None) -> Tensor:
        return last_states(vlm, records[:count], layers, variants=numbers[:count]).cpu()

    what = {"records": digest_of(records), "variants": numbers, "layers": list(layers)}
    found = remembered(vlm, what, lambda: read(PROBES), lambda: {"states": read()})
    return Kept(
        states=found["states"],
        people=tuple(record.subject for record in records),
        shown=tuple(record.image is not None for record in records),
        group=tuple(groups),
        layers=tuple(layers),
    )


def kept_moments(
    vlm: VLM,
    split: Split,
    layers: Sequence[int],
    *,
    count: int,
    variants: int,
    seed: int,
    scope: Scope,
) -> Moments:
    """Sums over the states of the same prompts as `kept_states`, cached alike; no state is kept."""
    _, records, numbers = _to_keep(split, count, variants, seed, scope)

    def probe() -> Tensor:
        return last_states(vlm, records[:PROBES], layers, variants=numbers[:PROBES]).cpu()

    def made() -> dict[str, Tensor]:
        found = Moments.of(vlm, records, numbers, layers)
        return {"gram": found.gram, "total": found.total}

    what = {"records": digest_of(records), "variants": numbers, "layers": list(layers)}
    found = remembered(vlm, what | {"kept": "moments"}, probe, made)
    return Moments(found["gram"], found["total"], len(records))


def _to_keep(
    split: Split, count: int, variants: int, seed: int, scope: Scope
) -> tuple[list[str], list[Record], list[int]]:
    """Group, prompt and variant of each row to keep."""
    rng = random.Random(f"keep-{seed}")
    rows: list[tuple[str, Record]] = []
    for group, share in (("retain", 2 / 3), ("general", 1 / 3)):
        most = int(count * share)
        records = [r for r in getattr(split, group) if r.image is not None]
        chosen = _some(records, most, rng)
        rows += [(group, record) for record in chosen]
        if scope == "both":
            told = [r for r in getattr(split, group) if r.image is None]
            told += asked_by_name(getattr(split, group)) if group == "retain" else []
            rows += [(group, record) for record in _some(told, most, rng)]
    numbers = [rng.randrange(variants) for _ in rows]
    return [group for group, _ in rows], [record for _, record in rows], numbers


@dataclass(frozen=True)
class Rows:
    """States of one calibrated gate, at unit root mean square.

    Attributes:
        forget: In which it should fire, (row, width).
        keep: In which it should not.
        forget_folds: Fold of each forget row, 0..`FOLDS` - 1; no photo is in two, nor, without
            photos, is a question.
        keep_folds: Fold of each keep row; no person is in two, nor is a photo of the subject.
        weights: How much each keep row counts against the others.
        people: How many people the keep rows are about, but for the subject.
    """

    forget: Tensor
    keep: Tensor
    forget_folds: Tensor
    keep_folds: Tensor
    weights: Tensor
    people: int

    @classmethod
    def with_photo(
        cls, vlm: VLM, split: Split, subject: str, layer: int, kept: Kept, *, variants: int
    ) -> "Rows":
        """The subject's questions against what is visible on the same photos, and others."""
        asked = [r for r in split.forget if r.subject == subject and r.image is not None]
        seen = [r for r in split.visible if r.subject == subject and r.image is not None]
        rows, forget = varied(vlm, asked, [layer], variants)
        shown, visible = varied(vlm, seen, [layer], variants) if seen else ([], forget[:0])
        photos = list(dict.fromkeys(r.image for r in (*rows, *shown)))
        several = len({r.image for r in rows}) > 1
        folds = [photos.index(r.image) for r in rows] if several else _by_question(rows)
        seen_folds = [photos.index(r.image) for r in shown]
        return cls._made((forget[:, 0], folds), (visible[:, 0], seen_folds), kept, shown=True)

    @classmethod
    def by_name(cls, vlm: VLM, split: Split, subject: str, layer: int, kept: Kept) -> "Rows":
        """Questions that name the subject against those that name others."""
        mine = [r for r in split.forget if r.subject == subject]
        told = [r for r in mine if r.image is None] + asked_by_name(mine)
        forget = last_states(vlm, told, [layer]).cpu()[:, 0]
        return cls._made((forget, _by_question(told)), (forget[:0], []), kept, shown=False)

    @classmethod
    def _made(
        cls,
        forget: tuple[Tensor, Sequence[int]],
        visible: tuple[Tensor, Sequence[int]],
        kept: Kept,
        *,
        shown: bool,
    ) -> "Rows":
        """A quarter of the weight each to what is visible and to others, half to people to keep."""
        chosen = [i for i, each in enumerate(kept.shown) if each == shown]
        people = sorted({kept.people[i] for i in chosen})
        number = {name: place for place, name in enumerate(people)}
        groups = ["visible"] * len(visible[0]) + [kept.group[i] for i in chosen]
        parts = {"visible": 1.0, "retain": 2.0, "general": 1.0}
        weights = [parts[name] / groups.count(name) for name in groups]
        keep_folds = [*visible[1], *(number[kept.people[i]] for i in chosen)]
        return cls(
            forget=unit_rms(forget[0]),
            keep=unit_rms(torch.cat([visible[0], kept.states[chosen, 0]])),
            forget_folds=torch.tensor(forget[1]) % FOLDS,
            keep_folds=torch.tensor(keep_folds) % FOLDS,
            weights=torch.tensor(weights),
            people=len(people),
        )


def varied(
    vlm: VLM, records: Sequence[Record], layers: Sequence[int], variants: int
) -> tuple[list[Record], Tensor]:
    """Each record on its photo, every fourth on each variant in turn; and the states."""
    shown, numbers = on_variants(records, variants)
    return shown, last_states(vlm, shown, layers, variants=numbers).cpu()


def on_variants(records: Sequence[Record], variants: int) -> tuple[list[Record], list[int]]:
    """Each record on its photo, every fourth on each variant in turn; and the variants."""
    rows = [(record, 0) for record in records]
    for number in range(1, variants):
        rows += [(record, number) for record in records[number % 4 :: 4]]
    return [record for record, _ in rows], [number for _, number in rows]


def asked_by_name(records: Sequence[Record]) -> list[Record]:
    """Questions on photos, asked by name instead; not for the name itself."""
    found: Mapping[tuple[str, str], Record] = {
        (r.subject, r.question): Record(
            r.subject, None, r.question.replace(PERSON, r.subject), r.answer, r.form, r.options
        )
        for r in records
        if r.image is not None
        and PERSON in r.question
        and r.topic != "name"
        and not r.topic.startswith("visible")
    }
    return list(found.values())


def _by_question(records: Sequence[Record]) -> list[int]:
    questions = list(dict.fromkeys(r.question for r in records))
    return [questions.index(r.question) for r in records]


def _some(records: Sequence[Record], count: int, rng: random.Random) -> list[Record]:
    return list(records) if len(records) <= count else rng.sample(list(records), count)
