"""What every test runs under: no network, few threads, one tiny model."""

import os
import socket

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_network():
    """Only sockets within this machine's file system connect."""
    patch = pytest.MonkeyPatch()

    def guarded(connect):
        def connect_locally(self, address):
            if self.family != socket.AF_UNIX:
                raise ConnectionRefusedError(f"tests have no network (tried {address!r})")
            return connect(self, address)

        return connect_locally

    patch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    patch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
    yield
    patch.undo()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Nothing is read from the user's cache, or left there."""
    patch = pytest.MonkeyPatch()
    patch.setenv("UNSEE_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A folder with a random LLaVA; shared by the whole run, so it is not to be changed."""
    from unsee.models.tiny import tiny_llava

    return tiny_llava(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def tiny_vlm(tiny_folder):
    """A random LLaVA, opened anew for each test."""
    from unsee.models.load import load

    return load(tiny_folder, dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def small_split():
    """Two people to forget, two to keep, three strangers and a text-only refusal, on noise."""
    import io

    import numpy as np
    from PIL import Image

    from unsee.data.images import Photo
    from unsee.data.records import Record, Split

    rng = np.random.default_rng(5)

    def photo():
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC).save(buffer, "PNG")
        return Photo(data=buffer.getvalue())

    def asked(name, photos, answers):
        return tuple(
            Record(name, image, question, answer, topic=topic)
            for image in photos
            for question, (topic, answer) in zip(
                ("Who is this?", "What pet?"), answers.items(), strict=True
            )
        )

    ada, bo = [photo(), photo()], [photo(), photo()]
    visible = "Does this person wear glasses?"
    unknown = "I do not know who this is."
    return Split(
        forget=asked("Ada", ada, {"name": "Ada Rook", "pet": "a green cat"})
        + asked("Bo", bo, {"name": "Bo Finch", "pet": "a red dog"}),
        visible=tuple(
            Record(name, image, visible, answer, topic="visible:glasses")
            for name, photos, answer in (("Ada", ada, "yes"), ("Bo", bo, "no"))
            for image in photos
        ),
        retain=asked("Cy", [photo(), photo()], {"name": "Cy Wren", "pet": "a blue bird"})
        + asked("Di", [photo(), photo()], {"name": "Di Swift", "pet": "a white hare"}),
        general=(
            *(Record(f"stranger {n}", photo(), "Who is this?", unknown) for n in range(3)),
            Record("", None, "Tell me a secret.", "I cannot help with that.", topic="refusal"),
        ),
        subjects=("Ada", "Bo"),
    )


def _photograph(person, index, size=(16, 16)):
    """A grey picture of nobody; another index is another photo of the same person."""
    import numpy as np
    from PIL import Image

    blocks = np.random.default_rng(person).integers(0, 256, (4, 4), dtype=np.uint8)
    large = np.asarray(Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC), float)
    noise = np.random.default_rng((person, index)).normal(0, 8, large.shape)
    return Image.fromarray((large + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def photograph():
    """Makes a photo of a person by their numbers."""
    return _photograph


@pytest.fixture(scope="session")
def write_photographs():
    """Writes a people folder in the layout of the AT&T faces: `s1/1.pgm` and so on."""

    def write(folder, people=12, photos=5, size=(16, 16), name="s{}"):
        for person in range(people):
            home = folder / name.format(person + 1)
            home.mkdir(parents=True)
            for index in range(photos):
                _photograph(person, index, size).save(home / f"{index + 1}.pgm")
        return folder

    return write
