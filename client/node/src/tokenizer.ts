// The tokenizer service.

import { Argument } from "./argument.js";
import { Decoder } from "./decoder.js";
import { LockstepError } from "./errors.js";
import {
  ChatOptions,
  DecodeOptions,
  EncodeOptions,
  PaddingOptions,
  type Ids,
  type ManyOptions,
} from "./options.js";
import { TOKENIZER } from "./protos.js";
import { build, idRow } from "./requests/message.js";
import { split, splitMany } from "./requests/names.js";
import * as requests from "./requests/tokenizer.js";
import type { ChatMessages, Texts } from "./requests/tokenizer.js";
import {
  joinArtifact,
  readTokenizerInfo,
  readVocabularyEntry,
  type ConvertedTokens,
  type DecodedText,
  type TokenizerInfo,
  type VocabularyEntry,
} from "./results/tokenizer.js";
import { callRows, type Part, type Returning } from "./rows/rowCall.js";
import { textLimits, type RowLimits } from "./rows/rowLimits.js";
import { RowRequest } from "./rows/rowRequest.js";
import { joinBatches, joinLists, newestOfSeveral } from "./rows/rowResults.js";
import type { CountTokensRequest } from "./schema/lockstep/v1/CountTokensRequest.js";
import type { DecodeRequest } from "./schema/lockstep/v1/DecodeRequest.js";
import type { EncodeRequest } from "./schema/lockstep/v1/EncodeRequest.js";
import type { GetTokenizerArtifactResponse__Output } from "./schema/lockstep/v1/GetTokenizerArtifactResponse.js";
import type { Connection } from "./transport/connection.js";
import type { CallOptions } from "./transport/endpoint.js";
import { isOneRow, readBatch, type Batch, type Prompts } from "./values/batch.js";
import { Once } from "./values/once.js";

type CountOptions = Pick<EncodeOptions, "addSpecialTokens" | "parseSpecialTokens" | keyof ManyOptions>;

/** Turns text into ids and back. */
export class Tokenizer {
  readonly #limits = new Once<RowLimits>();

  constructor(private readonly connection: Connection) {}

