// Both services as one: text in, text out.

import { setTimeout as sleep } from "node:timers/promises";

import { LockstepError, ProtocolError } from "./errors.js";
import { Model } from "./model.js";
import { CompletionOptions } from "./options.js";
import { checkNames, split } from "./requests/names.js";
import type { ChatMessages } from "./requests/tokenizer.js";
import { Completion } from "./results/generation.js";
import { Stream } from "./stream.js";
import { Tokenizer } from "./tokenizer.js";
import { Connection } from "./transport/connection.js";
import { Endpoint, newRequestId, type CallOptions, type ConnectionOptions } from "./transport/endpoint.js";
import { mayPass } from "./transport/retries.js";
import type { Batch } from "./values/batch.js";
import { NewestVocabulary } from "./values/vocabularyRef.js";
import { Vocabulary } from "./vocabulary.js";

const READY_PAUSE_MS = 200;
const OPTIONS = [
  "tokenizer", "model", "tls", "timeoutMs", "streamTimeoutMs", "retries", "token", "tokenInPlainText",
  "follow",
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

  /** Continues a text, or answers the messages of a conversation. */
  async generate(prompt: Prompt, options: CompletionOptions & CallOptions = {}): Promise<Completion> {
    const stream = this.stream(prompt, options);
    for await (const _ of stream);
    return stream.result;
  }

  /**
   * As `generate`, yielding the text piece by piece, never half a character; `.result` has in the
   * end what `generate` returns.
   */
  stream(prompt: Prompt, options: CompletionOptions & CallOptions = {}): Stream<string, Completion> {
    const [call, keywords] = split(options, CompletionOptions);
    if ((keywords.numReturnSequences ?? 1) !== 1) {
      throw new TypeError("One text is returned; model.generate returns several sequences.");
    }
    let completion: Completion | undefined;
    const finish = (whole: Completion) => (completion = whole);
    const result = () => {
      if (completion === undefined) throw new ProtocolError("The stream was not read to its end.");
      return completion;
    };
    return new Stream((stoppable) => this.#pieces(prompt, keywords, stoppable, finish), result, call);
  }

  /** Waits until both services answer, at most `timeoutMs`; throws why the last attempt failed. */
  async waitUntilReady(timeoutMs = 60_000): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    for (const { endpoint } of this.#connections) {
      const connection = new Connection(endpoint.withoutRetries());
      const described =
        endpoint.service === "model" ? new Model(connection) : new Tokenizer(connection);
      try {
        await answer(described, deadline);
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

  async *#pieces(
    prompt: Prompt,
    options: CompletionOptions,
    { requestId = newRequestId(), ...others }: CallOptions,
    finish: (completion: Completion) => void,
  ): AsyncGenerator<string> {
    const { addSpecialTokens, parseSpecialTokens, skipSpecialTokens, ...generating } = options;
    const call = { ...others, requestId };
    const { signal, traceparent } = call;
    const encoding = { addSpecialTokens, parseSpecialTokens, signal, requestId, traceparent };
    if (typeof generating.negativePrompt === "string") {
      // Before the prompt: the newer vocabulary has every id of an older one.
      const negative = await this.tokenizer.encode(generating.negativePrompt, encoding);
      generating.negativePrompt = negative.tokenIds[0];
    }
    const batch = await this.#encode(prompt, encoding);
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
    } finally {
      decoder.close();
    }
    finish(new Completion(pieces.join(""), batch.tokenIds[0]!, tokens.result));
  }

  async #encode(
    prompt: Prompt,
    { addSpecialTokens, ...options }: Pick<CompletionOptions, "addSpecialTokens" | "parseSpecialTokens"> & CallOptions,
  ): Promise<Batch> {
    if (typeof prompt === "string") return this.tokenizer.encode(prompt, { addSpecialTokens, ...options });
    return this.tokenizer.applyChatTemplate(prompt, options);
  }
}

/** Asks a service until it answers or time is up. */
async function answer(service: Model | Tokenizer, deadline: number): Promise<void> {
  for (let reason: unknown; ; ) {
    try {
      await service.info({ timeoutMs: Math.max(deadline - Date.now(), 1) });
      return;
    } catch (error) {
      const pauseMs = (error instanceof LockstepError && error.retryDelayMs) || READY_PAUSE_MS;
      if (!(error instanceof LockstepError && mayPass(error)) || Date.now() + pauseMs > deadline) {
        throw reason ?? error;
      }
      reason = error;
      await sleep(pauseMs);
    }
  }
}
