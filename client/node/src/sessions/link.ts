// Where a session is reached: through the client's connection, or at its replica alone.

import { ConnectionFailed, ServiceError } from "../errors.js";
import type { Connection } from "../transport/connection.js";
import { Route } from "../transport/route.js";

/** How often one call is sent to another replica, before it fails. */
const MOST_MOVES = 3;

/**
 * The connection that calls of a session use, which changes when its replica is told. A replica
 * that has not the session does nothing with a call, so that any call may be sent again.
 */
export class SessionLink {
  /** The connection in use. */
  connection: Connection;

  /**
   * @param home the client's connection
   * @param route what gateways are told
   */
  constructor(
    readonly home: Connection,
    readonly route = new Route(),
  ) {
    this.connection = home;
  }

  /** Returns the link of a session that the same replica has. */
  fork(sessionId: string): SessionLink {
    const link = new SessionLink(this.home, new Route(sessionId, this.route.token, this.route.dialed));
    link.connection = this.connection;
    return link;
  }

  /** Makes calls of the session, again at its replica where they have reached another. */
  async reach<Result>(use: () => Promise<Result>): Promise<Result> {
    for (let moves = 0; moves < MOST_MOVES; moves++) {
      try {
        return await use();
      } catch (error) {
        if (error instanceof ConnectionFailed) this.connection = this.home;
        const elsewhere = error instanceof ServiceError && error.reason === "SESSION_ON_OTHER_REPLICA";
        if (!elsewhere || !this.#move(error)) throw error;
      }
    }
    return use();
  }

  /** Goes where the session is said to be. Returns whether that is somewhere else. */
  #move({ metadata }: ServiceError): boolean {
    const place = this.home.replica(metadata["address"] ?? "") ?? this.home;
    if (place !== this.connection) {
      this.connection = place;
      return true;
    }
    const { token } = this.route;
    this.route.name(metadata["replica"] ?? "");
    return this.route.token !== token;
  }
}
