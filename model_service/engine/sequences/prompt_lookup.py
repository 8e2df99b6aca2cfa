"""Guesses what comes next in a sequence from what came before: prompt lookup.

Where the newest tokens occurred earlier, what followed them then may follow now:
code that is edited, a text that is summarized or quoted, a list in one form.
Guesses decide about speed only, so this need not be Hugging Face's search.
"""

from collections import Counter, defaultdict

from model_service.engine.sequences.acceptance import Acceptance

# Earlier places of the newest token that are compared, the newest first.
MAX_PLACES = 64

# What a guess adds to the time of a step, as a part of a step of one token: measured in bfloat16
# and float32 at up to 16 tokens (docs/performance.md).
COST = 0.03

# How often the next guess is right after a run of so many tokens was found again, before this
# sequence has shown how often it is.
EXPECTED = (0.5, 0.7, 0.85, 0.9)


class PromptLookup:
    """What is known about one growing sequence.

    Tokens are entered once, so a guess costs the same in a long context as in a
    short one.
    """

    def __init__(self) -> None:
        """Knows nothing yet."""
        self._places: dict[int, list[int]] = defaultdict(list)
        self._num_known = 0
        self._made: tuple[int, int, tuple[int, ...]] | None = None  # kind, place, guesses
        self._acceptance = [Acceptance(expected, COST) for expected in EXPECTED]

    def propose(self, token_ids: list[int], longest: int, count: int) -> tuple[int, ...]:
        """Returns guesses of the tokens to come, or none.

        Their number follows from how often earlier ones were right, after runs as
        long as the one that was found now.

        Args:
            token_ids: the sequence, which since the last call has only grown.
            longest: newest tokens that are compared, at most.
            count: how many guesses to make, at most.
        """
        self._judge(token_ids)
        last = len(token_ids) - 1
        for place in range(self._num_known, last):
            self._places[token_ids[place]].append(place)
        self._num_known = last
        length, start = self._find(token_ids, longest)
        if not length:
            return ()
        kind = min(length, len(EXPECTED)) - 1
        count = self._acceptance[kind].worthwhile(count)
        if not count:
            return ()
        # A run that reaches the end of the sequence goes on with its own guesses: a period.
        guesses: list[int] = []
        for place in range(start, start + count):
            guesses.append(token_ids[place] if place <= last else guesses[place - last - 1])
        self._made = kind, last + 1, tuple(guesses)
        return tuple(guesses)

    def _find(self, token_ids: list[int], longest: int) -> tuple[int, int]:
        """Finds the longest earlier runs equal to the newest tokens.

        Returns:
            Their length, 0 without one, and where one of them was followed: of those followed by
            what most of them were, the newest.
        """
        last = len(token_ids) - 1
        best, starts = 0, list[int]()
        for place in reversed(self._places[token_ids[last]][-MAX_PLACES:]):
            length = 1
            while length < min(longest, place + 1) and (
                token_ids[place - length] == token_ids[last - length]
            ):
                length += 1
            if length > best:
                best, starts = length, []
            if length == best:
                starts.append(place + 1)
        if not starts:
            return 0, 0
        usual, _ = Counter(token_ids[start] for start in starts).most_common(1)[0]
        return best, next(start for start in starts if token_ids[start] == usual)

    def _judge(self, token_ids: list[int]) -> None:
        """Takes note of what came in place of the last guesses."""
        if self._made is None:
            return
        kind, place, guesses = self._made
        self._made = None
        for guess, token_id in zip(guesses, token_ids[place:], strict=False):
            self._acceptance[kind].note(guess == token_id)
            if guess != token_id:
                break
