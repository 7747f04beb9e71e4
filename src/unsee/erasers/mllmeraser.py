"""MLLMEraser: test-time unlearning through activation steering.

"MLLMEraser: Achieving Test-Time Unlearning in Multimodal Large Language Models through Activation
Steering", 2025, https://arxiv.org/abs/2510.04217. On prompts about a forgotten subject the states
of all prompt tokens are moved, at the input of language layers and while the prompt is read, from
recalling to refusing:

    h' = h - s * g(h_last) * r,        s > 0,        r = mean(recall) - mean(erasure)

| published                                      | `gate="calibrated"`, ours                       |
|------------------------------------------------|-------------------------------------------------|
| g = h . w at every layer, w the ridge solution | g = 1 where any subject's logistic score lies   |
| on low-energy directions of retain states      | above its threshold, else 0; one decision a pass|

What is published is told by the released code; the paper's own tables are not public to us. The
strength is positive here and negative there. Ours differs, off by `gate="published"` and the two
switches: r is read where it is added (`direction_at`), no layer is skipped (`skipped_layers`), and
one strength serves all questions (`task_strengths`).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unsee.data.records import Form, Record, Split
from unsee.erasers import ERASERS
from unsee.erasers.directions import Contrast, Kind, direction
from unsee.erasers.gates import logistic_gate, rank_one_gate
from unsee.erasers.protocol import Scope
from unsee.erasers.states import At, last_states
from unsee.erasers.steering import Gate, Plan, Positions, Steering
from unsee.errors import ConfigError, DataError
from unsee.models.load import VLM
from unsee.settings import Settings

# With less to keep, nothing can be said about how often a gate fires on it.
FEWEST_KEPT = 8
_FOLDS = 3
_PERSON = "this person"


@dataclass(frozen=True)
class Kept:
    """States on which no gate should fire; the same for all subjects, so collected once a base.

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


