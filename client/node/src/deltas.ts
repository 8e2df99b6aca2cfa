// The tokens of a running generation.

import { MODEL } from "./protos.js";
import type { GenerationAssembler } from "./results/assembly.js";
import type { TokenDelta } from "./results/generation.js";
import type { GenerateRequest } from "./schema/lockstep/v1/GenerateRequest.js";
import type { Connection } from "./transport/connection.js";
import type { CallOptions } from "./transport/endpoint.js";
import type { Route } from "./transport/route.js";

/** Runs a generation; leaving the generator cancels it. The assembler has the result in the end. */
export async function* deltas(
  connection: Connection,
  request: GenerateRequest,
  assembler: GenerationAssembler,
  options: CallOptions,
  route?: Route,
): AsyncGenerator<TokenDelta> {
  for await (const event of connection.stream(MODEL.GenerateStream, { request }, options, route)) {
    yield* assembler.feed(event);
  }
}
