// How a service is connected to: transport security, limits and keepalive.

import { randomUUID } from "node:crypto";

import { credentials, Metadata, type ChannelCredentials, type ChannelOptions } from "@grpc/grpc-js";

import { shown } from "../values/shown.js";
import { isRouted } from "./promptPrefix.js";
import { BALANCING, POLICY } from "./serviceConfig.js";

const MAX_RECEIVE_BYTES = 64 * 1024 * 1024;
const DEFAULT_TIMEOUT_MS = 60_000;
const DEFAULT_STREAM_TIMEOUT_MS = 600_000;
const DEFAULT_RETRIES = POLICY.maxAttempts - 1;

/** Transport security of a connection. `{}` trusts the authorities of Node.js. */
export interface Tls {
  /** PEM certificates of the authorities to trust instead. */
  ca?: Buffer | undefined;
  /** PEM chain that this client shows (mutual TLS). */
  certificate?: Buffer | undefined;
  /** PEM private key of `certificate`. */
  key?: Buffer | undefined;
  /** Name to expect in the server's certificate, where it is not that of the address. */
  serverName?: string | undefined;
}

/** What both connections of a client have in common. */
export interface ConnectionOptions {
  /** Transport security; unset sends plain text. */
  tls?: Tls | undefined;
  /** Limit of calls with one answer, in milliseconds; null for none. Default: 60 000. */
  timeoutMs?: number | null | undefined;
  /** Limit of calls that generate, score or stream, in milliseconds; null for none. Default: 600 000. */
  streamTimeoutMs?: number | null | undefined;
  /** How often a call is repeated within its limit, where that does nothing twice. Default: 3. */
  retries?: number | undefined;
  /** Bearer token that says who calls, or a function that returns it for each call. */
  token?: string | (() => string) | undefined;
  /** Whether the token is sent without `tls`, too. Default: false. */
  tokenInPlainText?: boolean | undefined;
  /**
   * Where calls of a session may go when the service names the replica that has it. True, the
   * default: with TLS to a replica that shows a certificate for the name expected of the service,
   * in plain text to the host of the service and to names below it. A list has the hosts to trust
   * instead, `*` standing for any text. False: nowhere.
   */
  follow?: boolean | readonly string[] | undefined;
  /**
   * Whether calls with prompts bring a keyed hash of the first tokens, by which a gateway sends
   * prompts that begin alike to one replica. Unset means yes, unless the variable
   * LOCKSTEP_PREFIX_ROUTING is `off`.
   */
  prefixRouting?: boolean | undefined;
}

/** What every call takes beside its keywords. */
export interface CallOptions {
  /** Limit of this call, in milliseconds; null for none. Unset means the client's. */
  timeoutMs?: number | null | undefined;
  /** Cancels the call when it is aborted; the call then fails with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** The id that the services' logs have for this call. Unset means a new one. */
  requestId?: string | undefined;
  /** The W3C `traceparent` of the span that this call is part of. */
  traceparent?: string | undefined;
}

/** The names of `CallOptions`. */
export const CallOptions: readonly string[] = ["timeoutMs", "signal", "requestId", "traceparent"];

/** Returns an id for calls that belong together. */
export function newRequestId(): string {
  return randomUUID().replaceAll("-", "");
}

/** What tells one service from the other. */
const SERVICES = { tokenizer: "lockstep.v1.TokenizerService", model: "lockstep.v1.ModelService" };

/** One service to connect to. */
export class Endpoint {
  readonly timeoutMs: number | null;
  readonly streamTimeoutMs: number | null;
  readonly retries: number;
  readonly prefixRouting: boolean;
  readonly #tls: Tls | undefined;

  constructor(
    readonly service: "tokenizer" | "model",
    readonly address: string,
    readonly options: ConnectionOptions,
  ) {
    checkAddress(service, address);
    checkOptions(options);
    const { timeoutMs, streamTimeoutMs, retries, tls, token, tokenInPlainText } = options;
    if (token !== undefined && tls === undefined && !tokenInPlainText) {
      throw new TypeError(
        "token needs tls: whoever reads it on its way can use it. Where that cannot happen, allow it with tokenInPlainText.",
      );
    }
    this.timeoutMs = timeoutMs === undefined ? DEFAULT_TIMEOUT_MS : timeoutMs;
    this.streamTimeoutMs = streamTimeoutMs === undefined ? DEFAULT_STREAM_TIMEOUT_MS : streamTimeoutMs;
    this.retries = retries ?? DEFAULT_RETRIES;
    this.#tls = tls;
    this.prefixRouting = service === "model" && isRouted(options.prefixRouting);
  }

  /** Returns the same service, for a caller that asks again by itself. */
  withoutRetries(): Endpoint {
    return new Endpoint(this.service, this.address, { ...this.options, retries: 0 });
  }

