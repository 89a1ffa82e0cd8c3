"""Answers from a server that speaks OpenAI's chat format (POST .../v1/chat/completions).

The key comes from $LEGORAY_API_KEY or $OPENAI_API_KEY and goes nowhere but into the requests. TLS
certificates are verified, redirects are not followed: a key must not reach another address.
"""

from __future__ import annotations

import email.utils
import os
import random
import re
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests

from legoray.errors import InputError, Problem
from legoray.llm.generation.local import Answer, Settings, seed_of
from legoray.llm.generation.questions import Question

KEYS = ("LEGORAY_API_KEY", "OPENAI_API_KEY")
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
# vLLM, llama.cpp, OpenAI and text-generation-inference say it in these words
_TOO_LONG = re.compile(
    r"context[ _]?(?:length|window|size)|`inputs` (?:tokens|must have less)", re.IGNORECASE
)
CONNECT_SECONDS = 10.0
LONGEST_WAIT = 120.0  # a server that asks for more has no quota left


class _Key(requests.auth.AuthBase):
    """Puts the key into a request; set so that no `.netrc` can take its place."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


@dataclass(frozen=True)
class EndpointConfig:
    """A server and how it is asked."""

    url: str
    model: str
    settings: Settings
    concurrency: int = 8
    timeout: float = 120.0  # seconds for one answer
    tries: int = 6
    pause: float = 1.0  # seconds before the second try; twice as many before each further one
    key: str = field(default="", repr=False)


class Endpoint:
    """Asks a server, several questions at once."""

    def __init__(self, config: EndpointConfig) -> None:
        """Nothing is sent yet.

        Raises:
            InputError: the address is not one of a server.
        """
        self._config = config
        self._url = address(config.url)
        self._sessions = threading.local()
        self._stop = threading.Event()
        self._limit_name = "max_tokens"

    def answers(self, questions: Sequence[Question]) -> Generator[tuple[int, Answer], None, None]:
        """Each question's number and answer, as they come.

        Raises:
            InputError: the server cannot be reached, refuses the key or the model, or keeps
                failing. What was answered before has been given out.
        """
        if not questions:
            return
        # one alone first: a wrong address, key or model shows at once and once
        yield 0, self._ask(questions[0], tries=min(3, self._config.tries))
        pool = ThreadPoolExecutor(self._config.concurrency, thread_name_prefix="endpoint")
        waiting: dict[Future[Answer], int] = {}
        rows = iter(range(1, len(questions)))
        try:
            while True:
                while len(waiting) < self._config.concurrency:
                    row = next(rows, None)
                    if row is None:
                        break
                    waiting[pool.submit(self._ask, questions[row])] = row
                if not waiting:
                    return
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                # good answers first: they are kept if another one of these failed
                for future in sorted(done, key=lambda one: one.exception() is not None):
                    yield waiting.pop(future), future.result()
        finally:
            self._stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, question: Question, tries: int | None = None) -> Answer:
        """One answer; what is likely to pass is tried again, with growing pauses."""
        tries = tries or self._config.tries
        pause = self._config.pause
        for number in range(1, tries + 1):
            reply, failure = self._send(question)
            if reply is not None and reply.status_code == 400 and self._renamed(reply):
                reply, failure = self._send(question)
            if reply is not None and reply.status_code not in AGAIN:
                return self._read(reply)
            asked = _asked_to_wait(reply)
            if number == tries or asked > LONGEST_WAIT:
                break
            # not all at the same moment again
            self._stop.wait(max(asked, pause * random.uniform(0.75, 1.25)))
            if self._stop.is_set():
                break
            pause = min(2 * pause, LONGEST_WAIT)
        told = f"{failure or self._told(reply)} ({number} of {tries} tries)"
        if asked > LONGEST_WAIT:
            told += f"; it asks to wait {asked:,.0f} s"
        hint = "is the address right, and the server running? What is finished is kept"
        raise InputError(Problem(self._url, told, hint))

    def _send(self, question: Question) -> tuple[requests.Response | None, str]:
        """The reply, or why there is none."""
        config = self._config
        first = [{"role": "system", "content": question.system}] if question.system else []
        body: dict[str, Any] = {
            "model": config.model,
            "messages": [*first, {"role": "user", "content": question.user}],
            self._limit_name: config.settings.max_new_tokens,
            "temperature": config.settings.temperature,
            "seed": seed_of(config.settings.seed, question.key),
        }
        try:
            reply = self._session().post(
                self._url,
                json=body,
                timeout=(min(CONNECT_SECONDS, config.timeout), config.timeout),
                allow_redirects=False,
            )
        except requests.exceptions.SSLError as error:
            hint = "REQUESTS_CA_BUNDLE names the certificates of an authority of your own"
            message = f"its certificate is not trusted: {_reason(error)}"
            raise InputError(Problem(self._url, message, hint)) from None
        except requests.exceptions.Timeout:
            return None, f"no answer within {config.timeout:g} s"
        except requests.exceptions.RequestException as error:
            return None, f"cannot be reached: {_reason(error)}"
        return reply, ""

    def _session(self) -> requests.Session:
        """One connection per thread."""
        if not hasattr(self._sessions, "session"):
            self._sessions.session = requests.Session()
            self._sessions.session.auth = _Key(self._config.key)
        session: requests.Session = self._sessions.session
        return session

    def _renamed(self, reply: requests.Response) -> bool:
        """Whether the server wants the limit of tokens under its newer name."""
        if self._limit_name == "max_tokens" and "max_completion_tokens" in reply.text:
            self._limit_name = "max_completion_tokens"
            return True
        return False

    def _read(self, reply: requests.Response) -> Answer:
        """The answer in a reply.

        Raises:
            InputError: the reply is none.
        """
        status = reply.status_code
        if status in (401, 403):
            known = [name for name in KEYS if os.environ.get(name)]
            hint = f"the key is from {known[0]}" if known else f"set {KEYS[0]} or {KEYS[1]}"
            raise InputError(Problem(self._url, f"refuses the key: {self._told(reply)}", hint))
        if status == 404:
            hint = f"is the address right, and '{self._config.model}' a model that it has?"
            raise InputError(Problem(self._url, self._told(reply), hint))
        if 300 <= status < 400:
            hint = "give the address that it points to"
            target = reply.headers.get("Location", "another address")
            raise InputError(Problem(self._url, f"redirects to {target}", hint))
        if status == 413 or (status in (400, 422) and _TOO_LONG.search(reply.text)):
            return Answer("", too_long=self._told(reply))
        if status != 200:
            raise InputError(Problem(self._url, self._told(reply), "what is finished is kept"))
        try:
            choice = reply.json()["choices"][0]
            message, reason = choice["message"], choice.get("finish_reason")
            text = message.get("content") or ""
            refused = bool(message.get("refusal")) or reason == "content_filter"
            return Answer(str(text), cut=reason == "length", refused=refused)
        except (ValueError, LookupError, TypeError, AttributeError):
            expected = "a server of OpenAI's chat format was expected"
            told = f"its answer cannot be read: {self._hidden(reply.text)!r}"
            raise InputError(Problem(self._url, told, expected)) from None

    def _told(self, reply: requests.Response | None) -> str:
        """A failure in the server's own words, if it has some."""
        if reply is None:
            return "no answer"
        try:
            found = reply.json()
            error = found.get("error", found.get("detail", found))
            text = str(error.get("message", error) if isinstance(error, dict) else error)
        except (ValueError, AttributeError):
            text = reply.text
        text = self._hidden(text)
        return f"answers {reply.status_code}" + (f": {text}" if text else "")

    def _hidden(self, text: str) -> str:
        """The beginning of a server's words, without the key."""
        key = self._config.key
        line = " ".join(text.split())
        return (line.replace(key, "[key]") if key else line)[:200]


