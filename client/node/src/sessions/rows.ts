// The tokens of a session's rows, from which it can be opened again.

import type { OpenSessionRequest } from "../schema/lockstep/v1/OpenSessionRequest.js";
import type { StepRequest } from "../schema/lockstep/v1/StepRequest.js";
import type { StepResponse__Output } from "../schema/lockstep/v1/StepResponse.js";
import type { SessionAnswer } from "./state.js";

/** One row as of the last answer. */
interface Row {
  /** Its tokens. */
  tokenIds: number[];
  /** Leading tokens that are its prompt. */
  promptTokenCount: number;
  /** Last tokens that have not passed through the model. */
  pendingTokenCount: number;
  /** Of its draws. */
  seed: string;
}

/** All rows of a session, and what it was opened with beside them. */
export class SessionRows {
  private constructor(
    private opening: OpenSessionRequest,
    private readonly rows: Row[],
  ) {}

  /**
   * Returns the rows of a session that was just opened or found.
   *
   * @param answer its state, with the tokens of its rows where there are no prompts
   * @param prompts what it was opened with
   * @param request the request that did it
   */
  static of(
    answer: SessionAnswer,
    prompts?: readonly (readonly number[])[],
    request: OpenSessionRequest = {},
  ): SessionRows {
    const rows = answer.rows.map((row, index): Row => {
      const prompt = prompts?.[index] ?? row.tokens?.ids ?? [];
      return {
        tokenIds: [...prompt, row.sampledTokenId ?? 0].slice(0, row.position),
        promptTokenCount: row.promptTokenCount || prompt.length,
        pendingTokenCount: row.pendingTokenCount || row.position - prompt.length,
        seed: row.seed,
      };
    });
    const { ttl, scores, cacheSalt } = request;
    const opening: OpenSessionRequest = {
      ...(answer.maxLength && { maxLength: answer.maxLength }),
      ...(ttl && { ttl }),
      ...(scores && { scores }),
      ...(cacheSalt && { cacheSalt }),
      // Fields that have no effect are among them.
      generationConfig: { ...answer.effectiveConfig, lenient: true },
    };
    return new SessionRows(opening, rows);
  }

  /** Returns copies of some rows, in this order, for a session of its own. */
  pick(indices: readonly number[]): SessionRows {
    const rows = indices.map((index) => ({ ...this.rows[index]!, tokenIds: [...this.rows[index]!.tokenIds] }));
    return new SessionRows({ ...this.opening }, rows);
  }

  /** Takes what a step that was not only looked ahead at has appended. */
  step(request: StepRequest, response: StepResponse__Output): void {
    if (request.scores) this.opening.scores = request.scores;
    for (const [index, row] of this.rows.entries()) {
      const given = Array.from((request.rows?.[index]?.ids ?? []) as number[]);
      const { position, sampledTokenId } = response.rows[index]!;
      const appended = position - row.tokenIds.length - given.length;
      row.tokenIds = [...row.tokenIds, ...given, sampledTokenId ?? 0].slice(0, position);
      row.pendingTokenCount = Math.max(0, appended);
    }
  }

  /** Takes what was generated for each row. */
  generate(sequences: readonly (readonly number[])[]): void {
    for (const [index, row] of this.rows.entries()) {
      row.tokenIds.push(...sequences[index]!);
      if (sequences[index]!.length > 0) row.pendingTokenCount = 1;
    }
  }

  /** Forgets the tokens of each row from a position on. */
  cut(positions: readonly number[]): void {
    for (const [index, row] of this.rows.entries()) {
      const position = positions[index]!;
      const lost = Math.max(0, row.tokenIds.length - position);
      row.pendingTokenCount = Math.max(0, row.pendingTokenCount - lost);
      row.tokenIds.length = Math.min(row.tokenIds.length, position);
      row.promptTokenCount = Math.min(row.promptTokenCount, position);
    }
  }

  /** Takes the idle time that was asked for later. */
  touch(ttl: OpenSessionRequest["ttl"]): void {
    if (ttl) this.opening.ttl = ttl;
  }

  /** Builds the request for a session that goes on as this one would have. */
  reopening(vocabulary: object): OpenSessionRequest {
    return {
      ...this.opening,
      vocabulary,
      prompt: { tokenBatch: { sequences: this.rows.map(({ tokenIds }) => ({ ids: tokenIds })) } },
      origins: this.rows.map(({ tokenIds: _, ...origin }) => origin),
    };
  }
}
