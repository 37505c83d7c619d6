"""stages.lib.encoder.processes: the device of a process; tests/test_processes.py starts several."""

from types import SimpleNamespace

import pytest
import torch

from stages.lib.encoder import processes


@pytest.fixture
def attention():
    """PyTorch's choice of cuDNN's attention as it is by default, whatever a test does to it."""
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield torch.backends.cuda.cudnn_sdp_enabled
    torch.backends.cuda.enable_cudnn_sdp(True)


@pytest.mark.parametrize(("device", "enabled"), [("cuda", False), ("cpu", True)])
def test_a_gpu_builds_no_plan_of_its_attention_for_each_shape(
    monkeypatch, attention, device, enabled
):
    here = SimpleNamespace(device=torch.device(device))
    monkeypatch.setattr(processes, "PartialState", lambda **_: here)
    assert processes.state() is here
    assert attention() == enabled
