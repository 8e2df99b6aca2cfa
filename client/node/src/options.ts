// Generated from the schema and the keywords of the Python client by `make client`.

import type { ScoreSelection } from "./values/selection.js";
import type { SessionRetention } from "./values/sessionRetention.js";
import type { VocabularyRef } from "./values/vocabularyRef.js";

export type Ids = ArrayLike<number | bigint>;
export type OffsetUnit = "bytes" | "code_points" | "utf16";
export type PaddingSide = "left" | "right";
export type PaddingStrategy = boolean | "longest" | "max_length";

/**
 * Keywords of every method that generates.
 *
 * Controls how tokens are chosen and when a sequence ends.
 *
 * Names and meanings are those of Hugging Face's `GenerationConfig`. An unset field takes the
 * model's own default (`generation_config.json`), then Hugging Face's; zero is a value.
 * Responses return the configuration that was used, every field resolved. A field that has no
 * effect in the mode asked for (for example `temperature` without `doSample`) is refused unless
 * `lenient` is set.
 *
 * Order of application: guidance_scale; then, unless `processors` gives another: sequence_bias,
 * encoder_repetition_penalty, repetition_penalty, presence_penalty and frequency_penalty,
 * logit_bias, no_repeat_ngram_size, encoder_no_repeat_ngram_size, bad_words_ids, min_length,
 * min_new_tokens, allowed_token_ids, forced tokens, remove_invalid_values,
 * exponential_decay_length_penalty, suppress_tokens, begin_suppress_tokens; then, only with
 * `doSample`: temperature, top_n_sigma, top_h, top_k, top_p, min_p, typical_p, epsilon_cutoff,
 * eta_cutoff; then watermark, renormalize_logits.
 */
