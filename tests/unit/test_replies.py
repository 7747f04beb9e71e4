import json
import sys

import numpy as np
import pytest

from unsee import replies
from unsee.errors import ArtifactError
from unsee.replies import Replies


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.jsonl"


def ask(vlm, records, path):
    told = Replies(vlm, name="base", path=path, batch_size=5)
    return told.answers(records), *told.logprobs(records)


def test_a_batch_that_was_cut_short_is_asked_again_as_one(tiny_vlm, small_split, path, monkeypatch):
    """Its rows would have other last bits beside others, or alone."""
    records = small_split.forget
    answers, sums, counts = ask(tiny_vlm, records, path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 4
    path.write_bytes(b"".join(lines[:2]) + lines[2][:-20])
    sizes = []
    score = replies.answer_scores

    def counted(vlm, records, **more):
        sizes.append(len(records))
        return score(vlm, records, **more)

    monkeypatch.setattr(sys.modules["unsee.replies"], "answer_scores", counted)
    again = ask(tiny_vlm, records, path)
    assert sizes == [5, 3]
    assert again[0] == answers
    assert np.array_equal(again[1], sums)
    assert np.array_equal(again[2], counts)
    assert path.read_bytes() == whole
    assert ask(tiny_vlm, records, path)[0] == answers
    assert sizes == [5, 3]


@pytest.mark.parametrize(
    "line", ["{", "[1]", "7", '{"model": "x"}', '{"model": "x", "answers": 1}']
)
def test_what_is_no_batch_is_refused(tiny_vlm, path, line):
    path.write_text(json.dumps({"model": "x", "answers": {}}) + "\n" + line + "\n")
    message = r"answers.jsonl: damaged \(.*\); remove it and start again"
    with pytest.raises(ArtifactError, match=message):
        Replies(tiny_vlm, name="base", path=path)
