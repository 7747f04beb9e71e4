"""The fitted eraser: gates and directions, and what they do to a forward pass."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from unsee.erasers.gates import share_of_each, threshold, unit_rms
from unsee.erasers.protocol import Scope
from unsee.errors import ArtifactError, LayoutError
from unsee.models.load import VLM
from unsee.models.passes import Edit, Pass

Gate = Literal["calibrated", "published"]
Positions = Literal["all", "last"]
Reads = Literal["turns", "last"]

_PROBES = 16
_PROBE_SEED = 2026


@dataclass(frozen=True)
class Plan:
    """What erasers must have in common to act as one.

    Attributes:
        family: Of the base's layout.
        depth: Language layers of the base.
        layers: Numbers of the layers that are steered; the calibrated gate reads at the first.
        gate: Whether each layer has a linear gate, or the pass one decision.
        positions: Whether all prompt tokens are pushed, or the last alone.
        strength: s, > 0.
        scope: "visual" never looks at prompts without a photo.
        false_fire: Share of requests, or of turns where there are several, that may be pushed
            though they ask for nobody who is erased, whatever the number of subjects; calibrated
            gate only.
        task_strengths: s by form of the question, where the pass knows it; `strength` elsewhere.
        reads: Where the calibrated gate reads: at the end of each of the user's turns, each of
            which decides about its own tokens, so that neither an earlier turn nor an answer that
            has begun hides the question; or, as published, at the last prompt token alone.
    """

    family: str
    depth: int
    layers: tuple[int, ...]
    gate: Gate
    positions: Positions
    strength: float
    scope: Scope
    false_fire: float
    task_strengths: tuple[tuple[str, float], ...] = ()
    reads: Reads = "turns"


@dataclass(frozen=True)
class Steering:
    """MLLMEraser, fitted: h' = h - s * g(h) * r on prompt tokens, at the input of some layers.

    Attributes:
        subjects: Whom it suppresses, a gate each.
        base: Fingerprint of the model it was fitted on.
        plan: What it shares with erasers it can be joined with.
        directions: r, (subject, layer, width).
        weights: w of the gates, (subject, gate, width). Published: a gate for each layer.
            Calibrated, on states at unit root mean square: one for prompts with a photo and, with
            scope "both", one for those without.
        biases: b of the gates, (subject, gate).
        scores: Of the calibrated gates, ascending: for each subject and gate the scores of states
            that should not fire, none of which its weights had seen.
        ceilings: What their thresholds may be at most, (subject, gate) or one for all: finite where
            too few people are kept for the scores to tell how often a gate fires falsely.
        notes: What was found out in fitting, for the manifest.
    """

    name: ClassVar[str] = "mllmeraser"

    subjects: tuple[str, ...]
    base: str
    plan: Plan
    directions: Tensor
    weights: Tensor
    biases: Tensor
    scores: tuple[tuple[Tensor, ...], ...] = ()
    ceilings: Tensor = field(default_factory=lambda: torch.tensor(math.inf))
    notes: tuple[Mapping[str, Any], ...] = ()

    @cached_property
    def thresholds(self) -> Tensor:
        """Score above which each calibrated gate fires, (subject, gate)."""
        each = share_of_each(self.plan.false_fire, len(self.subjects))
        rows = [[threshold(scores, each) for scores in gates] for gates in self.scores]
        return torch.tensor(rows, dtype=torch.float64).minimum(self.ceilings.double().cpu())

    def edits(self, vlm: VLM) -> Mapping[str, Sequence[Edit]]:
        """The push at each steered layer.

        Raises:
            LayoutError: If the model has other layers than the one it was fitted on.
        """
        paths = vlm.layout.language_layer_paths(vlm.model)
        if (vlm.layout.family, len(paths)) != (self.plan.family, self.plan.depth):
            raise LayoutError(
                f"eraser of {', '.join(self.subjects)}: made for {self.plan.family} of "
                f"{self.plan.depth} layers, got {vlm.layout.family} of {len(paths)}; "
                "load the model it was fitted on"
            )
        act = _Calibrated if self.plan.gate == "calibrated" else _Published
        acting = act(self, vlm.device)
        return {
            paths[layer]: [acting.edit(number)] for number, layer in enumerate(self.plan.layers)
        }

    def joined(self, others: Sequence["Steering"]) -> "Steering":
        """One eraser for the subjects of all; thresholds follow from their number.

        Raises:
            ArtifactError: If one differs in base, layers, gate or another part of the plan, or a
                subject is in two of them.
        """
        if not others:
            return self
        parts = (self, *others)
        for other in others:
            if (other.base, other.plan) != (self.base, self.plan):
                raise ArtifactError(
                    f"erasers of {', '.join(self.subjects)} and {', '.join(other.subjects)}: "
                    f"expected one base and one plan, got {_difference(self, other)}; fit one of "
                    "them again with the settings of the other"
                )
        subjects = [name for part in parts for name in part.subjects]
        twice = sorted({name for name in subjects if subjects.count(name) > 1})
        if twice:
            raise ArtifactError(
                f"erasers: expected each subject once, got {', '.join(twice)} in two; leave one out"
            )
        return replace(
            self,
            subjects=tuple(subjects),
            directions=torch.cat([part.directions for part in parts]),
            weights=torch.cat([part.weights for part in parts]),
            biases=torch.cat([part.biases for part in parts]),
            scores=tuple(row for part in parts for row in part.scores),
            ceilings=torch.cat([part.ceilings.expand_as(part.biases) for part in parts]),
            notes=tuple(note for part in parts for note in part.notes),
        )

    def respond(self) -> dict[str, Tensor]:
        """Scores of seeded probes above the thresholds, and how far each push goes along them."""
        width = self.weights.shape[-1]
        generator = torch.Generator().manual_seed(_PROBE_SEED)
        probes = torch.randn(_PROBES, width, generator=generator, dtype=torch.float64)
        read = unit_rms(probes) if self.plan.gate == "calibrated" else probes
        scores = self.weights.double().cpu() @ read.T + self.biases.double().cpu()[..., None]
        if self.scores:
            scores = scores - self.thresholds[..., None]
        pushes = self.plan.strength * self.directions.double().cpu() @ probes.T
        return {"gates": scores.float(), "pushes": pushes.float()}

    def tensors(self) -> dict[str, Tensor]:
        """Directions, weights, biases, ceilings and calibration scores, by name, on the CPU."""
        found = {"directions": self.directions, "weights": self.weights, "biases": self.biases}
        found["ceilings"] = self.ceilings.expand_as(self.biases).contiguous()
        for subject, gates in enumerate(self.scores):
            found |= {f"scores.{subject}.{gate}": each for gate, each in enumerate(gates)}
        return {name: tensor.float().cpu() for name, tensor in found.items()}

    def table(self) -> dict[str, Any]:
        """Subjects, base, plan and notes."""
        plan = {**self.plan.__dict__, "task_strengths": dict(self.plan.task_strengths)}
        return {
            "subjects": list(self.subjects),
            "base": self.base,
            "plan": {**plan, "layers": list(self.plan.layers)},
            "notes": [dict(note) for note in self.notes],
        }

    @classmethod
    def restored(cls, table: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Steering":
        """The eraser that gave this table and these tensors."""
        plan = dict(table["plan"])
        plan["layers"] = tuple(plan["layers"])
        plan["task_strengths"] = tuple(plan["task_strengths"].items())
        gates = tensors["weights"].shape[1] if plan["gate"] == "calibrated" else 0
        return cls(
            subjects=tuple(table["subjects"]),
            base=table["base"],
            plan=Plan(**plan),
            directions=tensors["directions"],
            weights=tensors["weights"],
            biases=tensors["biases"],
            ceilings=tensors["ceilings"],
            scores=tuple(
                tuple(tensors[f"scores.{subject}.{gate}"] for gate in range(gates))
                for subject in range(len(table["subjects"]) if gates else 0)
            ),
            notes=tuple(table["notes"]),
        )


class _Acting:
    """Tensors of an eraser on the model's device, for one block."""

    def __init__(self, eraser: Steering, device: torch.device) -> None:
        self.plan = eraser.plan
        self.directions = eraser.directions.to(device, torch.float32)
        self.weights = eraser.weights.to(device, torch.float32)

    def asked(self, now: Pass) -> Tensor:
        """Rows whose gate is looked at, (batch,)."""
        rows = now.prompt.any(1)
        return rows & now.has_image if self.plan.scope == "visual" else rows

    def pushed(self, hidden: Tensor, now: Pass, push: Tensor, where: Tensor) -> Tensor:
        """Hidden states with a push, which broadcasts to them, taken from some prompt tokens."""
        where = where & now.prompt
        if self.plan.positions == "last":
            where = where & last_alone(now)
        return torch.where(where[..., None], hidden - push.to(hidden.dtype), hidden)

    def strength(self, now: Pass, rows: int) -> Tensor:
        """The strength s of each row, (batch, 1)."""
        known, usual = dict(self.plan.task_strengths), self.plan.strength
        found = [known.get(form, usual) for form in now.forms] or [usual] * rows
        return torch.tensor(found, device=self.directions.device)[:, None]

    def last(self, hidden: Tensor, now: Pass) -> Tensor:
        """State of each row's last prompt token, (batch, width)."""
        return hidden[torch.arange(len(hidden), device=hidden.device), now.last].float()


