// Calls with streams both ways.

import type { ClientDuplexStream } from "@grpc/grpc-js";

import { ProtocolError } from "../errors.js";
import { pause } from "./patience.js";
import type { Attempts } from "./retries.js";

/** One attempt of a call. */
export interface Begun<Request, Response> {
  readonly call: ClientDuplexStream<Request, Response>;
  /** Forgets it. */
  readonly release: () => void;
  /** Takes how it has failed, and returns the error of the client. */
  readonly failed: (error: unknown) => unknown;
}

interface Attempt<Request, Response> extends Begun<Request, Response> {
  readonly responses: AsyncIterator<Response>;
}

/**
 * A call with streams both ways, which begins with its first request. Until it begins to answer,
 * its requests are kept for another attempt.
 */
export class Duplex<Request, Response> {
  #attempt: Attempt<Request, Response> | undefined;
  #sent: Request[] | undefined = [];
  #ended = false;

  /**
   * @param begin begins an attempt
   * @param attempts says whether there is another one
   * @param peer who is called, for messages
   * @param signal ends the waiting for another attempt
   */
  constructor(
    private readonly begin: () => Begun<Request, Response>,
    private readonly attempts: Attempts,
    private readonly peer: string,
    private readonly signal: AbortSignal | undefined,
  ) {}

  /** Sends a request, and does not wait for an answer. */
  send(request: Request): void {
    const { call } = this.#running();
    this.#sent?.push(request);
    call.write(request);
  }

  /** Returns the next response. */
  async receive(): Promise<Response> {
    const { done, value } = await this.#next();
    if (done) throw new ProtocolError(`${this.peer} ended the stream too early.`);
    return value;
  }

  /** Says that no more requests come, and waits until the service has ended the call. */
  async finish(): Promise<void> {
    this.#ended = true;
    this.#running().call.end();
    while (!(await this.#next()).done);
  }

  /** Cancels the call, unless it has ended. */
  close(): void {
    this.#sent = undefined;
    this.#attempt?.release();
    this.#attempt?.call.cancel();
  }

  #running(): Attempt<Request, Response> {
    if (this.#attempt !== undefined) return this.#attempt;
    const begun = this.begin();
    const { call } = begun;
    call.on("error", () => {}); // of a call that is no longer read
    this.#attempt = { ...begun, responses: call[Symbol.asyncIterator]() };
    for (const request of this.#sent ?? []) call.write(request);
    if (this.#ended) call.end();
    return this.#attempt;
  }

  async #next(): Promise<IteratorResult<Response, undefined>> {
    for (;;) {
      const { responses, release, failed } = this.#running();
      try {
        const next = await responses.next();
        if (this.#sent !== undefined) this.attempts.succeed();
        this.#sent = undefined;
        if (next.done) release();
        return next;
      } catch (error) {
        release();
        await this.#prepareAnother(failed(error));
      }
    }
  }

  /** Waits until the call may be made again. Throws why it failed where it may not. */
  async #prepareAnother(error: unknown): Promise<void> {
    if (this.#sent === undefined) throw error;
    await pause(this.attempts.pauseMs(error), this.signal);
    if (this.#sent === undefined) throw error; // closed meanwhile
    this.#attempt = undefined;
  }
}
