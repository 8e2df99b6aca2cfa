// Results of the tokenizer service, except batches.

import { createHash } from "node:crypto";

import { ProtocolError } from "../errors.js";
import type { Role } from "../requests/vocabulary.js";
import type { DecodedText__Output } from "../schema/lockstep/v1/DecodedText.js";
import type { GetTokenizerArtifactResponse__Output } from "../schema/lockstep/v1/GetTokenizerArtifactResponse.js";
import type { GetTokenizerInfoResponse__Output } from "../schema/lockstep/v1/GetTokenizerInfoResponse.js";
import type { SpecialToken__Output } from "../schema/lockstep/v1/SpecialToken.js";
import type { TokenType__Output } from "../schema/lockstep/v1/TokenType.js";
import type { VocabularyEntry__Output } from "../schema/lockstep/v1/VocabularyEntry.js";
import { short, type Short } from "../values/enums.js";
import { piece } from "../values/piece.js";
import { readVocabularyRef, type VocabularyRef } from "../values/vocabularyRef.js";

/** One decoded row: its text, and what else was asked for. */
export type DecodedText = DecodedText__Output;

/** One entry of the vocabulary. */
export interface VocabularyEntry extends Omit<VocabularyEntry__Output, "type"> {
  type: Short<TokenType__Output, "TOKEN_TYPE"> | undefined;
  /** What it stands for, with every character visible: `␣the`, `⏎`, `\\xf0`. */
  visible: string;
}

/** Ids and entries that were looked up. */
export interface ConvertedTokens {
  /** Id of each spelling; undefined for a spelling that does not exist. */
  ids: (number | undefined)[];
  /** Entry of each id. */
  entries: VocabularyEntry[];
}

/** The id of each role that a token has, for example `{ eos: 2 }`. */
export type Roles = Partial<Record<Role, number>>;

/** Description of a tokenizer. */
export interface TokenizerInfo
  extends Omit<GetTokenizerInfoResponse__Output, "vocabulary" | "specialTokens" | "chatTemplates" | "limits"> {
  /** The newest revision of the replica that answered. */
  vocabulary: VocabularyRef;
  specialTokens: Roles;
  /** SHA-256 of each chat template, by name. */
  chatTemplates: Record<string, string>;
  /** Most texts of one call. */
  maxItems: number;
  /** Most bytes of one text. */
  maxTextBytes: number;
  /** Most bytes of one request. */
  maxMessageBytes: number;
}

/** Reads the wire form. */
export function readVocabularyEntry({ type, ...others }: VocabularyEntry__Output): VocabularyEntry {
  return { ...others, type: short(type, "TOKEN_TYPE"), visible: piece(others.tokenBytes) };
}

/** Reads which id has which role. */
export function readRoles(specialTokens: readonly SpecialToken__Output[]): Roles {
  return Object.fromEntries(
    specialTokens.map(({ role, tokenId }) => [short(role, "SPECIAL_TOKEN_ROLE"), tokenId]),
  ) as Roles;
}

/** Reads the answer of `GetTokenizerInfo`. */
export function readTokenizerInfo(message: GetTokenizerInfoResponse__Output): TokenizerInfo {
  const { vocabulary, specialTokens, chatTemplates, limits, ...others } = message;
  const { maxItems = 1, maxTextBytes = 0, maxMessageBytes = 0 } = limits ?? {};
  return {
    ...others,
    vocabulary: readVocabularyRef(vocabulary),
    specialTokens: readRoles(specialTokens),
    chatTemplates: Object.fromEntries(chatTemplates.map(({ name, fingerprint }) => [name, fingerprint])),
    maxItems,
    maxTextBytes,
    maxMessageBytes,
  };
}

/** Puts the pieces of the tokenizer's files together, checked against their checksum. */
export function joinArtifact(pieces: readonly GetTokenizerArtifactResponse__Output[]): Buffer {
  const archive = Buffer.concat(pieces.map((piece) => piece.data));
  if (createHash("sha256").update(archive).digest("hex") !== pieces.at(-1)?.sha256) {
    throw new ProtocolError("The tokenizer's files arrived damaged or incomplete.");
  }
  return archive;
}
