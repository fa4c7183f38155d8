"""Tokens, the configuration's bounds, and what is written of requests."""

import io
import json
import os
import subprocess
import sys

import pytest

from qtorch.deploy.server.auth import Tokens
from qtorch.deploy.server.config import ServerConfig
from qtorch.deploy.server.logs import Log, request_id

FIRST, SECOND = "first-" + "a" * 20, "second-" + "b" * 20


def test_a_token_is_accepted_as_a_whole():
    tokens = Tokens([FIRST])
    assert tokens.accepts(f"Bearer {FIRST}")
    assert tokens.accepts(f"bearer  {FIRST} ")
    for given in (None, "", "Bearer", "Bearer ", FIRST, f"Basic {FIRST}", f"Bearer {FIRST[:-1]}", f"Bearer {FIRST}a"):
        assert not tokens.accepts(given)
    assert not tokens.accepts("Bearer \udcff\u00e9")
    assert FIRST not in repr(vars(tokens))


def test_without_tokens_everyone_is_accepted():
    assert Tokens().accepts(None)


def test_tokens_of_a_file_are_rotated(tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"# of the desk\n\n{FIRST}\n")
    tokens = Tokens(file=file)
    assert not tokens.refresh()
    file.write_text(f"{FIRST}\n{SECOND}\n")
    assert tokens.refresh()
    assert tokens.accepts(f"Bearer {FIRST}")
    assert tokens.accepts(f"Bearer {SECOND}")
    file.write_text("short\n")
    with pytest.raises(ValueError, match="at least 16") as error:
        tokens.refresh()
    assert "short" not in str(error.value).replace("shortest", "")
    file.unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        tokens.refresh()
    assert tokens.accepts(f"Bearer {SECOND}"), "what was accepted stays so"


@pytest.mark.parametrize("content", [b"", b"# none\n", b"with space in the middle\n", b"\xff\xfe" * 20])
def test_a_file_without_usable_tokens_is_refused(tmp_path, content):
    file = tmp_path / "tokens"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="tokens"):
        Tokens(file=file)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("replicas", 0),
        ("max_batch_size", 0),
        ("max_queued", 0),
        ("timeout_s", 0.0),
        ("poll_s", 0.0),
        ("drain_s", float("inf")),
        ("batch_wait_s", float("nan")),
        ("port", 65536),
        ("grpc_port", -1),
        ("threads", 0),
        ("grpc_port", 8000),
    ],
)
def test_settings_out_of_bounds_are_refused(option, value):
    with pytest.raises(ValueError, match=option):
        ServerConfig("models", **{option: value})


def test_threads_share_the_cores():
    assert ServerConfig("models", replicas=os.cpu_count()).worker_threads == 1
    assert ServerConfig("models", threads=3).worker_threads == 3


@pytest.mark.parametrize("given", [None, "", "a" * 129, "two words", "new\nline", "<x>", 'quo"te', "é"])
def test_ids_unfit_for_a_log_are_replaced(given):
    assert request_id(given) != given
    assert len(request_id(given)) == 32


def test_ids_fit_for_a_log_are_kept():
    assert request_id("desk-7:42") == "desk-7:42"


def test_a_line_of_the_log_is_one_json_object():
    stream = io.StringIO()
    log = Log(stream)
    log("request", path="/v2\n{}", status=200, error="x" * 5000)
    log("draining")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["event"] == "request"
    assert first["path"] == "/v2\n{}"
    assert len(first["error"]) == 2000
    assert second.keys() == {"time", "event"}


def test_the_process_that_listens_needs_no_torch():
    names = ("command", "config", "deployment", "protocol", "risk_request", "answers", "auth", "batching", "logs")
    code = f"import sys; {'; '.join(f'import qtorch.deploy.server.{name}' for name in names)}"
    found = "print(*sorted({'torch', 'pandas', 'scipy', 'ray'} & set(sys.modules)), 'heavy')"
    done = subprocess.run([sys.executable, "-c", f"{code}; {found}"], capture_output=True, text=True, check=True)
    assert done.stdout == "heavy\n"