  /**
   * Returns the endpoint of one replica of this service; undefined where it is not trusted.
   *
   * An answer names it, and whoever has written that answer must not be able to send this client
   * anywhere: see `follow`.
   */
  replica(address: string): Endpoint | undefined {
    const { follow = true, ...options } = this.options;
    const host = hostOf(address);
    if (host === undefined || follow === false) return undefined;
    const own = hostOf(this.address.replace(/^dns:(\/\/[^/]*\/)?/, ""));
    if (follow !== true) {
      const trusted = follow.some((pattern) => matches(host, pattern));
      return trusted ? new Endpoint(this.service, address, { ...options, follow }) : undefined;
    }
    if (this.#tls === undefined) {
      return own !== undefined && isWithin(host, own) ? new Endpoint(this.service, address, options) : undefined;
    }
    const serverName = this.#tls.serverName ?? own;
    if (serverName === undefined) return undefined;
    return new Endpoint(this.service, address, { ...options, tls: { ...this.#tls, serverName } });
  }

  /** Who is called, for messages. */
  get peer(): string {
    return `the ${this.service} service at ${this.address}`;
  }

  /** Says in a sentence that the other service is here, if its list of services has it. */
  mistaken(services: readonly string[]): string | undefined {
    const other = this.service === "model" ? "tokenizer" : "model";
    if (!services.includes(SERVICES[other])) return undefined;
    return `${this.address} is a ${other} service; the ${this.service} service was expected there.`;
  }

  /** Builds what a call is sent with: the token as it is now. */
  metadata(): Metadata {
    const metadata = new Metadata();
    const { token } = this.options;
    if (token !== undefined) {
      const value = typeof token === "function" ? token() : token;
      metadata.set("authorization", `Bearer ${value.trim()}`);
    }
    return metadata;
  }

  /** Builds what grpc-js calls credentials. */
  credentials(): ChannelCredentials {
    if (this.#tls === undefined) return credentials.createInsecure();
    const { ca, key, certificate } = this.#tls;
    return credentials.createSsl(ca ?? null, key ?? null, certificate ?? null);
  }

  /** The options of a channel; `shared` says whether it may use a connection that is there. */
  channelOptions(shared: boolean): ChannelOptions {
    return {
      ...(shared ? {} : { "grpc.use_local_subchannel_pool": 1 }),
      "grpc.max_receive_message_length": MAX_RECEIVE_BYTES,
      "grpc.max_send_message_length": -1,
      "grpc.service_config": BALANCING,
      // As in the Python client: a dead connection is found under a silent stream, and a service
      // that comes (back) up is noticed within about two seconds.
      "grpc.keepalive_time_ms": 30_000,
      "grpc.keepalive_timeout_ms": 10_000,
      "grpc.initial_reconnect_backoff_ms": 200,
      "grpc.max_reconnect_backoff_ms": 2_000,
      ...(this.#tls?.serverName === undefined
        ? {}
        : { "grpc.ssl_target_name_override": this.#tls.serverName }),
    };
  }
}

const LOOPBACK: readonly string[] = ["localhost", "127.0.0.1", "::1"];

/** Returns the host of `HOST:PORT`, in lower case. */
function hostOf(address: string): string | undefined {
  const [, host] = /^(\[[^\]]+\]|[^:/[\]]+):\d+$/.exec(address) ?? [];
  return host?.replace(/[[\]]/g, "").toLowerCase();
}

/** Says whether a host is another one, or has a name below it, or both are this machine. */
function isWithin(inner: string, outer: string): boolean {
  return inner === outer || inner.endsWith(`.${outer}`) || [inner, outer].every((host) => LOOPBACK.includes(host));
}

/** Says whether a host fits a pattern, in which `*` stands for any text. */
function matches(host: string, pattern: string): boolean {
  const [first = "", ...others] = pattern.split("*");
  if (others.length === 0) return host === pattern;
  let rest = host.startsWith(first) ? host.slice(first.length) : undefined;
  for (const [index, part] of others.entries()) {
    if (rest === undefined) return false;
    const last = index === others.length - 1;
    const at = last ? (rest.endsWith(part) ? rest.length - part.length : -1) : rest.indexOf(part);
    rest = at < 0 ? undefined : rest.slice(at + part.length);
  }
  return rest !== undefined;
}

/** Refuses what Node.js would look up as the name of a host. */
function checkAddress(service: string, address: unknown): void {
  if (typeof address !== "string") throw new TypeError(`${service} takes an address, not ${shown(address)}.`);
  if (/^https?:/.test(address)) {
    throw new TypeError(`${service} is an address without http://, for example localhost:50051.`);
  }
  if (!/:[^:]/.test(address)) {
    throw new TypeError(`${service} needs a port, for example ${address.replace(/:$/, "")}:50051.`);
  }
}

/** Refuses what plain JavaScript lets through. */
function checkOptions({ tls, timeoutMs, streamTimeoutMs, retries = 0, follow = true }: ConnectionOptions): void {
  checkTimeout("timeoutMs", timeoutMs);
  checkTimeout("streamTimeoutMs", streamTimeoutMs);
  if (!Number.isInteger(retries) || retries < 0) {
    throw new TypeError(`retries takes whole numbers from 0 on, not ${shown(retries)}.`);
  }
  if (typeof follow !== "boolean" && !(Array.isArray(follow) && follow.every((host) => typeof host === "string"))) {
    throw new TypeError(`follow takes true, false or a list of hosts, not ${shown(follow)}.`);
  }
  if (tls !== undefined && (tls.certificate === undefined) !== (tls.key === undefined)) {
    throw new TypeError("tls takes certificate and key together, or neither of them.");
  }
}

/** Refuses what is not a limit of time; `name` is the caller's name for it. */
export function checkTimeout(name: string, timeoutMs: unknown): void {
  if (timeoutMs === undefined || timeoutMs === null) return;
  if (typeof timeoutMs !== "number" || !(timeoutMs >= 0 && timeoutMs < Infinity)) {
    throw new TypeError(`${name} takes milliseconds from 0 on, or null for no limit, not ${shown(timeoutMs)}.`);
  }
}
