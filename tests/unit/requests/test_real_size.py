"""MLLMU-Bench with its published numbers of rows, read without its photos in memory.

Photos are scaled down: 200 kB a person and 450 kB a person of the Test_Set, against 465 kB and
1.35 MB published; 355 MB in all.
"""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from unsee.data.mllmu import write_rows

PEOPLE, FORGOTTEN, CELEBRITIES = 500, 25, 153
PHOTO_BYTES = {"image": 200_000, "images": 150_000}
# Under half of the photos. A row group of the Test_Set is 29 MB; Arrow holds a few copies of one.
BOUND_MB = 160

READ = """
import resource, sys
from unsee.requests import read_dataset
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sides = read_dataset(sys.argv[1])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
counts = {name: len(people) for name, people in sides.people.items()}
photos = {photo for people in sides.people.values() for one in people for photo in one.photos}
some = max(photos, key=lambda photo: photo.key).open()
import json
print(json.dumps({"mb": (after - before) / 1024, "counts": counts, "photos": len(photos)}))
"""


def person(number, noise, *, test=False):
    """A row as the benchmark publishes it: five and five choices, four open questions, two gaps."""
    kinds = ("Image_Textual", "Pure_Text")
    options = {"A": "Oslo", "B": "Rome", "C": "Bern", "D": "Kyiv"}
    choices = [
        {"Question": f"Question {n}?", "Options": options, "Correct_Answer": "B"} for n in range(5)
    ]
    items = [
        {"Question": f"Question {n}?", "Ground_Truth": "Rome", "Type": kind}
        for n in range(2)
        for kind in kinds
    ]
    encoded = io.BytesIO()
    Image.new("RGB", (32, 32), (number % 256, 9, 9)).save(encoded, "PNG")

    def photo(size):
        # Decoders stop where the picture ends.
        return {"bytes": encoded.getvalue() + noise.bytes(size), "path": None}

    shown = (
        {"images": [photo(PHOTO_BYTES["images"]) for _ in range(3)]}
        if test
        else {"image": photo(PHOTO_BYTES["image"])}
    )
    return shown | {
        "ID": f"{number:03d}",
        "Directory": "",
        "biography": json.dumps({"Name": f"Person {number}"}),
        "question": "Describe.",
        "answer": "A person.",
        "Classification_Task": {
            "Image_Textual_Questions": choices,
            "Pure_Text_Questions": choices,
        },
        "Generation_Task": items,
        "Mask_Task": items[:2],
    }


@pytest.mark.slow
def test_published_row_counts_stream_through(tmp_path):
    noise = np.random.default_rng(0)
    kept = PEOPLE - FORGOTTEN
    write_rows(tmp_path / "retain_95.parquet", (person(n, noise) for n in range(kept)))
    write_rows(tmp_path / "forget_5.parquet", (person(n, noise) for n in range(kept, PEOPLE)))
    write_rows(tmp_path / "Test_Set.parquet", (person(n, noise, test=True) for n in range(PEOPLE)))
    celebrities = (person(n, noise) for n in range(PEOPLE, PEOPLE + CELEBRITIES))
    write_rows(tmp_path / "Retain_Set.parquet", celebrities)
    done = subprocess.run(
        [sys.executable, "-c", READ, f"mllmu:{tmp_path}#forget_5"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["counts"]["forget"] == FORGOTTEN
    assert told["counts"]["retain"] == kept
    assert told["counts"]["celebrity"] == CELEBRITIES
    assert told["photos"] == PEOPLE + CELEBRITIES + 3 * PEOPLE
    assert told["mb"] < BOUND_MB
