import pytest

from tests.tokenizer_factory import KINDS, make_tokenizer_folder
from tokenizer_service.text import loading, tokenizer_files


@pytest.fixture(scope="session")
def load(tmp_path_factory):
    """Loads a built tokenizer by kind, once for all tests: they never change."""
    loaded = {}

    def load_kind(kind="byte_level"):
        if kind not in loaded:
            folder = make_tokenizer_folder(tmp_path_factory.mktemp(kind), kind)
            loaded[kind] = loading.load(tokenizer_files.read(folder), "tiny")
        return loaded[kind]

    return load_kind


@pytest.fixture(params=sorted(KINDS), scope="session")
def tokenizer(request, load):
    """Every kind of tokenizer in turn."""
    return load(request.param)
