// Requests to `VocabularyAdminService`, built from keywords.

import { randomUUID } from "node:crypto";

import type { AddOptions, ChangeOptions } from "../options.js";
import type { AddTokensRequest } from "../schema/lockstep/v1/AddTokensRequest.js";
import type { ImportRevisionsRequest } from "../schema/lockstep/v1/ImportRevisionsRequest.js";
import type { RowInitialization__Output } from "../schema/lockstep/v1/RowInitialization.js";
import type { SetSpecialTokensRequest } from "../schema/lockstep/v1/SetSpecialTokensRequest.js";
import type { SpecialTokenRole__Output } from "../schema/lockstep/v1/SpecialTokenRole.js";
import type { Short } from "../values/enums.js";
import { build } from "./message.js";

const PIECE_BYTES = 2 ** 20;

/** A role that a special token can have. */
export type Role = Short<SpecialTokenRole__Output, "SPECIAL_TOKEN_ROLE">;

/** A token to add, where its text alone does not say enough. */
export interface NewToken {
  /** The text. */
  content: string;
  /** Whether it is a control token. */
  special?: boolean | undefined;
  /** Whether it matches whole words only. */
  singleWord?: boolean | undefined;
  /** Whether a match swallows white space to its left. */
  lstrip?: boolean | undefined;
  /** Whether a match swallows white space to its right. */
  rstrip?: boolean | undefined;
  /** Whether text is normalized before matching. Unset means the opposite of `special`. */
  normalized?: boolean | undefined;
  /** A role for it. */
  role?: Role | undefined;
  /** Further roles for it. */
  moreRoles?: readonly Role[] | undefined;
  /**
   * How its embedding rows get their values. Unset means `values` where `inputValues` are given,
   * else `mean_of_pieces`.
   */
  initialization?: Short<RowInitialization__Output, "ROW_INITIALIZATION"> | undefined;
  /** The id to copy, for `copy`. */
  copyTokenId?: number | undefined;
  /** Values of the input embedding, one per element of a row, for `values`. */
  inputValues?: ArrayLike<number> | undefined;
  /** Values of the output row. Unset means the input values. */
  outputValues?: ArrayLike<number> | undefined;
  /** Whether the model may generate it. Unset means only with values. */
  generable?: boolean | undefined;
}

/** Builds an `AddTokens` request. */
export function addTokens(
  tokens: readonly (string | NewToken)[],
  options: AddOptions,
): AddTokensRequest {
  if (!Array.isArray(tokens)) {
    throw new TypeError("A list of tokens is expected, for example ['<tool>'].");
  }
  const { special, idempotencyKey = randomUUID(), ...others } = options;
  return build("AddTokensRequest", {
    ...others,
    idempotencyKey,
    tokens: tokens.map((token: string | NewToken) =>
      tokenToAdd(typeof token === "string" ? { content: token, special } : token),
    ),
  });
}

function tokenToAdd(token: NewToken): object {
  const { content, special, singleWord, lstrip, rstrip, normalized, ...others } = token;
  return {
    initialization: others.inputValues === undefined ? "mean_of_pieces" : "values",
    ...others,
    token: { content, special, singleWord, lstrip, rstrip, normalized },
  };
}

/** Builds a `SetSpecialTokens` request from roles (`pad`, `eos`, ...) and ids. */
export function setSpecialTokens(
  roles: Readonly<Partial<Record<Role, number>>>,
  options: ChangeOptions,
): SetSpecialTokensRequest {
  const specialTokens = Object.entries(roles).map(([role, tokenId]) => ({ role, tokenId }));
  return build("SetSpecialTokensRequest", { idempotencyKey: randomUUID(), ...options, specialTokens });
}

/** Cuts an archive, or pieces of one, into the requests of an `ImportRevisions` call. */
export function* importRevisions(
  archive: Uint8Array | Iterable<Uint8Array>,
): Generator<ImportRevisionsRequest> {
  for (const piece of archive instanceof Uint8Array ? [archive] : archive) {
    for (let start = 0; start < piece.length; start += PIECE_BYTES) {
      yield { data: Buffer.from(piece.subarray(start, start + PIECE_BYTES)) };
    }
  }
}
