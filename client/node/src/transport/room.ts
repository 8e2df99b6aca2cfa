// Places for the sequences of one client, as many as its service admits.

import { overdue } from "./status.js";

/** Node.js fires timers that are longer at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

interface Visit {
  readonly count: number;
  inside: boolean;
  begin: () => void;
}

/** Gives out places in the order in which they are asked for. */
export class Room {
  /** Number of places; 0 until it is known, when one visit at a time is let in. */
  capacity = 0;
  #used = 0;
  #waiting: Visit[] = [];

  /** Whether anybody is inside. */
  get busy(): boolean {
    return this.#used > 0;
  }

  /**
   * Waits for places, and holds them while `work` runs. More than there are get an empty room.
   *
   * @param count how many
   * @param timeoutMs the longest time to wait; null for no limit
   * @param signal ends the waiting
   * @param peer who is to be called, for messages
   * @param work what is done with them
   */
  async hold<Result>(
    count: number,
    timeoutMs: number | null,
    signal: AbortSignal | undefined,
    peer: string,
    work: () => Promise<Result>,
  ): Promise<Result> {
    signal?.throwIfAborted();
    const visit: Visit = { count, inside: false, begin: () => {} };
    let timer: NodeJS.Timeout | undefined;
    let giveUp = () => {};
    const came = new Promise<void>((resolve, reject) => {
      visit.begin = resolve;
      giveUp = () => reject(signal?.reason as Error);
      signal?.addEventListener("abort", giveUp);
      if (timeoutMs !== null) {
        const late = () => reject(overdue(peer));
        timer = setTimeout(late, Math.min(timeoutMs, MAX_TIMER_MS));
      }
    });
    this.#waiting.push(visit);
    this.#admit();
    try {
      await came.finally(() => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", giveUp);
      });
      return await work();
    } finally {
      this.#leave(visit);
    }
  }

  #leave(visit: Visit): void {
    if (visit.inside) this.#used -= visit.count;
    else this.#waiting = this.#waiting.filter((each) => each !== visit);
    this.#admit();
  }

  #admit(): void {
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      if (this.#used > 0 && this.#used + first.count > this.capacity) return;
      this.#waiting.shift();
      this.#used += first.count;
      first.inside = true;
      first.begin();
    }
  }
}
