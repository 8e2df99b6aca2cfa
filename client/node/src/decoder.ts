// Text of ids that arrive bit by bit.

import type { Ids } from "./options.js";
import { idRow } from "./requests/message.js";
import type { DecodeOptions } from "./schema/lockstep/v1/DecodeOptions.js";
import type { DecodeStreamRequest } from "./schema/lockstep/v1/DecodeStreamRequest.js";
import type { DecodeStreamResponse__Output } from "./schema/lockstep/v1/DecodeStreamResponse.js";
import type { Duplex } from "./transport/duplex.js";

/** Decodes one sequence bit by bit. The pieces concatenate to the text of all ids. */
export class Decoder {
  #options: DecodeOptions | undefined;

  constructor(
    private readonly call: Duplex<DecodeStreamRequest, DecodeStreamResponse__Output>,
    options: DecodeOptions,
  ) {
    this.#options = options; // for the first message only
  }

  /** Appends ids and returns the text that became certain, possibly none. */
  async feed(tokenIds: Ids): Promise<string> {
    return this.#exchange({ ids: idRow(tokenIds, "tokenIds") });
  }

  /** Returns what was held back, broken bytes as U+FFFD, and ends the call. */
  async end(): Promise<string> {
    const text = await this.#exchange({ endOfSequence: true });
    await this.call.finish();
    return text;
  }

  /** Cancels the call, unless it has ended. */
  close(): void {
    this.call.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #exchange(request: DecodeStreamRequest): Promise<string> {
    this.call.send({ ...request, ...(this.#options && { options: this.#options }) });
    this.#options = undefined;
    return (await this.call.receive()).text;
  }
}
