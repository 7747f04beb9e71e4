"""Open a model by name or folder."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText

from unsee.artifacts import StackedRun, fingerprint
from unsee.errors import ConfigError
from unsee.models.families import checked_layout, layout_of
from unsee.models.layout import Layout
from unsee.models.processors import open_processor

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass
class VLM:
    """A vision-language model with what is needed to talk to it.

    Attributes:
        model: Hugging Face's own model. It has the methods of `PreTrainedModel` and of
            `GenerationMixin`; there is no public type for both.
        processor: Its processor, with tokenizer, image processor and chat template.
        layout: Where the parts of the model are.
        source: Name or folder it was opened from.
        fingerprint: Of the weights as they were opened, 16 hexadecimal digits.
        stack: Runs whose weights were put on it since, in that order.
    """

    model: Any
    processor: Any
    layout: Layout
    source: str
    fingerprint: str
    stack: tuple[StackedRun, ...] = ()

    @property
    def identity(self) -> str:
        """Which weights these are now: fingerprints of base and runs."""
        return "-".join([self.fingerprint, *(run.fingerprint for run in self.stack)])

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model's weights."""
        return self.model.dtype

    def image_features(self, inputs: Mapping[str, Tensor]) -> Any:
        """What the language model is given of photos; it does not run itself.

        Args:
            inputs: What the processor made of the photos; anything else is left alone.

        Returns:
            A tensor (..., patch, width), or one of (patch, width) for each photo.
        """
        visual = {name: inputs[name] for name in self.layout.visual_inputs if name in inputs}
        if hasattr(self.model, "get_image_features"):
            return self.model.get_image_features(**visual, return_dict=True).pooler_output
        # Mllama has no such method.
        tower = self.model.get_submodule(self.layout.vision_tower)
        projector = self.model.get_submodule(self.layout.projector)
        return projector(tower(**visual).last_hidden_state)


