"""The keys that BasicSR's and this package's video data sets read below ``datasets:``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from iart_plugin.basicsr.degradation_schema import Degradation
from iart_plugin.basicsr.schema import Int, IntOrZero, OpenSection, Positive, Section


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("it must be an odd number")
    return value


Intervals = Annotated[list[Int], Field(min_length=1)]
Septuplet = Annotated[int, Field(ge=-1, le=7)]  # -1 for all of them


class IoBackend(OpenSection):
    """``io_backend:``, which says how frames are stored."""

    type: Literal["disk", "lmdb", "memcached"]


class DataSet(Section):
    """The keys that BasicSR's pipeline and loader read for every type of data set."""

    name: Annotated[str, Field(min_length=1)]
    type: str
    phase: str = "train"
    scale: Int = 4
    io_backend: IoBackend = None
    num_worker_per_gpu: IntOrZero = None
    batch_size_per_gpu: Int = None
    dataset_enlarge_ratio: Positive = 1
    prefetch_mode: Literal["cpu", "cuda"] | None = None
    num_prefetch_queue: Int = 1
    pin_memory: bool = False
    persistent_workers: bool = False
    use_shuffle: bool = True


class PairedFolders(DataSet):
    """Folders of frames and of their ground truth."""

    dataroot_lq: str
    dataroot_gt: str | None = None  # the check of the data decides whether it may be missing
    io_backend: IoBackend


class Crops(PairedFolders):
    """Crops of clips, for training."""

    meta_info_file: str
    gt_size: Int
    use_hflip: bool
    use_rot: bool


class RedsRecurrent(Crops):
    """``REDSRecurrentDataset``."""

    val_partition: Literal["REDS4", "official"]
    test_mode: bool
    num_frame: Int
    interval_list: Intervals = None
    random_reverse: bool = False


class Reds(Crops):
    """``REDSDataset``."""

    dataroot_flow: str | None
    val_partition: Literal["REDS4", "official"]
    test_mode: bool = False
    num_frame: Annotated[Int, AfterValidator(_odd)]
    interval_list: Intervals
    random_reverse: bool


class Vimeo(Crops):
    """``Vimeo90KDataset``."""

    num_frame: Septuplet
    random_reverse: bool


class VimeoRecurrent(Vimeo):
    """``Vimeo90KRecurrentDataset``."""

    flip_sequence: bool


class VideoTest(PairedFolders):
    """``VideoTestDataset``."""

    cache_data: bool
    num_frame: Int
    padding: Literal["replicate", "reflection", "reflection_circle", "circle"]
    meta_info_file: str = None


class VideoTestDuf(VideoTest):
    """``VideoTestDUFDataset``."""

    use_duf_downsampling: bool


class VideoRecurrentTest(VideoTest):
    """``VideoRecurrentTestDataset``, which reads whole clips: ``num_frame`` is of no effect."""

    cache_data: Literal[True]
    num_frame: Annotated[int, Field(ge=-1)]
    padding: str = "replicate"


class VideoTestVimeo(PairedFolders):
    """``VideoTestVimeo90KDataset``."""

    cache_data: Literal[False]
    num_frame: Annotated[Int, Field(le=7), AfterValidator(_odd)]
    padding: str = "replicate"
    meta_info_file: str


class SintelFlow(DataSet):
    """``SintelFlowDataset``; the core's data set documents and checks the values."""

    dataroot: str | None = None
    render: str = "clean"
    clips: str | list[str] = None
    num_frame: Annotated[int, Field(ge=-1)] | None = None
    flow: str = "gt"
    on_missing: str = "error"
    flow_weights: str | None = None
    flow_cache: str | None = None
    gt_size: Int | None = None
    use_hflip: bool = True
    use_rot: bool = True


class Disk(Section):
    """``io_backend:`` of a data set that only reads files."""

    type: Literal["disk"]


class DegradedClips(DataSet):
    """``DegradedClipsDataset``, whose low-resolution frames are made while it reads."""

    dataroot_gt: str
    io_backend: Disk = None
    val_partition: Literal["REDS4", "official"] | None = None
    num_frame: Annotated[int, Field(ge=-1)] = -1  # -1: whole clips, but not in training
    gt_size: Int | None = None
    random_reverse: bool = False
    use_hflip: bool = True
    use_rot: bool = True
    mirror_sequence: bool = False
    sharpen: bool = True
    degradation: Degradation = Degradation()
    seed: IntOrZero = 0  # of validation's and tests' degradation


SCHEMAS: dict[str, type[DataSet]] = {
    "REDSDataset": Reds,
    "REDSRecurrentDataset": RedsRecurrent,
    "Vimeo90KDataset": Vimeo,
    "Vimeo90KRecurrentDataset": VimeoRecurrent,
    "VideoTestDataset": VideoTest,
    "VideoTestDUFDataset": VideoTestDuf,
    "VideoRecurrentTestDataset": VideoRecurrentTest,
    "VideoTestVimeo90KDataset": VideoTestVimeo,
    "SintelFlowDataset": SintelFlow,
    "DegradedClipsDataset": DegradedClips,
}
"""The types of data sets whose every key is known."""
