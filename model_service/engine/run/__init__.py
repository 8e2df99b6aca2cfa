"""From tokens to logits: the model, its KV cache and compiled steps."""
