r"""A web service in front of both services, with FastAPI.

    pip install fastapi uvicorn
    uvicorn examples.web_service:app

    curl -N localhost:8000/answer -H "content-type: application/json" \
         -d '{"question": "What is the capital of France?"}'

One client serves all requests. A browser that goes away cancels its generation, and what the
services refuse reaches the caller as a status of HTTP, with the time after which to try again.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from lockstep_client import AsyncLockstep, AsyncStream, Completion, LockstepError, exceptions


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opens the client before the first request and closes it after the last."""
    async with AsyncLockstep() as app.state.ls:
        yield


app = FastAPI(lifespan=lifespan)


class Question(BaseModel):
    """What is asked."""

    question: str = Field(min_length=1)
    max_new_tokens: int = Field(default=128, ge=1)


async def opened_stream(
    body: Question, request: Request
) -> AsyncIterator[AsyncStream[str, Completion]]:
    """Opens the stream of one request, and closes it when the response has ended or broken off."""
    ls: AsyncLockstep = request.app.state.ls
    messages = [{"role": "user", "content": body.question}]
    async with ls.stream(messages=messages, max_new_tokens=body.max_new_tokens) as pieces:
        yield pieces


@app.post("/answer")
async def answer(
    pieces: Annotated[AsyncStream[str, Completion], Depends(opened_stream)],
) -> StreamingResponse:
    """Streams the answer as plain text."""
    first = await anext(pieces, "")  # what is refused is refused before the status is sent

    async def text() -> AsyncIterator[str]:
        yield first
        async for piece in pieces:
            yield piece

    return StreamingResponse(text(), media_type="text/plain; charset=utf-8")


@app.exception_handler(LockstepError)
async def refuse(request: Request, error: LockstepError) -> JSONResponse:
    """Answers with what the services say."""
    retry_s = error.retry_delay_s
    if isinstance(error, exceptions.InvalidField | exceptions.ContextLengthExceeded):
        status = 422
    else:
        status = 502 if retry_s is None else 503
    headers = {} if retry_s is None else {"retry-after": f"{max(retry_s, 1):.0f}"}
    return JSONResponse({"reason": error.reason, "message": str(error)}, status, headers)
