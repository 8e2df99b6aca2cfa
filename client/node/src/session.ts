// A session: rows whose KV cache the server keeps.

import { setTimeout as sleep } from "node:timers/promises";

import { deltas } from "./deltas.js";
import { ServiceError } from "./errors.js";
import { GenerateOptions, StepOptions, type Ids } from "./options.js";
import { SESSIONS } from "./protos.js";
import { build } from "./requests/message.js";
import { continueSession, step } from "./requests/model.js";
import { split } from "./requests/names.js";
import { GenerationAssembler } from "./results/assembly.js";
import type { Generation, TokenDelta } from "./results/generation.js";
import type { GenerateRequest } from "./schema/lockstep/v1/GenerateRequest.js";
import { SessionState, type SessionFacts, type StepResult } from "./sessionState.js";
import { StepStream } from "./stepStream.js";
import { Stream } from "./stream.js";
import type { Connection, Method } from "./transport/connection.js";
import type { CallOptions } from "./transport/endpoint.js";
import { readVocabularyRef, type VocabularyRef } from "./values/vocabularyRef.js";

const BUSY_LIMIT_MS = 5_000;
const BUSY_PAUSE_MS = 100;

/** For each row a token id or a list of them; an empty list leaves the row alone. */
export type Rows = ArrayLike<number | bigint | Ids>;

/**
 * Rows whose KV cache the server keeps, while the caller chooses the tokens. One call at a time
 * may use it. Close it, or declare it with `await using`: the server holds memory for it until
 * then, or until it expires.
 */
export class Session extends SessionState {
  /** Whether it was closed by this client. */
  closed = false;
  // Whether a call was left, so that the server may still be at it, and whether it was a
  // generation, of which the server may have kept tokens.
  #unsettled = false;
  #overrun = false;

  constructor(
    private readonly connection: Connection,
    facts: SessionFacts,
  ) {
    super(facts);
  }

  /**
   * Appends tokens; `logits`, `scores` and `position` are then as of the last of them. The step is
   * applied at most once: it says where the rows were before.
   */
  async step(rows: Rows, options: StepOptions & CallOptions = {}): Promise<StepResult> {
    const [call, keywords] = split(options, StepOptions);
    const request = step(this.sessionId, rows, this.position, keywords);
    const response = await this.#call(SESSIONS.Step, request, call);
    return this.applyStep(response, keywords.lookAhead ?? false);
  }

  /** Steps, and forgets the ids again: the session is as before. The result has the distributions. */
  async lookAhead(rows: Rows, options: StepOptions & CallOptions = {}): Promise<StepResult> {
    return this.step(rows, { ...options, lookAhead: true });
  }

