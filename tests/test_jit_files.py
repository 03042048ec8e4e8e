"""Programs in files: they run without their source, and damage is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad import command, nn
from ringgrad.nn import functional as F
from ringgrad.tensor.serialization import CheckpointError

sys.path.insert(0, str(Path(__file__).parent))
from jit_models import MODELS


@pytest.mark.parametrize("name", list(MODELS))
def test_models_run_from_their_file(name: str, tmp_path: Path) -> None:
    rg.manual_seed(0)
    model, data, _, _ = MODELS[name]()
    model.eval()
    x, _ = data(0)
    rg.jit.save(model, tmp_path / "model.rg", x)
    program = rg.jit.load(tmp_path / "model.rg")
    for i in range(3):
        x, _ = data(i)
        with rg.no_grad():
            np.testing.assert_allclose(program(x).array, model(x).array, rtol=2e-4, atol=2e-6)


def saved(tmp_path: Path) -> tuple[Any, Any, Path]:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = rg.tensor(np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32))
    rg.jit.save(rg.compile(model), tmp_path / "m.rg", (x,))
    return model, x, tmp_path / "m.rg"


def test_another_process_needs_no_source(tmp_path: Path) -> None:
    model, x, path = saved(tmp_path)
    np.save(tmp_path / "x.npy", x.array)
    code = (
        f"from ringgrad.command import main; raise SystemExit(main(['run-model', {str(path)!r}, '--input', "
    )
    code += f"{str(tmp_path / 'x.npy')!r}, '--output', {str(tmp_path / 'y.npy')!r}]))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), model(x).detach().array, rtol=1e-5, atol=1e-6)


def test_the_command_describes_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, x, path = saved(tmp_path)
    assert command.main(["run-model", str(path), "--graph"]) == 0
    out = capsys.readouterr().out
    assert "input 0: float32[2, 4]" in out and "linear" in out
    np.save(tmp_path / "x.npy", x.array[:1])
    assert command.main(["run-model", str(path), "--input", str(tmp_path / "x.npy")]) == 1
    assert "must be float32[2, 4], came float32[1, 4]" in capsys.readouterr().out


def test_structures_come_back(tmp_path: Path) -> None:
    table = rg.randn(5, 3)

    def fn(i: Any, x: Any) -> Any:
        return {"rows": F.embedding(i, table), "pair": (x[..., 1:], x[i, :].sum(0), x.to(rg.float64))}

    i, x = rg.tensor([1, 3]), rg.randn(6, 4)
    rg.jit.save(fn, tmp_path / "f.rg", (i, x))
    got = rg.jit.load(tmp_path / "f.rg")(i + 1, x * 2)
    want = fn(i + 1, x * 2)
    np.testing.assert_array_equal(got["rows"].array, want["rows"].array)
    for a, b in zip(got["pair"], want["pair"]):
        np.testing.assert_array_equal(a.array, b.array)


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    _, _, path = saved(tmp_path)
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        path.write_bytes(bytes(damaged))
        with pytest.raises((CheckpointError, ValueError)):
            rg.jit.load(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises((CheckpointError, ValueError)):
        rg.jit.load(path)


def test_what_is_no_program_is_refused(tmp_path: Path) -> None:
    rg.save({"a": rg.ones(2)}, tmp_path / "c.rg")
    with pytest.raises(ValueError, match=r"must be a program written by jit.save"):
        rg.jit.load(tmp_path / "c.rg")
    _, _, path = saved(tmp_path)
    tree = rg.load(path)
    for change, match in (
        (lambda t: t.update(version=99), "version must be 1"),
        (lambda t: t["nodes"][0].__setitem__(1, "os.system"), "not known here"),
        (lambda t: t["nodes"][0].__setitem__(0, "gradient"), "not known here"),
        (lambda t: t["values"].pop(), "does not hold together"),
        (lambda t: t["nodes"][0].__setitem__(2, ["call", 1]), "does not hold together"),
    ):
        tree = rg.load(path)
        change(tree)
        rg.save(tree, tmp_path / "bad.rg")
        with pytest.raises(ValueError, match=match):
            rg.jit.load(tmp_path / "bad.rg")
    with pytest.raises((OSError, RuntimeError)):
        rg.jit.load(tmp_path / "missing.rg")


def test_what_cannot_be_saved_says_why(tmp_path: Path) -> None:
    x = rg.ones(3, 4)
    with pytest.raises(TypeError, match="example_inputs must be given"):
        rg.jit.save(nn.Linear(4, 4), tmp_path / "m.rg")
    with pytest.raises(RuntimeError, match=r"cannot be replayed: Python looks at the values"):
        rg.jit.save(lambda x: x * x.sum().item(), tmp_path / "m.rg", x)
    with pytest.raises(RuntimeError, match="must not change anything outside"):
        rg.jit.save(nn.BatchNorm1d(4), tmp_path / "m.rg", x)
    model = nn.Linear(4, 4)
    optimizer = rg.optim.SGD(model.parameters(), 0.1)

    def step(x: Any) -> Any:
        with rg.enable_grad():
            model(x).sum().backward()
        optimizer.step()
        return x * 2

    with pytest.raises(RuntimeError, match="must not change anything outside"):
        rg.jit.save(step, tmp_path / "m.rg", x)
    assert not (tmp_path / "m.rg").exists()