export interface GenerationOptions {
  /**
   * Upper bound on generated tokens. Range: [1, context - prompt]. Unset means the server's
   * default, at most what the context leaves room for.
   */
  maxNewTokens?: number | undefined;
  /**
   * Whether tokens are drawn. false takes the most probable one, ties to the lowest id. Unset
   * means the model's default, false where it has none.
   */
  doSample?: boolean | undefined;
  /**
   * Divisor of the logits. Range: [1e-10, 1e6]. For greedy decoding use `doSample: false`, not
   * 0. Unset means the model's default, 1 where it has none.
   */
  temperature?: number | undefined;
  /**
   * Keeps the k highest-scored tokens and all ties of the k-th. Range: [0, 2^31); 0 turns it
   * off. Unset means the model's default, 50 where it has none.
   */
  topK?: number | undefined;
  /**
   * Keeps the smallest set of tokens whose probability reaches top_p. Range: [0, 1]; 1 turns it
   * off, 0 keeps the most probable token. Unset means the model's default, 1 where it has none.
   */
  topP?: number | undefined;
  /**
   * Seed of the draws. Range: [0, 2^63). Unset means: the server picks one and returns it.
   * Draws depend on the seed, the sequence and the position only.
   */
  seed?: number | bigint | undefined;
  /**
   * Divides positive and multiplies negative logits of tokens already in the sequence. Range:
   * [1e-6, 100]; 1 turns it off. Unset means the model's default, 1 where it has none.
   */
  repetitionPenalty?: number | undefined;
  /**
   * Number of tokens generated before an end-of-sequence id is possible. Range: [0,
   * max_new_tokens]. 0 turns it off. Unset means the model's default, 0 where it has none.
   */
  minNewTokens?: number | undefined;
  /**
   * Sequences returned per prompt. Range: [1, server limit], with beams at most as many. More
   * than one needs `doSample` or beams. Unset means 1.
   */
  numReturnSequences?: number | undefined;
  /**
   * Ids that end the sequence, in addition to `eosTokenId`. The id is part of the result. Not
   * affected by `minNewTokens`. At most 4096. Empty means none.
   */
  stopTokenIds?: Ids | undefined;
  /** End-of-sequence ids. Unset means the model's; an empty list means none. */
  eosTokenId?: number | Ids | undefined;
  /**
   * Texts that end the sequence, matched over the bytes of generated tokens, across their
   * boundaries. The sequence ends with the token in which the first of these texts ends; this
   * token is part of the result and may have further bytes after the text. At most 8, 1 to 256
   * bytes each. Unset means the model's. Unlike in Hugging Face, a text that begins in the
   * prompt does not count. The server must follow a tokenizer service whose text is the
   * concatenation of the bytes of its tokens (`NOT_IMPLEMENTED` otherwise).
   */
  stopStrings?: string | readonly string[] | undefined;
  /**
   * Id sequences that end the sequence. At most 32, of at most 1024 ids each. Empty means none.
   */
  stopSequences?: readonly Ids[] | undefined;
  /** Whether fields without effect are ignored instead of refused. Unset means false. */
  lenient?: boolean | undefined;
  /**
   * How draws are made. Unset means `"counter"`. `"counter"`: A counter-based generator keyed
   * by seed, sequence, position and token: independent of batch mates, restarts and of Step or
   * Generate. `"torch"`: Draws as `torch.manual_seed(seed); model.generate(...)` does for this
   * sequence alone, or for the beams of this prompt alone: every sequence, and every beam
   * search, has its own generator, with the seed that is returned. In a session, too, each
   * position after the prompt has one draw, however often it is asked for. Costs about a
   * millisecond per token and 50,000 ids of each beam. torch reads only the lower 32 bits of
   * the seed, and draws from at most 2^24 scores, counting all beams of a prompt together.
   */
  seedMode?: "counter" | "torch" | undefined;
  /**
   * Keeps tokens at least min_p times as probable as the most probable one. Range: [0, 1]; 0
   * turns it off. Unset means the model's default, 0 where it has none.
   */
  minP?: number | undefined;
  /**
   * Keeps a set by its share of entropy. Range: (0, 1]. Unset means the model's default; where
   * it has none, it is off.
   */
  topH?: number | undefined;
  /**
   * Keeps the most typical tokens up to this mass. Range: (0, 1]; 1 turns it off. Unset means
   * the model's default, 1 where it has none.
   */
  typicalP?: number | undefined;
  /**
   * Drops tokens below this probability. Range: [0, 1); 0 turns it off. Unset means the model's
   * default, 0 where it has none.
   */
  epsilonCutoff?: number | undefined;
  /**
   * Drops tokens by entropy-dependent probability. Range: [0, 1); 0 turns it off. Unset means
   * the model's default, 0 where it has none.
   */
  etaCutoff?: number | undefined;
  /**
   * Subtracted once from tokens that were generated. Range: [-100, 100]; 0 turns it off. Unset
   * means 0. Not in Hugging Face.
   */
  presencePenalty?: number | undefined;
  /**
   * Subtracted per occurrence from tokens that were generated. Range: [-100, 100]; 0 turns it
   * off. Unset means 0. Not in Hugging Face.
   */
  frequencyPenalty?: number | undefined;
  /**
   * Number of leading prompt tokens that `repetitionPenalty` does not see. Range: [0, prompt].
   * Unset means 0.
   */
  promptIgnoreLength?: number | undefined;
  /**
   * Length of runs of tokens that must not repeat. Range: [0, 2^31); 0 turns it off. Unset
   * means the model's default, 0 where it has none.
   */
  noRepeatNgramSize?: number | undefined;
  /**
   * As `repetitionPenalty`, for the prompt only and inverted: encourages tokens of the prompt.
   * Range: [1e-6, 100]; 1 turns it off. Unset means the model's default, 1 where it has none.
   */
  encoderRepetitionPenalty?: number | undefined;
  /**
   * As `noRepeatNgramSize`, for runs of the prompt. Range: [0, 2^31); 0 turns it off. Unset
   * means the model's default, 0 where it has none.
   */
  encoderNoRepeatNgramSize?: number | undefined;
  /**
   * Multiplies the score of end-of-sequence ids from some length on. Unset means the model's
   * default; where it has none, it is off. `startIndex`: Generated tokens before the penalty
   * starts. `decayFactor`: Growth per token. Range: (0, 100].
   */
  exponentialDecayLengthPenalty?: readonly [number, number] | undefined;
  /**
   * Added to the logits of single ids. At most 256 entries, each in [-100, 100]. Empty means
   * none.
   */
  logitBias?: Readonly<Record<number, number>> | undefined;
  /**
   * Added to the last token of id sequences when the tokens before it match. At most 1024, of
   * at most 64 ids each. Empty means the model's. `ids`: The id sequence, at least one id.
   * `bias`: Added to the logit of its last id when the ids before it match. Range: [-1e9, 1e9],
   * or -inf.
   */
  sequenceBias?: readonly (readonly [Ids, number])[] | undefined;
  /**
   * Id sequences that must not be generated. At most 64, of at most 1024 ids each. Single
   * end-of-sequence ids among them have no effect. Empty means the model's.
   */
  badWordsIds?: readonly Ids[] | undefined;
  /** The only ids that may be generated. Unset means all. */
  allowedTokenIds?: Ids | undefined;
  /** Ids that are never generated. Unset means the model's. */
  suppressTokens?: Ids | undefined;
  /** Ids that are not generated as the first token. Unset means the model's. */
  beginSuppressTokens?: Ids | undefined;
  /**
   * The id forced as the first generated token after a prompt of one token. Unset means the
   * model's.
   */
  forcedBosTokenId?: number | undefined;
  /** The ids forced when the length limit is reached. Unset means the model's. */
  forcedEosTokenId?: number | Ids | undefined;
  /**
   * Tokens that the sequence must begin with, after the prompt. At most `maxNewTokens` ids.
   * Unset means none.
   */
  forcedPrefix?: Ids | undefined;
  /**
   * Number of beams. With `doSample`, continuations of all beams are drawn, without
   * replacement. A prompt takes one row of a step and KV cache per beam, all of them from the
   * start. Tokens are known at the end only: a stream sends them then, and `scores` are the
   * scores of the tokens returned. Distributions are log-probabilities before the first
   * processor, as in Hugging Face. Not in sessions, `Score` and `ComputeLogits`, nor together
   * with `guidanceScale`. Range: [1, rows of a step]; 1 means no beam search. Unset means the
   * model's default, 1 where it has none.
   */
  numBeams?: number | undefined;
  /**
   * Exponent of the length that sums of log-probabilities are divided by: above 0 favors long
   * sequences, below 0 short ones. Needs `numBeams`. Range: [-100, 100]. Unset means the
   * model's default, 1 where it has none.
   */
  lengthPenalty?: number | undefined;
  /**
   * When beam search stops. Needs `numBeams`. Unset means the model's default, `false` where it
   * has none. `true`: As soon as there are enough finished beams. `false`: When better beams
   * are unlikely. `"never"`: When better beams are impossible.
   */
  earlyStopping?: boolean | "never" | undefined;
  /**
   * Classifier-free guidance: weight of the prompt against `negativePrompt`. Scores are `w *
   * (log p - log n) + log n` with the probabilities p after the prompt and n after the negative
   * prompt, both continued with the tokens generated; raw logits are the logits after the
   * prompt. A sequence takes two rows of a step and KV cache for both. Not in sessions, `Score`
   * and `ComputeLogits`. Range: [0, 100]; 1 turns it off. Unset means the model's default, 1
   * where it has none.
   */
  guidanceScale?: number | undefined;
  /**
   * The prompt to be guided away from, for every prompt of the call. Needs `guidanceScale`.
   * Unset means the last token of each prompt, as in Hugging Face.
   */
  negativePrompt?: Ids | string | undefined;
  /**
   * A green-list watermark. Unset means the model's, if it has one. `greenlistRatio`: Share of
   * green tokens. Range: (0, 1). Unset means 0.25. `bias`: Added to the logits of green tokens.
   * Range: [-100, 100]. Unset means 2.0. `hashingKey`: Key of the hash. Range: [0, 2^63). Unset
   * means 15485863. `selfHash`: Whether the current token is part of the hash (self-hash).
   * false hashes the tokens before it only (left-hash). `contextWidth`: Number of previous
   * tokens that are hashed. Range: [1, 2^31). Unset means 1.
   */
  greenListWatermark?: Readonly<Record<string, unknown>> | undefined;
  /**
   * A SynthID watermark. Unset means none. `ngramLen`: Length of the runs that are hashed,
   * including the token to choose. Range: [2, 256]. Required. `keys`: One key per depth of the
   * tournament: 1 to 64, each in [0, 2^63). `contextHistorySize`: Number of contexts
   * remembered: a repeated one is left alone. Range: [1, 65536]. Unset means 1024.
   * `samplingTableSeed`: Seed of the table of coin flips. Range: [0, 2^63). Unset means 0.
   * `samplingTableSize`: Size of the table. Range: [1, 2^20]. Unset means 65536.
   * `skipFirstNgramCalls`: Whether the first `ngram_len - 1` tokens are left alone.
   */
  synthIdWatermark?: Readonly<Record<string, unknown>> | undefined;
  /**
   * Upper bound on prompt plus generated tokens. Ignored when `maxNewTokens` is set, and by
   * sessions. Range: (longest prompt, context]. Unset means the model's default, unless the
   * model has a default of `maxNewTokens`.
   */
  maxLength?: number | undefined;
  /**
   * Lower bound on prompt plus generated tokens before an end-of-sequence id is possible.
   * Range: [0, 2^31). Has no effect when `minNewTokens` is set; as in `generate`, both may be.
   * 0 turns it off. Unset means the model's default, 0 where it has none.
   */
  minLength?: number | undefined;
  /**
   * Wall-clock limit from the arrival of the request, up to 1e9 seconds. The sequence ends with
   * `"time_limit"` at the first token after it, so it always has at least one token. Unset
   * means the model's default; where it has none, there is no limit.
   */
  maxTime?: number | undefined;
  /**
   * Number of next tokens that are guessed from earlier text of the sequence and verified
   * together in one step (prompt lookup). Changes speed and not the result: a guess counts only
   * if it is the token that is chosen anyway, with any processors, seed and scores. (A step of
   * more tokens may change the last bits of logits, as any other batch may, see
   * `DeterminismLevel`.) The server guesses fewer while many sequences run or guesses turn out
   * wrong, and none with a model whose state cannot be rolled back. Range: [0, 32]; 0 turns it
   * off. Unset means the model's default, or 0.
   */
  promptLookupNumTokens?: number | undefined;
  /**
   * Longest run that prompt lookup matches. Range: [1, 32]. Unset means the model's default, or
   * 2.
   */
  maxMatchingNgramSize?: number | undefined;
  /**
   * Whether scores are normalized to log-probabilities at the end. Unset means the model's
   * default, false where it has none.
   */
  renormalizeLogits?: boolean | undefined;
  /**
   * Whether NaN and infinite logits are replaced instead of ending the row. Unset means the
   * model's default, false where it has none.
   */
  removeInvalidValues?: boolean | undefined;
  /**
   * Whether `maxLength`, `minLength` and `forcedBosTokenId` (its prompt of one token) count the
   * padding of a padded prompt, as `generate` does. Processors see no pad ids in either case.
   * `Generate` only. Unset means false.
   */
  lengthsIncludePadding?: boolean | undefined;
  /**
   * Fewest tokens that any warper keeps. Range: [1, 2^31). Unset means 1, with beams one more
   * than there are end-of-sequence ids, and at least 2.
   */
  minTokensToKeep?: number | undefined;
  /**
   * The processors to apply, in this order, instead of the order above. Fields above that imply
   * a processor are then refused, and their defaults of the model are off. At most 64, with at
   * most 64 KiB of arguments in total. Only `temperature`, `removeInvalidValues`,
   * `renormalizeLogits` and processors whose description says so may be named more than once.
   * Empty means the order above. `name`: The name. `argumentsJson`: Arguments by name, as a
   * JSON object that the processor's schema accepts. Unset means no arguments. Responses have
   * every default filled in.
   */
  processors?: readonly (string | readonly [string, Readonly<Record<string, unknown>> | string])[] | undefined;
  /**
   * Keeps tokens whose score is at least the highest score minus top_n_sigma standard
   * deviations of all scores, excluded tokens not counted. The tokens kept do not depend on
   * `temperature`. Range: [0, 100]; 0 turns it off. Unset means 0. Not in Hugging Face.
   */
  topNSigma?: number | undefined;
}

