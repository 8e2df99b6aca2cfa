// The model service.

import { Argument, SHOWN } from "./argument.js";
import { deltas } from "./deltas.js";
import type { LockstepError } from "./errors.js";
import {
  DistributionOptions,
  GenerateOptions,
  ScoreOptions,
  SessionOptions,
  type Ids,
  type ManyOptions,
} from "./options.js";
import { MODEL, MODEL_INFO, SESSIONS } from "./protos.js";
import * as requests from "./requests/model.js";
import { split, splitMany } from "./requests/names.js";
import { GenerationAssembler } from "./results/assembly.js";
import { readDistributions, type Distribution } from "./results/distribution.js";
import type { Generation, TokenDelta } from "./results/generation.js";
import {
  readCapabilities,
  readLoad,
  readLogitsProcessor,
  readModelInfo,
  readPlan,
  type Capabilities,
  type Load,
  type LogitsProcessor,
  type ModelInfo,
  type Plan,
} from "./results/modelInfo.js";
import { NextTokenScores, readPositions, scoredSequence, type ScoredSequence } from "./results/scores.js";
import { callRows, timeLeft, type Returning } from "./rows/rowCall.js";
import { admitted, ofLength, sequenceLimits } from "./rows/rowLimits.js";
import { numRows, RowRequest, sequencesPerRow } from "./rows/rowRequest.js";
import { joinGenerations, joinLists } from "./rows/rowResults.js";
import { Windows } from "./rows/windows.js";
import type { GenerateRequest } from "./schema/lockstep/v1/GenerateRequest.js";
import type { PromptBatch } from "./schema/lockstep/v1/PromptBatch.js";
import type { ScoreRequest } from "./schema/lockstep/v1/ScoreRequest.js";
import { SessionLink } from "./sessions/link.js";
import { Session } from "./sessions/session.js";
import { readSession } from "./sessions/state.js";
import { Stream } from "./stream.js";
import type { Connection } from "./transport/connection.js";
import type { CallOptions } from "./transport/endpoint.js";
import { Room } from "./transport/room.js";
import { Route } from "./transport/route.js";
import type { Prompts } from "./values/batch.js";
import { Once } from "./values/once.js";
import { promptRows } from "./values/promptRows.js";

/** Tokens of as many sessions are remembered. */
const MOST_TOKENS = 1024;

/** Windows in which rows are scored that are longer than what the model sees at once. */
export interface WindowOptions {
  /** Most tokens that the model sees at once. */
  window?: number | undefined;
  /**
   * How far a window is moved: each token is scored after at least `window - stride` others, where
   * there are as many. Unset means half a window.
   */
  stride?: number | undefined;
}

/** The names of `WindowOptions`. */
export const WindowOptions: readonly string[] = ["window", "stride"];

/** Which tokens a distribution shows. */
export interface CandidateOptions {
  /**
   * How many: the most probable ones of the model, and as many of those after the processors; or
   * the ids to show. Unset means 10.
   */
  candidates?: number | Ids | undefined;
}

/** Runs the model. */
export class Model {
  readonly #capabilities = new Once<Capabilities>();
  readonly #room = new Room();
  // The tokens of sessions that generations have left behind, by their names.
  readonly #tokens = new Map<string, string>();

  constructor(private readonly connection: Connection) {}

  /**
   * Generates sequences and returns them when all have ended. Any number of prompts: they go in as
   * many requests as needed. Rows of logits and scores of any number and size arrive in pieces: no
   * message limit applies to the result. A sequence that fails by itself throws its error once all
   * of its request have ended, or with `errors: "return"` has it in `details`.
   */
  async generate(
    prompts: Prompts,
    options: GenerateOptions & ManyOptions & CallOptions = {},
  ): Promise<Generation> {
    const [call, keywords] = splitMany(options, GenerateOptions);
    const request = requests.generate(prompts, keywords);
    const perRow = sequencesPerRow(request.generationConfig);
    const rows = new RowRequest("GenerateRequest", request);
    const generate = (part: GenerateRequest, { timeoutMs = this.connection.endpoint.streamTimeoutMs, ...names }: CallOptions) =>
      this.#admitted(part, perRow, { ...names, timeoutMs }, async (each) => {
        const assembler = new GenerationAssembler(part, true, call.errors);
        for await (const _ of this.#deltas(part, assembler, each));
        return assembler.result();
      });
    const limits = async () => sequenceLimits(await this.#limits(), perRow);
    return joinGenerations(await callRows(rows, generate, limits, call), () => [...promptRows(request.prompt)]);
  }

