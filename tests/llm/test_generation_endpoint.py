"""A server of OpenAI's chat format: a real one over HTTP, whose answers a real model writes."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from writing_cases import asked, rows_of, run, write_dataset, write_prompt, write_writer

from legoray.data.written import list_written
from legoray.errors import InputError
from legoray.llm.generation.endpoint import Endpoint, EndpointConfig, address
from legoray.llm.generation.local import LocalModel, Settings
from legoray.llm.generation.questions import Question

SECRET = "sk-secret-of-the-test"


class Server(ThreadingHTTPServer):
    """Answers by a model; first it does whatever is in `faults`, one per request."""

    daemon_threads = True

    def __init__(self, model):
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.lock = model, threading.Lock()
        self.faults, self.seen, self.busy, self.most = [], [], 0, 0
        self.key, self.names = None, ("tiny",)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.seen.append((time.monotonic(), self.path, body))
            fault = server.faults.pop(0) if server.faults else None
            server.busy += 1
            server.most = max(server.most, server.busy)
        with contextlib.suppress(BrokenPipeError):
            self._answer(body, fault)

    def _answer(self, body, fault):
        server = self.server
        if fault == "hang":
            time.sleep(1.5)
        if fault == "drop":
            self.close_connection = True
            self._done()
            return
        if isinstance(fault, tuple):
            self._send(*fault)
        elif self.path != "/v1/chat/completions":
            self._send(404, {"error": {"message": "no such page"}})
        elif server.key and self.headers["Authorization"] != f"Bearer {server.key}":
            words = f"Incorrect API key: {self.headers['Authorization']}"
            self._send(401, {"error": {"message": words}})
        elif body["model"] not in server.names:
            self._send(404, {"error": {"message": f"no model {body['model']}"}})
        else:
            user = body["messages"][-1]["content"]
            with server.lock:
                (found,) = server.model.answer([Question("", "", user)])
            reason = "length" if found.cut else "stop"
            message = {"role": "assistant", "content": found.text}
            self._send(200, {"choices": [{"message": message, "finish_reason": reason}]})

    def _send(self, status, content, headers=()):
        text = json.dumps(content).encode() if isinstance(content, dict) else content
        self._done()  # before the client can know, and asks the next question
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _done(self):
        with self.server.lock:
            self.server.busy -= 1

    def log_message(self, *given):
        pass


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    return write_writer(tmp_path_factory.mktemp("writer"))


@pytest.fixture
def server(writer):
    with Server(LocalModel(writer, "float32", Settings(12))) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield made
        made.shutdown()


@pytest.fixture
def dataset(tmp_path, home, sample_tables, monkeypatch):
    monkeypatch.delenv("LEGORAY_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return write_dataset(tmp_path, home, sample_tables)


QUESTIONS = [Question(f"N{n}", "Be brief.", f"Rain {n} floods the town") for n in range(9)]


def endpoint(server, **given):
    settings = Settings(12, temperature=0.5, seed=3)
    quick = {"settings": settings, "pause": 0.01, "concurrency": 3, "timeout": 20.0}
    return Endpoint(EndpointConfig(url=server.url, model="tiny", **{**quick, **given}))


def test_answers_are_the_models(server):
    found = dict(endpoint(server).answers(QUESTIONS))
    alone = [server.model.answer([Question("", "", one.user)])[0] for one in QUESTIONS]
    assert [found[n].text for n in range(9)] == [answer.text for answer in alone]
    assert [found[n].cut for n in range(9)] == [answer.cut for answer in alone]
    body = server.seen[0][2]
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert (body["max_tokens"], body["temperature"], body["model"]) == (12, 0.5, "tiny")
    assert len({body["seed"] for _, _, body in server.seen}) == 9, "a seed per key"
    assert 1 < server.most <= 3


def test_what_passes_is_tried_again(server):
    server.faults = [None, (503, b"busy"), (429, {"error": "slow down"}), "drop", (500, {}), "hang"]
    found = dict(endpoint(server, timeout=1.0, concurrency=1).answers(QUESTIONS[:4]))
    assert sorted(found) == [0, 1, 2, 3]
    assert len(server.seen) == 4 + 5
    assert len({body["seed"] for _, _, body in server.seen}) == 4


@pytest.mark.parametrize("wait", ["1", "date"])
def test_it_waits_as_long_as_the_server_asks(server, wait):
    told = wait if wait == "1" else formatdate(time.time() + 2, usegmt=True)
    server.faults = [(429, {}, [("Retry-After", told)])]
    dict(endpoint(server).answers(QUESTIONS[:1]))
    (first, _, _), (second, _, _) = server.seen
    assert 0.9 <= second - first < 4


@pytest.mark.parametrize(
    ("fault", "told", "requests"),
    [
        ((429, {}, [("Retry-After", "9999")]), "asks to wait 9,999 s", 1),
        ((302, {}, [("Location", "http://elsewhere/")]), "redirects to http://elsewhere/", 1),
        ((400, {"error": {"message": "too long"}}), "answers 400: too long", 1),
        ((200, b"<html>"), "cannot be read.*chat format", 1),
        ((200, {"choices": []}), "cannot be read", 1),
        ((500, b"broken"), r"answers 500: broken \(3 of 3 tries\)", 3),
    ],
)
def test_what_does_not_pass_is_one_message(server, fault, told, requests):
    server.faults = [fault] * 5
    with pytest.raises(InputError, match=told) as caught:
        dict(endpoint(server).answers(QUESTIONS))
    assert len(caught.value.problems) == 1
    assert len(server.seen) == requests, "one question alone comes first"


@pytest.mark.parametrize(
    "fault",
    [
        (400, {"error": {"message": "This model's maximum context length is 8 tokens"}}),
        (400, {"error": {"message": "too much", "code": "context_length_exceeded"}}),
        (400, {"error": {"message": "the request exceeds the available context size"}}),
        (422, {"error": "`inputs` tokens + `max_new_tokens` must be <= 8"}),
        (413, b"payload too large"),
    ],
)
def test_a_question_that_is_too_long_for_the_server_is_told_and_the_rest_goes_on(server, fault):
    server.faults = [None, fault]
    found = dict(endpoint(server, concurrency=1).answers(QUESTIONS[:4]))
    assert [n for n in found if found[n].too_long] == [1]
    assert found[1].too_long.startswith(f"answers {fault[0]}: ")
    assert len(server.seen) == 4


def test_refusals_and_newer_names(server):
    message = {"choices": [{"message": {"content": None, "refusal": "no"}}]}
    renamed = {"error": {"message": "Use 'max_completion_tokens' instead."}}
    server.faults = [(200, message), (400, renamed)]
    found = dict(endpoint(server, concurrency=1).answers(QUESTIONS[:3]))
    assert [found[n].refused for n in range(3)] == [True, False, False]
    assert server.seen[-1][2]["max_completion_tokens"] == 12
    assert "max_tokens" not in server.seen[-1][2]


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("http://h:8000", "http://h:8000/v1/chat/completions"),
        ("https://h/v1/", "https://h/v1/chat/completions"),
        ("https://h/openai/v1", "https://h/openai/v1/chat/completions"),
        ("https://h/v1/chat/completions", "https://h/v1/chat/completions"),
    ],
)
def test_addresses(given, full):
    assert address(given) == full


def test_an_attribute_from_a_server(dataset, home, tmp_path, server, writer, monkeypatch):
    """The same texts as of the model itself; finished ones are kept when the server fails."""
    server.key = SECRET
    prompt = write_prompt(tmp_path)
    given = {"prompt": prompt, "endpoint": server.url, "endpoint_model": "tiny", "concurrency": 2}
    with pytest.raises(InputError, match=r"refuses the key.*set LEGORAY_API_KEY"):
        run(asked(dataset, **given))
    monkeypatch.setenv("OPENAI_API_KEY", SECRET + "x")
    with pytest.raises(InputError, match=r"\[key\].*from OPENAI_API_KEY") as caught:
        run(asked(dataset, **given))
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("LEGORAY_API_KEY", SECRET)
    with pytest.raises(InputError, match=r"no model small.*a model that it has"):
        run(asked(dataset, **{**given, "endpoint_model": "small"}))
    assert not list_written(home, "mind_sample"), "nothing came, so nothing is there"
    server.faults = [None] * 10 + [(400, {"error": {"message": "out of luck"}})] * 2
    with pytest.raises(InputError, match="out of luck"):
        run(asked(dataset, **given))
    kept = rows_of(home)[1]
    assert 8 <= len(kept) <= 10
    server.faults = []
    said = run(asked(dataset, **given))
    assert f"short: {len(kept)} known, {24 - len(kept)} to write (tiny, prompt short)" in said
    rows, texts = rows_of(home)
    assert len(rows) == 24
    run(asked(dataset, prompt=prompt, model=writer, name="here"))
    assert rows_of(home, "here")[1] == texts
    for file in (home / "written").rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


def test_a_server_that_is_not_there(dataset, tmp_path, server, monkeypatch):
    gone = "http://127.0.0.1:9"
    given = {"prompt": write_prompt(tmp_path), "endpoint_model": "tiny"}
    with pytest.raises(InputError, match=r"cannot be reached: .*refused"):
        dict(Endpoint(EndpointConfig(gone, "tiny", Settings(1), pause=0.01)).answers(QUESTIONS))
    secure = server.url.replace("http:", "https:")
    with pytest.raises(InputError, match=r"certificate is not trusted|cannot be reached"):
        dict(Endpoint(EndpointConfig(secure, "tiny", Settings(1), pause=0.01)).answers(QUESTIONS))
    monkeypatch.setenv("LEGORAY_API_KEY", "two words")
    with pytest.raises(InputError, match="LEGORAY_API_KEY: is no key"):
        run(asked(dataset, endpoint=gone, **given))