/** The names of `GenerationOptions`. */
export const GenerationOptions: readonly string[] = [
  "maxNewTokens", "doSample", "temperature", "topK", "topP", "seed", "repetitionPenalty",
  "minNewTokens", "numReturnSequences", "stopTokenIds", "eosTokenId", "stopStrings",
  "stopSequences", "lenient", "seedMode", "minP", "topH", "typicalP", "epsilonCutoff",
  "etaCutoff", "presencePenalty", "frequencyPenalty", "promptIgnoreLength", "noRepeatNgramSize",
  "encoderRepetitionPenalty", "encoderNoRepeatNgramSize", "exponentialDecayLengthPenalty",
  "logitBias", "sequenceBias", "badWordsIds", "allowedTokenIds", "suppressTokens",
  "beginSuppressTokens", "forcedBosTokenId", "forcedEosTokenId", "forcedPrefix", "numBeams",
  "lengthPenalty", "earlyStopping", "guidanceScale", "negativePrompt", "greenListWatermark",
  "synthIdWatermark", "maxLength", "minLength", "maxTime", "promptLookupNumTokens",
  "maxMatchingNgramSize", "renormalizeLogits", "removeInvalidValues", "lengthsIncludePadding",
  "minTokensToKeep", "processors", "topNSigma",
];

