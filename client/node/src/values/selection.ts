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
  /** Whether `topK` tokens by scores are returned in addition to those by logits. */
  topKOfBoth?: boolean | undefined;
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

/** The words that stand for a selection of full rows. */
interface FullRows {
  outputLogits?: boolean | undefined;
  outputScores?: boolean | undefined;
  processorTrace?: boolean | undefined;
  selection?: ScoreSelection | undefined;
}

/**
 * Splits off what keywords select: a selection, or the words that stand for full rows.
 *
 * @param options keywords
 * @param logits whether rows of logits are what the call returns unless told otherwise
 */
export function splitSelection<Options extends FullRows>(
  { outputLogits, outputScores, processorTrace, selection, ...others }: Options,
  logits: boolean,
): [ScoreSelection | undefined, Omit<Options, keyof FullRows>] {
  const words = { outputLogits, outputScores, processorTrace };
  const given = Object.entries(words).filter(([, value]) => value !== undefined);
  const wanted = given.some(([, value]) => value);
  if (selection !== undefined && wanted) {
    throw new TypeError(`Give selection, or ${given.map(([name]) => name).join(", ")}, not both.`);
  }
  if (selection !== undefined || given.length === 0 || (!logits && !wanted)) return [selection, others];
  const rows = { logits: outputLogits ?? logits, scores: outputScores ?? false };
  return [{ ...rows, full: rows.logits || rows.scores, processorTrace }, others];
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
