"""What a hostile file or request can reach in Python, as functions of bytes: each fails if a promise is broken.

`fuzz.py` feeds them with inputs that it makes, `test_attacks.py` with those kept in `tests/attacks`.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np
import tiny_models

from maskprobe import MaskProbeError, MaskProbeLlama, ModelError, Speculation, StateError, embedded_model
from maskprobe.bench import results as bench_results
from maskprobe.bench.prompts import read_prompts
from maskprobe.chat.formats import ChatFormats
from maskprobe.core.embeddings import Embeddings
from maskprobe.errors import HubError
from maskprobe.generation.text import TextStream
from maskprobe.hub import sources
from maskprobe.llamacpp.adapters import ControlVector
from maskprobe.llamacpp.logs import captured_log
from maskprobe.llamacpp.preflight import check_file, check_model
from maskprobe.notation import parse_speculation
from maskprobe.server import Settings, create_app
from maskprobe.splits import split_paths

Target = Callable[[bytes], None]

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@contextlib.contextmanager
def refusals(kinds: type[Exception] | tuple[type[Exception], ...], names: str = "") -> Iterator[None]:
    """Lets these exceptions pass, if they say something, with the name in it."""
    try:
        yield
    except kinds as error:
        if not str(error) or names not in str(error):
            raise


# --- files --------------------------------------------------------------------------------------------


def prompts(folder: Path) -> Iterator[Target]:
    """A prompt file of the benchmark."""
    file = folder / "prompts.jsonl"

    def read(data: bytes) -> None:
        file.write_bytes(data)
        with refusals(MaskProbeError, "prompts.jsonl"):
            for case in read_prompts(file):
                assert isinstance(case.question_id, (int, str))
                assert case.text.encode()
                assert isinstance(case.category.encode(), bytes)

    yield read


def results(folder: Path) -> Iterator[Target]:
    """A results file of the benchmark."""
    file = folder / "results.jsonl"

    def read(data: bytes) -> None:
        file.write_bytes(data)
        with refusals(MaskProbeError, "results"):
            found = bench_results.load(file)
            assert found.finished() == {run.question_id for run in found.runs}
            assert all(isinstance(run.stats, dict) for run in found.runs)
            found.settings()

    yield read


def header(folder: Path) -> Iterator[Target]:
    """A model file as far as it is read without llama.cpp's loader: header, embeddings, directions of a vector."""
    file = folder / "model.gguf"

    def read(data: bytes) -> None:
        file.write_bytes(data)
        with captured_log(verbose=False):
            with refusals(ModelError, "model.gguf"):
                check_file(file)
                check_model(file)
            with refusals(ModelError, "model.gguf"):
                table = Embeddings(file)
                assert table.rows([0, table.n_vocab - 1]).shape == (2, table.n_embd)
            with refusals(ModelError, "model.gguf"):
                assert np.isfinite(ControlVector(file, 1.0, None)._read(2, 4)).all()

    yield read


def small_header(path: Path) -> bytes:
    """A model file with little more than a header, to begin with."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_expert_count(4)
    writer.add_expert_used_count(2)
    writer.add_expert_group_count(2)
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", ""])
    writer.add_tensor("token_embd.weight", np.ones((3, 4), np.float32))
    writer.add_tensor("output_norm.weight", np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def state(folder: Path) -> Iterator[Target]:
    """A saved KV cache. Checksums tell most damage: an input is the file, or edits to make before they are computed.

    After the first byte, 0 for a file, edits have four: a place, two bytes of it, and a value.
    """
    file, wrong = folder / "state", folder / "wrong"
    path = tiny_models.make("llama", folder / "state.gguf")
    with MaskProbeLlama(path, n_ctx=64, n_threads=1, speculation=Speculation(budget=4)) as llm:
        llm.generate("the tree of the sea", max_tokens=4, temperature=0.0)
        llm.save_state(file)
        stored = dict(np.load(file))

        def edited(edits: bytes) -> dict[str, Any]:
            arrays = {"tokens": bytearray(stored["tokens"].tobytes()), "state": bytearray(stored["state"].tobytes())}
            for i in range(0, len(edits) - 3, 4):
                array = arrays["tokens" if edits[i] % 4 == 0 else "state"]
                at = int.from_bytes(edits[i + 1 : i + 3], "big") % (len(array) + 1)
                if edits[i] % 16 == 15:
                    del array[at:]
                else:
                    array[at : at + (edits[i] < 128)] = edits[i + 3 : i + 4]  # over a byte, or between two
            tokens = np.frombuffer(arrays["tokens"][: len(arrays["tokens"]) // 4 * 4], np.int32)
            return {**stored, "tokens": tokens, "state": np.frombuffer(arrays["state"], np.uint8)}

        def load(data: bytes) -> None:
            if data[:1] == b"\0":
                wrong.write_bytes(data[1:])
            else:
                with wrong.open("wb") as out:
                    np.savez(out, **edited(data[1:]))
            before = llm.engine.session.n_cached()
            n = None
            with refusals(StateError, "state"):
                n = llm.load_state(wrong)
            assert llm.engine.session.n_cached() in ((before, 0) if n is None else (n,))
            assert llm.generate("the tree of the sea", max_tokens=2, temperature=0.0).tokens

        yield load


# --- texts --------------------------------------------------------------------------------------------


def text(folder: Path) -> Iterator[Target]:
    """Stop strings, then the bytes of tokens, separated by the byte 255: the stop strings end at an empty one."""

    def stream(data: bytes) -> None:
        stops, _, pieces = data.partition(b"\xff\xff")
        wanted = [stop for part in stops.split(b"\xff") if (stop := part.decode("utf-8", "ignore"))]
        scanner, decoder = TextStream(wanted), codecs.getincrementaldecoder("utf-8")("replace")
        shown = whole = ""
        for piece in pieces.split(b"\xff"):
            shown += scanner.push(piece)
            whole += decoder.decode(piece)
            places = [whole.find(stop) for stop in wanted if stop in whole]
            assert bool(scanner.stopped_by) == bool(places)
            if places:
                whole = whole[: min(places)]
                break
            assert whole.startswith(shown)
        assert shown + scanner.finish() == whole
        assert not (scanner.stopped_by and scanner.push(b"more"))

    yield stream


def names(folder: Path) -> Iterator[Target]:
    """A model's name, then the files that its repository says it has, on lines of their own."""

    def choose(data: bytes) -> None:
        name, *listed = data.decode("utf-8", "surrogateescape").split("\n")
        quant = None
        with refusals((ModelError, ValueError)):
            reference = sources.parse(name)
            if reference is not None:
                quant = reference.quant
                assert sources._is_plain(reference.revision or "main")
        with refusals(HubError):
            file = sources._choose(sources._gguf_files(listed), quant, "the repository")
            assert file in listed
            parts = sources._parts(file)
            assert file in parts
            assert all(sources._is_plain(part) for part in parts)
        with refusals((ValueError, TypeError)):
            assert parse_speculation(name).rows() >= 1
        for path in map(Path, listed):
            assert path in split_paths(path)

    yield choose


