"""Faults on purpose against real services: the promises R1 to R25 of docs/reliability.md."""
