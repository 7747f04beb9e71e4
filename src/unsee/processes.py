"""Tasks side by side, a process each."""

import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from unsee.errors import UnseeError

Tell = Callable[..., None]


def side_by_side(tasks: Mapping[str, Callable[[Tell], None]], told: Tell) -> None:
    """Run tasks at once, each in a fresh process that does not outlive this one.

    Whatever ends one of them early, an interrupt too, ends all.

    Args:
        tasks: Name -> what to run. It is called with a function that hands its arguments to `told`,
            here. A task whose starter was killed ends when it next calls it.
        told: Called in this process.

    Raises:
        UnseeError: If a process was ended from outside.
        Exception: What a task raised.
    """
    spawn = get_context("spawn")
    with ExitStack() as stack:
        running: dict[Any, BaseProcess] = {}
        for name, task in tasks.items():
            pipe, theirs = spawn.Pipe(duplex=False)
            stack.callback(pipe.close)
            process = spawn.Process(target=_run, args=(task, theirs), name=name, daemon=True)
            with _no_interrupts():
                process.start()
                stack.callback(_end, process)
            theirs.close()
            running[pipe] = process
        while running:
            ready = wait(list(running))
            for pipe in [pipe for pipe in running if pipe in ready]:
                try:
                    message = pipe.recv()
                except EOFError:
                    _check(running.pop(pipe))
                    continue
                if isinstance(message, BaseException):
                    raise message
                told(*message)


def _run(task: Callable[[Tell], None], pipe: Connection) -> None:
    """What a process does."""
    try:
        task(lambda *message: pipe.send(message))
    except BrokenPipeError:
        # Nobody listens any more.
        return
    except Exception as error:  # noqa: BLE001 - raised again where the task was started
        error.add_note(traceback.format_exc())
        pipe.send(error)


def _check(process: BaseProcess) -> None:
    process.join()
    if process.exitcode:
        how = process.exitcode
        cause = f"by signal {-how}" if how < 0 else f"with status {how}"
        raise UnseeError(
            f"{process.name}: its process ended {cause}, before its work was done; free some "
            "memory if that ran out, and run the same command again: what is done is kept"
        )


def _end(process: BaseProcess) -> None:
    process.terminate()
    process.join()


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Processes started here get no Ctrl+C: the one that started them does, and ends them."""
    # The first process would start it, which lets interrupts through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