/** Keywords of calls that take any number of rows. */
export interface ManyOptions {
  /**
   * What is done when rows fail: `raise` ends the call with the first error; `return` goes on
   * with the other rows, and has the error in the place of the row's result, or in the `errors`
   * of a batch. Unset means `raise`.
   */
  errors?: "raise" | "return" | undefined;
  /** Called with how many rows are done, whenever some are, and how many there are. */
  progress?: ((numDone: number, numRows: number) => void) | undefined;
  /**
   * Most requests at a time, where a call takes several. Unset means as many as keep the
   * service busy and leave others room.
   */
  concurrency?: number | undefined;
}

/** The names of `ManyOptions`. */
export const ManyOptions: readonly string[] = [
  "errors", "progress", "concurrency",
];

/** Keywords of `generate` and `stream`, in addition to `GenerationOptions`. */
export interface GenerateOptions extends GenerationOptions {
  /** Whether full rows of raw logits are returned. Unset means false. */
  outputLogits?: boolean | undefined;
  /** Whether full rows of processed scores are returned. Unset means false. */
  outputScores?: boolean | undefined;
  /**
   * Whether the score of the chosen or given token after each processor is. Unset means false.
   */
  processorTrace?: boolean | undefined;
  /** What to return about each generated token, instead of the three. Unset means nothing. */
  selection?: ScoreSelection | undefined;
  /**
   * What to return about each prompt token except the first, which no distribution predicts.
   * Unset means nothing.
   */
  promptSelection?: ScoreSelection | undefined;
  /**
   * What is done when a sequence fails by itself: its error is raised once all of its request
   * have ended, or returned in its `details` beside the other sequences. Unset means `raise`.
   */
  errors?: "raise" | "return" | undefined;
  /**
   * The vocabulary that the ids belong to. Unset means the vocabulary of the batch, and for ids
   * without one the newest that this client has seen, or a newer one.
   */
  vocabulary?: VocabularyRef | undefined;
  /**
   * Seeds of the rows, one per prompt. Empty means `seed` for all: rows still draw
   * independently of each other.
   */
  seeds?: readonly (number | bigint)[] | undefined;
  /**
   * Lower numbers go first. A running sequence makes room for one with a lower number and goes
   * on later; only its timing changes. From time to time a place goes to the sequence that has
   * waited longest, whatever its number. Range: [-1000, 1000]. Unset means 0. One below 0 needs
   * the role `model-admin`.
   */
  priority?: number | undefined;
  /**
   * Limits reuse of the prompt's KV cache to requests with the same salt. Callers with
   * different client certificates never share. At most 256 characters. Unset means the empty
   * salt, which counts as a salt of its own.
   */
  cacheSalt?: string | undefined;
  /**
   * Whether this request may reuse the KV cache of other requests' prompts, and other requests
   * the KV cache of this prompt. Unset means true.
   */
  usePrefixCache?: boolean | undefined;
  /**
   * Keeps the finished sequences as a session: one row per sequence, with its KV cache and its
   * seed. Unset means that nothing is kept. Its rows are rows of a session from the start: they
   * wait for memory as rows of `OpenSession` do, and `priority` has no effect. When the server
   * takes no more sessions, or the rows would never fit, the call is refused before anything
   * runs. Nothing is kept when the call is cancelled or one of its sequences ends with an
   * error.
   */
  keepSession?: SessionRetention | boolean | undefined;
}

