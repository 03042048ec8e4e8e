"""LightningCLI: a Trainer, a module and a data module from the command line or a YAML file."""

from __future__ import annotations

import os
from typing import Any

from .callbacks.callback import Callback
from .datamodule import LightningDataModule
from .module import LightningModule
from .seeding import seed_everything
from .trainer import Trainer

COMMANDS = ("fit", "validate", "test", "predict")


def _jsonargparse() -> Any:
    try:
        import jsonargparse
    except ImportError:
        raise ImportError(
            '[LightningCLI] needs jsonargparse, which is not installed: pip install "ringgrad[cli]"'
        ) from None
    return jsonargparse


class LightningCLI:
    """`LightningCLI(Net, Data)`: `script.py fit --trainer.max_epochs 3 --model.lr 0.1 --data.batch_size 32`.

    Arguments come from the constructors of Trainer, module and data module; `--config file.yaml` reads them, and
    `--print_config` writes them. run=False: builds only, without a command; then call `cli.trainer.fit(cli.model,
    cli.datamodule)`. A subclass may define add_arguments_to_parser(parser), before_* and after_* of the commands.
    """

    def __init__(
        self,
        model_class: type[LightningModule],
        datamodule_class: type[LightningDataModule] | None = None,
        save_config_callback: Any = True,
        save_config_kwargs: dict[str, Any] | None = None,
        trainer_class: type[Trainer] = Trainer,
        trainer_defaults: dict[str, Any] | None = None,
        seed_everything_default: bool | int = True,
        parser_kwargs: dict[str, Any] | None = None,
        args: list[str] | None = None,
        run: bool = True,
        auto_configure_optimizers: bool = True,
    ) -> None:
        self.model_class, self.datamodule_class, self.trainer_class = (
            model_class,
            datamodule_class,
            trainer_class,
        )
        self.trainer_defaults = dict(trainer_defaults or {})
        # Objects cannot come from the command line: those of the script are added to what does.
        callbacks = self.trainer_defaults.pop("callbacks", None)
        self._callbacks = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
        self._objects = {k: v for k, v in self.trainer_defaults.items() if not _plain(v)}
        parser = _jsonargparse().ArgumentParser(**(parser_kwargs or {}))
        self.parser = parser
        if run:
            parser.add_argument("command", choices=COMMANDS, help="what the Trainer does")
        parser.add_argument("--config", action="config", help="a YAML file with arguments")
        parser.add_argument("--seed_everything", type=bool | int, default=seed_everything_default)
        skip = {"callbacks", "logger", "plugins", *self._objects}
        parser.add_class_arguments(trainer_class, "trainer", skip=skip, instantiate=False)
        parser.add_class_arguments(model_class, "model")
        if datamodule_class is not None:
            parser.add_class_arguments(datamodule_class, "data")
        plain = {k: v for k, v in self.trainer_defaults.items() if k not in skip}
        parser.set_defaults({f"trainer.{name}": value for name, value in plain.items()})
        self.add_arguments_to_parser(parser)
        self.config = parser.parse_args(args)
        self._build(save_config_callback, save_config_kwargs or {})
        if run:
            self._run(self.config.command)

    def add_arguments_to_parser(self, parser: Any) -> None:
        """For a subclass: further arguments, links and defaults; `parser` is a jsonargparse.ArgumentParser."""

    def _build(self, save_config: Any, options: dict[str, Any]) -> None:
        seed = self.config.seed_everything
        if seed is not False:
            seed_everything(None if seed is True else seed)
        built = self.parser.instantiate(self.config)
        self.model, self.datamodule = built.model, built.get("data")
        callbacks = [*self._callbacks]
        if save_config:
            callbacks.append(SaveConfigCallback(self.parser, self.config, **options))
        # Built here and not by the parser, which knows nothing of the script's objects.
        self.trainer = self.trainer_class(
            **{**vars(self.config.trainer), **self._objects}, callbacks=callbacks
        )

    def _run(self, command: str) -> None:
        for name in (f"before_{command}", None, f"after_{command}"):
            if name is None:
                getattr(self.trainer, command)(self.model, datamodule=self.datamodule)
            elif hasattr(self, name):
                getattr(self, name)()


class SaveConfigCallback(Callback):
    """Writes the arguments of a run into <log_dir>/config.yaml when training begins."""

    def __init__(
        self,
        parser: Any,
        config: Any,
        config_filename: str = "config.yaml",
        overwrite: bool = False,
        **_: Any,
    ) -> None:
        self.parser, self.config = parser, config
        self.config_filename, self.overwrite = config_filename, overwrite

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        os.makedirs(trainer.log_dir, exist_ok=True)
        path = os.path.join(trainer.log_dir, self.config_filename)
        if os.path.exists(path) and not self.overwrite:
            raise RuntimeError(
                f"[LightningCLI] {path} is there already, from another run: take another default_root_dir, or "
                "save_config_kwargs={'overwrite': True}"
            )
        self.parser.save(self.config, path, overwrite=True)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
