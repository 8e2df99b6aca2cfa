import pytest

from docs import generate


@pytest.mark.parametrize("page", generate.pages(), ids=lambda page: page.name)
def test_a_page_shows_what_the_code_says(page):
    text = page.read_text()
    assert generate.generated(text) == text, "Run `python -m docs.generate`."


def test_every_table_is_on_a_page():
    text = "".join(page.read_text() for page in generate.pages())
    assert all(f"<!-- generated: {name} -->" in text for name in generate.TABLES)
