// What comes back about the distribution at each position, and in which form.

/**
 * Selects what is returned about each distribution. At most one of `full`, `topK` and `tokenIds`
 * is given. Logits are the model's raw output; scores are logits after processors and warpers.
 */
export interface ScoreSelection {
  /** Whether raw logits are returned. */
  logits?: boolean | undefined;
  /** Whether processed scores are returned. */
  scores?: boolean | undefined;
  /** Whether whole rows are. */
  full?: boolean | undefined;
  /** Number of the most probable ids to return. */
  topK?: number | undefined;
  /** Ids to return. */
  tokenIds?: ArrayLike<number | bigint> | undefined;
  /** Element type of full rows on the wire; all arrive as `Float32Array`. */
  dtype?: "float32" | "float16" | "bfloat16" | undefined;
  /** Which positions of those that the call passes. Unset means the call's own default. */
  positions?: "last" | "new" | "all" | undefined;
  /** Indices instead of `positions`, from 0. */
  positionList?: ArrayLike<number | bigint> | undefined;
  /** Whether the rank of the chosen token is returned. */
  rank?: boolean | undefined;
  /** Whether the entropy is returned, in nats. */
  entropy?: boolean | undefined;
  /** Whether log-sum-exp is returned. */
  logsumexp?: boolean | undefined;
  /** Whether the chosen token's score after each processor is. */
  processorTrace?: boolean | undefined;
}

/** Returns the fields of the wire form. */
export function selectionFields(selection: ScoreSelection | undefined): object | undefined {
  if (selection === undefined) return undefined;
  const { full, topK, tokenIds, positions, positionList } = selection;
  if ([full || undefined, topK, tokenIds].filter((amount) => amount !== undefined).length > 1) {
    throw new TypeError("Give at most one of full, topK and tokenIds.");
  }
  const listed = positionList !== undefined && positionList.length > 0;
  return { ...selection, full: full || undefined, positions: listed ? "list" : positions };
}
