"""The protocol over HTTP against a real server: numbers, endpoints, tokens, bounds, log and metrics."""

import http.client
import json
import socket

import numpy as np
import pytest

from tests.deploy.server.serving import TOKEN, body_of, eager, outputs_of, windows

pytestmark = [pytest.mark.deploy]


@pytest.mark.parametrize(("count", "version"), [(1, "1"), (3, "1"), (7, "2"), (64, None)])
def test_numbers_are_those_of_the_forecaster(server, served, count, version):
    tensors = windows(count, seed=count)
    path = "/v2/models/spx" + (f"/versions/{version}" if version else "")
    status, headers, answer = server.call("POST", f"{path}/infer", body_of(tensors, id="a-7"))
    assert status == 200
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("spx", version or "2", "a-7")
    expected = eager(served[1][version or "2"], tensors)
    found = outputs_of(answer)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=1e-8, err_msg=name)
    assert headers["x-request-id"]


def test_only_what_is_asked_for_is_answered(server, served):
    tensors = windows(2)
    more = {"outputs": [{"name": "value_at_risk"}], "parameters": {"levels": "0.95"}}
    status, answer = server.infer(tensors, **more)
    assert status == 200, answer
    (name, value), *others = outputs_of(answer).items()
    assert (name, others) == ("value_at_risk", [])
    expected = eager(served[1]["2"], tensors, levels=(0.95,))["value_at_risk"]
    np.testing.assert_allclose(value, expected, rtol=2e-5)


def test_the_server_and_its_models_describe_themselves(server):
    assert server.call("GET", "/v2")[2]["name"] == "qtorch"
    status, _, found = server.call("GET", "/v2/models/spx")
    assert (status, found["name"], found["versions"], found["platform"]) == (200, "spx", ["1", "2"], "qtorch")
    assert {each["name"] for each in found["inputs"]} == {"inputs", "mask", "scale"}
    config = server.call("GET", "/v2/models/spx/versions/1/config")[2]
    assert {each["data_type"] for each in config["input"]} == {"TYPE_FP32", "TYPE_BOOL"}
    for path in ("/v2/models/spx/ready", "/v2/models/spx/versions/1/ready"):
        assert server.call("GET", path)[0] == 200
    assert server.call("GET", "/v2/models/spx/versions/9/ready")[0] == 404
    assert server.call("GET", "/v2/models/other/ready")[0] == 404
    assert server.call("GET", "/v2/models/broken/ready")[0] == 503


def test_a_broken_bundle_is_told_of_and_harms_no_other(server):
    index = server.call("POST", "/v2/repository/index")[2]
    states = {(each["name"], each["version"]): each["state"] for each in index}
    assert states == {("broken", "1"): "UNAVAILABLE", ("spx", "1"): "READY", ("spx", "2"): "READY"}
    assert "model.json" in next(each["reason"] for each in index if each["name"] == "broken")
    assert [each["name"] for each in server.call("POST", "/v2/repository/index", {"ready": True})[2]] == ["spx", "spx"]
    status, _, answer = server.call("POST", "/v2/models/broken/infer", body_of(windows(1)))
    assert status == 503
    assert answer["error"]


def test_a_model_is_unloaded_and_loaded(server):
    assert server.call("POST", "/v2/repository/models/spx/unload")[0] == 200
    assert server.infer(windows(1))[0] == 503
    assert server.call("GET", "/v2/models/spx/ready")[0] == 503
    assert server.call("GET", "/v2/health/ready")[0] == 503, "no model is left"
    assert server.call("POST", "/v2/repository/models/spx/load")[0] == 200
    assert server.infer(windows(1))[0] == 200
    assert server.call("GET", "/v2/health/ready")[0] == 200
    assert server.call("POST", "/v2/repository/models/none/load")[0] == 404
    assert server.call("POST", "/v2/repository/models/none/unload")[0] == 404
    assert server.call("POST", "/v2/repository/models/spx/load", {"parameters": {"config": "{}"}})[0] == 400
    assert server.call("POST", "/v2/repository/models/broken/load")[0] in (400, 422)


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN])
@pytest.mark.parametrize("path", ["/v2", "/v2/models/spx", "/metrics", "/v2/none", "/v2/models/spx/ready"])
def test_all_but_health_needs_a_token(server, path, given):
    status, headers, answer = server.call("GET", path, headers={"Authorization": given})
    assert status == 401
    assert headers["www-authenticate"] == "Bearer"
    assert "token" in answer["error"]


def test_health_needs_none_and_each_token_of_the_file_is_accepted(server):
    none = {"Authorization": ""}
    assert server.call("GET", "/v2/health/live", headers=none)[::2] == (200, {"live": True})
    assert server.call("GET", "/v2/health/ready", headers=none)[0] == 200
    assert server.call("GET", "/v2", headers={"Authorization": f"Bearer another-token-{'x' * 20}"})[0] == 200
    status, _, _ = server.call("POST", "/v2/models/spx/infer", body_of(windows(1)), headers=none)
    assert status == 401


