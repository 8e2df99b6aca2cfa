// Loads the schema that `npm run protos` copied.

import { fileURLToPath } from "node:url";

import { loadSync, type MessageTypeDefinition } from "@grpc/proto-loader";

import type { LogitsSessionServiceDefinition } from "./schema/lockstep/v1/LogitsSessionService.js";
import type { ModelInfoServiceDefinition } from "./schema/lockstep/v1/ModelInfoService.js";
import type { ModelServiceDefinition } from "./schema/lockstep/v1/ModelService.js";
import type { TokenizerServiceDefinition } from "./schema/lockstep/v1/TokenizerService.js";
import type { VocabularyAdminServiceDefinition } from "./schema/lockstep/v1/VocabularyAdminService.js";

const PROTOS = fileURLToPath(new URL("../../protos", import.meta.url));
const SERVICES = ["tokenizer", "vocabulary_admin", "model", "logits_session", "model_info"];

const definition = loadSync(
  SERVICES.map((name) => `lockstep/v1/${name}_service.proto`),
  // The options of scripts/protos.mjs, which generates types for what they give.
  { includeDirs: [PROTOS], longs: String, enums: String, defaults: true },
);

function service<Definition>(name: string): Definition {
  return definition[`lockstep.v1.${name}`] as unknown as Definition;
}

/** The methods of each service. */
export const TOKENIZER = service<TokenizerServiceDefinition>("TokenizerService");
export const VOCABULARY = service<VocabularyAdminServiceDefinition>("VocabularyAdminService");
export const MODEL = service<ModelServiceDefinition>("ModelService");
export const SESSIONS = service<LogitsSessionServiceDefinition>("LogitsSessionService");
export const MODEL_INFO = service<ModelInfoServiceDefinition>("ModelInfoService");

/** A field of a message, as its descriptor has it. */
export interface Field {
  /** In camelCase, as objects have it. */
  name: string;
  type: string;
  label: string;
  /** Message or enumeration, without its package where that is ours. */
  typeName: string;
}

/** A message of the schema: its fields, and the entries of its maps. */
export interface Message {
  name: string;
  field: Field[];
  nestedType: Message[];
}

/** Finds a message of the schema by its name. */
export function message(name: string): Message {
  return definition[`lockstep.v1.${name}`]?.type as Message;
}

const FIELDS = new Set(
  Object.values(definition).flatMap(({ type }) => ((type ?? {}) as Partial<Message>).field ?? []).map(({ name }) => name),
);

/** Says whether any message of the schema has a field of that name, in camelCase. */
export function isField(name: string): boolean {
  return FIELDS.has(name);
}

/** Returns a message as it is on the wire. */
export function serialized(name: string, given: object): Buffer {
  return (definition[`lockstep.v1.${name}`] as MessageTypeDefinition<object, object>).serialize(given);
}

/** The names of an enumeration's values, in order; the first one stands for none. */
export function enumValues(name: string): string[] {
  const { value } = definition[`lockstep.v1.${name}`]?.type as { value: { name: string }[] };
  return value.map((each) => each.name);
}
