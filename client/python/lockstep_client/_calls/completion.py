"""A call from text to text: its keywords, sorted by the calls that it is made of."""

from collections.abc import Mapping, Sequence
from typing import cast

from lockstep_client._calls.argument import Argument
from lockstep_client._calls.row_requests import row_seed
from lockstep_client._requests import generation_config
from lockstep_client._requests.options import (
    ChatOptions,
    CompletionOptions,
    EncodeOptions,
    GenerationOptions,
)
from lockstep_client._requests.tokenizer import ChatMessages
from lockstep_client._results.generation import Completion, Generation
from lockstep_client.exceptions import ProtocolError, WrongType, WrongValue

Text = tuple[Argument, str | None, ChatMessages | None, CompletionOptions]
"""What a caller gave: a text, or messages, and the keywords that go with it."""

_TEXT_KEYWORDS = CompletionOptions.__annotations__.keys() - GenerationOptions.__annotations__.keys()


class CompletionAssembler:
    """Collects the pieces of a streamed text to its result."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._completion: Completion | None = None

    def add(self, piece: str) -> str:
        """Takes a piece of the text and returns it."""
        self._pieces.append(piece)
        return piece

    def finish(self, prompt_token_ids: list[int], generation: Generation) -> None:
        """Takes what is known at the end."""
        self._completion = Completion.of("".join(self._pieces), prompt_token_ids, generation)

    def result(self) -> Completion:
        """Returns the result.

        Raises:
            ProtocolError: the stream was not read to its end.
        """
        if self._completion is None:
            raise ProtocolError("The stream was not read to its end.")
        return self._completion


def check(prompt: str | None, messages: ChatMessages | None, options: CompletionOptions) -> None:
    """Refuses arguments that do not say what is to be continued, or ask for more than one text.

    Raises:
        TypeError: not exactly one of `prompt` and `messages` is given.
        ValueError: several sequences are asked for.
    """
    if (prompt is None) == (messages is None):
        raise WrongType("Give either a text or messages.")
    if isinstance(prompt, list | tuple):
        raise WrongType("A text is expected here, not a list; generate takes a list of texts.")
    generation_config.checked(options, CompletionOptions)
    if options.get("num_return_sequences", 1) != 1:
        raise WrongValue("One text is returned; model.generate returns several sequences.")


def texts(
    prompt: str | list[str] | tuple[str, ...] | None,
    messages: ChatMessages | Sequence[ChatMessages] | None,
    options: CompletionOptions,
) -> tuple[list[Text], bool]:
    """Returns texts or conversations, each as it is completed alone, and whether a list was given.

    A seed of all becomes a seed of each, as of the rows of one generation.

    Raises:
        TypeError: not exactly one of `prompt` and `messages` is given.
        ValueError: several sequences of each are asked for.
    """
    each_given: list[tuple[str | None, ChatMessages | None]]
    if isinstance(prompt, list | tuple):
        each_given = [(text, None) for text in prompt]
    elif isinstance(messages, list | tuple) and messages and all(map(_is_conversation, messages)):
        each_given = [(None, cast(ChatMessages, each)) for each in messages]
    else:
        conversation = cast(ChatMessages | None, messages)
        check(prompt, conversation, options)
        return [(argument(prompt), prompt, conversation, options)], False
    for text, conversation in each_given:
        check(text, conversation, options)
    return [
        (argument(given[0], row), *given, _with_seed(options, row))
        for row, given in enumerate(each_given)
    ], True


def argument(prompt: str | None, row: int | None = None) -> Argument:
    """Returns what errors name: a text, or messages where there is none; or an entry of a list."""
    return Argument("messages" if prompt is None else "prompt", row)


def _is_conversation(each: object) -> bool:
    return isinstance(each, list | tuple) and all(isinstance(one, Mapping) for one in each)


def _with_seed(options: CompletionOptions, row: int) -> CompletionOptions:
    seed = options.get("seed")
    if seed is None:
        return options
    return {**options, "seed": row_seed(seed, row)}


def encode_options(options: CompletionOptions) -> EncodeOptions:
    """Returns the keywords that go to the encoding of a text."""
    encode: EncodeOptions = {}
    if "add_special_tokens" in options:
        encode["add_special_tokens"] = options["add_special_tokens"]
    if "parse_special_tokens" in options:
        encode["parse_special_tokens"] = options["parse_special_tokens"]
    return encode


def chat_options(options: CompletionOptions) -> ChatOptions:
    """Returns the keywords that go to the rendering of messages."""
    if "parse_special_tokens" in options:
        return {"parse_special_tokens": options["parse_special_tokens"]}
    return {}


def generate_options(options: CompletionOptions) -> GenerationOptions:
    """Returns the keywords that go to the model."""
    return cast(
        GenerationOptions,
        {name: value for name, value in options.items() if name not in _TEXT_KEYWORDS},
    )