  /**
   * Generates sequences and yields tokens as they are chosen; `.result` has what `generate`
   * returns, without the rows of logits and scores, which only the deltas hold.
   */
  stream(
    prompts: Prompts,
    options: GenerateOptions & CallOptions = {},
  ): Stream<TokenDelta, Generation> {
    const [call, keywords] = split(options, GenerateOptions);
    const request = requests.generate(prompts, keywords);
    const assembler = new GenerationAssembler(request, false, keywords.errors);
    return new Stream(
      (stoppable) => this.#deltas(request, assembler, stoppable),
      () => assembler.result(),
      call,
    );
  }

  /** Opens a session, in which the caller chooses the tokens. Close it. */
  async openSession(prompts: Prompts, options: SessionOptions & CallOptions = {}): Promise<Session> {
    const [call, keywords] = split(options, SessionOptions);
    const { reopen, ...others } = keywords;
    const request = requests.openSession(prompts, others);
    const link = new SessionLink(this.connection);
    const response = await this.connection.unary(SESSIONS.OpenSession, request, call, link.route);
    return new Session(link, readSession(response, [...promptRows(request.prompt)], request), reopen);
  }

  /**
   * Returns a session that exists: one that a generation left behind, or an earlier client. What
   * follows its tokens is not known before its next step.
   *
   * `sessionToken` is that of the session, if it was not this client that had it: a gateway may need
   * it to find the session's replica. `reopen` is as of `openSession`.
   */
  async getSession(
    sessionId: string,
    options: { sessionToken?: string; reopen?: boolean } & CallOptions = {},
  ): Promise<Session> {
    const [call, { sessionToken = this.#tokens.get(sessionId), reopen }] = split(options, [
      "sessionToken",
      "reopen",
    ]);
    const link = new SessionLink(this.connection, new Route(sessionId, sessionToken));
    const found = await link.reach(() =>
      link.connection.unary(SESSIONS.GetSession, { sessionId }, call, link.route),
    );
    return new Session(link, readSession({ ...found, sessionId, scores: [] }), reopen);
  }

