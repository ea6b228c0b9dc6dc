"""What can be known to be wrong before training starts, found and said in one sentence.

Option files are checked for keys that nothing reads and for files that are not there; data sets for
frames that are missing, unreadable or of the wrong size. Every finding is a :class:`OptionError`
that names the key or the file.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from iart_plugin.data.inspection import FramePair, check_sizes, missing_files
from iart_plugin.data.preparation import REDS4, REDS_CLIP_LENGTH

# What is read from `train:` by BasicSR's pipeline and by RecurrentMixPrecisionRTModel.
TRAIN_KEYS = (
    "total_iter",
    "warmup_iter",
    "optim_g",
    "scheduler",
    "pixel_opt",
    "perceptual_opt",
    "ema_decay",
    "fix_flow",
    "flow_lr_mul",
    "amp_dtype",
    "init_loss_scale",
    "max_skipped_steps",
    "grad_clip_norm",
    "accumulate",
    "lr_mul",
)
OWN_MODELS = ("RecurrentMixPrecisionRTModel", "AlignmentStudyModel")
# Data sets of up to this many frame pairs are read through, larger ones in an even sample.
MAX_PAIRS_READ = 2000


class OptionError(ValueError):
    """An option file, or what it names, cannot be used; the message says which and what to do."""


def check_keys(given: Iterable[str], known: Collection[str], where: str) -> None:
    """Refuse a key that nothing reads.

    Args:
        given: The keys of the option file.
        known: The keys that are read.
        where: The section's name in the message, such as ``train``.

    Raises:
        OptionError: naming the first unknown key and the nearest known one.
    """
    for key in given:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise OptionError(
                f"Unknown key '{key}' in {where}. Did you mean '{nearest}'? "
                f"Known keys: {', '.join(sorted(known))}."
            )


def check_options(opt: dict[str, Any]) -> None:
    """Check the networks, the training settings and the weight files that an option file names.

    Args:
        opt: The options as BasicSR's ``parse_options`` returns them.

    Raises:
        OptionError: on an unknown key, a missing or unreadable file, or a GPU that is not there.
    """
    from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY

    _check_registered(opt["model_type"], MODEL_REGISTRY.keys(), "model_type")
    for section, network in opt.items():
        if section.startswith("network_"):
            if not isinstance(network, dict) or "type" not in network:
                raise OptionError(f"{section} must be a section with a 'type', got {network!r}.")
            _check_registered(network["type"], ARCH_REGISTRY.keys(), f"{section}.type")
            parameters = inspect.signature(ARCH_REGISTRY.get(network["type"])).parameters
            if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
                check_keys(network, ["type", *parameters], f"{section} ({network['type']})")
            _check_values(ARCH_REGISTRY.get(network["type"]), network, section)
    if opt["model_type"] in OWN_MODELS and opt.get("train"):
        check_keys(opt["train"], TRAIN_KEYS, f"train ({opt['model_type']})")
        if opt["is_train"]:
            _check_course(opt)
    _check_device(opt)
    _check_weights(opt)
    _check_fit(opt)


def validation_sets(opt: dict[str, Any]) -> list[str]:
    """The names of the data sets that a training is validated on."""
    datasets = opt.get("datasets") or {}
    return [data["name"] for phase, data in datasets.items() if phase.startswith("val")]


def _check_course(opt: dict[str, Any]) -> None:
    """What would end a training in the middle must be right at its start."""
    train, val = opt["train"], opt.get("val")
    scheduler = train.get("scheduler") or {}
    if scheduler.get("type") == "CosineAnnealingRestartLR":
        periods, weights = scheduler.get("periods", []), scheduler.get("restart_weights", [1])
        if len(periods) != len(weights):
            raise OptionError(
                f"train.scheduler has {len(periods)} periods and {len(weights)} restart_weights; "
                "each period needs one."
            )
        if sum(periods) < int(train["total_iter"]) - 1:
            raise OptionError(
                f"train.scheduler.periods add up to {sum(periods)} iterations, fewer than "
                f"train.total_iter, {train['total_iter']}: the run would end there. Set both alike."
            )
    names = validation_sets(opt)
    if len(names) > len(set(names)):
        raise OptionError(
            f"Two validation sets have one name ({', '.join(names)}): their figures would be taken "
            "for each other's. Names may differ in their letters' case alone, Vid4 and VID4."
        )
    if names and val and val.get("save_img") is not False:
        raise OptionError(
            "val.save_img must be there and false in a training: BasicSR saves the frames of video "
            "models in tests only, and would stop at the first validation."
        )
    data = (opt.get("datasets") or {}).get("train") or {}
    if data.get("prefetch_mode") == "cpu" and not data.get("num_worker_per_gpu"):
        raise OptionError(
            "datasets.train.prefetch_mode is cpu, which needs num_worker_per_gpu of 1 or more."
        )


def _check_fit(opt: dict[str, Any]) -> None:
    """Weight files must fit this package's network_g, where they must be loaded whole."""
    from basicsr.utils.registry import ARCH_REGISTRY

    from iart_plugin.archs.keys import check_fit
    from iart_plugin.flow import SPyNet
    from iart_plugin.weight_files import read_options, read_state_dict

    network, paths = opt.get("network_g"), opt["path"]
    arch = ARCH_REGISTRY.get(network["type"]) if network else None
    if arch is None or not arch.__module__.startswith("iart_plugin."):
        return
    path = paths.get("pretrain_network_g")
    resumed = opt.get("auto_resume") or paths.get("resume_state")
    key = "path.pretrain_network_g"
    try:
        if path and not resumed:
            strict = paths.get("strict_load_g", True)
            state, options = read_state_dict(path)[0], read_options(path)
            check_fit(_build(arch, network), state, strict, options)
        if path := network.get("spynet_path"):
            key = "network_g.spynet_path"
            SPyNet(path)
    except (RuntimeError, ValueError) as error:
        raise OptionError(f"{key}: {path} does not fit: {error}") from error


