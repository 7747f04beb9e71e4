"""Compare: many methods on the same people and seeds, as one table.

Every method runs on every draw with the seed that belongs to it, each run in a folder of its own
that is not made twice; answers are then pooled over the draws and scored together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from unsee import report as reports
from unsee.artifacts import versions
from unsee.cells import asked, logprobs_of, read_cell
from unsee.data.records import SETS, Record
from unsee.errors import ConfigError
from unsee.lineup import NONE, RETRAIN, Lineup
from unsee.metrics.paired import Difference, PairedSet, paired_difference
from unsee.metrics.sets import sample_scores, score_sets
from unsee.metrics.summary import Reference, forget_sets, keep_sets, summarise
from unsee.recipe import component
from unsee.replies import ANSWERS, Replies, dtype_name
from unsee.report.schema import ModelScores, Request, Summary
from unsee.sources import open_model

Answers = Mapping[str, Sequence[str]]
Scores = Mapping[str, Mapping[str, Any]]
# Columns of a row's cost: of one run, on the mean.
COST = ("wall_s", "peak_rss_mb", "peak_gpu_mb", "trained_parameters", "artifact_bytes")


@dataclass(frozen=True)
class Pool:
    """One row on all draws together.

    Attributes:
        answers: By set.
        scores: As in report.json.
        summary: As in report.json.
    """

    answers: Answers
    scores: Scores
    summary: Mapping[str, Any]


class Table:
    """What the runs of a comparison came to.

    Args:
        lineup: What was run.
        failed: Rows that have no figures, and why.
    """

    def __init__(self, lineup: Lineup, failed: Mapping[str, Sequence[str]]) -> None:
        self.lineup = lineup
        self.failed = dict(failed)
        self._vlm = open_model(lineup.comparison.model)
        self.requests = [
            asked(cell.recipe, self._vlm, lineup.shared(cell)) for cell in lineup.references
        ]
        self._plain = [read_cell(cell, lineup.out) for cell in lineup.references]
        self.runs = {
            row: [read_cell(cell, lineup.out) for cell in lineup.cells(row)]
            for row in lineup.comparison.rows
            if row not in failed
        }
        self.pools = {row: self._pool(row) for row in self.runs}

    @property
    def reference(self) -> Reference:
        """What every row is compared with."""
        return "gold" if "gold" in self._plain[0]["models"] else self.requests[0].reference

    def _pool(self, row: str) -> Pool:
        control = self.lineup.comparison.rows[row].control
        source = {NONE: "base", RETRAIN: "gold"}.get(control or "", "erased")
        cells = self._plain if source != "erased" else self.runs[row]
        if any(source not in cell["models"] for cell in cells):
            raise ConfigError(f"rows.{row}: expected a model that never knew; give gold")
        answers, scores = self._scored([cell["models"][source] for cell in cells])
        summary = summarise(
            self.base[1],
            scores,
            self.floor,
            reference=self.reference,
            scope=self.lineup.comparison.scope,
        )
        return Pool(answers, scores, summary)

    @cached_property
    def base(self) -> tuple[Answers, Scores]:
        """Answers and scores of the base."""
        return self._scored([cell["models"]["base"] for cell in self._plain])

    @cached_property
    def gold(self) -> tuple[Answers, Scores]:
        """Of the model that never knew."""
        return self._scored([cell["models"]["gold"] for cell in self._plain])

    @cached_property
    def floor(self) -> Scores:
        """Scores of gold, or how often the base names a subject on photos of strangers."""
        if self.reference == "gold":
            return self.gold[1]
        records: dict[str, list[Record]] = {}
        answers: dict[str, list[str]] = {}
        for cell, request in zip(self.lineup.references, self.requests, strict=True):
            replies = Replies(self._vlm, name="base", path=self.lineup.shared(cell) / ANSWERS)
            for name, asked_there in request.floor.items():
                records.setdefault(name, []).extend(asked_there)
                answers.setdefault(name, []).extend(replies.answers(asked_there))
        return score_sets(records, answers)

    def records(self, name: str) -> list[Record]:
        """What was asked of a set on all draws."""
        return [r for request in self.requests for r in request.split.audit.get(name, ())]

    def _scored(self, models: Sequence[Mapping[str, Any]]) -> tuple[Answers, Scores]:
        """Answers on all draws together, and what they are worth."""
        asked_for = [
            name
            for name in SETS
            if self.records(name)
            and all(
                name in model["answers"] or not request.split.audit.get(name)
                for model, request in zip(models, self.requests, strict=True)
            )
        ]
        answers = {
            name: [reply for model in models for reply in model["answers"].get(name, ())]
            for name in asked_for
        }
        logprobs = {
            name: logprobs_of([m["logprobs"][name] for m in models if name in m["logprobs"]])
            for name in asked_for
        }
        known: dict[str, set[str]] = {}
        for request in self.requests:
            for topic, values in request.known.items():
                known.setdefault(topic, set()).update(values)
        scores = score_sets(
            {name: self.records(name) for name in asked_for},
            answers,
            logprobs_by_set=logprobs,
            known=known,
        )
        return answers, scores

    def difference(self, one: str, other: str) -> Difference | str:
        """Of two rows' scores, people resampled alike; or why there is none."""
        scope = self.lineup.comparison.scope
        left = {**self.pools[one].summary["left_out"], **self.pools[other].summary["left_out"]}
        if self.reference != "gold":
            return "without a model that never knew questions cannot be paired with its answers"
        forget, keep = (
            {name: self._paired(name, one, other) for name in names if name not in left}
            for names in (forget_sets(scope), keep_sets(scope))
        )
        if not forget or not keep:
            return "no forget or no keep set is measurable in both"
        return paired_difference(forget, keep)

    def _paired(self, name: str, one: str, other: str) -> PairedSet:
        gold = self.gold[0].get(name)
        records = self.records(name)

        def right(answers: Sequence[str]) -> Any:
            return np.array(list(sample_scores("accuracy", records, answers).values()))

        return PairedSet(
            subjects=[r.subject for r in records if r.form == "open"],
            base=right(self.base[0][name]),
            reference=right(gold) if gold is not None else None,
            one=right(self.pools[one].answers[name]),
            other=right(self.pools[other].answers[name]),
            chance=self.base[1][name]["accuracy"].get("chance") or 0.0,
        )

    def content(self, command: str) -> dict[str, Any]:
        """Everything that the table's files say, as JSON."""
        comparison = self.lineup.comparison
        ranked = sorted(
            (row for row, pool in self.pools.items() if isinstance(pool.summary["score"], float)),
            key=lambda row: -self.pools[row].summary["score"],
        )
        trained = [row for row in ranked if self.kind(row) == "weights"]
        first = trained[0] if trained else None
        return {
            "format": 1,
            "command": command,
            "versions": versions(),
            "device": f"{self._vlm.device.type}, {dtype_name(self._vlm)}",
            "model": {"source": comparison.model, "base_fingerprint": self._vlm.fingerprint},
            "request": comparison.model_dump(mode="json", exclude={"rows", "out", "results"}),
            "reference": self.reference,
            "base": self.base[1],
            "gold": self.gold[1] if self.reference == "gold" else {},
            "rows": {
                row: {
                    "kind": self.kind(row),
                    "control": self.lineup.comparison.rows[row].control,
                    "methods": [dict(table) for table in self.lineup.methods[row]],
                    "summary": pool.summary,
                    "verdict": self.verdict(row),
                    "scores": pool.scores,
                    "cost": self._cost(row),
                    "text_logits_bit_identical": self._identical(row),
                }
                for row, pool in self.pools.items()
            },
            "ranking": ranked,
            "first_trained": first,
            "differences": {
                row: self._told(first, row) for row in ranked if first and row != first
            },
            "failed": {row: list(why) for row, why in self.failed.items()},
        }

    def kind(self, row: str) -> str:
        """`control`, `weights`, `eraser`, or both kinds joined by " + "."""
        kinds = [component(table["name"]).kind for table in self.lineup.methods[row]]  # pyright: ignore[reportAttributeAccessIssue]
        return " + ".join(dict.fromkeys(kinds)) or "control"

    def verdict(self, row: str) -> dict[str, Any]:
        """The claim that the answers on all draws support, with reasons, as in report.json."""
        models = {"base": self.base[1], "erased": self.pools[row].scores}
        if self.reference == "gold":
            models["gold"] = self.gold[1]
        kinds = self.kind(row).split(" + ")
        # What is told or steered at test time hides, whatever else was done.
        kind = "weights" if set(kinds) == {"weights"} else "eraser"
        control = self.lineup.comparison.rows[row].control
        kind = {NONE: "none", RETRAIN: "weights"}.get(control or "", kind)
        subjects = [name for request in self.requests for name in request.subjects]
        found = reports.verdict(
            Summary.model_validate(self.pools[row].summary),
            {name: ModelScores.model_validate({"scores": s}) for name, s in models.items()},  # pyright: ignore[reportArgumentType]
            Request.model_validate(
                {"subjects": sorted(set(subjects)), "scope": self.lineup.comparison.scope}
            ),
            kind,  # pyright: ignore[reportArgumentType]
        )
        return found.model_dump(mode="json")

    def _told(self, first: str, row: str) -> dict[str, Any]:
        found = self.difference(first, row)
        if isinstance(found, str):
            return {"not_scored": found}
        return {"value": found.value, "ci": [found.low, found.high], "resolved": found.resolved}

    def _cost(self, row: str) -> dict[str, float | None]:
        """Of one run, on the mean; None where no run says it."""
        found = {}
        for name in COST:
            said = [run["cost"].get(name) for run in self.runs[row]]
            values = [value for value in said if value is not None]
            found[name] = sum(values) / len(values) if values else None
        return found

    def _identical(self, row: str) -> dict[str, Any]:
        """On how many draws all text-only logits are the base's, bit for bit."""
        said = [run["text_logits_bit_identical"] for run in self.runs[row]]
        scored = [cell["value"] for cell in said if "value" in cell]
        if not scored:
            return {"not_scored": "nothing was changed" if not said else said[0]["not_scored"]}
        return {"value": sum(scored), "n": len(scored)}
