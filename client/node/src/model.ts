// The model service.

import { deltas } from "./deltas.js";
import { GenerateOptions, ScoreOptions, SessionOptions, type Ids } from "./options.js";
import { MODEL, MODEL_INFO, SESSIONS } from "./protos.js";
import * as requests from "./requests/model.js";
import { split } from "./requests/names.js";
import { GenerationAssembler } from "./results/assembly.js";
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
import { NextTokenScores, readPositions, type ScoredSequence } from "./results/scores.js";
import type { GenerateRequest } from "./schema/lockstep/v1/GenerateRequest.js";
import { Session } from "./session.js";
import { SessionLink } from "./sessionLink.js";
import { readSession } from "./sessionState.js";
import { Stream } from "./stream.js";
import type { Connection } from "./transport/connection.js";
import type { CallOptions } from "./transport/endpoint.js";
import { Route } from "./transport/route.js";
import { rowsOf, type Prompts } from "./values/batch.js";

/** Tokens of as many sessions are remembered. */
const MOST_TOKENS = 1024;

/** Runs the model. */
export class Model {
  // The tokens of sessions that generations have left behind, by their names.
  readonly #tokens = new Map<string, string>();

  constructor(private readonly connection: Connection) {}

  /**
   * Generates sequences and returns them when all have ended. Rows of logits and scores of any
   * number and size arrive in pieces: no message limit applies to the result. Throws the error of
   * a sequence that failed by itself, unless `errors: "return"` asks for it in `details`.
   */
  async generate(prompts: Prompts, options: GenerateOptions & CallOptions = {}): Promise<Generation> {
    const [call, keywords] = split(options, GenerateOptions);
    const request = requests.generate(prompts, keywords);
    const assembler = new GenerationAssembler(request, true, keywords.errors);
    for await (const _ of this.#deltas(request, assembler, call));
    return assembler.result();
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
    return new Session(link, readSession(response, rowsOf(prompts), request), reopen);
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

  /** Computes the probabilities of given tokens: of the prompts, or of what follows each. */
  async score(
    prompts: Prompts,
    continuations?: readonly Ids[],
    options: ScoreOptions & CallOptions = {},
  ): Promise<ScoredSequence[]> {
    const [call, keywords] = split(options, ScoreOptions);
    const request = requests.score(prompts, continuations, keywords);
    const { sequences } = await this.connection.unary(MODEL.Score, request, call);
    return sequences.map((row) => ({ ...row, scores: readPositions(row.scores) }));
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