def _check_values(arch: type, network: dict[str, Any], section: str) -> None:
    """Build one of this package's networks, so that it refuses what it must."""
    if not arch.__module__.startswith("iart_plugin."):
        return
    try:
        _build(arch, network)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{section} ({network['type']}): {error}") from error


def _build(arch: type, network: dict[str, Any]) -> Any:
    """Build a network without its weight files; the run's own still starts as it would."""
    import torch

    with torch.random.fork_rng(devices=[]):
        return arch(**{k: v for k, v in network.items() if k not in ("type", "spynet_path")})


def _check_registered(name: str, registered: Iterable[str], where: str) -> None:
    names = [key.removesuffix("_basicsr") for key in registered]
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise OptionError(
            f"{where} '{name}' is not registered. Did you mean '{nearest}'? A plugin's part needs "
            "that plugin's line in the option file."
        )


def _check_device(opt: dict[str, Any]) -> None:
    import torch

    if opt["num_gpu"] and not torch.cuda.is_available():
        raise OptionError(
            f"num_gpu is {opt['num_gpu']} but this machine has no CUDA device. "
            "Set num_gpu: 0 for the CPU, or num_gpu: auto."
        )
    if opt.get("dist") and not opt["num_gpu"] and torch.cuda.is_available():
        raise OptionError(
            "num_gpu is 0, but BasicSR gives its processes the GPUs that they see. For several "
            "processes on the CPU set CUDA_VISIBLE_DEVICES= before the command."
        )
    bf16 = (opt.get("train") or {}).get("amp_dtype") == "bf16"
    if bf16 and opt["num_gpu"] > 1 and not opt.get("dist"):
        raise OptionError(
            "train.amp_dtype: bf16 on several GPUs needs a process for each, because PyTorch's "
            "DataParallel would compute in fp16. Start it with torchrun, or set num_gpu: 1."
        )


