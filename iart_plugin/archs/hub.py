"""``from_pretrained``, ``save_pretrained`` and ``push_to_hub``: networks on the Hugging Face Hub.

These are the methods of huggingface_hub's own mixin. The package is optional: without it every
network works, and only these three methods ask for it.
"""

from pathlib import Path
from typing import Any, NoReturn

from torch import nn

from iart_plugin import extras
from iart_plugin.weight_files import CheckpointMismatch, State, read_state_dict, write_file

WEIGHTS = "model.safetensors"
"""The file that the Hub expects in a folder, beside the constructor's options in config.json."""

DOWNLOAD = (
    *("revision", "cache_dir", "force_download", "local_files_only", "token"),
    *("proxies", "resume_download"),  # of huggingface_hub before 1.0
)
"""The arguments of a download, which are not the network's."""

try:
    from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
except ImportError as missing:
    advice = f"{extras.advice('huggingface_hub')} ({missing})"

    class PyTorchModelHubMixin:
        """Takes the place of huggingface_hub's class, and says how to install it."""

        def __init_subclass__(cls, **_: Any) -> None:
            super().__init_subclass__()

        @classmethod
        def from_pretrained(cls, *_: Any, **__: Any) -> NoReturn:
            """Raises ModuleNotFoundError, as huggingface_hub is not installed."""
            raise ModuleNotFoundError(advice, name="huggingface_hub")

        save_pretrained = push_to_hub = from_pretrained


class HubNetwork(PyTorchModelHubMixin, library_name="iart_plugin", tags=["video-super-resolution"]):
    """Adds the Hub's three methods to a network.

    A saved folder holds ``model.safetensors``, from which every command and ``load_checkpoint``
    rebuild the network too, ``config.json`` with the constructor's arguments, and a model card.
    """

    def _save_pretrained(self: nn.Module, save_directory: Path) -> None:
        """Writes the weights; huggingface_hub calls it, and then writes the other files."""
        # Weights of the flow network are saved with the others; their old path means nothing there.
        self._hub_mixin_config.pop("spynet_path", None)
        write_file(self.state_dict(), save_directory / WEIGHTS, getattr(self, "options", {}))

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, map_location: str = "cpu", strict: bool = True, **arguments: Any
    ) -> nn.Module:
        """Builds a network and loads its weights; huggingface_hub calls it.

        Args:
            model_id: a folder, or the name of a repository on the Hub.
            map_location: the device for the network.
            strict: whether the file must hold all of the network's weights and no others.
            arguments: those of the download, and those of the constructor, which come from
                ``config.json`` and from the caller.

        Raises:
            FileNotFoundError: if the folder has no weights.
            CheckpointMismatch: if the weights are another network's or do not fit.
        """
        download = {name: arguments.pop(name, None) for name in DOWNLOAD}
        path = Path(model_id, WEIGHTS)
        if not path.parent.is_dir():
            given = {name: value for name, value in download.items() if value is not None}
            path = hf_hub_download(model_id, WEIGHTS, **given)
        state = read_state_dict(path)[0]
        _check_owner(cls, state, model_id)
        network = cls(**arguments)
        network.load_state_dict(state, strict=strict)
        return network.to(map_location).eval()


def _check_owner(cls: type, state: State, model_id: str) -> None:
    """Refuses another network's weights, whose options need not fit this one's constructor."""
    from .keys import recognise  # which imports networks, and they import this file

    found = recognise(state)
    if found and not issubclass(cls, found.architecture.network):
        row = found.architecture
        raise CheckpointMismatch(
            f"{model_id} holds weights of {row.title}: use {row.network.__name__}.from_pretrained"
        )
