"""An unmodified tritonclient against a server; prints what it got as JSON. Arguments: kind, address, token, arrays."""

import json
import sys
from importlib import import_module

import numpy as np


def main(kind: str, address: str, token: str, arrays: str) -> None:
    client_module = import_module(f"tritonclient.{kind}")
    headers = {"authorization": f"Bearer {token}"}  # tritonclient writes into what it is given
    client = client_module.InferenceServerClient(address)
    options = {"as_json": True} if kind == "grpc" else {}
    found = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("spx", headers=dict(headers)),
        "version_ready": client.is_model_ready("spx", "1", headers=dict(headers)),
        "no_model_ready": _error(lambda: client.is_model_ready("none", headers=dict(headers))),
        "server": client.get_server_metadata(headers=dict(headers), **options),
        "metadata": client.get_model_metadata("spx", headers=dict(headers), **options),
        "config": client.get_model_config("spx", headers=dict(headers), **options),
        "index": client.get_model_repository_index(headers=dict(headers), **options),
        "no_token": _error(lambda: client.get_server_metadata()),
    }
    tensors = np.load(arrays)
    for binary in (True, False):
        for version in ("1", "2", ""):
            inputs = [_input(client_module, name, tensors[name], binary) for name in tensors.files]
            names = ("mean", "value_at_risk")
            flag = {"binary_data": binary} if kind == "http" else {}
            outputs = [client_module.InferRequestedOutput(name, **flag) for name in names]
            result = client.infer(
                "spx", inputs, model_version=version, outputs=outputs, request_id="r-1", headers=dict(headers),
                parameters={"levels": "0.99"},
            )  # fmt: skip
            values = {name: result.as_numpy(name).tolist() for name in names}
            found[f"infer {binary} {version}"] = values
    found["all"] = sorted(
        each["name"] if kind == "http" else each.name
        for each in _outputs(client.infer("spx", inputs, headers=dict(headers)), kind)
    )
    found["unknown_model"] = _error(lambda: client.infer("none", inputs, headers=dict(headers)))
    found["unknown_version"] = _error(lambda: client.infer("spx", inputs, model_version="9", headers=dict(headers)))
    found["missing_input"] = _error(lambda: client.infer("spx", inputs[1:], headers=dict(headers)))
    if kind == "http":
        for name in ("gzip", "deflate"):
            result = client.infer(
                "spx", inputs, headers=dict(headers), request_compression_algorithm=name,
                response_compression_algorithm=name, outputs=[client_module.InferRequestedOutput("mean")],
            )  # fmt: skip
            found[name] = result.as_numpy("mean").tolist()
    client.unload_model("spx", headers=dict(headers))
    found["unloaded"] = _error(lambda: client.infer("spx", inputs, headers=dict(headers)))
    client.load_model("spx", headers=dict(headers))
    found["loaded"] = client.is_model_ready("spx", headers=dict(headers))
    client.close()
    print(json.dumps(found))


def _outputs(result, kind):
    response = result.get_response()
    return response["outputs"] if kind == "http" else response.outputs


def _input(client_module, name, value, binary):
    kinds = {"f": "FP32", "b": "BOOL"}
    one = client_module.InferInput(name, list(value.shape), kinds[value.dtype.kind])
    if client_module.__name__.endswith("http"):
        one.set_data_from_numpy(value, binary_data=binary)
    else:
        one.set_data_from_numpy(value)
    return one


def _error(call):
    try:
        return call()
    except Exception as error:  # noqa: BLE001  what the client makes of it is looked at
        return {"status": error.status(), "message": error.message()}


if __name__ == "__main__":
    sys.path.remove(sys.path[0])  # else this folder would hide installed modules
    main(*sys.argv[1:])