def load(
    name_or_folder: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    device_map: str | Mapping[str, int | str | torch.device] | None = None,
) -> VLM:
    """Open a vision-language model, ready to answer.

    Only safetensors are read, no code of the model's is run, and pictures are prepared with Pillow,
    so that the same photo gives the same pixels everywhere.

    Args:
        name_or_folder: A folder in Hugging Face's format, or a name on its hub.
        dtype: `"auto"` for the checkpoint's own, but float32 on a CPU; or a dtype or its name.
        device: `"auto"` for a GPU if there is one, else the CPU.
        device_map: Which modules lie where, instead of one device for all: as in transformers,
            `"auto"` or module path -> device. With parts off the GPU the model answers; training
            wants those that it trains on one device.

    Raises:
        ConfigError: If folder or name do not lead to a complete model, dtype is unknown, or both
            device and device_map are given.
        LayoutError: If the model is text-only or of an unknown family.
    """
    source = str(name_or_folder)
    place, options = _place(source)
    if device_map is not None and device != "auto":
        raise ConfigError(f"expected device or device_map, got both ({device!r}); give one")
    target = _device(device)
    config, layout = _configuration(source)

    try:
        opened: Any = AutoModelForImageTextToText.from_pretrained(
            place,
            dtype=_dtype(dtype, target),
            device_map=device_map,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise _incomplete(source, "weights", error) from error
    model, info = opened
    lacking = sorted(info["missing_keys"])
    if lacking:
        raise ConfigError(
            f"{source}: weights are incomplete, {len(lacking)} tensors are missing "
            f"(first: {lacking[0]}); copy the model again"
        )

    if device_map is not None and any(p.is_meta for p in model.parameters()):
        raise ConfigError(
            f"{source}: device_map leaves weights on disk, where no fingerprint can be taken of "
            "them; give more memory, or a smaller dtype"
        )
    processor = _processor(source, config, layout)
    model = (model if device_map is not None else model.to(target)).eval()
    return VLM(
        model=model,
        processor=processor,
        layout=checked_layout(model, config.model_type, where=source),
        source=source,
        fingerprint=fingerprint(model.state_dict()),
    )


def outline(
    name_or_folder: str | Path,
    *,
    depth: tuple[int, int] | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
) -> VLM:
    """A model of random weights with another's configuration and processor, or a slice of it.

    No weights are read; dtype and device are those that `load` would choose.

    Args:
        name_or_folder: As for `load`.
        depth: Language layers and vision blocks, from the first; None for all.
        device: As for `load`; `"meta"` for shapes without weights.
        seed: Seeds the weights.

    Raises:
        ConfigError: If folder or name do not lead to a configuration and a processor.
        LayoutError: If the model is text-only or of an unknown family.
    """
    source = str(name_or_folder)
    target = _device(device)
    config, layout = _configuration(source)
    if depth is not None:
        _cut(config.get_text_config(), depth[0])
        if not _numbers_blocks(config, layout):
            _cut(config.vision_config, depth[1])
    dtype = _dtype("auto", target)
    dtype = (config.dtype or torch.float32) if dtype == "auto" else dtype
    torch.manual_seed(seed)
    with target:
        model: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    return VLM(
        model=model.eval(),
        processor=_processor(source, config, layout),
        layout=checked_layout(model, config.model_type, where=source),
        source=source,
        fingerprint="random",
    )


def _cut(config: Any, layers: int) -> None:
    """Keeps the first layers of a configuration."""
    name = "depth" if hasattr(config, "depth") else "num_hidden_layers"
    layers = min(layers, getattr(config, name))
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    setattr(config, name, layers)


def _numbers_blocks(config: Any, layout: Layout) -> bool:
    """Whether some vision blocks are named by their number from the first, so that all stay."""
    if layout.later_vision_blocks is not None:
        return True
    if layout.feature_layer is not None:
        chosen = getattr(config, layout.feature_layer)
        return any(number >= 0 for number in (chosen if isinstance(chosen, list) else [chosen]))
    lists = ("fullatt_block_indexes", "deepstack_visual_indexes")
    return any(getattr(config.vision_config, name, None) for name in lists)


def _place(source: str) -> tuple[str, dict[str, Any]]:
    """Folder or hub name as Hugging Face takes it, and options that go with it."""
    local = Path(source).expanduser().is_dir()
    if not local:
        _refuse_missing_folder(source)
    # Never the model's own code, and no look at the hub for what is in a folder.
    options = {"local_files_only": local, "trust_remote_code": False}
    return str(Path(source).expanduser()) if local else source, options


def _configuration(source: str) -> tuple[Any, Layout]:
    place, options = _place(source)
    try:
        config = AutoConfig.from_pretrained(place, **options)
    except (OSError, ValueError) as error:
        raise _incomplete(source, "configuration", error) from error
    return config, layout_of(config.model_type, where=source)


def _processor(source: str, config: Any, layout: Layout) -> Any:
    place, options = _place(source)
    try:
        return open_processor(place, config, layout, options)
    except (OSError, ValueError, ImportError) as error:
        raise _incomplete(source, "processor", error) from error


def _refuse_missing_folder(source: str) -> None:
    """A name that cannot be on the hub is a folder that is not there."""
    if not HUB_NAME.fullmatch(source):
        raise ConfigError(
            f"{source}: no such model folder; give a folder with config.json, or a hub name "
            "such as llava-hf/llava-1.5-7b-hf"
        )


def _incomplete(source: str, part: str, error: Exception) -> ConfigError:
    reason = " ".join(str(error).split())
    return ConfigError(f"{source}: cannot open the model's {part}: {reason}")


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device {device!r}: expected auto, cpu, cuda or cuda:N") from error


def _dtype(dtype: str | torch.dtype, device: torch.device) -> str | torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        # Half precision on a CPU is slow and, in places, not implemented.
        return torch.float32 if device.type == "cpu" else "auto"
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in known:
        raise ConfigError(f"dtype {dtype!r}: expected auto, {', '.join(known)}")
    return known[dtype]