/** The names of `GenerateOptions`. */
export const GenerateOptions: readonly string[] = [
  ...GenerationOptions,
  "outputLogits", "outputScores", "processorTrace", "selection", "promptSelection", "errors",
  "vocabulary", "seeds", "priority", "cacheSalt", "usePrefixCache", "keepSession",
];

/** Keywords of `score` and `computeLogits`, in addition to `GenerationOptions`. */
export interface ScoreOptions extends GenerationOptions {
  /**
   * Whether full rows of raw logits are returned. Unset means false for `score`, true for
   * `computeLogits` without a `selection`.
   */
  outputLogits?: boolean | undefined;
  /** Whether full rows of processed scores are returned. Unset means false. */
  outputScores?: boolean | undefined;
  /**
   * Whether the score of the chosen or given token after each processor is. Unset means false.
   */
  processorTrace?: boolean | undefined;
  /**
   * What to return about each token. Unset means its log-probability alone for `score`, and
   * full rows of logits for `computeLogits`.
   */
  selection?: ScoreSelection | undefined;
  /**
   * The vocabulary that the ids belong to. Unset means the vocabulary of the batch, and for ids
   * without one the newest that this client has seen, or a newer one.
   */
  vocabulary?: VocabularyRef | undefined;
}

/** The names of `ScoreOptions`. */
export const ScoreOptions: readonly string[] = [
  ...GenerationOptions,
  "outputLogits", "outputScores", "processorTrace", "selection", "vocabulary",
];

