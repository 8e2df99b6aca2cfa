// Enumerations of the wire by the names that callers use: `PADDING_SIDE_LEFT` is `left`.

/** The names of an enumeration without its prefix; the unspecified one stands for none. */
export type Short<Value, Prefix extends string> = Value extends `${Prefix}_${infer Name}`
  ? Name extends "UNSPECIFIED"
    ? never
    : Lowercase<Name>
  : never;

/**
 * Returns the short name of a value. One that is newer than this client arrives as its number,
 * and is `unknown_<n>`; the unspecified one is undefined.
 */
export function short<Value extends string, Prefix extends string>(
  value: Value,
  prefix: Prefix,
): Short<Value, Prefix> | undefined {
  if (typeof value !== "string") return `unknown_${String(value)}` as Short<Value, Prefix>;
  const name = value.slice(prefix.length + 1).toLowerCase();
  return name === "unspecified" ? undefined : (name as Short<Value, Prefix>);
}
