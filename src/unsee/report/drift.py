"""How far the answers that should stay moved, as both views show it."""

from unsee.report import wording
from unsee.report.schema import Divergence, Report

HEAD = ("set", "after", "never knew", "answers")
ABOUT = (
    "Each right answer is fed to the model word by word; at every word, how far what it expects "
    "next lies from what the model before expected: KL divergence in nats a token, 0 for the same. "
    "It shows a change long before an answer becomes another. A model that never knew was trained "
    "anew, and lies away from it for that reason alone; one with tokens of its own is not compared."
)


def rows(report: Report) -> list[tuple[str, ...]]:
    """A row a set to keep; empty where nothing was compared with the model before."""
    erased, never = (report.model(model).kl_to_base for model in ("erased", "gold"))
    found = []
    for name in (*wording.SETS, *sorted({*erased, *never} - set(wording.SETS))):
        cells = [erased.get(name), never.get(name)]
        counts = dict.fromkeys(f"{cell.n:,}" for cell in cells if cell is not None)
        if counts:
            found.append((wording.set_title(name), *map(_written, cells), " / ".join(counts)))
    return found


def _written(cell: Divergence | None) -> str:
    if cell is None:
        return wording.NOT_SCORED
    return f"{cell.value:.3g} ({cell.ci[0]:.3g} to {cell.ci[1]:.3g})"
