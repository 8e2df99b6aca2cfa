// A peer without a service behind it.

import { constants, createServer } from "node:http2";

const EMPTY_MESSAGE = Buffer.alloc(5);

/**
 * Answers calls with an empty message.
 *
 * @param look is shown the headers of each call; where it says false, the call is refused as one
 *   that was not looked at
 */
export async function emptyPeer(look) {
  const peer = createServer();
  const sessions = new Set();
  peer.on("session", (session) => sessions.add(session));
  peer.on("stream", (stream, headers) => {
    stream.on("error", () => {}); // its own refusal
    if (look(headers) === false) {
      stream.close(constants.NGHTTP2_REFUSED_STREAM);
      return;
    }
    stream.respond({ ":status": 200, "content-type": "application/grpc+proto" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end(EMPTY_MESSAGE);
  });
  await new Promise((listening) => peer.listen(0, "127.0.0.1", listening));
  const close = () => {
    for (const session of sessions) session.destroy();
    peer.close();
  };
  return { address: `127.0.0.1:${peer.address().port}`, close };
}
