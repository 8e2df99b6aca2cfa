"""The `lockstep` command against the real services."""

import json
import os
import pty
import signal
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import lockstep_client
from lockstep_client import Lockstep
from lockstep_client._cli import app, token_text
from lockstep_client._cli.stepper import Stepper
from tests.services import ROOT, Services

PROMPT = "The capital of France is"
COMMAND = [sys.executable, "-c", "from lockstep_client._cli import main; main()"]


@pytest.fixture
def client(services: Services):
    with services.client() as client:
        yield client


@pytest.fixture
def lockstep(services: Services):
    """Runs the command in this process; returns its result."""
    runner = CliRunner(env={**services.environment, "COLUMNS": "120", "NO_COLOR": "1"})

    def run(*arguments: str, text: str | None = None):
        return runner.invoke(app, arguments, input=text)

    return run


@pytest.fixture
def environment(services: Services):
    path = os.pathsep.join([str(ROOT / "client/python"), str(ROOT / "protos/gen")])
    return {**os.environ, **services.environment, "PYTHONPATH": path}


def test_generate_prints_the_text_and_the_facts_apart(lockstep, client: Lockstep):
    expected = client.generate(PROMPT, max_new_tokens=8, do_sample=False)
    result = lockstep("generate", PROMPT, "-n", "8", "--greedy")
    assert result.exit_code == 0
    assert result.stdout == expected.text + "\n"
    assert "8 tokens · max new tokens" in result.stderr


def test_generate_reads_stdin_and_answers_in_json(lockstep, client: Lockstep):
    options = ("--temperature", "0.8", "--top-k", "20", "--top-p", "0.9", "--seed", "7")
    result = lockstep("generate", "-", "-n", "8", "--json", *options, text=PROMPT)
    answer = json.loads(result.stdout)
    expected = client.generate(
        PROMPT, max_new_tokens=8, do_sample=True, temperature=0.8, top_k=20, top_p=0.9, seed=7
    )
    assert (answer["text"], answer["token_ids"]) == (expected.text, expected.token_ids)
    assert answer["effective_config"]["do_sample"] is True


def test_a_seed_alone_says_that_tokens_are_drawn(lockstep, client: Lockstep):
    result = lockstep("generate", PROMPT, "-n", "8", "--seed", "7", "--json")
    expected = client.generate(PROMPT, max_new_tokens=8, do_sample=True, seed=7)
    assert json.loads(result.stdout)["token_ids"] == expected.token_ids


@pytest.mark.parametrize(("count", "is_shown"), [(65, True), (64, False)])
def test_many_texts_have_a_bar_on_a_terminal(environment, count, is_shown):
    leader, follower = pty.openpty()
    process = subprocess.run(
        [*COMMAND, "encode", "--json", *["abc"] * count],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=follower,
        timeout=60,
        check=True,
    )
    os.write(follower, b"end")
    os.close(follower)
    assert len(json.loads(process.stdout)["token_ids"]) == count
    assert (f"{count}/{count}".encode() in os.read(leader, 2**16)) is is_shown
    os.close(leader)


def test_generate_searches_with_beams(lockstep, client: Lockstep):
    expected = client.generate(PROMPT, max_new_tokens=8, do_sample=False, num_beams=3)
    greedy = client.generate(PROMPT, max_new_tokens=8, do_sample=False)
    assert expected.token_ids != greedy.token_ids
    result = lockstep("generate", PROMPT, "-n", "8", "--greedy", "--beams", "3", "--json")
    answer = json.loads(result.stdout)
    assert answer["token_ids"] == expected.token_ids
    assert answer["effective_config"]["num_beams"] == 3


def test_generate_asks_a_question_through_the_chat_template(lockstep, client: Lockstep):
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": PROMPT}]
    expected = client.generate(messages=messages, max_new_tokens=8)
    result = lockstep("generate", PROMPT, "--system", "Be short.", "-n", "8", "--json")
    assert json.loads(result.stdout)["prompt_token_ids"] == expected.prompt_token_ids


