// Names the beginning of a prompt to gateways, so that equal beginnings meet at one replica: by a
// keyed hash, from which no prompt can be told without the key. As in the Python client.

import { createHmac, randomBytes } from "node:crypto";

import type { Metadata } from "@grpc/grpc-js";

import type { PromptBatch } from "../schema/lockstep/v1/PromptBatch.js";
import { promptRows } from "../values/promptRows.js";

const KEY = "x-lockstep-prefix";
/** Tokens that are hashed. A shorter prompt has little that could be reused, and no header. */
const NUM_TOKENS = 64;
const NUM_DIGITS = 16;
const SECRET = Buffer.from(process.env["LOCKSTEP_PREFIX_KEY"] || randomBytes(32));
const SWITCHED_OFF = ["off", "0", "false"].includes(process.env["LOCKSTEP_PREFIX_ROUTING"]?.toLowerCase() ?? "");

/** Says whether prompts are named: by the client's option, or else by the environment. */
export function isRouted(option: boolean | undefined): boolean {
  return option ?? !SWITCHED_OFF;
}

/** Adds what names the beginning of the first prompt of a request, if it has a long one. */
export function addPrefix(metadata: Metadata, request: object): void {
  const wrapped = request as { request?: object; generateRequest?: object };
  const inner = (wrapped.request ?? wrapped.generateRequest ?? request) as {
    prompt?: PromptBatch;
    cacheSalt?: string;
  };
  const [ids = []] = promptRows(inner.prompt);
  if (ids.length < NUM_TOKENS) return;
  const data = Int32Array.from(ids.slice(0, NUM_TOKENS));
  const digest = createHmac("sha256", SECRET).update(data).update(inner.cacheSalt ?? "").digest("hex");
  metadata.set(KEY, digest.slice(0, NUM_DIGITS));
}
