"""Mistakes that people make, and what they are told: a list that was read by people.

A file has areas (`# texts`), mistakes as one expression a line, and under each, indented, what
is raised. `python -m tests.integration.mistakes` writes what is raised now.
"""