/** Keywords of `distribution`, in addition to `GenerationOptions`. */
export interface DistributionOptions extends GenerationOptions {
  /**
   * The vocabulary that the ids belong to. Unset means the vocabulary of the batch, and for ids
   * without one the newest that this client has seen, or a newer one.
   */
  vocabulary?: VocabularyRef | undefined;
}

/** The names of `DistributionOptions`. */
export const DistributionOptions: readonly string[] = [
  ...GenerationOptions,
  "vocabulary",
];

/**
 * Keywords of `openSession`, in addition to `GenerationOptions`.
 *
 * `maxLength` is here the most tokens that a row will hold, prompt included: memory is reserved
 * for them. Range: [longest prompt, context]. Unset means the server's default.
 */
export interface SessionOptions extends GenerationOptions {
  /**
   * Whether full rows of raw logits are returned. Unset means true, unless `selection` is
   * given.
   */
  outputLogits?: boolean | undefined;
  /** Whether full rows of processed scores are returned. Unset means false. */
  outputScores?: boolean | undefined;
  /**
   * Whether the score of the chosen or given token after each processor is. Unset means false.
   */
  processorTrace?: boolean | undefined;
  /** What to return about the prompt's end. Unset means full rows of logits, float32. */
  selection?: ScoreSelection | undefined;
  /**
   * Idle time after which the session may be dropped. Range: [1 s, server limit]. Unset means
   * the server's default.
   */
  ttlS?: number | undefined;
  /**
   * Whether the session is opened again by itself, with `reopen`, where a call of it finds it
   * lost. Unset means false.
   */
  reopen?: boolean | undefined;
  /**
   * The vocabulary that the ids belong to. Unset means the vocabulary of the batch, and for ids
   * without one the newest that this client has seen, or a newer one.
   */
  vocabulary?: VocabularyRef | undefined;
  /**
   * Limits reuse of the prompts' KV cache to requests with the same salt. Callers with
   * different client certificates never share. At most 256 characters. Unset means the empty
   * salt, which counts as a salt of its own.
   */
  cacheSalt?: string | undefined;
  /** Whether the server chooses the first token of each row. Unset means false. */
  sample?: boolean | undefined;
  /** Whether the chosen token is appended too, so that the next step needs no ids. */
  append?: boolean | undefined;
}

/** The names of `SessionOptions`. */
export const SessionOptions: readonly string[] = [
  ...GenerationOptions,
  "outputLogits", "outputScores", "processorTrace", "selection", "ttlS", "reopen", "vocabulary",
  "cacheSalt", "sample", "append",
];

