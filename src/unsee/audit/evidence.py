"""The evidence of an audit: every figure with its samples, in the order of the chain."""

import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from numpy.typing import NDArray

from unsee.audit.scoring import Scored
from unsee.data.records import Record
from unsee.report.evidence import (
    STRANGERS,
    Artifact,
    Closing,
    Entry,
    Figure,
    Questions,
    Replied,
    Run,
    data_fingerprint,
    figure_name,
    measured,
    people_numbers,
    reply_digest,
    sample_digest,
)
from unsee.report.schema import AttackScore, Divergence, ModelName, Report, Score

Content = TypeVar("Content")
Records = Mapping[str, Sequence[Record]]
# Score of each row of a set that has one.
Rows = Mapping[int, float]


def gathered(
    report: Report,
    report_hash: str,
    sets: Records,
    scored: Mapping[ModelName, Scored],
    *,
    strangers: Records,
    floor: Scored | None,
    attacked_set: str,
    attacked: Mapping[str, Mapping[str, NDArray[Any]]],
    models: Mapping[str, str],
    artifacts: Sequence[Artifact],
    seed: int,
) -> list[Entry]:
    """Entries of `evidence.json`, ready to be chained.

    Args:
        report: The report.
        report_hash: SHA-256 of the file that it was written to.
        sets: Records by set.
        scored: Answers and scores by model.
        strangers: Records of the stranger floor by set.
        floor: What base said on those; None where they were not asked.
        attacked_set: Set whose open questions the attacks asked.
        attacked: Success with each of those, by model and attack; NaN where one could not be asked.
        models: Fingerprints by model.
        artifacts: Runs that made the erased model.
        seed: Of the intervals.
    """
    salt = secrets.token_hex(32)
    asked = {**sets, **(on_strangers(strangers) if floor is not None else {})}
    answers: dict[str, dict[str, Sequence[str]]] = {
        model: dict(found.answers) for model, found in scored.items()
    }
    samples = {
        (model, name, metric, ""): rows
        for model, found in scored.items()
        for name, by_metric in found.samples.items()
        for metric, rows in by_metric.items()
        if not isinstance(rows, str)
    }
    if floor is not None:
        answers["base"] |= on_strangers(floor.answers)
        rows_of = {name: metrics["accuracy"] for name, metrics in floor.samples.items()}
        samples |= {
            ("base", name, "accuracy", ""): rows
            for name, rows in on_strangers(rows_of).items()
            if not isinstance(rows, str)
        }
    open_rows = [row for row, r in enumerate(sets.get(attacked_set, ())) if r.form == "open"]
    samples |= {
        (model, attacked_set, "", attack): {
            row: float(value)
            for row, value in zip(open_rows, success, strict=True)
            if not math.isnan(value)
        }
        for model, by_attack in attacked.items()
        for attack, success in by_attack.items()
    }
    figures = list(_figures(measured(report), samples, asked))
    everything = [record for records in asked.values() for record in records]
    number = people_numbers([record.subject for record in everything])
    return [
        Run(
            salt=salt,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=report.versions,
            device=report.device,
            seed=seed,
            models=dict(models),
            artifacts=list(artifacts),
            data=data_fingerprint(everything),
        ),
        *(
            Questions(
                set=name,
                samples=[sample_digest(salt, record) for record in records],
                people=[number[record.subject] for record in records],
            )
            for name, records in asked.items()
        ),
        *(
            Replied(model=model, set=name, replies=[reply_digest(salt, text) for text in texts])
            for model, by_set in answers.items()
            for name, texts in by_set.items()
        ),
        *figures,
        Closing(
            report=report_hash,
            without_samples=[
                *sorted(measured(report).keys() - {figure.name for figure in figures}),
                *(["scores as published"] if "published" in report.data else []),
            ],
        ),
    ]


def on_strangers(by_set: Mapping[str, Content]) -> dict[str, Content]:
    """The same by the names that sets of the stranger floor have in the evidence."""
    return {f"{STRANGERS}{name}": content for name, content in by_set.items()}


def _figures(
    cells: Mapping[str, Score | AttackScore | Divergence],
    samples: Mapping[tuple[str, str, str, str], Rows],
    asked: Records,
) -> Iterator[Figure]:
    for (model, name, metric, attack), rows in samples.items():
        cell = cells.get(figure_name(model, name, metric, attack))
        if cell is not None:
            yield Figure(
                model=model,
                set=name,
                metric=metric,
                attack=attack,
                value=cell.value,
                ci=cell.ci,
                n=cell.n,
                scores=[
                    float(rows[row]) if row in rows else None for row in range(len(asked[name]))
                ],
            )