  /**
   * Encodes one text, or texts and pairs of texts, to one row each. Any number of texts: they go
   * in as many requests as needed. All are encoded with one revision of the vocabulary, also while
   * tokens are added.
   */
  async encode(texts: Texts, options: EncodeOptions & CallOptions = {}): Promise<Batch> {
    const [call, keywords] = splitMany(options, EncodeOptions);
    const request = requests.encode(texts, keywords);
    const given = new Argument("texts", undefined, typeof texts !== "string");
    const encode = async (part: EncodeRequest, each: CallOptions) => {
      const response = await given.named(() => this.connection.unary(TOKENIZER.Encode, part, each));
      return readBatch(response, response.tokenBatch, response.details);
    };
    const parts = await this.#callRows("EncodeRequest", request, encode, call);
    const minRevision = newestOfSeveral(parts);
    if (minRevision === undefined) return joinBatches(parts);
    const again = { ...request, minRevision };
    return joinBatches(await this.#callRows("EncodeRequest", again, encode, call));
  }

  /**
   * Decodes one row of ids to its text, or a batch of any size to one text per row; padding is
   * dropped.
   */
  async decode(row: Ids, options?: DecodeOptions & CallOptions): Promise<string>;
  async decode(rows: Prompts, options: Returning<DecodeOptions>): Promise<(string | LockstepError)[]>;
  async decode(rows: Prompts, options?: DecodeOptions & CallOptions): Promise<string[]>;
  async decode(
    rows: Prompts | Ids,
    options: DecodeOptions & CallOptions = {},
  ): Promise<string | (string | LockstepError)[]> {
    const decoded = await this.#decodeRows(rows, options);
    const texts = decoded.map((row) => (row instanceof LockstepError ? row : row.text));
    return isOneRow(rows) ? (texts[0] as string) : texts;
  }

  /** As `decode`, with the bytes and the outcome of the round trip where asked for. */
  async decodeRows(
    rows: Prompts | Ids,
    options: Returning<DecodeOptions>,
  ): Promise<(DecodedText | LockstepError)[]>;
  async decodeRows(rows: Prompts | Ids, options?: DecodeOptions & CallOptions): Promise<DecodedText[]>;
  async decodeRows(
    rows: Prompts | Ids,
    options: DecodeOptions & CallOptions = {},
  ): Promise<(DecodedText | LockstepError)[]> {
    return this.#decodeRows(rows, options);
  }

  /** Yields the text of one sequence as its ids arrive, never half a character. */
  async *decodeStream(
    tokenIds: Iterable<number> | AsyncIterable<number>,
    options: Pick<DecodeOptions, "skipSpecialTokens"> & CallOptions = {},
  ): AsyncGenerator<string> {
    const decoder = this.openDecoder(options);
    try {
      for await (const tokenId of tokenIds) {
        const text = await decoder.feed([tokenId]);
        if (text) yield text;
      }
      const text = await decoder.end();
      if (text) yield text;
    } finally {
      decoder.close();
    }
  }

  /** Opens a decoder for one sequence whose ids arrive bit by bit. Close it. */
  openDecoder(options: Pick<DecodeOptions, "skipSpecialTokens"> & CallOptions = {}): Decoder {
    const [call, keywords] = split(options, ["skipSpecialTokens"]);
    const decode = requests.decodeOptions(keywords);
    return new Decoder(this.connection.duplex(TOKENIZER.DecodeStream, call), decode);
  }

  /** Pads rows to a rectangle: to the longest and on the left, unless told otherwise. */
  async pad(rows: Prompts, options: PaddingOptions & CallOptions = {}): Promise<Batch> {
    const [call, keywords] = split(options, PaddingOptions);
    const request = requests.pad(rows, keywords);
    const response = await this.connection.unary(TOKENIZER.Pad, request, call);
    const sequences = request.tokenBatch?.sequences ?? [];
    return readBatch(response, { sequences: sequences.map(({ ids = [] }) => ({ ids })) });
  }

  /** Renders one conversation, or several, to one row each; `.texts` has the rendered texts. */
  async applyChatTemplate(
    conversations: ChatMessages | readonly ChatMessages[],
    options: ChatOptions & CallOptions = {},
  ): Promise<Batch> {
    const [call, keywords] = split(options, ChatOptions);
    const request = requests.applyChatTemplate(conversations, keywords);
    const given = new Argument("conversations", undefined, requests.areSeveral(conversations));
    const response = await given.named(() => this.connection.unary(TOKENIZER.ApplyChatTemplate, request, call));
    return readBatch(response, response.tokenBatch, [], response.texts);
  }

  /** Counts the ids that `encode` gives for each text. */
  async countTokens(texts: Texts, options: Returning<CountOptions>): Promise<(number | LockstepError)[]>;
  async countTokens(texts: Texts, options?: CountOptions & CallOptions): Promise<number[]>;
  async countTokens(
    texts: Texts,
    options: CountOptions & CallOptions = {},
  ): Promise<(number | LockstepError)[]> {
    const [call, keywords] = splitMany(options, ["addSpecialTokens", "parseSpecialTokens"]);
    const request = build<CountTokensRequest>("CountTokensRequest", { items: requests.textItems(texts), ...keywords });
    const given = new Argument("texts", undefined, typeof texts !== "string");
    const count = async (part: CountTokensRequest, each: CallOptions) =>
      (await given.named(() => this.connection.unary(TOKENIZER.CountTokens, part, each))).counts;
    return joinLists(await this.#callRows("CountTokensRequest", request, count, call));
  }

  /** Looks up ids by spelling (`Ġthe`), and entries of the vocabulary by id. */
  async convertTokens(
    tokens: readonly string[] = [],
    ids: Ids = [],
    options: CallOptions = {},
  ): Promise<ConvertedTokens> {
    const [call] = split(options, []);
    const request = { tokens: [...tokens], ids: idRow(ids, "ids") };
    const response = await this.connection.unary(TOKENIZER.ConvertTokens, request, call);
    return {
      ids: response.tokens.map((token) => token.id),
      entries: response.entries.map(readVocabularyEntry),
    };
  }

  /** Describes the tokenizer. */
  async info(options: CallOptions = {}): Promise<TokenizerInfo> {
    const [call] = split(options, []);
    return readTokenizerInfo(await this.connection.unary(TOKENIZER.GetTokenizerInfo, {}, call));
  }

  /** Yields the entries of the vocabulary in order of id, from `startId` on. */
  async *vocabulary(options: { startId?: number } & CallOptions = {}): AsyncGenerator<VocabularyEntry> {
    const [call, keywords] = split(options, ["startId"]);
    const request = build<object>("GetVocabularyRequest", keywords);
    for await (const { entries } of this.connection.stream(TOKENIZER.GetVocabulary, request, call)) {
      yield* entries.map(readVocabularyEntry);
    }
  }

  /** Returns the tokenizer's files as a zip archive, checked against its checksum. */
  async artifact(options: CallOptions = {}): Promise<Buffer> {
    const [call] = split(options, []);
    const pieces: GetTokenizerArtifactResponse__Output[] = [];
    for await (const piece of this.connection.stream(TOKENIZER.GetTokenizerArtifact, {}, call)) {
      pieces.push(piece);
    }
    return joinArtifact(pieces);
  }

  async #decodeRows(
    rows: Prompts | Ids,
    options: DecodeOptions & CallOptions,
  ): Promise<(DecodedText | LockstepError)[]> {
    const [call, keywords] = splitMany(options, DecodeOptions);
    const request = requests.decode(rows, keywords);
    const given = new Argument("rows", undefined, !isOneRow(rows));
    const decode = async (part: DecodeRequest, each: CallOptions) =>
      (await given.named(() => this.connection.unary(TOKENIZER.Decode, part, each))).texts;
    return joinLists(await this.#callRows("DecodeRequest", request, decode, call));
  }

  #callRows<Request extends object, Result>(
    type: string,
    request: Request,
    call: (request: Request, options: CallOptions) => Promise<Result>,
    options: ManyOptions & CallOptions,
  ): Promise<Part<Result>[]> {
    const limits = () => this.#limits.get(async () => textLimits(await this.info()));
    return callRows(new RowRequest(type, request), call, limits, options);
  }
}
