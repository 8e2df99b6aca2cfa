// The tokenizer service.

import { Decoder } from "./decoder.js";
import {
  ChatOptions,
  DecodeOptions,
  EncodeOptions,
  PaddingOptions,
  type Ids,
} from "./options.js";
import { TOKENIZER } from "./protos.js";
import { build, idRow } from "./requests/message.js";
import { split } from "./requests/names.js";
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
import type { GetTokenizerArtifactResponse__Output } from "./schema/lockstep/v1/GetTokenizerArtifactResponse.js";
import type { Connection } from "./transport/connection.js";
import type { CallOptions } from "./transport/endpoint.js";
import { isOneRow, readBatch, type Batch, type Prompts } from "./values/batch.js";

/** Turns text into ids and back. */
export class Tokenizer {
  constructor(private readonly connection: Connection) {}

  /** Encodes one text, or texts and pairs of texts, to one row each. */
  async encode(texts: Texts, options: EncodeOptions & CallOptions = {}): Promise<Batch> {
    const [call, keywords] = split(options, EncodeOptions);
    const request = requests.encode(texts, keywords);
    const response = await this.connection.unary(TOKENIZER.Encode, request, call);
    return readBatch(response, response.tokenBatch, response.details);
  }

  /** Decodes one row of ids to its text, or a batch to one text per row; padding is dropped. */
  async decode(row: Ids, options?: DecodeOptions & CallOptions): Promise<string>;
  async decode(rows: Prompts, options?: DecodeOptions & CallOptions): Promise<string[]>;
  async decode(rows: Prompts | Ids, options: DecodeOptions & CallOptions = {}): Promise<string | string[]> {
    const texts = (await this.decodeRows(rows, options)).map((row) => row.text);
    return isOneRow(rows) ? texts[0]! : texts;
  }

  /** As `decode`, with the bytes and the outcome of the round trip where asked for. */
  async decodeRows(rows: Prompts | Ids, options: DecodeOptions & CallOptions = {}): Promise<DecodedText[]> {
    const [call, keywords] = split(options, DecodeOptions);
    const request = requests.decode(rows, keywords);
    return (await this.connection.unary(TOKENIZER.Decode, request, call)).texts;
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
    const response = await this.connection.unary(TOKENIZER.ApplyChatTemplate, request, call);
    return readBatch(response, response.tokenBatch, [], response.texts);
  }

  /** Counts the ids that `encode` gives for each text. */
  async countTokens(
    texts: Texts,
    options: Pick<EncodeOptions, "addSpecialTokens" | "parseSpecialTokens"> & CallOptions = {},
  ): Promise<number[]> {
    const [call, keywords] = split(options, ["addSpecialTokens", "parseSpecialTokens"]);
    const request = build<object>("CountTokensRequest", { items: requests.textItems(texts), ...keywords });
    return (await this.connection.unary(TOKENIZER.CountTokens, request, call)).counts;
  }

  /** Looks up ids by spelling (`Ġthe`), and entries of the vocabulary by id. */
  async convertTokens(
    tokens: readonly string[],
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
}
