"""How methods are called: connections, deadlines, repetition."""
