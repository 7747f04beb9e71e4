"""Open a model's processor: photos are read with Pillow, and videos are never asked for.

Hugging Face's processors of Qwen-VL, InternVL, LLaVA-OneVision and SmolVLM also read videos, and
are not built without torchvision. Photos need none of it: where torchvision is missing, the same
class is built from tokenizer and image processor, with a blank where the video part would be.
"""

from collections.abc import Mapping
from typing import Any

from transformers import (
    PROCESSOR_MAPPING,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    Idefics3Processor,
)
from transformers.utils.import_utils import is_num2words_available, is_torchvision_available

from unsee.models.layout import Layout


class NoVideo(dict[str, Any]):
    """Stands where a processor wants its video part; keeps that part's settings, for saving."""

    model_input_names: tuple[str, ...] = ()
    _auto_class = None


def open_processor(place: str, config: Any, layout: Layout, options: Mapping[str, Any]) -> Any:
    """The processor of a model, with its image processor on Pillow.

    Args:
        place: Folder or hub name.
        config: The model's configuration.
        layout: Of its family; gives the chat template where the checkpoint has none.
        options: For Hugging Face's `from_pretrained`.

    Raises:
        OSError: If a file is missing.
        ValueError: If a file is not what it should be.
        ImportError: If the processor needs a package that is not installed.
    """
    images = AutoImageProcessor.from_pretrained(place, backend="pil", **options)
    kind: Any = PROCESSOR_MAPPING[type(config)]
    if "video_processor" in kind.get_attributes() and not _reads_videos(layout):
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        settings, _ = kind.get_processor_dict(place, **options)
        processor = without_video(kind, images, tokenizer, settings)
    else:
        processor = AutoProcessor.from_pretrained(place, **options)
        processor.image_processor = images
    if processor.chat_template is None and processor.tokenizer.chat_template is None:
        processor.chat_template = layout.chat_template
    return processor


def _reads_videos(layout: Layout) -> bool:
    """Whether the family's full processor can be built here."""
    # SmolVLM spells out how many frames a video has.
    spells = layout.family == "smolvlm"
    return is_torchvision_available() and (not spells or is_num2words_available())


def without_video(kind: Any, images: Any, tokenizer: Any, settings: Mapping[str, Any]) -> Any:
    """A processor of photos alone.

    Args:
        kind: Hugging Face's class.
        images: Its image processor.
        tokenizer: Its tokenizer.
        settings: Its own settings, and its video part's under `video_processor`.
    """
    if kind.__name__ == "SmolVLMProcessor":
        # Idefics3's with a video part: of photos both make the same.
        return Idefics3Processor.from_args_and_dict([images, tokenizer], dict(settings))
    # Its own check of the parts looks for a class that is not there without torchvision.
    unchecked = {"check_argument_for_proper_class": lambda self, name, part: type(part)}
    photos_only: Any = type(kind.__name__, (kind,), unchecked)
    own = dict(settings)
    return photos_only.from_args_and_dict(
        [images, tokenizer, NoVideo(own.pop("video_processor", {}))], own
    )