  /**
   * Computes the probabilities of given tokens: of any number of prompts, or of what follows each.
   * With a `window` a row may be longer than the model's context.
   */
  async score(
    prompts: Prompts,
    continuations: readonly Ids[] | undefined,
    options: Returning<ScoreOptions & WindowOptions & ManyOptions>,
  ): Promise<(ScoredSequence | LockstepError)[]>;
  async score(
    prompts: Prompts,
    continuations?: readonly Ids[],
    options?: ScoreOptions & WindowOptions & ManyOptions & CallOptions,
  ): Promise<ScoredSequence[]>;
  async score(
    prompts: Prompts,
    continuations?: readonly Ids[],
    options: ScoreOptions & WindowOptions & ManyOptions & CallOptions = {},
  ): Promise<(ScoredSequence | LockstepError)[]> {
    const [call, { window, stride, ...keywords }] = splitMany(options, [...ScoreOptions, ...WindowOptions]);
    const windows = new Windows(requests.score(prompts, continuations, keywords), window, stride);
    const rows = new RowRequest("ScoreRequest", windows.request);
    const score = (part: ScoreRequest, { timeoutMs = this.connection.endpoint.streamTimeoutMs, ...names }: CallOptions) =>
      this.#admitted(part, 1, { ...names, timeoutMs }, async (each) => {
        const { sequences } = await this.connection.unary(MODEL.Score, part, each);
        return sequences.map((row) => scoredSequence({ ...row, scores: readPositions(row.scores) }));
      });
    const limits = async () => ofLength(sequenceLimits(await this.#limits()), windows.longest);
    return windows.joined(joinLists(await callRows(rows, score, limits, call, windows.rowNumbers)));
  }

  /** Computes the distribution after each prompt; the server keeps nothing. */
  async computeLogits(
    prompts: Prompts,
    options: ScoreOptions & CallOptions = {},
  ): Promise<NextTokenScores> {
    const [call, keywords] = split(options, ScoreOptions);
    const request = requests.computeLogits(prompts, keywords);
    return NextTokenScores.read(await this.connection.unary(MODEL.ComputeLogits, request, call));
  }

  /**
   * Shows what `generate` would choose the next token from, and what each processor does: one
   * distribution for each prompt, with the ids of tokens; `Lockstep.distribution` adds what they
   * stand for. Keywords that are not given are the model's defaults.
   */
  async distribution(
    prompts: Prompts,
    options: DistributionOptions & CandidateOptions & CallOptions = {},
  ): Promise<Distribution[]> {
    const [call, { candidates = 10, ...keywords }] = split(options, [...DistributionOptions, "candidates"]);
    const request = requests.distribution(prompts, candidates, keywords);
    const given = new Argument("candidates", undefined, false, SHOWN);
    return readDistributions(await given.named(() => this.connection.unary(MODEL.ComputeLogits, request, call)));
  }

  /** Describes the model. */
  async info(options: CallOptions = {}): Promise<ModelInfo> {
    const [call] = split(options, []);
    return readModelInfo(await this.connection.unary(MODEL_INFO.GetModelInfo, {}, call));
  }

  /** Says what the server supports, and its limits. */
  async capabilities(options: CallOptions = {}): Promise<Capabilities> {
    const [call] = split(options, []);
    return readCapabilities(await this.connection.unary(MODEL_INFO.GetCapabilities, {}, call));
  }

  /** Lists what the keyword `processors` can name, in the default order. */
  async logitsProcessors(options: CallOptions = {}): Promise<LogitsProcessor[]> {
    const [call] = split(options, []);
    const response = await this.connection.unary(MODEL_INFO.ListLogitsProcessors, {}, call);
    return response.processors.map(readLogitsProcessor);
  }

  /** Says how busy the server is. */
  async load(options: CallOptions = {}): Promise<Load> {
    const [call] = split(options, []);
    return readLoad(await this.connection.unary(MODEL_INFO.GetLoad, {}, call));
  }

  /** Checks what `generate` would be asked, without running it, and says how it would run. */
  async validate(prompts: Prompts, options: GenerateOptions & CallOptions = {}): Promise<Plan> {
    const [call, keywords] = split(options, GenerateOptions);
    const generateRequest = requests.generate(prompts, keywords);
    return readPlan(await this.connection.unary(MODEL_INFO.ValidateRequest, { generateRequest }, call));
  }

  /** Returns how many texts of a list are generated at a time. @internal */
  async textsAtOnce(): Promise<number> {
    return sequenceLimits(await this.#limits()).atOnce;
  }

  #limits(): Promise<Capabilities> {
    return this.#capabilities.get(() => this.capabilities());
  }

  /** Makes a call once the service admits its sequences, in order of arrival within this client. */
  async #admitted<Result>(
    { prompt }: { prompt?: PromptBatch | null },
    sequencesPerRow: number,
    { timeoutMs, ...names }: CallOptions & { timeoutMs: number | null },
    call: (options: CallOptions) => Promise<Result>,
  ): Promise<Result> {
    const left = timeLeft(timeoutMs);
    if (this.#room.busy) this.#room.capacity = admitted(await this.#limits());
    const places = numRows(prompt ?? {}) * sequencesPerRow;
    const { peer } = this.connection.endpoint;
    return this.#room.hold(places, left(), names.signal, peer, () => call({ ...names, timeoutMs: left() }));
  }

  async *#deltas(
    request: GenerateRequest,
    assembler: GenerationAssembler,
    call: CallOptions,
  ): AsyncGenerator<TokenDelta> {
    const route = new Route();
    yield* deltas(this.connection, request, assembler, call, route);
    const { sessionId } = assembler;
    if (!sessionId || !route.token) return;
    this.#tokens.set(sessionId, route.token);
    if (this.#tokens.size > MOST_TOKENS) this.#tokens.delete(this.#tokens.keys().next().value!);
  }
}
