"""What an audit found, as a report."""

from collections.abc import Mapping, Sequence
from typing import Any

from unsee import report as reports
from unsee.artifacts import versions
from unsee.audit.drift import drift_cells
from unsee.audit.examples import examples
from unsee.audit.runs import cost_of, method_used
from unsee.audit.scoring import Scored, distances
from unsee.metrics.summary import Reference, summarise
from unsee.models.load import VLM
from unsee.replies import dtype_name
from unsee.report import Report
from unsee.report.schema import ModelName, ModelScores, Summary
from unsee.report.schema import Request as ReportedRequest
from unsee.requests import Request


def report_of(
    vlm: VLM,
    asked: Request,
    scored: Mapping[ModelName, Scored],
    floor: Scored | None,
    attacked: Mapping[str, Mapping[str, Any]],
    *,
    manifests: Sequence[Mapping[str, Any]],
    request_fields: Mapping[str, Any],
    seed: int,
    command: str,
    embed_photos: bool,
    data: dict[str, Any],
) -> Report:
    """The report of an audit.

    Args:
        vlm: The base.
        asked: The request.
        scored: Answers and scores by model.
        floor: What base said on photos of strangers, where these stand in for gold.
        attacked: Cells of attacks by model.
        manifests: Of the runs that made the erased model.
        request_fields: More to say about the request.
        seed: Of the intervals, and of a model without runs.
        command: The command line that repeats the audit.
        embed_photos: Put small copies of photos into the examples.
        data: What else the report says.
    """
    reference: Reference = "gold" if "gold" in scored else "strangers" if floor else "none"
    summary = summarise(
        scored["base"].scores,
        scored.get("erased", scored["base"]).scores,
        scored["gold"].scores if "gold" in scored else floor.scores if floor else {},
        reference=reference,
        scope=asked.scope,
    )
    summary["left_out"] = {**summary["left_out"], **asked.not_measurable}
    checked = Summary.model_validate(summary)
    sets = asked.split.audit
    apart = distances(scored, sets, seed=seed)
    models: dict[ModelName, ModelScores] = {
        name: ModelScores.model_validate(
            {
                "scores": {
                    set_: {**cells, **apart.get(name, {}).get(set_, {})}
                    for set_, cells in found.scores.items()
                },
                "attacks": attacked.get(name, {}),
                "kl_to_base": drift_cells(found, sets, seed=seed),
            }
        )
        for name, found in scored.items()
    }
    wanted = ReportedRequest.model_validate(
        {"subjects": list(asked.subjects), "scope": asked.scope}
        | dict(asked.description)
        | dict(request_fields)
    )
    last = manifests[-1] if manifests else None
    method = method_used(manifests, changed="erased" in scored)
    return Report(
        command=command,
        versions=versions(),
        device=f"{vlm.device.type}, {dtype_name(vlm)}",
        seeds=list(last["seeds"]) if last is not None else [seed],
        request=wanted,
        method=method,
        models=models,
        summary=checked,
        verdict=reports.verdict(checked, models, wanted, method.kind),
        cost=cost_of(manifests),
        examples=examples(
            sets,
            {name: found.answers for name, found in scored.items()},
            photos=embed_photos,
        ),
        data=data,
    )
