"""Tune: seeded trials of a method's settings, judged on two things at once.

What is left of those to be forgotten (`forget_gap`, lower is better) and what is left of everything
else (`keep`, higher is better). Trials are drawn by the tree-structured Parzen estimator (Bergstra
et al. 2011), as `optuna` has it for several objectives, from the space that a method declares. The
first trial is the method's own defaults.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from unsee.artifacts import atomic_write_json, locked
from unsee.errors import ArtifactError, ConfigError, UnseeError
from unsee.forget import method_name, split_digest
from unsee.method import Progress
from unsee.models.load import VLM
from unsee.replies import ANSWERS
from unsee.requests import Request
from unsee.settings import Settings, Space, Span, resolve
from unsee.trials import Yardstick

TUNING = "tuning.json"
QUESTIONS = 160
# Drawn at random before the estimator has something to go by.
AT_RANDOM = 8


@dataclass(frozen=True)
class Trial:
    """One choice of settings.

    Attributes:
        number: From 0.
        settings: What was drawn.
        summary: As in report.json; empty for a trial without figures.
        without: Why there are none: what collapsed, or the error; else "".
        seconds: Of training, surgery or fitting.
    """

    number: int
    settings: Mapping[str, Any]
    summary: Mapping[str, Any] = field(default_factory=dict)
    without: str = ""
    seconds: float = 0.0

    @property
    def objectives(self) -> tuple[float, float] | None:
        """Forget gap and keep."""
        found = self.summary.get("forget_gap"), self.summary.get("keep")
        return found if all(isinstance(value, float) for value in found) else None  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    Attributes:
        job: What was tuned, on whom.
        trials: All of them, in their order.
    """

    job: Mapping[str, Any]
    trials: Sequence[Trial]

    @property
    def front(self) -> list[Trial]:
        """Trials that no other beats in one objective without losing in the other."""
        scored = [(t, *t.objectives) for t in self.trials if t.objectives is not None]
        return [
            trial
            for trial, gap, keep in scored
            if not any(g <= gap and k >= keep and (g, k) != (gap, keep) for _, g, k in scored)
        ]

    @property
    def knee(self) -> Trial:
        """The trial with the highest `summary.score`, the earliest of equals; it is on the front.

        The score, the harmonic mean of keep and 1 - gap, rises in both objectives.

        Raises:
            ConfigError: If no trial has figures.
        """
        scored = [trial for trial in self.trials if trial.objectives is not None]
        if not scored:
            raise ConfigError(
                f"{self.job['method']}: none of {len(self.trials)} trials has figures; the last: "
                f"{self.trials[-1].without if self.trials else 'not begun'}"
            )
        return max(scored, key=lambda trial: trial.summary["score"])

    @property
    def settings(self) -> dict[str, Any]:
        """Fixed and found settings of the knee."""
        return {**self.job["fixed"], **self.knee.settings}


