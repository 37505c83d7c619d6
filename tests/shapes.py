"""The shapes of what PyTorch computes."""

from torch import is_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Shapes(TorchDispatchMode):
    """The shapes of all tensors that are computed."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.found |= {tensor.shape for tensor in tree_leaves(result) if is_tensor(tensor)}
        return result
