"""The messages of the protocol over gRPC, which protoc makes of inference.proto."""

__all__ = ()
