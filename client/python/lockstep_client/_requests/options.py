# Generated from the schema by `make client`.
"""Keywords of methods. One that is missing, or None, is unset."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from lockstep_client._values.batch import PaddingSide
from lockstep_client._values.selection import ScoreSelection
from lockstep_client._values.session_retention import SessionRetention
from lockstep_client._values.vocabulary_ref import VocabularyRef

Ids = Sequence[int]
OffsetUnit = Literal["bytes", "code_points", "utf16"]
PaddingStrategy = bool | Literal["longest", "max_length"]


class GenerationOptions(TypedDict, total=False):
    """Keywords of every method that generates.

    Controls how tokens are chosen and when a sequence ends.

    Names and meanings are those of Hugging Face's `GenerationConfig`. An unset field takes the
    model's own default (`generation_config.json`), then Hugging Face's; zero is a value. Responses
    return the configuration that was used, every field resolved. A field that has no effect in the
    mode asked for (for example `temperature` without `do_sample`) is refused unless `lenient` is
    set.

    Order of application: guidance_scale; then, unless `processors` gives another: sequence_bias,
    encoder_repetition_penalty, repetition_penalty, presence_penalty and frequency_penalty,
    logit_bias, no_repeat_ngram_size, encoder_no_repeat_ngram_size, bad_words_ids, min_length,
    min_new_tokens, allowed_token_ids, forced tokens, remove_invalid_values,
    exponential_decay_length_penalty, suppress_tokens, begin_suppress_tokens; then, only with
    `do_sample`: temperature, top_n_sigma, top_h, top_k, top_p, min_p, typical_p, epsilon_cutoff,
    eta_cutoff; then watermark, renormalize_logits.

    Attributes:
        max_new_tokens: Upper bound on generated tokens. Range: [1, context - prompt]. Unset means
            the server's default, at most what the context leaves room for.
        do_sample: Whether tokens are drawn. False takes the most probable one, ties to the lowest
            id. Unset means the model's default, false where it has none.
        temperature: Divisor of the logits. Range: [1e-10, 1e6]. For greedy decoding use
            `do_sample=False`, not 0. Unset means the model's default, 1 where it has none.
        top_k: Keeps the k highest-scored tokens and all ties of the k-th. Range: [0, 2^31); 0
            turns it off. Unset means the model's default, 50 where it has none.
        top_p: Keeps the smallest set of tokens whose probability reaches top_p. Range: [0, 1]; 1
            turns it off, 0 keeps the most probable token. Unset means the model's default, 1 where
            it has none.
        seed: Seed of the draws. Range: [0, 2^63). Unset means: the server picks one and returns
            it. Draws depend on the seed, the sequence and the position only.
        repetition_penalty: Divides positive and multiplies negative logits of tokens already in
            the sequence. Range: [1e-6, 100]; 1 turns it off. Unset means the model's default, 1
            where it has none.
        min_new_tokens: Number of tokens generated before an end-of-sequence id is possible. Range:
            [0, max_new_tokens]. 0 turns it off. Unset means the model's default, 0 where it has
            none.
        num_return_sequences: Sequences returned per prompt. Range: [1, server limit], with beams
            at most as many. More than one needs `do_sample` or beams. Unset means 1.
        stop_token_ids: Ids that end the sequence, in addition to `eos_token_id`. The id is part of
            the result. Not affected by `min_new_tokens`. At most 4096. Empty means none.
        eos_token_id: End-of-sequence ids. Unset means the model's; an empty list means none.
        stop_strings: Texts that end the sequence, matched over the bytes of generated tokens,
            across their boundaries. The sequence ends with the token in which the first of these
            texts ends; this token is part of the result and may have further bytes after the text.
            At most 8, 1 to 256 bytes each. Unset means the model's. Unlike in Hugging Face, a text
            that begins in the prompt does not count. The server must follow a tokenizer service
            whose text is the concatenation of the bytes of its tokens (`FeatureNotImplemented`
            otherwise).
        stop_sequences: Id sequences that end the sequence. At most 32, of at most 1024 ids each.
            Empty means none.
        lenient: Whether fields without effect are ignored instead of refused. Unset means False.
        seed_mode: How draws are made. Unset means `"counter"`. `"counter"`: A counter-based
            generator keyed by seed, sequence, position and token: independent of batch mates,
            restarts and of Step or Generate. `"torch"`: Draws as `torch.manual_seed(seed);
            model.generate(...)` does for this sequence alone, or for the beams of this prompt
            alone: every sequence, and every beam search, has its own generator, with the seed that
            is returned. In a session, too, each position after the prompt has one draw, however
            often it is asked for. Costs about a millisecond per token and 50,000 ids of each beam.
            torch reads only the lower 32 bits of the seed, and draws from at most 2^24 scores,
            counting all beams of a prompt together.
        min_p: Keeps tokens at least min_p times as probable as the most probable one. Range: [0,
            1]; 0 turns it off. Unset means the model's default, 0 where it has none.
        top_h: Keeps a set by its share of entropy. Range: (0, 1]. Unset means the model's default;
            where it has none, it is off.
        typical_p: Keeps the most typical tokens up to this mass. Range: (0, 1]; 1 turns it off.
            Unset means the model's default, 1 where it has none.
        epsilon_cutoff: Drops tokens below this probability. Range: [0, 1); 0 turns it off. Unset
            means the model's default, 0 where it has none.
        eta_cutoff: Drops tokens by entropy-dependent probability. Range: [0, 1); 0 turns it off.
            Unset means the model's default, 0 where it has none.
        presence_penalty: Subtracted once from tokens that were generated. Range: [-100, 100]; 0
            turns it off. Unset means 0. Not in Hugging Face.
        frequency_penalty: Subtracted per occurrence from tokens that were generated. Range: [-100,
            100]; 0 turns it off. Unset means 0. Not in Hugging Face.
        prompt_ignore_length: Number of leading prompt tokens that `repetition_penalty` does not
            see. Range: [0, prompt]. Unset means 0.
        no_repeat_ngram_size: Length of runs of tokens that must not repeat. Range: [0, 2^31); 0
            turns it off. Unset means the model's default, 0 where it has none.
        encoder_repetition_penalty: As `repetition_penalty`, for the prompt only and inverted:
            encourages tokens of the prompt. Range: [1e-6, 100]; 1 turns it off. Unset means the
            model's default, 1 where it has none.
        encoder_no_repeat_ngram_size: As `no_repeat_ngram_size`, for runs of the prompt. Range: [0,
            2^31); 0 turns it off. Unset means the model's default, 0 where it has none.
        exponential_decay_length_penalty: Multiplies the score of end-of-sequence ids from some
            length on. Unset means the model's default; where it has none, it is off.
            `start_index`: Generated tokens before the penalty starts. `decay_factor`: Growth per
            token. Range: (0, 100].
        logit_bias: Added to the logits of single ids. At most 256 entries, each in [-100, 100].
            Empty means none.
        sequence_bias: Added to the last token of id sequences when the tokens before it match. At
            most 1024, of at most 64 ids each. Empty means the model's. `ids`: The id sequence, at
            least one id. `bias`: Added to the logit of its last id when the ids before it match.
            Range: [-1e9, 1e9], or -inf.
        bad_words_ids: Id sequences that must not be generated. At most 64, of at most 1024 ids
            each. Single end-of-sequence ids among them have no effect. Empty means the model's.
        allowed_token_ids: The only ids that may be generated. Unset means all.
        suppress_tokens: Ids that are never generated. Unset means the model's.
        begin_suppress_tokens: Ids that are not generated as the first token. Unset means the
            model's.
        forced_bos_token_id: The id forced as the first generated token after a prompt of one
            token. Unset means the model's.
        forced_eos_token_id: The ids forced when the length limit is reached. Unset means the
            model's.
        forced_prefix: Tokens that the sequence must begin with, after the prompt. At most
            `max_new_tokens` ids. Unset means none.
        num_beams: Number of beams. With `do_sample`, continuations of all beams are drawn, without
            replacement. A prompt takes one row of a step and KV cache per beam, all of them from
            the start. Tokens are known at the end only: a stream sends them then, and `scores` are
            the scores of the tokens returned. Distributions are log-probabilities before the first
            processor, as in Hugging Face. Not in sessions, `Score` and `ComputeLogits`, nor
            together with `guidance_scale`. Range: [1, rows of a step]; 1 means no beam search.
            Unset means the model's default, 1 where it has none.
        length_penalty: Exponent of the length that sums of log-probabilities are divided by: above
            0 favors long sequences, below 0 short ones. Needs `num_beams`. Range: [-100, 100].
            Unset means the model's default, 1 where it has none.
        early_stopping: When beam search stops. Needs `num_beams`. Unset means the model's default,
            `False` where it has none. `True`: As soon as there are enough finished beams. `False`:
            When better beams are unlikely. `"never"`: When better beams are impossible.
        guidance_scale: Classifier-free guidance: weight of the prompt against `negative_prompt`.
            Scores are `w * (log p - log n) + log n` with the probabilities p after the prompt and
            n after the negative prompt, both continued with the tokens generated; raw logits are
            the logits after the prompt. A sequence takes two rows of a step and KV cache for both.
            Not in sessions, `Score` and `ComputeLogits`. Range: [0, 100]; 1 turns it off. Unset
            means the model's default, 1 where it has none.
        negative_prompt: The prompt to be guided away from, for every prompt of the call. Needs
            `guidance_scale`. Unset means the last token of each prompt, as in Hugging Face.
        green_list_watermark: A green-list watermark. Unset means the model's, if it has one.
            `greenlist_ratio`: Share of green tokens. Range: (0, 1). Unset means 0.25. `bias`:
            Added to the logits of green tokens. Range: [-100, 100]. Unset means 2.0.
            `hashing_key`: Key of the hash. Range: [0, 2^63). Unset means 15485863. `self_hash`:
            Whether the current token is part of the hash (self-hash). False hashes the tokens
            before it only (left-hash). `context_width`: Number of previous tokens that are hashed.
            Range: [1, 2^31). Unset means 1.
        synth_id_watermark: A SynthID watermark. Unset means none. `ngram_len`: Length of the runs
            that are hashed, including the token to choose. Range: [2, 256]. Required. `keys`: One
            key per depth of the tournament: 1 to 64, each in [0, 2^63). `context_history_size`:
            Number of contexts remembered: a repeated one is left alone. Range: [1, 65536]. Unset
            means 1024. `sampling_table_seed`: Seed of the table of coin flips. Range: [0, 2^63).
            Unset means 0. `sampling_table_size`: Size of the table. Range: [1, 2^20]. Unset means
            65536. `skip_first_ngram_calls`: Whether the first `ngram_len - 1` tokens are left
            alone.
        max_length: Upper bound on prompt plus generated tokens. Ignored when `max_new_tokens` is
            set, and by sessions. Range: (longest prompt, context]. Unset means the model's
            default, unless the model has a default of `max_new_tokens`.
        min_length: Lower bound on prompt plus generated tokens before an end-of-sequence id is
            possible. Range: [0, 2^31). Has no effect when `min_new_tokens` is set; as in
            `generate`, both may be. 0 turns it off. Unset means the model's default, 0 where it
            has none.
        max_time: Wall-clock limit from the arrival of the request, up to 1e9 seconds. The sequence
            ends with `"time_limit"` at the first token after it, so it always has at least one
            token. Unset means the model's default; where it has none, there is no limit.
        prompt_lookup_num_tokens: Number of next tokens that are guessed from earlier text of the
            sequence and verified together in one step (prompt lookup). Changes speed and not the
            result: a guess counts only if it is the token that is chosen anyway, with any
            processors, seed and scores. (A step of more tokens may change the last bits of logits,
            as any other batch may, see `DeterminismLevel`.) The server guesses fewer while many
            sequences run or guesses turn out wrong, and none with a model whose state cannot be
            rolled back. Range: [0, 32]; 0 turns it off. Unset means the model's default, or 0.
        max_matching_ngram_size: Longest run that prompt lookup matches. Range: [1, 32]. Unset
            means the model's default, or 2.
        renormalize_logits: Whether scores are normalized to log-probabilities at the end. Unset
            means the model's default, false where it has none.
        remove_invalid_values: Whether NaN and infinite logits are replaced instead of ending the
            row. Unset means the model's default, false where it has none.
        lengths_include_padding: Whether `max_length`, `min_length` and `forced_bos_token_id` (its
            prompt of one token) count the padding of a padded prompt, as `generate` does.
            Processors see no pad ids in either case. `Generate` only. Unset means False.
        min_tokens_to_keep: Fewest tokens that any warper keeps. Range: [1, 2^31). Unset means 1,
            with beams one more than there are end-of-sequence ids, and at least 2.
        processors: The processors to apply, in this order, instead of the order above. Fields
            above that imply a processor are then refused, and their defaults of the model are off.
            At most 64, with at most 64 KiB of arguments in total. Only `temperature`,
            `remove_invalid_values`, `renormalize_logits` and processors whose description says so
            may be named more than once. Empty means the order above. `name`: The name.
            `arguments_json`: Arguments by name, as a JSON object that the processor's schema
            accepts. Unset means no arguments. Responses have every default filled in.
        top_n_sigma: Keeps tokens whose score is at least the highest score minus top_n_sigma
            standard deviations of all scores, excluded tokens not counted. The tokens kept do not
            depend on `temperature`. Range: [0, 100]; 0 turns it off. Unset means 0. Not in Hugging
            Face.
        generation_config: Keywords in one: a mapping, or a `GenerationConfig` of Hugging Face's,
            of which what differs from its defaults counts. Those that are given beside it go
            first.
    """

    max_new_tokens: int
    """Upper bound on generated tokens. Range: [1, context - prompt]. Unset means the server's
    default, at most what the context leaves room for."""
    do_sample: bool
    """Whether tokens are drawn. False takes the most probable one, ties to the lowest id. Unset
    means the model's default, false where it has none."""
    temperature: float
    """Divisor of the logits. Range: [1e-10, 1e6]. For greedy decoding use `do_sample=False`, not
    0. Unset means the model's default, 1 where it has none."""
    top_k: int
    """Keeps the k highest-scored tokens and all ties of the k-th. Range: [0, 2^31); 0 turns it
    off. Unset means the model's default, 50 where it has none."""
    top_p: float
    """Keeps the smallest set of tokens whose probability reaches top_p. Range: [0, 1]; 1 turns it
    off, 0 keeps the most probable token. Unset means the model's default, 1 where it has none."""
    seed: int
    """Seed of the draws. Range: [0, 2^63). Unset means: the server picks one and returns it. Draws
    depend on the seed, the sequence and the position only."""
    repetition_penalty: float
    """Divides positive and multiplies negative logits of tokens already in the sequence. Range:
    [1e-6, 100]; 1 turns it off. Unset means the model's default, 1 where it has none."""
    min_new_tokens: int
    """Number of tokens generated before an end-of-sequence id is possible. Range: [0,
    max_new_tokens]. 0 turns it off. Unset means the model's default, 0 where it has none."""
    num_return_sequences: int
    """Sequences returned per prompt. Range: [1, server limit], with beams at most as many. More
    than one needs `do_sample` or beams. Unset means 1."""
    stop_token_ids: Ids
    """Ids that end the sequence, in addition to `eos_token_id`. The id is part of the result. Not
    affected by `min_new_tokens`. At most 4096. Empty means none."""
    eos_token_id: int | Ids
    """End-of-sequence ids. Unset means the model's; an empty list means none."""
    stop_strings: str | Sequence[str]
    """Texts that end the sequence, matched over the bytes of generated tokens, across their
    boundaries. The sequence ends with the token in which the first of these texts ends; this token
    is part of the result and may have further bytes after the text. At most 8, 1 to 256 bytes
    each. Unset means the model's. Unlike in Hugging Face, a text that begins in the prompt does
    not count. The server must follow a tokenizer service whose text is the concatenation of the
    bytes of its tokens (`FeatureNotImplemented` otherwise)."""
    stop_sequences: Sequence[Ids]
    """Id sequences that end the sequence. At most 32, of at most 1024 ids each. Empty means
    none."""
    lenient: bool
    """Whether fields without effect are ignored instead of refused. Unset means False."""
    seed_mode: Literal["counter", "torch"]
    """How draws are made. Unset means `"counter"`. `"counter"`: A counter-based generator keyed by
    seed, sequence, position and token: independent of batch mates, restarts and of Step or
    Generate. `"torch"`: Draws as `torch.manual_seed(seed); model.generate(...)` does for this
    sequence alone, or for the beams of this prompt alone: every sequence, and every beam search,
    has its own generator, with the seed that is returned. In a session, too, each position after
    the prompt has one draw, however often it is asked for. Costs about a millisecond per token and
    50,000 ids of each beam. torch reads only the lower 32 bits of the seed, and draws from at most
    2^24 scores, counting all beams of a prompt together."""
    min_p: float
    """Keeps tokens at least min_p times as probable as the most probable one. Range: [0, 1]; 0
    turns it off. Unset means the model's default, 0 where it has none."""
    top_h: float
    """Keeps a set by its share of entropy. Range: (0, 1]. Unset means the model's default; where
    it has none, it is off."""
    typical_p: float
    """Keeps the most typical tokens up to this mass. Range: (0, 1]; 1 turns it off. Unset means
    the model's default, 1 where it has none."""
    epsilon_cutoff: float
    """Drops tokens below this probability. Range: [0, 1); 0 turns it off. Unset means the model's
    default, 0 where it has none."""
    eta_cutoff: float
    """Drops tokens by entropy-dependent probability. Range: [0, 1); 0 turns it off. Unset means
    the model's default, 0 where it has none."""
    presence_penalty: float
    """Subtracted once from tokens that were generated. Range: [-100, 100]; 0 turns it off. Unset
    means 0. Not in Hugging Face."""
    frequency_penalty: float
    """Subtracted per occurrence from tokens that were generated. Range: [-100, 100]; 0 turns it
    off. Unset means 0. Not in Hugging Face."""
    prompt_ignore_length: int
    """Number of leading prompt tokens that `repetition_penalty` does not see. Range: [0, prompt].
    Unset means 0."""
    no_repeat_ngram_size: int
    """Length of runs of tokens that must not repeat. Range: [0, 2^31); 0 turns it off. Unset means
    the model's default, 0 where it has none."""
    encoder_repetition_penalty: float
    """As `repetition_penalty`, for the prompt only and inverted: encourages tokens of the prompt.
    Range: [1e-6, 100]; 1 turns it off. Unset means the model's default, 1 where it has none."""
    encoder_no_repeat_ngram_size: int
    """As `no_repeat_ngram_size`, for runs of the prompt. Range: [0, 2^31); 0 turns it off. Unset
    means the model's default, 0 where it has none."""
    exponential_decay_length_penalty: tuple[int, float]
    """Multiplies the score of end-of-sequence ids from some length on. Unset means the model's
    default; where it has none, it is off. `start_index`: Generated tokens before the penalty
    starts. `decay_factor`: Growth per token. Range: (0, 100]."""
    logit_bias: Mapping[int, float]
    """Added to the logits of single ids. At most 256 entries, each in [-100, 100]. Empty means
    none."""
    sequence_bias: Mapping[tuple[int, ...], float] | Sequence[tuple[Ids, float]]
    """Added to the last token of id sequences when the tokens before it match. At most 1024, of at
    most 64 ids each. Empty means the model's. `ids`: The id sequence, at least one id. `bias`:
    Added to the logit of its last id when the ids before it match. Range: [-1e9, 1e9], or -inf."""
    bad_words_ids: Sequence[Ids]
    """Id sequences that must not be generated. At most 64, of at most 1024 ids each. Single
    end-of-sequence ids among them have no effect. Empty means the model's."""
    allowed_token_ids: Ids
    """The only ids that may be generated. Unset means all."""
    suppress_tokens: Ids
    """Ids that are never generated. Unset means the model's."""
    begin_suppress_tokens: Ids
    """Ids that are not generated as the first token. Unset means the model's."""
    forced_bos_token_id: int
    """The id forced as the first generated token after a prompt of one token. Unset means the
    model's."""
    forced_eos_token_id: int | Ids
    """The ids forced when the length limit is reached. Unset means the model's."""
    forced_prefix: Ids
    """Tokens that the sequence must begin with, after the prompt. At most `max_new_tokens` ids.
    Unset means none."""
    num_beams: int
    """Number of beams. With `do_sample`, continuations of all beams are drawn, without
    replacement. A prompt takes one row of a step and KV cache per beam, all of them from the
    start. Tokens are known at the end only: a stream sends them then, and `scores` are the scores
    of the tokens returned. Distributions are log-probabilities before the first processor, as in
    Hugging Face. Not in sessions, `Score` and `ComputeLogits`, nor together with `guidance_scale`.
    Range: [1, rows of a step]; 1 means no beam search. Unset means the model's default, 1 where it
    has none."""
    length_penalty: float
    """Exponent of the length that sums of log-probabilities are divided by: above 0 favors long
    sequences, below 0 short ones. Needs `num_beams`. Range: [-100, 100]. Unset means the model's
    default, 1 where it has none."""
    early_stopping: bool | Literal["never"]
    """When beam search stops. Needs `num_beams`. Unset means the model's default, `False` where it
    has none. `True`: As soon as there are enough finished beams. `False`: When better beams are
    unlikely. `"never"`: When better beams are impossible."""
    guidance_scale: float
    """Classifier-free guidance: weight of the prompt against `negative_prompt`. Scores are `w *
    (log p - log n) + log n` with the probabilities p after the prompt and n after the negative
    prompt, both continued with the tokens generated; raw logits are the logits after the prompt. A
    sequence takes two rows of a step and KV cache for both. Not in sessions, `Score` and
    `ComputeLogits`. Range: [0, 100]; 1 turns it off. Unset means the model's default, 1 where it
    has none."""
    negative_prompt: Ids | str
    """The prompt to be guided away from, for every prompt of the call. Needs `guidance_scale`.
    Unset means the last token of each prompt, as in Hugging Face."""
    green_list_watermark: Mapping[str, Any]
    """A green-list watermark. Unset means the model's, if it has one. `greenlist_ratio`: Share of
    green tokens. Range: (0, 1). Unset means 0.25. `bias`: Added to the logits of green tokens.
    Range: [-100, 100]. Unset means 2.0. `hashing_key`: Key of the hash. Range: [0, 2^63). Unset
    means 15485863. `self_hash`: Whether the current token is part of the hash (self-hash). False
    hashes the tokens before it only (left-hash). `context_width`: Number of previous tokens that
    are hashed. Range: [1, 2^31). Unset means 1."""
    synth_id_watermark: Mapping[str, Any]
    """A SynthID watermark. Unset means none. `ngram_len`: Length of the runs that are hashed,
    including the token to choose. Range: [2, 256]. Required. `keys`: One key per depth of the
    tournament: 1 to 64, each in [0, 2^63). `context_history_size`: Number of contexts remembered:
    a repeated one is left alone. Range: [1, 65536]. Unset means 1024. `sampling_table_seed`: Seed
    of the table of coin flips. Range: [0, 2^63). Unset means 0. `sampling_table_size`: Size of the
    table. Range: [1, 2^20]. Unset means 65536. `skip_first_ngram_calls`: Whether the first
    `ngram_len - 1` tokens are left alone."""
    max_length: int
    """Upper bound on prompt plus generated tokens. Ignored when `max_new_tokens` is set, and by
    sessions. Range: (longest prompt, context]. Unset means the model's default, unless the model
    has a default of `max_new_tokens`."""
    min_length: int
    """Lower bound on prompt plus generated tokens before an end-of-sequence id is possible. Range:
    [0, 2^31). Has no effect when `min_new_tokens` is set; as in `generate`, both may be. 0 turns
    it off. Unset means the model's default, 0 where it has none."""
    max_time: float
    """Wall-clock limit from the arrival of the request, up to 1e9 seconds. The sequence ends with
    `"time_limit"` at the first token after it, so it always has at least one token. Unset means
    the model's default; where it has none, there is no limit."""
    prompt_lookup_num_tokens: int
    """Number of next tokens that are guessed from earlier text of the sequence and verified
    together in one step (prompt lookup). Changes speed and not the result: a guess counts only if
    it is the token that is chosen anyway, with any processors, seed and scores. (A step of more
    tokens may change the last bits of logits, as any other batch may, see `DeterminismLevel`.) The
    server guesses fewer while many sequences run or guesses turn out wrong, and none with a model
    whose state cannot be rolled back. Range: [0, 32]; 0 turns it off. Unset means the model's
    default, or 0."""
    max_matching_ngram_size: int
    """Longest run that prompt lookup matches. Range: [1, 32]. Unset means the model's default, or
    2."""
    renormalize_logits: bool
    """Whether scores are normalized to log-probabilities at the end. Unset means the model's
    default, false where it has none."""
    remove_invalid_values: bool
    """Whether NaN and infinite logits are replaced instead of ending the row. Unset means the
    model's default, false where it has none."""
    lengths_include_padding: bool
    """Whether `max_length`, `min_length` and `forced_bos_token_id` (its prompt of one token) count
    the padding of a padded prompt, as `generate` does. Processors see no pad ids in either case.
    `Generate` only. Unset means False."""
    min_tokens_to_keep: int
    """Fewest tokens that any warper keeps. Range: [1, 2^31). Unset means 1, with beams one more
    than there are end-of-sequence ids, and at least 2."""
    processors: Sequence[str | tuple[str, Mapping[str, Any] | str]]
    """The processors to apply, in this order, instead of the order above. Fields above that imply
    a processor are then refused, and their defaults of the model are off. At most 64, with at most
    64 KiB of arguments in total. Only `temperature`, `remove_invalid_values`, `renormalize_logits`
    and processors whose description says so may be named more than once. Empty means the order
    above. `name`: The name. `arguments_json`: Arguments by name, as a JSON object that the
    processor's schema accepts. Unset means no arguments. Responses have every default filled
    in."""
    top_n_sigma: float
    """Keeps tokens whose score is at least the highest score minus top_n_sigma standard deviations
    of all scores, excluded tokens not counted. The tokens kept do not depend on `temperature`.
    Range: [0, 100]; 0 turns it off. Unset means 0. Not in Hugging Face."""
    generation_config: Any
    """Keywords in one: a mapping, or a `GenerationConfig` of Hugging Face's, of which what differs
    from its defaults counts. Those that are given beside it go first."""


