"""`protos/buf.gen.yaml`: what each language's own tools make of the schema is accepted there."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from tests.services import ROOT

PROTOS = ROOT / "protos"
TEMPLATE = yaml.safe_load((PROTOS / "buf.gen.yaml").read_text())
STEMS = sorted(path.stem for path in (PROTOS / "lockstep" / "v1").glob("*.proto"))
SERVICES = [stem for stem in STEMS if stem.endswith("_service")]
NAMES = {
    "go_package": "lockstep.dev/lockstep/v1;lockstepv1",
    "java_package": "dev.lockstep.v1",
    "java_multiple_files": True,
    "csharp_namespace": "Lockstep.V1",
    "ruby_package": "Lockstep::V1",
    "php_namespace": "Lockstep\\V1",
    "objc_class_prefix": "LKSV1",
    "swift_prefix": "LockstepV1",
}
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH")

# A compiler's generated code goes with the library of the same release: both of the system.
SYSTEM = os.pathsep.join(["/usr/bin", os.environ["PATH"]])
JARS = Path("/usr/share/java")
JAVA_LIBRARIES = ["protobuf", "guava", "grpc-api", "grpc-stub", "grpc-protobuf"]
GO_LIBRARIES = Path("/usr/share/gocode")


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    if result.returncode and any(word in result.stderr for word in UNREACHABLE):
        pytest.skip("needs the package registry of npm")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def needs(*programs: str, packages: str) -> None:
    missing = [name for name in programs if shutil.which(name, path=SYSTEM) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: apt-get install {packages}")


def generated(language: str, folder: Path, path: str = SYSTEM) -> Path:
    """Returns the folder that buf generates a language's files into."""
    plugins = [each for each in TEMPLATE["plugins"] if each["out"] == language]
    template = json.dumps({**TEMPLATE, "plugins": plugins})
    buf = shutil.which("buf")
    assert buf is not None
    run(buf, "generate", "--template", template, "--output", folder, folder=PROTOS, PATH=path)
    return folder / language


def test_python_imports_its_messages_and_stubs(tmp_path: Path):
    needs("grpc_python_plugin", packages="protobuf-compiler-grpc")
    files = generated("python", tmp_path, os.environ["PATH"])
    modules = [f"lockstep.v1.{stem}_pb2" for stem in STEMS]
    modules += [f"lockstep.v1.{stem}_pb2_grpc" for stem in SERVICES]
    program = f"import {', '.join(modules)}; print(lockstep.v1.tensor_pb2.__file__)"
    printed = run(sys.executable, "-W", "error", "-c", program, folder=files, PYTHONPATH="")
    assert Path(printed.strip()).is_relative_to(files)


def test_typescript_accepts_its_messages(tmp_path: Path):
    needs("npm", "node", packages="nodejs npm")
    packages = ["@bufbuild/protobuf@2.17.0", "@bufbuild/protoc-gen-es@2.17.0", "typescript@5.9.3"]
    run("npm", "install", "--no-audit", "--no-fund", *packages, folder=tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    programs = tmp_path / "node_modules" / ".bin"
    files = generated("typescript", tmp_path, os.pathsep.join([str(programs), SYSTEM]))
    options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022"]
    sources = sorted(files.rglob("*.ts"))
    assert len(sources) == len(STEMS)
    run(programs / "tsc", *options, *sources, folder=tmp_path)


@pytest.mark.parametrize("stem", STEMS)
def test_a_schema_file_names_its_package_in_every_language(stem: str):
    options = importlib.import_module(f"lockstep.v1.{stem}_pb2").DESCRIPTOR.GetOptions()
    assert {name: getattr(options, name) for name in NAMES} == NAMES


@pytest.mark.parametrize("stem", STEMS)
def test_no_field_takes_the_name_that_java_gives_to_the_bytes_of_a_text(stem: str):
    schema = importlib.import_module(f"lockstep.v1.{stem}_pb2").DESCRIPTOR
    for message in schema.message_types_by_name.values():
        texts = [each.name for each in message.fields if each.type == each.TYPE_STRING]
        assert not {f"{name}_bytes" for name in texts}.intersection(message.fields_by_name)


@pytest.mark.full
def test_java_compiles_its_messages_and_stubs(tmp_path: Path):
    packages = "default-jdk-headless protobuf-compiler libprotobuf-java libgrpc-java"
    packages += " protobuf-compiler-grpc-java-plugin libgeronimo-annotation-1.3-spec-java"
    needs("javac", "protoc", "grpc_java_plugin", packages=packages)
    jars = [JARS / f"{name}.jar" for name in [*JAVA_LIBRARIES, "geronimo-annotation-1.3-spec"]]
    if not all(jar.exists() for jar in jars):
        pytest.skip(f"needs libraries of Java: apt-get install {packages}")
    files = generated("java", tmp_path)
    path = os.pathsep.join(map(str, jars))
    run("javac", "-nowarn", "-cp", path, "-d", "out", *files.rglob("*.java"), folder=tmp_path)
    assert (tmp_path / "out/dev/lockstep/v1/TokenizerServiceGrpc.class").exists()
    assert (tmp_path / "out/dev/lockstep/v1/GenerateRequest.class").exists()


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_cpp_compiles_its_messages_and_stubs(tmp_path: Path):
    packages = "g++ protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libgrpc++-dev"
    needs("g++", "protoc", "grpc_cpp_plugin", packages=packages)
    if not Path("/usr/include/grpcpp/grpcpp.h").exists():
        pytest.skip(f"needs headers of C++: apt-get install {packages}")
    files = generated("cpp", tmp_path)

    def compiled(source: Path) -> None:
        command = ["g++", "-std=c++17", "-O0", "-I", ".", "-c", source, "-o", f"{source}.o"]
        run(*command, folder=files)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(compiled, sorted(files.rglob("*.cc"))))
    assert (files / "lockstep/v1/tokenizer_service.grpc.pb.cc.o").exists()