TEMPLATES = [
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}",
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% endfor %}",
    "{% for m in messages %}<|im_start|>{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}",
    "{% for m in messages %}{{ m.content | trim }}{% endfor %}",
    "{% for m in messages %}<|im_start|>{{ m.tool_calls | tojson }}{{ m.content | replace('-', '') }}{% endfor %}",
]


def messages(folder: Path) -> Iterator[Target]:
    """Messages in JSON, for one of the templates. No text in them becomes a control token."""
    with MaskProbeLlama(embedded_model(), n_ctx=256, n_threads=1, speculation=Speculation(budget=4)) as llm:

        def controls(asked: Any) -> list[int]:
            return [token for token in llm.apply_chat_template(asked) if not llm.piece(token)]

        def as_text(words: str) -> str:
            return llm.detokenize(llm.tokenize(words, add_bos=False, special=False))

        def render(data: bytes) -> None:
            try:
                given = json.loads(data)
                template, asked = TEMPLATES[given["template"]], given["messages"]
                harmless = json.loads(json.dumps(asked).translate(str.maketrans("<|>", "(!)")))
            except (ValueError, KeyError, TypeError, IndexError, RecursionError):
                return
            key = {"tokenizer.chat_template": template}
            llm.chat_formats = ChatFormats("model.gguf", key, "<|im_start|>", "", None, None)
            with refusals((ValueError, TypeError, ModelError)):
                expected = controls(harmless)
                assert controls(asked) == expected
                shown = llm.apply_chat_template(asked, tokenize=False)
                if as_text(shown) == shown:  # some vocabularies lack bytes
                    assert llm.detokenize(llm.apply_chat_template(asked), special=True) == shown

        yield render


# --- the server ---------------------------------------------------------------------------------------


# Of which a body may name one in a line before it.
PATHS = (
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/tokenize",
    "/detokenize",
    "/apply-template",
    "/infill",
)


def requests(folder: Path) -> Iterator[Target]:
    """The body of a request: an answer, or an error of the client's that says what is wrong."""
    file = tiny_models.make_coder(folder / "served.gguf", chat_template=TEMPLATE)
    loop = asyncio.new_event_loop()
    with MaskProbeLlama(file, n_ctx=96, n_threads=1, seed=1, speculation=Speculation(budget=4)) as llm:
        app = create_app(llm, Settings(names=("tiny",)))
        lifespan = app.router.lifespan_context(app)
        loop.run_until_complete(lifespan.__aenter__())
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")

        def post(data: bytes) -> None:
            path, body = _place(data)
            sent = client.post(path, content=body, headers={"Content-Type": "application/json"})
            reply = loop.run_until_complete(sent)
            assert reply.status_code in (200, 400, 404), reply.text
            if reply.status_code != 200:
                _check_error(reply.json(), path)
            elif reply.headers["content-type"].startswith("text/event-stream"):
                _check_stream(reply.text, path)
            elif path != "/infill":  # which gives the fields that were asked for
                assert reply.json().keys() & {"choices", "output", "content", "input_tokens", "tokens", "prompt"}

        try:
            yield post
        finally:
            loop.run_until_complete(client.aclose())
            loop.run_until_complete(lifespan.__aexit__(None, None, None))
            loop.close()


def _place(data: bytes) -> tuple[str, bytes]:
    path, _, body = data.partition(b"\n")
    if path.decode("latin-1") in PATHS:
        return path.decode(), body
    return "/v1/chat/completions" if b"messages" in data else "/v1/completions", data


def _check_error(told: dict[str, Any], path: str) -> None:
    error = told["error"]
    keys = {"message", "type"} if path.startswith("/v1/messages") else {"message", "type", "param", "code"}
    assert error.keys() == keys
    assert error["message"]
    assert "\n" not in error["message"]


def _check_stream(text: str, path: str) -> None:
    events = text.removesuffix("\n\n").split("\n\n")
    if path.endswith("completions"):
        assert events.pop() == "data: [DONE]"
    told = [json.loads(event.rpartition("data: ")[2]) for event in events]
    if path.endswith("completions"):
        assert all(part["id"] for part in told)
    elif path != "/infill":
        assert told[-1]["type"] in ("message_stop", "response.completed", "response.incomplete")


# By the name of their folder in tests/attacks.
TARGETS = {
    target.__name__: contextlib.contextmanager(target)
    for target in (header, messages, names, prompts, requests, results, state, text)
}
