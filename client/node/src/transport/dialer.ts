// How a service is dialed, and dialed anew when the replica that was reached shuts down.
//
// A balancer of connections keeps a connection where it once went. So a client with one would stay
// with a replica that takes no new work until its process ends, while others could serve it.

import { Client } from "@grpc/grpc-js";

import { ConnectionFailed, ServiceError } from "../errors.js";
import type { Endpoint } from "./endpoint.js";
import type { Route } from "./route.js";

/** A service that answers as one that shuts down is not dialed more often. */
const MIN_AGE_MS = 1_000;

/** What calls of a service go over. */
export class Dialed {
  readonly openedAt = Date.now();

  constructor(readonly client: Client) {}
}

/** Closes clients that nothing uses any more. */
const forgotten = new FinalizationRegistry<Client>((client) => client.close());

/**
 * Gives calls what they go over. What has begun over it goes on over it, sessions too, as their
 * replica lets them until it ends.
 */
export class Dialer {
  #newest: Dialed;
  readonly #own = new WeakSet<Dialed>();
  readonly #open: WeakRef<Dialed>[] = [];

  constructor(private readonly endpoint: Endpoint) {
    this.#newest = this.#dial(true);
  }

  /** Returns what a call goes over: for a session the same as long as its replica answers. */
  for({ dialed }: Route): Dialed {
    return dialed !== undefined && this.#own.has(dialed) ? dialed : this.#newest;
  }

  /** Takes how a call has failed: later ones may go over something else. */
  failed(dialed: Dialed, route: Route, error: unknown): void {
    const drains = error instanceof ServiceError && error.reason === "DRAINING";
    const isOld = Date.now() - dialed.openedAt >= MIN_AGE_MS;
    if (drains && dialed === this.#newest && isOld) this.#newest = this.#dial(false);
    if (drains || error instanceof ConnectionFailed) route.dialed = undefined;
  }

  /** Closes all that is in use; running calls are cancelled. */
  close(): void {
    for (const each of this.#open) each.deref()?.client.close();
  }

  /** Dials; a connection that is there is taken only where it may be shared. */
  #dial(shared: boolean): Dialed {
    const { address } = this.endpoint;
    const client = new Client(address, this.endpoint.credentials(), this.endpoint.channelOptions(shared));
    const dialed = new Dialed(client);
    forgotten.register(dialed, client);
    this.#own.add(dialed);
    this.#open.push(new WeakRef(dialed));
    return dialed;
  }
}
