"""What every test runs under: no network, few threads, one tiny model."""

import os
import socket

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch

torch.set_num_threads(2)


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
