// A session: rows whose KV cache the server keeps.

import { deltas } from "../deltas.js";
import { ConnectionFailed, ServiceError } from "../errors.js";
import { GenerateOptions, StepOptions, type Ids } from "../options.js";
import { SESSIONS } from "../protos.js";
import { build } from "../requests/message.js";
import { continueSession, step } from "../requests/model.js";
import { split } from "../requests/names.js";
import { GenerationAssembler } from "../results/assembly.js";
import type { Generation, TokenDelta } from "../results/generation.js";
import type { GenerateRequest } from "../schema/lockstep/v1/GenerateRequest.js";
import type { TouchSessionRequest } from "../schema/lockstep/v1/TouchSessionRequest.js";
import { Stream } from "../stream.js";
import type { Method } from "../transport/connection.js";
import type { CallOptions } from "../transport/endpoint.js";
import { pause, untilAnswered } from "../transport/patience.js";
import { readVocabularyRef, type VocabularyRef } from "../values/vocabularyRef.js";
import { SessionLink } from "./link.js";
import {
  FAREWELL_MS,
  gone,
  isLoss,
  REOPENING_LIMIT_MS,
  REOPENING_PAUSES_MS,
  SessionState,
  unlessOurs,
  type SessionFacts,
  type StepResult,
} from "./state.js";
import { StepStream } from "./stepStream.js";
import { Turn } from "./turn.js";

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

  #link: SessionLink;

  /**
   * @param link where it is reached
   * @param facts what is known about it
   * @param reopens whether it is opened again by itself where it is lost
   */
  constructor(
    link: SessionLink,
    facts: SessionFacts,
    private readonly reopens = false,
  ) {
    super(facts);
    this.#link = link;
    link.route.sessionId = facts.sessionId;
  }

  /** What tells a gateway which replica has the session, for `getSession` elsewhere. */
  get sessionToken(): string {
    return this.#link.route.token;
  }

  /**
   * Appends tokens; `logits`, `scores` and `position` are then as of the last of them. The step is
   * applied at most once: it says where the rows were before.
   */
  async step(rows: Rows, options: StepOptions & CallOptions = {}): Promise<StepResult> {
    const [call, keywords] = split(options, StepOptions);
    const request = step(this.sessionId, rows, this.position, keywords);
    const response = await this.#call(SESSIONS.Step, request, call);
    return this.applyStep(request, response);
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
    const begin = () => this.#link.connection.duplex(SESSIONS.StepStream, call, this.#link.route);
    return new StepStream(this, begin, (use) => {
      const turn = this.#turn({});
      return this.#lasting(() => this.#settled(use, turn), turn);
    });
  }

  /**
   * Lets the server choose tokens, from where the rows are, until each has ended. Keywords that are
   * not given are as in the session. What follows the new tokens is not known before the next step.
   */
  async generate(options: GenerateOptions & CallOptions = {}): Promise<Generation> {
    const [call, keywords] = split(options, GenerateOptions);
    const request = continueSession(this.sessionId, this.vocabulary, keywords);
    const turn = this.#streamTurn(call);
    const assembler = await this.#lasting(async () => {
      const attempt = new GenerationAssembler(request, true, keywords.errors);
      for await (const _ of this.#deltas(request, attempt, turn));
      return attempt;
    }, turn);
    return this.#generated(assembler);
  }

  /**
   * As `generate`, and yields tokens as they are chosen. Left before its end, it is undone. Once it
   * has begun, it ends with its session, also with `reopen: true`.
   */
  stream(options: GenerateOptions & CallOptions = {}): Stream<TokenDelta, Generation> {
    const [call, keywords] = split(options, GenerateOptions);
    const request = continueSession(this.sessionId, this.vocabulary, keywords);
    const assembler = new GenerationAssembler(request, false, keywords.errors);
    return new Stream(
      (stoppable) => this.#stream(request, assembler, stoppable),
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
    const facts = {
      known: this.known.pick(chosen),
      sessionId: sessionIds[0]!,
      vocabulary,
      effectiveConfig,
      determinism,
      sampledTokenIds: pick(this.sampledTokenIds),
      finishReasons: pick(this.finishReasons),
      position: pick(this.position),
      rows: pick(this.rows),
      seeds: pick(this.seeds),
    };
    return new Session(this.#link.fork(facts.sessionId), facts, this.reopens);
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
    const request = this.#request("TouchSessionRequest", { ttl });
    const turn = this.#turn(call);
    await this.#lasting(() => this.#send(SESSIONS.TouchSession, request, turn), turn);
    this.known.touch((request as TouchSessionRequest).ttl);
  }

  /**
   * Opens the session again from the tokens that this client has, for one that is lost. Steps after
   * it return what they would have returned: rows keep their prompts, seeds, configuration and
   * revision, and what is known of them. The name is another, and the KV cache is computed again. A
   * session that is not lost is closed where it can be reached, and left to expire elsewhere. While
   * no service answers, it is waited for.
   */
  async reopen(options: CallOptions = {}): Promise<void> {
    const [call] = split(options, []);
    this.#checkOpen();
    if (this.position.includes(0)) throw gone("A row without tokens cannot be opened again; open a new session.");
    const { timeoutMs = this.#link.home.endpoint.timeoutMs, ...names } = call;
    // At worst, when it is repeated, a session is left to expire.
    const open = (leftMs: number) => this.#openAgain({ ...names, timeoutMs: leftMs });
    await untilAnswered(open, timeoutMs ?? REOPENING_LIMIT_MS, call.signal);
  }

  /** Frees what the server holds. Does nothing where the session is gone already. */
  async close(options: CallOptions = {}): Promise<void> {
    const [call] = split(options, []);
    if (this.closed) return;
    try {
      const request = { sessionId: this.sessionId };
      const turn = this.#turn(call);
      await this.#link.reach(() => this.#onceFree(SESSIONS.CloseSession, request, turn));
    } catch (error) {
      const isGone = error instanceof ServiceError && error.reason === "SESSION_NOT_FOUND";
      if (!isGone && !(this.reopens && isLoss(error))) throw error;
    }
    this.closed = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Opens the session where the client's connection leads, and closes the one there was. */
  async #openAgain(call: CallOptions): Promise<void> {
    const [left, old] = [this.#link, { sessionId: this.sessionId }];
    const link = new SessionLink(left.home);
    const request = this.known.reopening(this.vocabulary);
    const { sessionId } = await link.home.unary(SESSIONS.OpenSession, request, call, link.route);
    this.sessionId = link.route.sessionId = sessionId;
    this.#link = link;
    this.#unsettled = this.#overrun = false;
    this.drainS = undefined;
    const close = () => left.connection.unary(SESSIONS.CloseSession, old, { timeoutMs: FAREWELL_MS }, left.route);
    await left.reach(close).catch(unlessOurs); // lost, or out of reach
  }

  /**
   * Opens the session elsewhere before its replica has shut down, if somebody takes it now.
   * Otherwise the replica goes on with it.
   */
  async #leaveDraining(turn: Turn): Promise<void> {
    // The first may be refused by the same replica: see `Dialer`.
    for (let attempts = 0; attempts < 2 && this.drainS !== undefined; attempts++) {
      const { timeoutMs, ...names } = turn.options;
      const limitMs = Math.min((this.drainS * 1000) / 2, timeoutMs ?? Infinity);
      await this.#openAgain({ ...names, timeoutMs: limitMs }).catch(unlessOurs);
    }
  }

  async *#stream(
    request: GenerateRequest,
    assembler: GenerationAssembler,
    call: CallOptions,
  ): AsyncGenerator<TokenDelta> {
    const turn = this.#streamTurn(call);
    const { events, first } = await this.#lasting(async () => {
      const begun = this.#deltas(request, assembler, turn);
      return { events: begun, first: await begun.next() };
    }, turn);
    try {
      if (!first.done) yield first.value;
      yield* events;
    } finally {
      await events.return(undefined);
    }
    this.#generated(assembler);
  }

  async *#deltas(
    request: GenerateRequest,
    assembler: GenerationAssembler,
    turn: Turn,
  ): AsyncGenerator<TokenDelta> {
    await this.#settle(turn);
    const { connection, route } = this.#link;
    let answered = false;
    try {
      yield* deltas(connection, { ...request, sessionId: this.sessionId }, assembler, turn.options, route);
      answered = true;
    } catch (error) {
      answered = error instanceof ServiceError;
      throw error;
    } finally {
      // Where the caller leaves, or time is up, or the line broke.
      if (!answered) this.#unsettled = this.#overrun = true;
    }
  }

  /** Takes a generation that is complete. Throws the error of a row that failed. */
  #generated(assembler: GenerationAssembler): Generation {
    this.applyGeneration(assembler.generation());
    return assembler.result();
  }

  /** Calls a method that uses the session. */
  #call<Request extends object, Response extends object>(
    method: Method<Request, Response>,
    request: Request,
    call: CallOptions,
  ): Promise<Response> {
    const turn = this.#turn(call);
    return this.#lasting(() => this.#settled(() => this.#send(method, request, turn), turn), turn);
  }

  #turn({ timeoutMs = this.#link.home.endpoint.timeoutMs, ...names }: CallOptions): Turn {
    return new Turn(names, timeoutMs);
  }

  #streamTurn({ timeoutMs = this.#link.home.endpoint.streamTimeoutMs, ...names }: CallOptions): Turn {
    return new Turn(names, timeoutMs);
  }

  #send<Request extends object, Response extends object>(
    method: Method<Request, Response>,
    request: Request,
    turn: Turn,
  ): Promise<Response> {
    const { connection, route } = this.#link;
    // The name is another one since the request was built, if the session was opened again.
    return connection.unary(method, { ...request, sessionId: this.sessionId }, turn.options, route);
  }

  /** Uses the session, which is opened again where it is lost, if that was asked for. */
  async #lasting<Result>(use: () => Promise<Result>, turn: Turn): Promise<Result> {
    const attempt = async () => {
      this.#checkOpen();
      return use();
    };
    if (this.reopens) await this.#leaveDraining(turn);
    for (const pauseMs of this.reopens ? REOPENING_PAUSES_MS : []) {
      try {
        return await this.#link.reach(attempt);
      } catch (error) {
        if (!isLoss(error)) throw error;
        await this.reopen(turn.options);
        // The connection is made anew meanwhile.
        if (error instanceof ConnectionFailed) await pause(pauseMs, turn.options.signal);
      }
    }
    return this.#link.reach(attempt);
  }

  #checkOpen(): void {
    if (this.closed) throw gone("The session was closed by this client; open a new one.");
  }

  /** Uses the session once no call that was left does. */
  async #settled<Result>(use: () => Promise<Result>, turn: Turn): Promise<Result> {
    await this.#settle(turn);
    try {
      return await use();
    } catch (error) {
      if (!(error instanceof ServiceError)) this.#unsettled = true;
      throw error;
    }
  }

  /** Waits until a call that was left is over, and undoes it if it was a generation. */
  async #settle(turn: Turn): Promise<void> {
    if (!this.#unsettled) return;
    if (this.#overrun) await this.#onceFree(SESSIONS.Truncate, this.#truncation(this.position), turn);
    else await this.#onceFree(SESSIONS.GetSession, { sessionId: this.sessionId }, turn);
    this.#unsettled = this.#overrun = false;
  }

  async #onceFree<Request extends object, Response extends object>(
    method: Method<Request, Response>,
    request: Request,
    turn: Turn,
  ): Promise<Response> {
    for (;;) {
      try {
        return await this.#send(method, request, turn);
      } catch (error) {
        if (!(error instanceof ServiceError) || error.reason !== "SESSION_BUSY") throw error;
        await pause(turn.pauseMs(error), turn.options.signal);
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
