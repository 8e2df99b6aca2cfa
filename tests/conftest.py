"""Fixtures that every folder of tests may use."""

from tests.services import services as services
