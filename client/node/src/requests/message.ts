// Messages built from what callers give, by their descriptors in the schema.
//
// The encoder of the wire would send 1 for 1.5, true and "1", and nothing for a name that does
// not exist: here both are refused.

import { keyword } from "../keywords.js";
import { enumValues, message, type Field } from "../protos.js";
import { shown } from "../values/shown.js";
import { Tensor, tensorMessage } from "../values/tensor.js";
import { checkNames } from "./names.js";

type Fields = Readonly<Record<string, unknown>>;

const INT32 = 2 ** 31;

/**
 * Builds a message of the schema.
 *
 * @param type its name
 * @param given its fields; undefined and null are unset. Enumerations have their short names,
 *   lists of ids are arrays, durations are seconds, vectors are arrays of numbers
 * @param path where it is in a request, for errors, which name the caller's keyword for it
 */
export function build<Result>(type: string, given: object, path = ""): Result {
  const { field: fields } = message(type);
  const existing = fields.map(({ name }) => name);
  checkNames(given, existing, `a field of ${path ? keyword(path) : type}`);
  const built: Record<string, unknown> = {};
  for (const field of fields) {
    const value = (given as Fields)[field.name];
    if (value === undefined || value === null) continue;
    built[field.name] = convert(type, field, value, path ? `${path}.${field.name}` : field.name);
  }
  return built as Result;
}

/** Reads one whole number that fits 32 bits; `where` names it in the error. */
export function wholeNumber(value: unknown, where: string): number {
  const number = typeof value === "bigint" ? Number(value) : value;
  if (typeof number !== "number" || !Number.isInteger(number)) {
    throw refused(where, "takes whole numbers", value);
  }
  if (number < -INT32 || number >= INT32) throw refused(where, "takes whole numbers of 32 bits", value);
  return number;
}

/** Reads the ids of one sequence, for example of an `Int32Array`. */
export function idRow(values: unknown, where: string): number[] {
  if (typeof values !== "object" || values === null || !("length" in values)) {
    throw refused(where, "takes rows of token ids, for example [[1, 2], [3]]", values);
  }
  return Array.from(values as ArrayLike<unknown>, (value) => wholeNumber(value, where));
}

function convert(type: string, field: Field, value: unknown, where: string): unknown {
  const entry = message(type).nestedType.find(({ name }) => name === field.typeName);
  if (entry !== undefined) return convertMap(entry.field, value, where);
  if (field.label !== "LABEL_REPEATED") return convertOne(field, value, where);
  if (typeof value !== "object" || !("length" in value!)) {
    throw refused(where, "takes a list", value);
  }
  return Array.from(value as ArrayLike<unknown>, (each, index) => convertOne(field, each, `${where}[${index}]`));
}

function convertMap([key, entry]: Field[], value: unknown, where: string): object {
  const pairs = value instanceof Map ? [...value.entries()] : Object.entries(object(value, where));
  for (const [name] of pairs) if (key!.type === "TYPE_INT32") wholeNumber(Number(name), where);
  return Object.fromEntries(
    pairs.map(([name, each]) => [String(name), convertOne(entry!, each, `${where}[${String(name)}]`)]),
  );
}

function convertOne(field: Field, value: unknown, where: string): unknown {
  switch (field.type) {
    case "TYPE_INT32":
      return wholeNumber(value, where);
    case "TYPE_INT64":
      if (typeof value !== "bigint" && !Number.isSafeInteger(value)) {
        const large = typeof value === "number" && Number.isInteger(value);
        throw refused(where, large ? "takes whole numbers beyond 2^53 as bigints" : "takes whole numbers", value);
      }
      return String(value);
    case "TYPE_FLOAT":
    case "TYPE_DOUBLE":
      return typed("number", value, where);
    case "TYPE_BOOL":
      return typed("boolean", value, where);
    case "TYPE_STRING":
      return typed("string", value, where);
    case "TYPE_BYTES":
      if (value instanceof Uint8Array) return value;
      throw refused(where, "takes bytes", value);
    case "TYPE_ENUM":
      return enumValue(field.typeName, value, where);
    default:
      return convertMessage(field.typeName.replace(/^.*\./, ""), value, where);
  }
}

function convertMessage(type: string, value: unknown, where: string): unknown {
  switch (type) {
    case "TokenIdList":
    case "TokenSequence":
      return { ids: typeof value === "object" ? idRow(value, where) : [wholeNumber(value, where)] };
    case "Duration": {
      const nanoseconds = Math.round((typed("number", value, where) as number) * 1e9);
      const seconds = Math.trunc(nanoseconds / 1e9);
      return { seconds: String(seconds), nanos: nanoseconds - seconds * 1e9 };
    }
    case "Tensor": {
      if (value instanceof Tensor) return tensorMessage(value);
      const vector = Float32Array.from(object(value, where) as ArrayLike<number>);
      return tensorMessage(new Tensor(vector, [vector.length]));
    }
    default:
      return build(type, object(value, where), where);
  }
}

function enumValue(type: string, value: unknown, where: string): string {
  const [unspecified = "", ...names] = enumValues(type);
  const prefix = unspecified.slice(0, -"UNSPECIFIED".length);
  const found = names.find((name) => name === prefix + String(value).toUpperCase());
  if (found !== undefined) return found;
  const choices = names.map((name) => `'${name.slice(prefix.length).toLowerCase()}'`).join(", ");
  throw refused(where, `is one of ${choices}`, value);
}

function typed(kind: "number" | "boolean" | "string", value: unknown, where: string): unknown {
  if (typeof value === kind) return value;
  throw refused(where, `takes a ${kind}`, value);
}

function object(value: unknown, where: string): object {
  if (typeof value === "object" && value !== null) return value;
  throw refused(where, "takes an object", value);
}

/** Builds the error of a value that does not fit; `expected` says what would. */
function refused(where: string, expected: string, value: unknown): TypeError {
  return new TypeError(`${keyword(where)} ${expected}, not ${shown(value)}.`);
}
