"""benchmarks/gpu.py runs: every case and both networks, eager and captured, on the fake device."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import ringgrad as rg

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import fakecuda
import fakecuda_cudnn
import fakecuda_kernels as kernels


@pytest.mark.slow
@pytest.mark.skipif(kernels.compiler() is None, reason="no C++ compiler")
def test_the_gpu_benchmark_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import gpu

    monkeypatch.setattr(gpu, "ROUNDS", 1)
    monkeypatch.setitem(sys.modules, "cudnn", fakecuda_cudnn)
    with fakecuda.installed():
        about = gpu.versions(rg, None)
        results: dict[str, Any] = gpu.run({"ringgrad": rg}, gpu.TINY)
    assert about["gpu"] == "Fake GPU"
    gpu.show(results)
    assert "GPT-2 small step" in capsys.readouterr().out
    for name in ("GPT-2 small step, batch 2", "ResNet-50 step"):
        for way in ("eager", "captured"):
            assert results[name].get(f"ringgrad {way}_ms", 0) > 0, results[name]
    assert set(gpu.CASES) <= set(results)
