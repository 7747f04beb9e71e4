"""Evidence that holds, and every way in which it does not."""

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unsee import report as reports
from unsee.artifacts import versions
from unsee.audit.again import drawn
from unsee.audit.evidence import gathered
from unsee.audit.scoring import Scored
from unsee.audit.verifying import check_artifacts, check_model, failed, verify
from unsee.data.records import Record
from unsee.errors import ArtifactError
from unsee.metrics import recovery
from unsee.metrics.intervals import mean_interval
from unsee.metrics.sets import cells_of
from unsee.metrics.summary import summarise
from unsee.report import evidence
from unsee.report.evidence import (
    Artifact,
    Closing,
    Evidence,
    Figure,
    Link,
    Questions,
    Replied,
    Run,
    chained,
    link_hash,
)
from unsee.report.schema import Cost, MethodUsed, ModelScores, Report, Request, Summary

PEOPLE = ("Jane Doe", "John Roe", "Ines Carvalho", "Yusuf Adebayo")
SETS = {
    name: [
        Record(person, None, f"Question {number} about {person}?", f"answer {number}", topic="t")
        for person in PEOPLE
        for number in range(9)
    ]
    for name in ("forget_unseen", "general")
}
SEED = 5
few = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def scored(known):
    """A model that gives the first `known` of nine answers about everybody in the forget set."""
    answers = {
        name: [
            r.answer if name == "general" or row % 9 < known else "no"
            for row, r in enumerate(records)
        ]
        for name, records in SETS.items()
    }
    samples: Any = {
        name: {
            "accuracy": {
                row: float(text == record.answer)
                for row, (record, text) in enumerate(zip(records, answers[name], strict=True))
            }
        }
        for name, records in SETS.items()
    }
    return Scored(answers, {}, cells_of(samples, SETS, seed=SEED), samples)


