// Calls of one service over one channel.

import { Readable, type Writable } from "node:stream";

import type { Client, Metadata, requestCallback } from "@grpc/grpc-js";
import type { MethodDefinition } from "@grpc/proto-loader";

import { ConnectionFailed, ProtocolError, ServiceError } from "../errors.js";
import type { Message } from "../protos.js";
import { NewestVocabulary } from "../values/vocabularyRef.js";
import { Dialer } from "./dialer.js";
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
  readonly #dialer: Dialer;
  readonly #throttle: Throttle;
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
    this.#dialer = new Dialer(endpoint);
    this.#throttle = new Throttle(endpoint.retries);
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
        const response = await this.#answer<Response>(method.path, route, signal, (client, done) =>
          client
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
        return await this.#answer<Response>(method.path, new Route(), signal, (client, done) => {
          const call = client.makeClientStreamRequest(
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
      this.#check(method.path, signal);
      const dialed = this.#dialer.for(route);
      const call = dialed.client.makeBidiStreamRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        route.metadata(metadata()),
        { deadline: attempts.deadline },
      );
      call.on("metadata", (answered: Metadata) => route.take(answered));
      const failed = (error: unknown) => {
        const translated = this.#translated(method.path, error, signal);
        this.#dialer.failed(dialed, route, translated);
        return translated;
      };
      return { call, release: this.#track(call, signal), failed };
    };
    return new Duplex(begin, attempts, this.endpoint.peer, signal);
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
    this.#dialer.close();
  }

  #attempts(idempotent: boolean, timeoutMs: number | null, retries = this.endpoint.retries): Attempts {
    return new Attempts(this.#throttle, idempotent, retries, deadlineAfter(timeoutMs));
  }

  /** Makes one attempt of a call that has one answer. */
  async #answer<Response>(
    path: string,
    route: Route,
    signal: AbortSignal | undefined,
    begin: (client: Client, done: requestCallback<Response>) => { cancel(): void },
  ): Promise<Response> {
    this.#check(path, signal);
    const dialed = this.#dialer.for(route);
    let release = () => {};
    try {
      const response = await new Promise<Response>((resolve, reject) => {
        const done: requestCallback<Response> = (error, answer) => (error ? reject(error) : resolve(answer!));
        release = this.#track(begin(dialed.client, done), signal);
      });
      route.dialed = dialed;
      return response;
    } catch (error) {
      const translated = this.#translated(path, error, signal);
      this.#dialer.failed(dialed, route, translated);
      throw translated;
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
    this.#check(method.path, signal);
    const dialed = this.#dialer.for(route);
    const call = dialed.client.makeServerStreamRequest(
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
      route.dialed = dialed;
    } catch (error) {
      const translated = this.#translated(method.path, error, signal);
      this.#dialer.failed(dialed, route, translated);
      throw translated;
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

  #check(path: string, signal: AbortSignal | undefined): void {
    if (this.#closed) throw closed(this.endpoint.peer);
    signal?.throwIfAborted();
    this.#throttle.check(path);
  }

  #translated(path: string, error: unknown, signal: AbortSignal | undefined): unknown {
    if (signal?.aborted) return signal.reason;
    const translated = fromGrpc(error, this.endpoint.peer);
    this.#throttle.note(path, translated);
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
