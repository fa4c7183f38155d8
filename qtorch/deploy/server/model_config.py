"""A model's configuration, which clients of Triton ask for."""

from typing import Any


def model_config(metadata: dict[str, Any]) -> dict[str, Any]:
    """A model's configuration as clients of Triton ask for it, made of its metadata."""

    def tensors(kind: str) -> list[dict[str, Any]]:
        return [
            {"name": each["name"], "data_type": f"TYPE_{each['datatype']}", "dims": list(each["shape"])}
            for each in metadata[kind]
        ]

    return {
        "name": metadata["name"],
        "platform": metadata["platform"],
        "backend": "qtorch",
        # Shapes here have the axis of windows, which 0 says.
        "max_batch_size": 0,
        "input": tensors("inputs"),
        "output": tensors("outputs"),
    }
