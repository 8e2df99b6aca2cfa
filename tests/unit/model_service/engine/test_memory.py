import psutil
import pytest

from model_service.engine.memory import available_bytes

LIMITS = {
    2: ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    1: (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
}


@pytest.fixture(params=[1, 2])
def container(request, tmp_path):
    """Writes what Linux says of a container that has used 3 MB, one of them for files."""

    def write(limit: str):
        names = LIMITS[request.param]
        contents = (limit, "3000000\n", f"anon 2000000\n{names[3]} 1000000\n")
        for name, content in zip(names, contents, strict=False):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(content)
        return tmp_path

    return write


def test_a_container_may_take_what_its_limit_leaves(container):
    assert available_bytes(container("10000000\n")) == 8_000_000


def test_a_container_beyond_its_limit_may_take_nothing(container):
    assert available_bytes(container("1000000\n")) == 0


@pytest.mark.parametrize("limit", ["max\n", f"{2**62}\n"])
def test_without_a_limit_the_machine_counts(container, limit):
    machine = psutil.virtual_memory().available
    assert abs(available_bytes(container(limit)) - machine) < 0.2 * machine


def test_where_there_are_no_containers_the_machine_counts(tmp_path):
    machine = psutil.virtual_memory().available
    assert abs(available_bytes(tmp_path / "nothing") - machine) < 0.2 * machine
