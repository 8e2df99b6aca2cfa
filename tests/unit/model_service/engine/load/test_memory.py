import psutil
import pytest

from model_service.engine.load.memory import available_bytes
from rpc.control_groups import ControlGroups

# Membership, the folder of the group, and its files, by version.
VERSIONS = {
    2: ("0::/pod\n", "pod", "memory.max", "memory.current", "inactive_file"),
    1: (
        "4:memory:/pod\n",
        "memory/pod",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}


@pytest.fixture(params=[1, 2])
def container(request, tmp_path):
    """Writes what Linux says of a container that has used 3 MB, one of them for files."""
    membership, folder, limit_file, use_file, files = VERSIONS[request.param]

    def write(limit: str, group: str = "") -> ControlGroups:
        path = tmp_path / folder / group
        path.mkdir(parents=True)
        (path / limit_file).write_text(limit)
        (path / use_file).write_text("3000000\n")
        (path / "memory.stat").write_text(f"anon 2000000\n{files} 1000000\n")
        (tmp_path / "membership").write_text(membership.replace("/pod", f"/pod/{group}"))
        return ControlGroups(tmp_path, tmp_path / "membership")

    return write


def test_a_container_may_take_what_its_limit_leaves(container):
    assert available_bytes(container("10000000\n")) == 8_000_000


def test_a_container_beyond_its_limit_may_take_nothing(container):
    assert available_bytes(container("1000000\n")) == 0


def test_a_limit_of_a_group_around_ones_own_counts(container):
    container("10000000\n")
    assert available_bytes(container("max\n", "engine")) == 8_000_000


@pytest.mark.parametrize("limit", ["max\n", f"{2**62}\n"])
def test_without_a_limit_the_machine_counts(container, limit):
    machine = psutil.virtual_memory().available
    assert abs(available_bytes(container(limit)) - machine) < 0.2 * machine


def test_where_there_are_no_containers_the_machine_counts(tmp_path):
    machine = psutil.virtual_memory().available
    nowhere = ControlGroups(tmp_path / "nothing", tmp_path / "nothing")
    assert abs(available_bytes(nowhere) - machine) < 0.2 * machine
