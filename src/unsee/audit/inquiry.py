"""One audit's questions, put to one model after the other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unsee.answering import LONGEST
from unsee.audit.drift import Opened, compare, kept_answers, with_drift
from unsee.audit.published import Published
from unsee.audit.scoring import Scored, score, score_answers
from unsee.data.records import Record
from unsee.models.load import VLM
from unsee.replies import ANSWERS, Progress, Replies
from unsee.report.schema import ModelName
from unsee.requests import Request

_GOLD_NOT_SCORED = {"bystander": "gold never knew the other draws' candidates either"}


@dataclass(frozen=True)
class Inquiry:
    """What is asked of every model, and where replies are kept.

    Attributes:
        asked: The request.
        sets: Records by set.
        out: Folder of the audit's own replies; None keeps them in memory.
        cache: Folder of those of base and gold, where it is another.
        batch_size: Questions a forward pass.
        progress: Told stage, questions done and questions in all.
        seed: Of the intervals.
        told: Given every model's answers and scores.
        published: What a benchmark asks besides.
        own: Its own scores by model, as they come.
    """

    asked: Request
    sets: Mapping[str, Sequence[Record]]
    out: Path | None
    cache: Path | None
    batch_size: int
    progress: Progress | None
    seed: int
    told: Callable[[ModelName, Scored], None] | None
    published: Published | None
    own: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def score(self, vlm: VLM, name: ModelName, mark: str = "") -> Scored:
        """Answers and scores of one model; `mark` tells of the erasers that it runs under."""
        reasons = dict(self.asked.not_scored) | (_GOLD_NOT_SCORED if name == "gold" else {})
        found = score(
            self.replies(vlm, name, mark),
            self.sets,
            known=self.asked.known,
            not_scored=reasons,
            seed=self.seed,
        )
        if self.told is not None:
            self.told(name, found)
        if self.published is not None:
            longest = self.published.max_new_tokens
            replies = self.replies(vlm, name, mark, max_new_tokens=longest)
            self.own[name] = self.published.scores(replies)
        return found

    def drift(
        self, base: VLM, name: ModelName, found: Scored, replies: Replies, opened: Opened
    ) -> Scored:
        """Scores of a model with how far its answers to what is kept moved from base's.

        A model with tokens of its own, as a gold one may have, is not compared.

        Args:
            base: The model before.
            name: Of the other one.
            found: Its scores.
            replies: Its own.
            opened: Opens it, and gives base back as it was.
        """
        words = [model.processor.tokenizer.get_vocab() for model in (base, replies.vlm)]
        if words[0] != words[1]:
            return found
        kept = kept_answers(self.sets, self.asked.scope)
        kept = {set_: rows for set_, rows in kept.items() if set_ in found.samples}
        key = self.replies(base, "base").key
        progress = self.progress

        def gauge(done: int, total: int) -> None:
            if progress is not None:
                progress(f"{name}: distance from base", done, total)

        compare(
            base,
            key,
            opened,
            replies,
            [record for rows in kept.values() for record in rows.values()],
            batch_size=self.batch_size,
            progress=gauge,
        )
        return with_drift(found, replies, key, kept)

    def as_published(self) -> dict[str, Any]:
        """What the report says of a benchmark's own scores; nothing where none was asked for."""
        if self.published is None:
            return {}
        self.published.between(self.own)
        return {"published": self.own}

    def floor(self, vlm: VLM) -> Scored:
        """How often the base gives the subjects' answers on photos of strangers."""
        return score_answers(self.replies(vlm, "base"), self.asked.floor, seed=self.seed)

    def replies(
        self,
        vlm: VLM,
        name: str,
        mark: str = "",
        progress: Progress | None = None,
        max_new_tokens: int = LONGEST,
    ) -> Replies:
        """Replies of one model; those of base and gold are kept where other audits find them."""
        shared = name in ("base", "gold")
        folder = self.cache if self.cache is not None and shared else self.out
        return Replies(
            vlm,
            name=name,
            path=folder / ANSWERS if folder is not None else None,
            mark=mark,
            batch_size=self.batch_size,
            max_new_tokens=max_new_tokens,
            progress=progress or self.progress,
        )
