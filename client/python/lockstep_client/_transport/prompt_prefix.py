"""Names the beginning of a prompt to gateways, so that equal beginnings meet at one replica.

A replica has the KV cache of prompts that it has seen, and computes no beginning twice. A gateway
cannot read prompts, so it is told a keyed hash of the first tokens: equal for prompts that
begin alike, and nothing that a prompt could be told from without the key.
"""

import hmac
import os
import secrets
from typing import Any, Final

import numpy as np
from lockstep.v1 import tokens_pb2 as tokens_pb

from lockstep_client._transport.route import Metadata

KEY: Final = "x-lockstep-prefix"

NUM_TOKENS: Final = 64
"""Tokens that are hashed. A shorter prompt has little that could be reused, and no header."""

NUM_DIGITS: Final = 16

_SECRET: Final = os.environ.get("LOCKSTEP_PREFIX_KEY", "").encode() or secrets.token_bytes(32)
_SWITCHED_OFF: Final = os.environ.get("LOCKSTEP_PREFIX_ROUTING", "").lower() in {
    "off",
    "0",
    "false",
}

# Where a request holds the one with the prompt.
_WRAPPED: Final = ("request", "generate_request")


def routed(keyword: bool | None) -> bool:
    """Says whether prompts are named: by the client's keyword, or else by the environment."""
    return not _SWITCHED_OFF if keyword is None else keyword


def metadata(request: Any, secret: bytes = _SECRET) -> Metadata:
    """Returns what names the beginning of the first prompt of a request, if it has a long one.

    Args:
        request: a message of any method.
        secret: the key of the hash.
    """
    for name in _WRAPPED:
        request = getattr(request, name, request)
    prompt = getattr(request, "prompt", None)
    if not isinstance(prompt, tokens_pb.PromptBatch):
        return ()
    ids = _first_row(prompt)[:NUM_TOKENS]
    if len(ids) < NUM_TOKENS:
        return ()
    data = np.asarray(ids, dtype="<i4").tobytes() + getattr(request, "cache_salt", "").encode()
    return ((KEY, hmac.digest(secret, data, "sha256").hex()[:NUM_DIGITS]),)


def _first_row(prompt: tokens_pb.PromptBatch) -> Any:
    if not prompt.HasField("padded_batch"):
        sequences = prompt.token_batch.sequences
        return sequences[0].ids if sequences else ()
    ids, mask = prompt.padded_batch.input_ids, prompt.padded_batch.attention_mask
    width = ids.shape[-1] if ids.shape else 0
    if min(len(ids.data), len(mask.data)) < 8 * width:  # of another type, for the service to refuse
        return ()
    row, kept = (np.frombuffer(each.data, "<i8", count=width) for each in (ids, mask))
    return row[kept == 1]
