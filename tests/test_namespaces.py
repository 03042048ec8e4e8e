"""Names that scripts reach for around the engine: jit, compile, fx, hub, profiler, tensorboard and others."""

import hashlib
import importlib
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest

import ringgrad as rg
from ringgrad import nn
from ringgrad.autograd.op import OpNode, listeners, registry

NAMES = (
    "compiler distributions distributions.categorical distributions.normal distributions.kl "
    "distributions.constraints distributions.transforms func fx hub jit jit.annotations "
    "multiprocessing nn.attention nn.modules nn.modules.batchnorm nn.modules.linear "
    "nn.modules.module nn.modules.transformer nn.modules.utils nn.parameter _six "
    "_inductor.config _dynamo.config xpu mps profiler "
    "autograd.profiler random serialization types utils.model_zoo version "
)
MODULES = NAMES.split()


@pytest.mark.parametrize("name", MODULES)
def test_module_exists(name):
    module = importlib.import_module(f"ringgrad.{name}")
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public), public


def test_modules_are_found_as_attributes():
    code = "import ringgrad as t; t.nn.modules.batchnorm._BatchNorm; t.nn.attention.SDPBackend.MATH;"
    code += (
        " t.autograd.profiler.profile; t.random.manual_seed(1); t.distributions.Normal; t.jit.annotations;"
    )
    code += " assert t.version.cuda is None and t.version.__version__ == t.__version__; t.vmap; t.compile"
    code += "; t.utils.data; t.utils.checkpoint.checkpoint"
    code += "; assert not t.xpu.is_available() and t.mps.device_count() == 0"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_nothing_of_this_is_loaded_at_import():
    code = (
        "import sys, ringgrad; print(*[m for m in sys.modules if 'multiprocessing' in m or 'tensorboard' in m"
    )
    code += " or 'distributions' in m or 'profiler' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.strip() == ""


def test_layers_under_pytorchs_paths():
    assert nn.modules.batchnorm._BatchNorm in nn.BatchNorm2d.__mro__
    assert nn.modules.linear.NonDynamicallyQuantizableLinear(2, 3).weight.shape == (3, 2)
    assert nn.modules.utils._pair(3) == (3, 3)
    assert nn.modules.Linear is nn.Linear and nn.modules.module.Module is nn.Module
    assert nn.modules.container.Sequential is nn.Sequential
    torch = pytest.importorskip("torch")
    for file in ("activation", "batchnorm", "conv", "dropout", "loss", "normalization", "pooling", "rnn"):
        theirs = importlib.import_module(f"torch.nn.modules.{file}")
        ours = importlib.import_module(f"ringgrad.nn.modules.{file}")
        classes = {k for k in theirs.__all__ if isinstance(getattr(theirs, k), type)}
        assert not {k for k in classes if hasattr(torch.nn, k) and hasattr(nn, k) and not hasattr(ours, k)}


def test_attention_kernels_are_accepted():
    q = rg.randn(1, 2, 4, 8)
    plain = nn.functional.scaled_dot_product_attention(q, q, q)
    with nn.attention.sdpa_kernel([nn.attention.SDPBackend.FLASH_ATTENTION]):
        assert rg.equal(nn.functional.scaled_dot_product_attention(q, q, q), plain)
    with pytest.raises(TypeError, match="SDPBackends"):
        with nn.attention.sdpa_kernel("flash"):
            pass


@pytest.fixture
def untold(monkeypatch):
    from ringgrad.jit import torchscript

    monkeypatch.setattr(torchscript, "_told", set())


def test_compile_takes_what_pytorch_takes():
    model = nn.Linear(2, 2)
    made = rg.compile(model, mode="max-autotune")
    assert made._orig_mod is model and list(made.state_dict()) == ["_orig_mod.weight", "_orig_mod.bias"]
    assert made.weight is model.weight and made.in_features == 2

    @rg.compile(dynamic=True)
    def double(x):
        return x * 2

    assert double(3) == 6 and not rg.compiler.is_compiling()
    assert rg.compile(abs, disable=True) is abs
    assert rg.compiler.disable(abs) is abs and rg.compiler.disable(recursive=False)(abs) is abs
    with pytest.raises(RuntimeError, match="must come, came int"):
        rg.compile(3)
    with pytest.raises(RuntimeError, match="mode and options"):
        rg.compile(abs, mode="default", options={})


