"""Does a report still say what was measured? Its evidence, checked without a model."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unsee import report as reports
from unsee.artifacts import load_manifest, versions
from unsee.audit.runs import artifact_of
from unsee.errors import ArtifactError, ConfigError
from unsee.metrics import recovery
from unsee.metrics.intervals import Interval, mean_interval
from unsee.metrics.summary import summarise
from unsee.report import Report, evidence, signing
from unsee.report.evidence import (
    Closing,
    Entry,
    Evidence,
    Figure,
    Questions,
    Replied,
    Run,
    figure_name,
    measured,
)
from unsee.report.schema import Difference, ModelScores
from unsee.report.storage import FILE_NAME as REPORT
from unsee.report.verdict import verdict_of

Outcome = Literal["ok", "failed", "not checked"]

ATTESTS = (
    "This attests the evidence, not the law: what was asked, answered and counted, not that any "
    "duty is met."
)
# The same scores summed in another order differ in their last digits.
_ROUNDING = 1e-9
_SUMMARY = ("forget_gap", "over_forgetting", "keep", "text_drop", "score")
_SHOWN = 3


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: What it is.
        outcome: Whether it holds; "not checked" is no failure.
        said: What was found.
    """

    what: str
    outcome: Outcome
    said: str


def failed(checks: Iterable[Check]) -> bool:
    """Whether anything does not hold."""
    return any(check.outcome == "failed" for check in checks)


def verify(folder: Path, *, key: Path | None = None) -> tuple[list[Check], Evidence | None]:
    """Check the evidence in a folder without a model.

    Args:
        folder: That `unsee audit` wrote to.
        key: Public key, in PEM, of whoever is to have signed it.

    Returns:
        The checks, and the evidence where all of its entries are there and fit together.

    Raises:
        ArtifactError: If there is no evidence, or it is of a newer format.
        ConfigError: If the key is none, or signatures cannot be checked here.
    """
    wanted = signing.read_public(key) if key is not None else None
    found = evidence.load(folder)
    if isinstance(found, str):
        said = f"{found}; it was changed or cut short"
        return [Check(evidence.FILE_NAME, "failed", said)], None
    checks = [_chain(found), _signature(found, wanted)]
    faults = list(_structure(found))
    if faults:
        return [*checks, *_failures("entries", faults)], None
    return [*checks, *_report(found, folder)], found


def check_artifacts(found: Evidence, folders: Sequence[Path]) -> list[Check]:
    """Whether the runs in some folders are those that the audit put on the model, in its order."""
    expected = found.of(Run)[0].artifacts
    if len(folders) != len(expected):
        said = f"the audit put {len(expected)} on the model, its command names {len(folders)}"
        return [Check("artifacts", "failed", said)]
    checks = []
    for folder, wanted in zip(folders, expected, strict=True):
        try:
            got = artifact_of(load_manifest(folder))
        except (ArtifactError, KeyError) as error:
            checks.append(Check("artifact", "failed", str(error)))
            continue
        same = (got.fingerprint, got.base) == (wanted.fingerprint, wanted.base)
        said = f"{folder} is run {got.fingerprint}, made for base {got.base}"
        if not same:
            said += f"; the audit's was {wanted.fingerprint}, made for base {wanted.base}"
        checks.append(Check("artifact", "ok" if same else "failed", said))
    return checks


def check_model(found: Evidence, name: str, identity: str) -> Check:
    """Whether a model is that of the audit.

    Args:
        found: The evidence.
        name: "base", "erased" or "gold".
        identity: Its fingerprint.
    """
    wanted = found.of(Run)[0].models.get(name, "none")
    if identity == wanted:
        return Check(f"model {name}", "ok", f"fingerprint {identity}")
    said = f"another model: fingerprint {identity}, the audit's was {wanted}"
    return Check(f"model {name}", "failed", said)


def _failures(what: str, faults: Sequence[str]) -> list[Check]:
    """The first faults of one kind, and how many more there are."""
    shown = [Check(what, "failed", fault) for fault in faults[:_SHOWN]]
    if len(faults) > _SHOWN:
        shown.append(Check(what, "failed", f"and {len(faults) - _SHOWN} more"))
    return shown


def _held(what: str, faults: Sequence[str], said: str) -> list[Check]:
    return _failures(what, faults) or [Check(what, "ok", said)]


