// Client of the Lockstep tokenizer and model services.

export { Lockstep } from "./client.js";
export type { Batch, Finish, LockstepOptions, Token } from "./client.js";
export { LockstepError } from "./errors.js";
export type { GenerationConfig } from "./schema/lockstep/v1/GenerationConfig.js";