def test_chat_remembers_what_was_said(lockstep, client: Lockstep):
    messages = [{"role": "user", "content": "one"}]
    first = client.generate(messages=messages, max_new_tokens=6)
    messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "two"}]
    second = client.generate(messages=messages, max_new_tokens=6)
    result = lockstep("chat", "-n", "6", text="one\ntwo\n\n")
    assert result.exit_code == 0
    assert first.text in result.stdout
    assert second.text in result.stdout


def test_encode_shows_every_character_of_every_token(lockstep, client: Lockstep):
    result = lockstep("encode", "a\tb 🙂", "a", "--pad", "left")
    assert result.exit_code == 0
    assert "a⇥b␣\\xf0\\x9f\\x99\\x82" in result.stdout
    (longest, _) = client.tokenizer.encode(["a\tb 🙂", "a"]).token_ids
    assert f"{len(longest) + 1} tokens" in result.stderr


def test_tokens_of_a_long_text_are_each_looked_up_once(client: Lockstep):
    ids = [5, 6, 5] * 30_000  # one lookup takes 65,536
    assert [entry.id for entry in token_text.entries(client, ids)] == ids


def test_encode_and_decode_speak_json(lockstep, client: Lockstep):
    encoded = json.loads(lockstep("encode", "Grüße", "x", "--pad", "right", "--json").stdout)
    batch = client.tokenizer.encode(["Grüße", "x"], padding="longest", padding_side="right")
    assert encoded["token_ids"] == batch.token_ids
    assert encoded["attention_mask"] == batch.attention_mask.tolist()
    assert encoded["vocabulary"]["revision"] == 0
    decoded = lockstep("decode", *map(str, encoded["token_ids"][0]), "--json")
    assert json.loads(decoded.stdout) == {"text": "Grüße", "round_trip": True}
    assert lockstep("decode", "1").stdout == "\n"
    assert lockstep("decode", "1", "--keep-special").stdout == "<|im_start|>\n"


def test_step_chooses_greedily_what_generate_chooses(lockstep, client: Lockstep):
    expected = client.generate(PROMPT, max_new_tokens=5, do_sample=False)
    result = lockstep("step", PROMPT, "--choose", "greedy", "--steps", "5", "--json", "-k", "4")
    answer = json.loads(result.stdout)
    assert [step["token_id"] for step in answer["steps"]] == expected.token_ids
    for step in answer["steps"]:
        assert len(step["candidates"]) == 4
        shares = [candidate["probability"] for candidate in step["candidates"]]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) <= 1.0


@pytest.mark.parametrize("prompt", [PROMPT, "x"], ids=["text", "one token"])
def test_step_draws_what_the_server_draws_in_generate(lockstep, client: Lockstep, prompt):
    expected = client.generate(
        prompt, max_new_tokens=5, do_sample=True, temperature=1.5, top_k=0, seed=3, eos_token_id=[]
    )
    options = ("--temperature", "1.5", "--top-k", "0", "--seed", "3", "--steps", "5")
    result = lockstep("step", prompt, "--choose", "sample", "--json", *options)
    drawn = [step["token_id"] for step in json.loads(result.stdout)["steps"]]
    assert drawn == expected.token_ids[: len(drawn)]
    assert len(drawn) == 5 or drawn[-1] == 0


def test_step_shows_probabilities_that_add_up_after_the_warpers(lockstep):
    result = lockstep(
        "step", PROMPT, "--choose", "greedy", "--steps", "1", "--json", "--top-k", "3", "-k", "8"
    )
    (step,) = json.loads(result.stdout)["steps"]
    processed = [candidate["processed_probability"] for candidate in step["candidates"]]
    assert sum(processed) == pytest.approx(1.0, abs=1e-5)
    assert processed[3:] == [0.0] * 5