@ERASERS.register("mllmeraser")
class MLLMEraser(Settings):
    """Steers prompts about forgotten people from recalling to refusing; no weight changes.

    Attributes:
        gate: "calibrated", our repair, or "published", a linear gate without bias or bound.
        direction: What r contrasts: see `unsee.erasers.directions`.
        layers: Numbers of the language layers to steer; None for the last quarter, or, with the
            published gate, for all but the first.
        strength: s, > 0.
        positions: Push "all" prompt tokens, or the "last" alone.
        false_fire: Share of other requests that may be pushed, for all active subjects together.
        ridge: Penalty of the calibrated gate's weights, on standardised states.
        gamma: Ridge of the published gate; 0.1 for LLaVA and 1.0 for Qwen2.5-VL in the released
            code, which sums over some 450 prompts.
        energy: Share of the width in which the published gate may read: the directions in which
            retain states have least energy; 0.3 for LLaVA and 0.4 for Qwen2.5-VL in the released
            code.
        variants: Variants of each photo that the gate is fitted on: all questions on the photo
            itself, a quarter of them on each of the others.
        kept_rows: Most prompts about others that the gates are fitted on, a third of them about
            strangers.
        pairs: Photos that the direction is measured on, at most 17.
        targets: File with sentences, one a line, that perturbed photos make the model say.
        budget: Largest change of a pixel of those photos, as a share of the way from black to
            white.
        step: Change of a pixel an iteration, in the same unit.
        iterations: Steps of projected gradient descent.
        random_start: Whether that begins at a random point.
        direction_at: "output" reads r at the output of a layer but adds it at its input, as the
            released code does.
        skipped_layers: Layers left out of `layers`; the released code's LLaVA run lacks 17.
        task_strengths: s by form of the question, as the released code has it; used by
            `Steering.for_task` alone.
    """

    kind: ClassVar[str] = "eraser"
    eraser: ClassVar[type[Steering]] = Steering

    gate: Gate = "calibrated"
    direction: Kind = "multimodal"
    layers: tuple[int, ...] | None = None
    strength: float = Field(1.5, gt=0)
    positions: Positions = "all"
    false_fire: float = Field(0.0025, gt=0, lt=0.5)
    ridge: float = Field(0.03, gt=0)
    gamma: float = Field(0.1, gt=0)
    energy: float = Field(0.3, gt=0, le=1)
    variants: int = Field(12, ge=1)
    kept_rows: int = Field(3000, ge=FEWEST_KEPT)
    pairs: int = Field(17, ge=1, le=17)
    targets: Path | None = None
    budget: float = Field(16 / 255, ge=0, le=1)
    step: float = Field(2 / 255, gt=0)
    iterations: int = Field(40, ge=0)
    random_start: bool = True
    direction_at: At = "input"
    skipped_layers: tuple[int, ...] = ()
    task_strengths: dict[Form, float] = Field(default_factory=dict)

    def fit(
        self,
        vlm: VLM,
        split: Split,
        *,
        seed: int = 0,
        scope: Scope = "visual",
        kept: Kept | None = None,
    ) -> Steering:
        """An eraser with a gate for each subject of a split, fitted apart from one another.

        Args:
            vlm: The base; left as it is.
            split: Whom to forget, and what to keep.
            seed: Of variants, choices and the random start.
            scope: With "both", prompts that name a subject fire too.
            kept: States of `keep`, to be used again; None to collect them.

        Raises:
            ConfigError: If there is no such layer, or the model does not refuse.
            DataError: If there is too little to forget or to keep.
        """
        plan = self.plan(vlm, scope)
        check(split, scope)
        kept = kept or self.keep(vlm, split, seed=seed, scope=scope)
        contrast = Contrast(
            kind=self.direction,
            pairs=self.pairs,
            targets=self.targets,
            budget=self.budget,
            step=self.step,
            iterations=self.iterations,
            random_start=self.random_start,
            at=self.direction_at,
        )
        shared = None
        parts = []
        for subject in split.subjects or sorted({r.subject for r in split.forget}):
            r = shared
            if r is None:
                r = direction(vlm, split, subject, plan.layers, contrast, seed=seed)
            if self.direction != "subject":
                shared = r
            fitted = self._published if self.gate == "published" else self._calibrated
            parts.append(fitted(vlm, split, subject, plan, kept, r, seed))
        return parts[0].joined(parts[1:])

    def plan(self, vlm: VLM, scope: Scope) -> Plan:
        """Which layers of a model are steered, and how.

        Raises:
            ConfigError: If a layer is out of range, or none is left.
        """
        depth = len(vlm.layout.language_layer_paths(vlm.model))
        layers = self.layers
        if layers is None:
            layers = tuple(range(3 * depth // 4 if self.gate == "calibrated" else 1, depth))
        outside = sorted({layer for layer in layers if not 0 <= layer < depth})
        if outside:
            raise ConfigError(
                f"method.layers: expected numbers from 0 to {depth - 1}, got "
                f"{', '.join(map(str, outside))}; {vlm.source} has {depth} language layers"
            )
        layers = tuple(sorted(set(layers) - set(self.skipped_layers)))
        if not layers:
            raise ConfigError("method.layers: expected a layer to steer, got none; name one")
        return Plan(
            family=vlm.layout.family,
            depth=depth,
            layers=layers,
            gate=self.gate,
            positions=self.positions,
            strength=self.strength,
            scope=scope,
            false_fire=self.false_fire,
            task_strengths=tuple(sorted(self.task_strengths.items())),
        )

    def keep(self, vlm: VLM, split: Split, *, seed: int = 0, scope: Scope = "visual") -> Kept:
        """States of prompts about people to keep and strangers, on variants of their photos."""
        plan = self.plan(vlm, scope)
        layers = plan.layers if self.gate == "published" else plan.layers[:1]
        rng = random.Random(f"keep-{seed}")
        rows: list[tuple[str, Record]] = []
        for group, share in (("retain", 2 / 3), ("general", 1 / 3)):
            count = int(self.kept_rows * share)
            records = [r for r in getattr(split, group) if r.image is not None]
            chosen = _some(records, count, rng)
            rows += [(group, record) for record in chosen]
            if scope == "both":
                told = [r for r in getattr(split, group) if r.image is None]
                told += _by_name(getattr(split, group)) if group == "retain" else []
                rows += [
                    (group, record) for record in _some(told, int(self.kept_rows * share), rng)
                ]
        records = [record for _, record in rows]
        numbers = [rng.randrange(self.variants) for _ in records]
        return Kept(
            states=last_states(vlm, records, layers, variants=numbers).cpu(),
            people=tuple(record.subject for record in records),
            shown=tuple(record.image is not None for record in records),
            group=tuple(group for group, _ in rows),
            layers=layers,
        )

    def _published(
        self,
        vlm: VLM,
        split: Split,
        subject: str,
        plan: Plan,
        kept: Kept,
        r: Tensor,
        seed: int,
    ) -> Steering:
        records = [record for record in split.forget if record.subject == subject]
        _, states = _varied(vlm, records, plan.layers, self.variants)
        forget = states.double()
        retain = kept.states.double()
        weights = [
            rank_one_gate(
                forget[:, layer].T @ forget[:, layer],
                forget[:, layer].sum(0),
                retain[:, layer].T @ retain[:, layer],
                energy=self.energy,
                ridge=self.gamma,
            )
            for layer in range(len(plan.layers))
        ]
        gates = torch.stack(weights)[None].float()
        return Steering(
            subjects=(subject,),
            base=vlm.fingerprint,
            plan=plan,
            directions=r[None].float().cpu(),
            weights=gates,
            biases=torch.zeros(gates.shape[:2]),
            notes=({"forget_rows": len(forget), "kept_rows": len(retain)},),
        )

    def _calibrated(
        self,
        vlm: VLM,
        split: Split,
        subject: str,
        plan: Plan,
        kept: Kept,
        r: Tensor,
        seed: int,
    ) -> Steering:
        gates = [_Rows.with_photo(self, vlm, split, subject, plan, kept)]
        if plan.scope == "both":
            gates.append(_Rows.by_name(vlm, split, subject, plan, kept))
        fitted = [_cross_fitted(rows, self.ridge) for rows in gates]
        notes = {
            name: {"forget_rows": len(rows.forget), "kept_rows": len(rows.keep)}
            for name, rows in zip(("photo", "text"), gates, strict=False)
        }
        return Steering(
            subjects=(subject,),
            base=vlm.fingerprint,
            plan=plan,
            directions=r[None].float().cpu(),
            weights=torch.stack([w for w, _, _ in fitted])[None].float(),
            biases=torch.stack([b for _, b, _ in fitted])[None].float(),
            scores=(tuple(scores.float() for _, _, scores in fitted),),
            notes=(notes,),
        )


@dataclass(frozen=True)
class _Rows:
    """States of one gate, and how they part into folds."""

    forget: Tensor
    keep: Tensor
    keep_folds: Tensor
    weights: Tensor

    @classmethod
    def with_photo(
        cls, method: MLLMEraser, vlm: VLM, split: Split, subject: str, plan: Plan, kept: Kept
    ) -> "_Rows":
        """The subject's questions against what is visible on the same photos, and others."""
        layer = plan.layers[:1]
        asked = [r for r in split.forget if r.subject == subject and r.image is not None]
        seen = [r for r in split.visible if r.subject == subject and r.image is not None]
        _, forget = _varied(vlm, asked, layer, method.variants)
        shown, visible = _varied(vlm, seen, layer, method.variants) if seen else ([], forget[:0])
        photos = list(dict.fromkeys(r.image for r in shown))
        folds = [photos.index(r.image) for r in shown]
        return cls._made(forget[:, 0], visible[:, 0], folds, kept, shown=True)

    @classmethod
    def by_name(cls, vlm: VLM, split: Split, subject: str, plan: Plan, kept: Kept) -> "_Rows":
        """Questions that name the subject against those that name others."""
        mine = [r for r in split.forget if r.subject == subject]
        told = [r for r in mine if r.image is None] + _by_name(mine)
        forget = last_states(vlm, told, plan.layers[:1]).cpu()[:, 0]
        return cls._made(forget, forget[:0], [], kept, shown=False)

    @classmethod
    def _made(
        cls,
        forget: Tensor,
        visible: Tensor,
        visible_folds: Sequence[int],
        kept: Kept,
        *,
        shown: bool,
    ) -> "_Rows":
        """A quarter of the weight each to what is visible and to others, half to people to keep."""
        chosen = [i for i, each in enumerate(kept.shown) if each == shown]
        people = sorted({kept.people[i] for i in chosen})
        number = {name: place for place, name in enumerate(people)}
        groups = ["visible"] * len(visible) + [kept.group[i] for i in chosen]
        parts = {"visible": 1.0, "retain": 2.0, "general": 1.0}
        weights = [parts[name] / groups.count(name) for name in groups]
        keep_folds = [*visible_folds, *(number[kept.people[i]] for i in chosen)]
        return cls(
            forget=forget,
            keep=torch.cat([visible, kept.states[chosen, 0]]),
            keep_folds=torch.tensor(keep_folds) % _FOLDS,
            weights=torch.tensor(weights),
        )


def _cross_fitted(rows: _Rows, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weights and bias on all rows; and scores, by gates that had not seen their person.

    Returns:
        w, b, ascending scores of the keep rows.
    """
    scores = torch.zeros(len(rows.keep), dtype=torch.float64)
    for fold in range(_FOLDS):
        unseen = rows.keep_folds == fold
        w, b = logistic_gate(rows.forget, rows.keep[~unseen], rows.weights[~unseen], ridge=ridge)
        scores[unseen] = rows.keep[unseen].double() @ w + b
    w, b = logistic_gate(rows.forget, rows.keep, rows.weights, ridge=ridge)
    return w, b, scores.sort().values


def check(split: Split, scope: Scope) -> None:
    """Refuse a split that a gate cannot be fitted on.

    Raises:
        DataError: Says what is missing.
    """
    subjects = split.subjects or tuple(sorted({r.subject for r in split.forget}))
    if not subjects:
        raise DataError("mllmeraser: expected somebody to forget, got nobody; check --subject")
    for subject in subjects:
        if not any(r.subject == subject and r.image is not None for r in split.forget):
            raise DataError(
                f"mllmeraser: expected questions on photos of {subject}, got none; give photos"
            )
    kept = [r for r in split.retain if r.image is not None]
    people = {r.subject for r in kept}
    if len(kept) < FEWEST_KEPT or len(people) < 2:
        raise DataError(
            f"mllmeraser: expected at least {FEWEST_KEPT} questions on photos of two or more "
            f"people to keep, got {len(kept)} of {len(people)}; give more with --retain, or nobody "
            "can say how often the gate fires on them"
        )
    if scope == "both" and not _by_name(split.retain):
        raise DataError(
            "mllmeraser: scope both needs questions about people to keep that can be asked by "
            f"name, with {_PERSON!r} in them, got none; use --scope visual"
        )


def _varied(
    vlm: VLM, records: Sequence[Record], layers: Sequence[int], variants: int
) -> tuple[list[Record], Tensor]:
    """Each record on its photo, every fourth on each variant in turn; and the states."""
    rows = [(record, 0) for record in records]
    for number in range(1, variants):
        rows += [(record, number) for record in records[number % 4 :: 4]]
    shown = [record for record, _ in rows]
    states = last_states(vlm, shown, layers, variants=[number for _, number in rows])
    return shown, states.cpu()


def _by_name(records: Sequence[Record]) -> list[Record]:
    """Questions on photos, asked by name instead; not for the name itself."""
    found: Mapping[tuple[str, str], Record] = {
        (r.subject, r.question): Record(
            r.subject, None, r.question.replace(_PERSON, r.subject), r.answer, r.form, r.options
        )
        for r in records
        if r.image is not None
        and _PERSON in r.question
        and r.topic != "name"
        and not r.topic.startswith("visible")
    }
    return list(found.values())


def _some(records: Sequence[Record], count: int, rng: random.Random) -> list[Record]:
    return list(records) if len(records) <= count else rng.sample(list(records), count)
