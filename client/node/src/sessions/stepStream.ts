// Steps of a session over one stream.

import { ProtocolError } from "../errors.js";
import { StepOptions } from "../options.js";
import { step } from "../requests/model.js";
import { checkNames } from "../requests/names.js";
import { AnnouncedRows } from "../results/scores.js";
import type { StepRequest } from "../schema/lockstep/v1/StepRequest.js";
import type { StepResponse__Output } from "../schema/lockstep/v1/StepResponse.js";
import type { StepStreamRequest } from "../schema/lockstep/v1/StepStreamRequest.js";
import type { StepStreamResponse__Output } from "../schema/lockstep/v1/StepStreamResponse.js";
import type { Duplex } from "../transport/duplex.js";
import type { Rows } from "./session.js";
import { isLoss, type SessionState, type StepResult } from "./state.js";

/** Saves the cost of a call for each step. An error ends the stream, not the session. */
export class StepStream {
  #call: Duplex<StepStreamRequest, StepStreamResponse__Output>;
  #sessionId: string;

  /**
   * @param session what is stepped
   * @param begin begins the call, again where the session has moved
   * @param using uses the session, wherever it is
   */
  constructor(
    private readonly session: SessionState,
    private readonly begin: () => Duplex<StepStreamRequest, StepStreamResponse__Output>,
    private readonly using: <Result>(use: () => Promise<Result>) => Promise<Result>,
  ) {
    this.#call = begin();
    this.#sessionId = session.sessionId;
  }

  /** Steps the session, see `Session.step`. */
  async step(rows: Rows, options: StepOptions = {}): Promise<StepResult> {
    checkNames(options, StepOptions, "an option of a step");
    return this.using(async () => {
      // It was opened again, perhaps elsewhere.
      if (this.#sessionId !== this.session.sessionId) this.#beginAnew();
      const request = step(this.session.sessionId, rows, this.session.position, options);
      const announced = new AnnouncedRows();
      const answer = await this.#exchange(request, announced);
      return this.session.applyStep(request, answer, (row) => announced.take(row, "DATA_TYPE_FLOAT32"));
    });
  }

  /** Ends the stream. The session goes on. */
  close(): void {
    this.#call.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #exchange(step: StepRequest, announced: AnnouncedRows): Promise<StepResponse__Output> {
    try {
      this.#call.send({ step, acceptChunks: true, acceptPackedChunks: true });
      return await this.#answer(announced);
    } catch (error) {
      if (isLoss(error)) this.#beginAnew(); // the stream has ended with it
      throw error;
    }
  }

  #beginAnew(): void {
    this.#call.close();
    this.#call = this.begin();
    this.#sessionId = this.session.sessionId;
  }

  /** Reads an answer, and the rows that it announces, to the end. */
  async #answer(rows: AnnouncedRows): Promise<StepResponse__Output> {
    const { step: answer } = await this.#call.receive();
    if (!answer) throw new ProtocolError("A message of the stream does not begin an answer.");
    const positions = answer.rows.flatMap((row) => row.scores);
    while (!rows.complete(positions)) {
      const { step: next, chunk, chunks } = await this.#call.receive();
      if (next) throw new ProtocolError("A message of the stream does not continue the answer.");
      for (const piece of chunk ? [chunk] : chunks) rows.add(piece);
    }
    return answer;
  }
}
