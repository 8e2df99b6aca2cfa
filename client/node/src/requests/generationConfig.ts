// How tokens are chosen: keywords to the configuration of the wire, and back.

import type { GenerationOptions } from "../options.js";
import { enumValues, message, type Field } from "../protos.js";
import type { GenerationConfig, GenerationConfig__Output } from "../schema/lockstep/v1/GenerationConfig.js";
import { build } from "./message.js";

// Keywords whose field has another name.
const FIELDS: Readonly<Record<string, string>> = {
  eosTokenId: "eosTokenIds",
  forcedEosTokenId: "forcedEosTokenIds",
};
const KEYWORDS = Object.fromEntries(Object.entries(FIELDS).map(([name, field]) => [field, name]));

/** Builds the wire form; undefined when no keyword is given. */
export function generationConfig(options: GenerationOptions): GenerationConfig | undefined {
  const given = Object.entries(options as Record<string, unknown>).filter(
    ([, value]) => value !== undefined && value !== null,
  );
  if (given.length === 0) return undefined;
  const fields = given.map(([name, value]) => [FIELDS[name] ?? name, SHAPES[name]?.(value) ?? value]);
  return build("GenerationConfig", Object.fromEntries(fields) as object, "generationConfig");
}

// Keywords that callers give in another shape than the schema's. A value that does not have it
// is left as it is, and refused by its type.
const SHAPES: Readonly<Record<string, (value: unknown) => unknown>> = {
  stopStrings: (value) => (typeof value === "string" ? [value] : value),
  stopTokenIds: (value) => (typeof value === "number" ? [value] : value),
  exponentialDecayLengthPenalty: (value) =>
    Array.isArray(value) ? { startIndex: value[0] as unknown, decayFactor: value[1] as unknown } : value,
  sequenceBias: (value) =>
    mapped(value, (pair) =>
      Array.isArray(pair) ? { ids: pair[0] as unknown, bias: pair[1] as unknown } : pair,
    ),
  processors: (value) => mapped(value, processor),
};

function mapped(value: unknown, convert: (each: unknown) => unknown): unknown {
  return Array.isArray(value) ? value.map(convert) : value;
}

/** Builds one of a pipeline from its name, or its name and arguments, as an object or as JSON. */
function processor(given: unknown): unknown {
  if (typeof given === "string") return { name: given };
  if (!Array.isArray(given)) return given;
  const [name, argumentsOf] = given as unknown[];
  const json = typeof argumentsOf === "string" ? argumentsOf : JSON.stringify(argumentsOf ?? {});
  return { name, argumentsJson: json };
}

/** Returns the keywords that give this configuration. */
export function generationOptions(config: GenerationConfig__Output | null): GenerationOptions {
  return (config ? plain("GenerationConfig", config) : {}) as GenerationOptions;
}

function plain(type: string, given: object): Record<string, unknown> {
  const options: Record<string, unknown> = {};
  for (const field of message(type).field) {
    const value = (given as Record<string, unknown>)[field.name];
    if (isUnset(value)) continue;
    options[KEYWORDS[field.name] ?? field.name] = Array.isArray(value)
      ? value.map((each) => plainOne(field, each))
      : plainOne(field, value);
  }
  return options;
}

function isUnset(value: unknown): boolean {
  if (value === undefined || value === null) return true;
  if (typeof value === "string") return value.endsWith("_UNSPECIFIED");
  return typeof value === "object" && !("ids" in value) && Object.keys(value).length === 0;
}

function plainOne(field: Field, value: unknown): unknown {
  if (field.type === "TYPE_ENUM") return plainEnum(field.typeName, String(value));
  if (field.type === "TYPE_INT64") return BigInt(String(value));
  if (field.type === "TYPE_FLOAT") return shortest(value as number);
  if (field.type !== "TYPE_MESSAGE") return value;
  const parts = value as Record<string, unknown>;
  switch (field.typeName.replace(/^.*\./, "")) {
    case "TokenIdList":
    case "TokenSequence":
      return parts["ids"];
    case "Duration":
      return Number(parts["seconds"]) + Number(parts["nanos"]) / 1e9;
    case "SequenceBias":
      return [parts["ids"], shortest(parts["bias"] as number)];
    case "ExponentialDecayLengthPenalty":
      return [parts["startIndex"], shortest(parts["decayFactor"] as number)];
    case "LogitsProcessorSpec":
      return [parts["name"], parts["argumentsJson"]];
    case "LogitBias":
      return Object.fromEntries(Object.entries(parts).map(([id, bias]) => [id, shortest(bias as number)]));
    default:
      return plain(field.typeName, parts);
  }
}

function plainEnum(type: string, value: string): unknown {
  const [unspecified = ""] = enumValues(type);
  const name = value.slice(unspecified.length - "UNSPECIFIED".length).toLowerCase();
  return name === "true" || name === "false" ? name === "true" : name;
}

/** Returns the shortest decimal that is the same 32-bit float: 0.7, not 0.699999988. */
function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const decimal = Number(value.toPrecision(digits));
    if (Math.fround(decimal) === value) return decimal;
  }
  return value;
}
