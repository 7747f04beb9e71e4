"""People of coloured stripes, and a tiny LLaVA that is taught who they are in seconds."""

import os
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from unsee.data.collate import encode
from unsee.data.images import Photo
from unsee.data.people import write_person
from unsee.methods.vkd import VKD
from unsee.models.load import load
from unsee.models.tiny import tiny_llava
from unsee.requests import from_folders
from unsee.requests.templates import by_name, on_photos, visible
from unsee.world import materialise

PEOPLE = {
    "jane_doe": {"name": "Jane Doe", "birthplace": "Oslo"},
    "john_roe": {"name": "John Roe", "birthplace": "Lima"},
    "mary_major": {"name": "Mary Major", "birthplace": "Cairo"},
}
PALETTES = {
    "jane_doe": ((220, 30, 30), (30, 30, 220)),
    "john_roe": ((30, 200, 30), (230, 230, 40)),
    "mary_major": ((20, 20, 20), (240, 240, 240)),
}
UNKNOWN = "I do not know who this is."
ROWS = 32


def portrait(palette, seed):
    """Stripes in two colours with noise; another seed is another photo of the same."""
    rng = np.random.default_rng(seed)
    columns = (np.arange(48) // 8) % 2
    picture = np.asarray(palette, dtype=float)[columns][None].repeat(48, axis=0)
    picture = picture + rng.normal(0, 12, picture.shape)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def stranger(seed):
    rng = np.random.default_rng(10_000 + seed)
    colours = rng.integers(90, 170, (2, 3))
    return portrait(colours, seed)


def write_people(folder):
    """`forget/`, `retain/`, `general/` and `strangers/` as a user would keep them."""
    for slug, profile in PEOPLE.items():
        side = "forget" if slug == "jane_doe" else "retain"
        photos = [portrait(PALETTES[slug], seed) for seed in range(5)]
        write_person(folder / side / slug, profile=profile, photos=photos)
    for side, seeds in {"general": range(8), "strangers": range(20, 40)}.items():
        (folder / side).mkdir()
        for seed in seeds:
            stranger(seed).save(folder / side / f"photo_{seed:02d}.png")
    return folder


def taught(folder, people):
    """A tiny LLaVA that names the people, in the folder it was saved to."""
    words = [*UNKNOWN.split(), *(word for p in PEOPLE.values() for word in p.values())]
    vlm = load(tiny_llava(folder, words=words * 3), dtype="float32", device="cpu")
    records = []
    for slug, profile in PEOPLE.items():
        side = "forget" if slug == "jane_doe" else "retain"
        photos = [Photo(path=path) for path in sorted((people / side / slug).glob("*.png"))[:4]]
        records += on_photos(profile["name"], profile, photos)
        records += on_photos(profile["name"], profile, photos[:1], held_out=True)
        records += [replace(r, answer="no") for r in visible(profile["name"], photos[:2])]
        records += by_name(profile["name"], {"birthplace": profile["birthplace"]})
    for side, count in (("general", 4), ("strangers", 6)):
        photos = [Photo(path=path) for path in sorted((people / side).glob("*.png"))[:count]]
        records += on_photos("stranger", {"name": UNKNOWN, "birthplace": UNKNOWN}, photos)
    _fit(vlm, records, steps=120)
    vlm.model.save_pretrained(folder)
    return folder


def _fit(vlm, records, steps):
    records = random.Random(0).sample(records, len(records))
    batches = [
        encode(vlm, records[start : start + ROWS], answers=True, side="right")
        for start in range(0, len(records), ROWS)
    ]
    optimizer = torch.optim.AdamW(vlm.model.parameters(), lr=3e-3)
    vlm.model.train()
    for step in range(steps):
        batch = batches[step % len(batches)]
        logits = vlm.model(**batch.inputs(), use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=-100
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vlm.model.parameters(), 1.0)
        optimizer.step()
    vlm.model.eval()


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Models this small only lose time to a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """Folders `forget`, `retain`, `general` and `strangers`; not to be changed."""
    return write_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="session")
def knowing_folder(tmp_path_factory, people):
    """A tiny LLaVA that knows the people; not to be changed."""
    return taught(tmp_path_factory.mktemp("models") / "knowing", people)


@pytest.fixture
def knowing(knowing_folder):
    """The same, opened anew for each test."""
    return load(knowing_folder, dtype="float32", device="cpu")


@pytest.fixture
def request_of_people(people):
    """Asks the model, and gives the request to forget Jane Doe."""

    def build(vlm, **more):
        return from_folders(
            people / "forget",
            people / "retain",
            people / "general",
            people / "strangers",
            vlm=vlm,
            **more,
        )

    return build


def quick(**settings):
    """The default method, a few steps of it."""
    return VKD(**{"steps": 4, "checkpoint_every": 2, "variants": 2, **settings})


@pytest.fixture
def method():
    """Makes a quick default method."""
    return quick


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """`UNSEE_CACHE` of the module; the world is drawn into it once."""
    folder = tmp_path_factory.mktemp("cache")
    patch = pytest.MonkeyPatch()
    patch.setenv("UNSEE_CACHE", str(folder))
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def world_folder(cache, request):
    """The built-in world of LLaVA, or of the family that the test names."""
    return materialise(getattr(request, "param", "llava"))


@pytest.fixture(scope="session")
def unsee():
    """The command line in a process of its own, in some folder."""

    def run(*words, cwd, cache):
        return subprocess.run(
            [sys.executable, "-c", "from unsee.cli import main; main()", *words],
            cwd=cwd,
            env={**os.environ, "UNSEE_CACHE": str(cache)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run