class ManyOptions(TypedDict, total=False):
    """Keywords of calls that take any number of rows.

    Attributes:
        errors: What is done when rows fail: `raise` ends the call with the first error; `return`
            goes on with the other rows, and has the error in the place of the row's result, or in
            the `errors` of a batch. Unset means `raise`.
        progress: Whether a bar shows how many rows are done. Unset means False.
        concurrency: Most requests at a time, where a call takes several. Unset means as many as
            keep the service busy and leave others room.
    """

    errors: Literal["raise", "return"]
    """What is done when rows fail: `raise` ends the call with the first error; `return` goes on
    with the other rows, and has the error in the place of the row's result, or in the `errors` of
    a batch. Unset means `raise`."""
    progress: bool
    """Whether a bar shows how many rows are done. Unset means False."""
    concurrency: int | None
    """Most requests at a time, where a call takes several. Unset means as many as keep the service
    busy and leave others room."""


class PromptOptions(GenerationOptions, total=False):
    """Keywords in place of prompts, as `**batch` gives them, in addition to `GenerationOptions`.

    Attributes:
        input_ids: Ids of the prompts, `[B, S]` integers, or rows of ids. Unset where prompts are
            given.
        attention_mask: `[B, S]` integers, 1 at tokens and 0 at padding. Unset means that all are
            tokens.
        position_ids: `[B, S]` integers. Unset means the cumulative sum of the mask minus one.
    """

    input_ids: Any
    """Ids of the prompts, `[B, S]` integers, or rows of ids. Unset where prompts are given."""
    attention_mask: Any
    """`[B, S]` integers, 1 at tokens and 0 at padding. Unset means that all are tokens."""
    position_ids: Any
    """`[B, S]` integers. Unset means the cumulative sum of the mask minus one."""


