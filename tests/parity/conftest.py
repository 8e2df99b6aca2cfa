"""Fixtures of this folder."""

from tests.compiled_code import compiled_code as compiled_code
from tests.compiled_code import compiling as compiling
from tests.pairs import Pair as Pair
from tests.pairs import pair as pair
from tests.pairs import pair_of as pair_of