def _chain(found: Evidence) -> Check:
    broken = evidence.broken_links(found)
    count = len(found.links)
    if not broken:
        return Check("chain", "ok", f"{count} entries, the last hash is {found.head}")
    place = broken[0]
    return Check(
        "chain",
        "failed",
        f"entry {place + 1} of {count} ({_called(found.links[place].entry)}) does not follow from "
        "the one before it; it was changed, moved, or one was left out before it",
    )


def _called(entry: Entry) -> str:
    match entry:
        case Run():
            return "the run"
        case Questions():
            return f"questions of {entry.set}"
        case Replied():
            return f"replies of {entry.model}, {entry.set}"
        case Figure():
            return entry.name
        case Closing():
            return "the report"


def _signature(found: Evidence, wanted: str | None) -> Check:
    signature = found.signature
    if signature is None:
        expected = "" if wanted is None else f"; expected key {signing.key_name(wanted)}"
        return Check(
            "signature", "not checked" if wanted is None else "failed", f"there is none{expected}"
        )
    name = signing.key_name(signature.public_key)
    try:
        holds = signing.holds(found)
    except ConfigError as error:
        if wanted is not None:
            raise
        return Check("signature", "not checked", str(error))
    if not holds:
        return Check("signature", "failed", f"it is not of key {name} over these entries")
    if wanted is None:
        return Check(
            "signature", "not checked", f"of key {name}; give --key to say whose it should be"
        )
    if signature.public_key != wanted:
        expected = signing.key_name(wanted)
        return Check("signature", "failed", f"of another key: {name}, expected {expected}")
    return Check("signature", "ok", f"of key {name}")


def _structure(found: Evidence) -> Iterator[str]:
    """What is missing, there twice, or of another length than its set."""
    kinds = [link.entry.kind for link in found.links]
    for kind, place in (("run", 0), ("report", -1)):
        if kinds.count(kind) != 1 or kinds[place] != kind:
            yield f"expected one entry '{kind}' at the {'end' if place else 'start'}"
    twice = [name for name, count in Counter(map(_called, _entries(found))).items() if count > 1]
    yield from (f"{name}: is there twice" for name in twice)
    sizes = {asked.set: len(asked.samples) for asked in found.of(Questions)}
    for asked in found.of(Questions):
        if len(asked.people) != len(asked.samples):
            yield f"{_called(asked)}: {len(asked.people)} people for {len(asked.samples)} samples"
    for told in (*found.of(Replied), *found.of(Figure)):
        count = len(told.replies if isinstance(told, Replied) else told.scores)
        if count != sizes.get(told.set):
            yield f"{_called(told)}: {count} samples, the set has {sizes.get(told.set, 0)}"


def _entries(found: Evidence) -> Iterator[Entry]:
    return (link.entry for link in found.links)


def _report(found: Evidence, folder: Path) -> list[Check]:
    file = folder / REPORT
    try:
        content = file.read_bytes()
        report = reports.load(folder)
    except FileNotFoundError:
        return [Check(REPORT, "failed", f"{file}: is missing")]
    except ArtifactError as error:
        return [Check(REPORT, "failed", str(error))]
    closing = found.of(Closing)[0]
    if hashlib.sha256(content).hexdigest() == closing.report:
        checks = [Check(REPORT, "ok", "the file that the evidence was written for")]
    else:
        checks = [Check(REPORT, "failed", "differs from the one that the evidence was written for")]
    figures = {figure.name: figure for figure in found.of(Figure)}
    said = f"{len(figures)} are what their samples come to"
    if bare := closing.without_samples:
        kinds = sorted({name.rpartition(", ")[2] for name in bare})
        said += f"; {len(bare)} without samples here: {', '.join(kinds)}"
    checks += _held("figures", list(_figures(found, report, figures)), said)
    checks += _held(
        "summary", list(_summary(report)), "what the figures come to, and the verdict with it"
    )
    return checks