class GenerateOptions(PromptOptions, total=False):
    """Keywords of `generate` and `stream`, in addition to `PromptOptions`.

    Attributes:
        output_logits: Whether full rows of raw logits are returned. Unset means False.
        output_scores: Whether full rows of processed scores are returned. Unset means False.
        processor_trace: Whether the score of the chosen or given token after each processor is.
            Unset means False.
        selection: What to return about each generated token, instead of the three. Unset means
            nothing.
        prompt_selection: What to return about each prompt token except the first, which no
            distribution predicts. Unset means nothing.
        errors: What is done when a sequence fails by itself: its error is raised once all of its
            request have ended, or returned in its `details` beside the other sequences. Unset
            means `raise`.
        vocabulary: The vocabulary that the ids belong to. Unset means the vocabulary of the batch,
            and for ids without one the newest that this client has seen, or a newer one.
        seeds: Seeds of the rows, one per prompt. Empty means `seed` for all: rows still draw
            independently of each other.
        priority: Lower numbers go first. A running sequence makes room for one with a lower number
            and goes on later; only its timing changes. From time to time a place goes to the
            sequence that has waited longest, whatever its number. Range: [-1000, 1000]. Unset
            means 0. One below 0 needs the role `model-admin`.
        cache_salt: Limits reuse of the prompt's KV cache to requests with the same salt. Callers
            with different client certificates never share. At most 256 characters. Unset means the
            empty salt, which counts as a salt of its own.
        use_prefix_cache: Whether this request may reuse the KV cache of other requests' prompts,
            and other requests the KV cache of this prompt. Unset means True.
        keep_session: Keeps the finished sequences as a session: one row per sequence, with its KV
            cache and its seed. Unset means that nothing is kept. Its rows are rows of a session
            from the start: they wait for memory as rows of `OpenSession` do, and `priority` has no
            effect. When the server takes no more sessions, or the rows would never fit, the call
            is refused before anything runs. Nothing is kept when the call is cancelled or one of
            its sequences ends with an error.
    """

    output_logits: bool
    """Whether full rows of raw logits are returned. Unset means False."""
    output_scores: bool
    """Whether full rows of processed scores are returned. Unset means False."""
    processor_trace: bool
    """Whether the score of the chosen or given token after each processor is. Unset means
    False."""
    selection: ScoreSelection | None
    """What to return about each generated token, instead of the three. Unset means nothing."""
    prompt_selection: ScoreSelection | None
    """What to return about each prompt token except the first, which no distribution predicts.
    Unset means nothing."""
    errors: Literal["raise", "return"]
    """What is done when a sequence fails by itself: its error is raised once all of its request
    have ended, or returned in its `details` beside the other sequences. Unset means `raise`."""
    vocabulary: VocabularyRef | None
    """The vocabulary that the ids belong to. Unset means the vocabulary of the batch, and for ids
    without one the newest that this client has seen, or a newer one."""
    seeds: Sequence[int]
    """Seeds of the rows, one per prompt. Empty means `seed` for all: rows still draw independently
    of each other."""
    priority: int
    """Lower numbers go first. A running sequence makes room for one with a lower number and goes
    on later; only its timing changes. From time to time a place goes to the sequence that has
    waited longest, whatever its number. Range: [-1000, 1000]. Unset means 0. One below 0 needs the
    role `model-admin`."""
    cache_salt: str
    """Limits reuse of the prompt's KV cache to requests with the same salt. Callers with different
    client certificates never share. At most 256 characters. Unset means the empty salt, which
    counts as a salt of its own."""
    use_prefix_cache: bool
    """Whether this request may reuse the KV cache of other requests' prompts, and other requests
    the KV cache of this prompt. Unset means True."""
    keep_session: SessionRetention | bool
    """Keeps the finished sequences as a session: one row per sequence, with its KV cache and its
    seed. Unset means that nothing is kept. Its rows are rows of a session from the start: they
    wait for memory as rows of `OpenSession` do, and `priority` has no effect. When the server
    takes no more sessions, or the rows would never fit, the call is refused before anything runs.
    Nothing is kept when the call is cancelled or one of its sequences ends with an error."""


