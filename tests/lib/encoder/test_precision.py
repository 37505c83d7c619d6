"""stages.lib.encoder.precision: the meaning of `precision` in params.yaml on each device."""

from types import SimpleNamespace

import pytest
import torch

from stages.lib.core.errors import InputError
from stages.lib.encoder import precision, processes


@pytest.fixture(autouse=True)
def _nothing_overrides(monkeypatch):
    monkeypatch.delenv(precision.AUTO, raising=False)


@pytest.fixture
def cpu(monkeypatch):
    monkeypatch.setattr(precision, "device", lambda: torch.device("cpu"))

    def have(*names, name="AMD EPYC"):
        capabilities = dict.fromkeys(names, True) | {"cpu_name": name}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)

    return have


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(precision, "device", lambda: torch.device("cuda"))

    def have(bf16):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bf16)

    return have


INTEL = "Intel(R) Xeon(R) Processor"


@pytest.mark.parametrize(
    ("name", "capabilities", "float_format"),
    [
        ("AMD EPYC", ["avx512_bf16"], "bf16"),
        ("AMD EPYC", ["avx512_f"], "fp32"),
        (INTEL, ["avx512_bf16", "amx_tile"], "bf16"),
        (INTEL, ["avx512_bf16"], "fp32"),
        (INTEL, [], "fp32"),
        (None, [], "fp32"),
    ],
)
def test_auto_on_a_cpu_is_bf16_where_it_is_faster(cpu, name, capabilities, float_format):
    cpu(*capabilities, name=name)
    assert precision.resolve("auto") == float_format


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_an_environment_variable_overrides_what_auto_is_and_nothing_else(cpu, monkeypatch, asked):
    cpu("avx512_bf16")
    monkeypatch.setenv(precision.AUTO, asked)
    assert precision.resolve("auto") == asked
    assert precision.resolve("fp32") == "fp32"


@pytest.mark.parametrize("value", ["float32", "fp16"])
def test_an_override_that_the_device_cannot_do_is_named(cpu, monkeypatch, value):
    cpu()
    monkeypatch.setenv(precision.AUTO, value)
    with pytest.raises(InputError, match=f"^AUTO_PRECISION: '{value}' is wrong: "):
        precision.resolve("auto")


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_a_cpu_does_what_it_is_asked(cpu, asked):
    cpu()
    assert precision.resolve(asked) == asked


def test_fp16_on_a_cpu_is_refused(cpu):
    cpu()
    with pytest.raises(InputError) as error:
        precision.resolve("fp16")
    assert str(error.value) == (
        "params.yaml: precision: 'fp16' is wrong: it needs a CUDA GPU and there is none; "
        "use auto, fp32 or bf16"
    )


def test_auto_on_a_gpu_is_fp16_as_published(gpu):
    gpu(bf16=True)
    assert precision.resolve("auto") == "fp16"
    assert precision.resolve("bf16") == "bf16"


def test_bf16_on_a_gpu_without_it_is_refused(gpu):
    gpu(bf16=False)
    with pytest.raises(InputError, match=r"this GPU has no bfloat16; use auto, fp32 or fp16"):
        precision.resolve("bf16")


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
    assert precision.device() == here.device
    assert attention() == enabled
