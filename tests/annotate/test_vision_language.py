"""Asking a real model's class at a tiny size, and a real server that misbehaves."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest
import torch
from PIL import Image

from mtadiffusion.annotate.vision_language import HttpVisionLanguage, LocalVisionLanguage
from mtadiffusion.errors import UserError

from .test_detect import picture
from .tiny_models import save_qwen_vl


@pytest.fixture(scope="module")
def local(llava):
    model = LocalVisionLanguage(model=str(llava), max_new_tokens=6)
    model.load()
    return model


def test_an_answer_is_what_the_model_says_after_the_prompt(local):
    """Independent computation: greedy decoding, one token at a time."""
    image, prompt = picture(0, (40, 30)), "Describe the red cat"
    (answer,) = local.answer([image], [prompt])
    text = f"USER: <image>\n{prompt} ASSISTANT:"
    inputs = local._processor(images=image, text=text, return_tensors="pt")
    tokens = inputs["input_ids"]
    start = tokens.shape[1]
    with torch.inference_mode():
        for _ in range(6):
            logits = local._network(
                input_ids=tokens, pixel_values=inputs["pixel_values"], attention_mask=torch.ones_like(tokens)
            ).logits
            tokens = torch.cat([tokens, logits[:, -1:].argmax(-1)], dim=1)
    expected = local._processor.tokenizer.decode(tokens[0, start:], skip_special_tokens=True)
    assert answer == expected.split("</s>")[0].strip()


def test_a_batch_of_prompts_of_all_lengths_equals_its_members(local):
    images = [picture(i, (40, 30)) for i in range(3)]
    prompts = ["Describe the cat", "Describe the red red red car", "cat"]
    together = local.answer(images, prompts)
    alone = [local.answer([image], [prompt])[0] for image, prompt in zip(images, prompts, strict=True)]
    assert together == alone


def test_a_qwen_vl_answers_in_this_process(tmp_path):
    pytest.importorskip("torchvision", reason="Qwen-VL's processor needs the package torchvision")
    model = LocalVisionLanguage(model=str(save_qwen_vl(tmp_path)), max_new_tokens=4)
    model.load()
    images, prompts = [picture(i, (40, 30)) for i in range(2)], ["Describe the red cat", "cat"]
    alone = [model.answer([image], [prompt])[0] for image, prompt in zip(images, prompts, strict=True)]
    assert model.answer(images, prompts) == alone
    assert all(alone)


class Server(ThreadingHTTPServer):
    """Speaks just enough of the protocol. `script` holds a status, or a body, for each request in turn."""

    def __init__(self, script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: Iterator = iter(script)
        self.requests: list[dict] = []
        self.lock, self.release = threading.Lock(), threading.Event()
        self.daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(request)
            answer = next(self.server.script)
        if answer == "hang":
            self.server.release.wait(30)
            return
        status = answer if isinstance(answer, int) else 200
        body = b"{}" if isinstance(answer, int) else answer
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing on the console."""


def said(text):
    """A well-formed reply."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return json.dumps(
        {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    ).encode()


@pytest.fixture
def serve():
    """Starts servers; gives (server, client)."""
    servers = []

    def start(*script, **options):
        server = Server(script)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        options = {"timeout": 5, "retries": 2, "concurrency": 1} | options
        client = HttpVisionLanguage(url=f"http://127.0.0.1:{server.server_port}/v1", model="m", **options)
        client.load()
        return server, client

    yield start
    for server in servers:
        server.release.set()
        server.shutdown()
        server.server_close()


IMAGE = Image.new("RGB", (32, 24), (200, 30, 30))


def test_a_request_holds_the_prompt_and_the_picture(serve):
    server, client = serve(said(" A red field. "))
    assert client.answer([IMAGE], ["Describe the field"]) == ["A red field."]
    (request,) = server.requests
    picture_part, text_part = request["messages"][0]["content"]
    assert (text_part["text"], request["temperature"]) == ("Describe the field", 0)
    data = base64.b64decode(picture_part["image_url"]["url"].partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (32, 24)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_or_broken_server_is_asked_again(serve, status):
    server, client = serve(status, status, said("A field."))
    assert client.answer([IMAGE], ["?"]) == ["A field."]
    assert len(server.requests) == 3


def test_a_server_that_hangs_is_given_up_and_asked_again(serve):
    server, client = serve("hang", said("A field."), timeout=0.3)
    started = time.monotonic()
    assert client.answer([IMAGE], ["?"]) == ["A field."]
    assert len(server.requests) == 2
    assert time.monotonic() - started < 20


def test_a_server_that_stays_broken_is_an_error(serve):
    _, client = serve(*[500] * 3)
    with pytest.raises(openai.InternalServerError):
        client.answer([IMAGE], ["?"])


@pytest.mark.parametrize("body", [said(""), said(None), b'{"choices": []}'])
def test_an_empty_reply_is_an_empty_answer(serve, body):
    _, client = serve(body)
    assert client.answer([IMAGE], ["?"]) == [""]


GARBAGE = (b"<html>no json</html>", b'{"choices": [{}]}', b'["chat"]')


@pytest.mark.parametrize("body", GARBAGE)
def test_a_garbled_reply_is_asked_for_again(serve, body):
    _, client = serve(body, said("A field."))
    assert client.answer([IMAGE], ["?"]) == ["A field."]


@pytest.mark.parametrize("body", GARBAGE)
def test_a_server_that_speaks_something_else_is_an_error(serve, body):
    _, client = serve(*[body] * 3)
    with pytest.raises(ConnectionError, match="something else than a chat"):
        client.answer([IMAGE], ["?"])


def test_answers_come_in_the_order_of_their_questions(serve):
    server, client = serve(concurrency=4)

    def echo():
        while True:
            yield said(server.requests[-1]["messages"][0]["content"][1]["text"])

    server.script = echo()
    prompts = [f"question {i}" for i in range(20)]
    assert client.answer([IMAGE] * 20, prompts) == prompts


def test_a_url_without_a_scheme_is_a_mistake():
    with pytest.raises(UserError, match="url must begin with http"):
        HttpVisionLanguage(url="localhost:8000", model="m")