def _check_weights(opt: dict[str, Any]) -> None:
    """Each weight file that the options name must exist and be readable."""
    named = {
        f"path.{key}": path
        for key, path in opt["path"].items()
        if path and (key.startswith("pretrain_network") or key == "resume_state")
    }
    for section, network in opt.items():
        if section.startswith("network_") and network.get("spynet_path"):
            named[f"{section}.spynet_path"] = network["spynet_path"]
    for key, path in named.items():
        # A resumed run replaces this path by its own checkpoint, so the file may be gone.
        if key.startswith("path.pretrain") and (
            opt.get("auto_resume") or opt["path"].get("resume_state")
        ):
            continue
        check_weight_file(Path(path), key)


def check_weight_file(path: Path, key: str) -> None:
    """Refuse a weight file that is missing or no checkpoint.

    Raises:
        OptionError: naming the file and the option that asks for it.
    """
    if not path.is_file():
        raise OptionError(f"{key}: {path} does not exist (looked from {Path.cwd()}).")
    if path.suffix == ".safetensors":
        return
    from iart_plugin.weight_files import CheckpointMismatch, read_file

    try:
        read_file(path)
    except CheckpointMismatch as error:
        raise OptionError(
            f"{key}: {path} is not a readable PyTorch checkpoint ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'empty file'})."
        ) from error


