// Makes one call of a tokenizer service that fails the first ones, or wants a certificate.

import { readFileSync } from "node:fs";

import { all, connect, failure, print } from "./probe.mjs";

const file = (name) => (process.env[name] ? readFileSync(process.env[name]) : undefined);
const { CA, METHOD, RETRIES = "3", TOKEN } = process.env;
const tls = CA ? { ca: file("CA"), certificate: file("CERTIFICATE"), key: file("KEY") } : undefined;
const shown = TOKEN ? { token: () => TOKEN, tokenInPlainText: true } : {};
const client = connect({ tls, retries: Number(RETRIES), ...shown });
const calls = {
  encode: () => client.tokenizer.encode("x"),
  vocabulary: () => all(client.tokenizer.vocabulary()),
  decoder: async () => {
    const decoder = client.tokenizer.openDecoder();
    await decoder.feed([5]);
    await decoder.feed([6]);
    await decoder.end();
  },
  importPieces: () => client.vocabulary.importRevisions([Buffer.from("a"), Buffer.from("b")]),
  importOnce: () => client.vocabulary.importRevisions([Buffer.from("c")].values()),
  thousand: () => Promise.all(Array.from({ length: 1000 }, () => client.tokenizer.encode("x"))),
  ready: () => client.waitUntilReady(1_000),
};
print({ failure: await failure(calls[METHOD]) });
client.close();