def report_of(models, attacked):
    people = [record.subject for record in SETS["forget_unseen"]]
    table = {}
    for name, found in models.items():
        cell = mean_interval(attacked[name], people, seed=SEED)
        attack = {"value": cell.value, "ci": [cell.low, cell.high], "n": cell.n, "group": "prompts"}
        if name == "erased":
            gap = recovery.above_gold(attacked["erased"], attacked["gold"], people, seed=SEED)
            attack["above_gold"] = {"value": gap.value, "ci": [gap.low, gap.high]}
        table[name] = ModelScores.model_validate(
            {"scores": found.scores, "attacks": {"prefix": attack}}
        )
    scores = [models[name].scores for name in ("base", "erased", "gold")]
    summary = Summary.model_validate(summarise(*scores, reference="gold", scope="visual"))
    request = Request(subjects=list(PEOPLE), scope="visual")
    return Report(
        command="",
        versions=versions(),
        device="cpu, float32",
        seeds=[0],
        request=request,
        method=MethodUsed(name="vkd", kind="weights"),
        models=table,
        summary=summary,
        verdict=reports.verdict(summary, table, request, "weights"),
        cost=Cost(),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a report and its evidence; not to be changed."""
    folder = tmp_path_factory.mktemp("audit")
    models: Any = {"base": scored(9), "erased": scored(1), "gold": scored(0)}
    attacked = {
        name: np.array([float(row % 9 < known) for row in range(36)])
        for name, known in {"base": 9, "erased": 3, "gold": 1}.items()
    }
    report = report_of(models, attacked)
    content = reports.save(report, folder).read_bytes()
    entries = gathered(
        report,
        hashlib.sha256(content).hexdigest(),
        SETS,
        models,
        strangers={},
        floor=None,
        attacked_set="forget_unseen",
        attacked={name: {"prefix": success} for name, success in attacked.items()},
        models={"base": "b" * 16, "erased": "e" * 16, "gold": "d" * 16},
        artifacts=[Artifact(fingerprint="a" * 16, base="b" * 16, kind="weights", seeds=[0])],
        seed=SEED,
    )
    evidence.save(chained(entries), folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "audit")


def loaded(folder):
    found = evidence.load(folder)
    assert isinstance(found, Evidence)
    return found


def faults(folder):
    checks, _ = verify(folder)
    return [f"{check.what}: {check.said}" for check in checks if check.outcome == "failed"]


def with_entries(folder, entries):
    """The same with other entries and all hashes computed anew."""
    evidence.save(chained(entries), folder)


def test_what_was_written_holds(folder):
    checks, found = verify(folder)
    assert found is not None
    assert not failed(checks)
    said = {check.what: check.said for check in checks}
    assert said["chain"] == f"{len(found.links)} entries, the last hash is {found.head}"
    assert said["figures"] == "9 are what their samples come to"
    assert said["signature"] == "there is none"


def test_a_hash_by_hand(folder):
    """SHA-256 of the hash before, a line break, and the entry as compact JSON with sorted keys."""
    first, second = loaded(folder).links[:2]
    start = hashlib.sha256()
    start.update(b"0" * 64 + b"\n")
    start.update(
        json.dumps(
            first.entry.model_dump(mode="json"), sort_keys=True, separators=(",", ":")
        ).encode()
    )
    assert first.hash == start.hexdigest()
    assert link_hash(first.hash, second.entry) == second.hash


@few
@given(data=st.data())
def test_every_changed_byte_is_found(made, tmp_path, data):
    name = data.draw(st.sampled_from(["evidence.json", "report.json"]))
    content = (made / name).read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != content[place]))
    for file in ("evidence.json", "report.json"):
        shutil.copy(made / file, tmp_path / file)
    (tmp_path / name).write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
    try:
        found = faults(tmp_path)
    except ArtifactError as error:
        # The one change that makes it a newer format.
        found = [str(error)]
    assert found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("\n", " ", 1), "it is not written as unsee writes it"),
        (lambda text: json.dumps(json.loads(text), indent=1), "it is not written as unsee"),
        (lambda text: text.replace('"n":36', '"n":36,"n":36', 1), "it is not written as unsee"),
        (lambda text: text.replace("1.0,", "1.00,", 1), "it is not written as unsee writes it"),
        (lambda text: text + "\n", "it is not written as unsee writes it"),
        (lambda text: text.replace('"n":36', '"n":"36"', 1), "is not as unsee writes it"),
        (lambda text: text.replace('"kind":"run"', '"kind":"ran"', 1), "is not as unsee writes it"),
        (lambda text: "[" * 9999, "it is not JSON"),
        (lambda text: "[]", "it is not as unsee writes it"),
    ],
)
def test_a_file_that_says_the_same_in_another_way_is_another(folder, change, said):
    file = folder / "evidence.json"
    file.write_text(change(file.read_text()))
    (fault,) = faults(folder)
    assert fault.startswith("evidence.json: ")
    assert said in fault
    assert fault.endswith("; it was changed or cut short")


@few
@given(data=st.data())
def test_every_entry_that_is_moved_left_out_or_there_twice_is_found(made, tmp_path, data):
    links = list(loaded(made).links)
    places = st.integers(0, len(links) - 1)
    one, other = data.draw(places), data.draw(places)
    how = data.draw(st.sampled_from(["moved", "left out", "twice"]))
    link = links.pop(one) if how != "twice" else links[one]
    if how != "left out":
        links.insert(other, link)
    if how == "moved" and one == other:
        return
    shutil.copy(made / "report.json", tmp_path)
    evidence.save(Evidence(tuple(links)), tmp_path)
    assert faults(tmp_path)


def test_a_changed_entry_is_named(folder):
    links = list(loaded(folder).links)
    place = next(p for p, link in enumerate(links) if isinstance(link.entry, Figure))
    entry = links[place].entry.model_copy(update={"value": 0.0})
    links[place] = Link(hash=links[place].hash, entry=entry)
    evidence.save(Evidence(tuple(links)), folder)
    assert faults(folder)[0] == (
        f"chain: entry {place + 1} of {len(links)} (base, forget_unseen, accuracy) does not follow "
        "from the one before it; it was changed, moved, or one was left out before it"
    )


def test_every_figure_is_compared_with_its_samples_and_with_the_report(folder):
    entries = [link.entry for link in loaded(folder).links]
    for place, entry in enumerate(entries):
        if not isinstance(entry, Figure):
            continue
        wrong = [1 - s if s is not None else None for s in entry.scores[:1]] + entry.scores[1:]
        for update in ({"scores": wrong}, {"value": 0.123}, {"n": 7}, {"ci": (0.0, 1.0)}):
            changed = entry.model_copy(update=update)
            with_entries(folder, [*entries[:place], changed, *entries[place + 1 :]])
            assert any(entry.name in fault for fault in faults(folder)), (entry.name, update)


@pytest.mark.parametrize(
    ("kind", "update", "said"),
    [
        (Questions, {"people": [0]}, "entries: questions of forget_unseen: 1 people for 36"),
        (Questions, {"set": "other"}, "forget_unseen: 36 samples, the set has 0"),
        (Questions, {"people": [0] * 36}, "is not the interval of its samples"),
        (Replied, {"replies": []}, "entries: replies of base, forget_unseen: 0 samples, the set"),
        (Figure, {"scores": []}, "entries: base, forget_unseen, accuracy: 0 samples, the set"),
        (Figure, {"metric": "bleu"}, "figures: base, forget_unseen, accuracy: has no samples"),
        (Figure, {"model": "erased"}, "erased, forget_unseen, accuracy: is there twice"),
        (Closing, {"report": "0" * 64}, "report.json: differs from the one that the evidence"),
    ],
)
def test_entries_that_do_not_fit_together(folder, kind, update, said):
    entries = [link.entry for link in loaded(folder).links]
    place = next(p for p, entry in enumerate(entries) if isinstance(entry, kind))
    entries[place] = entries[place].model_copy(update=update)
    with_entries(folder, entries)
    assert any(said in fault for fault in faults(folder)), faults(folder)


def test_a_chain_without_its_end_or_its_beginning(folder):
    entries = [link.entry for link in loaded(folder).links]
    with_entries(folder, entries[:-1])
    assert "entries: expected one entry 'report' at the end" in faults(folder)
    with_entries(folder, entries[1:])
    assert "entries: expected one entry 'run' at the start" in faults(folder)
    with_entries(folder, [])
    assert len(faults(folder)) == 2


def rewritten(folder, change):
    """Another report, and evidence that was made to fit the file."""
    table = json.loads((folder / "report.json").read_text())
    change(table)
    (folder / "report.json").write_text(json.dumps(table))
    digest = hashlib.sha256((folder / "report.json").read_bytes()).hexdigest()
    entries = [link.entry for link in loaded(folder).links]
    with_entries(folder, [*entries[:-1], entries[-1].model_copy(update={"report": digest})])
    return faults(folder)


def test_a_summary_and_a_verdict_that_the_figures_do_not_support(folder):
    assert rewritten(folder, lambda table: None) == []
    assert rewritten(folder, lambda t: t["summary"].update(score=0.99)) == [
        "summary: score: 0.9900 in the report, the figures come to 0.9412"
    ]
    restored = lambda t: t["summary"].update(score=2 * (8 / 9) / (1 + 8 / 9))  # noqa: E731
    assert rewritten(folder, restored) == []
    assert rewritten(folder, lambda t: t["summary"].update(reference="none")) == [
        "summary: compared with 'none', but the report holds 'gold'"
    ]


def test_a_verdict_or_a_reason_typed_by_hand(folder):
    assert rewritten(folder, lambda t: t["verdict"].update(rung="suppressed")) == [
        "summary: verdict: 'suppressed', but the figures support 'not forgotten'"
    ]
    assert rewritten(folder, lambda t: t["verdict"].update(rung="not forgotten", because=[])) == [
        "summary: verdict: its reasons are not those of the figures"
    ]


def test_what_an_attack_brought_back_is_computed_anew(folder):
    def hide(table):
        cell = table["models"]["erased"]["attacks"]["prefix"]
        cell["above_gold"] = {"value": 0.0, "ci": [0.0, 0.0]}

    assert any(
        fault == "figures: attack prefix: 0.0 above gold is not what its samples come to"
        for fault in rewritten(folder, hide)
    )


def test_a_figure_without_samples_is_named(folder):
    entries = [link.entry for link in loaded(folder).links]
    kept = [e for e in entries if not (isinstance(e, Figure) and e.attack and e.model == "gold")]
    with_entries(folder, kept)
    assert faults(folder) == ["figures: gold, attack prefix: has no samples"]
    kept[-1] = kept[-1].model_copy(update={"without_samples": ["gold, attack prefix"]})
    with_entries(folder, kept)
    checks, _ = verify(folder)
    assert not failed(checks)
    said = {check.what: check.said for check in checks}["figures"]
    assert said.endswith("; 1 without samples here: attack prefix")


def test_many_faults_are_the_first_three_and_a_number(folder):
    entries = [link.entry for link in loaded(folder).links]
    changed = [e.model_copy(update={"value": 0.5}) if isinstance(e, Figure) else e for e in entries]
    with_entries(folder, changed)
    assert [fault.split(": ")[0] for fault in faults(folder)] == ["figures"] * 4
    assert faults(folder)[-1] == "figures: and 6 more"


def test_another_numpy_may_draw_other_people(folder):
    entries = [link.entry for link in loaded(folder).links]
    (run,) = loaded(folder).of(Run)
    entries[0] = run.model_copy(update={"versions": {**run.versions, "numpy": "1.0"}})
    at = next(p for p, e in enumerate(entries) if isinstance(e, Questions))
    entries[at] = entries[at].model_copy(update={"people": [0] * 36})
    with_entries(folder, entries)
    assert faults(folder) == []


def test_a_model_and_runs_of_the_audit(folder, tmp_path):
    found = loaded(folder)
    assert check_model(found, "base", "b" * 16).outcome == "ok"
    other = check_model(found, "base", "c" * 16)
    assert (other.outcome, other.said) == (
        "failed",
        f"another model: fingerprint {'c' * 16}, the audit's was {'b' * 16}",
    )
    assert check_model(found, "control", "c" * 16).said.endswith("the audit's was none")
    (count,) = check_artifacts(found, [])
    assert count.said == "the audit put 1 on the model, its command names 0"
    (gone,) = check_artifacts(found, [tmp_path / "gone"])
    assert gone.outcome == "failed"
    assert "not a finished run" in gone.said


def test_nothing_to_check(tmp_path):
    with pytest.raises(ArtifactError, match="expected evidence, found no such file; write it with"):
        verify(tmp_path)


def test_questions_are_drawn_from_every_set_in_turn():
    sizes = {"a": 100, "b": 3, "c": 50}
    rows = drawn(sizes, 30, seed=1)
    assert {name: len(chosen) for name, chosen in rows.items()} == {"a": 14, "b": 3, "c": 13} or {
        name: len(chosen) for name, chosen in rows.items()
    } == {"a": 13, "b": 3, "c": 14}
    assert all(len(set(chosen)) == len(chosen) for chosen in rows.values())
    assert all(max(chosen) < sizes[name] for name, chosen in rows.items())
    assert drawn(sizes, 30, seed=1) == rows
    assert drawn(sizes, 30, seed=2) != rows
    assert Counter({name: len(chosen) for name, chosen in drawn(sizes, 999, 0).items()}) == sizes
    assert drawn(sizes, 0, 0) == {}
    assert len(drawn(sizes, 2, 0)) == 2
    assert drawn({}, 5, 0) == {}


def test_the_samples_of_a_figure_are_its_records(folder):
    """The digest of a sample tells subject, question and answer apart, and nothing without salt."""
    found = loaded(folder)
    salt = found.of(Run)[0].salt
    record = SETS["forget_unseen"][0]
    digests = next(q for q in found.of(Questions) if q.set == "forget_unseen").samples
    assert digests[0] == evidence.sample_digest(salt, record)
    for change in ({"subject": "x"}, {"question": "x"}, {"answer": "x"}):
        assert evidence.sample_digest(salt, replace(record, **change)) not in digests
    assert evidence.sample_digest("0" * 64, record) != digests[0]
    text = (folder / "evidence.json").read_text()
    assert not [name for name in ("Jane", "Question", "answer 0") if name in text]
