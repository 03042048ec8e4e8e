"""Names for type hints: what steps and configure_optimizers return, what loaders are."""

from typing import Any

STEP_OUTPUT = Any
EPOCH_OUTPUT = list[Any]
EVAL_DATALOADERS = Any
TRAIN_DATALOADERS = Any
OptimizerLRScheduler = Any
OptimizerLRSchedulerConfig = dict[str, Any]
LRSchedulerConfigType = dict[str, Any]
LRSchedulerTypeUnion = Any
