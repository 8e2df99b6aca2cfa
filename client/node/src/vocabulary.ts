// Changes of the vocabulary.

import { AddOptions, ChangeOptions } from "./options.js";
import { TOKENIZER, VOCABULARY } from "./protos.js";
import { build } from "./requests/message.js";
import { split } from "./requests/names.js";
import * as requests from "./requests/vocabulary.js";
import type { NewToken, Role } from "./requests/vocabulary.js";
import {
  AddedTokens,
  readImport,
  readRevision,
  readVerification,
  type ImportedRevisions,
  type Revision,
  type Verification,
} from "./results/vocabulary.js";
import type { Connection } from "./transport/connection.js";
import type { CallOptions } from "./transport/endpoint.js";
import { readVocabularyRef, type VocabularyRef } from "./values/vocabularyRef.js";

/** Changes the vocabulary while both services run. */
export class Vocabulary {
  constructor(private readonly connection: Connection) {}

  /** Adds tokens (texts, or `NewToken`s with flags or vectors) as one new, durable revision. */
  async addTokens(
    tokens: readonly (string | NewToken)[],
    options: AddOptions & CallOptions = {},
  ): Promise<AddedTokens> {
    const [call, keywords] = split(options, AddOptions);
    const request = requests.addTokens(tokens, keywords);
    return AddedTokens.read(await this.connection.unary(VOCABULARY.AddTokens, request, call));
  }

  /** Gives roles to existing ids, for example `{ pad: 2 }`, as one new revision. */
  async setSpecialTokens(
    roles: Readonly<Partial<Record<Role, number>>>,
    options: ChangeOptions & CallOptions = {},
  ): Promise<VocabularyRef> {
    const [call, keywords] = split(options, ChangeOptions);
    const request = requests.setSpecialTokens(roles, keywords);
    const response = await this.connection.unary(VOCABULARY.SetSpecialTokens, request, call);
    return readVocabularyRef(response.vocabulary);
  }

  /** Yields the revisions, oldest first; `timeoutMs` applies to each page. */
  async *revisions(options: CallOptions = {}): AsyncGenerator<Revision> {
    const [call] = split(options, []);
    let pageToken = "";
    do {
      const page = await this.connection.unary(VOCABULARY.ListRevisions, { pageToken }, call);
      yield* page.revisions.map(readRevision);
      pageToken = page.nextPageToken;
    } while (pageToken);
  }

  /**
   * Yields the revisions after `afterRevision` (0 unless given), and then every new one as it is
   * made. Without a limit of time unless given; to go on after a failure, begin after the last.
   */
  async *watch(
    options: { afterRevision?: number; heartbeatS?: number } & CallOptions = {},
  ): AsyncGenerator<Revision> {
    const [call, { afterRevision, heartbeatS: heartbeatInterval }] = split(options, [
      "afterRevision",
      "heartbeatS",
    ]);
    const request = build<object>("WatchVocabularyRequest", { afterRevision, heartbeatInterval });
    const { timeoutMs = null } = call;
    const events = this.connection.stream(TOKENIZER.WatchVocabulary, request, { ...call, timeoutMs });
    for await (const { change } of events) if (change) yield readRevision(change);
  }

  /** Recomputes the chain of revisions from the store and compares every fingerprint. */
  async verify(options: CallOptions = {}): Promise<Verification> {
    const [call] = split(options, []);
    return readVerification(await this.connection.unary(VOCABULARY.VerifyRevisions, {}, call));
  }

  /** Yields an archive of the whole log piece by piece: a backup, vectors included. */
  async *exportRevisions(options: CallOptions = {}): AsyncGenerator<Buffer> {
    const [call] = split(options, []);
    for await (const { data } of this.connection.stream(VOCABULARY.ExportRevisions, {}, call)) {
      yield data;
    }
  }

  /**
   * Makes those revisions of an archive durable that continue the present ones. Repeating it
   * changes nothing, so a call that failed can be made again, and is, unless the pieces can be
   * read only once.
   */
  async importRevisions(
    archive: Uint8Array | Iterable<Uint8Array>,
    options: CallOptions = {},
  ): Promise<ImportedRevisions> {
    const [call] = split(options, []);
    const pieces = () => requests.importRevisions(archive);
    const repeatable = !("next" in archive);
    return readImport(await this.connection.upload(VOCABULARY.ImportRevisions, pieces, repeatable, call));
  }
}
