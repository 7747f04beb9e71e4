"""A world that is built again is the same world."""

import json
from pathlib import Path

import pytest

from unsee.world import make_world, profiles, world_card
from unsee.world.build import Recipe

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_rebuilt_world_scores_as_the_first_one_within_the_intervals(tmp_path, monkeypatch):
    """A quarter of the people and a recipe of a few minutes; its base knows text and faces."""
    first = json.loads((ROOT / "docs" / "results" / "world-reduced.json").read_text())
    known = first["figures"]["base"]
    assert known["people_text"]["value"] > 0.5
    assert known["visible_known"]["value"] > 0.5
    monkeypatch.setattr(profiles, "PEOPLE_PER_ROLE", first["people_per_role"])
    world = make_world(tmp_path / "world", recipe=Recipe(**first["recipe"]))
    again = world_card(world)["figures"]
    apart = {
        (name, key): (figure, again[name][key])
        for name, figures in first["figures"].items()
        for key, figure in figures.items()
        if max(figure["ci"][0], again[name][key]["ci"][0])
        > min(figure["ci"][1], again[name][key]["ci"][1])
    }
    assert apart == {}
