"""Makes a site of the pages, as a hook of mkdocs: `make site`.

What is written for the repository is shown as it is: README, the pages of `docs/`, and the
examples with the outputs that their notebooks hold. The reference is made from docstrings. A link
to a file that the site does not have becomes the name of the file.
"""

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import lockstep_client

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = {f"examples/{path.stem}.md": path for path in (ROOT / "examples").glob("*.ipynb")}
# Pages of the site whose sources lie outside of docs/, by address.
ELSEWHERE = {
    "index.md": "README.md",
    "examples/index.md": "examples/README.md",
    **{address: f"examples/{path.name}" for address, path in NOTEBOOKS.items()},
}
ADDRESSES = {source: address for address, source in ELSEWHERE.items()}

# What a public name is, by the room that it comes from.
ROOMS = {
    "_sync": "Clients",
    "_requests": "Keywords",
    "_values": "Values",
    "_results": "Results",
    "_calls": "Results",
    "_transport": "Connections",
    "_async": "Clients for asyncio",
}

_LINK = re.compile(r"\[([^\[\]]*)\]\(([^)#\s]+)((?:#[^)\s]*)?)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages whose sources lie elsewhere, and the reference."""
    for address, source in ELSEWHERE.items():
        path = ROOT / source
        text = notebook(path) if address in NOTEBOOKS else path.read_text()
        files.append(File.generated(config, address, content=text))
    files.append(File.generated(config, "reference.md", content=reference()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leads every link to the page that the site has for a file."""
    address = page.file.src_uri
    source = ELSEWHERE.get(address, f"docs/{address}")

    def relinked(link: re.Match[str]) -> str:
        text, target, anchor = link.groups()
        if "://" in target:
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        there = ADDRESSES.get(path) or (path[len("docs/") :] if path.startswith("docs/") else "")
        if there not in files.src_uris:
            return f"{text} (`{path}`)" if text.strip("`") != path else f"`{path}`"
        return f"[{text}]({os.path.relpath(there, posixpath.dirname(address) or '.')}{anchor})"

    return _LINK.sub(relinked, markdown)


def notebook(path: Path) -> str:
    """Returns a notebook as a page, with the outputs that it holds."""
    return "\n\n".join(_cells(nbformat.read(path, as_version=4)))


def _cells(content: nbformat.NotebookNode) -> Iterator[str]:
    for cell in content.cells:
        if cell.cell_type == "markdown":
            yield cell.source
            continue
        yield f"```python\n{cell.source}\n```"
        for output in cell.outputs:
            data = output.get("data", {})
            if "text/html" in data:
                yield f'<div class="output">{"".join(data["text/html"])}</div>'
            else:
                yield f"```text\n{output.get('text') or data.get('text/plain', '')}\n```"


def reference() -> str:
    """Returns the page with every public name, by what it is."""
    groups: dict[str, list[str]] = {title: [] for title in ROOMS.values()}
    for name in lockstep_client.__all__:
        # Constants and aliases of types do not say where they come from.
        module = getattr(getattr(lockstep_client, name), "__module__", "")
        room = module.removeprefix("lockstep_client.").partition(".")[0]
        if room != "exceptions":  # they are all below
            groups[ROOMS.get(room, "Connections")].append(name)
    parts = [
        "# Reference\n",
        "Everything public of the Python client, from its docstrings. `lockstep_client.exceptions` "
        "has one class for each reason of [errors](errors.md).\n",
    ]
    for title, names in groups.items():
        parts.append(f"## {title}\n")
        parts += [f"::: lockstep_client.{name}\n" for name in names]
    parts.append("## Errors\n")
    parts.append("::: lockstep_client.exceptions\n    options:\n      show_root_heading: false\n")
    return "\n".join(parts)
