// Both services as one client.

import type { CallOptions, ClientUnaryCall, ServiceError } from "@grpc/grpc-js";
import { credentials } from "@grpc/grpc-js";

import { LockstepError, translate } from "./errors.js";
import { ModelService, TokenizerService } from "./protos.js";
import type { DecodeOptions } from "./schema/lockstep/v1/DecodeOptions.js";
import type { DecodeResponse__Output } from "./schema/lockstep/v1/DecodeResponse.js";
import type { EncodeOptions } from "./schema/lockstep/v1/EncodeOptions.js";
import type { EncodeResponse__Output } from "./schema/lockstep/v1/EncodeResponse.js";
import type { FinishReason__Output } from "./schema/lockstep/v1/FinishReason.js";
import type { GenerateRequest } from "./schema/lockstep/v1/GenerateRequest.js";
import type { GenerateResponse__Output } from "./schema/lockstep/v1/GenerateResponse.js";
import type { GenerationConfig } from "./schema/lockstep/v1/GenerationConfig.js";
import type { PromptBatch } from "./schema/lockstep/v1/PromptBatch.js";
import type { VocabularyRef, VocabularyRef__Output } from "./schema/lockstep/v1/VocabularyRef.js";
import { checkWholeNumber, checkWholeNumbers } from "./wholeNumbers.js";

/** Where the services are. */
export interface LockstepOptions {
  /** Address of the tokenizer service. Default: `localhost:50051`. */
  tokenizer?: string;
  /** Address of the model service. Default: `localhost:50052`. */
  model?: string;
  /** PEM certificates of the authorities to trust. Unset sends plain text. */
  tlsCa?: Buffer;
  /** Limit of calls with one answer, in milliseconds. Default: 60 000. */
  timeoutMs?: number;
  /** Limit of calls that generate, in milliseconds. Default: 600 000. */
  streamTimeoutMs?: number;
}

// As in the Python client: a dead connection is found under a silent stream.
const CHANNEL_OPTIONS = {
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
};

/** Ids of texts, and the vocabulary that they belong to. */
export interface Batch {
  tokenIds: number[][];
  vocabulary: VocabularyRef__Output | null;
}

/** One new token of a stream. */
export interface Token {
  promptIndex: number;
  sequenceIndex: number;
  id: number;
}

/** The end of one sequence of a stream. */
export interface Finish {
  promptIndex: number;
  sequenceIndex: number;
  finishReason: FinishReason__Output;
  /** Reproduces the sequence, as decimal digits: it may exceed 2^53. */
  seed: string;
}

type Prompts = Batch | number[][];

/** A client of both services. Calls fail with `LockstepError`. */
export class Lockstep {
  readonly #tokenizer;
  readonly #model;
  readonly #timeoutMs: number;
  readonly #streamTimeoutMs: number;
  #closed = false;

  constructor(options: LockstepOptions = {}) {
    const channel = options.tlsCa
      ? credentials.createSsl(options.tlsCa)
      : credentials.createInsecure();
    const { tokenizer = "localhost:50051", model = "localhost:50052" } = options;
    this.#tokenizer = new TokenizerService(tokenizer, channel, CHANNEL_OPTIONS);
    this.#model = new ModelService(model, channel, CHANNEL_OPTIONS);
    this.#timeoutMs = options.timeoutMs ?? 60_000;
    this.#streamTimeoutMs = options.streamTimeoutMs ?? 600_000;
  }

  /** Encodes texts to ids, one row each. */
  async encode(texts: string[], options: EncodeOptions = {}): Promise<Batch> {
    const request = { items: texts.map((text) => ({ text })), options };
    const response = await this.#call<EncodeResponse__Output>((callOptions, done) =>
      this.#tokenizer.encode(request, callOptions, done),
    );
    const rows = response.tokenBatch?.sequences ?? [];
    return { tokenIds: rows.map((row) => row.ids), vocabulary: response.vocabulary };
  }

  /** Decodes rows of ids to texts. */
  async decode(prompts: Prompts, options: DecodeOptions = {}): Promise<string[]> {
    const { prompt, vocabulary } = wire(prompts);
    const response = await this.#call<DecodeResponse__Output>((callOptions, done) =>
      this.#tokenizer.decode({ batch: prompt, vocabulary, options }, callOptions, done),
    );
    return response.texts.map((row) => row.text);
  }

  /** Generates sequences and returns them when all have ended. */
  async generate(
    prompts: Prompts,
    generationConfig: GenerationConfig = {},
  ): Promise<GenerateResponse__Output> {
    const request = generateRequest(prompts, generationConfig);
    return this.#call(
      (callOptions, done) => this.#model.generate(request, callOptions, done),
      this.#streamTimeoutMs,
    );
  }

  /**
   * Generates sequences and yields tokens as they are chosen, and the end of
   * each sequence. Leaving the loop cancels the call.
   */
  async *generateStream(
    prompts: Prompts,
    generationConfig: GenerationConfig = {},
  ): AsyncGenerator<Token | Finish> {
    this.#checkOpen();
    const call = this.#model.generateStream(
      { request: generateRequest(prompts, generationConfig) },
      { deadline: Date.now() + this.#streamTimeoutMs },
    );
    let completed = false;
    // grpc-js reports the cancellation of a call that is no longer read.
    call.on("error", () => undefined);
    try {
      for await (const event of call) {
        switch (event.event) {
          case "deltas":
            for (const { promptIndex, sequenceIndex, tokenIds } of event.deltas?.deltas ?? []) {
              for (const id of tokenIds) yield { promptIndex, sequenceIndex, id };
            }
            break;
          case "finished":
            if (event.finished?.sequence) {
              const { promptIndex, sequenceIndex, finishReason, seed } = event.finished.sequence;
              yield { promptIndex, sequenceIndex, finishReason, seed };
            }
            break;
          case "completed":
            completed = true;
        }
      }
    } catch (error) {
      throw translate(error);
    } finally {
      call.cancel();
    }
    if (!completed) {
      throw new LockstepError("The stream ended too early.", "UNKNOWN", "", {}, undefined);
    }
  }

  /** Closes both connections. */
  close(): void {
    this.#closed = true;
    this.#tokenizer.close();
    this.#model.close();
  }

  #call<Response>(
    begin: (
      options: CallOptions,
      done: (error: ServiceError | null, response?: Response) => void,
    ) => ClientUnaryCall,
    timeoutMs = this.#timeoutMs,
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      this.#checkOpen();
      begin({ deadline: Date.now() + timeoutMs }, (error, response) => {
        if (error !== null || response === undefined) reject(translate(error));
        else resolve(response);
      });
    });
  }

  #checkOpen(): void {
    if (this.#closed) {
      throw new LockstepError("The client was closed.", "CANCELLED", "", {}, undefined);
    }
  }
}

function generateRequest(prompts: Prompts, generationConfig: GenerationConfig): GenerateRequest {
  checkWholeNumbers(generationConfig, "GenerationConfig", "generationConfig");
  return { ...wire(prompts), generationConfig };
}

function wire(prompts: Prompts): { prompt: PromptBatch; vocabulary: VocabularyRef | null } {
  const { tokenIds, vocabulary } = Array.isArray(prompts)
    ? { tokenIds: prompts, vocabulary: null }
    : prompts;
  for (const id of tokenIds.flat()) checkWholeNumber(id, "A prompt");
  return { prompt: { tokenBatch: { sequences: tokenIds.map((ids) => ({ ids })) } }, vocabulary };
}
