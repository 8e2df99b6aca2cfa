"""The blocking client is the asyncio one without `await`, and nobody writes it by hand."""

import ast
import itertools

import pytest
from lockstep.v1 import generation_pb2

import lockstep_client
from client.generate import __main__ as generate
from client.generate import blocking, options, typescript

ONLY_PYTHON = {"input_ids", "attention_mask", "position_ids", "generation_config"}


def test_the_blocking_client_is_what_the_asyncio_one_gives(capsys):
    assert generate.main(["--check"]) == 0, capsys.readouterr().out


def test_a_change_of_the_asyncio_client_alone_is_found():
    sources = {path.name: path.read_text() for path in generate.PACKAGE.glob("_async/*.py")}
    before = blocking.translate(sources)
    sources["model.py"] = sources["model.py"].replace("Runs the model.", "Runs a model.")
    assert blocking.translate(sources)["model.py"] != before["model.py"]


def test_a_rule_that_no_module_needs_is_refused():
    rules = {r"\bawait ": "", r"\bnowhere\b": "here"}
    with pytest.raises(ValueError, match="nowhere"):
        blocking.translate({"a.py": "await b()\n"}, rules)


def test_a_word_that_no_comment_of_the_schema_has_is_refused(monkeypatch):
    monkeypatch.setattr(options, "_WORDS", options._WORDS | {r"\bnowhere\b": "here"})
    with pytest.raises(ValueError, match="nowhere"):
        options.generate(generate.SCHEMA)


def test_what_no_rule_translates_is_refused():
    with pytest.raises(ValueError, match=r"a\.py is still asynchronous.*asyncio\.gather"):
        blocking.translate({"a.py": "await asyncio.gather()\n"}, {r"\bawait ": ""})


def test_generated_modules_say_first_what_they_are_made_from():
    for path in generate.PACKAGE.glob("_sync/*.py"):
        assert path.read_text().startswith(f"# Generated from _async/{path.name} by `make client`.")


def test_every_public_method_says_itself_what_it_does():
    for path in generate.PACKAGE.glob("_async/*.py"):
        module = ast.parse(path.read_text())
        classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
        for node in itertools.chain(module.body, *(each.body for each in classes)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
                overloads = [name.id for name in node.decorator_list if isinstance(name, ast.Name)]
                text = ast.get_docstring(node) or ""
                assert (text and not text.startswith("See ")) or "overload" in overloads, node.name


def test_every_keyword_is_documented_for_help_and_for_editors():
    tree = ast.parse((generate.PACKAGE / "_requests" / "options.py").read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert {node.name for node in classes} <= set(lockstep_client.__all__)
    for node in classes:
        of_class = getattr(lockstep_client, node.name).__doc__
        for keyword, text in itertools.pairwise(node.body):
            if isinstance(keyword, ast.AnnAssign):
                assert f"        {keyword.target.id}: " in of_class
                assert isinstance(text, ast.Expr), keyword.target.id


def test_a_keyword_has_range_and_default_of_the_schema():
    of_configuration = " ".join(lockstep_client.GenerationOptions.__doc__.split())
    assert (
        "0 turns it off. Unset means the model's default, 50 where it has none." in of_configuration
    )
    of_call = " ".join(lockstep_client.GenerateOptions.__doc__.split())
    assert "whatever its number. Range: [-1000, 1000]. Unset means 0." in of_call


def test_every_field_of_the_configuration_is_a_keyword():
    fields = {field.name for field in generation_pb2.GenerationConfig.DESCRIPTOR.fields}
    renamed = {"eos_token_ids", "forced_eos_token_ids"}
    keywords = lockstep_client.GenerationOptions.__annotations__.keys()
    assert keywords - {"generation_config"} == fields - renamed | {
        name.removesuffix("s") for name in renamed
    }


def test_every_exported_name_is_in_the_page_of_the_clients():
    page = (generate.PACKAGE.parents[2] / "docs/client.md").read_text()
    for name in lockstep_client.__all__:
        assert f"| `{name}` | " in page


def test_exported_names_are_sorted_and_exist():
    names = lockstep_client.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name))
    assert all(hasattr(lockstep_client, name) for name in names)


def test_only_the_facade_and_the_exceptions_are_public_modules():
    package = generate.PACKAGE
    names = {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert {name for name in names if not name.startswith("_")} == {"exceptions"}


def test_every_keyword_of_python_is_one_of_typescript():
    module = (generate.NODE / typescript.TARGET).read_text()
    for name in ("GenerationOptions", "GenerateOptions", "EncodeOptions", "AddOptions"):
        keywords = getattr(lockstep_client, name).__annotations__
        for keyword in keywords.keys() - ONLY_PYTHON:
            first, *others = keyword.split("_")
            assert f"  {first}{''.join(map(str.title, others))}?: " in module


def test_a_type_that_nothing_says_in_typescript_is_refused():
    options_of_a_call = 'class A(TypedDict):\n    a: Unknown\n    """A thing."""\n'
    with pytest.raises(ValueError, match="what Unknown is in TypeScript"):
        typescript.generate(options_of_a_call, generate.SCHEMA)
