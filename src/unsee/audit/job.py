"""The audit as one job: who is asked what, and the report that comes of it."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from unsee import report as reports
from unsee.artifacts import check_run, locked, read_stack, run_fingerprint
from unsee.artifacts.files import MANIFEST
from unsee.attacks.protocol import Attack, Detects
from unsee.audit.attacker import with_picked_budgets
from unsee.audit.attacking import ATTACKED_SET, Campaign
from unsee.audit.budget import within
from unsee.audit.control import AUTO
from unsee.audit.drift import Opened
from unsee.audit.evidence import gathered
from unsee.audit.hiding import hiding, made_control, moved, told_of
from unsee.audit.inquiry import Inquiry
from unsee.audit.published import published_of
from unsee.audit.reporting import report_of
from unsee.audit.runs import (
    artifact_of,
    changed_parts,
    changed_tensors,
    erasers_key,
    identities,
)
from unsee.audit.scoring import Scored, text_logits
from unsee.data.records import SETS, Split
from unsee.erasers.storage import under_artifacts
from unsee.errors import ConfigError, DataError
from unsee.models.load import VLM
from unsee.replies import Replies
from unsee.report import Report, evidence, html, markdown, signing
from unsee.report.schema import ModelName
from unsee.requests import Request

Progress = Callable[[str, int, int], None]


def audit(
    vlm: VLM,
    request: Request | Split,
    *,
    artifact: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    erased: VLM | None = None,
    gold: VLM | None = None,
    out: Path | None = None,
    cache: Path | None = None,
    seed: int = 0,
    command: str = "",
    request_fields: Mapping[str, Any] | None = None,
    embed_photos: bool = False,
    batch_size: int = 64,
    attacks: Mapping[str, Attack | Detects] | None = None,
    control: str | os.PathLike[str] | None = None,
    budget: float | None = None,
    sign: Path | None = None,
    progress: Progress | None = None,
    told: Callable[[ModelName, Scored], None] | None = None,
    protocol: str = "strict",
) -> Report:
    """Ask base, erased and gold the same questions, and say what is left and what is kept.

    The base comes back as it was, bit for bit. Answers are written down as they come; a second
    audit of the same models and questions asks nothing again.

    Args:
        vlm: The base. One with artifacts on it is compared with as it is.
        request: What was to be forgotten and kept, and what is asked.
        artifact: The run, or its folder, whose weights or eraser make the erased model; or several,
            weights in the order in which they were made, of which the last is what the report is
            about.
        erased: The erased model itself, instead of an artifact. With neither, the base alone is
            audited as it is.
        gold: A model that never knew the subjects.
        out: Folder for report.json, evidence.json, report.md and report.html; None writes nothing.
        cache: Folder for what base and gold answer, shared by many audits; None keeps it in `out`.
        seed: Of the intervals.
        command: The command line that repeats the audit.
        request_fields: More to say about the request in the report.
        embed_photos: Put small copies of the photos of the examples into the report. They are
            personal data.
        batch_size: Questions a forward pass.
        attacks: Ways to bring the answers back, by name, tried alike on base, erased and gold; see
            `unsee.attacks.attacks_named`.
        control: A run that merely hides the answers, to show which attacks have power; "auto" makes
            one of the base (see `unsee.audit.control`).
        budget: Minutes for all attacks: the strongest that are expected to fit are run, and the
            report names the others; None runs all.
        sign: Ed25519 private key, in PEM, that signs the evidence.
        progress: Told stage, questions done and questions in all.
        told: Given every model's answers and scores.
        protocol: "published" asks a benchmark's own questions too, for its own scores; "omm" those
            of Open-MMUnlearning.

    Raises:
        ArtifactError: If an artifact is damaged, made for another base or on top of other runs,
            or another process works in `out`.
        ConfigError: If both an artifact and an erased model are given, a control, a budget or a
            key alone, the budget or the key is none, or a protocol does not apply or lacks
            something.
        DataError: If there is nothing to ask.
    """
    started = time.monotonic()
    _refuse(
        artifact is not None and erased is not None,
        "expected an artifact or an erased model, got both; give one",
    )
    _refuse(
        control is not None and not attacks,
        "a control shows the power of attacks, got none; name attacks too",
    )
    _refuse(
        budget is not None and not attacks,
        "a budget is for attacks, got none; name attacks too",
    )
    _refuse(
        budget is not None and not 0 < budget < float("inf"),
        f"budget: expected minutes above 0, got {budget}; give more, or leave it out",
    )
    _refuse(
        sign is not None and out is None, "a key signs the evidence in a folder, got none; give out"
    )
    key = signing.read_private(sign) if sign is not None else None
    asked = _as_request(request)
    sets = {name: asked.split.audit[name] for name in SETS if asked.split.audit.get(name)}
    if not sets:
        raise DataError("audit: expected questions to ask, got none; check --subject")
    published = published_of(
        protocol,
        asked.description.get("source", ""),
        asked.split,
        seed=seed,
        gold=gold is not None,
    )
    runs = _runs(artifact)
    manifests = read_stack(vlm, runs)
    for run, manifest in zip(runs, manifests, strict=True):
        check_run(manifest, where=run / MANIFEST)
    hidden = _runs(control if control != AUTO else None)
    hiding_manifests = read_stack(vlm, hidden)
    with locked(out) if out is not None else nullcontext():
        if cache is not None:
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        began = time.monotonic()
        made = made_control(control, vlm, asked.split, cache or out, seed, progress)
        under = hiding(vlm, hidden, hiding_manifests, made)
        kinds = {m["kind"] for m in manifests} | ({"weights"} if erased is not None else set())
        chosen, tried = None, dict(attacks or {})
        if budget is not None:
            changed_model = bool(runs) or erased is not None
            tried, chosen = within(
                tried,
                budget,
                vlm,
                asked.split,
                out,
                models=1 + sum((changed_model, gold is not None, under is not None)),
                kinds=kinds,
                seed=seed,
                spent_s=time.monotonic() - began,
            )
        tried, attacker = with_picked_budgets(
            tried, vlm, gold, under, asked.split, cache or out, seed=seed, progress=progress
        )
        inquiry = Inquiry(asked, sets, out, cache, batch_size, progress, seed, told, published)
        campaign = Campaign(
            vlm,
            asked.split,
            tried,
            inquiry.replies,
            changed=changed_tensors([*manifests, *hiding_manifests]) | moved(made),
            kinds=kinds,
            seed=seed,
            progress=progress,
        )
        scored: dict[ModelName, Scored] = {"base": inquiry.score(vlm, "base")}
        floor = inquiry.floor(vlm) if gold is None and asked.floor else None
        text = [*sets.get("forget_text", ()), *sets.get("retain_text", ())]
        before, after = text_logits(vlm, text), None
        drifting: dict[ModelName, tuple[Replies, Opened]] = {}
        with _changed(vlm, runs, erased) as changed:
            if changed is not None:
                mark = erasers_key(manifests)
                scored["erased"] = inquiry.score(changed, "erased", mark)
                after = text_logits(changed, text)
                replies = inquiry.replies(changed, "erased", mark)
                drifting["erased"] = (replies, lambda: _changed(vlm, runs, erased))
                campaign.attack(changed, "erased", mark)
        campaign.attack(vlm, "base")
        if gold is not None:
            scored["gold"] = inquiry.score(gold, "gold")
            campaign.attack(gold, "gold")
            drifting["gold"] = (inquiry.replies(gold, "gold"), nullcontext)
        if under is not None:
            with under.on():
                campaign.attack(vlm, "control", under.mark)
        for name, (replies, opened) in drifting.items():
            scored[name] = inquiry.drift(vlm, name, scored[name], replies, opened)

        result = report_of(
            vlm,
            asked,
            scored,
            floor,
            campaign.cells(),
            manifests=manifests,
            request_fields=request_fields or {},
            seed=seed,
            command=command,
            embed_photos=embed_photos,
            data={
                "audit_wall_s": time.monotonic() - started,
                "base": {"source": vlm.source, "fingerprint": vlm.identity},
                "artifacts": [
                    {"folder": str(run), "fingerprint": run_fingerprint(manifest)}
                    for run, manifest in zip(runs, manifests, strict=True)
                ],
                "questions": {name: len(records) for name, records in sets.items()},
                "text_logits_bit_identical": _identical(before, after, len(text)),
                "changed_tensors": changed_parts(vlm, manifests),
            }
            | campaign.about(hidden, told_of(made), budget=chosen, attacker=attacker)
            | inquiry.as_published(),
        )
        if out is not None:
            content = _write(result, out)
            chain = evidence.chained(
                gathered(
                    result,
                    hashlib.sha256(content).hexdigest(),
                    sets,
                    scored,
                    strangers=asked.floor,
                    floor=floor,
                    attacked_set=ATTACKED_SET,
                    attacked=campaign.samples(),
                    models=identities(vlm, manifests, hiding_manifests, erased=erased, gold=gold),
                    artifacts=[artifact_of(manifest) for manifest in manifests],
                    seed=seed,
                )
            )
            evidence.save(chain if key is None else signing.signed(chain, key), out)
    return result


def _refuse(contradiction: bool, message: str) -> None:
    if contradiction:
        raise ConfigError(f"audit: {message}")


def _write(report: Report, out: Path) -> bytes:
    """Write a report and its views; the content of report.json."""
    # Of an earlier report; it says nothing about this one.
    (out / evidence.FILE_NAME).unlink(missing_ok=True)
    file = reports.save(report, out)
    markdown.write(report, out / "report.md")
    html.write(report, out / "report.html")
    return file.read_bytes()


@contextmanager
def _changed(vlm: VLM, runs: Sequence[Path], erased: VLM | None) -> Iterator[VLM | None]:
    """The erased model while the block runs; None if there is none."""
    if not runs:
        yield erased
        return
    with under_artifacts(vlm, runs):
        yield vlm


def _identical(
    before: Sequence[str], after: Sequence[str] | None, prompts: int
) -> dict[str, object]:
    """Whether text-only logits are the base's, bit for bit."""
    if after is None:
        return {"not_scored": "no erased model was audited"}
    if not prompts:
        return {"not_scored": "no text-only questions were asked"}
    return {"value": before == after, "n": prompts}


def _as_request(request: Request | Split) -> Request:
    if isinstance(request, Request):
        return request
    return Request(request.subjects, "visual", request, "none")


def _runs(artifact: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None) -> list[Path]:
    if artifact is None:
        return []
    return [
        Path(run) for run in ([artifact] if isinstance(artifact, str | os.PathLike) else artifact)
    ]