def address(url: str) -> str:
    """Where questions are sent: `http://host:8000`, `.../v1` and the full address all will do.

    Raises:
        InputError: it is no address, or holds a password.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        shown = parts.hostname or url if "@" in url else url
        hint = "expected such as http://localhost:8000 or https://api.example.org/v1"
        raise InputError(Problem("--endpoint", f"'{shown}' is no address of a server", hint))
    if parts.username or parts.password or parts.query or parts.fragment:
        hint = f"give the key in {KEYS[0]} or {KEYS[1]}"
        message = "the address holds more than a server and a path"
        raise InputError(Problem("--endpoint", message, hint))
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path = f"{path or '/v1'}/chat/completions"
    return f"{parts.scheme}://{parts.netloc}{path}"


def key_from_environment() -> str:
    """The key, or nothing: servers of one's own often want none.

    Raises:
        InputError: it holds characters that a request cannot carry.
    """
    name = next((name for name in KEYS if os.environ.get(name)), KEYS[0])
    key = os.environ.get(name, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InputError(Problem(name, "is no key: it has spaces or characters beyond ASCII"))
    return key


def _asked_to_wait(reply: requests.Response | None) -> float:
    """Seconds that `Retry-After` asks for, as a number or a date; 0 where it is not there."""
    told = reply.headers.get("Retry-After", "") if reply is not None else ""
    try:
        seconds = float(told)
        return seconds if seconds > 0 else 0.0
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(told).timestamp() - time.time(), 0.0)
    except ValueError:
        return 0.0


def _reason(error: Exception) -> str:
    """The innermost cause of a failure, in one line."""
    inner: Any = error
    while getattr(inner, "args", None) and isinstance(inner.args[0], Exception):
        inner = inner.args[0]
    inner = getattr(inner, "reason", None) or inner
    return " ".join(str(inner).split())[:200]
