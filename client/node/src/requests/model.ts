// Requests to `ModelService` and `LogitsSessionService`, built from keywords.

import type {
  DistributionOptions,
  GenerateOptions,
  Ids,
  ScoreOptions,
  SessionOptions,
  StepOptions,
} from "../options.js";
import type { ComputeLogitsRequest } from "../schema/lockstep/v1/ComputeLogitsRequest.js";
import type { GenerateRequest } from "../schema/lockstep/v1/GenerateRequest.js";
import type { OpenSessionRequest } from "../schema/lockstep/v1/OpenSessionRequest.js";
import type { ScoreRequest } from "../schema/lockstep/v1/ScoreRequest.js";
import type { StepRequest } from "../schema/lockstep/v1/StepRequest.js";
import { promptMessage, tokenBatch, type Prompts } from "../values/batch.js";
import { selectionFields, splitSelection, type ScoreSelection } from "../values/selection.js";
import { retentionFields } from "../values/sessionRetention.js";
import type { VocabularyRef } from "../values/vocabularyRef.js";
import { generationConfig } from "./generationConfig.js";
import { build, idRow } from "./message.js";
import { vocabularyOf } from "./tokenizer.js";

/** Builds a `Generate` request. */
export function generate(
  prompts: Prompts,
  options: GenerateOptions,
): GenerateRequest {
  const prompt = promptMessage(prompts);
  return { ...generateFields(options, vocabularyOf(prompts)), prompt };
}

/** Builds a `Generate` request that goes on from where the rows of a session are. */
export function continueSession(
  sessionId: string,
  vocabulary: VocabularyRef,
  options: GenerateOptions,
): GenerateRequest {
  return { ...generateFields(options, vocabulary), sessionId };
}

function generateFields(options: GenerateOptions, belongsTo: VocabularyRef | undefined): GenerateRequest {
  const [selection, others] = splitSelection(options, false);
  const {
    promptSelection,
    vocabulary = belongsTo,
    seeds,
    priority,
    cacheSalt,
    usePrefixCache,
    keepSession,
    errors: _,
    ...config
  } = others;
  const message = build<GenerateRequest>("GenerateRequest", {
    scores: selectionFields(selection),
    promptScores: selectionFields(promptSelection),
    vocabulary,
    seeds,
    priority,
    cacheSalt,
    usePrefixCache,
    keepSession: retentionFields(keepSession),
  });
  return withConfig(message, config);
}

/** Builds a `Score` request. */
export function score(
  prompts: Prompts,
  continuations: readonly Ids[] | undefined,
  options: ScoreOptions,
): ScoreRequest {
  const request: ScoreRequest = scoreFields("ScoreRequest", prompts, options, false);
  return continuations === undefined
    ? request
    : { ...request, continuations: tokenBatch(continuations, "continuations") };
}

/** Builds a `ComputeLogits` request. */
export function computeLogits(
  prompts: Prompts,
  options: ScoreOptions,
): ComputeLogitsRequest {
  return scoreFields("ComputeLogitsRequest", prompts, options, true);
}

/**
 * Builds a `ComputeLogits` request with the trace of every processor.
 *
 * @param candidates how many of the most probable tokens are reported, or which ids
 */
export function distribution(
  prompts: Prompts,
  candidates: number | Ids,
  options: DistributionOptions,
): ComputeLogitsRequest {
  const selection = { logits: true, scores: true, logsumexp: true, processorTrace: true, ...amount(candidates) };
  const request = computeLogits(prompts, { ...options, selection });
  return { generationConfig: {}, ...request }; // the model's own defaults, as in `generate`
}

function amount(candidates: number | Ids): ScoreSelection {
  if (typeof candidates !== "number") return { tokenIds: idRow(candidates, "candidates") };
  if (!Number.isInteger(candidates) || candidates < 1) {
    throw new TypeError(`candidates takes whole numbers from 1 on, or a row of ids, not ${candidates}.`);
  }
  return { topK: candidates, topKOfBoth: true };
}

function scoreFields(
  type: string,
  prompts: Prompts,
  options: ScoreOptions,
  logits: boolean,
): ScoreRequest & ComputeLogitsRequest {
  const [selection, { vocabulary = vocabularyOf(prompts), ...config }] = splitSelection(options, logits);
  const message = build<object>(type, { scores: selectionFields(selection), vocabulary });
  return withConfig({ ...message, prompt: promptMessage(prompts) }, config);
}

/** Builds an `OpenSession` request. */
export function openSession(
  prompts: Prompts,
  options: SessionOptions,
): OpenSessionRequest {
  const [selection, others] = splitSelection(options, true);
  const {
    ttlS: ttl,
    vocabulary = vocabularyOf(prompts),
    cacheSalt,
    sample,
    append,
    maxLength,
    ...config
  } = others;
  const message = build<OpenSessionRequest>("OpenSessionRequest", {
    scores: selectionFields(selection),
    ttl,
    vocabulary,
    cacheSalt,
    maxLength,
    sampling: sampling(sample, append),
  });
  return withConfig({ ...message, prompt: promptMessage(prompts) }, config);
}

/**
 * Builds a `Step` request that is applied at most once.
 *
 * @param rows for each row an id or a list of ids; an empty list leaves it alone
 * @param positions where each row is before the step
 */
export function step(
  sessionId: string,
  rows: ArrayLike<number | bigint | Ids>,
  positions: readonly number[],
  options: StepOptions,
): StepRequest {
  const [selection, { sample, append, ...others }] = splitSelection(options, true);
  if (rows.length !== positions.length) {
    throw new TypeError(`The session has ${positions.length} rows; ids for ${rows.length} were given.`);
  }
  const steps = Array.from(rows, (ids, index) => ({
    ids: typeof ids === "object" ? ids : [ids],
    expectedPosition: positions[index],
  }));
  const scores = selectionFields(selection);
  return build("StepRequest", { ...others, sessionId, rows: steps, scores, sampling: sampling(sample, append) });
}

function sampling(sample: boolean | undefined, append: boolean | undefined): object | undefined {
  if (append && !sample) throw new TypeError("append needs sample: the server appends what it chose.");
  return sample ? { append } : undefined;
}

function withConfig<Request extends object>(request: Request, config: object): Request {
  const built = generationConfig(config);
  return built === undefined ? request : { ...request, generationConfig: built };
}
