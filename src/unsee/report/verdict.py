"""What the evidence supports, and no more. Computed, never typed by hand.

A rung says what was shown under the questions that were asked. It does not show what the model
holds inside, nor what an attacker could bring back: the rungs for that need attacks, and those that
were not run are named. The rungs themselves: `unsee.report.ladder`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from unsee.metrics.summary import keep_sets
from unsee.report import attempts, wording
from unsee.report.gaps import Gap
from unsee.report.ladder import ATTACKS, LADDER, RUNGS, climb, findings, lacking, unmeasured
from unsee.report.schema import (
    MethodKind,
    ModelName,
    ModelScores,
    NotScored,
    Report,
    Request,
    Score,
    Summary,
    Verdict,
)

_NAMES = [rung.name for rung in LADDER]
_SUPPRESSED = _NAMES.index("suppressed")


def verdict(
    summary: Summary,
    models: Mapping[ModelName, ModelScores],
    request: Request,
    method_kind: MethodKind,
) -> Verdict:
    """Return the highest rung that the scores support, with the reasons.

    Args:
        summary: Says what the erased model is compared with.
        models: Scores of base, erased and gold; without erased, base is judged as it is.
        request: Says whether text-only answers had to be forgotten too, and how many strangers
            were photographed.
        method_kind: Whether weights were changed, or an eraser works at test time.
    """
    found = findings(summary, models, request, method_kind)
    rung, against = climb(found)
    because = [*against, *(_measured(name, gap, summary) for name, gap in found.gaps.items())]
    because += unmeasured(found)
    if LADDER.index(rung) >= _SUPPRESSED:
        because += _unknown(found.erased, tuple(found.gaps))
        because += _largest_loss(found.base, found.erased, request)
    because += attempts.sentences(found.erased)
    return Verdict(
        rung=rung.name, because=list(dict.fromkeys(because)), not_run=_not_run(found.erased)
    )


def verdict_of(report: Report) -> Verdict:
    """Return the verdict that a report's own figures support."""
    return verdict(report.summary, report.models, report.request, report.method.kind)


@dataclass(frozen=True)
class Step:
    """A rung beside the claim of a report.

    Attributes:
        name: Of the rung.
        stands: "claimed", "below" or "not shown".
        needs: What it needs beyond the rung below.
        lacks: Groups of attacks that were not run with power beside gold.
    """

    name: str
    stands: str
    needs: str
    lacks: tuple[str, ...]


def steps(report: Report) -> list[Step]:
    """Return the claims from the strongest down, each with how it stands and what it lacks."""
    reached = _NAMES.index(report.verdict.rung) if report.verdict.rung in _NAMES else -1
    judged = report.model("erased" if "erased" in report.models else "base")
    return [
        Step(
            rung.name,
            "claimed" if place == reached else "below" if place < reached else "not shown",
            rung.needs,
            () if place <= reached else tuple(lacking(rung, judged)),
        )
        for place, rung in reversed(list(enumerate(LADDER)))
        if place >= _SUPPRESSED
    ]


def rung_says(rung: str, *, scope: str) -> str:
    """Return what a rung means in one or two sentences; "" for one this version does not know."""
    asked = "Asked with a photo" if scope == "visual" else "Asked with a photo or by name"
    return RUNGS.get(rung, "").format(asked=asked)


def limits(report: Report) -> list[str]:
    """Return what the report does not show, one sentence each, the weightiest first."""
    found = []
    if report.request.scope == "visual":
        found.append(_asked_by_name(report))
    if report.method.kind == "eraser":
        found.append("The weights are unchanged: whoever switches the eraser off has the old model")
    if report.summary.reference == "strangers":
        found.append(
            "There was no model that never knew to compare with. Answers on photos of strangers "
            "stand in for it"
        )
    if report.summary.reference == "none":
        found.append("There was nothing to compare with: no model that never knew, no strangers")
    tried = set(ATTACKS) & attempts.groups_run(report.model("erased"))
    if tried == set(ATTACKS):
        found.append("Attacks other than those that were tried may bring the knowledge back")
    elif tried:
        found.append(f"Attempts to bring the knowledge back: only {', '.join(sorted(tried))}")
    else:
        found.append("No attempt was made to bring the knowledge back or to find it inside")
    people = len(report.request.subjects)
    found.append(
        f"It holds for the {people} {'person' if people == 1 else 'people'} and the questions "
        "tested here, not for others"
    )
    return [f"{sentence}." for sentence in found]


def _asked_by_name(report: Report) -> str:
    before = report.model("base").cell("forget_text")
    after = report.model("erased").cell("forget_text")
    opening = "Only recognition in photos was to be forgotten."
    if isinstance(after, NotScored):
        return (
            f"{opening} Whether the model still answers when asked by name was not tested: "
            f"{after.not_scored}"
        )
    was = "" if isinstance(before, NotScored) else f" ({wording.percent(before.value)} before)"
    still = "still answers" if after.value >= 0.5 else "answers"
    return (
        f"{opening} Asked by name, the model {still}: without a photo it is right in "
        f"{wording.percent(after.value)} of {after.n} questions{was}"
    )


def _measured(name: str, gap: Gap, summary: Summary) -> str:
    who = "a model that never knew them" if summary.reference == "gold" else "photos of strangers"
    return (
        f"{wording.set_title(name)}: right in {wording.percent(gap.base.value)} before and "
        f"{wording.percent(gap.erased.value)} after, against "
        f"{wording.percent(gap.reference.value)} for {who} ({gap.erased.n} questions)."
    )


def _unknown(erased: ModelScores, names: tuple[str, ...]) -> Iterable[str]:
    for name in names:
        unknown, wrong = (erased.cell(name, rate) for rate in ("unknown_rate", "wrong_name_rate"))
        if isinstance(unknown, Score) and isinstance(wrong, Score):
            yield (
                f"{wording.set_title(name)}: now it says that it does not know in "
                f"{wording.percent(unknown.value)} and gives another known person's name or fact "
                f"in {wording.percent(wrong.value)}."
            )


def _largest_loss(base: ModelScores, erased: ModelScores, request: Request) -> Iterable[str]:
    losses = [
        (before.value - after.value, name, before, after)
        for name in keep_sets(request.scope)
        if isinstance(before := base.cell(name), Score)
        and isinstance(after := erased.cell(name), Score)
    ]
    if not losses:
        yield "Whether anything else was lost was not scored."
        return
    loss, name, before, after = max(losses, key=lambda entry: entry[0])
    if loss <= 0:
        yield "Nothing that should be kept was lost: no set is below what it was before."
        return
    title = wording.set_title(name)
    yield (
        f"The largest loss in what should be kept: {title[0].lower()}{title[1:]}, right in "
        f"{wording.percent(before.value)} before and {wording.percent(after.value)} after."
    )


def _not_run(erased: ModelScores) -> list[str]:
    lines = [
        f"{what}: {why}."
        for group, what in ATTACKS.items()
        if (why := attempts.why_nothing_shown(erased, group))
    ]
    return [*lines, *attempts.not_run(erased, groups=ATTACKS)]
