// What is asked for when it is first needed, and remembered.

/** An answer that is asked for once; a failure is not remembered. */
export class Once<Answer> {
  #answer: Promise<Answer> | undefined;

  /** Returns the answer. */
  get(ask: () => Promise<Answer>): Promise<Answer> {
    this.#answer ??= ask().catch((error: unknown) => {
      this.#answer = undefined;
      throw error;
    });
    return this.#answer;
  }
}
