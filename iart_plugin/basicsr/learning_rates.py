"""Learning rates of parts of a network, as factors of the option file's."""

from __future__ import annotations

from typing import Any

from torch import nn

from iart_plugin.option_errors import OptionError


def has_factors(train_opt: dict[str, Any]) -> bool:
    """Whether weights have rates, or none, that BasicSR does not give them."""
    # A rate of 0 grows to the schedule's lowest; the weights are to be left alone.
    return bool(train_opt.get("lr_mul")) or train_opt.get("flow_lr_mul") == 0


def rate_factors(net: nn.Module, train_opt: dict[str, Any]) -> dict[str, float]:
    """The factor of the learning rate for each weight's name.

    The longest beginning in ``lr_mul`` that fits a name counts, then ``flow_lr_mul`` for the flow
    network, then 1.

    Raises:
        OptionError: if a beginning fits no name.
    """
    lr_mul = train_opt.get("lr_mul") or {}
    given = {"spynet": train_opt.get("flow_lr_mul", 1), **lr_mul}
    names = [name for name, _ in net.named_parameters()]
    for start in lr_mul:
        if not any(name.startswith(start) for name in names):
            parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            raise OptionError(f"train.lr_mul: no weight's name starts with '{start}'; {parts} do.")
    by_length = sorted(given, key=len, reverse=True)
    return {
        name: float(next((given[start] for start in by_length if name.startswith(start)), 1))
        for name in names
    }
