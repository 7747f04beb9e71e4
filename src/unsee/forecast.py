"""What a run will take, before any weight is read.

A model of random weights does the same work as a trained one. A slice of the model, its first few
language layers and vision blocks, is made from the configuration alone, and the loop takes a few
real steps on it with the request's own photos, in a process of its own. Two more slices, one with
more layers and one with more blocks, tell what each layer and block adds: in multiplications, which
are counted, and in peak memory, which is measured. Time is that of the slice times the ratio of
multiplications. A small model is its own slice, and nothing is extrapolated.

Not foreseen: reading the weights, asking the base before, and what a cache of the teacher saves in
later steps.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from time import monotonic
from typing import Any

from torch import OutOfMemoryError
from torch.utils.flop_counter import FlopCounterMode

from unsee.cost import peak_memory
from unsee.data.records import Split
from unsee.errors import ConfigError, UnseeError
from unsee.models.load import VLM, outline
from unsee.models.restore import restored
from unsee.train import may_change, train

_FIRST = 4
_MORE = 2
# One warms up; the others are whole cycles of terms that run every second or third step.
_STEPS = 7

Progress = Callable[[str, int, int], None]
Depth = tuple[int, int]


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
        steps: Optimizer steps.
        parameters: Of the model.
        trained_parameters: Numbers that the optimizer moves.
        wall_s: Preparation and steps, in seconds.
        prepare_s: Preparation alone.
        peak_rss_mb: Largest memory of the process, in MB (10^6 bytes).
        peak_gpu_mb: Largest memory on the GPU; None without one.
        depth: Language layers and vision blocks of the slice that was timed.
        whole: The same of the model.
    """

    steps: int
    parameters: int
    trained_parameters: int
    wall_s: float
    prepare_s: float
    peak_rss_mb: float
    peak_gpu_mb: float | None
    depth: Depth
    whole: Depth


@dataclass(frozen=True)
class Sample:
    """What a slice took: seconds and multiplications, of preparation and of a step, and memory."""

    prepare_s: float
    step_s: float
    prepare_flops: float
    step_flops: float
    trained_parameters: int
    memory: Mapping[str, float | None]


def forecast(
    place: str, split: Split, method: Any, *, seed: int = 0, progress: Progress | None = None
) -> Forecast:
    """Time and memory of `unsee.forget` with these arguments.

    Args:
        place: Folder or hub name of the model; its configuration and processor are read.
        split: What the method is to be given.
        method: Settings of a method that trains.
        seed: As for the run.
        progress: Told stage, slices done and slices in all.

    Raises:
        ConfigError: If folder or name lead to no model, or a setting does not fit it.
        UnseeError: If memory does not suffice for a slice.
    """
    skeleton = outline(place, device="meta")
    whole = depth_of(skeleton)

    def reach(layers: int, blocks: int) -> Depth:
        # No deeper than the model; and some families keep all blocks.
        return depth_of(outline(place, depth=(layers, blocks), device="meta"))

    def take(depth: Depth) -> Sample:
        return _in_a_process(place, split, method, seed, depth)

    first = reach(_FIRST, _FIRST)

    while True:
        try:
            start = take(first)
        except ConfigError:
            # A setting may name a layer or a block that the slice does not have.
            if first == whole:
                raise
            first = reach(2 * first[0], 2 * first[1])
            continue
        break
    slopes = []
    layers, blocks = first
    for part, deeper in enumerate((reach(layers + _MORE, blocks), reach(layers, blocks + _MORE))):
        if deeper != first:
            times = (whole[part] - first[part]) / (deeper[part] - first[part])
            slopes.append((take(deeper), times))
        if progress is not None:
            progress("forecast", part + 1, 2)
    return combined(start, slopes, steps=method.steps_for(split), skeleton=skeleton, first=first)


def combined(
    start: Sample,
    slopes: list[tuple[Sample, float]],
    *,
    steps: int,
    skeleton: VLM,
    first: Depth,
) -> Forecast:
    """The whole from a slice and what deeper ones take more.

    Args:
        start: The slice that was timed.
        slopes: A deeper slice, and how many times its surplus the whole has.
        steps: Of the run.
        skeleton: The whole model, without weights.
        first: Depth of the slice.
    """

    def whole(value: Callable[[Sample], float]) -> float:
        base = value(start)
        return base + sum(times * (value(deeper) - base) for deeper, times in slopes)

    def scaled(seconds: float, flops: Callable[[Sample], float]) -> float:
        return seconds * whole(flops) / flops(start) if flops(start) else seconds

    def memory(name: str) -> float:
        return whole(lambda sample: sample.memory[name] or 0.0)

    prepare = scaled(start.prepare_s, lambda sample: sample.prepare_flops)
    step = scaled(start.step_s, lambda sample: sample.step_flops)
    gpu = start.memory["peak_gpu_mb"]
    return Forecast(
        steps=steps,
        parameters=sum(p.numel() for p in skeleton.model.parameters()),
        trained_parameters=round(whole(lambda sample: sample.trained_parameters)),
        wall_s=prepare + steps * step,
        prepare_s=prepare,
        peak_rss_mb=memory("peak_rss_mb"),
        peak_gpu_mb=None if gpu is None else memory("peak_gpu_mb"),
        depth=first,
        whole=depth_of(skeleton),
    )


def depth_of(vlm: VLM) -> Depth:
    """Numbers of language layers and vision blocks."""
    model, layout = vlm.model, vlm.layout
    return len(layout.language_layer_paths(model)), len(layout.vision_block_paths(model))


def sample(place: str, split: Split, method: Any, seed: int, depth: Depth) -> Sample:
    """Steps on a slice of random weights, in this process."""
    vlm = outline(place, depth=depth, seed=seed)

    def run(steps: int, done: Callable[[], None] = lambda: None) -> int:
        few = method.model_copy(update={"steps": steps})
        with restored(vlm.model, may_change(vlm, few)):
            result = train(vlm, split, few, seed=seed, progress=lambda *_: done())
        return result.trained_parameters

    counted = []
    for steps in (1, 2):
        with FlopCounterMode(display=False) as counter:
            trained = run(steps)
        counted.append(counter.get_total_flops())
    began = monotonic()
    ended: list[float] = []
    run(_STEPS, lambda: ended.append(monotonic()))
    step = (ended[-1] - ended[0]) / (len(ended) - 1)
    flops = counted[1] - counted[0]
    return Sample(
        prepare_s=max(0.0, ended[0] - began - step),
        step_s=step,
        prepare_flops=max(0, counted[0] - flops),
        step_flops=flops,
        trained_parameters=trained,
        memory=peak_memory(),
    )


def _in_a_process(place: str, split: Split, method: Any, seed: int, depth: Depth) -> Sample:
    """Peak memory is a process's own; a fresh one has none behind it."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(sample, place, split, method, seed, depth).result()
        except (BrokenProcessPool, OutOfMemoryError) as error:
            raise UnseeError(
                f"{place}: {depth[0]} of its layers and {depth[1]} of its blocks could not be run, "
                "most likely for want of memory; free some, or give smaller batches, such as "
                "--set method.forget_batch=4"
            ) from error
