"""`python -m bench.prefix_reuse`: the first token of a prompt that begins like an earlier one.

Prompts of which all is new and prompts of which most is known take turns.
"""

import time
from collections.abc import Callable

from bench import command
from bench.local_engine import LocalEngine, greedy
from bench.spread import spread
from bench.workload import Workload
from model_service.engine.schedule.prefix_cache import Donor, PrefixCache

SALT = "bench"


def first_token_s(engine: LocalEngine, prompt: list[int]) -> float:
    """Returns the time from a prompt's arrival to its first token, with nothing else running."""
    start = time.perf_counter()
    call = engine.submit([prompt], greedy(1), salt=SALT)
    while not engine.tokens[call]:
        engine.step()
    duration = time.perf_counter() - start
    engine.drain()
    return duration


def measure(
    engine: LocalEngine, prompt_tokens: int, shared: int, rounds: int
) -> tuple[list[float], list[float]]:
    """Returns the times to the first token of prompts of either kind, by round.

    Args:
        engine: an engine.
        prompt_tokens: ids of each prompt.
        shared: ids that the known ones have in common with an earlier prompt.
        rounds: pairs of prompts.
    """
    new: list[float] = []
    known: list[float] = []
    for seed in range(rounds):
        earlier, other, ending = engine.prompts(Workload(3, prompt_tokens), seed)
        first_token_s(engine, earlier)
        similar = [*earlier[:shared], *ending[shared:]]
        turns: list[tuple[list[int], Callable[[float], None]]] = [
            (other, new.append),
            (similar, known.append),
        ]
        for prompt, note in turns if seed % 2 else reversed(turns):
            note(first_token_s(engine, prompt))
    return new, known


def lookup_s(holders: int, prompt_tokens: int, repeats: int) -> list[float]:
    """Returns how long finding the best of many kept prompts takes, which all begin alike."""
    beginning = Workload(1, prompt_tokens // 2).prompts(0)[0]
    *kept, prompt = (
        [*beginning, *ending]
        for ending in Workload(holders + 1, prompt_tokens - len(beginning)).prompts(1)
    )
    cache = PrefixCache()
    for slot, ids in enumerate(kept):
        cache.add(Donor(ids, SALT, slot, len(ids)))
    durations = []
    for _ in range(repeats):
        start = time.perf_counter()
        cache.best(prompt, SALT, len(prompt) - 1, ())
        durations.append(time.perf_counter() - start)
    return durations


def main() -> None:
    """Reads the arguments, measures and prints the figures."""
    parser = command.parser("bench.prefix_reuse", __doc__, rounds=9)
    parser.add_argument("--prompt-tokens", type=int, default=1000)
    parser.add_argument("--shared", type=int, default=990)
    parser.add_argument("--holders", type=int, default=64)
    arguments = command.parse(parser)
    engine = LocalEngine(command.folder(arguments), command.DTYPES[arguments.dtype])
    length, shared = arguments.prompt_tokens, arguments.shared
    first_token_s(engine, engine.prompts(Workload(1, length), -1)[0])  # the first of all is slow
    new, known = measure(engine, length, shared, arguments.rounds)
    ratios = [one / two for one, two in zip(new, known, strict=True)]
    lookups = lookup_s(arguments.holders, length, repeats=200)
    print("| first token of | ms: median (min to max) |\n|---|---|")
    print(f"| a prompt of {length} tokens | {spread([1000 * s for s in new], 0)} |")
    print(f"| one that begins with {shared} known ones | {spread([1000 * s for s in known])} |")
    print(f"| ratio within a pair | {spread(ratios)} |")
    print(
        f"| finding the best of {arguments.holders} kept prompts | "
        f"{spread([1000 * s for s in lookups], 3)} |"
    )


if __name__ == "__main__":
    main()
