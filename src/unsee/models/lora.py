"""Low-rank adapters inside a `with` block, merged into the weights on the way out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from peft import LoraConfig
from peft.tuners.lora import LoraModel
from torch import nn

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
