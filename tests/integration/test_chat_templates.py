"""What chat templates see of the messages that a caller gives, against Hugging Face's renderer."""

# ruff: noqa: RUF001  (the wide bars are DeepSeek's own)

import pytest
from lockstep.v1 import tokenizer_service_pb2 as pb
from transformers.utils.chat_template_utils import render_jinja_template

from lockstep_client import Lockstep
from tests.integration.tokenizer_process import running_tokenizer
from tests.tokenizer_factory import make_tokenizer_folder

# How DeepSeek V3's own template writes the turns of an assistant that calls tools.
DEEPSEEK_V3 = (
    "{%- set ns = namespace(is_first=false, is_tool=false) %}"
    "{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}"
    "{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}"
    "{%- endif %}"
    "{%- if message['role'] == 'assistant' and message['content'] is none %}"
    "{%- set ns.is_tool = false -%}"
    "{%- for tool in message['tool_calls'] %}"
    "{%- if not ns.is_first %}"
    "{{'<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>'"
    " + tool['type'] + '<｜tool▁sep｜>'"
    " + tool['function']['name'] + '\\n```json\\n' + tool['function']['arguments'] + '\\n```'"
    " + '<｜tool▁call▁end｜>'}}"
    "{%- set ns.is_first = true -%}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- endif %}"
    "{%- if message['role'] == 'assistant' and message['content'] is not none %}"
    "{{'<｜Assistant｜>' + message['content'] + '<｜end▁of▁sentence｜>'}}"
    "{%- endif %}"
    "{%- if message['role'] == 'tool' %}"
    "{%- set ns.is_tool = true -%}"
    "{{'<｜tool▁outputs▁begin｜>' + message['content'] + '<｜tool▁outputs▁end｜>'}}"
    "{%- endif %}"
    "{%- endfor %}"
)
KINDS = (
    "{%- for message in messages %}"
    "{{ 'absent' if message['content'] is not defined else 'null' if message['content'] is none"
    " else 'text ' + message['content'] }}|"
    "{{ 'absent' if message.name is not defined else 'null' if message.name is none"
    " else message.name }};"
    "{%- endfor %}"
)
TOOL_CALL = {
    "type": "function",
    "function": {"name": "get_profile", "arguments": '{"id": null, "city": ""}'},
}
CONVERSATION = [
    {"role": "user", "content": "Who am I?"},
    {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
    {"role": "tool", "content": "Ada"},
    {"role": "assistant", "content": ""},
]


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("templates")
    templates = [
        {"name": "default", "template": DEEPSEEK_V3},
        {"name": "kinds", "template": KINDS},
    ]
    model = make_tokenizer_folder(folder / "tiny", chat_template=templates)
    with running_tokenizer(model, folder / "service") as running:
        yield running


@pytest.fixture
def client(stubs):
    with Lockstep(tokenizer=stubs.service.address, model="localhost:1") as client:
        yield client


def rendered(messages, template):
    texts, _ = render_jinja_template(
        conversations=[messages], chat_template=template, add_generation_prompt=False
    )
    return texts[0]


def test_a_tool_call_without_content_is_in_the_prompt_of_deepseek_v3(client):
    batch = client.tokenizer.apply_chat_template(CONVERSATION, add_generation_prompt=False)
    (text,) = batch.texts
    assert text == rendered(CONVERSATION, DEEPSEEK_V3)
    assert "<｜tool▁calls▁begin｜>" in text
    assert text.count("<｜Assistant｜>") == 2  # the empty answer is a turn, too


def test_null_absent_and_empty_are_three_things(client):
    contents = [{"content": None}, {}, {"content": ""}, {"content": "Hi", "name": None}]
    messages = [{"role": "user", **content} for content in contents]
    batch = client.tokenizer.apply_chat_template(
        messages, add_generation_prompt=False, template_name="kinds"
    )
    assert batch.texts == ["null|absent;absent|absent;text |absent;text Hi|null;"]
    assert batch.texts == [rendered(messages, KINDS)]


def test_the_schema_says_all_three(stubs):
    messages = [
        pb.ChatMessage(role="user", extra_json='{"content": null}'),
        pb.ChatMessage(role="user"),
        pb.ChatMessage(role="user", content=""),
    ]
    response = stubs.tokenizer.ApplyChatTemplate(
        pb.ApplyChatTemplateRequest(
            conversations=[pb.Conversation(messages=messages)],
            template_name="kinds",
            add_generation_prompt=False,
        )
    )
    assert list(response.texts) == ["null|absent;absent|absent;text |absent;"]
