"""How many prompt tokens pass through the model in a step, and whose."""

MIN_CHUNK_TOKENS = 16

# Most that the time budget of prompts grows by while more sequences wait than decode.
MOST_PATIENCE = 4.0

# Weight of the latest measurement.
LEARNING_RATE = 0.3


class PrefillClock:
    """Learns how many prompt tokens pass through the model in a second."""

    def __init__(self, budget_s: float, tokens_per_s: float = 1000.0) -> None:
        self._budget_s = budget_s
        self._tokens_per_s = tokens_per_s
        self._decode_s: dict[int, float] = {}

    def tokens(self, num_decoding: int = 1, num_prompts: int = 1) -> int:
        """Returns the tokens that fit the budget.

        A step's length is what decoding rows wait for their next token, and a step
        more what prompts wait for their first: while these are more, a burst of
        prompts is through sooner at longer steps.

        Args:
            num_decoding: rows that decode in the step, >= 1.
            num_prompts: sequences whose prompts wait for a chunk.
        """
        patience = min(max(1.0, num_prompts / num_decoding), MOST_PATIENCE)
        return max(MIN_CHUNK_TOKENS, int(self._tokens_per_s * self._budget_s * patience))

    def learn(self, decode_tokens: int, prefill_tokens: int, duration_s: float) -> None:
        """Takes note of how long the model took for a step.

        What a step of prompts and decoding rows spends on the prompts is what it
        takes longer than one of as many decoding rows alone.
        """
        size = decode_tokens.bit_length()
        if not prefill_tokens:
            self._decode_s[size] = _blend(self._decode_s.get(size, duration_s), duration_s)
            return
        if decode_tokens:
            if size not in self._decode_s:
                return
            duration_s -= self._decode_s[size]
        if prefill_tokens >= MIN_CHUNK_TOKENS and duration_s > 0:
            # One step tells little, and a difference of two even less.
            rate = min(prefill_tokens / duration_s, 2 * self._tokens_per_s)
            self._tokens_per_s = _blend(self._tokens_per_s, rate)


def share(pending: list[int], budget: int) -> list[int]:
    """Divides a step's prompt tokens among prompts.

    Half goes to the oldest, so that every prompt gets done; the rest to the
    shortest, so that a question never waits for a book.

    Args:
        pending: tokens that each prompt still needs, the oldest first.
        budget: tokens to divide.

    Returns:
        Tokens of each prompt.
    """
    shares = [0] * len(pending)
    if not pending:
        return shares
    shares[0] = min(pending[0], budget - budget // 2)
    left = budget - shares[0]
    for index in sorted(range(1, len(pending)), key=pending.__getitem__):
        shares[index] = min(pending[index], left)
        left -= shares[index]
    shares[0] += min(pending[0] - shares[0], left)
    return shares


def _blend(known: float, measured: float) -> float:
    return known + LEARNING_RATE * (measured - known)
