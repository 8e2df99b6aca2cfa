"""Who runs in the next step, where, and for how long. No tensors."""
