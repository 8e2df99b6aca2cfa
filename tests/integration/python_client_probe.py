"""Asks both services with an installed client, and prints the answers as one line of JSON.

For an interpreter that has the client and its dependencies, and nothing of the tests.
"""

import asyncio
import json
import os
import warnings

warnings.simplefilter("error")

import google.protobuf  # noqa: E402

from lockstep_client import AsyncLockstep, Lockstep, exceptions  # noqa: E402

TEXTS = ["The capital of France is", "Grüße aus 東京 🙂"]
GREEDY = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": []}
ADDRESSES = {
    "tokenizer": os.environ["LOCKSTEP_TOKENIZER"],
    "model": os.environ["LOCKSTEP_MODEL"],
}


def answers(ls: Lockstep) -> dict[str, object]:
    """Returns what the blocking client gets, method by method."""
    batch = ls.tokenizer.encode(TEXTS, padding="longest", padding_side="left")
    # A salt of its own: what earlier prompts left behind would round the logits differently.
    generated = ls.model.generate(
        batch, output_logits=True, cache_salt=str(os.getpid()), max_time=60.0, **GREEDY
    )
    with ls.stream(TEXTS[0], **GREEDY) as stream:
        streamed = "".join(stream)
    with ls.model.open_session(batch, max_length=64) as session:
        session.step(session.logits.argmax(-1))
        stepped = session.token_ids()
    try:
        ls.model.generate([[99999]], **GREEDY)
    except exceptions.TokenIdOutOfRange as error:
        refused = error.metadata
    return {
        "input_ids": batch.input_ids.tolist(),
        "decoded": ls.tokenizer.decode(batch.token_ids),
        "sequences": generated.sequences,
        "logits": generated.logits.tolist(),
        "streamed": streamed,
        "stepped": stepped,
        "scores": [row.logits_logprob for row in ls.model.score(batch)],
        "refused": refused,
        "revisions": [each.vocabulary.fingerprint for each in ls.vocabulary.revisions()],
        "revision": ls.tokenizer.info().vocabulary.revision,
    }


async def answer() -> str:
    """Returns what the asyncio client continues a text with."""
    async with AsyncLockstep(**ADDRESSES) as ls:
        return (await ls.generate(TEXTS[0], **GREEDY)).text


if __name__ == "__main__":
    with Lockstep(**ADDRESSES) as ls:
        found = {"answers": answers(ls), "text": asyncio.run(answer())}
    print(json.dumps({"protobuf": google.protobuf.__version__, **found}))
