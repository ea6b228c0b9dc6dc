"""Learning rates of parts of a network, as factors of the option file's learning rate."""

from __future__ import annotations

from typing import Any

from torch import nn

from iart_plugin.option_errors import OptionError


def has_factors(train_opt: dict[str, Any]) -> bool:
    """Whether some weights need a factor that BasicSR itself does not apply."""
    # BasicSR knows flow_lr_mul, but its schedule raises a rate of 0 to the schedule's lowest rate.
    return bool(train_opt.get("lr_mul")) or train_opt.get("flow_lr_mul") == 0


def rate_factors(net: nn.Module, train_opt: dict[str, Any]) -> dict[str, float]:
    """The factor of the learning rate for each weight, by name.

    A weight's factor is that of the longest prefix in ``lr_mul`` that matches its name. Without
    such a prefix it is ``flow_lr_mul`` for the flow network and 1 for other weights.

    Raises:
        OptionError: if a prefix matches no name.
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
