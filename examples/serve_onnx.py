"""Train, export to ONNX, serve over HTTP with ONNX Runtime: serving needs neither ringgrad nor the training code.

    python examples/serve_onnx.py                  # trains, exports, serves, asks, and stops
    python examples/serve_onnx.py --stay           # keeps serving; then:
    curl -d '[[0,0,5,13,9,1,0,0, ... 64 numbers of 0 to 16]]' localhost:8000

pip install "ringgrad[onnx]" scikit-learn
"""

from __future__ import annotations

import argparse
import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

MOST_BYTES = 1 << 20  # of a request


def train(epochs: int, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Writes the model; returns digits that it has not seen, their labels, and its own scores of them."""
    from sklearn.datasets import load_digits

    import ringgrad as rg
    import ringgrad.onnx
    from ringgrad import nn, optim
    from ringgrad.nn import functional as F

    rg.manual_seed(0)
    found = load_digits()
    x, y = rg.tensor(found.data, dtype=rg.float32), rg.tensor(found.target)
    norm = nn.BatchNorm1d(64)  # takes raw pixels: whoever asks the server need not know how to scale them
    model = nn.Sequential(norm, nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    for epoch in range(epochs):
        for part in rg.randperm(1400).split(50):
            loss = F.cross_entropy(model(x[part]), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}")
    model.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    ringgrad.onnx.export(
        model,
        x[:2],
        path,
        input_names=["pixels"],
        output_names=["scores"],
        dynamic_axes={"pixels": {0: "batch"}},
    )
    with rg.no_grad():
        scores = model(x[1400:])
    return x[1400:].numpy(), y[1400:].numpy(), scores.numpy()


def server(path: Path, port: int) -> ThreadingHTTPServer:
    """POST a list of lists of 64 numbers; the answer is a list of {"digit", "probability"}."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                length = int(self.headers.get("Content-Length", -1))
                if not 0 <= length <= MOST_BYTES:
                    raise ValueError(f"a request must have a length of at most {MOST_BYTES} bytes")
                pixels = np.array(json.loads(self.rfile.read(length)), np.float32)
                if pixels.ndim != 2 or pixels.shape[1] != 64:
                    raise ValueError(f"a list of lists of 64 numbers is needed, came shape {pixels.shape}")
            except ValueError as error:
                return self.answer(400, {"error": str(error)})
            (scores,) = session.run(None, {"pixels": pixels})
            odds = np.exp(scores - scores.max(1, keepdims=True))
            odds /= odds.sum(1, keepdims=True)
            found = [{"digit": int(p.argmax()), "probability": round(float(p.max()), 6)} for p in odds]
            self.answer(200, found)

        def answer(self, code: int, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def ask(port: int, pixels: Any) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}", json.dumps(pixels).encode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--model", type=Path, default=Path("runs/serve/digits.onnx"))
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--stay", action="store_true")
    args = parser.parse_args()
    pixels, labels, scores = train(args.epochs, args.model)
    with server(args.model, 8000 if args.stay and not args.port else args.port) as http:
        print(f"{args.model} ({args.model.stat().st_size / 1024:.0f} kB) on port {http.server_port}")
        if args.stay:
            return http.serve_forever()
        threading.Thread(target=http.serve_forever, daemon=True).start()
        answers = []
        for start in range(0, len(pixels), 64):
            answers += [a["digit"] for a in ask(http.server_port, pixels[start : start + 64].tolist())]
        http.shutdown()
    same = float(np.mean(np.array(answers) == scores.argmax(1)))
    accuracy = float(np.mean(np.array(answers) == labels))
    print("result:", json.dumps({"accuracy": accuracy, "same_as_trained": same}))


if __name__ == "__main__":
    main()