def test_a_person_picks_types_draws_and_takes_back(lockstep, client: Lockstep):
    prompt, typed = client.tokenizer.encode([PROMPT, " and"]).token_ids
    greedy = client.generate(PROMPT, max_new_tokens=1, do_sample=False).token_ids
    answers = ["g", '" and"', "b", "99", "#9999", "s", "b", "1", "q"]
    result = lockstep("step", PROMPT, "--seed", "1", text="\n".join(answers) + "\n")
    assert result.exit_code == 0
    assert "The list has no number 99" in result.stdout
    assert "9999" in result.stdout
    assert "top-k 50" in result.stdout
    assert f"position {len(prompt)} ·" in result.stdout
    kept = greedy + typed[:-1]
    (last,) = client.model.generate([prompt + kept], max_new_tokens=1, do_sample=False).sequences
    assert result.stdout.endswith(client.tokenizer.decode(kept + last) + "\n")


def test_step_leaves_no_session_behind(lockstep, client: Lockstep):
    before = client.model.load().session_count
    lockstep("step", PROMPT, text="g\nb\ng\nq\n")
    assert client.model.load().session_count == before


def test_score_says_how_probable_each_token_is(lockstep, client: Lockstep):
    answer = json.loads(lockstep("score", " Paris.", "--context", PROMPT, "--json").stdout)
    prompt, text = client.tokenizer.encode([PROMPT, " Paris."]).token_ids
    with client.model.open_session([prompt]) as session:
        for token_id, token in zip(text, answer["tokens"], strict=True):
            row = session.logits[0]
            assert token["token_id"] == token_id
            expected = row[token_id] - np.logaddexp.reduce(row)
            assert token["logprob"] == pytest.approx(expected, abs=1e-4)
            assert token["rank"] == 1 + (row > row[token_id]).sum()
            session.step([token_id])
    total = sum(token["logprob"] for token in answer["tokens"])
    assert answer["logprob"] == pytest.approx(total, abs=1e-4)
    assert answer["perplexity"] == pytest.approx(np.exp(-total / len(text)), rel=1e-4)
    assert "perplexity" in lockstep("score", PROMPT).stderr


def test_info_describes_both_services(lockstep):
    assert "Both serve the same vocabulary" in lockstep("info").stdout
    answer = json.loads(lockstep("info", "--json").stdout)
    assert answer["in_lockstep"] is True
    assert answer["model"]["architecture"] == "LlamaForCausalLM"


