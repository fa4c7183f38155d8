"""Writes inference_pb2.py and its types anew: python -m qtorch.deploy.server.stubs [FOLDER]; needs grpcio-tools."""

import sys
from pathlib import Path

from grpc_tools import protoc


def generate(folder: Path) -> None:
    """Runs protoc on inference.proto.

    Args:
        folder: where the modules are written.

    Raises:
        RuntimeError: protoc refuses the file.
    """
    source = Path(__file__).with_name("inference.proto")
    arguments = [f"--python_out={folder}", f"--pyi_out={folder}", f"-I{source.parent}", source.name]
    if protoc.main(["protoc", *arguments]) != 0:
        raise RuntimeError(f"{source}: protoc refuses it; what it says stands above.")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