def test_jit_returns_what_came(untold):
    model = nn.Linear(2, 2)
    with pytest.warns(UserWarning, match="runs eagerly"):
        assert rg.jit.script(model) is model
    with pytest.warns(UserWarning, match="jit.trace"):
        assert rg.jit.trace(model, rg.ones(1, 2)) is model
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rg.jit.script(abs) is abs

    class Scripted(rg.jit.ScriptModule):
        n: rg.jit.Final[int] = 3

        @rg.jit.script_method
        def forward(self, x):
            return x * self.n

        @rg.jit.ignore
        def a(self):
            return 1

        @rg.jit.ignore(drop=True)
        def b(self):
            return 2

        @rg.jit.unused
        def c(self):
            return 3

    s = Scripted()
    assert s(2) == 6 and (s.a(), s.b(), s.c()) == (1, 2, 3) and not isinstance(model, rg.jit.ScriptModule)
    assert not rg.jit.is_scripting() and not rg.jit.is_tracing() and rg.jit.annotate(int, 4) == 4
    assert rg.jit.wait(rg.jit.fork(max, 1, 5)) == 5 and rg.jit.isinstance([1], list)
    with pytest.raises((OSError, RuntimeError)):
        rg.jit.load("no_such_program.rg")
    assert rg.fx.wrap("len") == "len" and rg.fx.wrap(abs) is abs
    with pytest.raises(NotImplementedError):
        rg.fx.symbolic_trace(model)


