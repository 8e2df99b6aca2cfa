# Generated from _async/lockstep.py by `make client`.
"""Both services as one, blocking: text in, text out."""

import time
from collections.abc import Generator, Sequence
from typing import Any, Literal, Unpack, overload

from lockstep_client._calls import completion, row_results
from lockstep_client._calls import progress as bars
from lockstep_client._calls.argument import Argument
from lockstep_client._calls.completion import CompletionAssembler
from lockstep_client._calls.keyword_help import with_keywords
from lockstep_client._calls.row_requests import RowLimits
from lockstep_client._calls.windows import perplexities
from lockstep_client._requests.options import (
    CompletionOptions,
    GenerationOptions,
    Ids,
    ManyOptions,
)
from lockstep_client._requests.tokenizer import ChatMessages
from lockstep_client._results.distribution import Distribution
from lockstep_client._results.generation import Completion
from lockstep_client._sync.model import Model
from lockstep_client._sync.row_calls import time_left
from lockstep_client._sync.streams import Stream, in_one_request
from lockstep_client._sync.tokenizer import Tokenizer
from lockstep_client._sync.vocabulary import Vocabulary
from lockstep_client._transport import prompt_prefix
from lockstep_client._transport.bearer_token import Token
from lockstep_client._transport.closing import Closing
from lockstep_client._transport.endpoint import (
    DEFAULT_RETRIES,
    DEFAULT_STREAM_TIMEOUT_S,
    DEFAULT_TIMEOUT_S,
    USE_DEFAULT,
    Endpoint,
    Follow,
    Timeout,
    Tls,
)
from lockstep_client._transport.newest_vocabulary import NewestVocabulary
from lockstep_client._transport.patience import Patience
from lockstep_client._transport.request_id import OneRequest
from lockstep_client._transport.sync_connection import Connection
from lockstep_client._transport.sync_workers import run_each
from lockstep_client._values.batch import Batch
from lockstep_client._values.one_line import described
from lockstep_client.exceptions import LockstepError


