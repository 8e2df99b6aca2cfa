"""Whether the parts of a tokenizer can be served: tried at start, where they can be ended."""
