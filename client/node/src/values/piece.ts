// What a token stands for, to be seen.

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const VISIBLE: Readonly<Record<string, string>> = { " ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥" };

/** Returns what a token stands for with every character visible. */
export function piece(tokenBytes: Uint8Array): string {
  try {
    return UTF8.decode(tokenBytes).replace(/[ \n\r\t]/g, (character) => VISIBLE[character]!);
  } catch {
    return Array.from(tokenBytes, (byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
  }
}
