"""The table of generation fields: one row for each field of the schema's `GenerationConfig`.

A row is the annotation of a field: type, `Parameter`, meaning, default. What
requests are checked by, what is read from and written to the wire and a model's
own file, the order of processors with their arguments, and what the sampler's
fast path covers all follow from it.

Processors stand in the order of Hugging Face's
`GenerationMixin._get_logits_processor`; ours (`presence_penalty`,
`frequency_penalty`, `logit_bias`, `allowed_token_ids`, `forced_prefix`,
`top_n_sigma`) stand where the schema says. A field whose need names another stands behind that.
"""

from functools import partial
from typing import Annotated, Any, Final, Literal

import msgspec

from model_service.protocol.number import Number, whole
from model_service.protocol.parameter import Choice, IdList, Need, Parameter, Stage, rows_of
from model_service.protocol.processor_arguments import (
    BIAS,
    CUTOFF,
    GreenListWatermark,
    ProcessorSpec,
    SynthIdWatermark,
    bad_words,
)

REPETITION = Number(1e-6, 100)
SHARE = Number(0, 1, above_low=True)

ALWAYS: Final = "always"

SAMPLING = Need("do_sample = true", lambda c: c.do_sample)
BEAMS = Need("num_beams", lambda c: c.num_beams > 1)
NO_BEAMS = Need("num_beams = 1", lambda c: c.num_beams == 1)
GUIDANCE = Need("guidance_scale", lambda c: c.guidance_scale != 1.0)
LOOKUP = Need("prompt_lookup_num_tokens", lambda c: c.prompt_lookup_num_tokens > 0)
PENALTY = Need("repetition_penalty", lambda c: c.repetition_penalty != 1.0)
KEEPER = Need("a warper that keeps some, such as top_p", lambda c: _keeps_some(c))
LENGTHS = Need(
    "a length that it could change: max_length, min_length or forced_bos_token_id",
    lambda c: _has_lengths(c),
)
NO_MIN_NEW_TOKENS = Need(
    "min_new_tokens = 0: it takes the place of min_length",
    lambda c: c.min_new_tokens == 0,
    refused=False,
)
ENDS = Need("eos_token_ids", lambda c: c.eos_token_ids)

_processor = partial(Parameter, stage=Stage.PROCESSOR)
_warper = partial(Parameter, stage=Stage.WARPER, needs=(SAMPLING,))
_closing = partial(Parameter, stage=Stage.CLOSING)
_keeper = partial(_warper, takes=("min_tokens_to_keep",))
_end = partial(Parameter, fast_path=ALWAYS)  # the end of a sequence, not the choice of a token


def _keeps_some(config: "GenerationConfig") -> bool:
    return any(row.is_on(config) for row in PROCESSORS if "min_tokens_to_keep" in row.takes)


def _has_lengths(config: "GenerationConfig") -> bool:
    return bool(
        config.max_length is not None
        or config.min_length
        or config.forced_bos_token_id is not None
        or config.processors
    )


class GenerationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Resolved parameters of a generation. Names and meanings are Hugging Face's.

    Every value is in the range that its row states; the engine does not check
    again.
    """

    max_new_tokens: Annotated[
        int,
        _end(whole(1, hint="at most what the context leaves"), in_file=False),
        "Upper bound on generated tokens. Sessions ignore it.",
    ]
    max_length: Annotated[
        int | None,
        _end(whole(1, hint="at most the context"), in_file=False),
        "Upper bound on prompt and generated tokens, which `max_new_tokens` is then made from, row "
        "by row. Sessions ignore it.",
    ] = None
    eos_token_ids: Annotated[
        tuple[int, ...],
        _end(IdList(), hugging_face="eos_token_id"),
        "Ids that end the sequence with reason `eos_token`.",
    ] = ()
    stop_token_ids: Annotated[
        tuple[int, ...],
        _end(IdList(), hugging_face=None),
        "Further ids that end the sequence, with reason `stop_token`.",
    ] = ()
    stop_sequences: Annotated[
        tuple[tuple[int, ...], ...],
        _end("runs", hugging_face=None),
        "Runs of generated ids that end the sequence, with reason `stop_sequence`.",
    ] = ()
    stop_strings: Annotated[
        tuple[str, ...],
        _end("texts"),
        "Texts in the bytes of generated tokens that end the sequence, with reason `stop_string`.",
    ] = ()
    max_time: Annotated[
        float | None,
        _end("seconds"),
        "Seconds from arrival after which the next token is the last.",
    ] = None

    prompt_lookup_num_tokens: Annotated[
        int,
        Parameter(
            whole(0, 32, hint="0 turns it off"),
            needs=(NO_BEAMS,),
            is_clipped=True,
            fast_path=ALWAYS,
        ),
        "Guesses of tokens to come that a step verifies. Never changes a result.",
    ] = 0
    max_matching_ngram_size: Annotated[
        int,
        Parameter(whole(1, 32), needs=(LOOKUP,), is_clipped=True, fast_path=ALWAYS),
        "Newest tokens that are compared with earlier ones to find guesses, at most.",
    ] = 2

    num_beams: Annotated[int, Parameter(whole(1, hint="1 turns it off")), "Beams of a search."] = 1
    length_penalty: Annotated[
        float,
        Parameter(Number(-100, 100), needs=(BEAMS,)),
        "Exponent of the length that sums of log-probabilities are divided by.",
    ] = 1.0
    early_stopping: Annotated[
        bool | Literal["never"],
        Parameter(Choice((True, False, "never")), needs=(BEAMS,)),
        "Whether as many finished sequences as beams end a search; False ends it when better ones "
        'are unlikely, "never" when they are impossible.',
    ] = False

    do_sample: Annotated[
        bool,
        Parameter("switch", fast_path=ALWAYS),
        "Whether tokens are drawn; False takes the most probable one.",
    ] = False
    seed_mode: Annotated[
        Literal["counter", "torch"],
        Parameter(Choice(("counter", "torch")), hugging_face=None, fast_path="when greedy"),
        "How draws are made: by `sampling/random.py` or as torch makes them.",
    ] = "counter"

    guidance_scale: Annotated[
        float,
        Parameter(Number(0, 100, hint="1 turns it off")),
        "Weight of the prompt against `negative_prompt`. It is applied before all processors.",
    ] = 1.0
    negative_prompt: Annotated[
        tuple[int, ...] | None,
        Parameter(
            IdList(in_order=True, unset_means="to take the last token of the prompt"),
            needs=(GUIDANCE,),
            hugging_face=None,
        ),
        "What to be guided away from; the last token of the prompt unless given.",
    ] = None

    sequence_bias: Annotated[
        tuple[tuple[tuple[int, ...], float], ...],
        _processor("run_biases", fast_path=ALWAYS),
        "Adds to the score of the last id of a run when the ids before it match.",
    ] = ()
    encoder_repetition_penalty: Annotated[
        float,
        _processor(REPETITION, "penalty", fast_path=ALWAYS),
        "Multiplies positive and divides negative logits of ids of the prompt.",
    ] = 1.0
    repetition_penalty: Annotated[
        float,
        _processor(REPETITION, "penalty", takes=("prompt_ignore_length",), fast_path=ALWAYS),
        "Divides positive and multiplies negative logits of ids already in the sequence.",
    ] = 1.0
    prompt_ignore_length: Annotated[
        int,
        Parameter(
            whole(hint="at most the prompt's length"),
            needs=(PENALTY,),
            hugging_face=None,
            fast_path=ALWAYS,
        ),
        "Leading tokens of the prompt that `repetition_penalty` does not see.",
    ] = 0
    presence_penalty: Annotated[
        float,
        _processor(BIAS, "penalty", hugging_face=None, fast_path=ALWAYS),
        "Subtracts from ids that were generated.",
    ] = 0.0
    frequency_penalty: Annotated[
        float,
        _processor(BIAS, "penalty", hugging_face=None, fast_path=ALWAYS),
        "Subtracts from ids that were generated, once per occurrence.",
    ] = 0.0
    logit_bias: Annotated[
        tuple[tuple[int, float], ...],
        _processor("token_biases", hugging_face=None, fast_path=ALWAYS),
        "Adds to the scores of single ids.",
    ] = ()
    no_repeat_ngram_size: Annotated[
        int,
        _processor(whole(1), "ngram_size", fast_path=ALWAYS),
        "Excludes ids that would repeat a run of the sequence.",
    ] = 0
    encoder_no_repeat_ngram_size: Annotated[
        int,
        _processor(whole(1), "ngram_size", fast_path=ALWAYS),
        "Excludes ids that would repeat a run of the prompt.",
    ] = 0
    bad_words_ids: Annotated[
        tuple[tuple[int, ...], ...],
        _processor(
            "runs",
            is_on=lambda c: bool(bad_words(c.bad_words_ids, c.eos_token_ids)),
            fast_path=ALWAYS,
        ),
        "Excludes the last id of a run when the ids before it match.",
    ] = ()
    min_length: Annotated[
        int,
        _processor(whole(), needs=(ENDS, NO_MIN_NEW_TOKENS), fast_path=ALWAYS),
        "Excludes end-of-sequence ids until prompt and continuation have that length.",
    ] = 0
    min_new_tokens: Annotated[
        int,
        _processor(whole(hint="at most max_new_tokens"), needs=(ENDS,), fast_path=ALWAYS),
        "Excludes end-of-sequence ids until that many tokens were generated.",
    ] = 0
    allowed_token_ids: Annotated[
        tuple[int, ...] | None,
        _processor(
            IdList(unset_means="to allow all"), "token_ids", hugging_face=None, fast_path=ALWAYS
        ),
        "Excludes all ids but these.",
    ] = None
    forced_prefix: Annotated[
        tuple[int, ...],
        _processor(IdList(in_order=True), "token_ids", hugging_face=None, fast_path=ALWAYS),
        "Makes the continuation begin with these ids.",
    ] = ()
    forced_bos_token_id: Annotated[
        int | None,
        _processor("token_id", "token_id", fast_path=ALWAYS),
        "Makes this id follow a prompt of one token.",
    ] = None
    forced_eos_token_ids: Annotated[
        tuple[int, ...],
        _processor(IdList(), "token_ids", hugging_face="forced_eos_token_id", fast_path=ALWAYS),
        "Makes one of these ids the last one that the length limit leaves room for.",
    ] = ()
    remove_invalid_values: Annotated[
        bool,
        _processor("switch", repeatable=True, fast_path=ALWAYS),
        "Replaces NaN by 0 and infinities by the largest finite numbers.",
    ] = False
    exponential_decay_length_penalty: Annotated[
        tuple[int, float] | None,
        _processor("decay", needs=(ENDS,), fast_path=ALWAYS),
        "Raises the scores of end-of-sequence ids more with every token after a length.",
    ] = None
    suppress_tokens: Annotated[
        tuple[int, ...], _processor(IdList(), "token_ids", fast_path=ALWAYS), "Excludes ids."
    ] = ()
    begin_suppress_tokens: Annotated[
        tuple[int, ...],
        _processor(IdList(), "token_ids", fast_path=ALWAYS),
        "Excludes ids from the first generated token.",
    ] = ()

    temperature: Annotated[
        float,
        _warper(
            Number(1e-10, 1e6, hint="for greedy decoding set do_sample = false instead of 0"),
            repeatable=True,
            fast_path=ALWAYS,
        ),
        "Divides scores: below 1 sharpens the distribution, above 1 flattens it.",
    ] = 1.0
    top_n_sigma: Annotated[
        float,
        _keeper(Number(0, 100, above_low=True), hugging_face=None, fast_path=ALWAYS),
        "Keeps ids whose score is within top_n_sigma standard deviations of the highest one.",
    ] = 0.0
    top_h: Annotated[
        float | None,
        _warper(SHARE, fast_path=ALWAYS),
        "Keeps the highest-scored ids up to a share of the entropy.",
    ] = None
    top_k: Annotated[
        int,
        _keeper(whole(1), off=0, fast_path=ALWAYS),
        "Keeps the k highest scores and all ties of the k-th.",
    ] = 50
    top_p: Annotated[
        float,
        _keeper(Number(0, 1), fast_path=ALWAYS),
        "Keeps the smallest set of ids whose probability reaches top_p.",
    ] = 1.0
    min_p: Annotated[
        float,
        _keeper(SHARE, fast_path=ALWAYS),
        "Keeps ids at least min_p times as probable as the most probable one.",
    ] = 0.0
    typical_p: Annotated[
        float,
        _keeper(SHARE, fast_path=ALWAYS),
        "Keeps the ids of most typical probability up to a mass.",
    ] = 1.0
    epsilon_cutoff: Annotated[
        float, _keeper(CUTOFF, "epsilon", fast_path=ALWAYS), "Drops ids below a probability."
    ] = 0.0
    eta_cutoff: Annotated[
        float,
        _keeper(CUTOFF, "epsilon", fast_path=ALWAYS),
        "Drops ids below a probability that falls with the entropy.",
    ] = 0.0
    min_tokens_to_keep: Annotated[
        int,
        Parameter(whole(1), needs=(SAMPLING, KEEPER), hugging_face=None, fast_path=ALWAYS),
        "Fewest tokens that a warper keeps.",
    ] = 1

    green_list_watermark: Annotated[
        GreenListWatermark | None,
        _closing(GreenListWatermark, hugging_face="watermarking_config"),
        "Adds to the scores of a share of the ids, chosen by a keyed hash of the tokens before.",
    ] = None
    synth_id_watermark: Annotated[
        SynthIdWatermark | None,
        _closing(SynthIdWatermark, hugging_face="watermarking_config", in_file=False),
        "Moves scores by a tournament between the ids, keyed by the generated tokens before.",
    ] = None
    renormalize_logits: Annotated[
        bool,
        # Rounding may make a tie of what was none.
        _closing("switch", repeatable=True, fast_path="when sampling"),
        "Makes scores log-probabilities.",
    ] = False

    processors: Annotated[
        tuple[ProcessorSpec, ...],
        Parameter("pipeline", hugging_face=None),
        "What is applied instead of what the fields above switch on, in order; empty means those. "
        "Where it is given, they are all off.",
    ] = ()
    lengths_include_padding: Annotated[
        bool,
        _end("switch", needs=(LENGTHS,), hugging_face=None),
        "Whether lengths count the padding that prompts came with.",
    ] = False


class RequestOptions(msgspec.Struct, frozen=True):
    """Fields of a request's configuration that do not reach the engine as they are."""

    seed: Annotated[
        int | None, Parameter(whole(high=2**63 - 1), hugging_face=None), "Seed of the draws."
    ] = None
    num_return_sequences: Annotated[
        int, Parameter(whole(1), in_file=False), "Sequences per prompt, at most the server's limit."
    ] = 1
    lenient: Annotated[
        bool,
        Parameter("switch", hugging_face=None),
        "Whether fields without effect are ignored instead of refused.",
    ] = False


CONFIG_PARAMETERS = rows_of(GenerationConfig)
PARAMETERS = CONFIG_PARAMETERS | rows_of(RequestOptions)
"""Every row, by the name of its field."""

PROCESSORS = tuple(
    row for stage in Stage for row in CONFIG_PARAMETERS.values() if row.stage is stage
)
"""The rows of processors, in the order in which they are applied."""

IMPLYING_OFF: dict[str, Any] = {
    name: CONFIG_PARAMETERS[name].off for row in PROCESSORS for name in (row.name, *row.takes)
}
"""Fields that imply a processor, or are an argument of one, with the value without effect."""
