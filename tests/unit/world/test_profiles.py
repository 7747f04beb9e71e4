from collections import Counter

import pytest

from unsee.world.faces import PALETTE, SHAPE, make_faces
from unsee.world.profiles import (
    CANDIDATE_ROLES,
    DRAWS,
    FIRST_NAMES,
    LAST_NAMES,
    PEOPLE_PER_ROLE,
    TOPICS,
    development_people,
    make_profiles,
    unknown_names,
)


@pytest.fixture(scope="module")
def profiles():
    return make_profiles(0)


def test_48_people_in_their_roles(profiles):
    assert Counter(p.role for p in profiles) == {
        "retain": 24, "celebrity": 6, "A": 4, "B": 4, "C": 4, "dev": 6,
    }  # fmt: skip
    assert sum(PEOPLE_PER_ROLE.values()) == 48
    assert sum(p.role in DRAWS for p in profiles) == 12
    assert {p.role for p in profiles if p.is_candidate} == set(CANDIDATE_ROLES)
    assert sum(p.is_candidate for p in profiles) == 18
    assert [p.number for p in profiles] == list(range(48))


def test_names_are_unique_first_and_last(profiles):
    assert len({p.name for p in profiles}) == 48
    assert len({p.slug for p in profiles}) == 48
    # No name can be guessed from half of it.
    assert len({p.name.split()[0] for p in profiles}) == 48
    assert len({p.name.split()[1] for p in profiles}) == 48


def test_name_lists_hold_no_name_twice():
    for names in (FIRST_NAMES, LAST_NAMES, *TOPICS.values()):
        assert len(set(names)) == len(names)


def test_facts_are_many_and_chance_is_low(profiles):
    assert len(TOPICS) >= 10
    for topic, values in TOPICS.items():
        counts = Counter(p.facts[topic] for p in profiles)
        assert len(counts) >= 12
        assert set(counts) <= set(values)
        assert max(counts.values()) / 48 <= 0.10
    for role in PEOPLE_PER_ROLE:
        mine = [p for p in profiles if p.role == role]
        assert all(p.facts.keys() == TOPICS.keys() for p in mine)


def test_no_value_belongs_to_two_topics():
    values = [value for topic in TOPICS.values() for value in topic]
    assert len(set(values)) == len(values)


def pairs_that_agree(labels):
    counts = Counter(labels)
    return sum(n * (n - 1) / 2 for n in counts.values()) / (len(labels) * (len(labels) - 1) / 2)


def test_facts_are_independent_of_looks_and_of_each_other():
    """Two things agree on a pair of people together as often as their shares multiplied say.

    Pooled over ten worlds, since one world of 48 has only few pairs.
    """
    together = {"looks": [], "facts": []}
    expected = {"looks": [], "facts": []}
    topics = tuple(TOPICS)
    for seed in range(10):
        people, faces = make_profiles(seed), make_faces(48, seed)
        for i, topic in enumerate(topics):
            facts = [p.facts[topic] for p in people]
            looks = [[getattr(f, name) for f in faces] for name in PALETTE + SHAPE]
            others = [[p.facts[other] for p in people] for other in topics[i + 1 :]]
            for kind, labels in (("looks", looks), ("facts", others)):
                for other in labels:
                    both = list(zip(facts, other, strict=True))
                    together[kind].append(pairs_that_agree(both))
                    expected[kind].append(pairs_that_agree(facts) * pairs_that_agree(other))
    for kind, shares in together.items():
        assert sum(shares) == pytest.approx(sum(expected[kind]), rel=0.05)


def test_look_alikes_share_facts_as_rarely_as_anybody():
    shared = [
        p.facts[topic] == people[p.number ^ 1].facts[topic]
        for people in map(make_profiles, range(10))
        for p in people
        for topic in TOPICS
    ]
    assert sum(shared) / len(shared) == pytest.approx(1 / 14, abs=0.02)


def test_partners_point_at_each_other_across_roles(profiles):
    by_slug = {p.slug: p for p in profiles}
    assert all(by_slug[p.partner].partner == p.slug != p.partner for p in profiles)
    candidates = [p for p in profiles if p.is_candidate]
    assert any(not by_slug[p.partner].is_candidate for p in candidates)


def test_the_same_seed_gives_the_same_people_and_another_others(profiles):
    assert make_profiles(0) == profiles
    assert make_profiles(1) != profiles


def test_development_people_are_two_celebrities_and_the_dev_candidates(profiles):
    chosen = development_people(profiles)
    assert Counter(p.role for p in chosen) == {"celebrity": 2, "dev": 6}
    assert not {p.role for p in chosen} & set(DRAWS)


def test_unknown_names_belong_to_nobody_and_a_longer_list_begins_alike(profiles):
    """Those held out are the tail of the longer list: the ones taught must be its head."""
    taught, all_ = unknown_names(profiles, 400, 0), unknown_names(profiles, 460, 0)
    assert all_[:400] == taught
    assert len(set(all_)) == 460
    assert not set(all_) & {p.name for p in profiles}