@with_keywords
class Lockstep(Closing):
    """A client of both services, blocking.

        with Lockstep(tokenizer="localhost:50051", model="localhost:50052") as ls:
            answer = ls.generate("The capital of France is", max_new_tokens=8)
            print(answer.text)

    It may be shared by threads. Connections are made when they are first used.

    Attributes:
        tokenizer: the tokenizer service.
        vocabulary: changes of the vocabulary, which the tokenizer service owns.
        model: the model service.
    """

    def __init__(
        self,
        tokenizer: str = "localhost:50051",
        model: str = "localhost:50052",
        *,
        tls: Tls | None = None,
        timeout: float | None = DEFAULT_TIMEOUT_S,
        stream_timeout: float | None = DEFAULT_STREAM_TIMEOUT_S,
        retries: int = DEFAULT_RETRIES,
        token: Token | None = None,
        token_in_plain_text: bool = False,
        follow: Follow = True,
        prefix_routing: bool | None = None,
    ) -> None:
        """Prepares the connections.

        Args:
            tokenizer: address of the tokenizer service.
            model: address of the model service.
            tls: transport security of both; None sends plain text.
            timeout: of calls with one answer, in seconds; None for none.
            stream_timeout: of calls that generate, score or stream; None for none.
            retries: how often a call is repeated within its timeout, where that does nothing
                twice: while a service is away, or says when to come back. 0 for never.
            token: bearer token that says who calls: a text, a `Path` of a file that is read
                for every call, or a function that is called for every call and returns at once.
            token_in_plain_text: whether it is sent without `tls`, too.
            follow: where calls of a session may go when the service names the replica that has
                it. True: with TLS to a replica that shows a certificate for the name expected of
                `model`, in plain text to the host of `model` and to names below it. A list has
                the hosts to trust instead, `*` standing for any text. False: nowhere.
            prefix_routing: whether calls with prompts bring a keyed hash of the first tokens, by
                which a gateway sends prompts that begin alike to one replica. None means yes,
                unless the variable LOCKSTEP_PREFIX_ROUTING is `off`.
        """
        newest = NewestVocabulary()
        common = (tls, timeout, stream_timeout, retries, token, token_in_plain_text)
        self._tokenizer = Connection(Endpoint("tokenizer", tokenizer, *common), newest)
        named = prompt_prefix.routed(prefix_routing)
        self._model = Connection(Endpoint("model", model, *common, follow, named), newest)
        self.tokenizer = Tokenizer(self._tokenizer)
        self.vocabulary = Vocabulary(self._tokenizer)
        self.model = Model(self._model)

    def __repr__(self) -> str:
        addresses = (each.endpoint.address for each in (self._tokenizer, self._model))
        return described(self, "tokenizer={} model={}".format(*addresses))

    @overload
    def generate(
        self,
        prompt: str | None = None,
        *,
        messages: ChatMessages | None = None,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[CompletionOptions],
    ) -> Completion: ...

    @overload
    def generate(
        self,
        prompt: list[str] | tuple[str, ...],
        *,
        errors: Literal["raise", "return"] = "raise",
        progress: bool = False,
        concurrency: int | None = None,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[CompletionOptions],
    ) -> list[Completion]: ...

    @overload
    def generate(
        self,
        *,
        messages: Sequence[ChatMessages],
        errors: Literal["raise", "return"] = "raise",
        progress: bool = False,
        concurrency: int | None = None,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[CompletionOptions],
    ) -> list[Completion]: ...

    def generate(
        self,
        prompt: str | list[str] | tuple[str, ...] | None = None,
        *,
        messages: ChatMessages | Sequence[ChatMessages] | None = None,
        errors: Literal["raise", "return"] = "raise",
        progress: bool = False,
        concurrency: int | None = None,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[CompletionOptions],
    ) -> Any:
        """Continues a text, or answers the messages of a conversation; or any number of them.

        A list gives a list in its order. With a `seed`, each is drawn from a seed of its own,
        which its completion has.

        Args:
            prompt: the text, or a list of texts.
            messages: with `role` and `content` each, instead of a text; or a list of
                conversations.
            errors: of a list: `return` has the error in the place of a completion, see
                `ManyOptions`.
            progress: of a list: whether a bar shows how many texts are done.
            concurrency: of a list: most texts at a time, see `ManyOptions`.
            timeout: of the generation, in seconds; of all generations, where a list is given.
            **options: see `CompletionOptions` and `GenerationOptions`.

        Raises:
            TypeError: not exactly one of `prompt` and `messages` is given, or a keyword
                does not exist.
            LockstepError: a service refused, failed or cannot be reached.
        """
        texts, are_several = completion.texts(prompt, messages, options)
        if not are_several:
            return self._complete(*texts[0], timeout)
        returns, left = row_results.returns(errors), time_left(timeout)

        def complete(text: completion.Text) -> Completion | LockstepError:
            done: Completion | LockstepError
            try:
                done = self._complete(*text, left())
            except LockstepError as error:
                if not returns:
                    raise
                done = error
            advance(1)
            return done

        at_once = concurrency or RowLimits.of_sequences(self.model.capabilities()).at_once
        with bars.shown("generate", len(texts), progress=progress) as advance:
            return run_each(complete, texts, at_once)

    def _complete(
        self,
        given: Argument,
        prompt: str | None,
        messages: ChatMessages | None,
        options: CompletionOptions,
        timeout: Timeout,
    ) -> Completion:
        with OneRequest("generate") as request, request.calls(), given.named():
            generate_options = self._generate_options(options)
            batch = self._encode(prompt, messages, options)
            generation = self.model.generate(batch, timeout=timeout, **generate_options)
            (token_ids,) = generation.raise_for_errors().sequences
            text = self.tokenizer.decode(
                token_ids, skip_special_tokens=options.get("skip_special_tokens")
            )
        return Completion.of(text, batch.token_ids[0], generation)

    def stream(
        self,
        prompt: str | None = None,
        *,
        messages: ChatMessages | None = None,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[CompletionOptions],
    ) -> Stream[str, Completion]:
        """As `generate`, yielding the text piece by piece, never half a character.

        Returns:
            The pieces; its `.result` has what `generate` returns.
        """
        completion.check(prompt, messages, options)
        assembler = CompletionAssembler()
        pieces = self._pieces(prompt, messages, options, timeout, assembler)
        return Stream(
            in_one_request("stream", pieces, completion.argument(prompt)), assembler.result
        )

    def distribution(
        self,
        prompt: str | None = None,
        *,
        messages: ChatMessages | None = None,
        candidates: int | Ids = 10,
        timeout: Timeout = USE_DEFAULT,
        **options: Unpack[CompletionOptions],
    ) -> Distribution:
        """Shows the tokens that may come next after a text, before and after every processor.

            print(ls.distribution("The capital of France is", do_sample=True, temperature=0.7))

        Args:
            prompt: the text.
            messages: with `role` and `content` each, instead of a text.
            candidates: how many tokens are shown: the most probable ones of the model, and
                as many of those after the processors; or the ids to show.
            timeout: of the computation, in seconds.
            **options: as of `generate`, see `CompletionOptions` and `GenerationOptions`.

        Raises:
            TypeError: as of `generate`.
            LockstepError: a service refused, failed or cannot be reached.
        """
        completion.check(prompt, messages, options)
        given = completion.argument(prompt)
        with OneRequest("distribution") as request, request.calls(), given.named():
            batch = self._encode(prompt, messages, options)
            (found,) = self.model.distribution(
                batch,
                candidates=candidates,
                timeout=timeout,
                **completion.generate_options(options),
            )
            named = self.tokenizer.convert_tokens(ids=found.token_ids)
        return found.with_texts([entry.visible for entry in named.entries])

    @overload
    def perplexity(
        self,
        text: str,
        *,
        window: int | None = None,
        stride: int | None = None,
        timeout: Timeout = USE_DEFAULT,
        **many: Unpack[ManyOptions],
    ) -> float: ...

    @overload
    def perplexity(
        self,
        text: list[str] | tuple[str, ...],
        *,
        window: int | None = None,
        stride: int | None = None,
        timeout: Timeout = USE_DEFAULT,
        **many: Unpack[ManyOptions],
    ) -> list[float]: ...

    def perplexity(
        self,
        text: str | list[str] | tuple[str, ...],
        *,
        window: int | None = None,
        stride: int | None = None,
        timeout: Timeout = USE_DEFAULT,
        **many: Unpack[ManyOptions],
    ) -> Any:
        """Computes how well the model predicts a text of any length, or each of several.

        exp of the mean negative log-probability of the tokens after the first. A text that is
        longer than a window is scored in windows that overlap, each token once.

        Args:
            text: the text, or a list of texts, of at least two tokens each.
            window: most tokens that the model sees at once; its context unless given.
            stride: how far a window is moved; half a window unless given.
            timeout: of the scoring, in seconds.
            **many: see `ManyOptions`.
        """
        given = Argument("text", is_list=not isinstance(text, str))
        with given.named():
            batch = self.tokenizer.encode(text)
            size = window or (self.model.info()).context_length
            scored = self.model.score(batch, window=size, stride=stride, timeout=timeout, **many)
        values = perplexities(scored, given)
        return values[0] if isinstance(text, str) else values

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Waits until both services answer.

        Args:
            timeout: the longest time to wait, in seconds.

        Raises:
            LockstepError: why the last attempt failed.
        """
        patience = Patience(timeout)
        with (
            Connection(self._tokenizer.endpoint.without_retries()) as tokenizer,
            Connection(self._model.endpoint.without_retries()) as model,
        ):
            for describe in (Tokenizer(tokenizer).info, Model(model).info):
                while True:
                    try:
                        describe(timeout=patience.remaining_s)
                        break
                    except LockstepError as error:
                        time.sleep(patience.pause_s(error))

    def close(self) -> None:
        """Closes both connections; running calls are cancelled."""
        self._tokenizer.close()
        self._model.close()

    def _encode(
        self, prompt: str | None, messages: ChatMessages | None, options: CompletionOptions
    ) -> Batch:
        if prompt is not None:
            return self.tokenizer.encode(prompt, **completion.encode_options(options))
        return self.tokenizer.apply_chat_template(
            messages or [], **completion.chat_options(options)
        )

    def _generate_options(self, options: CompletionOptions) -> GenerationOptions:
        """Returns the keywords that go to the model, ids in place of text.

        Called before the prompt is encoded: its vocabulary has every id of an older one.
        """
        negative_prompt = options.get("negative_prompt")
        if not isinstance(negative_prompt, str):
            return completion.generate_options(options)
        with Argument("negative_prompt").named():
            encode = completion.encode_options(options)
            batch = self.tokenizer.encode(negative_prompt, **encode)
        return completion.generate_options({**options, "negative_prompt": batch.token_ids[0]})

    def _pieces(
        self,
        prompt: str | None,
        messages: ChatMessages | None,
        options: CompletionOptions,
        timeout: Timeout,
        assembler: CompletionAssembler,
    ) -> Generator[str]:
        generate_options = self._generate_options(options)
        batch = self._encode(prompt, messages, options)
        tokens = self.model.stream(batch, timeout=timeout, **generate_options)
        decoder = self.tokenizer.open_decoder(
            skip_special_tokens=options.get("skip_special_tokens"), timeout=timeout
        )
        with tokens, decoder:
            for delta in tokens:
                if text := decoder.feed(delta.token_ids):
                    yield assembler.add(text)
            generation = tokens.result.raise_for_errors()
            if text := decoder.end():
                yield assembler.add(text)
        assembler.finish(batch.token_ids[0], generation)
