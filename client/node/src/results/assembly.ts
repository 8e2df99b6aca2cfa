// Turns the events of a generation stream into deltas, and deltas into a result.

import { ProtocolError } from "../errors.js";
import { generationOptions } from "../requests/generationConfig.js";
import type { DataType, DataType__Output } from "../schema/lockstep/v1/DataType.js";
import type { GeneratedSequence__Output } from "../schema/lockstep/v1/GeneratedSequence.js";
import type { GenerateRequest } from "../schema/lockstep/v1/GenerateRequest.js";
import type { GenerateStreamResponse__Output } from "../schema/lockstep/v1/GenerateStreamResponse.js";
import type { GenerationCompleted__Output } from "../schema/lockstep/v1/GenerationCompleted.js";
import type { GenerationStarted__Output } from "../schema/lockstep/v1/GenerationStarted.js";
import type { ScoreSelection } from "../schema/lockstep/v1/ScoreSelection.js";
import type { TokenDelta__Output } from "../schema/lockstep/v1/TokenDelta.js";
import { fromItem } from "../transport/status.js";
import { promptRows } from "../values/promptRows.js";
import { readVocabularyRef } from "../values/vocabularyRef.js";
import { readDeterminism } from "./determinism.js";
import { Generation, readFinishReason, readTiming, type GeneratedSequence, type TokenDelta } from "./generation.js";
import { AnnouncedRows, readPositions } from "./scores.js";

/**
 * Yields the deltas of a stream in their order. A message announces rows by `tensorId`, and their
 * bytes follow in chunks: a delta is held back until it has all of them.
 */
class DeltaReader {
  readonly #rows = new AnnouncedRows();
  readonly #waiting: TokenDelta__Output[] = [];
  readonly #dtype: DataType__Output;
  readonly #promptDtype: DataType__Output;

  constructor({ scores, promptScores }: GenerateRequest) {
    this.#dtype = rowType(scores);
    this.#promptDtype = rowType(promptScores);
  }

  /** Takes one event and yields the deltas that it completes. */
  *read({ chunk, deltas }: GenerateStreamResponse__Output): Generator<TokenDelta> {
    if (chunk) this.#rows.add(chunk);
    else if (deltas) this.#waiting.push(...deltas.deltas);
    for (let next = this.#waiting[0]; next && this.#complete(next); next = this.#waiting[0]) {
      this.#waiting.shift();
      yield {
        ...next,
        scores: readPositions(next.scores, (row) => this.#rows.take(row, this.#dtype)),
        promptScores: readPositions(next.promptScores, (row) => this.#rows.take(row, this.#promptDtype)),
      };
    }
  }

  #complete({ scores, promptScores }: TokenDelta__Output): boolean {
    return this.#rows.complete(scores) && this.#rows.complete(promptScores);
  }
}

/** Takes the events of one stream; gives its deltas, and in the end its result. */
export class GenerationAssembler {
  readonly #reader: DeltaReader;
  readonly #deltas = new Map<string, TokenDelta[]>();
  readonly #finished: GeneratedSequence__Output[] = [];
  #started: GenerationStarted__Output | undefined;
  #completed: GenerationCompleted__Output | undefined;

  /**
   * @param request of the stream
   * @param keepScores whether the result holds what was asked for about each position, or the
   *   reader of the deltas does
   * @param errors whether the error of a sequence is thrown, or is in the result
   */
  constructor(
    private readonly request: GenerateRequest,
    private readonly keepScores: boolean,
    private readonly errors: "raise" | "return" = "raise",
  ) {
    if (!["raise", "return"].includes(errors)) {
      throw new TypeError(`errors is one of 'raise', 'return', not '${String(errors)}'.`);
    }
    this.#reader = new DeltaReader(request);
  }

  /** Takes an event and returns the deltas that it completes. */
  feed(event: GenerateStreamResponse__Output): TokenDelta[] {
    this.#started ??= event.started ?? undefined;
    this.#completed ??= event.completed ?? undefined;
    if (event.finished?.sequence) this.#finished.push(event.finished.sequence);
    const deltas = [...this.#reader.read(event)];
    for (const delta of deltas) {
      const kept = this.keepScores ? delta : { ...delta, scores: [], promptScores: [] };
      this.#deltas.set(key(delta), [...(this.#deltas.get(key(delta)) ?? []), kept]);
    }
    return deltas;
  }

  /** Returns the result, once every event was taken. Throws the error of a sequence, unless kept. */
  result(): Generation {
    const generation = this.generation();
    return this.errors === "return" ? generation : generation.throwErrors();
  }

  /** The session that a complete generation has left behind; empty if there is none. */
  get sessionId(): string {
    return this.#completed?.sessionId ?? "";
  }

  /** Returns the result, with the errors of sequences in it. */
  generation(): Generation {
    const [started, completed] = [this.#started, this.#completed];
    if (started === undefined || completed === undefined) {
      throw new ProtocolError("The stream ended, or was left, before the generation was complete.");
    }
    const order = (a: GeneratedSequence__Output, b: GeneratedSequence__Output) =>
      a.promptIndex - b.promptIndex || a.sequenceIndex - b.sequenceIndex;
    return new Generation([...this.#finished].sort(order).map((each) => this.#sequence(each)), {
      effectiveConfig: generationOptions(started.effectiveConfig),
      appliedProcessors: started.appliedProcessors,
      vocabulary: readVocabularyRef(started.vocabulary),
      usage: completed.usage ?? NO_USAGE,
      timing: readTiming(completed.timing),
      determinism: readDeterminism(started.determinism),
      sessionId: completed.sessionId,
      prompts: [...promptRows(this.request.prompt)],
    });
  }

  #sequence(message: GeneratedSequence__Output): GeneratedSequence {
    const deltas = this.#deltas.get(key(message)) ?? [];
    const { promptIndex, sequenceIndex, stopString, sequenceScore, beamIndices } = message;
    return {
      promptIndex,
      sequenceIndex,
      tokenIds: deltas.flatMap((delta) => delta.tokenIds),
      finishReason: readFinishReason(message.finishReason),
      seed: BigInt(message.seed),
      scores: deltas.flatMap((delta) => delta.scores),
      promptScores: deltas.flatMap((delta) => delta.promptScores),
      stopString,
      sequenceScore,
      beamIndices,
      error: message.error ? fromItem(message.error) : undefined,
    };
  }
}

const NO_USAGE = { promptTokenCount: 0, cachedPromptTokenCount: 0, completionTokenCount: 0, stepCount: 0 };

function key({ promptIndex, sequenceIndex }: { promptIndex: number; sequenceIndex: number }): string {
  return `${promptIndex}/${sequenceIndex}`;
}

function rowType(selection: ScoreSelection | null | undefined): DataType__Output {
  const dtype: DataType | undefined = selection?.dtype;
  return typeof dtype === "string" ? dtype : "DATA_TYPE_FLOAT32";
}
