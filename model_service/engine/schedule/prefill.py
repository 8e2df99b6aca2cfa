"""How many prompt tokens pass through the model in a step, and whose."""

import math

# Least work of a step.
MIN_CHUNK_TOKENS = 16

# Likewise where nothing decodes: the weights are read for them all at once.
MIN_ALONE_TOKENS = 128

# Most that the time budget of prompts grows by while more sequences wait than decode, and what it
# grows by where nothing decodes: who arrives meanwhile waits for the step.
MOST_PATIENCE = 2.0

# Weight of the latest measurement.
LEARNING_RATE = 0.3

# Of a length, so that the work of a chunk is enough for the chunk.
ROUNDING = 1e-6

# Keys, per hidden unit of the model, that a token attends to in the time of all its products.
KEYS_PER_UNIT = 3


class PrefillClock:
    """Learns how many prompt tokens pass through the model in a second.

    What a token takes grows with the tokens that it attends to. So work is counted
    in tokens that attend to none: one that attends to `even_context` counts as two.
    """

    def __init__(
        self, budget_s: float, tokens_per_s: float = 1000.0, even_context: float = math.inf
    ) -> None:
        """Begins with a guess.

        Args:
            budget_s: what prompts may add to a step in which others decode.
            tokens_per_s: the guess.
            even_context: tokens that a token attends to in the time of the rest of its step.
        """
        self._budget_s = budget_s
        self._tokens_per_s = tokens_per_s
        self._even_context = even_context
        self._decode_s: dict[int, float] = {}

    def work(self, num_cached: int, length: int) -> int:
        """Returns what a chunk counts as.

        Args:
            num_cached: tokens of its prompt before it.
            length: tokens of it.
        """
        return math.ceil(length * (1 + (num_cached + length / 2) / self._even_context))

    def length(self, num_cached: int, work: int) -> int:
        """Returns the tokens of the longest chunk that counts as no more than `work`."""
        if math.isinf(self._even_context):
            return work
        before = self._even_context + num_cached
        return int(math.sqrt(before**2 + 2 * self._even_context * work) - before + ROUNDING)

    def budget(self, num_decoding: int = 1, num_prompts: int = 1) -> int:
        """Returns the work that fits a step.

        A step's length is what decoding rows wait for their next token, and a step
        more what prompts wait for their first: while these are more, a burst of
        prompts is through sooner at longer steps.

        Args:
            num_decoding: rows that decode in the step.
            num_prompts: sequences whose prompts wait for a chunk.
        """
        patience, least = MOST_PATIENCE, MIN_ALONE_TOKENS
        if num_decoding:
            patience = min(max(1.0, num_prompts / num_decoding), MOST_PATIENCE)
            least = MIN_CHUNK_TOKENS
        return max(least, int(self._tokens_per_s * self._budget_s * patience))

    def learn(self, decode_tokens: int, prefill_work: int, duration_s: float) -> None:
        """Takes note of how long the model took for a step.

        What a step of prompts and decoding rows spends on the prompts is what it
        takes longer than one of as many decoding rows alone.
        """
        size = decode_tokens.bit_length()
        if not prefill_work:
            self._decode_s[size] = _blend(self._decode_s.get(size, duration_s), duration_s)
            return
        if decode_tokens:
            if size not in self._decode_s:
                return
            duration_s -= self._decode_s[size]
        if prefill_work >= MIN_CHUNK_TOKENS and duration_s > 0:
            # One step tells little, and a difference of two even less.
            rate = min(prefill_work / duration_s, 2 * self._tokens_per_s)
            self._tokens_per_s = _blend(self._tokens_per_s, rate)


def share(pending: list[int], budget: int) -> list[int]:
    """Divides the work of a step among prompts.

    Half goes to the oldest, so that every prompt gets done; the rest to the
    shortest, so that a question never waits for a book.

    Args:
        pending: work that is left of each prompt, the oldest first.
        budget: work to divide.

    Returns:
        Work of each prompt.
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
