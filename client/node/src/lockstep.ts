// Both services as one: text in, text out.

import { Argument } from "./argument.js";
import { LockstepError, ProtocolError } from "./errors.js";
import { Model, WindowOptions, type CandidateOptions } from "./model.js";
import { CompletionOptions, type GenerationOptions, type ManyOptions } from "./options.js";
import { checkNames, split, splitMany } from "./requests/names.js";
import type { ChatMessages } from "./requests/tokenizer.js";
import type { Distribution } from "./results/distribution.js";
import { Completion } from "./results/generation.js";
import type { ScoredSequence } from "./results/scores.js";
import { returnsErrors, runEach, timeLeft, type Returning } from "./rows/rowCall.js";
import { rowSeed } from "./rows/rowRequest.js";
import { Stream } from "./stream.js";
import { Tokenizer } from "./tokenizer.js";
import { Connection } from "./transport/connection.js";
import { checkTimeout, Endpoint, newRequestId, type CallOptions, type ConnectionOptions } from "./transport/endpoint.js";
import { untilAnswered } from "./transport/patience.js";
import type { Batch } from "./values/batch.js";
import { NewestVocabulary } from "./values/vocabularyRef.js";
import { Vocabulary } from "./vocabulary.js";

const OPTIONS = [
  "tokenizer", "model", "tls", "timeoutMs", "streamTimeoutMs", "retries", "token", "tokenInPlainText",
  "follow", "prefixRouting",
];
const TLS = ["ca", "certificate", "key", "serverName"];

/** Where the services are. */
export interface LockstepOptions extends ConnectionOptions {
  /** Address of the tokenizer service. Default: `localhost:50051`. */
  tokenizer?: string | undefined;
  /** Address of the model service. Default: `localhost:50052`. */
  model?: string | undefined;
}

/** A text to continue, or the messages of a conversation to answer. */
export type Prompt = string | ChatMessages;

/** A client of both services. Connections are made when they are first used. */
export class Lockstep {
  /** The tokenizer service. */
  readonly tokenizer: Tokenizer;
  /** Changes of the vocabulary, which the tokenizer service owns. */
  readonly vocabulary: Vocabulary;
  /** The model service. */
  readonly model: Model;
  readonly #connections: readonly [Connection, Connection];

  constructor(options: LockstepOptions = {}) {
    checkNames(options, OPTIONS, "an option of a client");
    const { tokenizer = "localhost:50051", model = "localhost:50052", ...others } = options;
    checkNames(others.tls ?? {}, TLS, "an option of tls");
    const newest = new NewestVocabulary();
    const toTokenizer = new Connection(new Endpoint("tokenizer", tokenizer, others), newest);
    const toModel = new Connection(new Endpoint("model", model, others), newest);
    this.#connections = [toTokenizer, toModel];
    this.tokenizer = new Tokenizer(toTokenizer);
    this.vocabulary = new Vocabulary(toTokenizer);
    this.model = new Model(toModel);
  }

  /**
   * Continues a text, or answers the messages of a conversation; or any number of them. A list gives
   * a list in its order: each text is a call of its own, and with a `seed` has one of its own.
   */
  async generate(
    prompts: readonly Prompt[],
    options: Returning<CompletionOptions & ManyOptions>,
  ): Promise<(Completion | LockstepError)[]>;
  async generate(
    prompts: readonly Prompt[],
    options?: CompletionOptions & ManyOptions & CallOptions,
  ): Promise<Completion[]>;
  async generate(prompt: Prompt, options?: CompletionOptions & CallOptions): Promise<Completion>;
  async generate(
    prompts: Prompt | readonly Prompt[],
    options: CompletionOptions & ManyOptions & CallOptions = {},
  ): Promise<Completion | (Completion | LockstepError)[]> {
    if (areSeveral(prompts)) return this.#generateEach(prompts, options);
    const [call, keywords] = splitCompletion(options);
    return this.#complete(new Argument("prompt"), prompts, keywords, call);
  }

