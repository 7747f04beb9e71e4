"""A LLaVA with random weights, large enough for times to mean something, and erasers to match."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    import io

    noise = np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return Photo(data=buffer.getvalue())


def asked(count: int) -> list[Record]:
    """Questions on photos of nobody."""
    question = "What is the name of this person, and where does this person live?"
    return [Record(f"person {n}", random_photo(n), question, "nobody") for n in range(count)]


def random_eraser(vlm: VLM, subjects: int, *, fires: bool) -> Steering:
    """An eraser of so many subjects whose gates fire on every photo, or on none."""
    plan = MLLMEraser().plan(vlm, "visual")
    width = vlm.model.config.text_config.hidden_size
    generator = torch.Generator().manual_seed(0)
    return Steering(
        subjects=tuple(f"subject {n}" for n in range(subjects)),
        base=vlm.fingerprint,
        plan=plan,
        directions=0.01 * torch.randn(subjects, len(plan.layers), width, generator=generator),
        weights=1e-6 * torch.randn(subjects, 1, width, generator=generator),
        biases=torch.full((subjects, 1), 1e3 if fires else -1e3),
        scores=((torch.linspace(-2, -1, 3000),),) * subjects,
    )


def medians(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each, taken in turns, so that what else runs meets all alike."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            found[name].append(time.perf_counter() - started)
    return {name: float(np.median(times)) for name, times in found.items()}
