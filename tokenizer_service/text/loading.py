"""From the files of a tokenizer to its revision 0.

As in transformers, `tokenizer.json` decides which template tokens surround a text;
`add_bos_token` and `add_eos_token` of the configuration are for tokenizers without it.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import tokenizers

from tokenizer_service.text import control_tokens
from tokenizer_service.text.components import component_check
from tokenizer_service.text.control_tokens import Aliases
from tokenizer_service.text.growing_tokenizer import GrowingTokenizer, added_tokens
from tokenizer_service.text.token_bytes import decoder_rules
from tokenizer_service.text.token_table import build_table
from tokenizer_service.text.tokenizer import Tokenizer, library_token
from tokenizer_service.text.tokenizer_files import SAVE_AGAIN, TokenizerFiles, TokenizerFilesError
from vocabulary import AddedToken, Reference, base_fingerprint


def load(files: TokenizerFiles, tokenizer_id: str) -> Tokenizer:
    """Makes revision 0 out of files, as `PreTrainedTokenizerFast` reads them.

    Raises:
        TokenizerFilesError: the files contradict each other or are damaged.
    """
    members = _members(files)
    component_check.check(members)
    trusting = _parse(json.dumps(members, ensure_ascii=False))
    _check_ids(members, trusting)
    declared = _declared_tokens(files, trusting)
    trusting.add_tokens([library_token(token) for token in declared])
    control = _control_tokens(files, trusting)
    trusting.add_special_tokens([library_token(token) for token in control.values()])
    aliases = Aliases()
    names = {content: aliases.of(_id(trusting, token)) for content, token in control.items()}
    # Files of 2019 leave the type to be guessed from the other members.
    members["model"] = {**members["model"], "type": type(trusting.model).__name__}
    plain = _plain(members, control, names)
    plain.add_tokens([library_token(token) for token in declared if token.content not in control])
    rules = decoder_rules(_decoder(trusting))
    table = build_table(trusting, rules)
    _check_same_ids(trusting, plain, names)
    return Tokenizer(
        reference=Reference(tokenizer_id, 0, base_fingerprint(files.tokenizer_json), len(table)),
        roles={role: _id(trusting, token) for role, token in files.roles.items()},
        table=table,
        control_ids=frozenset(_id(trusting, token) for token in control.values()),
        decoder_rules=rules,
        # transformers ignores the setting for BPE, where it would damage the text.
        cleans_up_spaces=files.cleans_up_spaces and members["model"]["type"] != "BPE",
        trusting=GrowingTokenizer.of(trusting, added_tokens(trusting)),
        plain=GrowingTokenizer.of(plain, added_tokens(plain)),
        aliases=aliases,
    )


def _members(files: TokenizerFiles) -> dict[str, Any]:
    """Reads `tokenizer.json` without the padding and truncation that were last used.

    Whether it is a tokenizer is checked by the library.
    """
    try:
        members = json.loads(files.tokenizer_json)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        raise TokenizerFilesError(
            f"tokenizer.json is damaged: it is not a JSON object. {SAVE_AGAIN}"
        )
    return {**members, "padding": None, "truncation": None}


def _parse(text: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise TokenizerFilesError(f"tokenizer.json cannot be read: {error}. {SAVE_AGAIN}") from None


def _decoder(tokenizer: tokenizers.Tokenizer) -> dict[str, Any] | None:
    """Returns the decoder as the library writes it today, however old the file is."""
    if tokenizer.decoder is None:
        return None
    members: dict[str, Any] = json.loads(tokenizer.decoder.__getstate__())
    return members


def _check_ids(members: Mapping[str, Any], trusting: tokenizers.Tokenizer) -> None:
    """Refuses ids of added tokens that the library would silently replace by its own."""
    for token in members.get("added_tokens") or ():
        if (token_id := trusting.token_to_id(token["content"])) != token["id"]:
            raise TokenizerFilesError(
                f"tokenizer.json gives an added token the id {token['id']}, where the tokenizers "
                f"library counts {token_id}: ids of added tokens must follow the ids of the "
                f"model without a gap. {SAVE_AGAIN}"
            )


def _declared_tokens(files: TokenizerFiles, trusting: tokenizers.Tokenizer) -> list[AddedToken]:
    """Collects the added tokens of the configuration, which overrides the other file.

    A token that one of the two files calls special is special.
    """
    present = trusting.get_added_tokens_decoder()
    declared = []
    for token_id, token in files.declared_ids:
        if trusting.token_to_id(token.content) != token_id:
            raise _missing(token_id)
        special = token.special or (token_id in present and present[token_id].special)
        declared.append(replace(token, special=special))
    return declared


def _control_tokens(files: TokenizerFiles, trusting: tokenizers.Tokenizer) -> dict[str, AddedToken]:
    """Collects control tokens from `tokenizer.json` and from the configuration."""
    present = {
        token.content: AddedToken(
            token.content,
            special=token.special,
            single_word=token.single_word,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            normalized=token.normalized,
        )
        for _, token in sorted(trusting.get_added_tokens_decoder().items())
    }
    control = {content: token for content, token in present.items() if token.special}
    for token in files.control_tokens:
        if trusting.token_to_id(token.content) is None:
            raise _missing(None)
        known = present.get(token.content, token)
        control.setdefault(token.content, replace(known, special=True))
    return control


def _missing(token_id: int | None) -> TokenizerFilesError:
    named = "a special token" if token_id is None else f"id {token_id}"
    return TokenizerFilesError(
        f"tokenizer_config.json declares {named} that tokenizer.json does not have. {SAVE_AGAIN}"
    )


def _plain(
    members: Mapping[str, Any], control: Mapping[str, AddedToken], names: Mapping[str, str]
) -> tokenizers.Tokenizer:
    plain = _parse(control_tokens.disarm(members, names))
    plain.add_special_tokens(
        [
            tokenizers.AddedToken(
                names[token.content],
                special=True,
                lstrip=token.lstrip,
                rstrip=token.rstrip,
                normalized=False,
            )
            for token in control.values()
        ]
    )
    return plain


def _check_same_ids(
    trusting: tokenizers.Tokenizer,
    plain: tokenizers.Tokenizer,
    names: Mapping[str, str],
) -> None:
    for content, alias in names.items():
        if trusting.token_to_id(content) != plain.token_to_id(alias):
            raise TokenizerFilesError(
                "tokenizer.json lists added tokens with ids that are not in order: save the "
                "tokenizer again with transformers 5 or newer."
            )


def _id(trusting: tokenizers.Tokenizer, token: AddedToken) -> int:
    token_id = trusting.token_to_id(token.content)
    assert token_id is not None, "Control tokens were looked up before. This is a bug."
    return token_id
