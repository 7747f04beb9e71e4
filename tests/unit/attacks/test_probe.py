from dataclasses import replace

import numpy as np

from unsee.attacks import ATTACKS
from unsee.attacks.probe import predicted
from unsee.attacks.protocol import Given

PENALTIES = (1.0, 100.0)
PLACES = ["vision", "projector", "language 50%", "language 100%"]


def test_a_probe_finds_what_is_linear_and_nothing_in_noise():
    rng = np.random.default_rng(0)
    kinds = np.arange(60) % 3
    labels = np.array(["a", "b", "c"])[kinds]
    states = rng.normal(size=(60, 8))
    assert (predicted(states[:30], labels[:30], states[30:], PENALTIES) == labels[30:]).mean() < 0.7
    states[np.arange(60), kinds] += 8.0
    assert (predicted(states[:30], labels[:30], states[30:], PENALTIES) == labels[30:]).all()


def test_a_rare_class_weighs_as_much_as_a_common_one():
    states = np.array([[0.0]] * 30 + [[1.0]] * 2)
    labels = np.array(["common"] * 30 + ["rare"] * 2)
    assert predicted(states, labels, np.array([[0.9]]), (100.0,)).tolist() == ["rare"]


def test_states_are_read_at_every_place_and_faces_told_apart(tiny_vlm, small_split):
    tries = ATTACKS.get("probe")(penalties=(1.0,)).tries(tiny_vlm, Given(small_split))
    assert [one.name for one in tries] == PLACES
    # The photos that the probe was fitted on: it tells them again.
    asked = small_split.forget
    for one in tries:
        reading = one.read(tiny_vlm, asked)
        assert reading.success.tolist() == [1.0] * len(asked)
        assert 0 <= reading.beside["random_labels"] < 1


def test_few_photos_a_person_are_taken_and_none_that_is_asked_about(tiny_vlm, small_split):
    attack = ATTACKS.get("probe")(photos=1)
    known = attack._known(small_split)
    assert set(known) == {"name", "pet"}
    for own in known.values():
        assert len(own) == len({r.subject for r in own}) == 4
    without = replace(small_split, retain=(), forget=small_split.forget[:4])
    assert (
        attack.tries(tiny_vlm, Given(without))
        == "no kind of question on photos has two known answers"
    )
