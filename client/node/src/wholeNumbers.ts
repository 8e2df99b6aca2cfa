// Whole numbers: the encoder would send 1 for 1.5, true and "1".

import { definition } from "./protos.js";

interface Message {
  name: string;
  field: { name: string; type: string; typeName: string }[];
  nestedType: Message[];
}

/** Checks one number. `what` names it in the error. */
export function checkWholeNumber(value: unknown, what: string): void {
  if (!Number.isInteger(value)) {
    throw new TypeError(`${what} takes whole numbers, not ${String(value)}.`);
  }
}

/** Checks every 32-bit field of a message of the schema, and of the messages inside of it. */
export function checkWholeNumbers(message: object, type: string, what: string): void {
  const { field, nestedType } = definition[`lockstep.v1.${type}`]?.type as Message;
  for (const { name, type: kind, typeName } of field) {
    const given: unknown = (message as Record<string, unknown>)[name];
    if (given === undefined || given === null) continue;
    const where = `${what}.${name}`;
    if (nestedType.some((entry) => entry.name === typeName)) {
      // A map: its keys are texts to JavaScript.
      for (const key of Object.keys(given)) checkWholeNumber(Number(key), where);
      continue;
    }
    for (const one of Array.isArray(given) ? (given as unknown[]) : [given]) {
      if (kind === "TYPE_INT32") checkWholeNumber(one, where);
      else if (kind === "TYPE_MESSAGE" && !typeName.startsWith("google."))
        checkWholeNumbers(one as object, typeName, where);
    }
  }
}