class ScoreOptions(PromptOptions, total=False):
    """Keywords of `score` and `compute_logits`, in addition to `PromptOptions`.

    Attributes:
        output_logits: Whether full rows of raw logits are returned. Unset means False for `score`,
            True for `compute_logits` without a `selection`.
        output_scores: Whether full rows of processed scores are returned. Unset means False.
        processor_trace: Whether the score of the chosen or given token after each processor is.
            Unset means False.
        selection: What to return about each token. Unset means its log-probability alone for
            `score`, and full rows of logits for `compute_logits`.
        vocabulary: The vocabulary that the ids belong to. Unset means the vocabulary of the batch,
            and for ids without one the newest that this client has seen, or a newer one.
    """

    output_logits: bool
    """Whether full rows of raw logits are returned. Unset means False for `score`, True for
    `compute_logits` without a `selection`."""
    output_scores: bool
    """Whether full rows of processed scores are returned. Unset means False."""
    processor_trace: bool
    """Whether the score of the chosen or given token after each processor is. Unset means
    False."""
    selection: ScoreSelection | None
    """What to return about each token. Unset means its log-probability alone for `score`, and full
    rows of logits for `compute_logits`."""
    vocabulary: VocabularyRef | None
    """The vocabulary that the ids belong to. Unset means the vocabulary of the batch, and for ids
    without one the newest that this client has seen, or a newer one."""


