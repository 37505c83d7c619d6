"""stages.lib.encoder.memory: memory that is returned to the system, and what it held."""

import sys

import psutil
import pytest
import torch

from stages.lib.encoder import memory

SIZE = 25_000_000
linux = pytest.mark.skipif(sys.platform != "linux", reason="nothing happens elsewhere")


def resident():
    return psutil.Process().memory_info().rss


@pytest.fixture
def weight(tmp_path):
    """A hundred megabytes of ones that are mapped from a file, as a loaded model's weights are."""
    path = str(tmp_path / "weight")
    torch.from_file(path, shared=True, size=SIZE).fill_(1)
    return torch.from_file(path, shared=False, size=SIZE)


def on_disk(path):
    """Tell whether a file's pages can be dropped, which those of a tmpfs cannot be."""
    mounts = [
        mount for mount in psutil.disk_partitions(all=True) if path.is_relative_to(mount.mountpoint)
    ]
    return max(mounts, key=lambda mount: len(mount.mountpoint)).fstype != "tmpfs"


@linux
def test_a_weight_that_is_paged_out_takes_no_memory_until_it_is_read(weight, tmp_path):
    if not on_disk(tmp_path):
        pytest.skip("a tmpfs is memory itself")
    assert weight.sum() == SIZE
    before = resident()
    memory.page_out(weight)
    assert before - resident() > 0.9 * weight.nbytes
    assert weight.sum() == SIZE
    assert before - resident() < 0.1 * weight.nbytes


def test_a_weight_that_was_changed_stays_changed(weight):
    weight[::1000] = 2
    memory.page_out(weight)
    assert weight.sum() == SIZE + SIZE // 1000


def test_a_weight_of_less_than_a_page_is_left_alone():
    weight = torch.arange(6.0)
    memory.page_out(weight)
    assert weight.tolist() == [0, 1, 2, 3, 4, 5]


@linux
def test_memory_that_was_freed_is_returned():
    """What is freed below a block that is in use stays with the process by itself."""
    blocks = [torch.ones(16_000) for _ in range(4000)]
    last = blocks.pop()
    blocks.clear()
    before = resident()
    memory.return_freed()
    assert before - resident() > 150e6
    assert last.sum() == 16_000
