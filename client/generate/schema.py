"""The schema with its comments, as the compiler reads them."""

import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

PROTOS = Path(__file__).resolve().parents[2] / "protos"

# Places of a file's members in the paths of its comments.
_MESSAGE, _ENUM = 4, 5
_FIELD = _VALUE = 2


class Schema:
    """Messages, fields and enumerations by name, and what is said of each.

    Attributes:
        fields: of each message.
        comments: of messages, fields and values by name, for example
            `GenerateRequest.seeds`; a line for each paragraph.
    """

    def __init__(self, *names: str) -> None:
        """Compiles files of `lockstep.v1`.

        Args:
            names: the files, for example `generation.proto`.
        """
        self.fields: dict[str, list[FieldDescriptorProto]] = {}
        self.comments: dict[str, str] = {}
        for file in _compiled(names):
            self._read(file)

    def parts(self, name: str) -> list[str]:
        """Returns the names of a message's fields, or of an enumeration's values."""
        return [key for key in self.comments if key.rpartition(".")[0] == name]

    def _read(self, file: FileDescriptorProto) -> None:
        texts = {
            tuple(location.path): "\n".join(
                " ".join(paragraph.split()) for paragraph in location.leading_comments.split("\n\n")
            )
            for location in file.source_code_info.location
        }
        for index, message in enumerate(file.message_type):
            self._read_message(message, (_MESSAGE, index), texts)
        for index, enum in enumerate(file.enum_type):
            self.comments[enum.name] = texts[_ENUM, index]
            for number, value in enumerate(enum.value):
                self.comments[f"{enum.name}.{value.name}"] = texts[_ENUM, index, _VALUE, number]

    def _read_message(
        self, message: DescriptorProto, path: tuple[int, ...], texts: dict[tuple[int, ...], str]
    ) -> None:
        self.fields[message.name] = list(message.field)
        self.comments[message.name] = texts[path]
        for number, field in enumerate(message.field):
            self.comments[f"{message.name}.{field.name}"] = texts[*path, _FIELD, number]


def _compiled(names: tuple[str, ...]) -> list[FileDescriptorProto]:
    with tempfile.NamedTemporaryFile() as out:
        options = ["--include_imports", "--include_source_info", f"--descriptor_set_out={out.name}"]
        files = [f"lockstep/v1/{name}" for name in names]
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *options, *files]
        subprocess.run(command, check=True)
        compiled = FileDescriptorSet.FromString(out.read())
    return [file for file in compiled.file if file.package == "lockstep.v1"]