class DistributionOptions(PromptOptions, total=False):
    """Keywords of `distribution`, in addition to `PromptOptions`.

    Attributes:
        vocabulary: The vocabulary that the ids belong to. Unset means the vocabulary of the batch,
            and for ids without one the newest that this client has seen, or a newer one.
    """

    vocabulary: VocabularyRef | None
    """The vocabulary that the ids belong to. Unset means the vocabulary of the batch, and for ids
    without one the newest that this client has seen, or a newer one."""


class SessionOptions(PromptOptions, total=False):
    """Keywords of `open_session`, in addition to `PromptOptions`.

    `max_length` is here the most tokens that a row will hold, prompt included: memory is reserved
    for them. Range: [longest prompt, context]. Unset means the server's default.

    Attributes:
        output_logits: Whether full rows of raw logits are returned. Unset means True, unless
            `selection` is given.
        output_scores: Whether full rows of processed scores are returned. Unset means False.
        processor_trace: Whether the score of the chosen or given token after each processor is.
            Unset means False.
        selection: What to return about the prompt's end. Unset means full rows of logits, float32.
        ttl_s: Idle time after which the session may be dropped. Range: [1 s, server limit]. Unset
            means the server's default.
        reopen: Whether the session is opened again by itself, with `reopen`, where a call of it
            finds it lost. Unset means False.
        vocabulary: The vocabulary that the ids belong to. Unset means the vocabulary of the batch,
            and for ids without one the newest that this client has seen, or a newer one.
        cache_salt: Limits reuse of the prompts' KV cache to requests with the same salt. Callers
            with different client certificates never share. At most 256 characters. Unset means the
            empty salt, which counts as a salt of its own.
        sample: Whether the server chooses the first token of each row. Unset means False.
        append: Whether the chosen token is appended too, so that the next step needs no ids.
    """

    output_logits: bool
    """Whether full rows of raw logits are returned. Unset means True, unless `selection` is
    given."""
    output_scores: bool
    """Whether full rows of processed scores are returned. Unset means False."""
    processor_trace: bool
    """Whether the score of the chosen or given token after each processor is. Unset means
    False."""
    selection: ScoreSelection | None
    """What to return about the prompt's end. Unset means full rows of logits, float32."""
    ttl_s: float
    """Idle time after which the session may be dropped. Range: [1 s, server limit]. Unset means
    the server's default."""
    reopen: bool
    """Whether the session is opened again by itself, with `reopen`, where a call of it finds it
    lost. Unset means False."""
    vocabulary: VocabularyRef | None
    """The vocabulary that the ids belong to. Unset means the vocabulary of the batch, and for ids
    without one the newest that this client has seen, or a newer one."""
    cache_salt: str
    """Limits reuse of the prompts' KV cache to requests with the same salt. Callers with different
    client certificates never share. At most 256 characters. Unset means the empty salt, which
    counts as a salt of its own."""
    sample: bool
    """Whether the server chooses the first token of each row. Unset means False."""
    append: bool
    """Whether the chosen token is appended too, so that the next step needs no ids."""