def test_unknown_paths_and_methods_are_told(server):
    status, _, answer = server.call("GET", "/v2/modles")
    assert status == 404
    assert "no such path" in answer["error"]
    status, headers, answer = server.call("DELETE", "/v2/models/spx/infer")
    assert status == 405
    assert headers["allow"] == "POST"
    assert "takes POST" in answer["error"]


def test_too_large_bodies_are_refused_unread(server):
    status, _, answer = server.call("POST", "/v2/models/spx/infer", b" " * 600_001)
    assert status == 413
    assert "600000 bytes" in answer["error"]
    head = (
        "POST /v2/models/spx/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
        f"{TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head.encode())
        for _ in range(3):
            connection.sendall(b"40000\r\n" + b"x" * 0x40000 + b"\r\n")
        answer = connection.makefile("rb").readline()
    assert answer.split()[1] == b"413", "of a body that does not say its length, while it is read"
    assert server.infer(windows(65))[0] == 413


def test_ids_of_requests_are_kept_if_sane(server):
    assert server.call("GET", "/v2", headers={"X-Request-Id": "desk-7"})[1]["x-request-id"] == "desk-7"
    assert server.call("GET", "/v2", headers={"X-Request-Id": "<a b>"})[1]["x-request-id"] != "<a b>"


def test_the_log_tells_of_each_request_without_tokens_and_payloads(server):
    number = 0.123456
    tensors = windows(2)
    tensors["inputs"][0, -1, 0] = number
    headers = {"X-Request-Id": "told-once", "Authorization": f"Bearer {TOKEN}"}
    server.call("POST", "/v2/models/spx/versions/1/infer", body_of(tensors), headers)
    (line,) = (each for each in server.events() if each.get("id") == "told-once")
    told = {name: line[name] for name in ("method", "path", "model", "version", "status", "windows", "protocol")}
    assert told == {
        "method": "POST",
        "path": "/v2/models/spx/versions/1/infer",
        "model": "spx",
        "version": "1",
        "status": 200,
        "windows": 2,
        "protocol": "http",
    }
    assert line["ms"] > 0
    assert min(line["bytes_in"], line["bytes_out"]) > 100
    text = "\n".join(server.logged())
    assert TOKEN not in text
    assert str(number) not in text


def test_metrics_count_requests_batches_and_versions(server):
    def value(name: str) -> float:
        lines = server.call("GET", "/metrics")[2].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    name = 'qtorch_requests_total{code="200",endpoint="infer",model="spx",protocol="http",version="1"}'
    before, batches = value(name), value('qtorch_batch_windows_sum{model="spx"}')
    server.call("POST", "/v2/models/spx/versions/1/infer", body_of(windows(5)))
    assert value(name) == before + 1
    assert value('qtorch_batch_windows_sum{model="spx"}') == batches + 5
    assert value("qtorch_model_ready") == 2
    assert value("qtorch_requests_waiting") == 0
    assert value("qtorch_requests_in_flight") == 1, "that for the metrics"
    server.call("POST", "/v2/models/never-seen/infer", body_of(windows(1)))
    assert "never-seen" not in server.call("GET", "/metrics")[2], "labels are of models that there are"


def test_a_connection_is_kept_for_several_requests(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for _ in range(3):
        body = json.dumps(body_of(windows(1)))
        connection.request("POST", "/v2/models/spx/infer", body, {"Authorization": f"Bearer {TOKEN}"})
        assert connection.getresponse().read()
    connection.close()


def test_a_portfolio_s_risk_is_that_of_the_service(server, served):
    from qtorch.deploy.server.repository import Repository
    from qtorch.deploy.server.risk import RiskService
    from qtorch.deploy.server.risk_request import RiskRequest
    from qtorch.nightly.config import NightlyData

    book = {"AAA": 1e6, "BBB": -5e5, "EEE": 2e5}
    status, _, answer = server.call("POST", "/v2/models/spx/versions/1/risk", {"positions": book, "levels": [0.99]})
    assert status == 200, answer
    repository = Repository(served[0])
    repository.refresh()
    service = RiskService(NightlyData(str(served[0] / "prices.parquet")), repository)
    expected = service.answer(RiskRequest("spx", "1", book, levels=(0.99,)))
    assert (answer["model"], answer["version"], answer["as_of"]) == ("spx", "1", expected["as_of"])
    (found,), (known,) = answer["levels"], expected["levels"]
    for name in ("value_at_risk", "expected_shortfall"):
        assert found[name] == pytest.approx(known[name], rel=1e-6)
    parts = sum(each["component_value_at_risk"] for each in found["assets"])
    assert parts == pytest.approx(found["value_at_risk"], rel=1e-9)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"positions": {}},
        {"positions": {"ZZZ": 1.0}},
        {"positions": {"AAA": "much"}},
        {"positions": {"AAA": 1.0}, "as_of": "2019-03-31"},
        {"positions": {"AAA": 1.0}, "horizon": 7},
        {"positions": {"AAA": 1.0}, "levels": [99]},
        b'{"positions": {"AAA": NaN}}',
    ],
)
def test_a_risk_that_cannot_be_told_is_refused(server, body):
    status, _, answer = server.call("POST", "/v2/models/spx/risk", body)
    assert 400 <= status < 500
    assert len(answer["error"]) > 10
