"""Every combination of a selection against numpy in double precision."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_service.engine.calls.scores import report, row_to_array
from model_service.protocol.generation import ScoreSelection

V = 12
# Few values, so that ties are common.
values = st.lists(
    st.sampled_from([-3.0, 0.0, 0.5, 2.0, 7.25]) | st.floats(-50, 50, width=32),
    min_size=V,
    max_size=V,
)
excluded = st.sets(st.integers(0, V - 1), max_size=V - 1)
ids = st.lists(st.integers(0, V - 1), min_size=1, max_size=V, unique=True).map(tuple)
amounts = st.one_of(
    st.just({}),
    st.just({"amount": "full"}),
    st.sampled_from(["float32", "float16", "bfloat16"]).map(
        lambda dtype: {"amount": "full", "dtype": dtype}
    ),
    st.integers(1, V + 3).map(lambda k: {"amount": "top_k", "top_k": k}),
    ids.map(lambda chosen: {"amount": "token_ids", "token_ids": chosen}),
)
switches = st.fixed_dictionaries(
    {
        name: st.booleans()
        for name in ("logits", "scores", "rank", "entropy", "logsumexp", "logprob")
    }
)


def logsumexp(row: np.ndarray) -> float:
    return float(np.log(np.exp(row - row.max()).sum()) + row.max())


def ranked(row: np.ndarray) -> list[int]:
    return sorted(range(V), key=lambda i: (-row[i], i))


def close(got: float | None, expected: float) -> bool:
    return got is not None and (got == expected or abs(got - expected) < 1e-9)


@settings(max_examples=400, deadline=None)
@given(
    row=values,
    out=excluded,
    amount=amounts,
    asked=switches,
    token_id=st.none() | st.integers(0, V - 1),
)
def test_what_is_reported_is_what_numpy_computes(row, out, amount, asked, token_id):
    logits = torch.tensor(row)
    scores = (logits * 0.5).masked_fill(torch.tensor([i in out for i in range(V)]), -torch.inf)
    selection = ScoreSelection(**amount, **asked)
    got = report(selection, 5, token_id, logits, scores if asked["scores"] else None)
    raw, processed = logits.double().numpy(), scores.double().numpy()
    assert (got.position, got.token_id) == (5, token_id)

    kinds = {"logits": (raw, asked["logits"]), "scores": (processed, asked["scores"])}
    for kind, (expected, wanted) in kinds.items():
        full = getattr(got, kind)
        assert (full is not None) == (wanted and selection.amount == "full")
        if full is not None:
            as_sent = torch.tensor(expected, dtype=torch.float32)
            as_sent = as_sent.to(getattr(torch, selection.dtype)).float().numpy()
            assert np.array_equal(row_to_array(full, selection.dtype), as_sent)
        total = getattr(got, f"{kind}_logsumexp")
        assert (total is not None) == (wanted and asked["logsumexp"])
        assert total is None or close(total, logsumexp(expected))
        logprob = getattr(got, f"{kind}_logprob")
        if token_id is None or not (wanted or (kind == "logits" and asked["logprob"])):
            assert logprob is None
        else:
            assert close(logprob, expected[token_id] - logsumexp(expected))

    by = processed if asked["scores"] and not asked["logits"] else raw
    chosen = {
        "top_k": ranked(by)[: selection.top_k],
        "token_ids": list(selection.token_ids),
    }.get(selection.amount, [])
    assert [token.token_id for token in got.tokens] == chosen
    for token in got.tokens:
        assert token.logit == (raw[token.token_id] if asked["logits"] else None)
        assert token.score == (processed[token.token_id] if asked["scores"] else None)

    expected_rank = None if token_id is None else ranked(raw).index(token_id) + 1
    assert got.rank == (expected_rank if asked["rank"] else None)
    if asked["entropy"]:
        probabilities = np.exp(raw - logsumexp(raw))
        terms = np.where(probabilities > 0, probabilities * (raw - logsumexp(raw)), 0.0)
        assert close(got.entropy, -float(terms.sum()))
    else:
        assert got.entropy is None