class StepOptions(TypedDict, total=False):
    """Keywords of `step`.

    Attributes:
        output_logits: Whether full rows of raw logits are returned. Unset means True, unless
            `selection` is given.
        output_scores: Whether full rows of processed scores are returned. Unset means False.
        processor_trace: Whether the score of the chosen or given token after each processor is.
            Unset means False.
        selection: What to return. Unset means as in the step before.
        sample: Whether the server chooses the next token of each stepped row. Unset means False.
        append: Whether the chosen token is appended too, so that the next step needs no ids.
        look_ahead: Whether the appended tokens are forgotten after the answer.
        step_id: Chosen by the client. If it equals the id of the newest step that had one, also
            over another stream, the answer of that step is returned and nothing changes. Older
            steps are not remembered; `expected_position` guards against them.
    """

    output_logits: bool
    """Whether full rows of raw logits are returned. Unset means True, unless `selection` is
    given."""
    output_scores: bool
    """Whether full rows of processed scores are returned. Unset means False."""
    processor_trace: bool
    """Whether the score of the chosen or given token after each processor is. Unset means
    False."""
    selection: ScoreSelection | None
    """What to return. Unset means as in the step before."""
    sample: bool
    """Whether the server chooses the next token of each stepped row. Unset means False."""
    append: bool
    """Whether the chosen token is appended too, so that the next step needs no ids."""
    look_ahead: bool
    """Whether the appended tokens are forgotten after the answer."""
    step_id: str
    """Chosen by the client. If it equals the id of the newest step that had one, also over another
    stream, the answer of that step is returned and nothing changes. Older steps are not
    remembered; `expected_position` guards against them."""


