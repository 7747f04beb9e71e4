import io

import numpy as np
import pytest
from PIL import Image

from unsee.data.images import Photo
from unsee.data.records import Record, Split


def noise_photo(seed, size=(48, 40)):
    """Coarse noise; another seed is another photo."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, "PNG")
    return Photo(data=buffer.getvalue())


@pytest.fixture
def photo():
    """Makes a photo by its number."""
    return noise_photo


@pytest.fixture
def split():
    """Ada with three photos and three forms of question; Cy is kept."""
    given = []
    for seed in range(3):
        shown = noise_photo(seed)
        given += [
            Record("Ada", shown, "Who is this?", "Ada Rook", topic="name"),
            Record("Ada", shown, "What pet?", "a green cat", topic="pet"),
            Record("Ada", shown, "Which animal?", "a green cat", topic="pet"),
            Record(
                "Ada",
                shown,
                "Fill in the blank. This person has a pet __.",
                "green cat",
                form="cloze",
                topic="pet",
            ),
        ]
    kept = (Record("Cy", noise_photo(50), "Who is this?", "Cy Wren", topic="name"),)
    return Split(forget=tuple(given), retain=kept, subjects=("Ada",))


@pytest.fixture
def asked():
    """Two questions on a photo that was not given, and one without a photo."""
    unseen = noise_photo(100)
    return [
        Record("Ada", unseen, "Tell me the name.", "Ada Rook", topic="name"),
        Record("Ada", unseen, "Tell me the pet.", "a green cat", topic="pet"),
        Record("Ada", None, "What pet has Ada?", "a green cat", topic="pet"),
    ]
