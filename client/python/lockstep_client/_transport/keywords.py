"""The words of a caller in place of the fields of requests: `temperature`, not their paths.

A field has one keyword, whichever request it is part of. `tests/unit/client/test_keywords.py`
walks through the fields of all requests and looks for the keyword of each. The TypeScript client
has these tables too, by `client/generate/words.py`.
"""

import re
from typing import Final

# The first pattern that a path begins with. What follows it stays: places in lists, and parts.
_PATHS: Final = {
    r"generation_config\.((?:forced_)?eos_token_id)s": r"\1",
    r"generation_config\.processors(\[\d+\])\.arguments_json": r"processors\1",
    r"generation_config\.": "",
    r"prompt\.padded_batch\.": "",
    r"prompt(?:\.token_batch(?:\.sequences)?|\.padded_batch)?": "prompts",
    r"batch(?:\.token_batch(?:\.sequences)?|\.padded_batch)?": "rows",
    r"token_batch(?:\.sequences)?": "rows",
    r"continuations\.sequences": "continuations",
    r"prompt_scores": "prompt_selection",
    r"scores": "selection",
    r"sampling\.": "",
    r"sampling": "sample",
    r"(?:keep_session\.)?ttl": r"\g<0>_s",
    r"items(\[\d+\])\.text": r"texts\1",
    r"items": "texts",
    r"(?:options\.)?padding\.strategy": "padding",
    r"(?:options\.)?(padding|truncation)\.side": r"\1_side",
    r"(?:options\.)?(?:padding|truncation)\.": "",
    r"options\.offset_unit": "return_offsets",
    r"options\.": "",
    r"conversations(\[\d+\])\.messages": r"conversations\1",
    r"(tools|documents|template_arguments)_json": r"\1",
    r"(tokens\[\d+\])\.token(?:\.content)?": r"\1",
    r"special_tokens(?:\[\d+\]\.token_id)?": "roles",
    r"data": "archive",
}
_FIRST: Final = [
    (re.compile(rf"(?:{path})(?:(?<=\.)|(?=$|[.\[]))"), word) for path, word in _PATHS.items()
]

# What the services advise, as it is done in Python.
_WORDS: Final = {
    r"\b(\w+) = true\b": r"\1=True",
    r"\b(\w+) = false\b": r"\1=False",
    r"\bthe schema in ListLogitsProcessors\b": "its schema in `model.logits_processors()`",
    r"\bthat ListLogitsProcessors returns\b": "in `model.logits_processors()`",
    r"\bStepStream with accept_chunks\b": "`step_stream`",
    r"\buse GenerateStream\b": "use `stream`",
    r"\bGenerate only\b": "`generate` only",
    r"\bset lenient\b": "set lenient=True",
    r"\b(token|padded)_batch\b": r"\1 batch",
}


def keyword(path: str) -> str:
    """Returns how a caller calls a field of a request: its keyword, and the place in its value.

    Args:
        path: the field, for example `prompt.token_batch.sequences[3]`.
    """
    path = re.sub(r"^(?:step|generate_request)\.", "", path)  # a request in a request
    path = path.removesuffix(".ids")  # a message for a list
    for pattern, word in _FIRST:
        if (found := pattern.match(path)) is not None:
            return found.expand(word) + path[found.end() :]
    return path


def in_keywords(text: str) -> str:
    """Returns what a service says with the words of Python."""
    for pattern, word in _WORDS.items():
        text = re.sub(pattern, word, text)
    return text