class PaddingOptions(TypedDict, total=False):
    """Keywords that say how a batch is padded.

    Attributes:
        padding: `longest` or True pads to the longest row, `max_length` to that length, False not
            at all. Unset means False, and `longest` for `pad`.
        padding_side: The side that padding is placed on. Unset means left.
        pad_to_multiple_of: Rounds the length up to a multiple. Range: [1, 4096]. Unset means 1.
        max_length: Length for `padding="max_length"`, and longest row for `truncation`, in ids,
            special tokens included; both need it. Range: [1, 2^20].
        pad_token_id: The padding id. Unset means the pad token, or the end-of-sequence token where
            there is none, or 0; the mask is right in every case.
    """

    padding: PaddingStrategy
    """`longest` or True pads to the longest row, `max_length` to that length, False not at all.
    Unset means False, and `longest` for `pad`."""
    padding_side: PaddingSide
    """The side that padding is placed on. Unset means left."""
    pad_to_multiple_of: int
    """Rounds the length up to a multiple. Range: [1, 4096]. Unset means 1."""
    max_length: int
    """Length for `padding="max_length"`, and longest row for `truncation`, in ids, special tokens
    included; both need it. Range: [1, 2^20]."""
    pad_token_id: int
    """The padding id. Unset means the pad token, or the end-of-sequence token where there is none,
    or 0; the mask is right in every case."""


class CuttingOptions(PaddingOptions, total=False):
    """Keywords of calls that can also cut rows, in addition to `PaddingOptions`.

    Attributes:
        truncation: Whether rows are cut to `max_length`. Unset means False.
        truncation_side: The side that ids are removed from. Unset means right.
        parse_special_tokens: Whether special tokens spelled in the text become their control ids.
            Unset means False: the text is untrusted, and its characters stay characters.
    """

    truncation: bool
    """Whether rows are cut to `max_length`. Unset means False."""
    truncation_side: PaddingSide
    """The side that ids are removed from. Unset means right."""
    parse_special_tokens: bool
    """Whether special tokens spelled in the text become their control ids. Unset means False: the
    text is untrusted, and its characters stay characters."""