@pytest.mark.full
def test_go_compiles_its_messages_and_stubs(tmp_path: Path):
    packages = "golang-go protoc-gen-go protoc-gen-go-grpc golang-google-grpc-dev"
    needs("go", "protoc-gen-go", "protoc-gen-go-grpc", packages=packages)
    if not (GO_LIBRARIES / "src" / "google.golang.org" / "grpc").exists():
        pytest.skip(f"needs libraries of Go: apt-get install {packages}")
    files = generated("go", tmp_path)
    (tmp_path / "src").mkdir()
    files.rename(tmp_path / "src" / "lockstep.dev")
    environment = {"GO111MODULE": "off", "GOPATH": f"{tmp_path}{os.pathsep}{GO_LIBRARIES}"}
    environment["GOCACHE"] = str(tmp_path / "cache")
    run("go", "vet", "lockstep.dev/lockstep/v1", folder=tmp_path, **environment)
    run("go", "build", "lockstep.dev/lockstep/v1", folder=tmp_path, **environment)


@pytest.mark.full
def test_ruby_loads_its_messages_and_stubs(tmp_path: Path):
    packages = "ruby ruby-grpc protobuf-compiler protobuf-compiler-grpc"
    needs("ruby", "protoc", "grpc_ruby_plugin", packages=packages)
    files = generated("ruby", tmp_path)
    program = 'ARGV.each { |name| require "lockstep/v1/#{name}_services_pb" }\n'
    program += (
        "puts Lockstep::V1::TokenizerService::Stub, Lockstep::V1::GenerateRequest.new.to_proto"
    )
    printed = run("ruby", "-I", ".", "-e", program, *SERVICES, folder=files)
    assert printed.split() == ["Lockstep::V1::TokenizerService::Stub"]


@pytest.mark.full
def test_php_parses_its_messages_and_stubs(tmp_path: Path):
    packages = "php-cli protobuf-compiler protobuf-compiler-grpc"
    needs("php", "protoc", "grpc_php_plugin", packages=packages)
    files = generated("php", tmp_path)
    assert (files / "Lockstep" / "V1" / "TokenizerServiceClient.php").exists()
    for source in (files / "Lockstep").rglob("*.php"):
        run("php", "-l", source, folder=files)


@pytest.mark.parametrize(
    ("language", "file", "says"),
    [
        ("csharp", "V1/Tensor.cs", "namespace Lockstep.V1 {"),
        ("objc", "lockstep/v1/Tensor.pbobjc.h", "@interface LKSV1Tensor : GPBMessage"),
    ],
)
def test_other_languages_get_their_names(tmp_path: Path, language: str, file: str, says: str):
    files = generated(language, tmp_path, os.environ["PATH"])
    assert says in (files / file).read_text()
