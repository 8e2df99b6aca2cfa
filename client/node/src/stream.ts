// Running calls that give items one by one, and a result in the end.

import { Cancelled } from "./errors.js";
import type { CallOptions } from "./transport/endpoint.js";

/**
 * Items of a running call. The call starts with the first item that is asked for. It is
 * cancelled, and the server frees what it holds, when the loop over it is left, or with `close`.
 */
export class Stream<Item, Result> implements AsyncIterableIterator<Item> {
  readonly #items: AsyncGenerator<Item>;
  readonly #stop = new AbortController();

  /**
   * @param begin begins the call, which its signal cancels
   * @param readResult gives the result once every item was read
   * @param options of the call
   */
  constructor(
    begin: (options: CallOptions) => AsyncGenerator<Item>,
    private readonly readResult: () => Result,
    options: CallOptions,
  ) {
    const stop = this.#stop.signal;
    const signal = options.signal ? AbortSignal.any([stop, options.signal]) : stop;
    this.#items = begin({ ...options, signal });
  }

  /** The result, once every item was read. Throws a ProtocolError before. */
  get result(): Result {
    return this.readResult();
  }

  next(): Promise<IteratorResult<Item>> {
    return this.#items.next();
  }

  async return(): Promise<IteratorResult<Item>> {
    this.#stop.abort(new Cancelled("The stream was closed.", { code: "CANCELLED" }));
    return this.#items.return(undefined);
  }

  /** Cancels what is still running. */
  async close(): Promise<void> {
    await this.return();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
