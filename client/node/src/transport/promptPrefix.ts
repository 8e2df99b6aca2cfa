// Names the beginning of a prompt to gateways, so that equal beginnings meet at one replica: by a
// keyed hash, from which no prompt can be told without the key. As in the Python client.

import { createHmac, randomBytes } from "node:crypto";

import type { Metadata } from "@grpc/grpc-js";

import type { PromptBatch } from "../schema/lockstep/v1/PromptBatch.js";
import type { Tensor } from "../schema/lockstep/v1/Tensor.js";

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
  const ids = inner.prompt === undefined ? [] : firstRow(inner.prompt);
  if (ids.length < NUM_TOKENS) return;
  const data = Buffer.alloc(4 * NUM_TOKENS);
  ids.slice(0, NUM_TOKENS).forEach((id, index) => data.writeInt32LE(Number(id), 4 * index));
  const digest = createHmac("sha256", SECRET).update(data).update(inner.cacheSalt ?? "").digest("hex");
  metadata.set(KEY, digest.slice(0, NUM_DIGITS));
}

function firstRow({ tokenBatch, paddedBatch }: PromptBatch): readonly number[] {
  if (paddedBatch) {
    const mask = integers(paddedBatch.attentionMask);
    const width = Number(paddedBatch.inputIds?.shape?.[1] ?? 0);
    return integers(paddedBatch.inputIds).slice(0, width).filter((_, column) => mask[column] === 1);
  }
  return Array.from((tokenBatch?.sequences?.[0]?.ids ?? []) as readonly number[]);
}

/** Reads a tensor of int64 as the client writes it. */
function integers(tensor: Tensor | null | undefined): number[] {
  const bytes = Buffer.from((tensor?.data ?? []) as Uint8Array);
  return Array.from({ length: bytes.length / 8 }, (_, index) => Number(bytes.readBigInt64LE(8 * index)));
}