def _figures(found: Evidence, report: Report, figures: Mapping[str, Figure]) -> Iterator[str]:
    cells = measured(report)
    bare = set(found.of(Closing)[0].without_samples)
    for name in sorted((cells.keys() ^ figures.keys()) - (bare & cells.keys())):
        yield f"{name}: {'is not in the report' if name in figures else 'has no samples'}"
    run = found.of(Run)[0]
    people = {asked.set: asked.people for asked in found.of(Questions)}
    # Another release may draw otherwise.
    same_draws = run.versions.get("numpy") == versions()["numpy"]
    for name in figures.keys() & cells.keys():
        figure, cell = figures[name], cells[name]
        if (figure.value, figure.ci, figure.n) != (cell.value, cell.ci, cell.n):
            yield f"{name}: {cell.value} of {cell.n} in the report, {figure.value} of {figure.n}"
            continue
        again = _interval(figure, people[figure.set], run.seed)
        if again is None or again.n != figure.n or not _close(again.value, figure.value):
            yield f"{name}: {figure.value} is not the mean of its samples"
        elif same_draws and not (_close(again.low, cell.ci[0]) and _close(again.high, cell.ci[1])):
            yield f"{name}: {list(cell.ci)} is not the interval of its samples"
    yield from _above_gold(report, figures, people, run.seed, same_draws=same_draws)


def _interval(figure: Figure, people: Sequence[int], seed: int) -> Interval | None:
    """The mean and its interval, computed anew; None where nothing was scored."""
    scored = [
        (score, number)
        for score, number in zip(figure.scores, people, strict=True)
        if score is not None
    ]
    if not scored:
        return None
    return mean_interval([score for score, _ in scored], _names(n for _, n in scored), seed=seed)


def _above_gold(
    report: Report,
    figures: Mapping[str, Figure],
    people: Mapping[str, Sequence[int]],
    seed: int,
    *,
    same_draws: bool,
) -> Iterator[str]:
    """How far attacks are above gold, which is what the verdict reads."""
    for attack, cell in report.model("erased").attacks.items():
        stated = getattr(cell, "above_gold", None)
        pair = [figures.get(figure_name(m, "", "", attack)) for m in ("erased", "gold")]
        erased, gold = pair
        if not isinstance(stated, Difference) or erased is None or gold is None:
            continue
        try:
            names = _names(people[erased.set])
            again = recovery.above_gold(_success(erased), _success(gold), names, seed=seed)
        except ValueError as error:
            yield f"attack {attack}: above gold cannot be computed ({error})"
            continue
        ends = zip((again.low, again.high), stated.ci, strict=True)
        if not _close(again.value, stated.value) or (
            same_draws and not all(_close(a, b) for a, b in ends)
        ):
            yield f"attack {attack}: {stated.value} above gold is not what its samples come to"


def _success(figure: Figure) -> NDArray[np.float64]:
    return np.array([math.nan if score is None else score for score in figure.scores])


def _names(numbers: Iterable[int]) -> list[str]:
    """Numbers as names that sort alike, since intervals draw people in the order of their names."""
    return [f"{number:09d}" for number in numbers]


def _summary(report: Report) -> Iterator[str]:
    stated = report.summary
    floor = {name: {"accuracy": cell.model_dump()} for name, cell in stated.stranger_floor.items()}
    gold = _table(report.model("gold"))
    expected = "gold" if "gold" in report.models else "strangers" if floor else "none"
    if stated.reference != expected:
        yield f"compared with {stated.reference!r}, but the report holds {expected!r}"
        return
    again = summarise(
        _table(report.model("base")),
        _table(report.models.get("erased", report.model("base"))),
        gold if expected == "gold" else floor,
        reference=stated.reference,
        scope=report.request.scope,
    )
    table = stated.model_dump()
    for name in _SUMMARY:
        same = (
            _close(again[name], table[name])
            if isinstance(again[name], float) and isinstance(table[name], float)
            else again[name] == table[name]
        )
        if not same:
            stated_as, comes_to = _said(table[name]), _said(again[name])
            yield f"{name}: {stated_as} in the report, the figures come to {comes_to}"
    supported = verdict_of(report)
    if supported.rung != report.verdict.rung:
        yield f"verdict: {report.verdict.rung!r}, but the figures support {supported.rung!r}"
    elif report.versions.get("unsee") == versions()["unsee"] and supported != report.verdict:
        yield "verdict: its reasons are not those of the figures"


def _table(scores: ModelScores) -> dict[str, dict[str, Any]]:
    return {
        name: {metric: cell.model_dump() for metric, cell in metrics.items()}
        for name, metrics in scores.scores.items()
    }


def _said(value: Any) -> str:
    return "not scored" if isinstance(value, Mapping) else f"{value:.4f}"


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= _ROUNDING
