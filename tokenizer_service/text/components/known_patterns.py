r"""Regular expressions of models in use: their time grows with the text and no faster.

Each is what `tokenizer.json` holds, character for character. A test tries all of them as
`component_trial` tries others, so a tokenizer that has only these need not wait for it.
"""

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_ANY_CASE = f"(?i:{_CONTRACTIONS})"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
_LOWER = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_NO_LETTER = r"[^\r\n\p{L}\p{N}]?"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+"
_CASED = (
    rf"{_NO_LETTER}[{_UPPER}]*[{_LOWER}]+",
    rf"{_NO_LETTER}[{_UPPER}]+[{_LOWER}]*",
)

KNOWN_PATTERNS = frozenset(
    {
        # GPT-2, also where it is written out
        rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+|{_SYMBOLS}|\s+(?!\S)|\s+",
        rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+|{_SYMBOLS}|\s+(?!\S)",
        # Llama 3, GLM 4; Qwen 2 and later; Qwen 3.5
        rf"{_ANY_CASE}|{_NO_LETTER}\p{{L}}+|\p{{N}}{{1,3}}|{_SYMBOLS}[\r\n]*|{_SPACES}",
        rf"{_ANY_CASE}|{_NO_LETTER}\p{{L}}+|\p{{N}}|{_SYMBOLS}[\r\n]*|{_SPACES}",
        rf"{_ANY_CASE}|{_NO_LETTER}[\p{{L}}\p{{M}}]+|\p{{N}}"
        rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}",
        # GPT-4o, Llama 4; Mistral's Tekken
        "|".join(f"{case}{_ANY_CASE}?" for case in _CASED)
        + rf"|\p{{N}}{{1,3}}|{_SYMBOLS}[\r\n/]*|{_SPACES}",
        "|".join(_CASED) + rf"|\p{{N}}|{_SYMBOLS}[\r\n/]*|{_SPACES}",
        # DeepSeek V2, V3 and R1: one after another
        r"[\r\n]",
        r"\s?\p{L}+",
        r"\s?\p{P}+",
        r"\p{N}",
        r"\p{N}{1,3}",
        r"[一-龥ࠀ-一가-퟿]+",
        r"[一-龥぀-ゟ゠-ヿ]+",  # noqa: RUF001
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?"""
        rf"""[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}""",
        # Bloom; Falcon; CLIP
        r" ?[^(\s|[.,!?…。，、।۔،])]+",  # noqa: RUF001
        "[0-9][0-9][0-9]",
        rf"{_CONTRACTIONS}|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+",
        rf"<\|startoftext\|>|<\|endoftext\|>|{_CONTRACTIONS}|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+",
        # Normalizers of converted SentencePiece models
        r" {2,}",
        r"\s+",
        r"\s{2,}|[\n\r\t]",
        r"[\n\r\t]",
        r"\n",
    }
)
