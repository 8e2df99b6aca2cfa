"""What the judge measures: parts, each with its cases, its sides and its figures."""

from bench.parts.engine import Products, Sampler
from bench.parts.front import Front
from bench.parts.generation import Arrivals, Prefill, Streams
from bench.parts.part import Part
from bench.parts.processes import Memory, Start
from bench.parts.steps import Steps
from bench.parts.text import Text

PARTS: tuple[type[Part], ...] = (
    Streams,
    Prefill,
    Arrivals,
    Products,
    Sampler,
    Steps,
    Front,
    Text,
    Start,
    Memory,
)
"""In the order of the report."""
