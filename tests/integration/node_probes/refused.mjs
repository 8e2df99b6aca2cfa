// Calls a peer that refuses every other call without having looked at it, with repetition off.

import { createServer, constants } from "node:http2";

import { all, connect, failure, print } from "./probe.mjs";

const EMPTY_MESSAGE = Buffer.alloc(5);

let numStreams = 0;
const peer = createServer();
peer.on("stream", (stream) => {
  numStreams += 1;
  stream.on("error", () => {}); // its own refusal
  if (numStreams % 2 === 1) {
    stream.close(constants.NGHTTP2_REFUSED_STREAM);
    return;
  }
  stream.respond({ ":status": 200, "content-type": "application/grpc+proto" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.end(EMPTY_MESSAGE);
});
await new Promise((listening) => peer.listen(0, "127.0.0.1", listening));

const address = `127.0.0.1:${peer.address().port}`;
const client = connect({ tokenizer: address, model: address, retries: 0 });
const encode = await failure(() => client.tokenizer.encode("x"));
const openSession = await failure(() => client.model.openSession([[5]]));
const vocabulary = await failure(() => all(client.tokenizer.vocabulary()));
print({ encode, openSession, vocabulary, numStreams });
client.close();
peer.close();
process.exit(0); // connections of the peer
