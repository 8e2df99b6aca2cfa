// Results of changes to the vocabulary.

import type { Timestamp__Output } from "../schema/google/protobuf/Timestamp.js";
import type { AddedToken__Output } from "../schema/lockstep/v1/AddedToken.js";
import type { AddedTokenResult__Output } from "../schema/lockstep/v1/AddedTokenResult.js";
import type { AddTokensResponse__Output } from "../schema/lockstep/v1/AddTokensResponse.js";
import type { ImportRevisionsResponse__Output } from "../schema/lockstep/v1/ImportRevisionsResponse.js";
import type { MarkedToken__Output } from "../schema/lockstep/v1/MarkedToken.js";
import type { NewToken__Output } from "../schema/lockstep/v1/NewToken.js";
import type { SpecialToken__Output } from "../schema/lockstep/v1/SpecialToken.js";
import type { TextEffect__Output } from "../schema/lockstep/v1/TextEffect.js";
import type { TextTokens__Output } from "../schema/lockstep/v1/TextTokens.js";
import type { VerifyRevisionsResponse__Output } from "../schema/lockstep/v1/VerifyRevisionsResponse.js";
import type { VocabularyRef__Output } from "../schema/lockstep/v1/VocabularyRef.js";
import { readVocabularyRef, type VocabularyRef } from "../values/vocabularyRef.js";
import { readRoles, readVocabularyEntry, type Roles, type VocabularyEntry } from "./tokenizer.js";

/** The result for one token of an `addTokens` call. */
export interface AddedToken extends Omit<AddedTokenResult__Output, "changedEntries"> {
  changedEntries: VocabularyEntry[];
}

/** The tokens of a text. */
export type TextTokens = TextTokens__Output;

/** How adding tokens changes the encoding of a text. */
export type TextEffect = TextEffect__Output;

/** The result of an `addTokens` call. */
export class AddedTokens {
  constructor(
    /** One per token, in the order of the call. */
    readonly tokens: AddedToken[],
    /** The vocabulary after the change (that would be, for a dry run). */
    readonly vocabulary: VocabularyRef,
    /** The effect on each text of the call; of a dry run only. */
    readonly textEffects: TextEffect[],
  ) {}

  /** Reads the wire form. */
  static read({ results, vocabulary, textEffects }: AddTokensResponse__Output): AddedTokens {
    const added = results.map(({ changedEntries, ...others }) => ({
      ...others,
      changedEntries: changedEntries.map(readVocabularyEntry),
    }));
    return new AddedTokens(added, readVocabularyRef(vocabulary), textEffects);
  }

  /** Id of each token. */
  get ids(): number[] {
    return this.tokens.map(({ id }) => id);
  }
}

/** One revision: the vocabulary after it, and what it changed. */
export interface Revision {
  vocabulary: VocabularyRef;
  /** Fingerprint of the state before it; empty for revision 0. */
  parentFingerprint: string;
  /** Tokens that it added: id, text and flags. */
  tokens: ({ id: number; generable: boolean } & AddedToken__Output)[];
  /** Roles that it assigned. */
  specialTokens: Roles;
  /** Entries that it made special: id, text and the flags that they have from now on. */
  markedTokens: ({ id: number } & AddedToken__Output)[];
  /** When it was made durable; undefined for revision 0. */
  createTime: Date | undefined;
}

/** Whether the chain of revisions is intact. */
export interface Verification {
  valid: boolean;
  /** Number of revisions checked. */
  revisionCount: number;
  /** The first revision that is wrong; undefined when none is. */
  firstInvalidRevision: number | undefined;
  vocabulary: VocabularyRef;
}

/** The result of an `importRevisions` call. */
export interface ImportedRevisions {
  vocabulary: VocabularyRef;
  /** Number of revisions in the archive, revision 0 not counted. */
  numRevisions: number;
  /** How many of them were new. */
  numImportedRevisions: number;
  /** How many replies to idempotency keys were new. */
  numImportedReplies: number;
}

/** Reads a revision, of a list or as it is made. */
export function readRevision(message: {
  vocabulary: VocabularyRef__Output | null;
  parentFingerprint: string;
  tokens: NewToken__Output[];
  specialTokens: SpecialToken__Output[];
  markedTokens: MarkedToken__Output[];
  createTime: Timestamp__Output | null;
}): Revision {
  return {
    vocabulary: readVocabularyRef(message.vocabulary),
    parentFingerprint: message.parentFingerprint,
    tokens: message.tokens.map(({ id, generable, token }) => ({ ...token!, id, generable })),
    specialTokens: readRoles(message.specialTokens),
    markedTokens: message.markedTokens.map(({ id, token }) => ({ ...token!, id })),
    createTime: readTime(message.createTime),
  };
}

/** Reads the wire form. */
export function readVerification(message: VerifyRevisionsResponse__Output): Verification {
  const { valid, revisionCount, firstInvalidRevision: wrong, vocabulary } = message;
  return {
    valid,
    revisionCount: Number(revisionCount),
    firstInvalidRevision: wrong === undefined ? undefined : Number(wrong),
    vocabulary: readVocabularyRef(vocabulary),
  };
}

/** Reads the wire form. */
export function readImport(message: ImportRevisionsResponse__Output): ImportedRevisions {
  return {
    vocabulary: readVocabularyRef(message.vocabulary),
    numRevisions: Number(message.numRevisions),
    numImportedRevisions: Number(message.numImportedRevisions),
    numImportedReplies: Number(message.numImportedReplies),
  };
}

function readTime(time: Timestamp__Output | null): Date | undefined {
  return time ? new Date(Number(time.seconds) * 1000 + time.nanos / 1e6) : undefined;
}
