// Makes calls that are refused, here or by a service, and calls that nobody answers.

import { connect, failure, lockstep, print } from "./probe.mjs";

const { Lockstep } = lockstep;
const LARGE = "x".repeat(2_000_000);
const NO_IDS = [1.5, true, "1", NaN];

const client = connect();
const { tokenizer, model } = client;
const once = (options) => new Lockstep({ retries: 0, ...options });
const closed = connect();
closed.close();
const aborted = new AbortController();
setTimeout(() => aborted.abort(new Error("enough")), 100);

async function left() {
  const stream = model.stream([[5, 6]], { maxNewTokens: 200, eosTokenId: [] });
  for await (const { tokenIds } of stream) return { tokenIds, result: await failure(() => stream.result) };
}

async function closedWhileRunning() {
  const other = connect();
  setTimeout(() => other.close(), 100);
  return failure(() => other.model.generate([[5, 6]], { maxNewTokens: 240, eosTokenId: [] }));
}

print({
  token: await failure(() => new Lockstep({ token: "secret" })),
  left: await left(),
  names: {
    generate: await failure(() => model.generate([[5]], { max_new_tokens: 3 })),
    stream: await failure(() => client.stream("x", { maxNewToken: 3 })),
    encode: await failure(() => tokenizer.encode("x", { paddding: true })),
    client: await failure(() => new Lockstep({ tokeniser: "localhost:1" })),
    nothingClose: await failure(() => model.load({ streamer: 1 })),
    elsewhere: await failure(() => client.generate("x", { stop: ["."] })),
    harmless: await failure(() => model.generate([[5]], { pad_token_id: 0 })),
    nested: await failure(() => model.generate([[5]], { greenListWatermark: { bia: 2 } })),
    selection: await failure(() => model.score([[5, 6]], undefined, { selection: { top_k: 2 } })),
  },
  values: {
    errors: await failure(() => model.generate([[5]], { errors: "ignore" })),
    choice: await failure(() => model.generate([[5]], { seedMode: "torc" })),
    number: await failure(() => model.generate([[5]], { temperature: "0.5" })),
    boolean: await failure(() => model.generate([[5]], { doSample: 1 })),
    seed: await failure(() => model.generate([[5]], { seed: 2 ** 60 })),
    row: await failure(() => model.generate([5])),
    continuation: await failure(() => model.score([[5], [6]], [[1], [1.5]])),
    list: await failure(() => tokenizer.encode(["x", [5, "y"]])),
    ttl: await failure(() => model.generate([[5]], { keepSession: { ttlS: "1" } })),
    text: await failure(() => model.generate("text")),
    role: await failure(() => client.generate([{ content: "x" }])),
    several: await failure(() => client.generate("x", { numReturnSequences: 2 })),
    truncation: await failure(() => tokenizer.encode("x", { truncation: true })),
    ragged: await failure(async () => (await tokenizer.encode(["x", "xyz zyx"])).inputIds),
    address: await failure(() => new Lockstep({ model: "http://localhost:50052" })),
    port: await failure(() => new Lockstep({ model: "localhost" })),
    timeout: await failure(() => model.info({ timeoutMs: "5" })),
    timeoutOfClient: await failure(() => new Lockstep({ streamTimeoutMs: NaN })),
    retries: await failure(() => new Lockstep({ retries: -1 })),
    follow: await failure(() => new Lockstep({ follow: "all" })),
    certificate: await failure(() => new Lockstep({ tls: { certificate: Buffer.from("x") } })),
  },
  noIds: await Promise.all(
    NO_IDS.flatMap((id) =>
      [
        () => model.generate([[id]]),
        () => tokenizer.decode([[5, id]]),
        () => model.generate([[5]], { stopTokenIds: [5, id] }),
        () => model.generate([[5]], { eosTokenId: id }),
        () => model.generate([[5]], { badWordsIds: [[5], [id]] }),
        () => model.generate([[5]], { sequenceBias: [[[5, id], 1]] }),
        () => model.generate([[5]], { forcedBosTokenId: id }),
        () => model.generate([[5]], { maxNewTokens: id }),
        () => model.generate([[5]], { seed: id }),
        () => model.stream([[5]], { maxNewTokens: id }).next(),
      ].map(failure),
    ).concat(failure(() => model.generate([[5]], { logitBias: { 1.5: 1 } }))),
  ),
  refused: {
    unknownId: await failure(() => tokenizer.decode([[99999]])),
    empty: await failure(() => model.generate([[]])),
    emptyStreamed: await failure(() => model.stream([[]]).next()),
    fields: await failure(() => model.generate([[5]], { doSample: true, temperature: 0, topP: 2 })),
    unmet: await failure(() => model.generate([[5]], { temperature: 0.5, doSample: false })),
    argument: await failure(() => model.generate([[5]], { doSample: true, processors: [["top_k", { top_k: -1 }]] })),
    session: await failure(() => model.getSession("nowhere")),
  },
  named: {
    text: await failure(() => client.generate("")),
    entry: await failure(() => client.generate(["a", ""])),
    long: await failure(() => client.generate("x".repeat(3000))),
    streamed: await failure(() => client.stream("").next()),
    distribution: await failure(() => client.distribution("")),
    candidates: await failure(() => client.distribution("a", { candidates: 1000 })),
    perplexity: await failure(() => client.perplexity("")),
    perplexities: await failure(() => client.perplexity(["abc abc", ""])),
    negative: await failure(() => client.generate("a", { negativePrompt: LARGE, guidanceScale: 2 })),
    role: await failure(() => client.generate([{ role: "", content: "a" }])),
    conversation: await failure(() => tokenizer.applyChatTemplate([[{ role: "user", content: "a" }], []])),
    encoded: await failure(() => tokenizer.encode(["a", LARGE])),
    counted: await failure(() => tokenizer.countTokens(LARGE)),
    row: await failure(() => tokenizer.decode([1000000])),
    none: await failure(() => client.generate("a", { allowedTokenIds: [5], suppressTokens: [5] })),
  },
  nobody: {
    refused: await failure(() => once({ model: "localhost:1" }).model.info()),
    streamed: await failure(() => once({ model: "localhost:1" }).model.stream([[5]]).next()),
    duplex: await failure(() => once({ tokenizer: "localhost:1" }).tokenizer.openDecoder().feed([5])),
    tls: await failure(() => once({ model: process.env.LOCKSTEP_MODEL, tls: {} }).model.info()),
    ready: await failure(() => once({ tokenizer: "localhost:1" }).waitUntilReady(500)),
  },
  swapped: await failure(() => once({ model: process.env.LOCKSTEP_TOKENIZER }).model.info()),
  silent: await Promise.all(
    [
      (silent) => silent.tokenizer.encode("x", { timeoutMs: 300 }),
      (silent) => silent.model.stream([[5]], { timeoutMs: 300 }).next(),
      (silent) => silent.tokenizer.openDecoder({ timeoutMs: 300 }).feed([5]),
      (silent) => silent.vocabulary.importRevisions(Buffer.alloc(9), { timeoutMs: 300 }),
    ].map((call) => failure(() => call(once({ tokenizer: process.env.SILENT, model: process.env.SILENT })))),
  ),
  aborted: await failure(() =>
    model.generate([[5, 6]], { maxNewTokens: 240, eosTokenId: [], signal: aborted.signal }),
  ),
  closed: [
    await failure(() => closed.tokenizer.encode("x")),
    await failure(() => closed.model.stream([[5]]).next()),
    await closedWhileRunning(),
  ],
});
client.close();
process.exit(0); // the silent peer keeps connections open