def tune(
    vlm: VLM,
    request: Request,
    *,
    method: type[Settings],
    fixed: Mapping[str, Any] | None = None,
    trials: int = 20,
    seed: int = 0,
    gold: VLM | None = None,
    out: Path,
    questions: int = QUESTIONS,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Try settings of a method on a request that serves choices alone.

    The model comes back as it was, bit for bit. Every trial is written down when it ends; the same
    call again goes on from there, and more trials may be asked for.

    Args:
        vlm: The base.
        request: Whom to forget in a trial, what to keep, and what is asked then. Nothing of it may
            be reported on afterwards.
        method: Class of a registered method or eraser.
        fixed: Settings that are not searched.
        trials: In all.
        seed: Seeds the trials; every one trains with it too.
        gold: A model that never knew.
        out: Folder of the trials.
        questions: Most open questions a set in a trial.
        minutes: No trial is begun after which, as the longest so far went, no time would be left
            for a run with what was found; the first one always is. None for no limit.
        progress: Told stage, steps done and steps in all.

    Raises:
        ArtifactError: If the folder holds trials of another method, model, request or seed.
        ConfigError: If there is nothing to search, `optuna` is not installed, or a fixed setting
            does not fit.
    """
    _optuna()
    fixed = dict(fixed or {})
    name = method_name(resolve(method, fixed, where=method.__name__))
    space: Space = {
        key: span for key, span in getattr(method, "space", {}).items() if key not in fixed
    }
    if not space:
        raise ConfigError(
            f"{name}: nothing to search; fix fewer settings, or choose another method"
        )
    job = {
        "method": name,
        "fixed": resolve(method, fixed).model_dump(mode="json", include=set(fixed)),
        "space": {key: _told(span) for key, span in space.items()},
        "base_fingerprint": vlm.fingerprint,
        "split": split_digest(request.split),
        "seed": seed,
        "questions": questions,
    }
    began, longest = time.monotonic(), 0.0
    with locked(out):
        done = _done(out, job)
        yardstick = Yardstick(
            vlm, request, gold=gold, path=out / ANSWERS, questions=questions, progress=progress
        )
        for number in range(len(done), trials):
            if progress is not None:
                progress("trials", number, trials)
            drawn = _drawn(space, done, seed) if done else _defaults(method, space)
            started = time.monotonic()
            if minutes is not None and done and started - began + 2 * longest > 60 * minutes:
                break
            settings = resolve(method, {**fixed, **drawn}, where=name)
            done.append(_tried(yardstick, settings, Trial(number, drawn), seed))
            longest = max(longest, time.monotonic() - started)
            atomic_write_json(out / TUNING, {"job": job, "trials": [asdict(t) for t in done]})
        if progress is not None:
            progress("trials", len(done), len(done))
    return Tuned(job, tuple(done[:trials]))


def _tried(yardstick: Yardstick, method: Settings, trial: Trial, seed: int) -> Trial:
    """A trial with its figures; an error of one is a finding, and others go on."""
    try:
        found = yardstick.tried(method, seed=seed)
    except UnseeError as error:
        return replace(trial, without=str(error))
    return replace(trial, summary=found.summary, without=found.collapsed, seconds=found.seconds)


def _defaults(method: type[Settings], space: Space) -> dict[str, Any]:
    """A method's own settings; for one outside the space, such as steps left open, a middle one."""
    chosen = {}
    for name, span in space.items():
        own = method.model_fields[name].default
        if isinstance(span, tuple):
            chosen[name] = own if own in span else span[(len(span) - 1) // 2]
        else:
            chosen[name] = min(span.high, max(span.low, own))
    return chosen


def _drawn(space: Space, done: Sequence[Trial], seed: int) -> dict[str, Any]:
    """Settings of the next trial; they follow from the seed and the trials before it alone."""
    optuna = _optuna()
    kinds = optuna.distributions
    looked = {
        name: kinds.CategoricalDistribution(span)
        if isinstance(span, tuple)
        else kinds.FloatDistribution(span.low, span.high, log=span.log)
        for name, span in space.items()
    }
    # A sampler of its own for each trial: one that draws on would begin anew after a kill.
    sampler = optuna.samplers.TPESampler(n_startup_trials=AT_RANDOM, seed=1000 * seed + len(done))
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
    for trial in done:
        known = {
            "params": dict(trial.settings),
            "distributions": looked,
        }
        if trial.objectives is None:
            found = optuna.create_trial(state=optuna.trial.TrialState.PRUNED, **known)
        else:
            found = optuna.create_trial(values=list(trial.objectives), **known)
        study.add_trial(found)
    drawn = study.ask(looked).params
    return {
        name: value if isinstance(space[name], tuple) else _rounded(value, space[name])
        for name, value in drawn.items()
    }


def _rounded(value: float, span: Any) -> float:
    """Three digits, which a recipe can show; never outside the span."""
    return min(span.high, max(span.low, float(f"{value:.3g}")))


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ConfigError(
            "tuning needs optuna, which is not installed; pip install 'unsee[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _told(span: Span | tuple[Any, ...]) -> Any:
    return list(span) if isinstance(span, tuple) else asdict(span)


def read_tuned(folder: Path) -> Tuned:
    """What was tuned in a folder, as far as it came.

    Raises:
        ArtifactError: If there is nothing, or it is damaged.
    """
    path = folder / TUNING
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return Tuned(table["job"], tuple(Trial(**row) for row in table["trials"]))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file; run `unsee tune` first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: damaged ({error}); remove it and start again") from error


def _done(folder: Path, job: Mapping[str, Any]) -> list[Trial]:
    """Trials so far."""
    if not (folder / TUNING).exists():
        return []
    begun = read_tuned(folder)
    if begun.job != json.loads(json.dumps(job)):
        other = ", ".join(key for key in job if begun.job.get(key) != job[key])
        raise ArtifactError(f"{folder / TUNING}: trials of another {other}; give another --out")
    return list(begun.trials)
