"""Everything on stderr is a JSON line, whoever writes it."""

import json
import subprocess
import sys
from textwrap import dedent

START = """
import logging, os, subprocess, sys, warnings
import structlog
from rpc import json_lines
json_lines.configure("error")
json_lines.capture()
"""


def lines(script: str) -> list[dict]:
    """Runs a script after `START` and returns what it wrote to stderr."""
    command = [sys.executable, "-c", START + dedent(script)]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    return [json.loads(line) for line in result.stderr.splitlines()]


def test_what_libraries_and_children_write_becomes_an_event_whatever_the_level():
    found = lines(
        r"""
        print("from print", file=sys.stderr)
        os.write(2, b"from C \xff\n\n")
        subprocess.run([sys.executable, "-c", "import sys; print('from a child', file=sys.stderr)"])
        os.write(2, b"0%\r50%\r100%\n")
        os.write(2, b"[1]\n{not json\n")
        """
    )
    assert [line["event"] for line in found] == [
        "from print",
        "from C \ufffd",
        "from a child",
        "100%",
        "[1]",
        "{not json",
    ]
    assert {line["level"] for line in found} == {"warning"}
    assert all(line["timestamp"] for line in found)


def test_lines_that_are_json_already_pass_as_they_are():
    assert lines(r"""os.write(2, b'{"event": "of the engine", "pid": 7}\n')""") == [
        {"event": "of the engine", "pid": 7}
    ]


def test_the_last_words_are_written_even_without_an_end():
    assert [line["event"] for line in lines("""os.write(2, b"the last words")""")] == [
        "the last words"
    ]


def test_a_child_that_lives_on_does_not_hold_the_end_up():
    found = lines(
        """
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(20)"], stdin=0)
        structlog.get_logger().error("ended")
        """
    )
    assert [line["event"] for line in found] == ["ended"]


def test_an_error_that_nobody_caught_is_one_line():
    (line,) = lines("1 / 0")
    assert (line["event"], line["level"]) == ("crashed", "critical")
    assert "ZeroDivisionError" in line["exception"]


def test_warnings_of_python_are_lines_of_the_log():
    found = lines(
        """
        json_lines.configure("info")
        warnings.warn("this is old", stacklevel=1)
        """
    )
    assert ["this is old" in line["event"] for line in found] == [True]


def test_a_caller_that_leaves_as_its_answer_is_sent_leaves_no_traceback():
    found = lines(
        """
        from grpc._cython.cygrpc import ExecuteBatchError
        log = logging.getLogger("grpc._cython.cygrpc")
        for error in (ExecuteBatchError("Failed"), ValueError("a bug")):
            try:
                raise error
            except Exception:
                log.exception("raised in core")
        """
    )
    assert ["ValueError: a bug" in line["exception"] for line in found] == [True]