/** Keywords of `step`. */
export interface StepOptions {
  /**
   * Whether full rows of raw logits are returned. Unset means true, unless `selection` is
   * given.
   */
  outputLogits?: boolean | undefined;
  /** Whether full rows of processed scores are returned. Unset means false. */
  outputScores?: boolean | undefined;
  /**
   * Whether the score of the chosen or given token after each processor is. Unset means false.
   */
  processorTrace?: boolean | undefined;
  /** What to return. Unset means as in the step before. */
  selection?: ScoreSelection | undefined;
  /** Whether the server chooses the next token of each stepped row. Unset means false. */
  sample?: boolean | undefined;
  /** Whether the chosen token is appended too, so that the next step needs no ids. */
  append?: boolean | undefined;
  /** Whether the appended tokens are forgotten after the answer. */
  lookAhead?: boolean | undefined;
  /**
   * Chosen by the client. If it equals the id of the newest step that had one, also over
   * another stream, the answer of that step is returned and nothing changes. Older steps are
   * not remembered; `expectedPosition` guards against them.
   */
  stepId?: string | undefined;
}

/** The names of `StepOptions`. */
export const StepOptions: readonly string[] = [
  "outputLogits", "outputScores", "processorTrace", "selection", "sample", "append",
  "lookAhead", "stepId",
];

/** Keywords that say how a batch is padded. */
export interface PaddingOptions {
  /**
   * `longest` or true pads to the longest row, `maxLength` to that length, false not at all.
   * Unset means false, and `longest` for `pad`.
   */
  padding?: PaddingStrategy | undefined;
  /** The side that padding is placed on. Unset means left. */
  paddingSide?: PaddingSide | undefined;
  /** Rounds the length up to a multiple. Range: [1, 4096]. Unset means 1. */
  padToMultipleOf?: number | undefined;
  /**
   * Length for `padding: "max_length"`, and longest row for `truncation`, in ids, special
   * tokens included; both need it. Range: [1, 2^20].
   */
  maxLength?: number | undefined;
  /**
   * The padding id. Unset means the pad token, or the end-of-sequence token where there is
   * none, or 0; the mask is right in every case.
   */
  padTokenId?: number | undefined;
}

/** The names of `PaddingOptions`. */
export const PaddingOptions: readonly string[] = [
  "padding", "paddingSide", "padToMultipleOf", "maxLength", "padTokenId",
];

/** Keywords of calls that can also cut rows, in addition to `PaddingOptions`. */
export interface CuttingOptions extends PaddingOptions {
  /** Whether rows are cut to `maxLength`. Unset means false. */
  truncation?: boolean | undefined;
  /** The side that ids are removed from. Unset means right. */
  truncationSide?: PaddingSide | undefined;
  /**
   * Whether special tokens spelled in the text become their control ids. Unset means false: the
   * text is untrusted, and its characters stay characters.
   */
  parseSpecialTokens?: boolean | undefined;
}

/** The names of `CuttingOptions`. */
export const CuttingOptions: readonly string[] = [
  ...PaddingOptions,
  "truncation", "truncationSide", "parseSpecialTokens",
];

/** Keywords of `encode`, in addition to `CuttingOptions`, `PaddingOptions`, `ManyOptions`. */
export interface EncodeOptions extends CuttingOptions, ManyOptions {
  /** Whether the tokenizer's template tokens (BOS and the like) are added. Unset means true. */
  addSpecialTokens?: boolean | undefined;
  /** The unit of the offsets to return. Unset returns none. */
  returnOffsets?: OffsetUnit | undefined;
  /** Whether masks of special tokens are returned. */
  returnSpecialTokensMask?: boolean | undefined;
  /** Whether word indices are returned. */
  returnWordIds?: boolean | undefined;
  /** Whether token strings are returned. */
  returnTokens?: boolean | undefined;
  /** Whether token bytes are returned. */
  returnTokenBytes?: boolean | undefined;
  /** Whether token type ids (which text of a pair) are returned. */
  returnTokenTypeIds?: boolean | undefined;
  /** Oldest revision that may answer. Unset means any. */
  minRevision?: number | bigint | undefined;
}

/** The names of `EncodeOptions`. */
export const EncodeOptions: readonly string[] = [
  ...CuttingOptions,
  ...ManyOptions,
  "addSpecialTokens", "returnOffsets", "returnSpecialTokensMask", "returnWordIds",
  "returnTokens", "returnTokenBytes", "returnTokenTypeIds", "minRevision",
];

