"""The asyncio client is the blocking one with `await`: same names, same keywords."""

import inspect

import pytest

import lockstep_client
from lockstep_client.aio import lockstep as aio_lockstep
from lockstep_client.aio import model as aio_model
from lockstep_client.aio import session as aio_session
from lockstep_client.aio import step_stream as aio_step_stream
from lockstep_client.aio import tokenizer as aio_tokenizer
from lockstep_client.aio import vocabulary as aio_vocabulary
from lockstep_client.sync import lockstep, model, session, step_stream, tokenizer, vocabulary

TWINS = [
    (lockstep.Lockstep, aio_lockstep.AsyncLockstep),
    (tokenizer.Tokenizer, aio_tokenizer.AsyncTokenizer),
    (tokenizer.Decoder, aio_tokenizer.AsyncDecoder),
    (vocabulary.Vocabulary, aio_vocabulary.AsyncVocabulary),
    (model.Model, aio_model.AsyncModel),
    (session.Session, aio_session.AsyncSession),
    (step_stream.StepStream, aio_step_stream.AsyncStepStream),
]


def _public(cls: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(function)
        for name, function in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_") or name == "__init__"
    }


@pytest.mark.parametrize(("blocking", "asynchronous"), TWINS, ids=lambda cls: cls.__name__)
def test_both_clients_have_the_same_methods_with_the_same_parameters(blocking, asynchronous):
    ours, theirs = _public(blocking), _public(asynchronous)
    assert ours.keys() == theirs.keys()
    for name, signature in ours.items():
        parameters = [(p.name, p.kind, p.default) for p in signature.parameters.values()]
        twins = [(p.name, p.kind, p.default) for p in theirs[name].parameters.values()]
        assert parameters == twins, name


def test_exported_names_are_sorted_and_exist():
    names = lockstep_client.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name))
    assert all(hasattr(lockstep_client, name) for name in names)
