"""Every public name and keyword of the Python client is one of the TypeScript client."""

import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any, is_typeddict

import pytest

import lockstep_client
from tests.integration.node.package import PROBES, needs_node, run

# What is only Python's, and why.
NAMES = {
    "USE_DEFAULT": "`undefined` is the client's own limit, `null` is none",
    "InvalidArgument": "wrong arguments are `TypeError`s, as in all of JavaScript",
    "PromptOptions": "`**batch` is Python's",
    "__version__": "package.json has it",
}
MEMBERS = {
    ("Batch", "return_tensors"): "tensors are typed arrays",
    ("Completion", "of"): "the constructor does it",
    ("Generation", "raise_for_errors"): "`throwErrors`: errors are thrown here",
    ("Padded", "of_equal_rows"): "a static method of both",
    ("Padded", "to_torch"): "there is no torch",
    ("Tls", "credentials"): "of grpcio",
}
# A method's parameters: prompts and messages are one argument, which has either.
KEYWORDS = {
    "generation_config": "an object of keywords is spread",
    "input_ids": "of `**batch`",
    "attention_mask": "of `**batch`",
    "position_ids": "of `**batch`",
    "return_tensors": "tensors are typed arrays",
    "messages": "the prompt is a text or messages",
}
RENAMED = {"timeout": "timeoutMs", "stream_timeout": "streamTimeoutMs"}
WIRE = {"from_message", "to_message"}

CLASSES = [
    name
    for name in lockstep_client.__all__
    if name not in NAMES and not name.startswith("Async")  # every call here is asynchronous
]

pytestmark = needs_node


@pytest.fixture(scope="module")
def names(built: Path) -> dict[str, dict[str, list[str]]]:
    """Members of what the package exports, and the parameters and options of each method."""
    return json.loads(run(["node", str(PROBES / "names.mjs"), str(built)], built))


def _camel(name: str) -> str:
    return RENAMED.get(name) or re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)


def _members(of: Any) -> set[str]:
    """The public members that a class has by itself or by its fields."""
    if is_typeddict(of):
        return {name for name in of.__annotations__ if name not in KEYWORDS}
    members = {name for base in of.__mro__[:-1] if _is_ours(base) for name in vars(base)}
    if dataclasses.is_dataclass(of):
        members |= {field.name for field in dataclasses.fields(of)}
    return {each for each in members if not each.startswith("_") and not each.isupper()} - WIRE


def _is_ours(base: type) -> bool:
    return base.__module__.startswith("lockstep_client")


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_has_the_members_and_methods_of_python_with_their_keywords(names, name):
    ours = names[name]
    of = getattr(lockstep_client, name)
    members = {each for each in _members(of) if (name, each) not in MEMBERS}
    assert {_camel(each) for each in members} <= ours.keys()
    for member in members:
        method = vars(of).get(member)
        if inspect.isfunction(method):
            parameters = inspect.signature(method).parameters.keys() - {"self"} - KEYWORDS.keys()
            expected = {_camel(each) for each in parameters}
            assert expected <= set(ours[_camel(member)]), member


def test_a_client_is_made_with_the_keywords_of_python(names):
    keywords = inspect.signature(lockstep_client.Lockstep).parameters
    assert {_camel(each) for each in keywords} == names["LockstepOptions"].keys()


def test_what_is_only_pythons_is_said_once_and_exists():
    assert all(hasattr(lockstep_client, name) for name in NAMES)
    for name, member in MEMBERS:
        assert member in _members(getattr(lockstep_client, name))
