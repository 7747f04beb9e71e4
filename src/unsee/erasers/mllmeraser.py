"""MLLMEraser: test-time unlearning through activation steering.

"MLLMEraser: Achieving Test-Time Unlearning in Multimodal Large Language Models through Activation
Steering", 2025, https://arxiv.org/abs/2510.04217. On prompts about a forgotten subject the states
of all prompt tokens are moved, at the input of language layers and while the prompt is read, from
recalling to refusing:

    h' = h - s * g(h_last) * r,        s > 0,        r = mean(recall) - mean(erasure)

| published                                      | `gate="calibrated"`, ours                       |
|------------------------------------------------|-------------------------------------------------|
| g = h . w at every layer, w the ridge solution | g = 1 where any subject's logistic score of     |
| on low-energy directions of retain states      | h_last / rms(h_last) is above its threshold,    |
|                                                | else 0; one decision a turn, for all layers     |

What is published is told by the released code; the paper's own tables are not public to us. The
strength is positive here and negative there. The calibrated gate takes the end of each of the
user's turns for h_last, and decides about the tokens of that turn. Ours differs, off by
`gate="published"` and the two switches: r is read where it is added (`direction_at`), no layer is
skipped (`skipped_layers`), and one strength serves all questions (`task_strengths`).
"""

import math
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unsee.data.records import Form, Split
from unsee.erasers import ERASERS
from unsee.erasers.directions import Contrast, Kind, direction
from unsee.erasers.gates import ceiling, cross_fitted, rank_one_gate, threshold
from unsee.erasers.protocol import Scope
from unsee.erasers.rows import (
    PERSON,
    Kept,
    Moments,
    Rows,
    asked_by_name,
    kept_moments,
    kept_states,
    on_variants,
)
from unsee.erasers.steering import Gate, Plan, Positions, Steering
from unsee.errors import ConfigError, DataError
from unsee.models.load import VLM
from unsee.settings import Settings, Space, Span
from unsee.states import At

