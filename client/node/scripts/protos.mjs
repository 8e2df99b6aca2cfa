// Copies the schema from the repository and generates its TypeScript types.
// LOCKSTEP_PROTOS names the folder where the repository is not around this one.

import { execFileSync } from "node:child_process";
import { cpSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const source = process.env.LOCKSTEP_PROTOS ?? join(root, "..", "..", "protos");
const protos = join(root, "protos");
const schema = join(root, "src", "schema");

rmSync(protos, { recursive: true, force: true });
rmSync(schema, { recursive: true, force: true });
cpSync(join(source, "lockstep"), join(protos, "lockstep"), { recursive: true });
cpSync(join(source, "service_config.json"), join(protos, "service_config.json"));

execFileSync(
  join(root, "node_modules", ".bin", "proto-loader-gen-types"),
  [
    // The options of src/protos.ts, which loads the same files.
    "--longs=String",
    "--enums=String",
    "--defaults",
    "--grpcLib=@grpc/grpc-js",
    "--importFileExtension=.js",
    "--includeComments",
    `--includeDirs=${protos}`,
    `--outDir=${schema}`,
    "lockstep/v1/logits_session_service.proto",
    "lockstep/v1/model_info_service.proto",
    "lockstep/v1/model_service.proto",
    "lockstep/v1/tokenizer_service.proto",
    "lockstep/v1/vocabulary_admin_service.proto",
  ],
  { stdio: ["ignore", "ignore", "inherit"] },
);
