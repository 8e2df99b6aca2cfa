// Makes the calls of an answer as part of a trace, and a call with an id of the caller's own.

import { connect, print } from "./probe.mjs";

const client = connect();
const { TRACEPARENT: traceparent, REQUEST_ID: requestId } = process.env;
const answer = await client.generate("The capital of France is", { maxNewTokens: 3, traceparent });
await client.tokenizer.encode("x", { requestId });
client.close();
print({ text: answer.text });
