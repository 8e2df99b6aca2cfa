"""One error of every class, for tests that hold for all of them."""

from rpc import errors
from vocabulary import Reference

SAMPLES = (
    errors.InvalidField("top_k", "must be at least 1"),
    errors.MalformedMessage("lockstep.v1.ModelService/Generate"),
    errors.MessageTooLarge(5_000_000, 4_194_304),
    errors.TokenIdOutOfRange("prompts", row=1, index=2, token_id=9, vocabulary_size=8),
    errors.ContextLengthExceeded(row=0, prompt_tokens=9, new_tokens=8, context_tokens=16),
    errors.ContextLengthExceeded(
        row=0, prompt_tokens=9, new_tokens=8, context_tokens=16, of_session=True
    ),
    errors.NotImplemented_("beam search"),
    errors.VocabularyMismatch(Reference("a", 1, "f0", 8), Reference("b", 2, "f1", 9)),
    errors.VocabularyBehind(request_revision=3, server_revision=2),
    errors.RevisionConflict(expected=1, current=2),
    errors.IdempotencyKeyReused(4),
    errors.SessionNotFound("s"),
    errors.SessionOnOtherReplica("s", replica="prod/model-a", address="model-a.prod:x"),
    errors.SessionBusy("s"),
    errors.PositionConflict(row=0, expected=4, current=5),
    errors.ResponseTooLarge(9, 8),
    errors.Overloaded("sequences", 96, retry_delay_s=0.25),
    errors.KVCacheExceeded(kv_tokens=9, limit_tokens=8),
    errors.MemoryExhausted(),
    errors.Loading(),
    errors.Draining(),
    errors.EngineLost(),
    errors.NonFiniteLogits(row=0, position=3),
    errors.NonFiniteScores(row=0, position=3),
    errors.NoTokenLeft(row=0, position=3),
    errors.NoChatTemplate("gpt2"),
    errors.ChatTemplateFailed("messages", "roles must alternate"),
    errors.StoreUnavailable("disk_full"),
    errors.TokenExists(index=0, token_id=7, attribute="generable", remedy="omit it"),
    errors.SlowConsumer(262_144),
    errors.Unauthenticated("missing", "inference"),
    errors.PermissionDenied("model-admin"),
    errors.QuotaExceeded("tokens_per_minute", 1000, retry_delay_s=2.5),
    errors.InternalError("4f1c"),
)
