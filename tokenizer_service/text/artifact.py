"""The tokenizer's files as of one revision, in one archive.

Equal revisions give equal bytes: entries are sorted and carry no time.
"""

import io
import json
import zipfile

from tokenizer_service.text.tokenizer import Tokenizer
from tokenizer_service.text.tokenizer_files import TokenizerFiles

_NO_TIME = (1980, 1, 1, 0, 0, 0)


def build(tokenizer: Tokenizer, files: TokenizerFiles) -> bytes:
    """Returns a zip archive in the layout of `save_pretrained`.

    Args:
        tokenizer: the revision.
        files: what revision 0 was made of.
    """
    entries: dict[str, bytes] = {}
    config = dict(files.config)
    config.pop("chat_template", None)  # the templates have files of their own
    if tokenizer.reference.revision == 0:
        entries["tokenizer.json"] = files.tokenizer_json
    else:
        entries["tokenizer.json"] = tokenizer.trusting.whole.to_str(pretty=True).encode()
        config.pop("added_tokens_decoder", None)  # what it says of tokens is in tokenizer.json
    for role, token_id in tokenizer.roles.items():
        config[f"{role}_token"] = tokenizer.table.tokens[token_id]
    entries["tokenizer_config.json"] = json.dumps(config, ensure_ascii=False, indent=2).encode()
    for name, source in files.chat_templates.items():
        path = f"additional_chat_templates/{name}.jinja"
        entries["chat_template.jinja" if name == "default" else path] = source.encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, _NO_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            writer.writestr(info, entries[name])
    return archive.getvalue()