class EncodeOptions(CuttingOptions, ManyOptions, total=False):
    """Keywords of `encode`, in addition to `CuttingOptions`, `PaddingOptions`, `ManyOptions`.

    Attributes:
        add_special_tokens: Whether the tokenizer's template tokens (BOS and the like) are added.
            Unset means True.
        return_offsets: The unit of the offsets to return. Unset returns none.
        return_special_tokens_mask: Whether masks of special tokens are returned.
        return_word_ids: Whether word indices are returned.
        return_tokens: Whether token strings are returned.
        return_token_bytes: Whether token bytes are returned.
        return_token_type_ids: Whether token type ids (which text of a pair) are returned.
        min_revision: Oldest revision that may answer. Unset means any.
    """

    add_special_tokens: bool
    """Whether the tokenizer's template tokens (BOS and the like) are added. Unset means True."""
    return_offsets: OffsetUnit
    """The unit of the offsets to return. Unset returns none."""
    return_special_tokens_mask: bool
    """Whether masks of special tokens are returned."""
    return_word_ids: bool
    """Whether word indices are returned."""
    return_tokens: bool
    """Whether token strings are returned."""
    return_token_bytes: bool
    """Whether token bytes are returned."""
    return_token_type_ids: bool
    """Whether token type ids (which text of a pair) are returned."""
    min_revision: int
    """Oldest revision that may answer. Unset means any."""


class ChatOptions(CuttingOptions, total=False):
    """Keywords of `apply_chat_template`, in addition to `CuttingOptions` and `PaddingOptions`.

    Attributes:
        add_generation_prompt: Whether the prompt for the assistant's turn is added. Unset means
            True, except with `continue_final_message`.
        continue_final_message: Whether the last message is left open to be continued.
        template_name: Name of the template. Unset means the default one. Templates never come from
            a request.
        tools: Tools, given to the template.
        documents: Documents, given to the template.
        template_arguments: Further variables of the template.
    """

    add_generation_prompt: bool
    """Whether the prompt for the assistant's turn is added. Unset means True, except with
    `continue_final_message`."""
    continue_final_message: bool
    """Whether the last message is left open to be continued."""
    template_name: str
    """Name of the template. Unset means the default one. Templates never come from a request."""
    tools: Sequence[Mapping[str, Any]]
    """Tools, given to the template."""
    documents: Sequence[Mapping[str, Any]]
    """Documents, given to the template."""
    template_arguments: Mapping[str, Any]
    """Further variables of the template."""


class DecodeOptions(ManyOptions, total=False):
    """Keywords of `decode`, in addition to `ManyOptions`.

    Attributes:
        skip_special_tokens: Whether special tokens are skipped. Unset means True.
        clean_up_tokenization_spaces: Whether spaces before punctuation are removed. Unset means
            the tokenizer's own setting.
        return_bytes: Whether raw bytes are returned too.
        check_round_trip: Whether encoding the text again is compared with the ids.
    """

    skip_special_tokens: bool | None
    """Whether special tokens are skipped. Unset means True."""
    clean_up_tokenization_spaces: bool | None
    """Whether spaces before punctuation are removed. Unset means the tokenizer's own setting."""
    return_bytes: bool
    """Whether raw bytes are returned too."""
    check_round_trip: bool
    """Whether encoding the text again is compared with the ids."""


class CompletionOptions(GenerationOptions, total=False):
    """Keywords of `Lockstep.generate` and `.stream`, in addition to `GenerationOptions`.

    A `negative_prompt` may be a text, which is encoded as a prompt is.

    Attributes:
        add_special_tokens: Whether the tokenizer's template tokens (BOS and the like) are added.
            Unset means True.
        parse_special_tokens: Whether special tokens spelled in the text become their control ids.
            Unset means False: the text is untrusted, and its characters stay characters.
        skip_special_tokens: Whether special tokens are skipped. Unset means True.
    """

    add_special_tokens: bool
    """Whether the tokenizer's template tokens (BOS and the like) are added. Unset means True."""
    parse_special_tokens: bool
    """Whether special tokens spelled in the text become their control ids. Unset means False: the
    text is untrusted, and its characters stay characters."""
    skip_special_tokens: bool
    """Whether special tokens are skipped. Unset means True."""


class ChangeOptions(TypedDict, total=False):
    """Keywords of every change of the vocabulary.

    Attributes:
        expected_revision: The newest revision the caller knows. Unset means: whatever is newest.
        idempotency_key: A UUID. A repeated key returns the first answer and changes nothing. Unset
            means one made for the call.
    """

    expected_revision: int | None
    """The newest revision the caller knows. Unset means: whatever is newest."""
    idempotency_key: str | None
    """A UUID. A repeated key returns the first answer and changes nothing. Unset means one made
    for the call."""


class AddOptions(ChangeOptions, total=False):
    """Keywords of `add_tokens`, in addition to `ChangeOptions`.

    Attributes:
        special: Whether tokens given as texts are control tokens. Unset means False.
        dry_run: Whether to report what would happen and change nothing.
        allow_unusual_characters: Whether texts are accepted that are not in Unicode normal form C
            or hold control, bidirectional, invisible, private or unassigned characters. NUL and
            white space alone are never accepted.
        allow_text_changes: Whether plain tokens may change how ordinary text is encoded, for
            example "the" inside "then", and whether pieces of ordinary text may become special:
            from then on `skip_special_tokens` leaves them out of every decoded text.
        texts: Texts to show the effect on. At most 64 of at most 4096 bytes. Only a dry run
            reports on them.
    """

    special: bool
    """Whether tokens given as texts are control tokens. Unset means False."""
    dry_run: bool
    """Whether to report what would happen and change nothing."""
    allow_unusual_characters: bool
    """Whether texts are accepted that are not in Unicode normal form C or hold control,
    bidirectional, invisible, private or unassigned characters. NUL and white space alone are never
    accepted."""
    allow_text_changes: bool
    """Whether plain tokens may change how ordinary text is encoded, for example "the" inside
    "then", and whether pieces of ordinary text may become special: from then on
    `skip_special_tokens` leaves them out of every decoded text."""
    texts: Iterable[str]
    """Texts to show the effect on. At most 64 of at most 4096 bytes. Only a dry run reports on
    them."""