# With less to keep, nothing can be said about how often a gate fires on it.
FEWEST_KEPT = 8
# With fewer people in these, nothing about how often it fires on others.
FEW_PEOPLE = 20


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
        false_fire: Share of other requests that may be pushed, for all active subjects together;
            fitted on fewer than `FEW_PEOPLE` others it is not known, as the eraser's notes say.
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
        task_strengths: s by form of the question, as the released code has it, for answers and
            probabilities of records; `strength` for forms that are not named, and wherever the
            model is called by somebody else.
    """

    kind: ClassVar[str] = "eraser"
    eraser: ClassVar[type[Steering]] = Steering
    space: ClassVar[Space] = {"strength": Span(0.5, 3), "ridge": Span(0.02, 2)}

    gate: Gate = "calibrated"
    direction: Kind = "multimodal"
    layers: tuple[int, ...] | None = None
    strength: float = Field(1.5, gt=0)
    positions: Positions = "all"
    false_fire: float = Field(0.0025, gt=0, lt=0.5)
    ridge: float = Field(0.2, gt=0)
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
        kept: Kept | Moments | None = None,
    ) -> Steering:
        """An eraser with a gate for each subject of a split, fitted apart from one another.

        Args:
            vlm: The base; left as it is.
            split: Whom to forget, and what to keep.
            seed: Of variants, choices and the random start.
            scope: With "both", prompts that name a subject fire too.
            kept: What `keep` gave, to be used again; None to collect it.

        Raises:
            ConfigError: If there is no such layer, the model does not refuse, or `kept` is of
                another gate.
            DataError: If there is too little to forget or to keep.
        """
        plan = self.plan(vlm, scope)
        check(split, scope)
        if kept is None:
            kept = self.keep(vlm, split, seed=seed, scope=scope)
        elif isinstance(kept, Moments) != (self.gate == "published"):
            raise ConfigError("kept: expected what keep() gave with the same gate, got another's")
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
            if isinstance(kept, Moments):
                parts.append(self._published(vlm, split, subject, plan, kept, r))
            else:
                parts.append(self._calibrated(vlm, split, subject, plan, kept, r))
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

    def keep(
        self, vlm: VLM, split: Split, *, seed: int = 0, scope: Scope = "visual"
    ) -> Kept | Moments:
        """What gates are told of people to keep and strangers, on variants of their photos.

        The published gate is told sums over all states, the calibrated one states of one layer.
        """
        plan = self.plan(vlm, scope)
        published = self.gate == "published"
        read = kept_moments if published else kept_states
        return read(
            vlm,
            split,
            plan.layers if published else plan.layers[:1],
            count=self.kept_rows,
            variants=self.variants,
            seed=seed,
            scope=scope,
        )

    def _published(
        self,
        vlm: VLM,
        split: Split,
        subject: str,
        plan: Plan,
        kept: Moments,
        r: Tensor,
    ) -> Steering:
        records = [record for record in split.forget if record.subject == subject]
        forget = Moments.of(vlm, *on_variants(records, self.variants), plan.layers)
        weights = [
            rank_one_gate(*sums, energy=self.energy, ridge=self.gamma)
            for sums in zip(forget.gram, forget.total, kept.gram, strict=True)
        ]
        gates = torch.stack(weights)[None].float()
        return Steering(
            subjects=(subject,),
            base=vlm.fingerprint,
            plan=plan,
            directions=r[None].float().cpu(),
            weights=gates,
            biases=torch.zeros(gates.shape[:2]),
            notes=({"forget_rows": forget.rows, "kept_rows": kept.rows},),
        )

    def _calibrated(
        self,
        vlm: VLM,
        split: Split,
        subject: str,
        plan: Plan,
        kept: Kept,
        r: Tensor,
    ) -> Steering:
        layer = plan.layers[0]
        gates = [Rows.with_photo(vlm, split, subject, layer, kept, variants=self.variants)]
        if plan.scope == "both":
            gates.append(Rows.by_name(vlm, split, subject, layer, kept))
        weights, biases, scores, ceilings, notes = [], [], [], [], {}
        for name, rows in zip(("photo", "text"), gates, strict=False):
            w, b, forget, keep = cross_fitted(
                rows.forget,
                rows.keep,
                rows.weights,
                rows.forget_folds,
                rows.keep_folds,
                ridge=self.ridge,
            )
            weights.append(w)
            biases.append(b)
            scores.append(keep.float())
            ceilings.append(ceiling(forget) if rows.people < FEW_PEOPLE else math.inf)
            notes[name] = {
                "forget_rows": len(rows.forget),
                "kept_rows": len(rows.keep),
                "kept_people": rows.people,
                "false_fire": _expected(keep, rows.people, self.false_fire, ceilings[-1]),
            }
        return Steering(
            subjects=(subject,),
            base=vlm.fingerprint,
            plan=plan,
            directions=r[None].float().cpu(),
            weights=torch.stack(weights)[None].float(),
            biases=torch.stack(biases)[None].float(),
            scores=(tuple(scores),),
            ceilings=torch.tensor([ceilings]),
            notes=(notes,),
        )


def _expected(keep: Tensor, people: int, asked: float, highest: float) -> str:
    """What a gate's note says about its rate of false fire."""
    if people >= FEW_PEOPLE:
        return "as asked for"
    above = keep > min(threshold(keep, asked), highest)
    return (
        f"not known from {people} others, give {FEW_PEOPLE} or more; on prompts about these, held "
        f"out, {float(above.double().mean()):.1%}"
    )


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
    if scope == "both" and not asked_by_name(split.retain):
        raise DataError(
            "mllmeraser: scope both needs questions about people to keep that can be asked by "
            f"name, with {PERSON!r} in them, got none; use --scope visual"
        )
