"""Read activations inside a `with` block; the only file that registers hooks."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from unsee.errors import LayoutError


@contextmanager
def captured(model: nn.Module, paths: Mapping[str, str]) -> Iterator[dict[str, Tensor]]:
    """Collect what some modules return while the block runs.

    All paths are resolved before the model is touched, and every hook is removed on the way out,
    also after an exception. Outputs are kept as they are, gradients included; a module that runs
    twice leaves its last output.

    Args:
        model: The model to listen to.
        paths: Name to give an output -> dotted path of the module.

    Yields:
        Filled by the forward passes inside the block; the first element where a module returns a
        tuple.

    Raises:
        LayoutError: If the model has no module at one of the paths.
    """
    modules = dict(model.named_modules())
    missing = [repr(path) for path in paths.values() if path not in modules]
    if missing:
        raise LayoutError(f"{type(model).__name__} has no module at {', '.join(missing)}")
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            first = output if isinstance(output, Tensor) else output[0]
            outputs[name] = first

        return hook

    with ExitStack() as stack:
        for name, path in paths.items():
            stack.enter_context(modules[path].register_forward_hook(keep(name)))
        yield outputs
