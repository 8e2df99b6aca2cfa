"""Every result says what it can be reproduced with: model, vocabulary, type, level, seed."""

import grpc
import pytest
from google.protobuf.descriptor import Descriptor
from lockstep.v1 import generation_pb2, model_service_pb2, model_service_pb2_grpc, scores_pb2
from lockstep.v1 import logits_session_service_pb2 as session_pb

from checkpoints import resolve
from lockstep_client import ScoreSelection
from lockstep_client._results.determinism import Determinism
from tests.integration.model_process import ragged
from tests.services import Services

RESULTS = {
    scores_pb2.PositionScores.DESCRIPTOR.full_name,
    generation_pb2.GeneratedSequence.DESCRIPTOR.full_name,
    model_service_pb2.TokenDelta.DESCRIPTOR.full_name,
}
STAMP = generation_pb2.Determinism.DESCRIPTOR.full_name
PROMPTS = [[5, 6, 7], [40, 41]]
SAMPLED = {"do_sample": True, "temperature": 1.3}


def within(message: Descriptor, found: set[str] | None = None) -> set[str]:
    """Names the messages that a message can hold, itself included."""
    found = set() if found is None else found
    if message.full_name not in found:
        found.add(message.full_name)
        for field in message.fields:
            if field.message_type is not None:
                within(field.message_type, found)
    return found


def results() -> list[Descriptor]:
    """The responses of all methods that hold tokens or distributions."""
    services = [
        model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
        session_pb.DESCRIPTOR.services_by_name["LogitsSessionService"],
    ]
    outputs = [method.output_type for service in services for method in service.methods]
    return [output for output in outputs if within(output) & RESULTS]


@pytest.mark.parametrize("message", results(), ids=lambda message: message.name)
def test_a_response_with_a_result_has_a_stamp_and_a_vocabulary(message):
    assert {STAMP, "lockstep.v1.VocabularyRef"} <= within(message)


def test_there_are_responses_with_results():
    assert {message.name for message in results()} >= {
        "GenerateResponse",
        "GenerateStreamResponse",
        "OpenSessionResponse",
        "StepResponse",
        "StepStreamResponse",
        "ScoreResponse",
        "ComputeLogitsResponse",
    }


def test_every_method_gives_the_same_stamp(services: Services):
    with services.client() as client:
        info = client.model.info()
        stamp = info.determinism
        assert (
            stamp.model_fingerprint == resolve(str(services.checkpoint), need="model").fingerprint
        )
        assert stamp.level == "seeded"
        assert stamp.dtype == "float32"
        assert stamp.rng
        assert stamp.attention
        generation = client.model.generate(PROMPTS, max_new_tokens=2)
        with client.model.open_session(PROMPTS) as session:
            step = session.step([[1], [2]])
            stamps = [session.determinism, step.determinism]
            with session.step_stream() as steps:
                stamps.append(steps.step([[1], [2]]).determinism)
            with client.model.get_session(session.session_id) as found:
                stamps.append(found.determinism)
            vocabularies = [session.vocabulary, found.vocabulary]
        next_token = client.model.compute_logits(PROMPTS)
        stamps += [generation.determinism, next_token.determinism]
        vocabularies += [generation.vocabulary, next_token.vocabulary]
        with grpc.insecure_channel(services.model.address) as channel:
            request = model_service_pb2.ScoreRequest(prompt=ragged(*PROMPTS))
            scored = model_service_pb2_grpc.ModelServiceStub(channel).Score(request)
        stamps.append(Determinism.from_message(scored.determinism))
        assert stamps == [stamp] * len(stamps)
        assert vocabularies == [info.vocabulary] * len(vocabularies)


def test_the_seed_of_a_result_reproduces_it_anywhere(services: Services):
    """A seed that the server chose gives the same draws by itself, in a call or in steps."""
    with services.client() as client:
        out = client.model.generate(PROMPTS, max_new_tokens=6, **SAMPLED)
        for prompt, tokens, seed in zip(PROMPTS, out.sequences, out.seeds, strict=True):
            alone = client.model.generate([prompt], max_new_tokens=6, seed=seed, **SAMPLED)
            assert alone.sequences == [tokens]
            assert alone.seeds == [seed]
            none = ScoreSelection()
            with client.model.open_session(
                [prompt[:-1] or prompt], seed=seed, selection=none, **SAMPLED
            ) as session:
                ids, drawn = [prompt[-1:]], []
                for _ in range(6):
                    step = session.step(ids, sample=True, append=True)
                    assert step.seeds == (seed,)
                    drawn.append(step.sampled_token_ids[0])
                    ids = [[]]
            assert drawn == tokens
