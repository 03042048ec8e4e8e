"""Fine-tuning: parts of a module begin frozen, and join the optimizer later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ...nn import Module
from ...nn.layers.norm import _BatchNorm
from .callback import Callback


class BaseFinetuning(Callback):
    """Subclass it: `freeze_before_training` freezes parts, `finetune_function` unfreezes them at an epoch's begin.

    Both use the static methods here. An optimizer must leave out what is frozen:
    `optim.Adam(filter(lambda p: p.requires_grad, self.parameters()))`. A run that goes on from a checkpoint gets the
    parameter groups that were there when it was saved.
    """

    def __init__(self) -> None:
        self._groups: list[
            list[str]
        ] = []  # names of parameters by group, after the first optimizer's last change
        self._resumed: list[list[str]] | None = None

    # ---- what subclasses write

    def freeze_before_training(self, pl_module: Any) -> None:
        """Freezes parts of the module; called before configure_optimizers."""
        raise NotImplementedError(f"[{type(self).__name__}] must define freeze_before_training(pl_module)")

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        """Unfreezes what is due in this epoch, for each optimizer."""
        raise NotImplementedError(
            f"[{type(self).__name__}] must define finetune_function(pl_module, epoch, optimizer)"
        )

    # ---- what they use

    @staticmethod
    def flatten_modules(modules: Any) -> list[Module]:
        """The modules that hold parameters of their own, within a module or several."""
        if not isinstance(modules, Module):
            return [flat for m in modules for flat in BaseFinetuning.flatten_modules(m)]
        return [m for m in modules.modules() if m._parameters or not list(m.children())]

    @staticmethod
    def filter_params(modules: Any, train_bn: bool = True, requires_grad: bool = True) -> Iterator[Any]:
        """Parameters that (do not) require gradients; those of batch norms are left out unless train_bn."""
        for module in BaseFinetuning.flatten_modules(modules):
            if isinstance(module, _BatchNorm) and not train_bn:
                continue
            yield from (p for p in module.parameters(recurse=False) if p.requires_grad is requires_grad)

    @staticmethod
    def make_trainable(modules: Any) -> None:
        """Unfreezes all parameters; batch norms go on with their statistics."""
        for module in BaseFinetuning.flatten_modules(modules):
            if isinstance(module, _BatchNorm):
                module.track_running_stats = True
            for p in module.parameters(recurse=False):
                p.requires_grad = True

    @staticmethod
    def freeze_module(module: Module) -> None:
        """Freezes a module's own parameters; a batch norm's statistics too."""
        if isinstance(module, _BatchNorm):
            module.track_running_stats = False
        for p in module.parameters(recurse=False):
            p.requires_grad = False

    @staticmethod
    def freeze(modules: Any, train_bn: bool = True) -> None:
        """Freezes modules; batch norms stay trainable unless train_bn is False."""
        for module in BaseFinetuning.flatten_modules(modules):
            if isinstance(module, _BatchNorm) and train_bn:
                BaseFinetuning.make_trainable(module)
            else:
                BaseFinetuning.freeze_module(module)

    @staticmethod
    def filter_on_optimizer(optimizer: Any, params: Iterable[Any]) -> list[Any]:
        """Those that the optimizer does not have yet."""
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return [p for p in params if id(p) not in own]

    @staticmethod
    def unfreeze_and_add_param_group(
        modules: Any,
        optimizer: Any,
        lr: float | None = None,
        initial_denom_lr: float = 10.0,
        train_bn: bool = True,
    ) -> None:
        """Unfreezes modules and gives them to the optimizer as a group of their own.

        lr: default that of the first group, divided by initial_denom_lr.
        """
        BaseFinetuning.make_trainable(modules)
        rate = optimizer.param_groups[0]["lr"] / initial_denom_lr if lr is None else lr
        found = BaseFinetuning.filter_params(modules, train_bn=train_bn, requires_grad=True)
        if params := BaseFinetuning.filter_on_optimizer(optimizer, found):
            optimizer.add_param_group({"params": params, "lr": rate})

    # ---- when

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit":
            self.freeze_before_training(pl_module)

    def before_restore(self, trainer: Any, pl_module: Any) -> None:
        """Gives optimizers the groups that the checkpoint has: its states are of these."""
        names = self._resumed
        self._resumed = None
        if names is None or not trainer.optimizers:
            return
        parameters, optimizer = dict(pl_module.named_parameters()), trainer.optimizers[0]
        for group in names[len(optimizer.param_groups) :]:
            for name in group:
                parameters[name].requires_grad = True
            optimizer.add_param_group({"params": [parameters[name] for name in group]})

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self.before_restore(trainer, pl_module)
        self._note(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        before = _trained(pl_module)
        for optimizer in trainer.optimizers:
            self.finetune_function(pl_module, trainer.current_epoch, optimizer)
        if _trained(pl_module) != before:
            trainer.parameters_changed()
            self._note(trainer, pl_module)

    def _note(self, trainer: Any, pl_module: Any) -> None:
        names = {id(p): name for name, p in pl_module.named_parameters()}
        groups = trainer.optimizers[0].param_groups if trainer.optimizers else []
        self._groups = [[names[id(p)] for p in group["params"] if id(p) in names] for group in groups]

    def state_dict(self) -> dict[str, Any]:
        return {"groups": self._groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resumed = state_dict["groups"]


class BackboneFinetuning(BaseFinetuning):
    """Trains `pl_module.backbone` from an epoch on, at a growing learning rate.

    It starts at backbone_initial_lr (default: the optimizer's times backbone_initial_ratio_lr) and is multiplied by
    lambda_func(epoch) each epoch, until it reaches the optimizer's first rate; with should_align it then follows it.
    """

    def __init__(
        self,
        unfreeze_backbone_at_epoch: int = 10,
        lambda_func: Callable[[int], float] = lambda epoch: 2,
        backbone_initial_ratio_lr: float = 10e-2,
        backbone_initial_lr: float | None = None,
        should_align: bool = True,
        initial_denom_lr: float = 10.0,
        train_bn: bool = True,
        verbose: bool = False,
        rounding: int = 12,
    ) -> None:
        super().__init__()
        self.unfreeze_backbone_at_epoch, self.lambda_func = unfreeze_backbone_at_epoch, lambda_func
        self.backbone_initial_ratio_lr, self.backbone_initial_lr = (
            backbone_initial_ratio_lr,
            backbone_initial_lr,
        )
        self.should_align, self.initial_denom_lr = should_align, initial_denom_lr
        self.train_bn, self.verbose, self.rounding = train_bn, verbose, rounding
        self.previous_backbone_lr: float | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit" and not isinstance(getattr(pl_module, "backbone", None), Module):
            raise TypeError(
                f"[BackboneFinetuning] the module must have a Module `backbone`, {type(pl_module).__name__} has none"
            )
        super().setup(trainer, pl_module, stage)

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.backbone, train_bn=self.train_bn)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        rate = optimizer.param_groups[0]["lr"]
        if epoch == self.unfreeze_backbone_at_epoch:
            first = self.backbone_initial_lr
            first = rate * self.backbone_initial_ratio_lr if first is None else first
            self.previous_backbone_lr = first
            self.unfreeze_and_add_param_group(
                pl_module.backbone, optimizer, first, self.initial_denom_lr, self.train_bn
            )
        elif epoch > self.unfreeze_backbone_at_epoch and self.previous_backbone_lr is not None:
            grown = self.lambda_func(epoch + 1) * self.previous_backbone_lr
            self.previous_backbone_lr = rate if self.should_align and grown > rate else grown
            optimizer.param_groups[-1]["lr"] = self.previous_backbone_lr
        if self.verbose and self.previous_backbone_lr is not None:
            told = round(rate, self.rounding), round(self.previous_backbone_lr, self.rounding)
            pl_module.trainer.print(f"epoch {epoch}: learning rate {told[0]}, backbone {told[1]}")

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "previous_backbone_lr": self.previous_backbone_lr}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.previous_backbone_lr = state_dict["previous_backbone_lr"]


def _trained(module: Any) -> list[bool]:
    return [p.requires_grad for p in module.parameters()]
