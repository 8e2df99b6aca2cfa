// Uses the TypeScript client and prints what it got, as one JSON object.
//
//   node node_client_probe.mjs <folder of the built client>

import { join } from "node:path";
import { pathToFileURL } from "node:url";

const folder = process.argv[2];
const { Lockstep } = await import(pathToFileURL(join(folder, "dist", "src", "index.js")));

const TEXTS = ["The capital of France is", "Grüße aus 東京 🙂"];
const CONFIG = { maxNewTokens: 12, doSample: false, eosTokenIds: { ids: [] } };
const SAMPLING = { maxNewTokens: 12, doSample: true, temperature: 1.5, topK: 0, seed: "11" };

const client = new Lockstep({
  tokenizer: process.env.LOCKSTEP_TOKENIZER,
  model: process.env.LOCKSTEP_MODEL,
});

async function failure(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    const { name, code, reason, metadata, message } = error;
    return { name, code, reason, metadata, message };
  }
}

async function streamed(batch) {
  const ids = batch.tokenIds.map(() => []);
  const finishReasons = batch.tokenIds.map(() => null);
  for await (const event of client.generateStream(batch, CONFIG)) {
    if ("id" in event) ids[event.promptIndex].push(event.id);
    else finishReasons[event.promptIndex] = event.finishReason;
  }
  return { ids, finishReasons };
}

async function left() {
  for await (const event of client.generateStream([[5, 6]], { ...CONFIG, maxNewTokens: 200 })) {
    return event;
  }
}

const batch = await client.encode(TEXTS);
const greedy = await client.generate(batch, CONFIG);
const sampled = await client.generate(batch, SAMPLING);
const nobody = new Lockstep({ tokenizer: "localhost:1", timeoutMs: 5000 });
const silent = new Lockstep({ model: process.env.SILENT, streamTimeoutMs: 500 });
const closed = new Lockstep();
closed.close();
const answer = {
  batch,
  decoded: await client.decode(batch),
  greedy: greedy.sequences.map((sequence) => sequence.tokenIds),
  sampled: sampled.sequences.map((sequence) => sequence.tokenIds),
  seeds: sampled.sequences.map((sequence) => sequence.seed),
  streamed: await streamed(batch),
  left: await left(),
  emptyPrompt: await failure(client.generate([[]])),
  emptyPromptStreamed: await failure(client.generateStream([[]]).next()),
  noIds: await Promise.all(
    [1.5, true, "1"].map(async (id) => [
      await failure(client.generate([[id]])),
      await failure(client.decode([[5, id]])),
    ]),
  ),
  noIdsOfConfig: await Promise.all(
    [1.5, true, "1"].flatMap((id) =>
      [
        { stopTokenIds: [5, id] },
        { eosTokenIds: { ids: [id] } },
        { badWordsIds: [{ ids: [5] }, { ids: [id] }] },
        { sequenceBias: [{ ids: [5, id], bias: 1 }] },
        { forcedBosTokenId: id },
        { maxNewTokens: id },
      ].map(async (config) => [
        await failure(client.generate([[5]], config)),
        await failure(client.generateStream([[5]], config).next()),
      ]),
    ),
  ),
  noKey: await failure(client.generate([[5]], { logitBias: { 1.5: 1 } })),
  unknownId: await failure(client.decode([[99999]])),
  nobody: await failure(nobody.encode(["x"])),
  silent: await failure(silent.generateStream([[5]]).next()),
  closed: await failure(closed.encode(["x"])),
  closedStreamed: await failure(closed.generateStream([[5]]).next()),
};
nobody.close();
silent.close();
client.close();
console.log(JSON.stringify(answer));
