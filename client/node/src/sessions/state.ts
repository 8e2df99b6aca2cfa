// What a client knows about a session as of its last answer. B is the number of rows, V the size
// of the vocabulary.

import { ConnectionFailed, LockstepError, ServiceError } from "../errors.js";
import type { GenerationOptions } from "../options.js";
import { generationOptions } from "../requests/generationConfig.js";
import { readDeterminism, type Determinism } from "../results/determinism.js";
import { readFinishReason, type FinishReason, type Generation } from "../results/generation.js";
import { readPositions, type PositionScores, type ReadRow } from "../results/scores.js";
import type { OpenSessionRequest } from "../schema/lockstep/v1/OpenSessionRequest.js";
import type { OpenSessionResponse__Output } from "../schema/lockstep/v1/OpenSessionResponse.js";
import type { SessionRow__Output } from "../schema/lockstep/v1/SessionRow.js";
import type { StepRequest } from "../schema/lockstep/v1/StepRequest.js";
import type { StepResponse__Output } from "../schema/lockstep/v1/StepResponse.js";
import { fromItem } from "../transport/status.js";
import { seconds } from "../values/durations.js";
import { stackRows, type Tensor } from "../values/tensor.js";
import { readVocabularyRef, type VocabularyRef } from "../values/vocabularyRef.js";
import { SessionRows } from "./rows.js";

/** The outcome of one step. */
export interface StepResult {
  /** What was asked for about each row, by position. */
  rows: PositionScores[][];
  /** What the server chose for each row; undefined where it was not asked to. */
  sampledTokenIds: (number | undefined)[];
  /** Why each row would end with the chosen token; undefined while it goes on. */
  finishReasons: (FinishReason | undefined)[];
  /** Whether this is a repeated answer. */
  replayed: boolean;
  /** Whether the KV cache had been dropped and was computed again. */
  recomputed: boolean;
  /** Seed of each row's draws; undefined where the server was not asked to choose. */
  seeds: (bigint | undefined)[];
  /** How far the result can be reproduced. */
  determinism: Determinism;
  /** How long the service still takes steps, as it shuts down; undefined unless it does. */
  drainS: number | undefined;
}

/** What is known about a session. */
export interface SessionFacts {
  /** The tokens of its rows, from which it can be opened again. */
  known: SessionRows;
  /** Its name. */
  sessionId: string;
  /** The vocabulary it is on. */
  vocabulary: VocabularyRef;
  /** Processors and warpers that it uses, every field resolved. */
  effectiveConfig: GenerationOptions;
  determinism: Determinism;
  /** What the server chose for each row when it was opened; undefined where it was not asked to. */
  sampledTokenIds: (number | undefined)[];
  /** Why each row would end with that; undefined while it goes on. */
  finishReasons: (FinishReason | undefined)[];
  /** Number of tokens in each row. */
  position: number[];
  /** What was last asked for about each row, by position. */
  rows: PositionScores[][];
  /** Seed of each row's draws. */
  seeds: bigint[];
}

/** Reads the answer that a session begins with, where it knows what was asked. */
export function readSession(
  answer: SessionAnswer,
  prompts?: readonly (readonly number[])[],
  request?: OpenSessionRequest,
): SessionFacts {
  return {
    known: SessionRows.of(answer, prompts, request),
    sessionId: answer.sessionId,
    vocabulary: readVocabularyRef(answer.vocabulary),
    effectiveConfig: generationOptions(answer.effectiveConfig),
    determinism: readDeterminism(answer.determinism),
    sampledTokenIds: answer.rows.map((row) => row.sampledTokenId),
    finishReasons: answer.rows.map((row) => readFinishReason(row.finishReason)),
    position: answer.rows.map((row) => row.position),
    rows: answer.rows.map((_, index) => readPositions(answer.scores[index]?.scores ?? [])),
    seeds: answer.rows.map((row) => BigInt(row.seed)),
  };
}

/** The state of a session as of the last answer. */
export class SessionState implements SessionFacts {
  sessionId: string;
  readonly effectiveConfig: GenerationOptions;
  readonly determinism: Determinism;
  readonly sampledTokenIds: (number | undefined)[];
  readonly finishReasons: (FinishReason | undefined)[];
  vocabulary: VocabularyRef;
  position: number[];
  rows: PositionScores[][];
  seeds: bigint[];
  /** @internal */
  known: SessionRows;
  /** How long its replica still takes steps, if it says so. @internal */
  drainS: number | undefined;

