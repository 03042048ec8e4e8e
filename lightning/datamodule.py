"""LightningDataModule: the loaders of one data set, and how it is prepared, in one object."""

from __future__ import annotations

from typing import Any, TypeVar

from ..data import DataLoader, IterableDataset
from .hooks import DataHooks
from .hyperparameters import HyperparametersMixin, savable

D = TypeVar("D", bound="LightningDataModule")


class LightningDataModule(DataHooks, HyperparametersMixin):
    """Subclass it and define `prepare_data`, `setup` and the loaders: `trainer.fit(model, datamodule=data)`."""

    trainer: Any = None
    name: str | None = None

    @classmethod
    def from_datasets(
        cls,
        train_dataset: Any = None,
        val_dataset: Any = None,
        test_dataset: Any = None,
        predict_dataset: Any = None,
        batch_size: int = 1,
        num_workers: int = 0,
        **kwargs: Any,
    ) -> LightningDataModule:
        """A data module over data sets (each one, or a list of them); training batches are shuffled."""

        def loader(dataset: Any, shuffle: bool = False) -> Any:
            if isinstance(dataset, list | tuple):
                return [loader(d, shuffle) for d in dataset]
            shuffle = shuffle and not isinstance(dataset, IterableDataset)
            return DataLoader(dataset, batch_size, shuffle or None, num_workers=num_workers)

        data = cls(**kwargs)
        if train_dataset is not None:
            data.train_dataloader = lambda: loader(train_dataset, True)  # type: ignore[method-assign]
        if val_dataset is not None:
            data.val_dataloader = lambda: loader(val_dataset)  # type: ignore[method-assign]
        if test_dataset is not None:
            data.test_dataloader = lambda: loader(test_dataset)  # type: ignore[method-assign]
        if predict_dataset is not None:
            data.predict_dataloader = lambda: loader(predict_dataset)  # type: ignore[method-assign]
        return data

    @classmethod
    def load_from_checkpoint(
        cls: type[D], checkpoint_path: Any, map_location: Any = None, **kwargs: Any
    ) -> D:
        """Built with the hyperparameters that the checkpoint holds; `kwargs` overrule them."""
        from ..tensor.serialization import load
        from .checkpoint import build

        saved = load(checkpoint_path, map_location=map_location)
        return build(cls, saved.get("datamodule_hyper_parameters", {}), None, kwargs)

    def _checkpoint(self) -> dict[str, Any]:
        return {
            "datamodule_hyper_parameters": savable(self.hparams),
            type(self).__qualname__: self.state_dict(),
        }
