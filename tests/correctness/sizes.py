"""Two sizes of one test: what CI runs, and the full size of `docs/correctness.md`."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def sizes(name: str, ci: object, full: object) -> pytest.MarkDecorator:
    """Runs a test once in CI, and once more with `-m full`."""
    marks = [pytest.mark.full, pytest.mark.timeout(7200)]
    return pytest.mark.parametrize(name, [ci, pytest.param(full, marks=marks)], ids=["ci", "full"])


def for_examples(count: int, strategy: st.SearchStrategy, check) -> None:
    """Runs a check over so many examples of a strategy."""
    limits = settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    given(strategy)(limits(check))()
