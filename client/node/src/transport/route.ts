// What calls of a session say about it beside their request, for gateways.

import type { Metadata } from "@grpc/grpc-js";

const TOKEN_KEY = "x-session-token";
const ID_KEY = "x-session-id";

/** How a gateway finds the replica of a session. */
export class Route {
  /**
   * @param sessionId the session; empty before it is opened
   * @param token what the service, or a gateway before it, has written; it is sent back as it is
   */
  constructor(
    public sessionId = "",
    public token = "",
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
