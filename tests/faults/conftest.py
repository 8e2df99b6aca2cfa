"""What tests of other folders make, too."""

from tests.integration.conftest import tiny_checkpoint as tiny_checkpoint
