// The identity of one state of a vocabulary.

import { message, type Message } from "../protos.js";
import type { VocabularyRef__Output } from "../schema/lockstep/v1/VocabularyRef.js";

/** Names one state of one vocabulary. It travels with ids from service to service. */
export interface VocabularyRef {
  /** Name of the tokenizer. */
  readonly tokenizerId: string;
  /** Number of the state; every change adds one. */
  readonly revision: number;
  /** SHA-256 of the chain of changes, hexadecimal. */
  readonly fingerprint: string;
  /** Number of ids. */
  readonly size: number;
}

/** Reads the wire form. Every answer has a reference. */
export function readVocabularyRef(message: VocabularyRef__Output | null | undefined): VocabularyRef {
  const { tokenizerId = "", revision = "0", fingerprint = "", size = 0 } = message ?? {};
  return { tokenizerId, revision: Number(revision), fingerprint, size };
}

/**
 * The newest vocabulary that the services have told a client of. It goes with ids that say nothing
 * of their vocabulary, so that a new id can be used at once. Both connections share it.
 */
export class NewestVocabulary {
  #seen: VocabularyRef | undefined;

  /** Takes what an answer says, unless it is of a change that was not made. */
  note(request: object, response: object): void {
    const { vocabulary } = response as { vocabulary?: VocabularyRef__Output | null };
    if (!vocabulary || ("dryRun" in request && request.dryRun)) return;
    const given = readVocabularyRef(vocabulary);
    const seen = this.#seen;
    if (given.tokenizerId !== seen?.tokenizerId || given.revision > seen.revision) this.#seen = given;
  }

  /** Lets a request of a type without a vocabulary of its own ask for this one, or a newer one. */
  fill<Request extends object>(request: Request, type: Message): Request {
    const given = request as Readonly<Record<string, unknown>>;
    for (const name of ["request", "generateRequest"]) {
      // Wrapped in another request.
      if (given[name]) return { ...request, [name]: this.fill(given[name], message("GenerateRequest")) };
    }
    const names = type.field.some((field) => field.typeName === "VocabularyRef");
    if (this.#seen === undefined || !names || given["vocabulary"]) return request;
    return { ...request, vocabulary: { ...this.#seen, orNewer: true } };
  }
}
