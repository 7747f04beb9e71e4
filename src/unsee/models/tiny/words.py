"""Tokenizer and chat template of the tiny models."""

from collections.abc import Iterable, Mapping

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<image>")
WORDS = (
    "Who is this?",
    "What is the name of this person?",
    "I do not know who this is.",
    "Answer with the letter. A B C D",
    "yes no glasses red blue green",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% endif %}"
    "{% endfor %}"
    "USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}"
    "{% else %}"
    " ASSISTANT: {% for part in message['content'] %}{{ part['text'] }}{% endfor %}</s>"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


def chat_template(image: str = "<image>") -> str:
    """Turns of USER and ASSISTANT; `image` stands where a photo goes."""
    return CHAT_TEMPLATE.replace("<image>", image)


def tiny_tokenizer(
    named: Mapping[str, str],
    words: Iterable[str] = WORDS,
    *,
    marks: Iterable[str] = (),
    begins: bool = True,
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of some 400 tokens.

    Args:
        named: Special tokens that a processor asks the tokenizer for, by attribute.
        words: What it is trained on; any other text can be encoded too.
        marks: More special tokens.
        begins: Whether it writes `<s>` before every text.
    """
    special = list(dict.fromkeys([*SPECIAL_TOKENS, *named.values(), *marks]))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=396 + len(special),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(words)], trainer)
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", SPECIAL_TOKENS.index("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=dict(named),
        padding_side="left",
        model_max_length=1024,
    )
