"""A world without models: people, photos, parquet files and `extra.jsonl`, written once."""

import pytest

from unsee.artifacts import atomic_write_json
from unsee.data.world import WORLD, open_world
from unsee.world import drawn
from unsee.world.build import Recipe
from unsee.world.folder import write_data
from unsee.world.make import world_table


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory):
    """The world with 12 stored photos a person instead of 60; not to be changed."""
    folder = tmp_path_factory.mktemp("world")
    patch = pytest.MonkeyPatch()
    patch.setattr(drawn, "VIEWS_PER_PERSON", 12)
    write_data(folder, drawn.Drawn(0))
    patch.undo()
    atomic_write_json(
        folder / WORLD, world_table("llava", drawn.Drawn(0), "unsee world make", Recipe())
    )
    return folder


@pytest.fixture(scope="session")
def world(world_folder):
    return open_world(world_folder)
