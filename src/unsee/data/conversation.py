"""Records as conversations in a model's own words; here answers are told apart from prompts."""

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from unsee.data.images import Photo
from unsee.data.records import LETTERS, Record
from unsee.errors import LayoutError

CHOICE_INSTRUCTION = "Answer with the letter."


def question_text(record: Record) -> str:
    """The question as the model reads it: a choice carries its lettered options."""
    if record.form != "choice":
        return record.question
    options = [f"{letter}. {text}" for letter, text in zip(LETTERS, record.options, strict=False)]
    return "\n".join([record.question, *options, CHOICE_INSTRUCTION])


def asked_length(record: Record) -> int:
    """Letters of all that is said before the answer; no template, no photo."""
    told = sum(len(turn.question) + len(turn.answer) for turn in record.before)
    return told + len(question_text(record)) + len(record.opening)


def prompt(processor: Any, record: Record) -> str:
    """The conversation in the model's own chat template, up to where the answer goes on."""
    asked = _written(processor, _turns(record), unanswered=True)
    if not record.opening:
        return asked
    eos = processor.tokenizer.eos_token
    return asked + _said(processor, record, record.opening, asked).removesuffix(eos)


def answer_text(processor: Any, record: Record, prompt_text: str) -> str:
    """What the model should write after `prompt_text`, end-of-sequence token included.

    Args:
        processor: The model's processor.
        record: Record whose answer is rendered.
        prompt_text: `prompt(processor, record)`.

    Raises:
        LayoutError: If the template does not continue its own generation prompt.
    """
    reply = f"{record.opening} {record.answer}" if record.opening else record.answer
    return _said(processor, record, reply, prompt_text)


def _written(processor: Any, turns: Sequence[Any], *, unanswered: bool = False) -> str:
    """A conversation in the model's own chat template."""
    try:
        return processor.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=unanswered
        )
    except (TemplateError, ValueError) as error:
        raise LayoutError(
            f"chat template: expected one that writes down a conversation, got {error}; give the "
            "model's folder another chat_template.jinja"
        ) from error


def _said(processor: Any, record: Record, reply: str, prompt_text: str) -> str:
    whole = _written(processor, [*_turns(record), _assistant(reply)])
    if not whole.startswith(prompt_text):
        raise LayoutError(
            "chat template: expected a conversation to begin with its generation prompt, "
            "got another text; give the model a template whose answer follows the prompt"
        )
    rest = whole[len(prompt_text) :]
    eos = processor.tokenizer.eos_token
    return rest.split(eos, 1)[0].rstrip() + eos


def _turns(record: Record) -> list[dict[str, Any]]:
    """The conversation as chat templates take it."""
    turns = []
    for turn in record.before:
        turns += [_user(turn.question, turn.image), _assistant(turn.answer)]
    return [*turns, _user(question_text(record), record.image)]


def _user(text: str, image: Photo | None) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    if image is not None:
        content = [{"type": "image"}, *content]
    return {"role": "user", "content": content}


def _assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}
