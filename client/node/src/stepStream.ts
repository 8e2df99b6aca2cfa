// Steps of a session over one stream.

import { ProtocolError } from "./errors.js";
import { StepOptions } from "./options.js";
import { step } from "./requests/model.js";
import { checkNames } from "./requests/names.js";
import { AnnouncedRows } from "./results/scores.js";
import type { StepResponse__Output } from "./schema/lockstep/v1/StepResponse.js";
import type { StepStreamRequest } from "./schema/lockstep/v1/StepStreamRequest.js";
import type { StepStreamResponse__Output } from "./schema/lockstep/v1/StepStreamResponse.js";
import type { Rows } from "./session.js";
import type { SessionState, StepResult } from "./sessionState.js";
import type { Duplex } from "./transport/duplex.js";

/** Saves the cost of a call for each step. An error ends the stream, not the session. */
export class StepStream {
  constructor(
    private readonly session: SessionState,
    private readonly call: Duplex<StepStreamRequest, StepStreamResponse__Output>,
    private readonly settled: <Result>(use: () => Promise<Result>) => Promise<Result>,
  ) {}

  /** Steps the session, see `Session.step`. */
  async step(rows: Rows, options: StepOptions = {}): Promise<StepResult> {
    checkNames(options, StepOptions, "an option of a step");
    return this.settled(async () => {
      const request = step(this.session.sessionId, rows, this.session.position, options);
      this.call.send({ step: request, acceptChunks: true, acceptPackedChunks: true });
      const announced = new AnnouncedRows();
      const answer = await this.#answer(announced);
      return this.session.applyStep(answer, options.lookAhead ?? false, (row) =>
        announced.take(row, "DATA_TYPE_FLOAT32"),
      );
    });
  }

  /** Ends the stream. The session goes on. */
  close(): void {
    this.call.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Reads an answer, and the rows that it announces, to the end. */
  async #answer(rows: AnnouncedRows): Promise<StepResponse__Output> {
    const { step: answer } = await this.call.receive();
    if (!answer) throw new ProtocolError("A message of the stream does not begin an answer.");
    const positions = answer.rows.flatMap((row) => row.scores);
    while (!rows.complete(positions)) {
      const { step: next, chunk, chunks } = await this.call.receive();
      if (next) throw new ProtocolError("A message of the stream does not continue the answer.");
      for (const piece of chunk ? [chunk] : chunks) rows.add(piece);
    }
    return answer;
  }
}
