"""States of a base that are read once: found again, and made anew whenever anything differs."""

from dataclasses import replace

import pytest
import torch

from unsee import states
from unsee.erasers.mllmeraser import MLLMEraser
from unsee.erasers.statistics import digest_of, remembered


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("UNSEE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


PROBE = torch.tensor([[3.0, 4.0]])


class Made:
    """Counts how often the tensors are made."""

    def __init__(self, value=1.0):
        self.times = 0
        self.value = value

    def __call__(self):
        self.times += 1
        return {"states": torch.full((2, 3), self.value)}


def ask(vlm, made, what=("a",), probe=PROBE):
    return remembered(vlm, {"of": list(what)}, lambda: probe, made)["states"]


def test_the_second_request_makes_nothing(tiny_vlm, cache):
    made = Made()
    first, again = ask(tiny_vlm, made), ask(tiny_vlm, made)
    assert torch.equal(first, again)
    assert made.times == 1
    (file,) = (cache / "statistics").iterdir()
    assert file.name.startswith(tiny_vlm.fingerprint)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_anything_else_is_made_anew(tiny_vlm):
    made = Made()
    ask(tiny_vlm, made)
    ask(tiny_vlm, made, what=("b",))
    ask(replace(tiny_vlm, fingerprint="0" * 16), made)
    tiny_vlm.model.to(torch.bfloat16)
    ask(tiny_vlm, made)
    assert made.times == 4


def test_states_that_the_model_no_longer_has_are_made_anew(tiny_vlm):
    made, new = Made(), Made(2.0)
    ask(tiny_vlm, made)
    assert ask(tiny_vlm, made, probe=PROBE * 1.0005).mean() == 1
    assert ask(tiny_vlm, new, probe=PROBE + 0.1).mean() == 2
    assert ask(tiny_vlm, new, probe=PROBE + 0.1).mean() == 2
    assert (made.times, new.times) == (1, 1)


def test_a_damaged_file_is_made_anew(tiny_vlm, cache):
    made = Made()
    ask(tiny_vlm, made)
    (file,) = (cache / "statistics").iterdir()
    whole = file.read_bytes()
    for content in (b"", whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(content)
        assert ask(tiny_vlm, made).mean() == 1
    assert made.times == 4
    assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_said_and_costs_nothing_else(tiny_vlm, cache):
    cache.write_text("a file")
    with pytest.warns(UserWarning, match="cannot be written .*, so that the next request reads"):
        assert ask(tiny_vlm, Made()).mean() == 1


def test_a_digest_tells_photos_questions_and_answers_apart(small_split):
    record = small_split.forget[0]
    others = [
        replace(record, image=small_split.forget[2].image),
        replace(record, image=None),
        replace(record, question="What car?"),
        replace(record, answer="a red car"),
    ]
    digests = {digest_of([each]) for each in (record, *others)}
    assert len(digests) == 5
    assert digest_of([record, others[0]]) != digest_of([others[0], record])
    assert digest_of([record]) == digest_of([replace(record, subject="Zed")])


def test_a_second_subject_reads_neither_what_is_kept_nor_the_direction_again(
    tiny_vlm, small_split, monkeypatch
):
    method = MLLMEraser.model_validate({"variants": 2, "pairs": 2, "iterations": 2})
    monkeypatch.setattr("unsee.erasers.directions.FLOOR", 0.0)

    def only(name):
        forget = tuple(r for r in small_split.forget if r.subject == name)
        visible = tuple(r for r in small_split.visible if r.subject == name)
        return replace(small_split, forget=forget, visible=visible, subjects=(name,))

    both = method.fit(tiny_vlm, small_split, seed=0)
    rows = []
    encode = states.encode

    def counted(vlm, records, **more):
        rows.append(len(records))
        return encode(vlm, records, **more)

    monkeypatch.setattr(states, "encode", counted)
    monkeypatch.setattr("unsee.erasers.directions.pgd", None)
    alone = method.fit(tiny_vlm, only("Bo"), seed=0)
    # 4 rows and one by which kept states and the direction are recognised; the others are Bo's own.
    mine = sum(r.subject == "Bo" for r in (*small_split.forget, *small_split.visible))
    assert sum(rows) <= 4 + 1 + 2 * mine
    assert torch.equal(alone.weights[0], both.weights[1])
    assert torch.equal(alone.directions[0], both.directions[1])
