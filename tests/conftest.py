"""Fixtures that every folder of tests may use."""

import os

from tests.postgresql import postgresql as postgresql
from tests.postgresql import postgresql_url as postgresql_url
from tests.services import services as services

# Compiling takes a minute of processor time; the tests that are about it switch it on.
os.environ.setdefault("LOCKSTEP_MODEL_DECODE_GRAPHS", "off")
