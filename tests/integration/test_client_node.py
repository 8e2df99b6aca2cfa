"""The TypeScript client, packed and installed as its users install it, against real services."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
from lockstep.v1 import tokenizer_service_pb2 as messages

from lockstep_client import Lockstep, ScoreSelection
from lockstep_client._transport.service_config import IDEMPOTENT_METHODS
from rpc import errors
from tests.callers import write_principals
from tests.integration.model_process import counting_process
from tests.integration.rpc_probe import running
from tests.integration.test_client_connection import Counting
from tests.ports import free_port
from tests.services import ROOT, ServiceProcess, Services, running_process

SOURCE = ROOT / "client" / "node"
PROBES = Path(__file__).with_name("node_probes")
TEXTS = ["The capital of France is", "Grüße aus 東京 🙂"]
MESSAGES = [{"role": "user", "content": "Say hello."}]
GREEDY: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": []}
COUNT = 150  # rows, more than go with one request
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH")

pytestmark = pytest.mark.skipif(
    shutil.which("npm") is None or shutil.which("node") is None, reason="needs Node.js and npm"
)


def _run(command: list[str], folder: Path, **environment: str) -> str:
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    if result.returncode and any(f"npm error code {word}" in result.stderr for word in UNREACHABLE):
        pytest.skip("needs the package registry of npm")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client, its dependencies installed from the lock, compiled, in a folder of its own."""
    folder = tmp_path_factory.mktemp("node") / "client"
    ignored = shutil.ignore_patterns("node_modules", "dist", "protos", "schema")
    shutil.copytree(SOURCE, folder, ignore=ignored)
    _run(["npm", "ci"], folder)
    _run(["npm", "run", "build"], folder, LOCKSTEP_PROTOS=str(ROOT / "protos"))
    return folder


def _probe(name: str, package: Path, **environment: str) -> Any:
    return json.loads(
        _run(["node", str(PROBES / f"{name}.mjs"), str(package)], package, **environment)
    )


@pytest.fixture(scope="module")
def texts(built: Path, services: Services) -> dict[str, Any]:
    return _probe("texts", built, **services.environment)


@pytest.fixture(scope="module")
def rows(built: Path, services: Services) -> dict[str, Any]:
    return _probe("rows", built, **services.environment, COUNT=str(COUNT))


@pytest.fixture(scope="module")
def sessions(built: Path, services: Services) -> dict[str, Any]:
    return _probe("sessions", built, **services.environment)


@pytest.fixture(scope="module")
def refusals(built: Path, services: Services) -> dict[str, Any]:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,  # it listens and answers nobody
        services.model.cancelling("GenerateStream"),  # the stream that the probe leaves
    ):
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        return _probe("refusals", built, **services.environment, SILENT=address)


