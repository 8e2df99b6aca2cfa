// Loads the schema that `npm run protos` copied.

import { fileURLToPath } from "node:url";

import { loadPackageDefinition } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

import type { ProtoGrpcType as ModelGrpcType } from "./schema/model_service.js";
import type { ProtoGrpcType as TokenizerGrpcType } from "./schema/tokenizer_service.js";

const PROTOS = fileURLToPath(new URL("../../protos", import.meta.url));

/** The schema as it was read. */
export const definition = loadSync(
  ["lockstep/v1/tokenizer_service.proto", "lockstep/v1/model_service.proto"],
  // The options of scripts/protos.mjs, which generates types for what they give.
  { includeDirs: [PROTOS], longs: String, enums: String, defaults: true, oneofs: true },
);

const loaded = loadPackageDefinition(definition) as unknown as TokenizerGrpcType & ModelGrpcType;

/** Constructors of the generated clients. */
export const { TokenizerService, ModelService } = loaded.lockstep.v1;
