"""How often drafts are right, and how many of them are worth their time."""

# How many drafts an expectation counts for.
WEIGHT = 4.0

# What is left of an observation after each later one.
MEMORY = 0.9

# Drafts that are right more rarely than this cost more than they give: none are made, and each
# step without them counts for this part of one that was as right as expected.
LEAST = 0.06
PATIENCE = 0.01


class Acceptance:
    """How often drafts are right, from those that were made: the last ones count most."""

    def __init__(self, expected: float, cost: float) -> None:
        """Begins with what to expect.

        Args:
            expected: how often the next draft is right.
            cost: what a draft adds to the time of a step, as a part of a step of one token.
        """
        self._expected = expected
        self._cost = cost
        self._right = WEIGHT * expected
        self._total = WEIGHT

    @property
    def rate(self) -> float:
        """How often the next draft is right."""
        return self._right / self._total

    def note(self, right: bool) -> None:
        """Takes note of a draft that was reached."""
        self._right = MEMORY * self._right + right
        self._total = MEMORY * self._total + 1.0

    def worthwhile(self, most: int) -> int:
        """Returns how many drafts in one step, up to `most`, give the most tokens for its time."""
        rate = self.rate
        if rate < LEAST or not most:
            self._right += PATIENCE * self._expected
            self._total += PATIENCE
            return 0
        count, tokens, reached = 1, 1.0 + rate, rate * rate
        while count < most:
            time = 1.0 + self._cost * count
            if (tokens + reached) / (time + self._cost) <= tokens / time:
                break
            count, tokens, reached = count + 1, tokens + reached, reached * rate
        return count
