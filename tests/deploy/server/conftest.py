"""One server for the tests that do not stop it."""

import json

import pytest


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A saved forecaster of windows of 8 sessions and one horizon."""
    import torch

    from qtorch.data import WindowSpec
    from qtorch.deploy import save
    from tests.conftest import make_model

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("bundle")
    save(make_model(WindowSpec(context=8, horizons=(1,))), path)
    return path


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """A folder of models and the forecasters in it, by version."""
    from tests.conftest import make_prices
    from tests.deploy.server.serving import save_version

    folder = tmp_path_factory.mktemp("models")
    models = {str(version): save_version(folder, "spx", version, seed=version) for version in (1, 2)}
    broken = folder / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "model.json").write_text("{}")
    prices = make_prices({"AAA": "XNYS", "BBB": "XNYS", "EEE": "XECB"}, "2018-06-01", "2019-03-29")
    prices.to_parquet(folder / "prices.parquet")
    return folder, models


@pytest.fixture(scope="session")
def server(served, tmp_path_factory):
    """A server that asks for a token."""
    from tests.deploy.server.serving import TOKEN, Server

    file = tmp_path_factory.mktemp("secret") / "tokens"
    file.write_text(f"another-token-{'x' * 20}\n{TOKEN}\n")
    data = json.dumps({"path": str(served[0] / "prices.parquet")})
    options = (
        f"--data={data}",
        "--token_file",
        str(file),
        "--max_bytes=600000",
        "--max_windows=64",
        "--poll_s=0.5",
        "--timeout_s=20",
    )
    one = Server(served[0], *options, token=TOKEN)
    yield one
    assert one.stop() == 0
    assert one.lines[-1] == "stopped"


@pytest.fixture(scope="session")
def call(server):
    """Calls a method of gRPC; gives the message, or the error."""
    import grpc

    from qtorch.deploy.server.stubs import inference_pb2 as messages
    from tests.deploy.server.serving import TOKEN

    channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}")

    def one(method, request=None, token=TOKEN, timeout=60):
        body = request if isinstance(request, bytes) else (request or empty(method)).SerializeToString()
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        try:
            answer = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(
                body, timeout=timeout, metadata=metadata
            )
        except grpc.RpcError as error:
            return error
        return getattr(messages, f"{method}Response").FromString(answer)

    def empty(method):
        return getattr(messages, f"{method}Request")()

    yield one
    channel.close()
