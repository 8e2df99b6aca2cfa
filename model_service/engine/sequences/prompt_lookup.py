"""Guesses what comes next in a sequence from what came before: prompt lookup.

Where the newest tokens occurred earlier, what followed them then may follow now:
code that is edited, a text that is summarized or quoted, a list in one form.
Guesses decide about speed only, so this need not be Hugging Face's search.
"""

from collections import defaultdict

# Earlier places of the newest token that are compared, the newest first.
MAX_PLACES = 64

# Most steps that a sequence sits out after guesses that were all wrong.
MAX_PAUSE = 16


class PromptLookup:
    """What is known about one growing sequence.

    Tokens are entered once, so a guess costs the same in a long context as in a
    short one.
    """

    def __init__(self) -> None:
        """Knows nothing yet."""
        self._places: dict[int, list[int]] = defaultdict(list)
        self._num_known = 0
        self._guess: tuple[int, int] | None = None  # the first of the last ones, and its place
        self._pause = 0
        self._next_pause = 1

    def propose(self, token_ids: list[int], longest: int, count: int) -> tuple[int, ...]:
        """Returns guesses of the tokens to come, or none.

        A sequence whose guesses turn out wrong sits out ever more steps.

        Args:
            token_ids: the sequence, which since the last call has only grown.
            longest: newest tokens that are compared, at most.
            count: how many guesses to make.
        """
        if self._guess is not None:
            self._judge(token_ids[self._guess[1]] == self._guess[0])
        if self._pause:
            self._pause -= 1
            return ()
        last = len(token_ids) - 1
        for place in range(self._num_known, last):
            self._places[token_ids[place]].append(place)
        self._num_known = last
        start = self._find(token_ids, longest)
        if start is None:
            return ()
        # A run that reaches the end of the sequence goes on with its own guesses: a period.
        guesses: list[int] = []
        for place in range(start, start + count):
            guesses.append(token_ids[place] if place <= last else guesses[place - last - 1])
        self._guess = guesses[0], last + 1
        return tuple(guesses)

    def _find(self, token_ids: list[int], longest: int) -> int | None:
        """Returns where the longest earlier run equal to the newest tokens was followed."""
        last = len(token_ids) - 1
        best, start = 0, None
        for place in reversed(self._places[token_ids[last]][-MAX_PLACES:]):
            length = 1
            while length < min(longest, place + 1) and (
                token_ids[place - length] == token_ids[last - length]
            ):
                length += 1
            if length > best:
                best, start = length, place + 1
            if length == longest:
                break
        return start

    def _judge(self, right: bool) -> None:
        self._guess = None
        self._pause = 0 if right else self._next_pause
        self._next_pause = 1 if right else min(2 * self._next_pause, MAX_PAUSE)
