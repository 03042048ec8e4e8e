"""The hooks of modules and data modules, and who is called when: callbacks first, then the module."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any


class DataHooks:
    """Where data comes from, and what happens to a batch before a step sees it."""

    def prepare_data(self) -> None:
        """Download and the like: called on one process of a host, before `setup`. Keep no state here."""

    def setup(self, stage: str) -> None:
        """On every process before fit, validate, test or predict, which `stage` says."""

    def teardown(self, stage: str) -> None:
        """On every process at the end of fit, validate, test or predict."""

    def train_dataloader(self) -> Any:
        """The loader (or any iterable) of batches to train on."""
        raise NotImplementedError

    def val_dataloader(self) -> Any:
        """The loader, or a list of them, of batches to validate on."""
        raise NotImplementedError

    def test_dataloader(self) -> Any:
        """The loader, or a list of them, of batches to test on."""
        raise NotImplementedError

    def predict_dataloader(self) -> Any:
        """The loader, or a list of them, of batches to predict from."""
        raise NotImplementedError

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Changes a batch as the loader gave it; returns it."""
        return batch

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Moves a batch to the device; for types that the trainer does not know."""
        return batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Changes a batch once it is on the device; returns it."""
        return batch

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of this object."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """May change what is about to be saved."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Sees what has been loaded, before the state is taken from it."""


class TrainingHooks:
    """What a LightningModule may do at the points of the loop; docs/training.md shows the order."""

    def configure_model(self) -> None: ...
    def on_fit_start(self) -> None: ...
    def on_fit_end(self) -> None: ...
    def on_train_start(self) -> None: ...
    def on_train_end(self) -> None: ...
    def on_train_epoch_start(self) -> None: ...
    def on_train_epoch_end(self) -> None: ...
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """-1 leaves out the rest of the epoch."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None: ...
    def on_before_zero_grad(self, optimizer: Any) -> None: ...
    def on_before_backward(self, loss: Any) -> None: ...
    def on_after_backward(self) -> None: ...
    def on_before_optimizer_step(self, optimizer: Any) -> None: ...
    def on_validation_start(self) -> None: ...
    def on_validation_end(self) -> None: ...
    def on_validation_epoch_start(self) -> None: ...
    def on_validation_epoch_end(self) -> None: ...
    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None: ...
    def on_validation_batch_end(
        self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None: ...
    def on_validation_model_eval(self) -> None:
        """Puts the module into evaluation mode."""
        self.eval()  # type: ignore[attr-defined]

    def on_validation_model_zero_grad(self) -> None:
        """Frees the gradients' memory for validation between two training steps."""
        self.zero_grad()  # type: ignore[attr-defined]

    def on_validation_model_train(self) -> None:
        """Puts the module back into training mode."""
        self.train()  # type: ignore[attr-defined]

    def on_test_start(self) -> None: ...
    def on_test_end(self) -> None: ...
    def on_test_epoch_start(self) -> None: ...
    def on_test_epoch_end(self) -> None: ...
    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None: ...
    def on_test_batch_end(
        self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None: ...
    def on_test_model_eval(self) -> None:
        """Puts the module into evaluation mode."""
        self.eval()  # type: ignore[attr-defined]

    def on_test_model_train(self) -> None:
        """Puts the module back into training mode."""
        self.train()  # type: ignore[attr-defined]

    def on_predict_start(self) -> None: ...
    def on_predict_end(self) -> None: ...
    def on_predict_epoch_start(self) -> None: ...
    def on_predict_epoch_end(self) -> None: ...
    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None: ...
    def on_predict_batch_end(
        self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None: ...
    def on_predict_model_eval(self) -> None:
        """Puts the module into evaluation mode."""
        self.eval()  # type: ignore[attr-defined]

    def on_predict_model_train(self) -> None:
        """Puts the module back into training mode."""
        self.train()  # type: ignore[attr-defined]


def overridden(name: str, obj: object, base: type) -> bool:
    """Whether `obj` has a method `name` of its own instead of the one of `base`."""
    method = getattr(obj, name, None)
    return method is not None and getattr(method, "__func__", method) is not getattr(base, name, None)


class Hooks:
    """Calls a hook of those who define it, in order. A hook that nobody defines costs a look into a dict."""

    def __init__(self, trainer: Any, module: Any) -> None:
        from .callbacks.callback import Callback

        self.trainer = trainer
        self.listeners: dict[str, list[Callable[..., Any]]] = {}
        io = trainer.checkpoint_io
        before_writing: list[Callable[..., Any]] = [lambda *_: io.copied()] if io.overlap else []
        names = [name for name in vars(Callback) if name.startswith("on_")]
        names += [name for name in vars(TrainingHooks) if name.startswith("on_") and name not in names]
        for name in names:
            own: list[tuple[Any, Callable[..., Any]]] = [
                (c, partial(getattr(c, name), trainer, module))
                for c in trainer.callbacks
                if overridden(name, c, Callback)
            ]
            late = [call for c, call in own if c.monitors and name == "on_train_epoch_end"]
            calls = self.listeners[name] = []
            for c, call in own:
                if call not in late:
                    calls += [*before_writing * c.changes_weights, call]
            # The modes are the module's own hooks, which do something without being overridden.
            always = "_model_" in name
            if always or overridden(name, module, TrainingHooks):
                calls += [*before_writing, getattr(module, name)]
            if name == "on_load_checkpoint":
                calls.reverse()  # the module sees it before the callbacks
            if name == "on_train_epoch_end":
                self.listeners["monitors"] = late  # after the module's, which may log what they watch

    def __call__(self, name: str, *args: Any) -> list[Any]:
        found = self.listeners[name]
        if not found:
            return found
        before, self.trainer.place = self.trainer.place, name if name != "monitors" else "on_train_epoch_end"
        try:
            return [call(*args) for call in found]
        finally:
            self.trainer.place = before
