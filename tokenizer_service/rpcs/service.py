"""The service that runs, as its methods see it."""

import asyncio
from dataclasses import dataclass

from rpc.identity import Allowance
from tokenizer_service.chat.chat import ChatTemplates
from tokenizer_service.growth.live_vocabulary import LiveVocabulary
from tokenizer_service.growth.model_rows import ModelRows
from tokenizer_service.metrics import TokenizerMetrics
from tokenizer_service.text.tokenizer_files import TokenizerFiles
from tokenizer_service.worker_pool import WorkerPool


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The limits an operator sets; `GetTokenizerInfo` states them.

    Attributes:
        max_items: texts, rows or conversations of one call.
        max_text_bytes: of one text.
        max_message_bytes: of one request message; the server checks it.
        max_padded_cells: rows times length of a padded batch.
    """

    max_items: int
    max_text_bytes: int
    max_message_bytes: int
    max_padded_cells: int


@dataclass(frozen=True, slots=True)
class Service:
    """What both gRPC services work with.

    Attributes:
        files: what revision 0 was made of.
        vocabulary: the tokenizer that serves now.
        templates: its chat templates.
        model_rows: what is known about the rows of the model.
        pool: where work off the event loop runs.
        metrics: what is counted.
        limits: what requests may ask for.
        max_response_bytes: the largest response that is sent.
        max_added_tokens: most tokens that all revisions may add.
        additions: what each caller may still add.
        draining: set when the server shuts down; ends streams that would never end.
    """

    files: TokenizerFiles
    vocabulary: LiveVocabulary
    templates: ChatTemplates
    model_rows: ModelRows
    pool: WorkerPool
    metrics: TokenizerMetrics
    limits: RequestLimits
    max_response_bytes: int
    max_added_tokens: int
    additions: Allowance
    draining: asyncio.Event
