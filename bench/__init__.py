"""Measures the services against what else a user could run on the same machine.

Every contender is a process of its own and they take turns, so that they share
the machine's moods: what counts is the ratio within a round.

One folder, because each module is a measurement of its own, or serves several.
"""