def test_wait_ends_when_both_services_answer(lockstep):
    result = lockstep("wait", "--timeout", "5", "--json")
    assert json.loads(result.stdout) == {"ready": True}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["decode", "5", "99999"], "lockstep: TokenIdOutOfRange: ID: id 99999 at index 1 is not"),
        (["generate", "x", "--model", "localhost:1"], "lockstep: ConnectionFailed: Cannot reach "),
        (["wait", "--model", "localhost:1", "--timeout", "0.5"], "lockstep: ConnectionFailed: "),
    ],
    ids=["no such id", "nobody there", "nobody comes"],
)
def test_a_failure_is_one_line_and_exit_code_1(lockstep, arguments, line):
    result = lockstep(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [["generate"], ["decode", "x"], ["step", "x", "--json"], ["nonsense"]],
    ids=["missing", "no number", "json without a choice", "unknown"],
)
def test_a_wrong_command_line_is_exit_code_2(lockstep, arguments):
    result = lockstep(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", "x", "--temperature", "nan"], "lockstep: --temperature: must be"),
        (["generate", "x", "--temperature", "0"], "use --greedy instead of 0"),
        (["generate", "x", "--greedy", "--top-k", "3"], "--top-k: has no effect without --sample"),
        (["generate", "x", "--greedy", "--top-k", "3"], "or add --set lenient=true"),
        (["generate", "x", "--greedy", "--seed", "3"], "no effect together with --greedy"),
        (["generate", "x", "-n", "0"], "--max-new-tokens"),
        (["generate", "x", "--beams", "3", "--bias", "1=999"], "--bias: "),
        (["generate", ""], "lockstep: the prompt is empty"),
        (["generate", "x", "--set", "typical_p=2"], "--set typical_p: must be in (0, 1]"),
        (["generate", "x", "--set", "typical_p=a"], "--set typical_p"),
        (["generate", "x", "--set", "tipical_p=1"], "Did you mean typical_p?"),
        (["generate", "x", "--set", "top_k=1", "--top-k", "2"], "--top-k is given, too"),
        (["generate", "x", "--bias", "a=1"], "not ID=VALUE"),
        (["encode", "-", "-"], "can be given once"),
        (["score", ""], "The text is empty"),
        (["score", "x"], "give a --context"),
        (["decode", "x"], "'x' is not an id"),
        (["step", "x", "--choose", "greedy", "-k", "99999"], "lockstep: --candidates: must be in"),
        (["generate", "x", "--set", "num_return_sequences=3"], "lockstep: One text is returned"),
    ],
)
def test_an_error_names_the_flag_and_its_remedy(lockstep, arguments, said):
    result = lockstep(*arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""


def test_every_field_of_a_generation_can_be_set(lockstep, client: Lockstep):
    flags = ["--min-p", "0.1", "--presence-penalty", "0.5", "--frequency-penalty", "0.25"]
    flags += ["--bias", "5=-3", "--set", "typical_p=0.9", "--set", "seed_mode=torch"]
    flags += ["--set", "bad_words_ids=[[5, 6]]", "--set", "eos_token_id=[3]", "--stop", "zz"]
    result = lockstep("generate", PROMPT, "-n", "6", "--seed", "5", *flags, "--json")
    expected = client.generate(
        PROMPT,
        max_new_tokens=6,
        seed=5,
        do_sample=True,
        min_p=0.1,
        presence_penalty=0.5,
        frequency_penalty=0.25,
        logit_bias={5: -3.0},
        typical_p=0.9,
        seed_mode="torch",
        bad_words_ids=[[5, 6]],
        eos_token_id=[3],
        stop_strings=["zz"],
    )
    answer = json.loads(result.stdout)
    assert answer["token_ids"] == expected.token_ids
    used = {**expected.effective_config, "logit_bias": {"5": -3.0}}
    assert answer["effective_config"] == used


def test_a_hyphen_stands_for_standard_input(lockstep):
    def same(*arguments: str, text: str) -> bool:
        given = [text if argument == "-" else argument for argument in arguments]
        return lockstep(*arguments, text=text).stdout == lockstep(*given).stdout != ""

    assert same("encode", "-", "b", "--json", text="Grüße\n")
    assert same("score", "-", "--json", text=PROMPT)
    assert same("score", "b", "--context", "-", "--json", text=PROMPT)
    assert same("step", "-", "--choose", "greedy", "--seed", "1", "--json", text=PROMPT)
    assert (
        lockstep("decode", "-", text="69 70,\n71").stdout
        == lockstep("decode", "69", "70", "71").stdout
    )


def test_the_log_goes_through_standard_output_and_input(environment, lockstep):
    exported = subprocess.run(
        [*COMMAND, "vocab", "export", "-"], env=environment, capture_output=True, check=True
    )
    assert exported.stdout.startswith(b"{")
    result = lockstep("vocab", "import", "-", text=exported.stdout.decode())
    assert "0 of 0 revisions were new" in result.stdout


def test_tokens_to_add_come_from_standard_input_one_a_line(lockstep):
    result = lockstep("vocab", "add", "-", "--special", "--dry-run", "--json", text="<a>\n<b c>\n")
    assert [token["id"] for token in json.loads(result.stdout)["tokens"]] == [320, 321]
    shown = lockstep("vocab", "add", "<|a|>", "--special", "--dry-run").stdout
    assert "< | a | >" in shown


def test_chat_ends_at_a_stop_text_and_answers_in_json(lockstep, client: Lockstep):
    messages = [{"role": "user", "content": "one"}]
    whole = client.generate(messages=messages, max_new_tokens=12)
    stop = whole.text[2:4]
    expected = client.generate(messages=messages, max_new_tokens=12, stop_strings=[stop])
    result = lockstep("chat", "-n", "12", "--stop", stop, "--json", text="one\n\n")
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["text"] == expected.text
    assert json.loads(line)["stop_string"] == stop


def test_the_version_is_that_of_the_package(lockstep):
    assert lockstep("--version").stdout == f"lockstep {lockstep_client.__version__}\n"


def test_step_has_help(lockstep):
    for word in ("?", "h", "help"):
        shown = lockstep("step", PROMPT, text=f"{word}\nq\n").stdout
        assert "takes the last token back" in shown
    assert (
        "There is no token with the id 9999." in lockstep("step", PROMPT, text="#9999\nq\n").stdout
    )


def test_a_text_beyond_the_context_is_scored_in_windows(lockstep, client: Lockstep):
    text = "The capital of France is Paris. " * 30
    (ids,) = client.tokenizer.encode(text).token_ids
    assert len(ids) > 2 * 256
    answer = json.loads(lockstep("score", text, "--json").stdout)
    assert [token["token_id"] for token in answer["tokens"]] == ids[1:]
    assert [token["position"] for token in answer["tokens"]] == list(range(1, len(ids)))
    total = sum(token["logprob"] for token in answer["tokens"])
    assert answer["perplexity"] == pytest.approx(np.exp(-total / (len(ids) - 1)), rel=1e-4)
    (beyond,) = client.model.score([ids[128:256]], [ids[256:257]])
    assert answer["tokens"][255]["logprob"] == pytest.approx(beyond.logits_logprob, abs=1e-4)


@pytest.mark.parametrize(
    ("address", "fault"),
    [("http://localhost:50052", "http:// is not part"), ("localhost", "the port is missing")],
)
def test_an_address_that_cannot_be_one_is_named_with_its_flag(lockstep, address, fault):
    result = lockstep("generate", "x", "--model", address)
    assert result.exit_code == 2
    assert fault in result.stderr
    assert "--model" in result.stderr


def test_grpc_adds_nothing_to_what_a_failed_command_says(environment, services):
    command = [*COMMAND, "info", "--tls-ca", str(services.checkpoint / "config.json")]
    process = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode == 1
    assert process.stderr.startswith("lockstep: ConnectionFailed: ")
    assert process.stderr.count("\n") == 1


def test_what_is_taken_back_is_drawn_again(client: Lockstep):
    prompt = client.tokenizer.encode(PROMPT)
    keywords = {"do_sample": True, "top_k": 0}
    drawn = []
    with Stepper(client, prompt, candidates=3, keywords=keywords) as stepper:
        for _ in range(4):
            drawn.append(stepper.distribution.drawn_id)
            stepper.choose([drawn[-1]])
        for expected in reversed(drawn):
            assert stepper.back()
            assert stepper.distribution.drawn_id == expected
        assert not stepper.back()


def test_an_interrupt_ends_the_session_here_and_on_the_server(client: Lockstep, environment):
    before = client.model.load().session_count
    process = subprocess.Popen(
        [*COMMAND, "step", PROMPT, "--choose", "sample", "--steps", "240"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=10)
    assert process.returncode == 130
    assert stderr.strip() == ""
    assert client.model.load().session_count == before


def test_output_that_nobody_reads_any_more_is_no_traceback(environment):
    process = subprocess.run(
        ["sh", "-c", f"{COMMAND[0]} -c '{COMMAND[2]}' generate x -n 200 --sample | head -c 1"],
        env=environment,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert b"Traceback" not in process.stderr
    assert b"Exception" not in process.stderr


def test_tokens_appear_as_they_are_generated(environment):
    """On a terminal, output comes before the end of the command."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "generate", PROMPT, "-n", "200", "--sample", "--seed", "4"],
        env=environment,
        stdout=follower,
        stderr=subprocess.DEVNULL,
    )
    os.close(follower)
    with process:
        assert os.read(leader, 1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)
    os.close(leader)


@pytest.mark.parametrize("missing", ["rich", "typer"])
def test_without_its_extra_the_command_says_what_to_install(missing: str, environment):
    program = f"import sys; sys.modules[{missing!r}] = None\n"
    program += "from lockstep_client._command import main; main()"
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    sentence = f"needs {missing}: pip install 'lockstep-client[cli]'\n"
    assert ended.returncode == 1
    assert ended.stderr == f"lockstep: The command line {sentence}"
