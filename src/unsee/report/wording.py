"""Plain English for the names and numbers of a report; every view takes its words from here."""

from collections.abc import Sequence
from dataclasses import dataclass

from unsee.metrics.summary import forget_sets
from unsee.report.reliability import most_reliable_first
from unsee.report.schema import AttackScore, Cell, ModelName, NotScored, Report, Score

NOT_SCORED = "not scored"
_MAX_NAMES = 4
_MAX_NAME = 48


@dataclass(frozen=True)
class SetWords:
    """How a set is presented.

    Attributes:
        title: A few words a reader outside the field understands.
        asks: What the set asks.
        should_be: What its answers should be after forgetting.
    """

    title: str
    asks: str
    should_be: str


_AS_GOLD = "Like the model that never knew"
_AS_BASE = "Unchanged"
SETS = {
    "forget_seen": SetWords(
        "Their photos that the method was given",
        "The photos and questions handed over to be forgotten.",
        _AS_GOLD,
    ),
    "forget_unseen": SetWords(
        "Other photos of them",
        "Photos and wordings of the same people that the method never saw.",
        _AS_GOLD,
    ),
    "forget_text": SetWords(
        "Asked by name, without a photo",
        "Text-only questions that name the person.",
        "",
    ),
    "forget_visible": SetWords(
        "What any stranger sees in their photos",
        "Glasses, colours and the like: nothing that needs to know who it is.",
        _AS_BASE,
    ),
    "retain_seen": SetWords(
        "Other people to keep, photos given",
        "People the method was told to keep, on the photos it was given.",
        _AS_BASE,
    ),
    "retain_unseen": SetWords(
        "Other people to keep, other photos",
        "The same people on photos and in wordings that the method never saw.",
        _AS_BASE,
    ),
    "retain_text": SetWords(
        "Other people to keep, asked by name",
        "Text-only questions that name people to keep.",
        _AS_BASE,
    ),
    "celebrity": SetWords(
        "Known people the method was never given",
        "People the model knows; nobody told the method about them.",
        _AS_BASE,
    ),
    "bystander": SetWords(
        "Candidates of the other draws",
        "People of the built-in world who were neither named nor given.",
        _AS_BASE,
    ),
    "general": SetWords(
        "Strangers and general questions",
        "Photos of unknown people and everyday visual questions.",
        _AS_BASE,
    ),
    "refusal": SetWords(
        "Requests the model refuses",
        "Requests that were refused before and should still be.",
        _AS_BASE,
    ),
}
FORGET_SETS = forget_sets("both")

METRICS = {
    "accuracy": "Open questions answered right",
    "choice_accuracy": "Multiple choice right",
    "cloze_accuracy": "Fill-in-the-blank right",
    "rouge_l": "Word overlap with the truth (ROUGE-L)",
    "rouge_1": "Word overlap with the truth (ROUGE-1)",
    "rouge_2": "Word overlap with the truth (ROUGE-2)",
    "bleu": "Word overlap with the truth (BLEU)",
    "answer_probability": "Probability of the true answer",
    "truth_ratio": "Truth ratio",
    "exact_memorisation": "Tokens of the true answer it would say itself",
    "extraction_strength": "End of the true answer it completes without a mistake",
    "unknown_rate": "Says it does not know",
    "wrong_name_rate": "Gives another known person's name or fact",
    "degenerate_rate": "Says nothing, or the same again and again",
    **{
        f"{score}_{distance}{which}": f"{score_title}: {title} from {whom}"
        for score, score_title in (
            ("truth_ratio", "Truth ratio"),
            ("answer_probability", "Probability"),
        )
        for distance, title in (
            ("ks", "Kolmogorov-Smirnov distance"),
            ("js", "Jensen-Shannon distance"),
        )
        for which, whom in (("", "a model that never knew"), ("_retain", "its own on kept people"))
    },
}

MODELS: dict[ModelName, str] = {"base": "Before", "erased": "After", "gold": "Never knew"}


def set_title(name: str) -> str:
    """Return the plain title of a set; a set this version does not know keeps its name."""
    return SETS[name].title if name in SETS else name


def set_asks(name: str) -> str:
    """Return what a set asks, "" for a set this version does not know."""
    return SETS[name].asks if name in SETS else ""


def should_be(name: str, *, scope: str) -> str:
    """Return what a set's answers should be after forgetting in this scope."""
    if name == "forget_text":
        return _AS_BASE if scope == "visual" else _AS_GOLD
    return SETS[name].should_be if name in SETS else ""


