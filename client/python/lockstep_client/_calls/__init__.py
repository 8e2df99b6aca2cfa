"""What is known between the messages of a call, or the calls of a session. Pure: no I/O."""
