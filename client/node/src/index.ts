// Client of the Lockstep tokenizer and model services.

export { Decoder } from "./decoder.js";
export {
  Cancelled,
  ConnectionFailed,
  DeadlineExceeded,
  LockstepError,
  ProtocolError,
  ServiceError,
} from "./errors.js";
export type { FieldViolation, Reason } from "./errors.js";
export { Lockstep } from "./lockstep.js";
export type { LockstepOptions, Prompt } from "./lockstep.js";
export { Model } from "./model.js";
export type { CandidateOptions, WindowOptions } from "./model.js";
export type {
  AddOptions,
  ChangeOptions,
  ChatOptions,
  CompletionOptions,
  CuttingOptions,
  DecodeOptions,
  DistributionOptions,
  EncodeOptions,
  GenerateOptions,
  GenerationOptions,
  Ids,
  ManyOptions,
  PaddingOptions,
  ScoreOptions,
  SessionOptions,
  StepOptions,
} from "./options.js";
export type { ChatMessage, ChatMessages, Texts } from "./requests/tokenizer.js";
export type { NewToken, Role } from "./requests/vocabulary.js";
export type { Determinism } from "./results/determinism.js";
export { Distribution } from "./results/distribution.js";
export { Completion, Generation } from "./results/generation.js";
export type { FinishReason, GeneratedSequence, Timing, TokenDelta, Usage } from "./results/generation.js";
export type {
  Capabilities,
  Load,
  LogitsProcessor,
  ModelInfo,
  Plan,
  VocabularyFollowing,
} from "./results/modelInfo.js";
export { NextTokenScores } from "./results/scores.js";
export type { PositionScores, ScoredSequence, TokenScore } from "./results/scores.js";
export type { ConvertedTokens, DecodedText, TokenizerInfo, VocabularyEntry } from "./results/tokenizer.js";
export { AddedTokens } from "./results/vocabulary.js";
export type {
  AddedToken,
  ImportedRevisions,
  Revision,
  TextEffect,
  TextTokens,
  Verification,
} from "./results/vocabulary.js";
export { Session } from "./sessions/session.js";
export type { StepResult } from "./sessions/state.js";
export { StepStream } from "./sessions/stepStream.js";
export { Stream } from "./stream.js";
export { Tokenizer } from "./tokenizer.js";
export type { CallOptions, Tls } from "./transport/endpoint.js";
export { Batch, Padded } from "./values/batch.js";
export type { Encoding, Prompts } from "./values/batch.js";
export type { ScoreSelection } from "./values/selection.js";
export type { SessionRetention } from "./values/sessionRetention.js";
export { Tensor } from "./values/tensor.js";
export type { VocabularyRef } from "./values/vocabularyRef.js";
export { Vocabulary } from "./vocabulary.js";