  /**
   * Opens a stream of steps, which saves the cost of a call for each, and whose answers may be
   * larger than one message. Close it.
   */
  stepStream(options: CallOptions = {}): StepStream {
    const [call] = split(options, []);
    const duplex = this.connection.duplex(SESSIONS.StepStream, call);
    return new StepStream(this, duplex, (use) => this.#settled(use));
  }

  /**
   * Lets the server choose tokens, from where the rows are, until each has ended. Keywords that are
   * not given are as in the session. What follows the new tokens is not known before the next step.
   */
  async generate(options: GenerateOptions & CallOptions = {}): Promise<Generation> {
    const [call, keywords] = split(options, GenerateOptions);
    const request = continueSession(this.sessionId, this.vocabulary, keywords);
    const assembler = new GenerationAssembler(request, true, keywords.errors);
    for await (const _ of this.#deltas(request, assembler, call));
    return assembler.result();
  }

  /** As `generate`, and yields tokens as they are chosen. Left before its end, it is undone. */
  stream(options: GenerateOptions & CallOptions = {}): Stream<TokenDelta, Generation> {
    const [call, keywords] = split(options, GenerateOptions);
    const request = continueSession(this.sessionId, this.vocabulary, keywords);
    const assembler = new GenerationAssembler(request, false, keywords.errors);
    return new Stream(
      (stoppable) => this.#deltas(request, assembler, stoppable),
      () => assembler.result(),
      call,
    );
  }

  /** Forgets tokens of every row from a position on, or of each from its own. */
  async truncate(positions: number | readonly number[], options: CallOptions = {}): Promise<void> {
    const [call] = split(options, []);
    const { rows } = await this.#call(SESSIONS.Truncate, this.#truncation(positions), call);
    this.applyRows(rows);
  }

  /** Copies the session, or some of its rows in this order, to a session of its own. */
  async fork(rowIndices: readonly number[] = [], options: CallOptions = {}): Promise<Session> {
    const [call] = split(options, []);
    const request = this.#request("ForkRequest", { count: 1, rowIndices });
    const { sessionIds } = await this.#call(SESSIONS.Fork, request, call);
    const chosen = rowIndices.length > 0 ? rowIndices : this.position.map((_, index) => index);
    const pick = <Each>(all: readonly Each[]) => chosen.map((index) => all[index]!);
    const { vocabulary, effectiveConfig, determinism } = this;
    return new Session(this.connection, {
      sessionId: sessionIds[0]!,
      vocabulary,
      effectiveConfig,
      determinism,
      sampledTokenIds: pick(this.sampledTokenIds),
      finishReasons: pick(this.finishReasons),
      position: pick(this.position),
      rows: pick(this.rows),
      seeds: pick(this.seeds),
    });
  }

  /** Replaces the rows by a selection of them, which may drop, repeat and reorder. */
  async selectRows(rowIndices: readonly number[], options: CallOptions = {}): Promise<void> {
    const [call] = split(options, []);
    const request = this.#request("SelectRowsRequest", { rowIndices });
    const { rows } = await this.#call(SESSIONS.SelectRows, request, call);
    this.applySelection(rows, rowIndices);
  }

  /**
   * Moves the session to a newer revision of the vocabulary (the server's newest unless given), and
   * so lets it use newer ids. What was known about the next token is forgotten.
   */
  async rebind(vocabulary?: VocabularyRef, options: CallOptions = {}): Promise<VocabularyRef> {
    const [call] = split(options, []);
    const request = this.#request("RebindSessionRequest", { vocabulary });
    const response = await this.#call(SESSIONS.RebindSession, request, call);
    this.applyRows(response.rows);
    return (this.vocabulary = readVocabularyRef(response.vocabulary));
  }

  /** Returns the tokens of each row, prompt included, as the server has them. */
  async tokenIds(options: CallOptions = {}): Promise<number[][]> {
    const [call] = split(options, []);
    const { rows } = await this.#call(SESSIONS.GetSession, { sessionId: this.sessionId }, call);
    return rows.map((row) => row.tokens?.ids ?? []);
  }

  /** Postpones the expiry; `ttlS` is a new idle time, in seconds. */
  async touch(options: { ttlS?: number } & CallOptions = {}): Promise<void> {
    const [call, { ttlS: ttl }] = split(options, ["ttlS"]);
    await this.connection.unary(SESSIONS.TouchSession, this.#request("TouchSessionRequest", { ttl }), call);
  }

  /** Frees what the server holds. Does nothing where the session is gone already. */
  async close(options: CallOptions = {}): Promise<void> {
    const [call] = split(options, []);
    if (this.closed) return;
    try {
      await this.#onceFree(SESSIONS.CloseSession, { sessionId: this.sessionId }, call);
    } catch (error) {
      if (!(error instanceof ServiceError && error.reason === "SESSION_NOT_FOUND")) throw error;
    }
    this.closed = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async *#deltas(
    request: GenerateRequest,
    assembler: GenerationAssembler,
    call: CallOptions,
  ): AsyncGenerator<TokenDelta> {
    await this.#settle();
    let answered = false;
    try {
      yield* deltas(this.connection, request, assembler, call);
      answered = true;
    } catch (error) {
      answered = error instanceof ServiceError;
      throw error;
    } finally {
      // Where the caller leaves, or time is up, or the line broke.
      if (!answered) this.#unsettled = this.#overrun = true;
    }
    this.applyGeneration(assembler.generation());
  }

  /** Calls a method that uses the session. */
  #call<Request extends object, Response extends object>(
    method: Method<Request, Response>,
    request: Request,
    call: CallOptions,
  ): Promise<Response> {
    return this.#settled(() => this.connection.unary(method, request, call));
  }

  /** Uses the session once no call that was left does. */
  async #settled<Result>(use: () => Promise<Result>): Promise<Result> {
    await this.#settle();
    try {
      return await use();
    } catch (error) {
      if (!(error instanceof ServiceError)) this.#unsettled = true;
      throw error;
    }
  }

  /** Waits until a call that was left is over, and undoes it if it was a generation. */
  async #settle(): Promise<void> {
    if (!this.#unsettled) return;
    if (this.#overrun) await this.#onceFree(SESSIONS.Truncate, this.#truncation(this.position));
    else await this.#onceFree(SESSIONS.GetSession, { sessionId: this.sessionId });
    this.#unsettled = this.#overrun = false;
  }

  async #onceFree<Request extends object, Response extends object>(
    method: Method<Request, Response>,
    request: Request,
    call: CallOptions = {},
  ): Promise<Response> {
    const patientUntil = Date.now() + BUSY_LIMIT_MS;
    for (;;) {
      try {
        return await this.connection.unary(method, request, call);
      } catch (error) {
        const busy = error instanceof ServiceError && error.reason === "SESSION_BUSY";
        if (!busy || Date.now() > patientUntil) throw error;
        await sleep(error.retryDelayMs ?? BUSY_PAUSE_MS);
      }
    }
  }

  #truncation(positions: number | readonly number[]): object {
    const each = typeof positions === "number" ? this.position.map(() => positions) : positions;
    return this.#request("TruncateRequest", { positions: each });
  }

  #request(type: string, fields: object): object {
    return build(type, { sessionId: this.sessionId, ...fields });
  }
}
