"""A LLaVA with random weights, large enough for times to mean something, and erasers to match."""

import io
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration

from unsee.artifacts import fingerprint
from unsee.data.images import Photo
from unsee.data.records import Record
from unsee.erasers.mllmeraser import MLLMEraser
from unsee.erasers.steering import Steering
from unsee.models.load import VLM, load
from unsee.models.tiny import tiny_llava


def random_vlm(*, width: int = 1024, layers: int = 8) -> VLM:
    """The tests' tiny LLaVA with a language model of some 100 million parameters."""
    with tempfile.TemporaryDirectory() as folder:
        tiny = load(tiny_llava(Path(folder) / "tiny"), dtype="float32", device="cpu")
    config = tiny.model.config
    config.text_config.update(
        {
            "hidden_size": width,
            "intermediate_size": 11 * width // 4,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
            "num_key_value_heads": width // 64,
            "head_dim": 64,
            "initializer_range": 0.02,
        }
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    model.generation_config = tiny.model.generation_config
    return replace(tiny, model=model, source="random", fingerprint=fingerprint(model.state_dict()))


def random_photo(seed: int) -> Photo:
    """Noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return Photo(data=buffer.getvalue())


QUESTIONS = (
    "Who is this?",
    "Where does this person live?",
    "What is the name of this person, and where does this person live?",
)


def asked(count: int, *, various: bool = False) -> list[Record]:
    """Questions on photos of nobody: one short one, or several of different length."""
    questions = QUESTIONS if various else QUESTIONS[:1]
    return [
        Record(f"person {n}", random_photo(n), questions[n % len(questions)], "nobody")
        for n in range(count)
    ]


def random_eraser(vlm: VLM, subjects: int, *, fires: bool, first: int = 0) -> Steering:
    """An eraser of so many subjects whose gates fire on every photo, or on none.

    Args:
        vlm: The model it is for.
        subjects: How many.
        fires: Whether the gates fire.
        first: Number of the first of them, so that several erasers can be joined.
    """
    plan = MLLMEraser().plan(vlm, "visual")
    width = vlm.model.config.text_config.hidden_size
    generator = torch.Generator().manual_seed(first)
    return Steering(
        subjects=tuple(f"subject {first + n}" for n in range(subjects)),
        base=vlm.fingerprint,
        plan=plan,
        directions=0.01 * torch.randn(subjects, len(plan.layers), width, generator=generator),
        weights=1e-6 * torch.randn(subjects, 1, width, generator=generator),
        biases=torch.full((subjects, 1), 1e3 if fires else -1e3),
        scores=((torch.linspace(-2, -1, 3000),),) * subjects,
    )
