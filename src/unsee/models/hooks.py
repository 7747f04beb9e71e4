"""Read and change activations inside a `with` block; the only file that registers hooks."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from unsee.errors import LayoutError
from unsee.models.layout import Layout
from unsee.models.passes import BYPASSED, FORMS, PROMPT, Edit, Pass, last_of


class _Enough(Exception):  # noqa: N818 - no error
    """Ends a pass once all that is listened for was said."""


def _modules(model: nn.Module, paths: Iterable[str]) -> dict[str, nn.Module]:
    modules = dict(model.named_modules())
    missing = [repr(path) for path in paths if path not in modules]
    if missing:
        raise LayoutError(f"{type(model).__name__} has no module at {', '.join(missing)}")
    return modules


@contextmanager
def captured(
    model: nn.Module, paths: Mapping[str, str], *, stop: bool = False
) -> Iterator[dict[str, Tensor]]:
    """Collect what some modules return while the block runs.

    All paths are resolved before the model is touched, and every hook is removed on the way out,
    also after an exception. Outputs are kept as they are, gradients included; a module that runs
    twice leaves its last output, or its first with `stop`.

    Args:
        model: The model to listen to.
        paths: Name to give an output -> dotted path of the module.
        stop: Leave the block, and so the pass, once there is an output of every name: what comes
            behind the last of them is not computed.

    Yields:
        Filled by the forward passes inside the block; the first element where a module returns a
        tuple.

    Raises:
        LayoutError: If the model has no module at one of the paths.
    """
    modules = _modules(model, paths.values())
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            first = output if isinstance(output, Tensor) else output[0]
            outputs[name] = first
            if stop and len(outputs) == len(paths):
                raise _Enough

        return hook

    with ExitStack() as stack:
        for name, path in paths.items():
            stack.enter_context(modules[path].register_forward_hook(keep(name)))
        with suppress(_Enough):
            yield outputs


@contextmanager
def observed(model: nn.Module, functions: Mapping[str, Callable[[Tensor], None]]) -> Iterator[None]:
    """Show what some modules are given to functions while the block runs; nothing is kept of it.

    All paths are resolved before the model is touched, and every hook is removed on the way out,
    also after an exception.

    Args:
        model: The model to watch.
        functions: Dotted path of a module -> what is told its first argument, each time it runs.

    Raises:
        LayoutError: If the model has no module at one of the paths.
    """
    modules = _modules(model, functions)

    def tell(function: Callable[[Tensor], None]) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            function(args[0])

        return hook

    with ExitStack() as stack:
        for path, function in functions.items():
            stack.enter_context(modules[path].register_forward_pre_hook(tell(function)))
        yield


@contextmanager
def replaced(model: nn.Module, outputs: Mapping[str, Tensor]) -> Iterator[None]:
    """Have some modules return given tensors, whatever they are given, while the block runs.

    Of a module that returns a tuple the first element is exchanged, as `captured` reads it.

    All paths are resolved before the model is touched, and every hook is removed on the way out,
    also after an exception.

    Args:
        model: The model to change.
        outputs: Dotted path of a module -> what it returns instead.

    Raises:
        LayoutError: If the model has no module at one of the paths.
    """
    modules = _modules(model, outputs)

    def give(output: Tensor) -> Any:
        return lambda module, inputs, own: output if isinstance(own, Tensor) else (output, *own[1:])

    with ExitStack() as stack:
        for path, output in outputs.items():
            stack.enter_context(modules[path].register_forward_hook(give(output)))
        yield


@contextmanager
def edited(
    model: Any,
    layout: Layout,
    edits: Mapping[str, Sequence[Edit]],
    *,
    reply_mark: Sequence[int] = (),
) -> Iterator[None]:
    """Change what some language layers are given while the block runs.

    All paths are resolved before the model is touched, and every hook is removed on the way out,
    also after an exception; outputs are then those of before, bit for bit. Blocks may be nested:
    the edits of the outer one come first. An edit that returns its argument changes nothing.

    Args:
        model: The top model, as `generate` calls it.
        layout: Of its family.
        edits: Path of a language layer -> what to do with its input (batch, seq, width), one after
            the other.
        reply_mark: Tokens behind which a reply begins, so that edits see where turns end; none for
            prompts of one turn.

    Raises:
        LayoutError: If a path is not one of the language layers; inside the block, if the model is
            run without token ids, or its language layers without the model.
    """
    modules = dict(model.named_modules())
    known = layout.language_layer_paths(model)
    wrong = [repr(path) for path in edits if path not in known]
    if wrong:
        raise LayoutError(
            f"{type(model).__name__} has no language layer at {', '.join(wrong)}; "
            f"expected {known[0]} to {known[-1]}"
        )
    passes = _Passes(model, layout, reply_mark)

    def change(chosen: Sequence[Edit]) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            if BYPASSED.get():
                return None
            hidden = given = args[0] if args else kwargs["hidden_states"]
            for edit in chosen:
                hidden = edit(hidden, passes.now)
            if hidden is given:
                return None
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        return hook

    with ExitStack() as stack:
        stack.enter_context(model.register_forward_pre_hook(passes.begin, with_kwargs=True))
        stack.enter_context(model.register_forward_hook(passes.end, always_call=True))
        for path, chosen in edits.items():
            hook = modules[path].register_forward_pre_hook(change(chosen), with_kwargs=True)
            stack.enter_context(hook)
        _OPEN[model] = _OPEN.get(model, 0) + 1
        try:
            yield
        finally:
            _OPEN[model] -= 1


def is_edited(model: nn.Module) -> bool:
    """Whether a block of `edited` is open on a model."""
    return _OPEN.get(model, 0) > 0


_OPEN: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


class _Passes:
    """The pass under way, from what the top model is called with."""

    def __init__(self, model: Any, layout: Layout, reply_mark: Sequence[int]) -> None:
        self._mark = tuple(reply_mark)
        self._signature = inspect.signature(model.forward)
        self._image_token = getattr(model.config, layout.image_token_id)
        self._now: Pass | None = None
        # A prompt that goes on may ask about a photo that is in the cache only.
        self._seen: WeakKeyDictionary[Any, Tensor] = WeakKeyDictionary()

    @property
    def now(self) -> Pass:
        if self._now is None:
            raise LayoutError(
                "expected the whole model to run, got its language layers alone, whose prompts are "
                "unknown; call the model that was given to the block"
            )
        return self._now

    def begin(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        given = self._signature.bind_partial(*args, **kwargs).arguments
        given |= given.get("kwargs", {})
        ids = given.get("input_ids")
        if ids is None:
            raise LayoutError(
                f"{type(model).__name__}: expected input_ids, got embeddings, which do not tell "
                "where the photo is; call the model with token ids"
            )
        cache = given.get("past_key_values")
        past = int(cache.get_seq_length()) if cache is not None else 0
        prefill = past == 0 or ids.shape[1] > 1
        tokens = _tokens(given.get("attention_mask"), ids, past)
        image_tokens = (ids == self._image_token) & tokens
        has_image = image_tokens.any(1)
        if past and cache in self._seen:
            seen = self._seen[cache].to(ids.device)
            # Rows of a cache may have been dropped or repeated since.
            has_image = has_image | (seen if len(seen) == len(ids) else seen.any())
        prompt = PROMPT.get()
        if prompt is None:
            prompt = tokens if prefill else torch.zeros_like(tokens)
        elif prompt.shape != ids.shape:
            raise ValueError(
                f"scoring: expected prompts of shape {tuple(ids.shape)}, got {tuple(prompt.shape)}"
            )
        forms = FORMS.get()
        if forms:
            times, rest = divmod(len(ids), len(forms))
            if rest:
                raise ValueError(f"asking: expected {len(forms)} rows, got {len(ids)}")
            forms = tuple(form for form in forms for _ in range(times))
        prompt = prompt & tokens
        ends = _turn_ends(ids, prompt, self._mark) if prefill else torch.zeros_like(prompt)
        self._now = Pass(tokens, image_tokens, prompt, prefill, has_image, ends, forms)

    def end(self, model: nn.Module, args: Any, output: Any) -> None:
        now, self._now = self._now, None
        cache = getattr(output, "past_key_values", None)
        if now is not None and cache is not None:
            self._seen[cache] = now.has_image


def _turn_ends(ids: Tensor, prompt: Tensor, mark: tuple[int, ...]) -> Tensor:
    """True where the mark ends within a prompt; without one, on the prompt's last token."""
    ends = torch.zeros_like(prompt)
    if mark and ids.shape[1] >= len(mark):
        found = (ids.unfold(1, len(mark), 1) == ids.new_tensor(mark)).all(-1)
        ends[:, len(mark) - 1 :] = found
    ends = ends & prompt
    last = torch.zeros_like(prompt).scatter(1, last_of(prompt)[:, None], True)
    return torch.where(ends.any(1, keepdim=True), ends, last)


def _tokens(mask: Any, ids: Tensor, past: int) -> Tensor:
    """Which of the ids are tokens, from any mask that a model may be given."""
    if isinstance(mask, Mapping):
        mask = mask.get("full_attention", next(iter(mask.values())))
    if mask is None:
        return torch.ones_like(ids, dtype=torch.bool)
    if mask.ndim == 4:
        # What the last token may look at: all before it but padding.
        mask = mask[:, 0, -1, past : past + ids.shape[1]]
        return mask if mask.dtype == torch.bool else mask == 0
    return mask[:, -ids.shape[1] :].bool()
