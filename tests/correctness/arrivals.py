"""Requests that arrive while others run, in random order, with strangers that are cancelled."""

import random
from dataclasses import dataclass, field

from model_service.protocol import Cancel, Event, SequenceTokens
from tests.engine_harness import InprocEngine


@dataclass
class Arrivals:
    """Runs prompts through one engine, never more than so many of them at once.

    Attributes:
        engine: the engine.
        new_tokens: tokens to generate for each prompt.
        most_at_once: upper bound of prompts that are under way, strangers not counted.
        seed: of the order, of who comes when, and of what is cancelled.
        cancelled: strangers that were cancelled halfway.
        most_rows: most sequences that were seen under way in one step.
    """

    engine: InprocEngine
    new_tokens: int
    most_at_once: int
    seed: int
    cancelled: int = 0
    most_rows: int = 0
    _by_request: dict[int, int] = field(default_factory=dict)
    _tokens: dict[int, list[int]] = field(default_factory=dict)
    _strangers: list[int] = field(default_factory=list)
    _unfinished: int = 0

    def run(self, prompts: list[list[int]], **config: object) -> list[list[int]]:
        """Returns the new tokens of each prompt, in the order of the prompts."""
        generator = random.Random(self.seed)
        waiting = list(range(len(prompts)))
        generator.shuffle(waiting)
        while waiting or self._unfinished:
            room = self.most_at_once - self._unfinished
            for _ in range(min(room, len(waiting), generator.randrange(4))):
                self._submit(waiting.pop(), prompts, config)
            if generator.random() < 0.1:  # somebody who will hang up
                stranger = generator.choice(prompts)
                arguments = {**config, "max_new_tokens": 4 * self.new_tokens}
                self._strangers.append(self.engine.submit([stranger], **arguments))
            if self._strangers and generator.random() < 0.15:
                leaving = self._strangers.pop(generator.randrange(len(self._strangers)))
                self.engine.handle(Cancel(leaving))
                self.cancelled += 1
            self.most_rows = max(self.most_rows, self._unfinished + len(self._strangers))
            for event in self.engine.step() or []:
                self._note(event)
        for stranger in self._strangers:
            self.engine.handle(Cancel(stranger))
        self.engine.drain()
        return [self._tokens[index] for index in range(len(prompts))]

    def _submit(self, index: int, prompts: list[list[int]], config: dict[str, object]) -> None:
        arguments = {**config, "max_new_tokens": self.new_tokens}
        self._by_request[self.engine.submit([prompts[index]], **arguments)] = index
        self._tokens[index] = []
        self._unfinished += 1

    def _note(self, event: Event) -> None:
        if isinstance(event, SequenceTokens) and event.request_id in self._by_request:
            self._tokens[self._by_request[event.request_id]] += event.token_ids
            self._unfinished -= event.finish is not None
