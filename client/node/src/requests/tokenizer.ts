// Requests to `TokenizerService`, built from keywords.

import type { ChatOptions, DecodeOptions, EncodeOptions, Ids, PaddingOptions } from "../options.js";
import type { ApplyChatTemplateRequest } from "../schema/lockstep/v1/ApplyChatTemplateRequest.js";
import type { DecodeOptions as DecodeOptionsMessage } from "../schema/lockstep/v1/DecodeOptions.js";
import type { DecodeRequest } from "../schema/lockstep/v1/DecodeRequest.js";
import type { EncodeRequest } from "../schema/lockstep/v1/EncodeRequest.js";
import type { PadRequest } from "../schema/lockstep/v1/PadRequest.js";
import type { TextItem } from "../schema/lockstep/v1/TextItem.js";
import { Batch, isOneRow, promptMessage, tokenBatch, type Prompts } from "../values/batch.js";
import type { VocabularyRef } from "../values/vocabularyRef.js";
import { build } from "./message.js";

/** One text, or texts and pairs of texts. */
export type Texts = string | readonly (string | readonly [string, string])[];

/** A message of a conversation: `role`, `content`, and what else the template knows. */
export interface ChatMessage {
  role: string;
  content?: unknown;
  [key: string]: unknown;
}

/** The messages of a conversation, in order. */
export type ChatMessages = readonly ChatMessage[];

/** Builds an `Encode` request. */
export function encode(texts: Texts, options: EncodeOptions): EncodeRequest {
  const { returnOffsets: offsetUnit, minRevision, ...others } = options;
  const rest = withoutShaping(others);
  return build("EncodeRequest", {
    items: textItems(texts),
    options: { ...rest, offsetUnit, padding: padding(options), truncation: truncation(options) },
    minRevision,
  });
}

/** Builds the items of one text, or of texts and pairs of texts. */
export function textItems(texts: Texts): TextItem[] {
  if (typeof texts === "string") return [{ text: texts }];
  return texts.map((each, index) => {
    const [text, textPair] = typeof each === "string" ? [each] : each;
    return build("TextItem", { text, textPair }, `items[${index}]`);
  });
}

/** Builds a `Decode` request for one row of ids, or a batch of rows. */
export function decode(rows: Prompts | Ids, options: DecodeOptions): DecodeRequest {
  const { returnBytes, checkRoundTrip, ...others } = options;
  const batch = isOneRow(rows) ? [rows] : (rows as Prompts);
  const fields = { returnBytes, checkRoundTrip, vocabulary: vocabularyOf(batch) };
  return {
    ...build<DecodeRequest>("DecodeRequest", fields),
    batch: promptMessage(batch),
    options: decodeOptions(others),
  };
}

/** Builds the options of `Decode` and `DecodeStream`. */
export function decodeOptions(options: DecodeOptions): DecodeOptionsMessage {
  return build("DecodeOptions", options);
}

/** Returns the vocabulary that prompts belong to, undefined where they do not say. */
export function vocabularyOf(prompts: Prompts): VocabularyRef | undefined {
  return prompts instanceof Batch ? prompts.vocabulary : undefined;
}

/** Builds a `Pad` request. */
export function pad(rows: Prompts, options: PaddingOptions): PadRequest {
  const message = build<PadRequest>("PadRequest", { padding: padding({ padding: "longest", ...options }) });
  return { ...message, tokenBatch: tokenBatch(rows instanceof Batch ? rows.tokenIds : rows, "rows") };
}

/** Builds an `ApplyChatTemplate` request for one conversation or several. */
export function applyChatTemplate(
  conversations: ChatMessages | readonly ChatMessages[],
  options: ChatOptions,
): ApplyChatTemplateRequest {
  const { tools, documents, templateArguments, ...others } = options;
  const each = (areSeveral(conversations) ? conversations : [conversations]) as readonly ChatMessages[];
  return build("ApplyChatTemplateRequest", {
    ...withoutShaping(others),
    conversations: each.map((messages) => ({ messages: messages.map(chatMessage) })),
    toolsJson: json(tools),
    documentsJson: json(documents),
    templateArgumentsJson: json(templateArguments),
    padding: padding(options),
    truncation: truncation(options),
  });
}

/** Says whether conversations are a list of them. */
export function areSeveral(conversations: ChatMessages | readonly ChatMessages[]): boolean {
  return conversations.length > 0 && conversations.every((each) => Array.isArray(each));
}

/** Builds a message whose keys the template sees as they are: null is null, and not absent. */
function chatMessage(message: ChatMessage): object {
  const { role, ...others } = message;
  if (typeof role !== "string") throw new TypeError("Every message needs a role.");
  const { content, ...rest } = others;
  const [text, extra] = typeof content === "string" ? [content, rest] : [undefined, others];
  return { role, content: text, extraJson: Object.keys(extra).length > 0 ? json(extra) : undefined };
}

function json(value: unknown): string | undefined {
  return value === undefined ? undefined : JSON.stringify(value);
}

/** Removes the keywords of padding and truncation, which have messages of their own. */
function withoutShaping(options: ChatOptions & EncodeOptions): object {
  const others: Record<string, unknown> = { ...options };
  for (const name of ["padding", "paddingSide", "padToMultipleOf", "maxLength", "padTokenId"]) {
    delete others[name];
  }
  delete others["truncation"];
  delete others["truncationSide"];
  return others;
}

function padding(options: PaddingOptions): object | undefined {
  const { padding: strategy, paddingSide: side, padToMultipleOf, maxLength, padTokenId } = options;
  if (strategy === undefined || strategy === false) return undefined;
  const toMaxLength = strategy === "max_length";
  return {
    strategy: strategy === true ? "longest" : strategy,
    side,
    padToMultipleOf,
    maxLength: toMaxLength ? maxLength : undefined,
    padTokenId,
  };
}

function truncation(options: ChatOptions): object | undefined {
  const { truncation: cut, truncationSide: side, maxLength } = options;
  if (!cut) return undefined;
  if (maxLength === undefined) throw new TypeError("truncation needs maxLength.");
  return { maxLength, side };
}
