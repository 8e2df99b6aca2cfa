// Calls with streams both ways.

import type { ClientDuplexStream } from "@grpc/grpc-js";

import { ProtocolError } from "../errors.js";

/** A call with streams both ways. */
export class Duplex<Request, Response> {
  readonly #responses: AsyncIterator<Response>;

  constructor(
    private readonly call: ClientDuplexStream<Request, Response>,
    private readonly peer: string,
    private readonly release: () => void,
    private readonly translated: (error: unknown) => unknown,
  ) {
    call.on("error", () => {}); // of a call that is no longer read
    this.#responses = call[Symbol.asyncIterator]();
  }

  /** Sends a request, and does not wait for an answer. */
  send(request: Request): void {
    this.call.write(request);
  }

  /** Returns the next response. */
  async receive(): Promise<Response> {
    const { done, value } = await this.#next();
    if (done) throw new ProtocolError(`${this.peer} ended the stream too early.`);
    return value;
  }

  /** Says that no more requests come, and waits until the service has ended the call. */
  async finish(): Promise<void> {
    this.call.end();
    while (!(await this.#next()).done);
    this.release();
  }

  /** Cancels the call, unless it has ended. */
  close(): void {
    this.release();
    this.call.cancel();
  }

  async #next(): Promise<IteratorResult<Response, undefined>> {
    try {
      return await this.#responses.next();
    } catch (error) {
      this.release();
      throw this.translated(error);
    }
  }
}
