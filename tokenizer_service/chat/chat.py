"""Conversations to ids, through the tokenizer's chat templates."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from rpc.errors import InvalidField, NoChatTemplate
from tokenizer_service.chat.chat_text import ChatText, ControlTokenFinder, NoStandInError, strings
from tokenizer_service.chat.template_renderer import RenderRequest, TemplateRenderer
from tokenizer_service.text.encoding import EncodedRow, EncodeOptions, Text, Truncation
from tokenizer_service.text.tokenizer import Tokenizer
from tokenizer_service.text.tokenizer_files import ROLES
from tokenizer_service.text.work_cost import chat_cost
from tokenizer_service.worker_pool import Pieces, WorkerPool

_T = TypeVar("_T")

DEFAULT = "default"
_TOOL_USE = "tool_use"

# Variables that the caller must not set: what the renderer and the template are
# given by us, and what would name another template.
RESERVED_VARIABLES = frozenset(
    {
        *(f"{role}_token" for role in ROLES),
        *("messages", "conversations", "conversation", "tools", "documents", "chat_template"),
        *("add_generation_prompt", "continue_final_message", "return_assistant_tokens_mask"),
        *("raise_exception", "strftime_now", "namespace", "dict", "range", "self", "loop"),
    }
)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """Conversations and how they are rendered and encoded.

    Attributes:
        render: what the template is given; an empty `template` means the usual one.
        parse_special_tokens: whether control tokens spelled in messages are parsed.
        truncation: how rows are cut, None for not at all.
    """

    render: RenderRequest
    parse_special_tokens: bool = False
    truncation: Truncation | None = None


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """The result for the conversations.

    Attributes:
        texts: what the template wrote, one per conversation.
        rows: its ids.
        template_fingerprint: of the template's source.
    """

    texts: list[str]
    rows: list[EncodedRow]
    template_fingerprint: str


class ChatTemplates:
    """The chat templates of one tokenizer. They never change and never come from requests."""

    def __init__(
        self, sources: Mapping[str, str], renderer: TemplateRenderer, pool: WorkerPool
    ) -> None:
        self._sources = dict(sources)
        self._renderer = renderer
        self._pool = pool
        self._finder: tuple[Tokenizer, ControlTokenFinder] | None = None
        self.fingerprints = {
            name: hashlib.sha256(source.encode()).hexdigest() for name, source in sources.items()
        }

    async def apply(
        self,
        tokenizer: Tokenizer,
        request: ChatRequest,
        respond: Callable[[RenderedChat], _T],
        *,
        request_bytes: int,
    ) -> _T:
        """Renders and encodes conversations.

        Args:
            tokenizer: the revision that they are encoded by.
            request: the conversations.
            respond: makes the response, in a thread.
            request_bytes: the size of their message.

        Raises:
            NoChatTemplate: the tokenizer has none.
            InvalidField: the tokenizer has no template of that name.
            ChatTemplateFailed: the template refused, or exceeded a limit.
            Overloaded: too much is in progress.
        """
        name = self._choose(request.render, tokenizer)
        render = replace(request.render, template=name)

        def protect() -> Pieces[tuple[ChatText, RenderRequest]]:
            return (yield from _protect(self._finder_of(tokenizer), render, self._sources[name]))

        text, protected = await self._pool.run_pieces(protect(), chat_cost(request_bytes))
        if request.parse_special_tokens:
            protected = render
        rendered = await self._renderer.render(
            replace(protected, variables=protected.variables | _special_tokens(tokenizer))
        )

        def encode() -> Pieces[_T]:
            texts, rows = yield from _encode(tokenizer, text, rendered, request)
            return respond(RenderedChat(texts, rows, self.fingerprints[name]))

        rendered_bytes = sum(len(one.encode()) for one in rendered)
        return await self._pool.run_pieces(encode(), chat_cost(rendered_bytes))

    def _finder_of(self, tokenizer: Tokenizer) -> ControlTokenFinder:
        """Returns the finder for a revision, made once."""
        known = self._finder
        if known is None or known[0] is not tokenizer:
            aliases = {
                tokenizer.table.tokens[token_id]: token.content
                for token_id, token in tokenizer.plain.tokens.items()
                if token.special
            }
            known = self._finder = (tokenizer, ControlTokenFinder(aliases))
        return known[1]

    def _choose(self, render: RenderRequest, tokenizer: Tokenizer) -> str:
        """Picks a template by name, or as transformers does when no name is given."""
        if not self._sources:
            raise NoChatTemplate(tokenizer.reference.tokenizer_id)
        if render.template:
            if render.template not in self._sources:
                raise InvalidField(
                    "template_name", "is not the name of a template of this tokenizer"
                )
            return render.template
        if render.tools is not None and _TOOL_USE in self._sources:
            return _TOOL_USE
        if DEFAULT not in self._sources:
            raise InvalidField(
                "template_name", "must be set: the tokenizer has no default template"
            )
        return DEFAULT


def is_variable_name(name: str) -> bool:
    """Whether a caller may set a template variable of this name."""
    return bool(re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name)) and name not in RESERVED_VARIABLES


def _special_tokens(tokenizer: Tokenizer) -> dict[str, Any]:
    tokens = tokenizer.table.tokens
    return {f"{role}_token": tokens[token_id] for role, token_id in tokenizer.roles.items()}


def _protect(
    finder: ControlTokenFinder, render: RenderRequest, source: str
) -> Pieces[tuple[ChatText, RenderRequest]]:
    others = [render.tools, render.documents, render.variables]
    try:
        text = ChatText(finder, [source, *strings([render.conversations, *others])])
    except NoStandInError:
        raise InvalidField("conversations", "use every private-use character") from None
    tools, documents, variables = text.protect(others)
    conversations = []
    for conversation in render.conversations:
        yield
        conversations.append(text.protect(conversation))
    return text, replace(
        render,
        conversations=conversations,
        tools=tools,
        documents=documents,
        variables=variables,
    )


def _encode(
    tokenizer: Tokenizer, text: ChatText, rendered: list[str], request: ChatRequest
) -> Pieces[tuple[list[str], list[EncodedRow]]]:
    """Encodes without template tokens of the tokenizer: the chat template has its own."""
    parse = request.parse_special_tokens
    options = EncodeOptions(
        add_special_tokens=False, parse_special_tokens=parse, truncation=request.truncation
    )
    texts = []
    rows = []
    for one in rendered:
        texts.append(text.to_display(one))
        rows += tokenizer.encode([Text(one if parse else text.to_encode(one))], options)
        yield
    return texts, rows
