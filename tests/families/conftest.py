"""A tiny random model of each family, and photos of several sizes."""

import io

import numpy as np
import pytest
from PIL import Image

from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.models.families import FAMILIES
from unsee.models.load import load
from unsee.models.tiny import tiny_model


@pytest.fixture(scope="session")
def tiny_families(tmp_path_factory):
    """Makes the folder of a family's tiny model, once; not to be changed."""
    made = {}

    def folder(family):
        if family not in made:
            made[family] = tiny_model(family, tmp_path_factory.mktemp("families") / family)
        return made[family]

    return folder


@pytest.fixture(params=sorted(FAMILIES))
def family(request):
    return request.param


@pytest.fixture
def vlm(family, tiny_families):
    """The family's tiny model, opened anew for each test."""
    return load(tiny_families(family), dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def mixed_records():
    """Photos of several sizes, and two questions without one."""
    rng = np.random.default_rng(7)

    def photo(width, height):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return Photo(data=buffer.getvalue())

    return (
        Record("Ada", photo(48, 48), "Who is this?", "Ada Rook"),
        Record("", None, "Tell me a secret, please, now.", "no"),
        Record("Bo", photo(96, 40), "What is the name of this person?", "Bo"),
        Record("Cy", photo(40, 64), "Who?", "Cy Wren"),
        Record("", None, "Why?", "I do not know"),
    )
