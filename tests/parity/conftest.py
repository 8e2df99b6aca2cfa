"""Fixtures of this folder."""

from tests.pairs import Pair as Pair
from tests.pairs import pair as pair
from tests.pairs import pair_of as pair_of