def check_dataset(opt: dict[str, Any]) -> None:
    """Check the frames of one of BasicSR's video data sets, before it is built.

    Every folder is looked into. Files are read through (structure and checksums) for up to
    ``MAX_PAIRS_READ`` pairs, larger sets in an even sample. Other types of data sets pass.

    Args:
        opt: The options of one data set, ``scale`` and ``phase`` included.

    Raises:
        OptionError: naming the folder or file, and what is wrong with it.
    """
    if not known_dataset(opt):
        return
    name = f"data set '{opt['name']}'"
    if opt.get("io_backend", {}).get("type") == "lmdb":
        _check_roots(opt, name)
        if opt.get("meta_info_file"):
            _read_meta(opt, name)
        _check_lmdb(opt, name)
        return
    pairs = list_frame_pairs(opt)
    for path in missing_files(path for pair in pairs for path in pair):
        raise OptionError(f"{name}: the frame {path} is missing.")
    step = -(-len(pairs) // MAX_PAIRS_READ)
    for pair in pairs[::step]:
        _check_pair(pair, opt, name)


def known_dataset(opt: dict[str, Any]) -> bool:
    """Whether the data set is of a type whose frames can be listed here."""
    return opt["type"] in _PAIR_LISTS


def list_frame_pairs(opt: dict[str, Any]) -> list[FramePair]:
    """The frames that one of BasicSR's video data sets will read from folders.

    Args:
        opt: The options of one data set, of a type that :func:`check_dataset` knows.

    Raises:
        OptionError: if a folder or meta file is missing, or says something impossible.
    """
    name = f"data set '{opt['name']}'"
    _check_roots(opt, name)
    pairs = list(_PAIR_LISTS[opt["type"]](opt, name))
    if not pairs:
        raise OptionError(f"{name}: no frames found for {opt['dataroot_gt']}.")
    return pairs


def _check_roots(opt: dict[str, Any], name: str) -> None:
    for key in ("dataroot_gt", "dataroot_lq"):
        if not opt.get(key):
            raise OptionError(f"{name}: {key} is not set.")
        if not Path(opt[key]).is_dir():
            raise OptionError(
                f"{name}: {key} {opt[key]} is not a folder (looked from {Path.cwd()})."
            )


def _read_meta(opt: dict[str, Any], name: str) -> list[list[str]]:
    """The lines of a meta file, split at spaces: clip, number of frames, shape."""
    path = Path(opt["meta_info_file"])
    if not path.is_file():
        raise OptionError(f"{name}: meta_info_file {path} does not exist.")
    lines = [line.split() for line in path.read_text().splitlines()]
    for number, fields in enumerate(lines, 1):
        if len(fields) != 3 or not fields[1].isdigit():
            raise OptionError(
                f"{name}: {path}, line {number}: expected 'clip frames (h,w,c)', "
                f"got '{' '.join(fields)}'."
            )
    return lines


def _reds_pairs(opt: dict[str, Any], name: str) -> Iterator[FramePair]:
    validation = {
        "REDS4": list(REDS4),
        "official": [f"{clip:03d}" for clip in range(240, 270)],
    }.get(opt["val_partition"])
    if validation is None:
        raise OptionError(
            f"{name}: val_partition is '{opt['val_partition']}'; 'REDS4' and 'official' exist."
        )
    gt, lq = Path(opt["dataroot_gt"]), Path(opt["dataroot_lq"])
    used = 0
    for clip, count, _ in _read_meta(opt, name):
        if (clip in validation) != bool(opt.get("test_mode")):
            continue
        used += 1
        if int(count) != REDS_CLIP_LENGTH:
            raise OptionError(
                f"{name}: {opt['meta_info_file']} gives clip {clip} {count} frames; {opt['type']} "
                f"needs clips of {REDS_CLIP_LENGTH}."
            )
        for frame in range(int(count)):
            yield FramePair(gt / clip / f"{frame:08d}.png", lq / clip / f"{frame:08d}.png")
    if not used:
        raise OptionError(
            f"{name}: every clip of {opt['meta_info_file']} belongs to the validation partition "
            f"'{opt['val_partition']}' ({', '.join(validation[:4])}…), none is left."
        )


def _vimeo_pairs(opt: dict[str, Any], name: str) -> Iterator[FramePair]:
    gt, lq = Path(opt["dataroot_gt"]), Path(opt["dataroot_lq"])
    for clip, _, _ in _read_meta(opt, name):
        for frame in range(1, 8):
            yield FramePair(gt / clip / f"im{frame}.png", lq / clip / f"im{frame}.png")


def _vimeo_test_pairs(opt: dict[str, Any], name: str) -> Iterator[FramePair]:
    gt, lq = Path(opt["dataroot_gt"]), Path(opt["dataroot_lq"])
    first = (9 - opt["num_frame"]) // 2
    for clip, _, _ in _read_meta(opt, name):
        for frame in range(first, first + opt["num_frame"]):
            # Only the centre frame's ground truth is read.
            yield FramePair(gt / clip / "im4.png", lq / clip / f"im{frame}.png")


def _folder_pairs(opt: dict[str, Any], name: str) -> Iterator[FramePair]:
    """``VideoTestDataset`` and its kin: folders of frames, paired in sorted order."""
    if opt["name"].lower() not in ("vid4", "reds4", "redsofficial"):
        raise OptionError(
            f"{name}: BasicSR's {opt['type']} takes only the names Vid4, REDS4 and REDSofficial."
        )
    if opt["type"] == "VideoRecurrentTestDataset" and not opt.get("cache_data"):
        raise OptionError(f"{name}: {opt['type']} needs cache_data: true.")
    gt, lq = Path(opt["dataroot_gt"]), Path(opt["dataroot_lq"])
    if "meta_info_file" in opt:
        clips = [fields[0] for fields in _read_meta(opt, name)]
    else:
        clips = sorted(p.name for p in lq.iterdir() if not p.name.startswith("."))
        only_gt = sorted({p.name for p in gt.iterdir() if not p.name.startswith(".")} - set(clips))
        if only_gt:
            raise OptionError(f"{name}: {gt / only_gt[0]} has no counterpart in {lq}.")
    for clip in clips:
        for folder in (lq / clip, gt / clip):
            if not folder.is_dir():
                raise OptionError(f"{name}: {folder} is not a folder of frames.")
        lqs, gts = _frames(lq / clip), _frames(gt / clip)
        if len(lqs) != len(gts):
            raise OptionError(
                f"{name}: {lq / clip} has {len(lqs)} frames, {gt / clip} has {len(gts)}"
                f"{_first_difference(lqs, gts)}."
            )
        if _overlap_in_part(lqs, gts):  # paired in sorted order, every frame between would be off
            raise OptionError(
                f"{name}: the frames of {lq / clip} and {gt / clip} are not the same"
                f"{_first_difference(lqs, gts)}."
            )
        yield from map(FramePair, gts, lqs)


def _frames(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def _stems(paths: list[Path]) -> set[str]:
    """The frames' names without a suffix, and without REDS' and Vid4's x4."""
    return {path.stem.removesuffix("x4") for path in paths}


def _overlap_in_part(lqs: list[Path], gts: list[Path]) -> bool:
    """Whether some names agree and some do not; two schemes of naming agree in none."""
    low, high = _stems(lqs), _stems(gts)
    return low != high and bool(low & high)


def _first_difference(lqs: list[Path], gts: list[Path]) -> str:
    differing = sorted(_stems(lqs) ^ _stems(gts))
    return f" (first without a counterpart: '{differing[0]}')" if differing else ""


_PAIR_LISTS: dict[str, Callable[[dict[str, Any], str], Iterator[FramePair]]] = {
    "REDSDataset": _reds_pairs,
    "REDSRecurrentDataset": _reds_pairs,
    "Vimeo90KDataset": _vimeo_pairs,
    "Vimeo90KRecurrentDataset": _vimeo_pairs,
    "VideoTestDataset": _folder_pairs,
    "VideoRecurrentTestDataset": _folder_pairs,
    "VideoTestVimeo90KDataset": _vimeo_test_pairs,
}


def _check_pair(pair: FramePair, opt: dict[str, Any], name: str) -> None:
    """Both frames must be readable, of matching sizes, and large enough for a crop."""
    scale = opt.get("scale", 4)
    try:
        height, width = check_sizes(pair, scale)
    except ValueError as error:
        raise OptionError(f"{name}: {error}") from error
    crop = opt.get("gt_size")
    if crop and (crop > min(height, width) or crop % scale):
        raise OptionError(
            f"{name}: gt_size {crop} must be a multiple of {scale} and fit into {pair.gt} "
            f"({width}x{height}, width x height)."
        )


def _check_lmdb(opt: dict[str, Any], name: str) -> None:
    """Both databases must list the same frames at sizes that match; no value is read."""
    sizes = {}
    for key in ("dataroot_gt", "dataroot_lq"):
        root = Path(opt[key])
        meta = root / "meta_info.txt"
        if root.suffix != ".lmdb" or not meta.is_file() or not (root / "data.mdb").is_file():
            raise OptionError(
                f"{name}: {key} {root} is not an lmdb made by BasicSR (a folder named *.lmdb with "
                "data.mdb and meta_info.txt)."
            )
        sizes[key] = dict(_lmdb_entries(meta, name))
    scale = opt.get("scale", 4)
    for frame, (gt_h, gt_w) in sizes["dataroot_gt"].items():
        if frame not in sizes["dataroot_lq"]:
            raise OptionError(f"{name}: {opt['dataroot_lq']} lacks the frame {frame}.")
        lq_h, lq_w = sizes["dataroot_lq"][frame]
        if (gt_h, gt_w) != (scale * lq_h, scale * lq_w):
            raise OptionError(
                f"{name}: frame {frame} is {gt_w}x{gt_h} in {opt['dataroot_gt']} and {lq_w}x{lq_h} "
                f"in {opt['dataroot_lq']}; at scale {scale} they do not match."
            )


def _lmdb_entries(meta: Path, name: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Key and (height, width) of each line ``000/00000000.png (720,1280,3) 1``."""
    for line in meta.read_text().splitlines():
        try:
            file, shape, _ = line.split(" ")
            height, width, _ = (int(v) for v in shape.strip("()").split(","))
        except ValueError as error:
            raise OptionError(f"{name}: {meta} has the unreadable line '{line}'.") from error
        yield file.rsplit(".", 1)[0], (height, width)
