// The words of a caller in place of the fields of requests: `temperature`, not their paths.

import { isField } from "./protos.js";
import { ADVICE, PATHS } from "./words.js";

// As the path begins: a field and all of its name.
const FIRST = PATHS.map(
  ([path, word]) => [new RegExp(`^(?:${path})(?:(?<=\\.)|(?=$|[.[]))`), word] as const,
);
const WORDS = ADVICE.map(([text, word]) => [new RegExp(text, "g"), word] as const);

// A name of the schema in what a service says; in quotes it is a value that somebody gave.
const NAME = /(?<!['"\w])[a-z]+(?:_[a-z0-9]+)+\b/g;

/**
 * Returns how a caller calls a field of a request: its keyword, and the place in its value.
 *
 * @param path the field, for example `prompt.token_batch.sequences[3]`, in camelCase or not
 */
export function keyword(path: string): string {
  const fields = path.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  // A request in a request, and a message for a list.
  const own = fields.replace(/^(?:step|generate_request)\./, "").replace(/\.ids$/, "");
  const [pattern, word] = FIRST.find(([first]) => first.test(own)) ?? [/^/, ""];
  const [names = "", ofArguments] = own.split(/(?<=\.arguments_json)(?=\.)/); // as its schema has them
  return camel(names.replace(pattern, word)) + (ofArguments ?? "");
}

/** Returns what a service says with the words of this client. */
export function inKeywords(text: string): string {
  const advised = WORDS.reduce((said, [pattern, word]) => said.replace(pattern, word), text);
  return advised.replace(NAME, (name) => (isField(camel(name)) ? camel(name) : name));
}

/** Returns a name in camelCase. */
export function camel(name: string): string {
  return name.replace(/(?<=[a-z0-9])_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}
