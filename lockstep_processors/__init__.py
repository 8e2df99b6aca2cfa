"""What a module of logits processors imports: see docs/processors.md.

Where these names live inside of the engine may change; here they stay.
"""

from model_service.engine.sampling.custom_processors import (
    Arguments,
    CustomProcessor,
    Row,
    TokenId,
)

__all__ = ["Arguments", "CustomProcessor", "Row", "TokenId"]
