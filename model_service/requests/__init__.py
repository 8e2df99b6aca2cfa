"""What arrives: checked, resolved, and turned into what the engine runs."""
