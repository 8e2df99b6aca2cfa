"""Fixtures that every folder of tests may use."""

import os
import signal

from hypothesis import HealthCheck, settings

from tests.postgresql import postgresql as postgresql
from tests.postgresql import postgresql_url as postgresql_url
from tests.services import services as services

# Compiling takes a minute of processor time; the tests that are about it switch it on.
os.environ.setdefault("LOCKSTEP_MODEL_DECODE_GRAPHS", "off")

# A tokenizer service that happens to run here is followed by no test; those about it name theirs.
os.environ.setdefault("LOCKSTEP_MODEL_TOKENIZER_ADDRESS", "none")

# What a test leaves open is not waited for when its services stop.
os.environ.setdefault("LOCKSTEP_MODEL_SESSION_DRAIN_SILENCE_S", "0.5")

# The limits of an example's time would measure how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# A shell starts what runs in its background with Ctrl-C ignored, and so would be every
# process that a test starts, although the test is about one that somebody watches.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
