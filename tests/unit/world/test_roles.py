"""Who plays which part, dealt by seed or said in a file."""

import json
from collections import Counter

import pytest

from unsee.world.profiles import PEOPLE_PER_ROLE, ROLES
from unsee.world.roles import deal_roles, missing_roles, read_roles, shares

SLUGS = [f"s{n}" for n in range(1, 41)]


@pytest.mark.parametrize(
    ("count", "retain", "celebrity", "draw", "dev"),
    [(12, 7, 1, 1, 1), (16, 9, 2, 1, 2), (24, 12, 3, 2, 3), (40, 21, 5, 3, 5), (48, 24, 6, 4, 6)],
)
def test_shares_are_eighths_and_twelfths_and_the_rest_is_kept(count, retain, celebrity, draw, dev):
    expected = {"retain": retain, "celebrity": celebrity, "A": draw, "B": draw, "C": draw}
    assert shares(count) == expected | {"dev": dev}


def test_48_people_get_the_built_in_worlds_parts():
    assert shares(48) == PEOPLE_PER_ROLE


@pytest.mark.parametrize("count", range(12, 60))
def test_every_part_is_played_and_at_least_half_are_kept(count):
    roles = deal_roles([f"s{n}" for n in range(count)], {}, 0)
    played = Counter(roles.values())
    assert played == shares(count)
    assert set(played) == set(ROLES)
    assert played["retain"] >= count / 2


def test_the_seed_deals_the_parts():
    assert deal_roles(SLUGS, {}, 0) == deal_roles(SLUGS, {}, 0)
    assert deal_roles(SLUGS, {}, 0) != deal_roles(SLUGS, {}, 1)
    assert list(deal_roles(SLUGS, {}, 0)) == SLUGS


def test_what_is_said_counts_towards_its_share():
    said = {"s1": "A", "s2": "A", "s3": "dev", "s4": "retain"}
    roles = deal_roles(SLUGS, said, 0)
    assert {slug: roles[slug] for slug in said} == said
    assert Counter(roles.values()) == shares(40)


def test_more_than_a_share_may_be_said():
    said = dict.fromkeys(SLUGS[:6], "B")
    roles = deal_roles(SLUGS, said, 0)
    assert Counter(roles.values()) == shares(40) | {"B": 6, "retain": 18}


def test_everybody_may_be_said():
    said = dict(zip(SLUGS, [*ROLES, *["retain"] * 34], strict=True))
    assert deal_roles(SLUGS, said, 0) == said


def test_without_a_file_nothing_is_said(tmp_path):
    faults = []
    assert read_roles(tmp_path / "roles.json", SLUGS, faults) == {}
    assert faults == []


def test_a_file_says_who_is_what(tmp_path):
    path = tmp_path / "roles.json"
    path.write_text(json.dumps({"s3": "celebrity", "s9": "A"}))
    faults = []
    assert read_roles(path, SLUGS, faults) == {"s3": "celebrity", "s9": "A"}
    assert faults == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"s1": }', [":1: expected JSON, got Expecting value; correct the line"]),
        (
            "{}",
            [
                ": expected an object of folders and roles, got an empty object; write "
                '{"s1": "retain", ...} or remove the file'
            ],
        ),
        (
            '["s1"]',
            [
                ": expected an object of folders and roles, got ['s1']; write "
                '{"s1": "retain", ...} or remove the file'
            ],
        ),
        ('{"s1": "A", "s1": "B"}', [": s1: expected one role, got 2; keep one"]),
        ('{"s44": "A"}', [": 's44': no such folder; did you mean 's4'?"]),
        ('{"s1": "celebrities"}', [": s1: unknown role 'celebrities'; did you mean 'celebrity'?"]),
        (
            '{"s1": "stranger"}',
            [": s1: unknown role 'stranger'; known: retain, celebrity, A, B, C, dev"],
        ),
        ('{"s1": 3}', [": s1: expected a role, got 3; write it in quotes"]),
        (
            '{"nobody": "A", "s1": "D"}',
            [
                f": 'nobody': no such folder; known: {', '.join(SLUGS)}",
                ": s1: unknown role 'D'; known: retain, celebrity, A, B, C, dev",
            ],
        ),
    ],
)
def test_each_fault_has_a_line(tmp_path, text, expected):
    path = tmp_path / "roles.json"
    path.write_text(text)
    faults = []
    read_roles(path, SLUGS, faults)
    assert faults == [f"{path}{end}" for end in expected]


def test_a_part_left_to_nobody_has_a_line(tmp_path):
    roles = dict.fromkeys(SLUGS, "retain") | {"s1": "A", "s2": "B", "s3": "dev", "s4": "celebrity"}
    path = tmp_path / "roles.json"
    assert missing_roles(roles, path) == [
        f"{path}: expected at least one person with role 'C', got none; give it to somebody"
    ]
