"""Records, the named sets they are scored in, and the split that a run works on."""

import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from unsee.data.images import Photo
from unsee.errors import DataError

SETS = (
    "forget_seen",
    "forget_unseen",
    "forget_text",
    "forget_visible",
    "retain_seen",
    "retain_unseen",
    "retain_text",
    "celebrity",
    "bystander",
    "general",
    "refusal",
)
LETTERS = string.ascii_uppercase


@dataclass(frozen=True)
class Turn:
    """A question and its answer at the beginning of a conversation.

    Attributes:
        question: What the user said.
        answer: What the model replied, or is made to have replied.
        image: Photo shown with the question.
    """

    question: str
    answer: str
    image: Photo | None = None


Form = Literal["open", "choice", "cloze", "caption"]
FORMS: tuple[str, ...] = get_args(Form)


@dataclass(frozen=True)
class Record:
    """One question about a subject, with the answer that counts as right.

    Attributes:
        subject: Who or what the record is about; intervals resample by it.
        image: Photo that the question is asked on; None for a text-only question.
        question: Question without its options; a cloze question holds the gap `__`.
        answer: Right answer; for `form == "choice"` the letter of the right option.
        form: How it is asked, and so how it is scored.
        options: Texts of a choice question in letter order; empty for other forms.
        set: Name out of `SETS`, or "" before a set is given.
        topic: What is asked ("name", "birthplace", "visible:glasses", "refusal", ...);
            chance and wrong names are counted within a topic. "" where unknown.
        before: Conversation that the question goes on with; photos shown there are not shown again.
        opening: Beginning of the answer, put in the model's mouth.
    """

    subject: str
    image: Photo | None
    question: str
    answer: str
    form: Form = "open"
    options: tuple[str, ...] = ()
    set: str = ""
    topic: str = ""
    before: tuple[Turn, ...] = ()
    opening: str = ""

    @property
    def images(self) -> tuple[Photo, ...]:
        """Photos of the whole conversation, in their order."""
        shown = (*(turn.image for turn in self.before), self.image)
        return tuple(photo for photo in shown if photo is not None)

    def __post_init__(self) -> None:
        faults = list(_record_faults(self))
        if faults:
            raise DataError(f"record about {self.subject!r}: " + "; ".join(faults))


def _record_faults(record: Record) -> Iterable[str]:
    if not record.question.strip():
        yield "question: expected text, got an empty question"
    if record.set and record.set not in SETS:
        yield f"set: expected one of {', '.join(SETS)}, got {record.set!r}"
    if record.form == "choice":
        letters = LETTERS[: len(record.options)]
        if not 2 <= len(record.options) <= len(LETTERS):
            yield f"options: expected 2 to {len(LETTERS)} texts, got {len(record.options)}"
        elif len(record.answer) != 1 or record.answer not in letters:
            yield f"answer: expected a letter out of {letters}, got {record.answer!r}"
    elif record.options:
        yield f"options: expected none for form {record.form!r}, got {len(record.options)}"


@dataclass(frozen=True)
class Split:
    """What a run forgets, keeps and is asked about.

    Attributes:
        forget: Photos and questions handed to the method to be forgotten.
        visible: Identity-free questions on the same photos; kept.
        retain: Other people, kept.
        general: Strangers, general visual questions and refusals; kept.
        audit: Records to score, by name of the set.
        subjects: Who is forgotten.
    """

    forget: tuple[Record, ...]
    visible: tuple[Record, ...] = ()
    retain: tuple[Record, ...] = ()
    general: tuple[Record, ...] = ()
    audit: Mapping[str, tuple[Record, ...]] = field(default_factory=dict)
    subjects: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        forgotten = {record.subject for record in self.forget} | set(self.subjects)
        both = sorted(forgotten & {record.subject for record in self.retain})
        if both:
            raise DataError(
                f"expected different people in forget and retain, got {', '.join(both)} in both; "
                "remove them from one side"
            )
        unknown = sorted(set(self.audit) - set(SETS))
        if unknown:
            raise DataError(
                f"audit: expected sets out of {', '.join(SETS)}, got {', '.join(unknown)}; "
                "rename or remove them"
            )


def in_sets(records: Mapping[str, Iterable[Record]]) -> dict[str, tuple[Record, ...]]:
    """Records that say which set they are of; sets without any are left out."""
    named = {
        name: tuple(replace(record, set=name) for record in asked)
        for name, asked in records.items()
    }
    return {name: asked for name, asked in named.items() if asked}
