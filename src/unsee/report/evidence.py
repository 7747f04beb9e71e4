"""What a report rests on, sample by sample, in a chain in which nothing can be changed unseen.

`evidence.json` lies beside `report.json`. Its entries are, in this order: the run; the questions of
every set; what each model replied; every figure of the report with the score of each sample; the
digest of `report.json`. The hash of an entry covers the entry before it, so whoever changes, drops
or moves one has to compute all that follow anew. That is found by a signature over the last hash
(`unsee.report.signing`), or by asking the models again (`unsee.audit.verifying`).

Questions, answers and replies are there as salted digests, people as numbers, so that nothing about
anybody can be read. The salt lies beside them: whoever guesses a reply can test the guess.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unsee.artifacts.files import atomic_write_text
from unsee.data.records import Record
from unsee.errors import ArtifactError
from unsee.metrics.divergence import KL_TO_BASE
from unsee.replies import answer_digest
from unsee.report.schema import AttackScore, Divergence, Report, Score

FILE_NAME = "evidence.json"
FORMAT = 1
# Before the name of a set whose questions were asked on photos of strangers.
STRANGERS = "strangers/"
# What the hash of the first entry covers in the place of an entry before it.
_START = "0" * 64
_DIGEST = r"^[0-9a-f]{32}$"
_HASH = r"^[0-9a-f]{64}$"

Digest = Annotated[str, Field(pattern=_DIGEST)]
Hash = Annotated[str, Field(pattern=_HASH)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Artifact(_Part):
    """A run that made the erased model.

    Attributes:
        fingerprint: Of the run, 16 hexadecimal digits.
        base: Fingerprint of the base that it was made for.
        kind: "weights" or "eraser".
        seeds: Of the run.
    """

    fingerprint: str
    base: str
    kind: str
    seeds: list[int]


class Run(_Part):
    """The audit as a whole.

    Attributes:
        salt: Of all digests, 32 random bytes in hexadecimal.
        created: When, in UTC.
        versions: Package -> version.
        device: Where it ran, and in what precision.
        seed: Of the intervals.
        models: "base", "erased", "gold", "control" -> fingerprint of its weights.
        artifacts: Runs that made the erased model, in their order.
        data: Fingerprint of all photos, questions and right answers, without the salt.
    """

    kind: Literal["run"] = "run"
    salt: Hash
    created: str
    versions: dict[str, str]
    device: str
    seed: int
    models: dict[str, str]
    artifacts: list[Artifact]
    data: str


class Questions(_Part):
    """What was asked in one set.

    Attributes:
        set: Name of the set; that of a stranger floor begins with `strangers/`.
        samples: Digest of subject, photo, question and right answer of each sample.
        people: Whom each sample is about, as a number; the order is that of the names.
    """

    kind: Literal["questions"] = "questions"
    set: str
    samples: list[Digest]
    people: list[int]


class Replied(_Part):
    """What a model replied in one set.

    Attributes:
        model: "base", "erased" or "gold".
        set: Name of the set.
        replies: Digest of the reply to each sample.
    """

    kind: Literal["replies"] = "replies"
    model: str
    set: str
    replies: list[Digest]


class Figure(_Part):
    """One figure of the report.

    Attributes:
        model: "base", "erased" or "gold".
        set: Set whose samples are scored.
        metric: Metric, or "" under an attack.
        attack: Attack, or "" without one.
        value: Mean of the scores.
        ci: Its 95 % interval, bootstrap by person.
        n: Number of samples scored.
        scores: Of each sample of the set; None where it was not scored.
    """

    kind: Literal["figure"] = "figure"
    model: str
    set: str
    metric: str = ""
    attack: str = ""
    value: float
    ci: tuple[float, float]
    n: int
    scores: list[float | None]

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return figure_name(self.model, self.set, self.metric, self.attack)


class Closing(_Part):
    """What the entries before belong to.

    Attributes:
        report: SHA-256 of `report.json`.
        without_samples: Figures of the report whose samples are not here.
    """

    kind: Literal["report"] = "report"
    report: Hash
    without_samples: list[str]


Kind = TypeVar("Kind", bound=_Part)
Entry = Run | Questions | Replied | Figure | Closing


class Signature(_Part):
    """Who vouches for the last hash.

    Attributes:
        algorithm: "ed25519".
        public_key: 32 bytes in hexadecimal.
        value: 64 bytes in hexadecimal.
    """

    algorithm: Literal["ed25519"] = "ed25519"
    public_key: Hash
    value: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class Link(_Part):
    """An entry with its hash, which covers the hash before it."""

    hash: Hash
    entry: Annotated[Entry, Field(discriminator="kind")]


class _File(_Part):
    format: Literal[1] = FORMAT
    links: list[Link]
    signature: Signature | None = None


@dataclass(frozen=True)
class Evidence:
    """The chain of one report.

    Attributes:
        links: Entries with their hashes.
        signature: Over the last hash; None for none.
    """

    links: tuple[Link, ...]
    signature: Signature | None = None

    @property
    def head(self) -> str:
        """The last hash; it covers everything."""
        return self.links[-1].hash if self.links else _START

    def of(self, kind: type[Kind]) -> list[Kind]:
        """Entries of one kind, in their order."""
        return [link.entry for link in self.links if isinstance(link.entry, kind)]


def figure_name(model: str, set_name: str, metric: str, attack: str = "") -> str:
    """What a figure is called in messages and in `Closing.without_samples`."""
    return f"{model}, attack {attack}" if attack else f"{model}, {set_name}, {metric}"


def measured(report: Report) -> dict[str, Score | AttackScore | Divergence]:
    """Every measured figure of a report that rests on samples, by its name."""
    found: dict[str, Score | AttackScore | Divergence] = {}
    for model, table in report.models.items():
        for name, metrics in table.scores.items():
            for metric, cell in metrics.items():
                if isinstance(cell, Score):
                    found[figure_name(model, name, metric)] = cell
        for attack, attacked in table.attacks.items():
            if isinstance(attacked, AttackScore):
                found[figure_name(model, "", "", attack)] = attacked
        for name, cell in table.kl_to_base.items():
            found[figure_name(model, name, KL_TO_BASE)] = cell
    for name, cell in report.summary.stranger_floor.items():
        if isinstance(cell, Score):
            found[figure_name("base", STRANGERS + name, "accuracy")] = cell
    return found


def salted(salt: str, *fields: object) -> str:
    """Digest that says whether two things are alike, and nothing else without a guess.

    Args:
        salt: In hexadecimal.
        fields: Whatever JSON holds.

    Returns:
        HMAC-SHA-256 of the fields under the salt, 32 hexadecimal digits.
    """
    return hmac.new(bytes.fromhex(salt), _compact(fields).encode(), "sha256").hexdigest()[:32]


def sample_digest(salt: str, record: Record) -> str:
    """Which subject, photo, question and right answer this is."""
    return salted(salt, record.subject, answer_digest(record))


def reply_digest(salt: str, reply: str) -> str:
    """Which reply this is."""
    return salted(salt, "reply", reply)


def data_fingerprint(records: Iterable[Record]) -> str:
    """Which photos, questions and right answers these are, in whatever order: 16 digits."""
    digests = sorted(answer_digest(record) for record in records)
    return hashlib.sha256(_compact(digests).encode()).hexdigest()[:16]


def chained(entries: Iterable[Entry]) -> Evidence:
    """The entries in a chain: hash_i = SHA-256(hash_(i - 1), entry_i)."""
    links: list[Link] = []
    before = _START
    for entry in entries:
        before = link_hash(before, entry)
        links.append(Link(hash=before, entry=entry))
    return Evidence(tuple(links))


def link_hash(before: str, entry: Entry) -> str:
    """Hash of an entry behind the one whose hash is given."""
    return hashlib.sha256(
        f"{before}\n{_compact(entry.model_dump(mode='json'))}".encode()
    ).hexdigest()


def broken_links(evidence: Evidence) -> list[int]:
    """Places, from 0, where an entry does not follow from the hash before it as its own hash says.

    Everything behind a changed entry still follows from the hash that stands there, so one change
    breaks one place, or two.
    """
    before, broken = _START, []
    for place, link in enumerate(evidence.links):
        if link_hash(before, link.entry) != link.hash:
            broken.append(place)
        before = link.hash
    return broken


def text_of(evidence: Evidence) -> str:
    """The one way in which evidence is written: an entry a line."""
    links = ",\n".join(_compact(link.model_dump(mode="json")) for link in evidence.links)
    signature = evidence.signature.model_dump(mode="json") if evidence.signature else None
    return f'{{"format":{FORMAT},"links":[\n{links}\n],"signature":{_compact(signature)}}}\n'


def save(evidence: Evidence, folder: Path) -> Path:
    """Write `evidence.json` into a folder atomically and return the file."""
    file = folder / FILE_NAME
    atomic_write_text(file, text_of(evidence))
    return file


def load(folder: Path) -> Evidence | str:
    """Read `evidence.json`, or say how it is not as it was written; hashes are not computed.

    Raises:
        ArtifactError: If there is none, or it is of a newer format.
    """
    file = folder / FILE_NAME
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactError(
            f"{file}: expected evidence, found no such file; write it with 'unsee audit'"
        ) from error
    try:
        table = json.loads(content)
    except (ValueError, RecursionError):
        return "it is not JSON"
    written = table.get("format") if isinstance(table, dict) else None
    if type(written) is int and written > FORMAT:
        raise ArtifactError(
            f"{file}: expected evidence of format {FORMAT}, got {written}; upgrade unsee to read it"
        )
    try:
        # As JSON, where a tuple is a list.
        found = _File.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        return f"{place or 'it'} is not as unsee writes it ({first['msg']})"
    evidence = Evidence(tuple(found.links), found.signature)
    # Beyond what the hashes cover: another order of keys, a space, a number twice.
    if text_of(evidence).encode() != content:
        return "it is not written as unsee writes it"
    return evidence


def _compact(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def people_numbers(names: Sequence[str]) -> dict[str, int]:
    """Numbers in the order of the names, so that intervals by number are those by name."""
    return {name: number for number, name in enumerate(sorted(set(names)))}
