// Calls of one service over one channel.

import { Readable, type Writable } from "node:stream";

import { Client, type Metadata, type requestCallback } from "@grpc/grpc-js";
import type { MethodDefinition } from "@grpc/proto-loader";

import { ConnectionFailed, ProtocolError, ServiceError } from "../errors.js";
import type { Message } from "../protos.js";
import { NewestVocabulary } from "../values/vocabularyRef.js";
import { Duplex } from "./duplex.js";
import { newRequestId, type CallOptions, type Endpoint } from "./endpoint.js";
import { pause } from "./patience.js";
import { addPrefix } from "./promptPrefix.js";
import { Attempts, isIdempotent, Throttle } from "./retries.js";
import { Route } from "./route.js";
import { closed, fromGrpc } from "./status.js";

/** A method of a service, with the types of its messages. */
export type Method<Request, Response> = MethodDefinition<Request, object, object, Response>;

/** Calls one service. Connects with the first call, and again when it broke. */
export class Connection {
  readonly #client: Client;
  readonly #throttle = new Throttle();
  readonly #running = new Set<() => void>();
  readonly #replicas = new Map<string, Connection>();
  #closed = false;

  /**
   * @param endpoint the service
   * @param newest goes with ids without a vocabulary, and takes those of answers
   */
  constructor(
    readonly endpoint: Endpoint,
    private readonly newest = new NewestVocabulary(),
  ) {
    this.#client = new Client(endpoint.address, endpoint.credentials(), endpoint.channelOptions());
  }

  /** Calls a method that has one answer; the route is of the session that the call is about. */
  async unary<Request extends object, Response extends object>(
    method: Method<Request, Response>,
    request: Request,
    { timeoutMs = this.endpoint.timeoutMs, signal, ...names }: CallOptions = {},
    route = new Route(),
  ): Promise<Response> {
    const metadata = this.#metadata(names);
    const attempts = this.#attempts(isIdempotent(method.path), timeoutMs);
    const filled = this.#filled(method, request);
    for (;;) {
      try {
        const response = await this.#answer<Response>(signal, (done) =>
          this.#client
            .makeUnaryRequest(
              method.path,
              method.requestSerialize,
              method.responseDeserialize,
              filled,
              route.metadata(this.#prefixed(metadata(), filled)),
              { deadline: attempts.deadline },
              done,
            )
            .on("metadata", (answered) => route.take(answered)),
        );
        attempts.succeed();
        this.newest.note(request, response);
        return response;
      } catch (error) {
        await pause(attempts.pauseMs(error), signal);
      }
    }
  }

  /** Calls a method that answers with a stream; leaving the generator cancels the call. */
  async *stream<Request extends object, Response extends object>(
    method: Method<Request, Response>,
    request: Request,
    { timeoutMs = this.endpoint.streamTimeoutMs, signal, ...names }: CallOptions = {},
    route = new Route(),
  ): AsyncGenerator<Response> {
    const metadata = this.#metadata(names);
    const attempts = this.#attempts(isIdempotent(method.path), timeoutMs);
    const filled = this.#filled(method, request);
    for (let begun = false; ; ) {
      try {
        const answers = this.#responses(method, filled, metadata, attempts.deadline, route, signal);
        for await (const response of answers) {
          if (!begun) attempts.succeed();
          begun = true;
          this.newest.note(request, response);
          yield response;
        }
        return;
      } catch (error) {
        if (begun) throw error;
        await pause(attempts.pauseMs(error), signal);
      }
    }
  }