@pytest.fixture(scope="module")
def growth(
    built: Path, services: Services, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What became of the vocabulary of a tokenizer service of its own."""
    folder = tmp_path_factory.mktemp("growth")
    flags = (f"--model={services.checkpoint}", f"--store=sqlite:///{folder / 'vocabulary.db'}")
    with running_process("tokenizer_service", *flags, folder=folder) as grown:
        with Lockstep(tokenizer=grown.address, model=services.model.address) as client:
            client.wait_until_ready()
            width = client.model.info().hidden_size
        environment = {**services.environment, "LOCKSTEP_TOKENIZER": grown.address}
        return _probe("growth", built, **environment, WIDTH=str(width))


@pytest.fixture
def client(services: Services):
    with services.client() as client:
        yield client


def _rectangle(tensor: dict[str, Any]) -> list[list[int]]:
    return np.reshape(tensor["data"], tensor["shape"]).tolist()


def test_texts_become_the_ids_that_the_python_client_gets(texts, client: Lockstep):
    batch = client.tokenizer.encode(TEXTS)
    assert texts["batch"]["tokenIds"] == batch.token_ids
    assert texts["batch"]["vocabulary"]["fingerprint"] == batch.vocabulary.fingerprint
    assert texts["counts"] == [len(row) for row in batch.token_ids]
    assert texts["decoded"] == TEXTS
    assert texts["decodedRow"] == texts["decodedStream"] == TEXTS[1]
    assert [row["roundTrip"] for row in texts["decodedRows"]] == [True, True]


def test_padding_mask_and_positions_are_those_of_the_python_client(texts, client: Lockstep):
    left = client.tokenizer.encode(TEXTS, padding="longest", pad_to_multiple_of=8)
    right = client.tokenizer.pad(left, padding_side="right")
    extended = left.extended([[7], [8, 9]])
    for name, batch in (("batch", left), ("right", right), ("extended", extended)):
        given = texts[name]["padded"]
        assert given["paddingSide"] == batch.padded.padding_side
        assert _rectangle(given["inputIds"]) == batch.input_ids.tolist()
        assert _rectangle(given["attentionMask"]) == batch.attention_mask.tolist()
        assert _rectangle(given["positionIds"]) == batch.position_ids.tolist()
    assert texts["extended"]["tokenIds"] == extended.token_ids


def test_offsets_index_the_texts_of_javascript(texts):
    units = TEXTS[1].encode("utf-16-le")
    encoding = texts["batch"]["encodings"][1]
    start, end = encoding["offsets"][-1]
    assert units[2 * start : 2 * end].decode("utf-16-le") == "🙂"
    assert len(encoding["tokens"]) == len(encoding["offsets"])


def test_messages_are_rendered_as_for_the_python_client(texts, client: Lockstep):
    batch = client.tokenizer.apply_chat_template(MESSAGES)
    assert texts["chat"] == {"tokenIds": batch.token_ids, "texts": batch.texts}
    answer = client.generate(messages=MESSAGES, max_new_tokens=8)
    assert texts["answer"]["text"] == answer.text
    assert texts["answer"]["tokenIds"] == answer.token_ids


def test_tokens_are_those_that_the_python_client_gets(texts, client: Lockstep):
    batch = client.tokenizer.encode(TEXTS)
    greedy = client.model.generate(batch, **GREEDY)
    assert texts["greedy"]["sequences"] == greedy.sequences
    assert texts["greedy"]["finishReasons"] == greedy.finish_reasons
    sampling = {"max_new_tokens": 12, "do_sample": True, "temperature": 1.5, "top_k": 0, "seed": 11}
    sampled = client.model.generate(batch, **sampling)
    assert texts["sampled"]["sequences"] == sampled.sequences
    assert texts["sampled"]["seeds"] == [str(seed) for seed in sampled.seeds]


def test_the_configuration_of_an_answer_gives_the_same_answer_again(texts):
    assert texts["again"] == texts["sampled"]["sequences"]


def test_rows_of_logits_are_those_of_which_the_tokens_are_the_largest(texts):
    greedy = texts["greedy"]
    assert greedy["logits"]["shape"] == greedy["scores"] == [2, 12, 320]
    assert int(np.argmax(greedy["logits"]["last"])) == greedy["sequences"][1][11]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_logits_of_each_type_of_the_wire_are_those_of_the_python_client(
    texts, client: Lockstep, dtype
):
    batch = client.tokenizer.encode(TEXTS)
    selection = ScoreSelection(logits=True, full=True, dtype=dtype)
    expected = client.model.compute_logits(batch, selection=selection).logits
    given = texts["distributions"][dtype]
    assert given["shape"] == list(expected.shape)
    # Both are rounded of a float32 that the composition of a step may change in its last bits.
    spacing = {"float32": 2**-20, "float16": 2**-10, "bfloat16": 2**-7}[dtype]
    np.testing.assert_allclose(
        given["first"], expected[0].astype(np.float64), rtol=spacing, atol=1e-5
    )


def test_the_words_for_full_rows_are_the_same_in_every_call(texts):
    words = texts["words"]
    assert words["computed"] == [[2, 320], [2, 320]]
    assert words["scored"] == [[320, 0], [320, 0]]
    assert words["opened"] == [[320, 320], [0, 320]]
    assert words["traced"] > 0
    assert words["both"]["message"] == "Give selection, or outputLogits, not both."


def test_scores_are_those_of_the_python_client(texts, client: Lockstep):
    batch = client.tokenizer.encode(TEXTS)
    selection = ScoreSelection(rank=True, top_k=2, logits=True)
    expected = client.model.score(batch, [[1, 2], [3]], selection=selection)
    for given, scored in zip(texts["scored"], expected, strict=True):
        assert given["logitsLogprob"] == pytest.approx(scored.logits_logprob)
        assert [p["rank"] for p in given["scores"]] == [p.rank for p in scored.scores]
        for position, of_python in zip(given["scores"], scored.scores, strict=True):
            ids = [token["tokenId"] for token in position["tokens"]]
            assert ids == [token.token_id for token in of_python.tokens]


def test_a_stream_gives_what_the_whole_answer_has(texts):
    rows: list[list[int]] = [[], []]
    for delta in texts["streamed"]["deltas"]:
        rows[delta["promptIndex"]] += delta["tokenIds"]
    assert rows == texts["streamed"]["sequences"] == texts["greedy"]["sequences"]


def test_text_arrives_in_pieces_that_never_hold_half_a_character(texts):
    assert "".join(texts["pieces"]) == "🙂東"
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in texts["pieces"])
    assert len(texts["forced"]["ids"]) > 2
    completion = texts["forced"]["completion"]
    assert completion["text"] == texts["forced"]["asText"] == "🙂東"
    assert completion["tokenIds"] == texts["forced"]["ids"]


def test_services_describe_themselves_as_to_the_python_client(texts, client: Lockstep):
    tokenizer, model = client.tokenizer.info(), client.model.info()
    assert texts["tokenizerInfo"]["specialTokens"] == tokenizer.special_tokens
    assert texts["tokenizerInfo"]["chatTemplates"] == tokenizer.chat_templates
    assert texts["modelInfo"]["parameterCount"] == model.parameter_count
    assert texts["modelInfo"]["determinism"]["level"] == model.determinism.level
    assert texts["modelInfo"]["vocabularyFollowing"]["state"] == "following"
    assert texts["capabilities"]["methods"] == client.model.capabilities().methods
    names = [processor.name for processor in client.model.logits_processors()]
    assert [processor["name"] for processor in texts["processors"]] == names
    plan = client.model.validate(client.tokenizer.encode(TEXTS), **GREEDY)
    assert texts["plan"]["kvTokenCount"] == plan.kv_token_count
    assert texts["converted"]["ids"] == client.tokenizer.convert_tokens(["a", "nowhere"]).ids
    assert texts["entries"] == list(range(300, 320))
    assert texts["artifact"] == "PK"


def test_any_number_of_texts_is_encoded_padded_counted_and_decoded_in_order(rows, client: Lockstep):
    texts = [f"text {row} " + "abc " * (row % 7) for row in range(COUNT)]
    batch = client.tokenizer.encode(texts, padding="longest")
    assert rows["batch"]["tokenIds"] == batch.token_ids
    for name, expected in (
        ("inputIds", batch.input_ids),
        ("attentionMask", batch.attention_mask),
        ("positionIds", batch.position_ids),
    ):
        assert _rectangle(rows["batch"]["padded"][name]) == expected.tolist()
    assert rows["counts"] == client.tokenizer.count_tokens(texts)
    assert rows["decoded"] == client.tokenizer.decode(batch)
    assert rows["manyBytes"] == 1


def test_any_number_of_prompts_has_the_tokens_and_seeds_that_the_python_client_gets(
    rows, client: Lockstep
):
    prompts, drawn = rows["batch"]["tokenIds"], rows["drawn"]
    expected = client.model.generate(prompts, max_new_tokens=4, do_sample=True, seed=7)
    assert drawn["promptIndices"] == list(range(COUNT))
    assert drawn["sequences"] == expected.sequences
    assert drawn["seeds"] == [str(seed) for seed in expected.seeds]
    assert drawn["completionTokenCount"] == expected.usage.completion_token_count
    assert rows["padded"] == rows["ragged"]
    logprobs = [row.logits_logprob for row in client.model.score(prompts)]
    assert rows["scored"] == pytest.approx(logprobs, abs=1e-4)


def test_a_list_of_texts_gives_a_list_of_completions_in_order(rows, client: Lockstep):
    assert [each["tokenIds"] for each in rows["completions"]] == rows["drawn"]["sequences"]
    assert [each["seed"] for each in rows["completions"]] == rows["drawn"]["seeds"]
    texts = client.tokenizer.decode(rows["drawn"]["sequences"])
    assert [each["text"] for each in rows["completions"]] == texts
    assert rows["alone"][0] == rows["alone"][1]
    assert rows["none"] == []
    options = {"max_new_tokens": 2, "do_sample": False}
    conversations = [[{"role": "user", "content": f"abc {n}"}] for n in range(2)]
    expected = client.generate(messages=conversations, **options)
    assert rows["answers"] == [each.token_ids for each in expected]


def test_one_row_that_is_wrong_fails_with_its_number_and_costs_no_other_its_result(rows):
    for call in ("decode", "score", "generate"):
        failure = rows["wrong"][call]
        assert (failure["reason"], failure["metadata"]["row"]) == ("TOKEN_ID_OUT_OF_RANGE", "70")
        assert "row 70" in failure["message"]
        ((row, reason, message),) = rows["returned"][call]
        assert (row, reason) == (70, "TOKEN_ID_OUT_OF_RANGE")
        assert "row 70" in message
    expected, given = rows["others"]
    assert given == expected


def test_a_text_that_fails_leaves_an_empty_row_or_its_error(rows):
    partly = rows["partly"]
    assert (partly["empty"], partly["errorRows"], partly["errors"]) == ([70], [70], 1)
    assert partly["mask"]
    assert partly["shape"][0] == COUNT
    assert rows["long"][1] == rows["tooLong"]["reason"] == "CONTEXT_LENGTH_EXCEEDED"
    assert rows["long"][0] == rows["long"][2] == rows["alone"][0]


def test_a_call_with_many_rows_ends_at_its_limit_or_when_it_is_aborted(rows):
    assert rows["late"]["name"] == "DeadlineExceeded"
    assert rows["left"]["name"] == "TimeoutError"  # the reason of the caller's signal


def test_progress_is_told_up_to_the_last_row(rows):
    counts = [num_done for num_done, _ in rows["seen"]]
    assert counts == sorted(counts)
    assert len(counts) > 1
    assert rows["seen"][-1] == [COUNT, COUNT]


def test_an_answer_that_is_too_large_comes_in_smaller_ones(rows):
    assert rows["large"]["count"] == rows["large"]["expected"]
    assert rows["large"]["equal"]


def test_options_of_many_rows_that_do_not_fit_are_refused(rows):
    assert rows["errors"]["message"] == "errors is one of 'raise', 'return', not 'ignore'."
    assert rows["concurrency"]["message"] == "concurrency takes whole numbers from 1 on, not 0."


def test_tokens_that_the_caller_chooses_are_those_that_the_server_would(sessions, client: Lockstep):
    prompts = [[5, 6, 7], [8, 9]]
    expected = client.model.generate(prompts, max_new_tokens=6, do_sample=False, eos_token_id=[])
    assert sessions["stepped"]["chosen"] == expected.sequences
    assert sessions["stepped"]["position"] == [9, 8]
    rows = [[*prompt, *new] for prompt, new in zip(prompts, expected.sequences, strict=True)]
    assert sessions["stepped"]["tokenIds"] == rows
    assert sessions["overStream"] == expected.sequences


def test_rows_are_cut_copied_selected_and_left_alone(sessions):
    first, second = sessions["stepped"]["tokenIds"]
    assert sessions["unknown"] is None
    assert sessions["before"] == [9, 8]
    assert sessions["copied"] == {"position": [8, 8, 9], "tokenIds": [second, second, first]}
    assert sessions["selected"] == {"position": [9], "tokenIds": [first]}
    assert sessions["alone"] == [9, 9]


def test_a_generation_of_a_session_that_was_left_is_undone(sessions):
    (row,) = sessions["generated"]["sequences"]
    assert len(row) == 4
    assert sessions["generated"]["after"] == [13]
    assert sessions["undone"] == [14]


def test_a_session_is_found_again_and_holds_nothing_when_it_is_closed(sessions):
    assert len(sessions["sampled"]["ids"]) == 1
    assert sessions["sampled"]["position"] == sessions["found"] == [16]
    assert sessions["continued"] == [5]
    assert sessions["closedTwice"] is None
    assert sessions["gone"]["reason"] == "SESSION_NOT_FOUND"


def test_names_that_do_not_exist_are_refused_with_the_one_that_was_meant(refusals):
    meant = {
        "generate": "'max_new_tokens' is not an option of this call. Did you mean 'maxNewTokens'?",
        "stream": "'maxNewToken' is not an option of this call. Did you mean 'maxNewTokens'?",
        "encode": "'paddding' is not an option of this call. Did you mean 'padding'?",
        "client": "'tokeniser' is not an option of a client. Did you mean 'tokenizer'?",
        "nothingClose": "'streamer' is not an option of this call.",
        "nested": "'bia' is not a field of greenListWatermark. Did you mean 'bias'?",
        "selection": "'top_k' is not a field of scores. Did you mean 'topK'?",
    }
    assert {call: failure["message"] for call, failure in refusals["names"].items()} == meant
    assert {failure["name"] for failure in refusals["names"].values()} == {"TypeError"}


def test_values_that_do_not_fit_are_refused_with_what_would(refusals):
    expected = {
        "errors": "errors is one of 'raise', 'return', not 'ignore'.",
        "choice": "seedMode is one of 'counter', 'torch', not 'torc'.",
        "number": "temperature takes a number, not '0.5'.",
        "boolean": "doSample takes a boolean, not 1.",
        "seed": "Give a bigint.",
        "row": "rows of token ids are expected, for example [[1, 2], [3]], not 5.",
        "text": "Prompts are a batch, or rows of token ids, for example [[1, 2], [3]].",
        "role": "Every message needs a role.",
        "several": "model.generate returns several sequences.",
        "truncation": "truncation needs maxLength.",
        "ragged": "encode with padding: 'longest', or pad it.",
        "address": "model is an address without http://",
        "port": "model needs a port, for example localhost:50051.",
    }
    assert refusals["values"].keys() == expected.keys()
    for value, sentence in expected.items():
        assert refusals["values"][value]["name"] == "TypeError"
        assert sentence in refusals["values"][value]["message"]


def test_ids_that_are_no_whole_numbers_are_refused(refusals):
    assert len(refusals["noIds"]) == 41
    assert "eosTokenId takes" in refusals["noIds"][3]["message"]
    for refused in refusals["noIds"]:
        assert refused["name"] == "TypeError"
        assert "whole numbers" in refused["message"]


def test_a_refused_call_says_why_for_programs_and_for_people(refusals):
    refused = refusals["refused"]
    assert refused["unknownId"]["name"] == "ServiceError"
    assert refused["unknownId"]["code"] == "INVALID_ARGUMENT"
    assert refused["unknownId"]["reason"] == "TOKEN_ID_OUT_OF_RANGE"
    assert refused["unknownId"]["metadata"]["tokenId"] == "99999"
    assert "99999" in refused["unknownId"]["message"]
    assert refused["empty"]["reason"] == refused["emptyStreamed"]["reason"] == "INVALID_FIELD"
    fields = [violation["field"] for violation in refused["fields"]["violations"]]
    assert fields == ["generation_config.temperature", "generation_config.top_p"]
    assert refused["session"]["reason"] == "SESSION_NOT_FOUND"


def test_a_service_that_is_away_has_a_sentence_of_its_own(refusals):
    for failure in refusals["nobody"].values():
        assert (failure["name"], failure["code"]) == ("ConnectionFailed", "UNAVAILABLE")
        assert "Cannot reach the " in failure["message"]
    for call in ("refused", "streamed", "duplex", "ready"):
        message = refusals["nobody"][call]["message"]
        assert "service at localhost:1: no" in message  # `nothing listens` or `nobody answers`
        assert message.endswith("Is the service running?")
    assert "it does not speak TLS" in refusals["nobody"]["tls"]["message"]


def test_swapped_addresses_are_told_from_a_method_that_is_missing(refusals):
    assert refusals["swapped"]["name"] == "ProtocolError"
    expected = "is a tokenizer service; the model service was expected there."
    assert expected in refusals["swapped"]["message"]


def test_every_kind_of_call_ends_at_its_limit_where_nobody_answers(refusals):
    assert [failure["name"] for failure in refusals["silent"]] == ["DeadlineExceeded"] * 4


def test_calls_end_when_they_are_left_aborted_or_their_client_is_closed(refusals):
    assert refusals["left"]["result"]["name"] == "ProtocolError"
    assert refusals["aborted"]["message"] == "enough"
    assert [failure["name"] for failure in refusals["closed"]] == ["Cancelled"] * 3


def test_tokens_are_added_with_vectors_and_in_use_at_once(growth):
    tool, copy = growth["added"]["ids"]
    assert growth["dry"]["ids"] == [tool]
    assert growth["dry"]["revision"] == growth["added"]["vocabulary"]["revision"] == 1
    assert tool not in growth["before"][0]
    assert tool in growth["after"][0]
    assert growth["decoded"] == "<tool>"
    assert (copy, growth["roles"]["revision"]) == (tool + 1, 2)


def test_ids_go_with_the_newest_vocabulary_that_the_client_has_seen(growth):
    """The model here follows another tokenizer service, and knows no revision of this one."""
    assert growth["afterDryRun"] is None
    assert growth["bareIds"]["reason"] in ("VOCABULARY_BEHIND", "VOCABULARY_MISMATCH")
    assert growth["bareIds"]["metadata"]["requestRevision"] == "2"


def test_revisions_are_watched_listed_verified_and_archived(growth):
    base, tokens, roles = growth["revisions"]
    assert base["vocabulary"]["revision"] == 0
    assert growth["seen"] == tokens
    assert [token["content"] for token in tokens["tokens"]] == ["<tool>", "<copy>"]
    assert tokens["specialTokens"] == {"sep": growth["added"]["ids"][0]}
    assert roles["specialTokens"] == {"pad": growth["added"]["ids"][1]}
    assert growth["verified"]["valid"]
    assert growth["imported"]["numRevisions"] == 2
    assert growth["imported"]["numImportedRevisions"] == 0


def test_changes_of_the_vocabulary_fail_by_reason(growth):
    assert growth["exists"]["reason"] == "TOKEN_EXISTS"
    assert growth["conflict"]["reason"] == "REVISION_CONFLICT"
    assert "role is one of 'bos', 'eos', 'pad'" in growth["role"]["message"]


def test_calls_have_an_id_in_the_logs_and_the_trace_that_they_are_given(
    built: Path, services: Services
):
    trace, request_id = "4bf92f3577b34da6a3ce929d0e0e4736", "named-by-the-caller"
    sent = {"TRACEPARENT": f"00-{trace}-00f067aa0ba902b7-01", "REQUEST_ID": request_id}
    _probe("traced", built, **services.environment, **sent)

    def calls(service: ServiceProcess, **fields: str) -> list[dict[str, Any]]:
        lines = map(json.loads, service.log.read_text().splitlines())
        return [line for line in lines if fields.items() <= line.items()]

    deadline = time.monotonic() + 10
    while not (named := calls(services.tokenizer, request_id=request_id)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    of_trace = [
        line
        for each in (services.tokenizer, services.model)
        for line in calls(each, trace_id=trace)
    ]
    methods = {line["method"].rpartition("/")[2] for line in of_trace if line["event"] == "call"}
    assert methods == {"Encode", "GenerateStream", "Decode"}
    assert len({line["request_id"] for line in of_trace}) == 1
    assert "trace_id" not in named[0]


class Failing(Counting):
    """Counts calls, and fails the first ones; some fail after their first message."""

    def __init__(self, *failures: errors.ServiceError, messages_before: int = 0):
        super().__init__(*failures)
        self.messages_before = messages_before

    async def GetVocabulary(self, request, context):
        for _ in range(self.messages_before):
            yield messages.GetVocabularyResponse()
        yield self._answer(messages.GetVocabularyResponse())


async def _call(built: Path, port: int, method: str, **environment: str) -> Any:
    address = {"LOCKSTEP_TOKENIZER": f"localhost:{port}", "LOCKSTEP_MODEL": f"localhost:{port}"}
    probe = await asyncio.to_thread(
        _probe, "retries", built, METHOD=method, **address, **environment
    )
    return probe["failure"]


def _overloaded() -> errors.Overloaded:
    return errors.Overloaded("calls", 1, retry_delay_s=0.01)


@pytest.mark.parametrize("method", ["encode", "vocabulary"])
async def test_a_call_that_is_refused_for_now_is_made_again(built: Path, method):
    service = Failing(_overloaded(), errors.Loading())
    async with running(service) as (server, _):
        assert await _call(built, server.port, method) is None
    assert service.calls == 3


async def test_a_stream_that_has_begun_is_not_made_again(built: Path):
    service = Failing(_overloaded(), messages_before=1)
    async with running(service) as (server, _):
        failure = await _call(built, server.port, "vocabulary")
    assert (failure["reason"], failure["retryDelayMs"], service.calls) == ("OVERLOADED", 10, 1)


async def test_repetition_can_be_switched_off(built: Path):
    service = Failing(_overloaded())
    async with running(service) as (server, _):
        failure = await _call(built, server.port, "encode", RETRIES="0")
    assert (failure["reason"], service.calls) == ("OVERLOADED", 1)


def test_a_call_that_nobody_has_looked_at_is_made_again_by_grpc_itself(built: Path):
    answers = _probe("refused", built)
    assert answers == {"encode": None, "openSession": None, "vocabulary": None, "numStreams": 6}


async def test_both_sides_show_their_certificates(built: Path, tmp_path: Path):
    authority = trustme.CA()
    of_server, of_client = authority.issue_cert("localhost"), authority.issue_cert("client.test")
    for name, data in (
        ("ca", authority.cert_pem),
        ("server", of_server.cert_chain_pems[0]),
        ("server.key", of_server.private_key_pem),
        ("client", of_client.cert_chain_pems[0]),
        ("client.key", of_client.private_key_pem),
    ):
        data.write_to_path(tmp_path / name)
    settings = {
        "tls_certificate": tmp_path / "server",
        "tls_key": tmp_path / "server.key",
        "tls_client_ca": tmp_path / "ca",
    }
    service = Failing()
    async with running(service, **settings) as (server, _):
        ca = {"CA": str(tmp_path / "ca"), "RETRIES": "0"}
        own = {"CERTIFICATE": str(tmp_path / "client"), "KEY": str(tmp_path / "client.key")}
        assert await _call(built, server.port, "encode", **ca, **own) is None
        without = await _call(built, server.port, "encode", **ca)
    assert (without["name"], service.calls) == ("ConnectionFailed", 1)


async def test_a_token_says_who_calls(built: Path, tmp_path: Path):
    principals = write_principals(tmp_path / "principals.toml", {"alice": {"roles": ["inference"]}})
    service = Failing()
    async with running(service, principals=principals) as (server, _):
        assert await _call(built, server.port, "encode", TOKEN="alice\n") is None
        unknown = await _call(built, server.port, "encode", TOKEN="eve")
        denied = await _call(built, server.port, "vocabulary", TOKEN="alice")
    assert (unknown["reason"], unknown["metadata"]["cause"]) == ("UNAUTHENTICATED", "unknown")
    assert (denied["reason"], denied["metadata"]["role"]) == ("PERMISSION_DENIED", "info")
    assert service.calls == 1


def test_a_token_is_not_sent_in_plain_text_unless_that_is_allowed(refusals):
    assert refusals["token"]["name"] == "TypeError"
    assert "tokenInPlainText" in refusals["token"]["message"]


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder into which the packed client was installed."""
    folder = tmp_path_factory.mktemp("installed")
    _run(["npm", "pack", "--ignore-scripts", f"--pack-destination={folder}"], built)
    (archive,) = folder.glob("*.tgz")
    _run(["npm", "install", "--prefer-offline", str(archive)], folder)
    return folder


def test_the_packed_client_answers_where_it_is_installed(installed: Path, services: Services):
    package = installed / "node_modules" / "lockstep-client"
    assert {path.name for path in package.iterdir()} == {
        "LICENSE",
        "README.md",
        "dist",
        "package.json",
        "protos",
    }
    assert not (package / "dist" / "examples").exists()
    script = (
        "import { Lockstep } from 'lockstep-client';"
        "using(new Lockstep({ tokenizer: process.env.LOCKSTEP_TOKENIZER }));"
        "async function using(ls) {"
        " console.log(await ls.tokenizer.decode((await ls.tokenizer.encode('Hello')).tokenIds[0]));"
        " ls.close(); }"
    )
    command = ["node", "--input-type=module", "-e", script]
    assert _run(command, installed, **services.environment) == "Hello\n"


@pytest.mark.full
def test_its_types_are_found_where_it_is_installed(installed: Path, built: Path):
    (installed / "use.ts").write_text(
        "import { Lockstep, type Completion } from 'lockstep-client';\n"
        "const ls = new Lockstep();\n"
        "export const good: Promise<Completion> = ls.generate('x', { maxNewTokens: 2 });\n"
        "// @ts-expect-error: no such keyword\n"
        "export const bad = ls.generate('x', { max_new_tokens: 2 });\n"
    )
    compiler = str(built / "node_modules" / ".bin" / "tsc")
    types = ["--types", "node", "--typeRoots", str(built / "node_modules" / "@types")]
    flags = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"]
    _run([compiler, *flags, *types, "use.ts"], installed)


def test_the_example_of_a_stream_prints_a_continuation(
    built: Path, services: Services, client: Lockstep
):
    prompt = "Once upon a time"
    printed = _run(["node", "dist/examples/capital.js", prompt], built, **services.environment)
    expected = client.generate(prompt, max_new_tokens=16, do_sample=False)
    assert printed == f"{expected.text}\n[16 tokens, max_new_tokens]\n"


def test_the_example_of_a_batch_answers_every_line_that_can_be_answered(
    built: Path, services: Services, client: Lockstep, tmp_path: Path
):
    prompts = ["Once upon", "x" * 3000, "The river"]  # the second is longer than the context
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    command = ["node", "dist/examples/batch.js", str(tmp_path / "prompts.txt")]
    lines = [json.loads(line) for line in _run(command, built, **services.environment).splitlines()]
    assert [line["prompt"] for line in lines] == prompts
    assert "context" in lines[1]["error"]
    for line in (lines[0], lines[2]):
        expected = client.generate(line["prompt"], max_new_tokens=16, do_sample=False)
        assert line["text"] == expected.text


def test_the_example_of_a_conversation_answers(built: Path, services: Services, client: Lockstep):
    printed = _run(["node", "dist/examples/chat.js", "Hello!"], built, **services.environment)
    question = [{"role": "user", "content": "Hello!"}]
    expected = client.generate(messages=question, max_new_tokens=64, do_sample=False)
    assert printed == f"{expected.text}\n"


def test_the_example_of_a_sampling_loop_chooses_what_the_server_would(
    built: Path, services: Services, client: Lockstep
):
    printed = _run(["node", "dist/examples/loop.js", "The river"], built, **services.environment)
    expected = client.generate("The river", max_new_tokens=8, do_sample=False, eos_token_id=[])
    assert printed == f"The river{expected.text}\n"


def test_methods_that_are_repeated_are_those_of_the_python_client(built: Path):
    paths = [f"/{name[::-1].replace('.', '/', 1)[::-1]}" for name in sorted(IDEMPOTENT_METHODS)]
    others = ["/lockstep.v1.LogitsSessionService/Step", "/lockstep.v1.LogitsSessionService/Fork"]
    script = (
        "import('./dist/src/transport/retries.js').then(({ isIdempotent }) =>"
        f" console.log(JSON.stringify({json.dumps([*paths, *others])}.filter(isIdempotent))))"
    )
    assert json.loads(_run(["node", "-e", script], built)) == paths


def test_sessions_are_followed_to_their_replica_and_opened_again(
    built: Path, tiny_checkpoint: Path, tmp_path: Path
):
    with ExitStack() as running:
        names = []
        for folder in (tmp_path / "one", tmp_path / "two"):
            folder.mkdir()
            names.append(f"127.0.0.1:{free_port()}")
            flags = [f"--port={names[-1].rpartition(':')[2]}", f"--replica={names[-1]}"]
            running.enter_context(counting_process(tiny_checkpoint, folder, *flags))
        seen = _probe("replicas", built, ONE=names[0], TWO=names[1])
    assert seen["token"] == names[0]
    assert seen["stepped"] == [7, 8, 12]
    assert (seen["sequences"], seen["streamed"]) == ([[8, 9]], [[10]])
    assert seen["forbidden"]["reason"] == "SESSION_ON_OTHER_REPLICA"
    assert seen["forbidden"]["metadata"]["address"] == names[0]
    assert seen["reopened"] == [8, [8, 9], [10], 8]
    assert seen["tokenIds"] == [[5, 6, 7, 8, 9, 10]]
    assert seen["sameSeeds"]
    assert seen["gone"]["reason"] == "SESSION_NOT_FOUND"
