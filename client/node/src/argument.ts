// Errors in the words of a call, where the requests that it is made of have others.
//
// A text that is continued is a row of `Encode`, and then of `Generate`: an error of either names
// the text, as the caller did, and no list that the caller has not given.

import { LockstepError } from "./errors.js";

/** The keywords of what has an entry per row, whichever request it is part of. */
const ROWS: readonly string[] = ["prompts", "texts", "rows", "conversations"];

/** What says which tokens of a distribution are shown. */
export const SHOWN: readonly string[] = ["selection.topK", "selection.tokenIds"];

const PLACE = /^([\w.]+)(?:\[(\d+)\])?(?=$|[.[])/;
const FIRST = /^[Rr]ow (\d+) /;
const AT = /(?<= at )row (\d+), /;
const OF = / (?:of|for) row \d+\b/g;
const ROW = /\brow (\d+)\b/g;

/** What arguments of calls within a call have named in an error. */
const namedWithin = new WeakMap<LockstepError, string>();

/** What a caller has given where requests have fields of other names. */
export class Argument {
  /**
   * @param keyword what the caller calls it
   * @param row its index in what the caller gave; undefined where that is no list of them
   * @param isList whether each row of a request is an entry of it
   * @param fields what it is in requests
   */
  constructor(
    private readonly keyword: string,
    private readonly row?: number,
    private readonly isList = false,
    private readonly fields = ROWS,
  ) {}

  /** Lets the error of a call name it. */
  async named<Result>(call: () => Promise<Result>): Promise<Result> {
    try {
      return await call();
    } catch (error) {
      throw this.renamed(error);
    }
  }

  /** Lets an error name it, in place of what a call within has named; returns the error. */
  renamed(error: unknown): unknown {
    if (!(error instanceof LockstepError)) return error;
    const within = namedWithin.get(error);
    namedWithin.set(error, this.#name());
    const violations = error.violations.map(({ field, description }) => {
      const [name, said] = this.#said(field, description, within);
      return { field: name, description: said };
    });
    const wrong = violations.map(({ field, description }) => `${field}: ${description}`).join("; ");
    const row = this.row !== undefined && "row" in error.metadata ? { row: String(this.row) } : {};
    return Object.assign(error, {
      violations,
      message: wrong || this.#sentence(error.message, within),
      metadata: { ...error.metadata, ...row },
    });
  }

  /** Returns what the caller calls a row of a request; without one, all rows. */
  #name(row?: string): string {
    const index = this.isList ? row : this.row;
    return index === undefined ? this.keyword : `${this.keyword}[${index}]`;
  }

  /** Returns which field of a request is wrong, and how, in the caller's words. */
  #said(field: string, description: string, within: string | undefined): [string, string] {
    if (within !== undefined && this.fields.includes(within) && beginsWith(field, within)) {
      return [this.#name() + field.slice(within.length), description];
    }
    const [place, name = "", index] = PLACE.exec(field) ?? [];
    if (place === undefined || !this.fields.includes(name)) return [field, this.#reworded(description)];
    const [told, row = index] = FIRST.exec(description) ?? AT.exec(description) ?? [];
    const rest = told === undefined ? description : description.replace(told, "");
    return [this.#name(row) + field.slice(place.length), this.#reworded(rest)];
  }

  /** Returns a message in the caller's words, whether it begins with a field or a row. */
  #sentence(text: string, within: string | undefined): string {
    if (FIRST.test(text) && this.fields === ROWS) return this.#said(ROWS[0]!, text, within).join(": ");
    const [, field, description = ""] = /^(\S+): (.*)$/s.exec(text) ?? [];
    return field === undefined ? this.#reworded(text) : this.#said(field, description, within).join(": ");
  }

  /** Returns a text in which rows of a request are called as the caller calls them. */
  #reworded(text: string): string {
    if (this.fields !== ROWS) return text;
    if (!this.isList && this.row === undefined) return text.replace(OF, "").replace(ROW, "it");
    return text.replace(ROW, (_, row: string) => this.#name(row));
  }
}

function beginsWith(field: string, name: string): boolean {
  return field.startsWith(name) && /^(?:$|[.[])/.test(field.slice(name.length));
}
