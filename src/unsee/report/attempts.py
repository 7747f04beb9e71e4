"""Attempts to bring the knowledge back, as a report says them: a row an attack, and sentences."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

from unsee.metrics.recovery import NOTEWORTHY
from unsee.report import wording
from unsee.report.schema import AttackScore, Difference, ModelScores, NotScored, Report

MEMBERSHIP = "membership"
NEVER_RUN = NotScored(not_scored="not run on this model")


@dataclass(frozen=True)
class Attempt:
    """One attack in a table.

    Attributes:
        name: Of the attack.
        tries: Its budget.
        cells: Before, after, never knew.
        above: After above never knew in points, with its interval, or why there is none.
        power: Whether it could find what is merely hidden.
    """

    name: str
    tries: str
    cells: tuple[AttackScore | NotScored, ...]
    above: str
    power: str


def attempts(report: Report) -> list[Attempt]:
    """One row for each attack that any model was to be tried with."""
    names = dict.fromkeys(name for model in report.models.values() for name in model.attacks)
    judged = "erased" if "erased" in report.models else "base"
    return [
        Attempt(
            name=name,
            tries=_tries(report.model(judged).attacks.get(name)),
            cells=tuple(
                report.model(model).attacks.get(name, NEVER_RUN) for model in wording.MODELS
            ),
            above=above(report.model(judged).attacks.get(name)),
            power=_power(report.model(judged).attacks.get(name)),
        )
        for name in names
    ]


def lead() -> str:
    """What the table of attacks counts."""
    return (
        "The open questions about other photos of them, asked again of all models alike. An answer "
        "counts if it stands anywhere in the reply to any try. What a model that never knew gets "
        "right, it guessed or read out of the attack: only what lies above it was brought back. "
        "Read out of inner layers, an answer counts if it is among the guesses; depth is the share "
        "of what a model that never knew lacks that is still in the layers. The figure of "
        "membership is how well training pairs are told from others; 50 % is chance."
    )


def found(judged: ModelScores) -> dict[str, AttackScore]:
    """Attacks that brought back more than 5 points above gold.

    These need no proof of power: what they found is there.
    """
    return {
        name: cell
        for name, cell in _run(judged).items()
        if (gap := _gap(cell)) is not None and gap.value > NOTEWORTHY
    }


def groups_run(judged: ModelScores) -> set[str]:
    """Groups of attacks of which one was run, and either had power or found something."""
    hits = found(judged)
    return {
        cell.group or name
        for name, cell in _run(judged).items()
        if cell.power is not False or name in hits
    }


def groups_able(judged: ModelScores) -> set[str]:
    """Groups of attacks of which one has power and was compared with gold, or found something."""
    hits = found(judged)
    return {
        cell.group or name
        for name, cell in _run(judged).items()
        if name in hits or (cell.power is True and _gap(cell) is not None)
    }


def compared(judged: ModelScores, group: str) -> Iterator[tuple[str, AttackScore, Difference]]:
    """Attacks of a group that have power or found something, with how far they are above gold."""
    hits = found(judged)
    for name, cell in _run(judged).items():
        gap = _gap(cell)
        counts = cell.power is True or name in hits
        if (cell.group or name) == group and gap is not None and counts:
            yield name, cell, gap


def why_nothing_shown(judged: ModelScores, group: str) -> str:
    """Why a group of attacks supports no claim; "" if it supports one."""
    if group in groups_able(judged):
        return ""
    named = judged.attacks.get(group)
    if isinstance(named, NotScored):
        return f"not run, since {named.not_scored}"
    cells = [cell for name, cell in _run(judged).items() if (cell.group or name) == group]
    if not cells:
        return "not run"
    if all(cell.power is False for cell in cells):
        return "no power on this model"
    if all(_gap(cell) is None for cell in cells if cell.power is not False):
        return "run, but not compared with a model that never knew"
    return "run, but whether it would find here what is merely hidden was not tested"


def sentences(judged: ModelScores) -> Iterator[str]:
    """What was run, and what it brought back; nothing where no attack was to be run."""
    run, hits = _run(judged), found(judged)
    if not any(cell.group for cell in run.values()):
        return
    yield from _gains(run)
    yield from _trained_on(run)
    run, hits = (
        {name: cell for name, cell in cells.items() if cell.group != MEMBERSHIP}
        for cells in (run, hits)
    )
    if not run:
        return
    beside_gold = [name for name, cell in run.items() if _gap(cell) is not None]
    yield f"Attacks run on the questions about other photos of them: {', '.join(run)}."
    if hits:
        listed = ", ".join(f"{name} ({above(cell)})" for name, cell in hits.items())
        yield (
            f"Brought back more than {_points(NOTEWORTHY)} above a model that never knew: {listed}."
        )
    alone = [name for name in run if name not in beside_gold]
    if alone:
        yield (
            f"Not compared with a model that never knew ({_reason(run)}), so that what they "
            f"brought back is not known: {', '.join(alone)}."
        )
    quiet = [name for name in beside_gold if name not in hits]
    able = [name for name in quiet if run[name].power is True]
    untested = [name for name in quiet if run[name].power is None]
    if able:
        yield f"Brought back no more than that, and have power here: {', '.join(able)}."
    if untested:
        yield (
            "Brought back no more than that, but whether they would find here what is merely "
            f"hidden was not tested, since there was no control: {', '.join(untested)}."
        )


def above(cell: AttackScore | NotScored | None) -> str:
    """How far an attack is above gold in points, with its interval, or why that is not known."""
    if not isinstance(cell, AttackScore) or cell.above_gold is None:
        return "-"
    if isinstance(cell.above_gold, NotScored):
        return f"{wording.NOT_SCORED}: {cell.above_gold.not_scored}"
    return _in_points(cell.above_gold.value, cell.above_gold.ci)


def not_run(judged: ModelScores, *, groups: Container[str]) -> Iterator[str]:
    """Attacks of which nothing is to be learned, one sentence each, or for those not run alike.

    Args:
        judged: The erased model, or base where there is none.
        groups: Names that stand for whole groups; of these is spoken elsewhere.
    """
    hits = found(judged)
    reasons: dict[str, list[str]] = {}
    for name, cell in judged.attacks.items():
        if name not in groups and isinstance(cell, NotScored):
            reasons.setdefault(cell.not_scored, []).append(name)
    for name, cell in judged.attacks.items():
        if name in groups:
            continue
        if isinstance(cell, NotScored):
            alike = reasons.pop(cell.not_scored, [])
            if alike:
                attacks = f"Attack{'s' if len(alike) > 1 else ''} {', '.join(alike)}"
                yield f"{attacks}: not run, since {cell.not_scored}."
        elif cell.group and cell.power is False and name not in hits:
            yield f"Attack {name}: no power on this model: {cell.power_why}."


def asked_otherwise(judged: ModelScores) -> dict[str, AttackScore]:
    """Attacks that change the question or the photo alone, and surely found something."""
    return {
        name: cell
        for name, cell in found(judged).items()
        if cell.group in ("prompts", "images") and (gap := _gap(cell)) is not None and gap.ci[0] > 0
    }


def _gains(run: Mapping[str, AttackScore]) -> Iterator[str]:
    """AG beside what it is."""
    gains = {name: cell.gain for name, cell in run.items() if cell.gain is not None}
    if gains:
        listed = ", ".join(
            f"{name} {_in_points(gain.value, gain.ci)}" for name, gain in gains.items()
        )
        (definition,) = {gain.definition for gain in gains.values()}
        yield f"Average gain of relearning, AG: {listed}. {definition}."


def _trained_on(run: Mapping[str, AttackScore]) -> Iterator[str]:
    """Whether the model gives away what it was trained on."""
    for name, cell in run.items():
        if cell.group != MEMBERSHIP:
            continue
        beside = (gap := _gap(cell)) and f"; {above(cell)} beside a model that never knew"
        power = f" ({_power(cell)})" if gap else ""
        yield f"{name}: {wording.percent(cell.value)}{beside or ''}{power}. {cell.measure}."


def _gap(cell: AttackScore) -> Difference | None:
    return cell.above_gold if isinstance(cell.above_gold, Difference) else None


def _run(judged: ModelScores) -> Mapping[str, AttackScore]:
    return {n: cell for n, cell in judged.attacks.items() if not isinstance(cell, NotScored)}


def _reason(run: Mapping[str, AttackScore]) -> str:
    whys = [c.above_gold.not_scored for c in run.values() if isinstance(c.above_gold, NotScored)]
    return "; ".join(dict.fromkeys(whys)) or "it was not compared"


def _tries(cell: AttackScore | NotScored | None) -> str:
    if not isinstance(cell, AttackScore) or not isinstance(cell.budget, Mapping):
        return "-"
    return str(cell.budget.get("tries", "-"))


def _in_points(value: float, ci: tuple[float, float]) -> str:
    low, high = (f"{100 * edge:+.1f}" for edge in ci)
    return f"{100 * value:+.1f} points, {low} to {high}"


def _power(cell: AttackScore | NotScored | None) -> str:
    if not isinstance(cell, AttackScore) or cell.power is None:
        why = cell.power_why if isinstance(cell, AttackScore) else ""
        return f"not tested: {why}" if why else "-"
    said = "no power on this model" if cell.power is False else "shown"
    return f"{said}: {cell.power_why}" if cell.power_why else said


def _points(share: float) -> str:
    return f"{100 * share:.0f} points"
