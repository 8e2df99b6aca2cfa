"""Parts about the engine alone: a step beside its products, and the sampler by warper."""

from collections.abc import Mapping, Sequence
from functools import partial

from bench.parts.part import Figure, Part, Side
from bench.warpers import WARPERS

SAMPLED_ROWS = 32


class Products(Part):
    """A decoding step, and the products in it."""

    name = "products"
    title = "A decoding step of the engine alone, and the packed products in it"
    case_title = "rows"
    figures = (Figure("step_ms", "ms"),)  # the ratio is the step to its products

    @property
    def cases(self) -> Sequence[str]:
        return [str(rows) for rows in self._setup.streams]

    def sides(self) -> Mapping[str, Side]:
        def measure(method: str, case: str, seed: int) -> dict[str, float]:
            return self._setup.engine.ask({"measure": method, "rows": int(case), "seed": seed})

        precision = self._setup.precision
        return {
            f"step {precision}": partial(measure, "step"),
            f"products {precision}": partial(measure, "products"),
        }


class Sampler(Part):
    """The choice of tokens from a model's logits."""

    name = "sampler"
    title = f"Choosing {SAMPLED_ROWS} tokens, by what each row asks for"
    case_title = "rows"
    figures = (Figure("step_ms", "ms", 2),)

    cases = tuple(WARPERS)

    def sides(self) -> Mapping[str, Side]:
        def measure(case: str, seed: int) -> dict[str, float]:
            return self._setup.engine.ask(
                {"measure": "sampler", "warper": case, "rows": SAMPLED_ROWS, "seed": seed}
            )

        return {"ours": measure}
