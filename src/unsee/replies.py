"""A model's replies, written down as they come, so that killed work goes on where it was."""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unsee.answering import LONGEST, answer_scores, generate_answers
from unsee.artifacts.files import naming
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.errors import ArtifactError
from unsee.models.load import VLM
from unsee.prefill import in_asking_order

# Beside the run it belongs to.
ANSWERS = "answers.jsonl"

Progress = Callable[[str, int, int], None]


class Replies:
    """Greedy answers and log-probabilities of one model; the same is never asked twice.

    Args:
        vlm: Model to ask.
        name: What it is called in progress: base, erased or gold.
        mark: Tells answers apart that share weights: what is changed while they are given.
        path: JSON lines to continue, shared by any number of models; None for memory alone.
        batch_size: Questions a forward pass, and between two writes.
        max_new_tokens: Longest answer, in tokens.
        progress: Told stage, questions done and questions in all.

    Attributes:
        vlm: The model.
        key: What its replies are kept under.
    """

    def __init__(
        self,
        vlm: VLM,
        *,
        name: str,
        mark: str = "",
        path: Path | None,
        batch_size: int = 64,
        max_new_tokens: int = LONGEST,
        progress: Progress | None = None,
    ) -> None:
        self.vlm = vlm
        self.source = vlm.source
        self._name = name
        self._mark = mark
        # Replies are reused for the same weights in the same precision only.
        runs = (run.fingerprint for run in vlm.stack)
        longer = "" if max_new_tokens == LONGEST else f"{max_new_tokens} tokens"
        self.key = "-".join(filter(None, (vlm.fingerprint, dtype_name(vlm), *runs, mark, longer)))
        self._max_new_tokens = max_new_tokens
        self._path = path
        self._batch_size = batch_size
        self._progress = progress
        self._answers: dict[str, str] = {}
        self._logprobs: dict[str, tuple[float, int, str]] = {}
        self._divergences: dict[str, dict[str, float]] = {}
        for row in _read(path) if path is not None else ():
            if row["model"] == self.key:
                self._keep(row)

    def under(self, mark: str) -> "Replies":
        """Those of the same model while something is changed, in the same place.

        Args:
            mark: Tells what.
        """
        return Replies(
            self.vlm,
            name=self._name,
            mark="-".join(filter(None, (self._mark, mark))),
            path=self._path,
            batch_size=self._batch_size,
            max_new_tokens=self._max_new_tokens,
            progress=self._progress,
        )

    def answers(self, records: Sequence[Record], stage: str = "answers") -> list[str]:
        """Answers in the order of the records; what the records hold as answer is not read."""
        digests = [question_digest(record) for record in records]
        for batch in self._pending(records, digests, self._answers, stage):
            texts = generate_answers(
                self.vlm,
                list(batch.values()),
                batch_size=self._batch_size,
                max_new_tokens=self._max_new_tokens,
            )
            self._add("answers", dict(zip(batch, texts, strict=True)))
        return [self._answers[digest] for digest in digests]

    def lacks(self, records: Sequence[Record]) -> bool:
        """Whether the model is to be asked for some of the answers."""
        return any(question_digest(record) not in self._answers for record in records)

    def logprobs(self, records: Sequence[Record]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Log-probability of each record's answer in nats, and its tokens; both (record,)."""
        digests = [answer_digest(record) for record in records]
        for batch in self._pending(records, digests, self._logprobs, "probabilities"):
            scores = answer_scores(self.vlm, list(batch.values()), batch_size=self._batch_size)
            rows = zip(batch, scores.sums, scores.tokens, scores.repeated, strict=True)
            self._add("logprobs", {digest: (float(s), int(n), r) for digest, s, n, r in rows})
        found = [self._logprobs[digest] for digest in digests]
        sums, counts = ([row[column] for row in found] for column in (0, 1))
        return np.array(sums), np.array(counts, dtype=np.int64)

    def repeated(self, records: Sequence[Record]) -> list[str]:
        """Which tokens of each record's answer the model would say itself; see `AnswerScores`."""
        self.logprobs(records)
        return [self._logprobs[answer_digest(record)][2] for record in records]

    def divergences(self, records: Sequence[Record], base: str) -> NDArray[np.float64]:
        """What was written down by `keep_divergences`, (record,), nats a token.

        Args:
            records: Questions with their answers.
            base: Key of the replies of the model that this one was compared with.
        """
        known = self._divergences.get(base, {})
        return np.array([known[answer_digest(record)] for record in records])

    def not_compared(self, records: Sequence[Record], base: str) -> list[Record]:
        """Records whose divergence is not known yet, each once."""
        known = self._divergences.get(base, {})
        found = {answer_digest(record): record for record in records}
        return [record for digest, record in found.items() if digest not in known]

    def keep_divergences(
        self, records: Sequence[Record], values: Sequence[float], base: str
    ) -> None:
        """Write down how far the model is from another on some answers."""
        found = dict(zip(map(answer_digest, records), map(float, values), strict=True))
        self._add("divergences", {base: found})

    def _pending(
        self,
        records: Sequence[Record],
        digests: Sequence[str],
        known: Mapping[str, Any],
        stage: str,
    ) -> Iterable[dict[str, Record]]:
        """Batches of what is not known yet; each counts as done afterwards."""
        all_ = dict(zip(digests, records, strict=True))
        missing = [digest for digest in all_ if digest not in known]
        order = in_asking_order(self.vlm, [all_[digest] for digest in missing])
        missing = [missing[row] for row in order]
        for start in range(0, len(missing), self._batch_size):
            yield {d: all_[d] for d in missing[start : start + self._batch_size]}
            if self._progress is not None:
                done = len(all_) - max(0, len(missing) - start - self._batch_size)
                self._progress(f"{self._name}: {stage}", done, len(all_))

    def _keep(self, row: Mapping[str, Any]) -> None:
        self._answers |= row.get("answers", {})
        # Where a third part is lacking, the tokens it would repeat, the answer is scored again.
        scored = row.get("logprobs", {})
        self._logprobs |= {digest: found for digest, found in scored.items() if len(found) == 3}
        for base, found in row.get("divergences", {}).items():
            self._divergences.setdefault(base, {}).update(found)

    def _add(self, kind: str, found: Mapping[str, Any]) -> None:
        """A line a batch: what is next to a question in its batch moves its last bits."""
        row = {"model": self.key, kind: found}
        self._keep(row)
        if self._path is not None:
            _append(self._path, json.dumps(row) + "\n")


class StandIns(Replies):
    """Replies of a model that nobody asked: of usual length, to weigh a request before it is made.

    What is visible is affirmed, so that such an answer gives nobody away.
    """

    def __init__(self) -> None:
        """Needs no model."""
        self.source = "a model that was not asked"

    def answers(self, records: Sequence[Record], stage: str = "answers") -> list[str]:
        """One answer to what is visible, and one to everything else."""
        return ["yes" if r.topic.startswith("visible") else "Nobody You Know" for r in records]


def dtype_name(vlm: VLM) -> str:
    """The model's precision, such as "float32"."""
    return str(vlm.dtype).removeprefix("torch.")


def question_digest(record: Record) -> str:
    """Which photos, conversation and question this is: 16 hexadecimal digits."""
    asked = [_key(record.image), record.question, record.form, record.options]
    if record.before or record.opening:
        told = [[turn.question, turn.answer, _key(turn.image)] for turn in record.before]
        asked += [told, record.opening]
    return _digest(*asked)


def answer_digest(record: Record) -> str:
    """Which photo, question and answer this is: 16 hexadecimal digits."""
    return _digest(question_digest(record), record.answer)


def records_digest(records: Sequence[Record], seed: int = 0) -> str:
    """Which questions with which answers these are, in their order: 16 hexadecimal digits."""
    return _digest(seed, *(answer_digest(record) for record in records))


def _key(photo: Photo | None) -> str | None:
    return photo.key if photo is not None else None


def _digest(*fields: object) -> str:
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]


def _read(path: Path) -> list[dict[str, Any]]:
    """Batches so far; a line that a kill cut short is cut off."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    try:
        rows = [json.loads(line) for line in whole.splitlines()]
        if not all(map(_is_batch, rows)):
            raise ValueError("a line is of another kind")
    except ValueError as error:
        raise ArtifactError(f"{path}: damaged ({error}); remove it and start again") from error
    return rows


def _is_batch(row: object) -> bool:
    if not isinstance(row, dict) or "model" not in row:
        return False
    kinds = ("answers", "logprobs", "divergences")
    return any(isinstance(row.get(kind), dict) for kind in kinds)


def _append(path: Path, text: str) -> None:
    """One write a batch, so that audits which share a file do not cut into each other's lines."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    content = text.encode()
    try:
        with naming(path):
            # A line that was cut short stays the last one: the next reader takes it off.
            if os.write(handle, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(handle)
