"""Whether a Triton kernel is used: only where it runs and is right, and never silently not."""

from __future__ import annotations

import sys
import warnings
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from pipeline.engine.model.kernels import has_kernel, is_block

CUDA = torch.device("cuda")

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs the triton package")


def broken(_device):
    raise OSError("no C compiler")


@pytest.mark.parametrize(
    ("check", "says"), [(broken, "OSError: no C compiler"), (lambda _device: False, "wrong")]
)
def test_a_kernel_that_is_no_good_is_left_out_with_a_warning(monkeypatch, request, check, says):
    name = f"made.{request.node.callspec.id}"
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(check=check))
    with pytest.warns(RuntimeWarning, match=rf"without the Triton kernel .*: .*{says}"):
        assert not has_kernel(name, CUDA)


def test_a_kernel_that_is_good_is_used_and_asked_once(monkeypatch):
    asked = []
    monkeypatch.setitem(
        sys.modules, "made.good", SimpleNamespace(check=lambda device: asked.append(device) or True)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(has_kernel("made.good", CUDA) for _ in range(2))
    assert asked == [CUDA]


def test_a_cpu_has_none():
    assert not has_kernel("made.missing", torch.device("cpu"))


def test_a_block_is_a_power_of_two():
    assert [size for size in range(1, 130) if is_block(size)] == [16, 32, 64, 128]
