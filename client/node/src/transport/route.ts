// How calls of a session find its replica, and what they say for gateways.

import type { Metadata } from "@grpc/grpc-js";

import type { Dialed } from "./dialer.js";

const TOKEN_KEY = "x-session-token";
const ID_KEY = "x-session-id";

/** How the replica of a session is found. */
export class Route {
  /**
   * @param sessionId the session; empty before it is opened
   * @param token what the service, or a gateway before it, has written; it is sent back as it is
   * @param dialed what its replica was reached over; undefined for whatever is newest
   */
  constructor(
    public sessionId = "",
    public token = "",
    public dialed?: Dialed,
  ) {}

  /** Adds what goes with each call to what it is sent with. */
  metadata(metadata: Metadata): Metadata {
    if (this.sessionId) metadata.set(ID_KEY, this.sessionId);
    if (this.token) metadata.set(TOKEN_KEY, this.token);
    return metadata;
  }

  /** Takes the name of the session's replica, where no answer has brought a token. */
  name(replica: string): void {
    this.token ||= Buffer.from(replica).toString("base64");
  }

  /** Takes what an answer says in its initial metadata. */
  take(metadata: Metadata): void {
    const [token] = metadata.get(TOKEN_KEY);
    if (typeof token === "string") this.token = token;
  }
}