class _Published(_Acting):
    """A linear gate at every layer, reading states that earlier layers' pushes have moved."""

    def edit(self, number: int) -> Edit:
        weights, directions = self.weights[:, number], self.directions[:, number]

        def steer(hidden: Tensor, now: Pass) -> Tensor:
            if not now.prefill or not (rows := self.asked(now)).any():
                return hidden
            gates = self.last(hidden, now) @ weights.T
            now.decided(gates.amax(1).masked_fill(~rows, -math.inf))
            push = self.strength(now, len(hidden)) * (gates @ directions)
            return self.pushed(hidden, now, push[:, None], rows[:, None])

        return steer


class _Calibrated(_Acting):
    """One decision a turn, taken at the first layer: who it is about, if anybody."""

    def __init__(self, eraser: Steering, device: torch.device) -> None:
        super().__init__(eraser, device)
        offsets = eraser.biases.double().cpu() - eraser.thresholds
        self.offsets = offsets.to(device, torch.float32)

    def edit(self, number: int) -> Edit:
        def steer(hidden: Tensor, now: Pass) -> Tensor:
            if not now.prefill or not self.asked(now).any():
                return hidden
            if number == 0:
                now.memo[self] = self.decide(hidden, now)
            fires, who = now.memo[self]
            if not fires.any():
                return hidden
            strength = self.strength(now, len(hidden))[..., None]
            return self.pushed(hidden, now, strength * self.directions[who, number], fires)

        return steer

    def decide(self, hidden: Tensor, now: Pass) -> tuple[Tensor, Tensor]:
        """Which tokens are pushed, and whose gate is furthest above its threshold there.

        A token goes with the turn that ends at it or next behind it; what stands behind the last
        end, an answer that has begun, goes with the last turn.

        Returns:
            Both (batch, seq).
        """
        ends = now.turn_ends if self.plan.reads == "turns" else last_alone(now)
        row, place = ends.nonzero(as_tuple=True)
        states = unit_rms(hidden[row, place].float())
        shown = now.shown[row, place]
        margins = states @ self.weights[:, 0].T + self.offsets[:, 0]
        if self.weights.shape[1] > 1:
            text = states @ self.weights[:, 1].T + self.offsets[:, 1]
            margins = torch.where(shown[:, None], margins, text)
        highest, who = margins.max(1)
        if self.plan.scope == "visual":
            highest = highest.masked_fill(~shown, -math.inf)
        turns = ends.sum(1)
        first = turns.cumsum(0) - turns
        number = (ends.cumsum(1) - ends.long()).minimum(turns[:, None] - 1)
        turn = first[:, None] + number
        now.decided(highest[first + turns - 1])
        return (highest > 0)[turn], who[turn]


def last_alone(now: Pass) -> Tensor:
    """True on each row's last prompt token, (batch, seq)."""
    return torch.zeros_like(now.prompt).scatter(1, now.last[:, None], True)


def _difference(one: Steering, other: Steering) -> str:
    if one.base != other.base:
        return f"bases {one.base} and {other.base}"
    mine, theirs = one.plan.__dict__, other.plan.__dict__
    names = [name for name in mine if mine[name] != theirs[name]]
    return "; ".join(f"{name} {mine[name]} and {theirs[name]}" for name in names)