  /**
   * Calls a method that takes a stream and has one answer.
   *
   * @param requests gives the requests, of every attempt anew
   * @param repeatable whether there may be several attempts
   */
  async upload<Request, Response>(
    method: Method<Request, Response>,
    requests: () => Iterable<Request>,
    repeatable: boolean,
    { timeoutMs = this.endpoint.streamTimeoutMs, signal, ...names }: CallOptions = {},
  ): Promise<Response> {
    const metadata = this.#metadata(names);
    const attempts = this.#attempts(repeatable, timeoutMs, repeatable ? this.endpoint.retries : 0);
    for (;;) {
      try {
        return await this.#answer<Response>(signal, (done) => {
          const call = this.#client.makeClientStreamRequest(
            method.path,
            method.requestSerialize,
            method.responseDeserialize,
            metadata(),
            { deadline: attempts.deadline },
            done,
          );
          Readable.from(requests()).pipe(call as unknown as Writable);
          return call;
        });
      } catch (error) {
        await pause(attempts.pauseMs(error), signal);
      }
    }
  }

  /** Prepares a call with streams both ways. */
  duplex<Request, Response>(
    method: Method<Request, Response>,
    { timeoutMs = this.endpoint.streamTimeoutMs, signal, ...names }: CallOptions = {},
    route = new Route(),
  ): Duplex<Request, Response> {
    const metadata = this.#metadata(names);
    const attempts = this.#attempts(isIdempotent(method.path), timeoutMs);
    const begin = () => {
      this.#check(signal);
      const call = this.#client.makeBidiStreamRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        route.metadata(metadata()),
        { deadline: attempts.deadline },
      );
      call.on("metadata", (answered: Metadata) => route.take(answered));
      return { call, release: this.#track(call, signal) };
    };
    const translated = (error: unknown) => this.#translated(error, signal);
    return new Duplex(begin, attempts, this.endpoint.peer, translated, signal);
  }

  /** Returns the connection to one replica of the service alone; undefined where it may not be. */
  replica(address: string): Connection | undefined {
    const endpoint = this.endpoint.replica(address);
    if (endpoint === undefined) return undefined;
    const known = this.#replicas.get(address) ?? new Connection(endpoint, this.newest);
    this.#replicas.set(address, known);
    return known;
  }

  /** Closes the channel; running calls are cancelled. */
  close(): void {
    this.#closed = true;
    for (const cancel of this.#running) cancel();
    for (const replica of this.#replicas.values()) replica.close();
    this.#client.close();
  }

  #attempts(idempotent: boolean, timeoutMs: number | null, retries = this.endpoint.retries): Attempts {
    return new Attempts(this.#throttle, idempotent, retries, deadlineAfter(timeoutMs));
  }

  /** Makes one attempt of a call that has one answer. */
  async #answer<Response>(
    signal: AbortSignal | undefined,
    begin: (done: requestCallback<Response>) => { cancel(): void },
  ): Promise<Response> {
    this.#check(signal);
    let release = () => {};
    try {
      return await new Promise<Response>((resolve, reject) => {
        const call = begin((error, response) => (error ? reject(error) : resolve(response!)));
        release = this.#track(call, signal);
      });
    } catch (error) {
      throw this.#translated(error, signal);
    } finally {
      release();
    }
  }

  /** Makes one attempt of a call that answers with a stream. */
  async *#responses<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    metadata: () => Metadata,
    deadline: number,
    route: Route,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Response> {
    this.#check(signal);
    const call = this.#client.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      route.metadata(this.#prefixed(metadata(), request)),
      { deadline },
    );
    call.on("error", () => {}); // of a call that is no longer read
    call.on("metadata", (answered) => route.take(answered));
    const release = this.#track(call, signal);
    try {
      for await (const response of call) yield response as Response;
    } catch (error) {
      throw this.#translated(error, signal);
    } finally {
      release();
      call.cancel();
    }
  }

  /** Lets a call be cancelled from outside until the returned function is called. */
  #track(call: { cancel(): void }, signal: AbortSignal | undefined): () => void {
    const cancel = () => call.cancel();
    this.#running.add(cancel);
    signal?.addEventListener("abort", cancel);
    return () => {
      this.#running.delete(cancel);
      signal?.removeEventListener("abort", cancel);
    };
  }

  #check(signal: AbortSignal | undefined): void {
    if (this.#closed) throw closed(this.endpoint.peer);
    signal?.throwIfAborted();
  }

  #translated(error: unknown, signal: AbortSignal | undefined): unknown {
    if (signal?.aborted) return signal.reason;
    const translated = fromGrpc(error, this.endpoint.peer);
    if (this.#closed && translated instanceof ConnectionFailed) return closed(this.endpoint.peer);
    if (translated instanceof ServiceError && translated.reason === "NOT_IMPLEMENTED") {
      const mistaken = this.endpoint.mistaken(translated.metadata["services"]?.split(",") ?? []);
      if (mistaken) return new ProtocolError(mistaken, { code: translated.code, cause: error });
    }
    return translated;
  }

  /** Returns what makes the metadata of each attempt of a call. */
  #metadata({ requestId = newRequestId(), traceparent }: CallOptions): () => Metadata {
    return () => {
      const metadata = this.endpoint.metadata();
      metadata.set("x-request-id", requestId);
      if (traceparent !== undefined) metadata.set("traceparent", traceparent);
      return metadata;
    };
  }

  /** Adds what names the beginning of a request's prompt to what it is sent with. */
  #prefixed(metadata: Metadata, request: unknown): Metadata {
    if (this.endpoint.prefixRouting) addPrefix(metadata, request as object);
    return metadata;
  }

  /** Returns a request of a method with the vocabulary that it goes with. */
  #filled<Request extends object>({ requestType }: Method<Request, object>, request: Request): Request {
    return this.newest.fill(request, requestType.type as Message);
  }
}

function deadlineAfter(timeoutMs: number | null): number {
  return timeoutMs === null ? Infinity : Date.now() + timeoutMs;
}