def metric_title(name: str) -> str:
    """Return the plain title of a metric; an unknown one keeps its name."""
    return METRICS.get(name, name)


def set_order(report: Report) -> list[str]:
    """Return the sets any model of the report has scores for, in the fixed order."""
    present = {name for scores in report.models.values() for name in scores.scores}
    known = [name for name in SETS if name in present]
    return known + sorted(present - set(known))


def metric_order(report: Report, set_name: str) -> list[str]:
    """Return the metrics any model has for a set.

    The most reliable come first (`unsee.report.reliability`), then those of which that is not
    known, in a fixed order, and then those that this version does not know.
    """
    present = {
        metric for scores in report.models.values() for metric in scores.scores.get(set_name, {})
    }
    known = most_reliable_first([name for name in METRICS if name in present])
    return known + sorted(present - set(known))


def percent(share: float) -> str:
    """Write a share as a percentage with one decimal.

    A value that is not exactly 0 or 1 never reads as 0 % or 100 %.
    """
    points = 100 * share
    if share in (0.0, 1.0):
        return f"{points:.0f} %"
    if points < 0.05:
        return "< 0.1 %"
    if points >= 99.95:
        return "> 99.9 %"
    return f"{points:.1f} %"


def interval(score: Score | AttackScore) -> str:
    """Write a 95 % interval in percent without its unit, e.g. `1.2 to 4.0`."""
    low, high = (percent(edge).removesuffix(" %") for edge in score.ci)
    return f"{low} to {high}"


def value_or_reason(cell: Cell) -> str:
    """Write one value, or say that there is none."""
    return NOT_SCORED if isinstance(cell, NotScored) else percent(cell.value)


def chance(cells: Sequence[Cell]) -> str:
    """Write the chance level the cells share; "-" where it has no meaning."""
    levels = [cell.chance for cell in cells if isinstance(cell, Score) and cell.chance is not None]
    return percent(max(levels)) if levels else "-"


def counts(cells: Sequence[Cell]) -> str:
    """Write the number of questions; each model's own, in order, where they differ."""
    numbers = list(dict.fromkeys(f"{cell.n:,}" for cell in cells if isinstance(cell, Score)))
    return " / ".join(numbers) or "-"


def figure(value: float | NotScored) -> str:
    """Write one figure of the summary with two decimals, or say that there is none."""
    return NOT_SCORED if isinstance(value, NotScored) else f"{value:.2f}"


def shown_names(subjects: Sequence[str]) -> tuple[list[str], int]:
    """Return the names a heading shows, long ones cut, and how many more there are."""
    cut = [
        name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"
        for name in subjects[:_MAX_NAMES]
    ]
    return cut, len(subjects) - len(cut)


def people(subjects: Sequence[str]) -> str:
    """Write a list of names in one line; a long one ends in how many more there are."""
    names, more = shown_names(subjects)
    if not names:
        return "nobody"
    if more:
        return f"{', '.join(names)} and {more} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def duration(seconds: float) -> str:
    """Write a duration, e.g. `1 h 04 min`, `3 min 20 s`, `7.5 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size(bytes_: float) -> str:
    """Write a size with a decimal unit, e.g. `3.1 MB`."""
    for unit in ("B", "kB", "MB"):
        if bytes_ < 1000:
            return f"{bytes_:.0f} {unit}" if unit == "B" else f"{bytes_:.1f} {unit}"
        bytes_ /= 1000
    return f"{bytes_:.1f} GB"


def cost_lines(report: Report) -> list[tuple[str, str]]:
    """Return what the run took as (label, value); what was not recorded says so."""
    cost = report.cost
    missing = "not recorded"
    million = 1e6
    return [
        ("Wall-clock time", missing if cost.wall_s is None else duration(cost.wall_s)),
        ("Peak memory", missing if cost.peak_rss_mb is None else size(cost.peak_rss_mb * million)),
        (
            "Peak GPU memory",
            missing if cost.peak_gpu_mb is None else size(cost.peak_gpu_mb * million),
        ),
        (
            "Parameters trained",
            missing if cost.trained_parameters is None else f"{cost.trained_parameters:,}",
        ),
        (
            "Size of the artifact",
            missing if cost.artifact_bytes is None else size(cost.artifact_bytes),
        ),
    ]
