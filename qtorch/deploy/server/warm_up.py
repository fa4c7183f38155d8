"""Made-up requests that a model answers before it is said to be ready, so that the first real ones need not wait."""

import torch

from qtorch.deploy.server.protocol import InferRequest
from qtorch.deploy.server.served_model import ServedModel

_SIZES = (1, 8)  # windows: of a lone request, and of a batch


def warm_up(model: ServedModel) -> None:
    """Answers requests of the sizes that come most; what it refuses is as good, since an example is no real market.

    Args:
        model: that is to answer.
    """
    for size in _SIZES:
        model.run([_example(model, min(size, model.limits.max_batch))])


def _example(model: ServedModel, size: int) -> InferRequest:
    service = model.service
    own = service.program.signature.inputs
    tensors = dict(zip((spec.name for spec in own), service.program.example(B=size), strict=True))
    sizes = {axis: n for spec in own for axis, n in zip(spec.axes, tensors[spec.name].shape, strict=True)}
    for spec in service.inputs:
        if spec.name not in tensors and spec.name not in service.optional:  # numbers of labels, of which -1 is none
            tensors[spec.name] = torch.full([sizes[axis] for axis in spec.axes], -1)
    arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    return InferRequest(model.name, model.version, None, {}, arrays)
