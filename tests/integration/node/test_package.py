"""The package as its users install it, its types and its examples."""

import json
import re
from pathlib import Path

import pytest

from lockstep_client import Lockstep
from tests.integration.node.package import SOURCE, needs_node, run
from tests.services import Services

pytestmark = needs_node


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder into which the packed client was installed."""
    folder = tmp_path_factory.mktemp("installed")
    run(["npm", "pack", "--ignore-scripts", f"--pack-destination={folder}"], built)
    (archive,) = folder.glob("*.tgz")
    run(["npm", "install", "--prefer-offline", str(archive)], folder)
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
    assert run(command, installed, **services.environment) == "Hello\n"


def _compile(installed: Path, built: Path, *modules: str) -> None:
    """Checks the types of modules beside the installed package."""
    compiler = str(built / "node_modules" / ".bin" / "tsc")
    types = ["--types", "node", "--typeRoots", str(built / "node_modules" / "@types")]
    flags = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"]
    libraries = ["--lib", "es2023,esnext.disposable"]
    (installed / "package.json").write_text('{"type": "module"}')
    run([compiler, *flags, *libraries, *types, *modules], installed)


def test_requests_and_results_are_typed_where_it_is_installed(installed: Path, built: Path):
    (installed / "use.ts").write_text(
        "import { Lockstep, type Completion, type LockstepError } from 'lockstep-client';\n"
        "const ls = new Lockstep();\n"
        "export const one: Promise<Completion> = ls.generate('x', { maxNewTokens: 2 });\n"
        "export const several: Promise<Completion[]> = ls.generate(['x']);\n"
        "export const mixed: Promise<(Completion | LockstepError)[]> ="
        " ls.generate(['x'], { errors: 'return' });\n"
        "export const row: Promise<Float32Array | undefined> ="
        " ls.model.computeLogits([[5]]).then(({ logits }) => logits?.row(0));\n"
        "// @ts-expect-error: no such keyword\n"
        "void ls.generate('x', { max_new_tokens: 2 });\n"
        "// @ts-expect-error: another type\n"
        "void ls.generate('x', { maxNewTokens: '2' });\n"
        "// @ts-expect-error: no such choice\n"
        "void ls.tokenizer.encode('x', { padding: 'left' });\n"
        "// @ts-expect-error: a text is no batch\n"
        "void ls.model.score('x');\n"
        "// @ts-expect-error: no such reason\n"
        "export const is = (error: LockstepError) => error.reason === 'BUSY';\n"
    )
    _compile(installed, built, "use.ts")


def test_the_code_of_its_page_is_typed_right(installed: Path, built: Path):
    page = (SOURCE / "README.md").read_text()
    blocks = re.findall(r"```ts\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 5
    names = {"ls": "Lockstep", "batch": "Batch", "questions": "string[]", "text": "string"}
    for index, block in enumerate(blocks):
        given = [f"declare const {name}: {kind};" for name, kind in names.items()]
        lines = [
            each for each in given if each.replace("declare ", "").partition(":")[0] not in block
        ]
        lines.append("import { readFileSync } from 'node:fs';")
        lines.append("import { type Batch } from 'lockstep-client';")
        if "import { Lockstep }" not in block:
            lines.append("import { Lockstep } from 'lockstep-client';")
        (installed / f"block{index}.ts").write_text("\n".join([*lines, block, "export {};"]))
    _compile(installed, built, *(f"block{index}.ts" for index in range(len(blocks))))


def test_the_example_of_a_stream_prints_a_continuation(
    built: Path, services: Services, client: Lockstep
):
    prompt = "Once upon a time"
    printed = run(["node", "dist/examples/capital.js", prompt], built, **services.environment)
    expected = client.generate(prompt, max_new_tokens=16, do_sample=False)
    assert printed == f"{expected.text}\n[16 tokens, max_new_tokens]\n"


def test_the_example_of_a_batch_answers_every_line_that_can_be_answered(
    built: Path, services: Services, client: Lockstep, tmp_path: Path
):
    prompts = ["Once upon", "x" * 3000, "The river"]  # the second is longer than the context
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    command = ["node", "dist/examples/batch.js", str(tmp_path / "prompts.txt")]
    lines = [json.loads(line) for line in run(command, built, **services.environment).splitlines()]
    assert [line["prompt"] for line in lines] == prompts
    assert "context" in lines[1]["error"]
    for line in (lines[0], lines[2]):
        expected = client.generate(line["prompt"], max_new_tokens=16, do_sample=False)
        assert line["text"] == expected.text


def test_the_example_of_a_distribution_prints_what_the_python_client_shows(
    built: Path, services: Services, client: Lockstep
):
    text = "The capital of"
    printed = run(["node", "dist/examples/distribution.js", text], built, **services.environment)
    table = client.distribution(text, candidates=3, do_sample=True, temperature=0.7, top_p=0.9)
    assert printed == f"{table}\nperplexity {client.perplexity(text):.2f}\n"


def test_the_example_of_a_conversation_answers(built: Path, services: Services, client: Lockstep):
    printed = run(["node", "dist/examples/chat.js", "Hello!"], built, **services.environment)
    question = [{"role": "user", "content": "Hello!"}]
    expected = client.generate(messages=question, max_new_tokens=64, do_sample=False)
    assert printed == f"{expected.text}\n"


def test_the_example_of_a_sampling_loop_chooses_what_the_server_would(
    built: Path, services: Services, client: Lockstep
):
    printed = run(["node", "dist/examples/loop.js", "The river"], built, **services.environment)
    expected = client.generate("The river", max_new_tokens=8, do_sample=False, eos_token_id=[])
    assert printed == f"The river{expected.text}\n"
