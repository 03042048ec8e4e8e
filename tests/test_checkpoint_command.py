"""`ringgrad checkpoint`: verify, inspect, convert."""

from __future__ import annotations

from pathlib import Path

import pytest

import ringgrad as rg
from ringgrad.command import main
from ringgrad.distributed.checkpoint import Checkpointer


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rg.manual_seed(1)
    net = rg.nn.Linear(3, 2)
    rg.save({"model": net.state_dict(), "epoch": 4, "losses": [0.5, 0.25]}, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def test_verify_reads_files_and_folders(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model.parent / "steps"
    with Checkpointer(folder) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, {"w": rg.ones(1000)})
    assert main(["checkpoint", "verify", str(model), str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"ok       {model}: 2 tensors, 32 bytes" in out and out.count("1 tensors, 3.906 KiB") == 2
    shard = next((folder / "step-000000002").glob("shard*"))
    raw = bytearray(shard.read_bytes())
    raw[-100] ^= 1
    shard.write_bytes(raw)
    assert main(["checkpoint", "verify", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "ok       " in out and "damaged  " in out and "tensor 'w'" in out


def test_inspect_lists_tensors_and_other_values(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "inspect", str(model)]) == 0
    out = capsys.readouterr().out
    assert "model.weight" in out and "float32" in out and "[2, 3]" in out
    assert "2 tensors, 8 elements, 32 bytes" in out and "epoch" in out and "[0.5, 0.25]" in out


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".rg"])
def test_convert_takes_a_part_to_another_format(
    model: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = model.with_name(f"b{suffix}")
    assert main(["checkpoint", "convert", str(model), str(target), "--key", "model"]) == 0
    weights, found = rg.load(model)["model"], rg.load(target)
    assert list(found) == ["weight", "bias"] and all((found[k] == weights[k]).all() for k in found)
    assert main(["checkpoint", "convert", str(model), str(target)]) == 2
    assert "must not exist, or --force" in capsys.readouterr().err
    assert main(["checkpoint", "convert", str(target), str(model), "--force"]) == 0
    assert (rg.load(model)["bias"] == weights["bias"]).all()


def test_others_read_what_convert_writes(model: Path) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    theirs = torch.nn.Linear(3, 2)
    torch.save({"model": theirs.state_dict()}, model)
    plain, back = model.with_name("b.safetensors"), model.with_name("c.pt")
    assert main(["checkpoint", "convert", str(model), str(plain), "--key", "model"]) == 0
    assert torch.equal(safetensors.load_file(plain)["weight"], theirs.weight)
    assert main(["checkpoint", "convert", str(plain), str(back)]) == 0
    assert torch.equal(torch.load(back)["bias"], theirs.bias)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["verify", "nowhere.pt"], "nowhere.pt"),
        (["convert", "a.pt", "b.safetensors"], "holds a flat dict of tensors, and a.pt has epoch, losses"),
        (["convert", "a.pt", "b.pt", "--key", "model.body"], "where body should be it has weight, bias"),
        (["convert", "a.pt", "b.pt", "--key", "epoch.x"], "where x should be it has a int"),
        (["inspect", "c.txt"], "is not a checkpoint"),
    ],
)
def test_what_can_not_be_done_is_said(
    model: Path,
    args: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(model.parent)
    Path("c.txt").write_text("hello")
    assert main(["checkpoint", *args]) == 1
    shown = capsys.readouterr()
    assert words in shown.out + shown.err and not Path("b.safetensors").exists()
