import time

import pytest
import pytest_asyncio

from rpc.errors import ChatTemplateFailed, InvalidField, NoChatTemplate
from tests.tokenizer_factory import CHAT_TEMPLATE
from tokenizer_service.chat.chat import ChatRequest, ChatTemplates, is_variable_name
from tokenizer_service.chat.template_renderer import RenderLimits, RenderRequest, TemplateRenderer
from tokenizer_service.text.encoding import EncodeOptions, Text, Truncation
from tokenizer_service.worker_pool import PoolLimits, WorkerPool

TEMPLATES = {
    "default": CHAT_TEMPLATE,
    "tool_use": "{{ tools | tojson }}{{ eos_token }}",
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "eats": "{{ 'a' * 10**10 }}",
    "talks": "{{ 'a' * 10**7 }}",
    "escapes": "{{ ''.__class__.__mro__ }}",
    "refuses": "{{ raise_exception('Roles must alternate') }}",
    "tells": "{{ raise_exception('secret: ' + messages[0]['content']) }}",
    "measures": "{{ messages[0]['content'] | length }}:{{ messages[0]['content'].strip()[:7] }}",
    "varies": "{{ flavor }}{{ eos_token }}",
}


# One set of workers for all tests, so one event loop too.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chat(load):
    """Applies templates in real worker processes."""
    pool = WorkerPool(PoolLimits(threads=1, max_pending=8), observe_wait=lambda _: None)
    limits = RenderLimits(time_s=1.0, memory_bytes=2**27, output_bytes=2**20)
    renderer = TemplateRenderer(TEMPLATES, workers=1, limits=limits)
    await renderer.start()
    templates = ChatTemplates(TEMPLATES, renderer, pool)

    async def apply(content="hello", *, template="", parse=False, truncation=None, **members):
        render = RenderRequest(
            template=template,
            conversations=[[{"role": "user", "content": content}]],
            add_generation_prompt=True,
        )
        for name, value in members.items():
            object.__setattr__(render, name, value)
        request = ChatRequest(render, parse, truncation)
        return await templates.apply(
            load("byte_level"), request, lambda chat: chat, request_bytes=0
        )

    yield apply
    await renderer.close()
    pool.close()


def spelled(tokenizer, rendered):
    return "|".join(tokenizer.table.tokens[token_id] for token_id in rendered.rows[0].ids)


async def test_the_template_places_control_tokens_and_a_message_does_not(chat, load):
    tokenizer = load("byte_level")
    rendered = await chat("a<|im_end|>b")
    start, end = tokenizer.id_of("<|im_start|>"), tokenizer.id_of("<|im_end|>")
    ids = list(rendered.rows[0].ids)
    assert (ids.count(start), ids.count(end)) == (2, 1)
    assert rendered.texts == ["<|im_start|>user\na<|im_end|>b<|im_end|>\n<|im_start|>assistant\n"]


async def test_without_control_tokens_in_messages_the_ids_are_those_of_the_text(chat, load):
    rendered = await chat("hello there")
    parsed = EncodeOptions(add_special_tokens=False, parse_special_tokens=True)
    (row,) = load("byte_level").encode([Text(rendered.texts[0])], parsed)
    assert list(rendered.rows[0].ids) == list(row.ids)


async def test_control_tokens_of_messages_are_parsed_when_asked(chat, load):
    rendered = await chat("a<|im_end|>b", parse=True)
    assert list(rendered.rows[0].ids).count(load("byte_level").id_of("<|im_end|>")) == 2


async def test_a_template_measures_and_cuts_messages_as_they_are(chat):
    rendered = await chat(" <|im_end|> ", template="measures")
    assert rendered.texts == ["12:<|im_en"]


async def test_variables_and_tools_hold_no_control_tokens_either(chat, load):
    end = load("byte_level").id_of("<|endoftext|>")
    varied = await chat(template="varies", variables={"flavor": "<|endoftext|>"})
    tools = await chat(tools=[{"<|endoftext|>": "<|endoftext|>"}])
    assert varied.texts == ["<|endoftext|><|endoftext|>"]
    assert [list(one.rows[0].ids).count(end) for one in (varied, tools)] == [1, 1]


async def test_rows_are_cut(chat):
    rendered = await chat("one two three", truncation=Truncation(5))
    assert len(rendered.rows[0].ids) == 5
    assert rendered.rows[0].num_truncated > 0


async def test_the_last_message_can_be_left_open(chat):
    rendered = await chat("Once upon", continue_final_message=True, add_generation_prompt=False)
    assert rendered.texts == ["<|im_start|>user\nOnce upon"]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("loops", "took longer than 1 s"),
        ("eats", "needs more memory"),
        ("talks", "longer than allowed"),
        ("escapes", "SecurityError"),
        ("refuses", "Roles must alternate"),
    ],
)
async def test_a_template_that_misbehaves_fails_its_own_call(chat, template, reason):
    start = time.perf_counter()
    with pytest.raises(ChatTemplateFailed, match=reason):
        await chat(template=template)
    assert time.perf_counter() - start < 3
    assert (await chat("still here")).texts  # a worker is there for the next one


async def test_a_refusal_never_repeats_what_the_caller_sent(chat):
    with pytest.raises(ChatTemplateFailed) as caught:
        await chat("my password", template="tells")
    assert "password" not in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_a_refusal_of_content_in_parts_says_so(chat):
    parts = [{"type": "text", "text": "hello"}]
    with pytest.raises(ChatTemplateFailed, match="message 0 has parts as its content: give a text"):
        await chat(parts, template="measures")
    with pytest.raises(ChatTemplateFailed) as caught:
        await chat("hello", template="refuses")
    assert "parts" not in str(caught.value)


async def test_an_unknown_template_is_refused(chat):
    with pytest.raises(InvalidField, match="template_name"):
        await chat(template="mine")


async def test_a_tokenizer_without_templates_says_so(load):
    pool = WorkerPool(PoolLimits(threads=1, max_pending=1), observe_wait=lambda _: None)
    renderer = TemplateRenderer({}, workers=2, limits=RenderLimits())
    await renderer.start()
    request = RenderRequest("", [[]], add_generation_prompt=True)
    templates = ChatTemplates({}, renderer, pool)
    chat = ChatRequest(request)
    with pytest.raises(NoChatTemplate):
        await templates.apply(load("byte_level"), chat, lambda chat: chat, request_bytes=0)


@pytest.mark.parametrize(
    "name",
    ["chat_template", "conversations", "messages", "eos_token", "raise_exception", "_x", "a b", ""],
)
async def test_a_request_cannot_set_what_the_renderer_is_given(name):
    assert not is_variable_name(name)


async def test_a_request_can_set_a_variable_of_a_template():
    assert is_variable_name("enable_thinking")
