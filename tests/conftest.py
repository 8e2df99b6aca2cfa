"""Fixtures that every folder of tests may use."""

import os

from tests.postgresql import postgresql as postgresql
from tests.postgresql import postgresql_url as postgresql_url
from tests.services import services as services

# Compiling takes a minute of processor time; the tests that are about it switch it on.
os.environ.setdefault("LOCKSTEP_MODEL_DECODE_GRAPHS", "off")

# A tokenizer service that happens to run here is followed by no test; those about it name theirs.
os.environ.setdefault("LOCKSTEP_MODEL_TOKENIZER_ADDRESS", "none")
