from itertools import combinations

import pytest

from model_service.front.checks.cache_salt import MAX_SALT_LENGTH, read_salt
from rpc import identity
from rpc.errors import InvalidField
from wire.violations import Violations


def test_no_salt_makes_one_caller_look_like_another():
    pairs = [("", ""), ("", "a"), ("", "1:a"), ("a", ""), ("a", "a"), ("aa", ""), ("1:a", "")]
    salts = []
    for caller, salt in pairs:
        token = identity._caller.set(caller)
        salts.append(read_salt(salt, Violations()))
        identity._caller.reset(token)
    assert all(one != other for one, other in combinations(salts, 2))


@pytest.mark.parametrize("length", [0, MAX_SALT_LENGTH, MAX_SALT_LENGTH + 1])
def test_a_salt_has_a_longest_length(length):
    violations = Violations()
    read_salt("x" * length, violations)
    if length <= MAX_SALT_LENGTH:
        violations.check()
    else:
        with pytest.raises(InvalidField):
            violations.check()