def test_hub_reads_local_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(rg.hub, "_dir", None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    assert rg.hub.get_dir() == str(tmp_path / "hub")
    url = "https://example.org/models/net.pt"
    with pytest.raises(
        RuntimeError, match=r"download https://example.org/models/net.pt and save it as .*net.pt"
    ):
        rg.hub.load_state_dict_from_url(url)
    rg.save({"w": rg.ones(2)}, folder / "net.pt")
    assert rg.hub.load_state_dict_from_url(url, progress=True)["w"].tolist() == [1, 1]
    assert importlib.import_module("ringgrad.utils.model_zoo").load_url(url)["w"].tolist() == [1, 1]
    assert rg.hub.load_state_dict_from_url((folder / "net.pt").as_uri())["w"].tolist() == [1, 1]
    digest = hashlib.sha256((folder / "net.pt").read_bytes()).hexdigest()
    (folder / "net.pt").rename(folder / f"net-{digest[:8]}.pt")
    named = f"https://example.org/models/net-{digest[:8]}.pt"
    assert "w" in rg.hub.load_state_dict_from_url(named, check_hash=True)
    (folder / "net-00000000.pt").write_bytes((folder / f"net-{digest[:8]}.pt").read_bytes())
    with pytest.raises(RuntimeError, match="SHA-256 must start with 00000000"):
        rg.hub.load_state_dict_from_url("https://example.org/net-00000000.pt", check_hash=True)
    (tmp_path / "hubconf.py").write_text("def double(x): return 2 * x\n")
    assert rg.hub.load(tmp_path, "double", 4, source="local") == 8
    with pytest.raises(RuntimeError, match="not downloaded"):
        rg.hub.load("owner/name", "double")


def test_safe_globals():
    from ringgrad import serialization

    with serialization.safe_globals([nn.Linear]):
        assert serialization.get_safe_globals() == [nn.Linear]
    serialization.add_safe_globals([nn.Module])
    assert serialization.get_safe_globals() == [nn.Module]
    serialization.clear_safe_globals()
    assert serialization.get_safe_globals() == [] and serialization.load is rg.load


def work():
    x = rg.randn(20, 30, requires_grad=True)
    for _ in range(3):
        (x.exp() @ x.t()).sum().backward()


def test_profiler_counts_and_times(tmp_path):
    forward, vjp = registry["exp"].forward, OpNode.vjp
    with rg.autograd.profiler.profile() as p:
        with rg.autograd.profiler.record_function("step"):
            work()
    assert registry["exp"].forward is forward and OpNode.vjp is vjp and not listeners
    rows = {row.key: row for row in p.key_averages()}
    assert rows["exp"].count == 3 and rows["ExpBackward0"].count == 3 and rows["step"].count == 1
    inside = sum(r.self_cpu_time_total for k, r in rows.items() if k != "step")
    assert 0 < inside <= rows["step"].cpu_time_total
    assert rows["step"].self_cpu_time_total == pytest.approx(rows["step"].cpu_time_total - inside)
    table = p.key_averages().table(sort_by="self_cpu_time_total", row_limit=3)
    assert "Self CPU" in table and len(table.splitlines()) == 8
    with pytest.raises(ValueError, match="sort_by"):
        p.key_averages().table(sort_by="name")
    p.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    events = [e for e in events if e["ph"] == "X"]
    assert {e["name"] for e in events} >= {"exp", "step"} and all(e["dur"] >= 0 for e in events)
    work()
    assert len(p.events()) == len(events)


def test_profiler_follows_its_schedule(tmp_path):
    from ringgrad.profiler import ProfilerAction, profile, schedule, tensorboard_trace_handler

    plan = schedule(wait=1, warmup=1, active=2, repeat=2, skip_first=1)
    names = [plan(i).name for i in range(10)]
    cycle = ["NONE", "WARMUP", "RECORD", "RECORD_AND_SAVE"]
    assert names == ["NONE", *cycle, *cycle, "NONE"]
    found = []
    with profile(schedule=plan, on_trace_ready=lambda p: found.append(p.key_averages())) as p:
        for _ in range(10):
            work()
            p.step()
    assert len(found) == 2 and all({r.key: r.count for r in rows}["exp"] == 6 for rows in found)
    with profile(activities=[], on_trace_ready=tensorboard_trace_handler(str(tmp_path), "me")):
        work()
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("me.") and file.name.endswith(".pt.trace.json")
    assert plan(2) is ProfilerAction.WARMUP
    with pytest.raises(ValueError, match="active=0"):
        schedule(wait=0, warmup=0, active=0)


def events_of(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(
        str(folder), size_guidance={"scalars": 0, "images": 0, "histograms": 0, "tensors": 0}
    )
    return found.Reload()


def test_summary_writer(tmp_path):
    pytest.importorskip("tensorboard")
    from ringgrad.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path / "run") as writer:
        for step in range(3):
            writer.add_scalar("loss", rg.tensor(1.0 / (step + 1), requires_grad=True), step)
        writer.add_scalars("both", {"train": 1.0, "test": np.float32(2.0)}, 5)
        writer.add_histogram("weights", rg.linspace(-1, 1, 101), 1)
        writer.add_text("note", "**hello**", 1)
        writer.add_image("image", rg.rand(3, 4, 5), 1)
        writer.add_image("gray", np.zeros((4, 5), np.uint8), 1, dataformats="HW")
        writer.add_images("batch", rg.rand(5, 3, 4, 5), 1)
        writer.add_hparams({"lr": 0.1, "name": "sgd", "flag": True}, {"accuracy": 0.5}, run_name="trial")
        with pytest.warns(UserWarning, match="add_graph"):
            writer.add_graph(nn.Linear(2, 2))
        with pytest.raises(ValueError, match=r"\[add_scalar\] 'x' must be one number, came shape \[2\]"):
            writer.add_scalar("x", rg.ones(2))
        with pytest.raises(ValueError, match="dataformats"):
            writer.add_image("x", rg.ones(4, 5))
        with pytest.raises(ValueError, match="finite"):
            writer.add_histogram("x", rg.tensor([float("nan")]))
        writer.flush()
        assert writer.get_logdir() == str(tmp_path / "run")
    found = events_of(tmp_path / "run")
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [
        (0, 1.0),
        (1, 0.5),
        (2, pytest.approx(1 / 3)),
    ]
    histogram = found.Histograms("weights")[0].histogram_value
    assert (histogram.min, histogram.max, histogram.num) == (-1, 1, 101) and sum(histogram.bucket) == 101
    assert found.Tensors("note/text_summary")[0].tensor_proto.string_val == [b"**hello**"]
    sizes = {
        tag: (found.Images(tag)[0].height, found.Images(tag)[0].width) for tag in ("image", "gray", "batch")
    }
    assert sizes == {"image": (4, 5), "gray": (4, 5), "batch": (8, 15)}
    assert events_of(tmp_path / "run" / "both_test").Scalars("both")[0].value == 2
    assert events_of(tmp_path / "run" / "trial").Scalars("accuracy")[0].value == 0.5


def test_images_are_valid_png(tmp_path):
    pytest.importorskip("tensorboard")
    plt = pytest.importorskip("matplotlib.image")
    from ringgrad.utils.tensorboard import SummaryWriter
    from ringgrad.utils.tensorboard.summary import png

    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    (tmp_path / "x.png").write_bytes(png(pixels))
    np.testing.assert_array_equal((plt.imread(tmp_path / "x.png") * 255).round(), pixels)
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(2, 1), dpi=50)
    with SummaryWriter(tmp_path / "run") as writer:
        writer.add_figure("plot", drawn, 0, close=False)
    image = events_of(tmp_path / "run").Images("plot")[0]
    assert (image.height, image.width) == (50, 100)


def test_summary_writer_without_tensorboard():
    code = "import sys; sys.modules['tensorboard'] = None\n"
    code += "from ringgrad.utils.tensorboard import SummaryWriter\n"
    code += "try: SummaryWriter('x')\nexcept ImportError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert 'pip install "ringgrad[tensorboard]"' in done.stdout, done.stderr