/** Keywords of `applyChatTemplate`, in addition to `CuttingOptions` and `PaddingOptions`. */
export interface ChatOptions extends CuttingOptions {
  /**
   * Whether the prompt for the assistant's turn is added. Unset means true, except with
   * `continueFinalMessage`.
   */
  addGenerationPrompt?: boolean | undefined;
  /** Whether the last message is left open to be continued. */
  continueFinalMessage?: boolean | undefined;
  /** Name of the template. Unset means the default one. Templates never come from a request. */
  templateName?: string | undefined;
  /** Tools, given to the template. */
  tools?: readonly (Readonly<Record<string, unknown>>)[] | undefined;
  /** Documents, given to the template. */
  documents?: readonly (Readonly<Record<string, unknown>>)[] | undefined;
  /** Further variables of the template. */
  templateArguments?: Readonly<Record<string, unknown>> | undefined;
}

/** The names of `ChatOptions`. */
export const ChatOptions: readonly string[] = [
  ...CuttingOptions,
  "addGenerationPrompt", "continueFinalMessage", "templateName", "tools", "documents",
  "templateArguments",
];

/** Keywords of `decode`, in addition to `ManyOptions`. */
export interface DecodeOptions extends ManyOptions {
  /** Whether special tokens are skipped. Unset means true. */
  skipSpecialTokens?: boolean | undefined;
  /** Whether spaces before punctuation are removed. Unset means the tokenizer's own setting. */
  cleanUpTokenizationSpaces?: boolean | undefined;
  /** Whether raw bytes are returned too. */
  returnBytes?: boolean | undefined;
  /** Whether encoding the text again is compared with the ids. */
  checkRoundTrip?: boolean | undefined;
}

/** The names of `DecodeOptions`. */
export const DecodeOptions: readonly string[] = [
  ...ManyOptions,
  "skipSpecialTokens", "cleanUpTokenizationSpaces", "returnBytes", "checkRoundTrip",
];

/**
 * Keywords of `Lockstep.generate` and `.stream`, in addition to `GenerationOptions`.
 *
 * A `negativePrompt` may be a text, which is encoded as a prompt is.
 */
export interface CompletionOptions extends GenerationOptions {
  /** Whether the tokenizer's template tokens (BOS and the like) are added. Unset means true. */
  addSpecialTokens?: boolean | undefined;
  /**
   * Whether special tokens spelled in the text become their control ids. Unset means false: the
   * text is untrusted, and its characters stay characters.
   */
  parseSpecialTokens?: boolean | undefined;
  /** Whether special tokens are skipped. Unset means true. */
  skipSpecialTokens?: boolean | undefined;
}

/** The names of `CompletionOptions`. */
export const CompletionOptions: readonly string[] = [
  ...GenerationOptions,
  "addSpecialTokens", "parseSpecialTokens", "skipSpecialTokens",
];

/** Keywords of every change of the vocabulary. */
export interface ChangeOptions {
  /** The newest revision the caller knows. Unset means: whatever is newest. */
  expectedRevision?: number | bigint | undefined;
  /**
   * A UUID. A repeated key returns the first answer and changes nothing. Unset means one made
   * for the call.
   */
  idempotencyKey?: string | undefined;
}

/** The names of `ChangeOptions`. */
export const ChangeOptions: readonly string[] = [
  "expectedRevision", "idempotencyKey",
];

/** Keywords of `addTokens`, in addition to `ChangeOptions`. */
export interface AddOptions extends ChangeOptions {
  /** Whether tokens given as texts are control tokens. Unset means false. */
  special?: boolean | undefined;
  /** Whether to report what would happen and change nothing. */
  dryRun?: boolean | undefined;
  /**
   * Whether texts are accepted that are not in Unicode normal form C or hold control,
   * bidirectional, invisible, private or unassigned characters. NUL and white space alone are
   * never accepted.
   */
  allowUnusualCharacters?: boolean | undefined;
  /**
   * Whether plain tokens may change how ordinary text is encoded, for example "the" inside
   * "then", and whether pieces of ordinary text may become special: from then on
   * `skipSpecialTokens` leaves them out of every decoded text.
   */
  allowTextChanges?: boolean | undefined;
  /**
   * Texts to show the effect on. At most 64 of at most 4096 bytes. Only a dry run reports on
   * them.
   */
  texts?: readonly string[] | undefined;
}

/** The names of `AddOptions`. */
export const AddOptions: readonly string[] = [
  ...ChangeOptions,
  "special", "dryRun", "allowUnusualCharacters", "allowTextChanges", "texts",
];
