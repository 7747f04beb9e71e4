"""The report as data: every key of `report.json`, its unit and its range."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

FORMAT = 1
_ROUNDING = 1e-9

ModelName = Literal["base", "erased", "gold"]
Reference = Literal["gold", "strangers", "none"]
MethodKind = Literal["weights", "eraser", "none"]


def _snapped(value: object) -> object:
    """Pull a float that left 0..1 by rounding alone back to the edge."""
    if isinstance(value, float) and -_ROUNDING <= value < 0:
        return 0.0
    if isinstance(value, float) and 1 < value <= 1 + _ROUNDING:
        return 1.0
    return value


Share = Annotated[float, BeforeValidator(_snapped), Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
DataUri = Annotated[
    str, Field(pattern=r"^data:image/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/]+={0,2}$")
]


class _Fixed(BaseModel):
    """A table whose keys are fixed by the format."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Open(BaseModel):
    """A table that may carry more keys than this version reads."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)


class NotScored(_Fixed):
    """A value that was not measured.

    Attributes:
        not_scored: The reason, in words.
    """

    not_scored: Annotated[str, Field(min_length=1)]


class Score(_Fixed):
    """One measured share.

    Attributes:
        value: Mean over the samples, 0..1.
        ci: 95 % interval of the mean, bootstrap by person.
        n: Number of samples.
        chance: Accuracy of the most common answer per question; None where it has no meaning.
    """

    value: Share
    ci: tuple[Share, Share]
    n: Annotated[int, Field(ge=1)]
    chance: Share | None = None

    @model_validator(mode="after")
    def _interval_in_order(self) -> "Score":
        if self.ci[0] > self.ci[1]:
            raise ValueError(f"ci: expected [low, high], got {list(self.ci)}")
        return self


class Divergence(_Fixed):
    """How far a model's answers lie from base's.

    Attributes:
        value: Mean over the answers of KL(base || model) of the next token, nats a token; 0 where
            both expect the same.
        ci: 95 % interval of the mean, bootstrap by person.
        n: Number of answers.
    """

    value: Amount
    ci: tuple[Amount, Amount]
    n: Annotated[int, Field(ge=1)]


def _kind_of_value(value: object) -> str:
    if isinstance(value, NotScored) or (isinstance(value, Mapping) and "not_scored" in value):
        return "not_scored"
    return "measured"


_reason_or_value = Discriminator(_kind_of_value)


class Difference(_Fixed):
    """Erased less gold under the same attack.

    Attributes:
        value: Mean over the samples, -1..1.
        ci: 95 % interval, bootstrap by person on the same samples.
    """

    value: Annotated[float, Field(ge=-1, le=1)]
    ci: tuple[float, float]


class Gain(_Fixed):
    """How much more the erased model regains by relearning than one that never knew.

    Attributes:
        value: AG, the mean over the tries, -2..2.
        ci: 95 % interval, bootstrap by person on the same samples.
        tries: AG(p) by try.
        definition: Of AG, in words.
    """

    value: Annotated[float, Field(ge=-2, le=2)]
    ci: tuple[float, float]
    tries: dict[str, float]
    definition: str


class AttackScore(_Open):
    """What one attempt to bring the knowledge back reached.

    Attributes:
        value: Share of samples recovered by any try, 0..1.
        ci: 95 % interval of the share.
        n: Number of samples.
        budget: What the attacker was given: the number of tries, and the attack's settings.
        power: Whether the attack can find what is merely hidden on this model; None where that was
            not tested. Said of the erased model.
        power_why: Why so.
        group: What the attack changes: "prompts", "images", "weights"; or how else it goes about
            it: "readout", "relearning", "membership"; None for an attack that is a group of its
            own.
        plain: Share of the same samples right without the attack, counted alike.
        tries: Share recovered by each try alone.
        above_gold: How far above gold under the same attack. Said of the erased model.
        base_kept: Share of its right answers that base keeps under the attack; None if it had none.
        gain: What relearning brings. Said of the erased model, where there is a gold model.
        measure: What `value` and `tries` are, where they are no share of samples recovered.
        beside: More shares, by try or by measure, such as of a probe on random labels.
    """

    value: Share
    ci: tuple[Share, Share]
    n: Annotated[int, Field(ge=1)]
    budget: Any = None
    power: Any = None
    power_why: str = ""
    group: str | None = None
    plain: Share | None = None
    tries: dict[str, Share] = {}
    above_gold: (
        Annotated[
            Annotated[Difference, Tag("measured")] | Annotated[NotScored, Tag("not_scored")],
            _reason_or_value,
        ]
        | None
    ) = None
    base_kept: Share | None = None
    gain: Gain | None = None
    measure: str = ""
    beside: dict[str, dict[str, Share]] = {}


Cell = Annotated[
    Annotated[Score, Tag("measured")] | Annotated[NotScored, Tag("not_scored")], _reason_or_value
]
AttackCell = Annotated[
    Annotated[AttackScore, Tag("measured")] | Annotated[NotScored, Tag("not_scored")],
    _reason_or_value,
]
Figure = Annotated[
    Annotated[Amount, Tag("measured")] | Annotated[NotScored, Tag("not_scored")], _reason_or_value
]


class ModelScores(_Fixed):
    """Everything measured on one model.

    Attributes:
        scores: Set name -> metric name -> value.
        attacks: Attack name -> value.
        kl_to_base: Set to keep -> how far its right answers moved. Not said of base itself.
    """

    scores: dict[str, dict[str, Cell]] = {}
    attacks: dict[str, AttackCell] = {}
    kl_to_base: dict[str, Divergence] = {}

    def cell(self, set_name: str, metric: str = "accuracy") -> Score | NotScored:
        """Return one value; what is missing comes back as not scored, with that reason."""
        metrics = self.scores.get(set_name)
        if metrics is None:
            return NotScored(not_scored="the set was not part of this audit")
        return metrics.get(metric) or NotScored(not_scored="the metric was not part of this audit")


class Summary(_Open):
    """The audit in five figures.

    Attributes:
        reference: What the erased model is compared with.
        forget_gap: Mean over measurable forget sets; 0 as the reference, 1 nothing done.
        over_forgetting: Mean shortfall below the reference, on the same scale.
        keep: Harmonic mean over the keep sets of the share kept, 0..1.
        text_drop: Loss of accuracy on questions that name a subject without a photo, base - erased.
        score: Harmonic mean of 1 - forget_gap and keep.
        left_out: Set left out of a figure above -> why.
        stranger_floor: Set -> how often the model gives the subject's answers on strangers' photos.
    """

    reference: Reference
    forget_gap: Figure
    over_forgetting: Figure
    keep: Figure
    text_drop: Annotated[
        Annotated[float, Tag("measured")] | Annotated[NotScored, Tag("not_scored")],
        _reason_or_value,
    ]
    score: Figure
    left_out: dict[str, str] = {}
    stranger_floor: dict[str, Cell] = {}


class Probed(_Open):
    """What the base knew of one topic about one subject.

    Attributes:
        subject: Whom it was asked about.
        known: Whether there was something to forget.
    """

    subject: str
    known: bool


class Request(_Open):
    """What was asked for.

    Attributes:
        subjects: Who was to be forgotten.
        scope: "visual" leaves answers to text-only questions alone; "both" does not.
        draw: Name of the world's draw; None outside the world.
        photos_per_person: Photos a person that the method was given.
        strangers: Number of strangers behind the stranger floor.
        probes: What the base knew before anything was changed; empty where it was not asked.
    """

    subjects: list[str]
    scope: Literal["visual", "both"]
    draw: str | None = None
    photos_per_person: Annotated[int, Field(ge=0)] | None = None
    strangers: Annotated[int, Field(ge=0)] | None = None
    probes: list[Probed] = []


class MethodUsed(_Open):
    """How the model was changed.

    Attributes:
        name: Registered name; None where a model was audited as it is.
        kind: "weights" changes the model, "eraser" works at test time, "none" changes nothing.
        settings: The method's settings as resolved.
    """

    name: str | None = None
    kind: MethodKind
    settings: dict[str, Any] = {}


class Verdict(_Fixed):
    """What the evidence supports, computed by `unsee.report.verdict`.

    Attributes:
        rung: Step of the claim ladder.
        because: Reasons, one sentence each.
        not_run: What was not tried or could not be, one sentence each.
    """

    rung: str
    because: list[str]
    not_run: list[str]


class Cost(_Fixed):
    """What the run took; None where it was not recorded.

    Attributes:
        wall_s: Wall-clock time in seconds.
        peak_rss_mb: Largest resident memory in MB.
        peak_gpu_mb: Largest allocated GPU memory in MB.
        trained_parameters: Number of parameters that were trained.
        artifact_bytes: Size of the artifact on disk.
    """

    wall_s: Amount | None = None
    peak_rss_mb: Amount | None = None
    peak_gpu_mb: Amount | None = None
    trained_parameters: Annotated[int, Field(ge=0)] | None = None
    artifact_bytes: Annotated[int, Field(ge=0)] | None = None


class Example(_Fixed):
    """One question with the answers of each model.

    Attributes:
        set: Name of the set it comes from.
        subject: Whom it is about.
        question: As asked.
        truth: The right answer.
        base: Answer before; None where the model was not asked.
        erased: Answer after.
        gold: Answer of the model that never knew.
        photo: The photo as a data URI, only where embedding was allowed.
    """

    set: str
    subject: str
    question: str
    truth: str
    base: str | None = None
    erased: str | None = None
    gold: str | None = None
    photo: DataUri | None = None


class Report(_Fixed):
    """One audit, as stored in `report.json`.

    Attributes:
        format: Version of this format.
        command: The command line that repeats the audit.
        versions: Package -> version.
        device: Where it ran.
        seeds: Seeds of the runs pooled here.
        request: What was asked for.
        method: How the model was changed.
        models: What was measured, by model.
        summary: The audit in five figures.
        verdict: What the evidence supports.
        cost: What it took.
        examples: Answers before and after.
        data: Where the photos and questions come from, as the audit describes it.
    """

    format: Literal[1] = FORMAT
    command: str
    versions: dict[str, str]
    device: str
    seeds: list[int]
    request: Request
    method: MethodUsed
    models: dict[ModelName, ModelScores]
    summary: Summary
    verdict: Verdict
    cost: Cost
    examples: list[Example] = []
    data: dict[str, Any] = {}

    def model(self, name: ModelName) -> ModelScores:
        """Return one model's scores, empty if it was not part of the audit."""
        return self.models.get(name, ModelScores())