  /**
   * As `generate`, yielding the text piece by piece, never half a character; `.result` has in the
   * end what `generate` returns.
   */
  stream(prompt: Prompt, options: CompletionOptions & CallOptions = {}): Stream<string, Completion> {
    const [call, keywords] = splitCompletion(options);
    let completion: Completion | undefined;
    const finish = (whole: Completion) => (completion = whole);
    const result = () => {
      if (completion === undefined) throw new ProtocolError("The stream was not read to its end.");
      return completion;
    };
    return new Stream((stoppable) => this.#pieces(prompt, keywords, stoppable, finish), result, call);
  }

  /**
   * Shows the tokens that may come next after a text or the messages of a conversation, before and
   * after every processor. Its text is a table: `console.log(String(await ls.distribution(text)))`.
   */
  async distribution(
    prompt: Prompt,
    options: CompletionOptions & CandidateOptions & CallOptions = {},
  ): Promise<Distribution> {
    const { candidates, ...others } = options;
    const [{ requestId = newRequestId(), ...limits }, keywords] = splitCompletion(others);
    const call = { ...limits, requestId };
    const [found] = await new Argument("prompt").named(async () => {
      const [batch, generating] = await this.#encoded(prompt, keywords, call);
      return this.model.distribution(batch, { candidates, ...generating, ...call });
    });
    const { timeoutMs: _, ...untimed } = call;
    const { entries } = await this.tokenizer.convertTokens([], found!.tokenIds, untimed);
    return found!.withTexts(entries.map(({ visible }) => visible));
  }

  /**
   * Computes how well the model predicts a text of any length, or each of several: exp of the mean
   * negative log-probability of the tokens after the first. A text that is longer than a window
   * (the model's context unless given) is scored in windows that overlap, each token once.
   */
  async perplexity(text: string, options?: WindowOptions & ManyOptions & CallOptions): Promise<number>;
  async perplexity(
    texts: readonly string[],
    options: Returning<WindowOptions & ManyOptions>,
  ): Promise<(number | LockstepError)[]>;
  async perplexity(
    texts: readonly string[],
    options?: WindowOptions & ManyOptions & CallOptions,
  ): Promise<number[]>;
  async perplexity(
    texts: string | readonly string[],
    options: WindowOptions & ManyOptions & CallOptions = {},
  ): Promise<number | LockstepError | (number | LockstepError)[]> {
    const [{ requestId = newRequestId(), ...many }, sizes] = splitMany(options, WindowOptions);
    const names = { requestId, traceparent: many.traceparent, signal: many.signal };
    const isOne = typeof texts === "string";
    const given = isOne ? new Argument("text") : new Argument("texts", undefined, true);
    const scored = await given.named(async (): Promise<(ScoredSequence | LockstepError)[]> => {
      const batch = await this.tokenizer.encode(texts, names);
      const window = sizes.window ?? (await this.model.info(names)).contextLength;
      return this.model.score(batch, undefined, { ...many, requestId, ...sizes, window });
    });
    const values = scored.map((row) =>
      row instanceof LockstepError ? (given.renamed(row) as LockstepError) : row.perplexity,
    );
    return isOne ? values[0]! : values;
  }

  /** Waits until both services answer, at most `timeoutMs`; throws why the last attempt failed. */
  async waitUntilReady(timeoutMs = 60_000): Promise<void> {
    checkTimeout("timeoutMs", timeoutMs);
    const left = timeLeft(timeoutMs);
    for (const { endpoint } of this.#connections) {
      const connection = new Connection(endpoint.withoutRetries());
      const described =
        endpoint.service === "model" ? new Model(connection) : new Tokenizer(connection);
      try {
        await untilAnswered<object>((leftMs) => described.info({ timeoutMs: leftMs }), left());
      } finally {
        connection.close();
      }
    }
  }

  /** Closes both connections; running calls are cancelled. */
  close(): void {
    for (const connection of this.#connections) connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #generateEach(
    prompts: readonly Prompt[],
    options: CompletionOptions & ManyOptions & CallOptions,
  ): Promise<(Completion | LockstepError)[]> {
    const { errors, progress, concurrency, ...others } = options;
    const [{ timeoutMs, signal, ...names }, keywords] = splitCompletion(others);
    const returns = returnsErrors(errors);
    const left = timeLeft(timeoutMs);
    let numDone = 0;
    const complete = async ([row, prompt]: [number, Prompt], each: AbortSignal) => {
      const own = keywords.seed === undefined ? keywords : { ...keywords, seed: rowSeed(keywords.seed, row) };
      const given = new Argument("prompts", row);
      const call = this.#complete(given, prompt, own, { ...names, timeoutMs: left(), signal: each });
      const done = await call.catch((error: unknown) => {
        if (returns && error instanceof LockstepError) return error;
        throw error;
      });
      progress?.((numDone += 1), prompts.length);
      return done;
    };
    const numWorkers = concurrency ?? (await this.model.textsAtOnce());
    return runEach(complete, [...prompts.entries()], numWorkers, signal);
  }

  async #complete(
    given: Argument,
    prompt: Prompt,
    options: CompletionOptions,
    { requestId = newRequestId(), ...others }: CallOptions,
  ): Promise<Completion> {
    const call = { ...others, requestId };
    const { skipSpecialTokens } = options;
    return given.named(async () => {
      const [batch, generating] = await this.#encoded(prompt, options, call);
      const generation = await this.model.generate(batch, { ...generating, ...call });
      const { timeoutMs: _, ...untimed } = call;
      const text = await this.tokenizer.decode(generation.sequences[0]!, { skipSpecialTokens, ...untimed });
      return new Completion(text, batch.tokenIds[0]!, generation);
    });
  }

  async *#pieces(
    prompt: Prompt,
    options: CompletionOptions,
    { requestId = newRequestId(), ...others }: CallOptions,
    finish: (completion: Completion) => void,
  ): AsyncGenerator<string> {
    const call = { ...others, requestId };
    const { skipSpecialTokens } = options;
    const given = new Argument("prompt");
    const [batch, generating] = await given.named(() => this.#encoded(prompt, options, call));
    const tokens = this.model.stream(batch, { ...generating, ...call });
    const decoder = this.tokenizer.openDecoder({ skipSpecialTokens, ...call });
    const pieces: string[] = [];
    try {
      for await (const { tokenIds } of tokens) {
        const text = await decoder.feed(tokenIds);
        pieces.push(text);
        if (text) yield text;
      }
      tokens.result.throwErrors();
      const text = await decoder.end();
      pieces.push(text);
      if (text) yield text;
    } catch (error) {
      throw given.renamed(error);
    } finally {
      decoder.close();
    }
    finish(new Completion(pieces.join(""), batch.tokenIds[0]!, tokens.result));
  }

  /**
   * Encodes a prompt, and returns the keywords that go to the model, ids in place of text. The limit
   * of the call is that of the generation alone.
   */
  async #encoded(
    prompt: Prompt,
    { addSpecialTokens, parseSpecialTokens, skipSpecialTokens: _, ...generating }: CompletionOptions,
    { timeoutMs: __, ...untimed }: CallOptions,
  ): Promise<[Batch, GenerationOptions]> {
    const encoding = { addSpecialTokens, parseSpecialTokens, ...untimed };
    if (typeof generating.negativePrompt === "string") {
      // Before the prompt: the newer vocabulary has every id of an older one.
      const text = generating.negativePrompt;
      const given = new Argument("negativePrompt");
      const negative = await given.named(() => this.tokenizer.encode(text, encoding));
      generating.negativePrompt = negative.tokenIds[0];
    }
    if (Array.isArray(prompt) && prompt.some((each) => typeof each === "string")) {
      throw new TypeError("A text or messages are expected here, not a list of texts; generate takes one.");
    }
    const batch =
      typeof prompt === "string"
        ? await this.tokenizer.encode(prompt, encoding)
        : await this.tokenizer.applyChatTemplate(prompt, { parseSpecialTokens, ...untimed });
    return [batch, generating];
  }
}

/** Says whether texts or conversations are a list of them. */
function areSeveral(prompts: Prompt | readonly Prompt[]): prompts is readonly Prompt[] {
  return Array.isArray(prompts) && prompts.every((each) => typeof each === "string" || Array.isArray(each));
}

/** As `split`, of a call from text to text. */
function splitCompletion(options: CompletionOptions & CallOptions): [CallOptions, CompletionOptions] {
  const [call, keywords] = split(options, CompletionOptions);
  if ((keywords.numReturnSequences ?? 1) !== 1) {
    throw new TypeError("One text is returned; model.generate returns several sequences.");
  }
  return [call, keywords];
}
