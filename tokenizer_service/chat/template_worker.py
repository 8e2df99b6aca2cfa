"""The process that renders chat templates: `python -m tokenizer_service.chat.template_worker`.

A template is a program that came with a checkpoint. Hugging Face's renderer runs it
in a sandbox that keeps it from everything but its inputs; the limits on time, memory
and output are set here, and a template that exceeds them takes this process with it
and nothing else.

Messages are JSON with a length in front, on stdin and stdout. The first one sets up:
`{"templates": {name: source}, "time_limit_s": .., "memory_limit_bytes": ..,
"output_limit_bytes": ..}`, answered by `{"ready": true}`. Every further one is a
render request and is answered by `{"texts": [..]}` or `{"refusal": ".."}`.
"""

import json
import os
import re
import signal
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

LENGTH = struct.Struct(">I")


def main() -> None:
    """Serves requests until stdin ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    # Whatever a library prints must not get between the messages, or into a log.
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # open until the end
    setup = _receive(source)
    if setup is None:
        return
    from transformers.utils.chat_template_utils import render_jinja_template  # a second

    def render(request: dict[str, Any]) -> list[str]:
        rendered = render_jinja_template(
            conversations=request["conversations"],
            tools=request["tools"],
            documents=request["documents"],
            chat_template=setup["templates"][request["template"]],
            continue_final_message=request["continue_final_message"],
            add_generation_prompt=request["add_generation_prompt"],
            **request["variables"],
        )
        return list(rendered[0])  # the texts, before the places of generated tokens

    _limit_memory(setup["memory_limit_bytes"])
    _send(sink, {"ready": True})
    while (request := _receive(source)) is not None:
        # Without a handler the signal ends the process, whatever the template is doing.
        signal.setitimer(signal.ITIMER_REAL, setup["time_limit_s"])
        answer = _answer(render, request, setup)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(sink, answer)


def _answer(render: Any, request: dict[str, Any], setup: dict[str, Any]) -> dict[str, Any]:
    try:
        texts = render(request)
    except MemoryError:
        return {"refusal": "the template needs more memory than allowed"}
    except Exception as error:  # a template can raise anything
        said = _refusal(error, setup["templates"][request["template"]])
        return {"refusal": said + _remedy(request["conversations"])}
    if sum(len(text.encode()) for text in texts) > setup["output_limit_bytes"]:
        return {"refusal": "the template's output is longer than allowed"}
    return {"texts": texts}


def _refusal(error: Exception, source: str) -> str:
    """Describes a failure. A message is shown only if it is a constant of the template."""
    message = str(error)
    literals = re.finditer(r"""(["'])((?:(?!\1).)*)\1""", source)
    constants = {literal[2] for literal in literals}
    if message in constants:
        return f"the template refused the messages: {message}"
    return f"the template refused the messages ({type(error).__name__})"


def _remedy(conversations: list[list[dict[str, Any]]]) -> str:
    """Says what a template may not take that many others take: content in parts."""
    for messages in conversations:
        for number, message in enumerate(messages):
            if isinstance(message.get("content"), list):
                return f"; message {number} has parts as its content: give a text instead"
    return ""


def _limit_memory(limit_bytes: int) -> None:
    statm = Path("/proc/self/statm")
    if not statm.exists():  # not Linux: the limit on time is all there is
        return
    import resource

    used = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + limit_bytes, used + limit_bytes))


def _receive(source: BinaryIO) -> dict[str, Any] | None:
    header = source.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(header)
    message: dict[str, Any] = json.loads(source.read(length))
    return message


def _send(sink: BinaryIO, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    sink.write(LENGTH.pack(len(data)) + data)
    sink.flush()


if __name__ == "__main__":
    main()