  constructor(facts: SessionFacts) {
    this.known = facts.known;
    this.sessionId = facts.sessionId;
    this.effectiveConfig = facts.effectiveConfig;
    this.determinism = facts.determinism;
    this.sampledTokenIds = facts.sampledTokenIds;
    this.finishReasons = facts.finishReasons;
    this.vocabulary = facts.vocabulary;
    this.position = facts.position;
    this.rows = facts.rows;
    this.seeds = facts.seeds;
  }

  /** `[B, V]` raw logits of the next token; undefined without full rows. */
  get logits(): Tensor<Float32Array> | undefined {
    return stackRows(this.rows.map((row) => row.at(-1)?.logits));
  }

  /** `[B, V]` processed scores; undefined without full rows. */
  get scores(): Tensor<Float32Array> | undefined {
    return stackRows(this.rows.map((row) => row.at(-1)?.scores));
  }

  /**
   * Takes the answer of a step. Throws the error of a row that failed: the state then has the
   * rows that did not.
   *
   * @internal
   */
  applyStep(request: StepRequest, response: StepResponse__Output, readRow?: ReadRow): StepResult {
    this.position = response.rows.map((row) => row.position);
    const result: StepResult = {
      rows: response.rows.map((row) => readPositions(row.scores, readRow)),
      sampledTokenIds: response.rows.map((row) => row.sampledTokenId),
      finishReasons: response.rows.map((row) => readFinishReason(row.finishReason)),
      replayed: response.replayed,
      recomputed: response.recomputed,
      seeds: response.rows.map(({ seed }) => (seed === undefined ? undefined : BigInt(seed))),
      determinism: readDeterminism(response.determinism),
      drainS: response.drainTimeLeft ? seconds(response.drainTimeLeft) : undefined,
    };
    this.drainS = result.drainS;
    if (!request.lookAhead) {
      this.known.step(request, response);
      // Rows that did not step keep what is known about them.
      this.rows = result.rows.map((row, index) => (row.length > 0 ? row : this.rows[index]!));
    }
    for (const { error } of response.rows) if (error) throw fromItem(error);
    return result;
  }

  /** Takes what was generated: what follows it is not known. @internal */
  applyGeneration({ details }: Generation): void {
    this.known.generate(details.map(({ tokenIds }) => tokenIds));
    this.position = this.position.map((position, row) => position + details[row]!.tokenIds.length);
    this.rows = this.position.map(() => []);
  }

  /** Takes the rows after they were cut: what follows them is not known. @internal */
  applyRows(rows: readonly SessionRow__Output[]): void {
    this.position = rows.map((row) => row.position);
    this.known.cut(this.position);
    this.rows = rows.map(() => []);
  }

  /** Takes the rows after they were selected. @internal */
  applySelection(rows: readonly SessionRow__Output[], rowIndices: readonly number[]): void {
    this.known = this.known.pick(rowIndices);
    this.position = rows.map((row) => row.position);
    this.seeds = rows.map((row) => BigInt(row.seed));
    this.rows = rowIndices.map((index) => this.rows[index]!);
  }
}

/**
 * A session is opened again for one call as often, and where the connection had failed, the call
 * waits as long, in milliseconds.
 */
export const REOPENING_PAUSES_MS = [200, 400, 800];
/** How long closing a session may take that was opened again elsewhere. */
export const FAREWELL_MS = 500;
/** How long a service is waited for that opens a session again, where no limit is given. */
export const REOPENING_LIMIT_MS = 60_000;

const LOSSES: readonly string[] = [
  "DRAINING", "ENGINE_LOST", "SESSION_NOT_FOUND", "SESSION_ON_OTHER_REPLICA",
];

/** Says whether a call of a session has failed with the session lost, or out of reach. */
export function isLoss(error: unknown): boolean {
  return error instanceof ConnectionFailed || (error instanceof ServiceError && LOSSES.includes(error.reason));
}

/** What the state of a session begins with. */
export type SessionAnswer = Pick<
  OpenSessionResponse__Output,
  "sessionId" | "rows" | "scores" | "vocabulary" | "effectiveConfig" | "determinism" | "maxLength"
>;

/** Throws what is not a failure of a call. */
export function unlessOurs(error: unknown): void {
  if (!(error instanceof LockstepError)) throw error;
}

/** Builds the error of a session that is no more. */
export function gone(message: string): ServiceError {
  return new ServiceError(message, { code: "NOT_FOUND", reason: "SESSION_NOT_FOUND" });
}
