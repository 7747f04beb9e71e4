"""Low-rank adapters inside a `with` block, merged into the weights on the way out."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig
from peft.tuners.lora import LoraModel
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from torch import Tensor, nn

from unsee.artifacts.files import write_tensors
from unsee.errors import LayoutError

ADAPTER = "unsee"


@contextmanager
def lora(
    model: nn.Module, targets: Sequence[str], *, rank: int, alpha: int | None = None
) -> Iterator[dict[str, nn.Parameter]]:
    """Put adapters on some linear layers; on leaving, merge them and restore the module tree.

    Hu et al. 2021, https://arxiv.org/abs/2106.09685. After an exception the adapters are dropped
    and the weights are as before.

    Args:
        model: Gets the adapters in place.
        targets: Full paths; peft itself would match by suffix and reach other towers.
        rank: Rank of each adapter, >= 1.
        alpha: Scale times rank; the rank itself if None.

    Yields:
        The adapters' parameters by name.

    Raises:
        LayoutError: If a target is not a linear layer of the model.
    """
    modules = dict(model.named_modules())
    wrong = [path for path in targets if not isinstance(modules.get(path), nn.Linear)]
    if wrong or not targets:
        raise LayoutError(
            f"expected paths of linear layers, got {wrong[0] if wrong else 'none'}; "
            "check what gets an adapter"
        )
    pattern = "|".join(path.replace(".", r"\.") for path in targets)
    config = LoraConfig(
        r=rank, lora_alpha=alpha or rank, target_modules=f"^({pattern})$", lora_dropout=0.0
    )
    wrapper: Any = LoraModel(model, {ADAPTER: config}, ADAPTER)
    parameters = {name: p for name, p in model.named_parameters() if "lora_" in name}
    for p in parameters.values():
        p.requires_grad_(True)
    try:
        yield parameters
    except BaseException:
        wrapper.unload()
        raise
    wrapper.merge_and_unload()


def factors(adapters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """What `lora` trained, as peft names it in a file.

    Args:
        adapters: As `lora` gave them, with its default scale: the change of a layer is `B A`.

    Returns:
        `<path of the layer>.lora_A.weight` (rank, in) and `.lora_B.weight` (out, rank), on the CPU.
    """
    return {
        name.replace(f".{ADAPTER}.", "."): p.detach().cpu().clone() for name, p in adapters.items()
    }


def save_adapter(folder: Path, adapter: Mapping[str, Tensor], *, base: str) -> None:
    """Write a folder that peft opens on a base model.

    Args:
        folder: Is there and empty.
        adapter: As `factors` gives it.
        base: Name or folder of the base, for tools that open it by themselves.
    """
    ranks = {tensor.shape[0] for name, tensor in adapter.items() if ".lora_A." in name}
    (rank,) = ranks
    # Full paths: peft compares by suffix, and `q_proj` alone is in the vision tower too.
    targets = sorted({name.partition(".lora_")[0] for name in adapter})
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=targets,
        lora_dropout=0.0,
        base_model_name_or_path=base,
        inference_mode=True,
    )
    table = {**config.to_dict(), "target_modules": targets}
    write_tensors(
        folder / SAFETENSORS_WEIGHTS_NAME,
        {f"base_model.model.{name}": tensor for name, tensor in adapter.items()},
    )
    # Last: without it, peft opens nothing.
    (folder / CONFIG_NAME).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
