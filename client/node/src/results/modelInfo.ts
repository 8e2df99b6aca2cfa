// Descriptions of a model server.

import type { GenerationOptions } from "../options.js";
import { generationOptions } from "../requests/generationConfig.js";
import type { DecodeGraphState__Output } from "../schema/lockstep/v1/DecodeGraphState.js";
import type { DeterminismLevel__Output } from "../schema/lockstep/v1/DeterminismLevel.js";
import type { GetCapabilitiesResponse__Output } from "../schema/lockstep/v1/GetCapabilitiesResponse.js";
import type { GetLoadResponse__Output } from "../schema/lockstep/v1/GetLoadResponse.js";
import type { GetModelInfoResponse__Output } from "../schema/lockstep/v1/GetModelInfoResponse.js";
import type { LogitsProcessorInfo__Output } from "../schema/lockstep/v1/LogitsProcessorInfo.js";
import type { SupportLevel__Output } from "../schema/lockstep/v1/SupportLevel.js";
import type { ValidateRequestResponse__Output } from "../schema/lockstep/v1/ValidateRequestResponse.js";
import type { VocabularyFollowState__Output } from "../schema/lockstep/v1/VocabularyFollowState.js";
import { seconds } from "../values/durations.js";
import { short, type Short } from "../values/enums.js";
import { readVocabularyRef, type VocabularyRef } from "../values/vocabularyRef.js";
import { readDeterminism, type Determinism } from "./determinism.js";

/** How the vocabulary keeps up with that of the tokenizer service. */
export interface VocabularyFollowing {
  state: Short<VocabularyFollowState__Output, "VOCABULARY_FOLLOW_STATE"> | undefined;
  /** Why nothing is taken. */
  reason: string;
  /** Revisions that the tokenizer service is known to have and that are not served here. */
  lagRevisionCount: number;
  /** Time since the tokenizer service was last heard of; undefined before the first time. */
  silenceS: number | undefined;
}

/** Description of a model. */
export interface ModelInfo
  extends Omit<
    GetModelInfoResponse__Output,
    | "vocabulary"
    | "parameterCount"
    | "defaultGenerationConfig"
    | "determinism"
    | "decodeGraphState"
    | "vocabularyFollowing"
  > {
  /** The newest vocabulary that the server serves. */
  vocabulary: VocabularyRef;
  parameterCount: number;
  /** What an empty request uses. */
  defaultGenerationConfig: GenerationOptions;
  determinism: Determinism;
  /** Whether decoding steps run compiled. */
  decodeGraphState: Short<DecodeGraphState__Output, "DECODE_GRAPH_STATE"> | undefined;
  vocabularyFollowing: VocabularyFollowing | undefined;
}

type Support = Short<SupportLevel__Output, "SUPPORT_LEVEL">;

/** What a model server supports. */
export interface Capabilities {
  /** By full method name. */
  methods: Record<string, Support>;
  /** By field of the generation configuration, as the schema names it. */
  generationFields: Record<string, Support>;
  /** Types that full rows can be returned in. */
  scoreDtypes: string[];
  /** By the names of the schema, in camelCase. */
  limits: Record<string, number>;
  determinismLevel: Short<DeterminismLevel__Output, "DETERMINISM_LEVEL"> | undefined;
}

/** How busy a model server is. */
export interface Load
  extends Omit<GetLoadResponse__Output, "vocabulary" | "kvUsedTokenCount" | "kvTotalTokenCount"> {
  kvUsedTokenCount: number;
  kvTotalTokenCount: number;
}

/** How a request would run. */
export interface Plan {
  /** The configuration, every field resolved. */
  effectiveConfig: GenerationOptions;
  /** The processors, in order. */
  appliedProcessors: string[];
  /** Tokens of KV cache that would be reserved. */
  kvTokenCount: number;
  /** Bytes of the largest response possible. */
  maxResponseBytes: number;
}

/** A processor that a request may name. */
export interface LogitsProcessor extends Omit<LogitsProcessorInfo__Output, "argumentsSchemaJson"> {
  /** JSON schema of its arguments. */
  argumentsSchema: object;
}

/** Reads the answer of `GetModelInfo`. */
export function readModelInfo(message: GetModelInfoResponse__Output): ModelInfo {
  const { vocabularyFollowing: following } = message;
  return {
    ...message,
    vocabulary: readVocabularyRef(message.vocabulary),
    parameterCount: Number(message.parameterCount),
    defaultGenerationConfig: generationOptions(message.defaultGenerationConfig),
    determinism: readDeterminism(message.determinism),
    decodeGraphState: short(message.decodeGraphState, "DECODE_GRAPH_STATE"),
    vocabularyFollowing: following
      ? {
          state: short(following.state, "VOCABULARY_FOLLOW_STATE"),
          reason: following.reason,
          lagRevisionCount: Number(following.lagRevisionCount),
          silenceS: following.silence ? seconds(following.silence) : undefined,
        }
      : undefined,
  };
}

/** Reads the answer of `GetCapabilities`. */
export function readCapabilities(message: GetCapabilitiesResponse__Output): Capabilities {
  const limits = Object.entries(message.limits ?? {}).map(([name, limit]) => [name, Number(limit)]);
  return {
    methods: supports(message.methods),
    generationFields: supports(message.generationFields),
    scoreDtypes: message.scoreDtypes.map((dtype) => String(short(dtype, "DATA_TYPE"))),
    limits: Object.fromEntries(limits) as Record<string, number>,
    determinismLevel: short(message.determinismLevel, "DETERMINISM_LEVEL"),
  };
}

/** Reads the answer of `GetLoad`. */
export function readLoad({ vocabulary: _, ...message }: GetLoadResponse__Output): Load {
  return {
    ...message,
    kvUsedTokenCount: Number(message.kvUsedTokenCount),
    kvTotalTokenCount: Number(message.kvTotalTokenCount),
  };
}

/** Reads the answer of `ValidateRequest`. */
export function readPlan(message: ValidateRequestResponse__Output): Plan {
  return {
    effectiveConfig: generationOptions(message.effectiveConfig),
    appliedProcessors: message.appliedProcessors,
    kvTokenCount: Number(message.kvTokenCount),
    maxResponseBytes: Number(message.maxResponseBytes),
  };
}

/** Reads one of the answer of `ListLogitsProcessors`. */
export function readLogitsProcessor(message: LogitsProcessorInfo__Output): LogitsProcessor {
  const { argumentsSchemaJson, ...others } = message;
  return { ...others, argumentsSchema: JSON.parse(argumentsSchemaJson) as object };
}

function supports(levels: Record<string, SupportLevel__Output>): Record<string, Support> {
  return Object.fromEntries(
    Object.entries(levels).map(([name, level]) => [name, short(level, "SUPPORT_LEVEL")]),
  ) as Record<string, Support>;
}
