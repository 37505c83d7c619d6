"""stages.claims: measuring what is claimed about adapters and mixed precision."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stages import claims
from stages.lib.core import predictions
from stages.lib.encoder import precision, tokens
from stages.lib.training import classifier, precision_benchmark

# Run in the precision that `auto` means here, and then in the other one (see `make test`).
pytestmark = pytest.mark.precision


@pytest.fixture
def there(after, monkeypatch):
    monkeypatch.chdir(after.path)
    return after


def change(project, adapter, name, function):
    """Change the adapter's weights whose names contain `name`."""
    path = project.path / f"data/models/{adapter}/adapter_model.safetensors"
    weights = load_file(path)
    changed = {key: function(value) for key, value in weights.items() if name in key}
    assert changed
    # Write a new file, because DVC may have linked this one to its cache.
    path.unlink()
    save_file(weights | changed, path, {"format": "pt"})


def test_adapters_on_one_base_give_what_their_stages_reported(ran):
    facts = ran.read("metrics/claims.json")
    assert facts["swap"]["adapters"] == ["lora-2e-5", "lora-2e-4", "lora"]
    assert facts["swap"]["predictions_that_differ"] == 0
    assert facts["swap"]["largest_score_difference"] < 1e-6
    assert facts["merge"].keys() == {"model", "largest_logit_difference", "reviews"}
    assert facts["merge"]["largest_logit_difference"] < 1e-6
    assert facts["merge"]["reviews"] == 24


def test_costs_are_of_the_device_at_both_precisions(ran):
    costs = ran.read("metrics/costs/claims.json")
    assert list(costs) == ["device", "fp32", "mixed", "allocated"]
    assert costs["fp32"]["samples_per_second"] > 0
    assert 100 < costs["fp32"]["peak_memory_mb"] < 4000
    if costs["mixed"]["precision"] is None:
        assert costs["mixed"]["reason"]
    else:
        assert costs["mixed"]["samples_per_second"] > 0


@pytest.mark.parametrize("float_format", ["fp32", "bf16"])
def test_the_tensors_of_a_step_are_measured_with_and_without_an_adapter(
    ran, monkeypatch, float_format
):
    monkeypatch.chdir(ran.path)
    found = claims.allocated_memory(float_format, seed=0)
    assert (found["precision"], found["reviews"]) == (float_format, 24)
    trained = {
        kind: ran.read(f"metrics/costs/{name}.json")["trainable_parameters"]
        for kind, name in (("full", "finetune-full"), ("lora", claims.COMPARED))
    }
    # A gradient and the two states of AdamW for each trained weight, in float32.
    for kind, count in trained.items():
        expected = pytest.approx(12 * count / 1e6, abs=0.06)
        assert found[kind]["gradients_and_optimizer_mb"] == expected
        assert found[kind]["saved_activations_mb"] > 0
    assert found["lora"]["saved_activations_mb"] < found["full"]["saved_activations_mb"]


@pytest.mark.parametrize("adapter", claims.ADAPTERS)
def test_an_adapter_that_is_not_the_reported_one_is_seen(there, adapter):
    test = tokens.load("test")
    assert claims.swapping(test)["largest_score_difference"] < 1e-6
    change(there, adapter, ".classifier.bias", lambda bias: bias + torch.tensor([1.0, -1.0]))
    assert claims.swapping(test)["largest_score_difference"] > 1e-3


def test_predictions_that_differ_are_counted(there):
    table = predictions.read("lora").query("split == 'test'")["prediction"]
    positive = int((table == "positive").sum())
    away = [9.0, -9.0] if positive else [-9.0, 9.0]
    change(there, "lora", ".classifier.bias", lambda bias: torch.tensor(away))
    differ = positive or len(table)
    assert claims.swapping(tokens.load("test"))["predictions_that_differ"] == differ


def test_what_merging_loses_is_measured(there):
    test = tokens.load("test")
    before = claims.merging(test)["largest_logit_difference"]
    change(there, "lora", "lora_B", lambda weight: weight + 1e6)
    change(there, "lora", "lora_A", lambda weight: weight + 1e6)
    assert claims.merging(test)["largest_logit_difference"] > 100 * max(before, 1e-9)


def test_each_measurement_has_a_process_of_its_own():
    found = {claims._in_a_fresh_process(os.getpid) for _ in range(2)}
    assert len(found | {os.getpid()}) == 3


@pytest.mark.parametrize(
    ("asked", "native", "expected"),
    [("auto", True, "bf16"), ("fp32", True, "bf16"), ("bf16", True, "bf16"), ("bf16", False, None)],
)
def test_16_bit_is_measured_where_the_hardware_has_it(monkeypatch, asked, native, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv(precision.AUTO, raising=False)
    capabilities = {"avx512_bf16": native, "cpu_name": "AMD EPYC"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(
        precision_benchmark, "measure", lambda float_format, seed: {"samples_per_second": 1.0}
    )
    found = claims.training_costs("mixed", asked, 0)
    assert found["precision"] == expected
    assert ("samples_per_second" in found) == native
    assert ("reason" in found) != native


@pytest.mark.parametrize(("reviews", "steps"), [(33, 2), (10_000, precision_benchmark.STEPS)])
def test_the_steps_are_at_most_those_of_an_epoch(reviews, steps):
    train = SimpleNamespace(lengths=np.full(reviews, 9))
    rows = precision_benchmark._first_batches(train, seed=0)
    assert len(rows) == steps
    assert len({row for batch in rows for row in batch}) == min(reviews, 32 * steps)


@pytest.mark.parametrize("float_format", ["fp32", "bf16"])
def test_steps_are_measured_in_the_precision_that_is_named(ran, monkeypatch, float_format):
    monkeypatch.chdir(ran.path)
    seen = []
    linear = torch.nn.functional.linear

    def spy(*args):
        seen.append(linear(*args))
        return seen[-1]

    monkeypatch.setattr(torch.nn.functional, "linear", spy)
    facts = precision_benchmark.measure(float_format, seed=0)
    assert facts["samples_per_second"] > 0
    assert facts["peak_memory_mb"] > 100
    assert facts["saved_activations_mb"] > 0
    # Weights, gradients and the two states of AdamW for each weight, in float32.
    model = classifier.create(["negative", "positive"])
    numbers = sum(parameter.numel() for parameter in model.parameters())
    assert facts["weights_and_optimizer_mb"] == pytest.approx(16 * numbers / 1e6, abs=0.2)
    assert {value.dtype for value in seen} == {
        {"fp32": torch.float32, "bf16": torch.bfloat16}[float_format]
    }
