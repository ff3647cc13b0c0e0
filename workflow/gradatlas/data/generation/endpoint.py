"""A model behind an OpenAI-compatible endpoint, with a rate limit and retries with doubling pauses."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

import openai
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.data.generation.completions import Completion

# HTTP statuses that are tried again; other ones from 400 on are final.
RETRIED = {408, 409, 425, 429, 500, 502, 503, 504}


class _InvalidAnswer(Exception):
    """An unusable answer: no JSON, no choice, or no text."""


class _DeadlineExceeded(Exception):
    """The answer was not complete in time."""


class Endpoint:
    """A `Writer` that requests chat completions from ``url`` (a base URL such as https://api.openai.com/v1).

    The key is read from the environment variable `key_variable`, if the server needs one, and written nowhere. At most
    `requests_per_minute` requests start, retries included. A request is stopped after `timeout` seconds, and tried
    `attempts` times; the first pause is `pause` seconds, or as long as the server requests.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key_variable: str,
        *,
        max_tokens: int,
        temperature: float,
        requests_per_minute: int,
        attempts: int,
        timeout: float,
        parallel: int = 4,
        pause: float = 1.0,
    ):
        self.url, self.model, self.key_variable, self.timeout = url, model, key_variable, timeout
        self.facts = {"endpoint": url, "model": model, "max_tokens": max_tokens, "temperature": temperature}
        self.parallel, self.attempts, self.pause = parallel, attempts, pause
        self.limit = RateLimit(60 / requests_per_minute)
        self.key = os.environ.get(key_variable, "")
        # The client needs some key. Its own retries are off: ours are counted by the rate limit and logged.
        self.client = openai.OpenAI(base_url=url, api_key=self.key or "none", timeout=timeout, max_retries=0)

    def complete(self, prompt: str) -> Completion:
        """Answer a prompt; `InputError` where the endpoint refuses it or does not answer."""
        retrying = Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=self._wait,
            retry=retry_if_exception(_is_temporary),
            before_sleep=self._log_retry,
            reraise=True,
        )
        try:
            return retrying(self._once, prompt)
        except openai.AuthenticationError:
            state = "is refused" if self.key else "is not set"
            raise InputError(
                f"{self.url}: the key in environment variable {self.key_variable} {state}; set it to a valid key"
            ) from None
        except openai.PermissionDeniedError:
            raise InputError(
                f"{self.url}: the key in {self.key_variable} may not use model '{self.model}'; change one of them"
            ) from None
        except openai.APIStatusError as error:
            raise InputError(
                f"{self.url}: HTTP {error.status_code} for model '{self.model}' ({self._message(error)}); check "
                "generate.endpoint and generate.model, or try again later: answers so far are kept"
            ) from None
        except (openai.APIError, _InvalidAnswer, _DeadlineExceeded) as error:
            raise InputError(
                f"{self.url}: {self._phrase(error)}, {self.attempts} times; check the endpoint and run again: "
                "answers so far are kept"
            ) from None

    def _once(self, prompt: str) -> Completion:
        self.limit.wait()
        options = {key: value for key, value in self.facts.items() if key != "endpoint"}
        try:
            answer = self._within(
                lambda: self.client.chat.completions.create(messages=[{"role": "user", "content": prompt}], **options)
            )
            choice = answer.choices[0]
            text, reason = choice.message.content, choice.finish_reason
        except (openai.APIResponseValidationError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise _InvalidAnswer(f"the answer is not a chat completion ({type(error).__name__})") from None
        if not isinstance(text, str) or not text.strip():
            raise _InvalidAnswer("the answer has no text")
        return Completion(text.strip(), reason != "length")

    def _within(self, call: Callable[[], Any]) -> Any:
        """The result of `call`; `_DeadlineExceeded` after `timeout` seconds.

        The client's own timeout restarts with every byte, so a slow server would never reach it.
        """
        outcome: Future[Any] = Future()

        def answer() -> None:
            try:
                outcome.set_result(call())
            except BaseException as error:
                outcome.set_exception(error)

        # A daemon, so that a stopped request does not keep the process alive.
        threading.Thread(target=answer, daemon=True).start()
        over, _ = wait([outcome], timeout=self.timeout)
        if not over:
            raise _DeadlineExceeded
        return outcome.result()

    def _wait(self, state: RetryCallState) -> float:
        """Seconds to the next try: as the server requests, or doubling."""
        doubling = wait_exponential_jitter(multiplier=self.pause, max=60, jitter=self.pause)(state)
        response = getattr(state.outcome.exception(), "response", None)
        requested = response.headers.get("retry-after", "") if response is not None else ""
        return max(doubling, min(float(requested), 120)) if requested.replace(".", "", 1).isdigit() else doubling

    def _log_retry(self, state: RetryCallState) -> None:
        wait, error = state.next_action.sleep, state.outcome.exception()
        progress(f"{self.url}: {self._phrase(error)}; try {state.attempt_number + 1} in {wait:.1f} s")

    def _phrase(self, error: BaseException) -> str:
        if isinstance(error, (openai.APITimeoutError, _DeadlineExceeded)):
            return f"no answer within {self.timeout:g} s"
        if isinstance(error, openai.APIStatusError):
            return f"HTTP {error.status_code}"
        if isinstance(error, openai.APIConnectionError):
            return "no connection, or it was interrupted"
        return self._without_key(str(error))

    def _message(self, error: openai.APIStatusError) -> str:
        # Hide the key first: a cut could leave a part of it.
        return " ".join(self._without_key(str(error.message)).split())[:200]

    def _without_key(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text


def _is_temporary(error: BaseException) -> bool:
    if isinstance(error, openai.APIStatusError):
        return error.status_code in RETRIED
    return isinstance(error, (openai.APIConnectionError, _InvalidAnswer, _DeadlineExceeded))


class RateLimit:
    """Lets one caller continue every `interval` seconds, over all threads."""

    def __init__(
        self, interval: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ):
        self.interval, self.clock, self.sleep = interval, clock, sleep
        self.lock = threading.Lock()
        self.next = 0.0

    def wait(self) -> None:
        """Wait for the caller's turn."""
        with self.lock:
            now = self.clock()
            turn = max(now, self.next)
            self.next = turn + self.interval
        if turn > now:
            self.sleep(turn - now)
