"""Checks options against their schema: unknown or missing keys, wrong types, wrong numbers."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ValidationError

from iart_plugin.basicsr.dataset_schema import SCHEMAS, DataSet
from iart_plugin.basicsr.schema import RealTrainingRun, Section, TestRun, TrainingRun
from iart_plugin.option_errors import OptionError, check_keys, nearest

OWN_MODELS = {
    "RecurrentMixPrecisionRTModel": TrainingRun,
    "AlignmentStudyModel": TrainingRun,
    "RealRecurrentModel": RealTrainingRun,
}
"""The models whose every key is known, and the schema of their training. Models of BasicSR and of
other plugins may read other keys."""

COMPLETED = r"(pretrain_network|param_key|strict_load)_\w+"
COMPLETED_PATHS = (
    *("experiments_root", "results_root", "models", "training_states", "log", "visualization"),
    "root",
)
"""The keys that are added to ``path:`` before a model is built."""

CLOSED = ("extra_forbidden", "literal_error", "union_tag_invalid")
"""Errors that say no more than that this package does not know a name."""

NUMBER_AS_TEXT = re.compile(r"[-+]?\d[\d_]*\.?\d*([eE][-+]?\d+)?")


def check_schema(opt: dict[str, Any]) -> None:
    """Check the form of all options: nothing is looked up, read or built.

    Args:
        opt: BasicSR's options, as they are in a file or complete.

    Raises:
        OptionError: on the first key or value that is not in order.
    """
    if not isinstance(opt.get("model_type", ""), str):
        raise OptionError(f"model_type must be a name, got {opt['model_type']!r}.")
    own = opt.get("model_type") in OWN_MODELS
    networks = {key for key in opt if str(key).startswith("network_")}
    for key in networks:
        if not isinstance(opt[key], dict) or not isinstance(opt[key].get("type"), str):
            raise OptionError(f"{key} must be a section with a 'type', got {opt[key]!r}.")
    top = {key: value for key, value in opt.items() if key not in networks - {"network_g"}}
    training = OWN_MODELS.get(opt.get("model_type"), TrainingRun)
    schema = training if opt.get("is_train", True) else TestRun
    where = f"({opt['model_type']})" if own else ""
    check_section(schema, top, "", owner=where, others_allowed=not own)
    if own:
        _check_paths(opt.get("path") or {})
    for section, data in opt["datasets"].items():
        _check_dataset(section, data, bool(opt.get("is_train", True)))
    if opt.get("is_train", True) and "train" not in opt["datasets"]:
        raise OptionError("datasets has no section 'train'.")


def _check_paths(paths: dict[str, Any]) -> None:
    known = ["pretrain_network_g", "param_key_g", "strict_load_g", "resume_state"]
    unknown = [key for key in paths if not re.fullmatch(COMPLETED, str(key))]
    check_keys(unknown, [*known, "ignore_resume_networks", *COMPLETED_PATHS], "path")


def _check_dataset(section: str, data: dict[str, Any], is_train: bool) -> None:
    phases = ("train", "val") if is_train else ("test", "val", "train")
    if section.partition("_")[0] not in phases or (is_train and section.startswith("train_")):
        wanted = "train, val and val_2" if is_train else "test and test_2"
        raise OptionError(
            f"datasets has a section '{section}'; {wanted} are names that are read. "
            f"{nearest(section, phases)}"
        )
    where, kind = f"datasets.{section}", str(data.get("type"))
    schema = SCHEMAS.get(kind, DataSet)
    check_section(schema, data, where, owner=f"({kind})", others_allowed=kind not in SCHEMAS)
    if section == "train" and is_train:
        for key in ("num_worker_per_gpu", "batch_size_per_gpu"):
            if key not in data:
                raise OptionError(f"{where}.{key} is not set.")


def check_section(
    schema: type[Section],
    section: dict[str, Any],
    where: str,
    *,
    owner: str = "",
    others_allowed: bool = False,
) -> None:
    """Check one section.

    Args:
        schema: the keys and values that it may hold.
        section: the section.
        where: its name, such as ``datasets.train``; empty for the top of the options.
        owner: what reads it, for the message, such as ``(IACNN)``.
        others_allowed: let keys and names pass that the schema does not know.

    Raises:
        OptionError: on the first key or value that is not in order.
    """
    try:
        schema.model_validate(section)
    except ValidationError as caught:
        errors = caught.errors(include_url=False)
        if others_allowed:
            errors = [error for error in errors if error["type"] not in CLOSED]
        # An unknown key first: it is often the one that seems to be missing.
        for error in sorted(errors, key=lambda one: one["type"] != "extra_forbidden"):
            raise OptionError(_message(error, schema, where, owner)) from caught


def _message(error: dict[str, Any], schema: type[Section], where: str, owner: str) -> str:
    """One error of pydantic's in the words of an option file's reader."""
    kind, value = error["type"], error["input"]
    *parents, last = error["loc"]
    fields = [part for part in parents if not _is_choice(part)]
    if kind == "extra_forbidden" or not _is_choice(last):
        fields.append(last)
    if kind.startswith("union_tag"):
        return _unknown_choice(".".join(filter(None, [where, *fields, "type"])), error)
    place = ".".join(str(part) for part in [*filter(None, [where]), *fields])
    if kind == "extra_forbidden":
        parent = ".".join(str(part) for part in [*filter(None, [where]), *fields[:-1]])
        title = " ".join(filter(None, [parent or "the options", owner]))
        known = _fields_of(schema, error["loc"][:-1])
        return f"Unknown key '{fields[-1]}' in {title}. {nearest(fields[-1], known)} " + (
            f"Known keys: {', '.join(sorted(known))}."
        )
    if kind == "missing":
        return f"{place} is not set."
    if kind == "literal_error":
        return _unknown_choice(place, error)
    if kind == "value_error":
        return f"{place} is {value!r}: {error['ctx']['error']}."
    if kind in ("float_type", "int_type") and isinstance(value, str):
        if NUMBER_AS_TEXT.fullmatch(value):
            return (
                f"{place} is the text '{value}', for YAML reads a number of this form as text. "
                f"Write {_as_yaml_number(value)}."
            )
        return f"{place} is the text '{value}', and must be a number."
    return f"{place} is {value!r}: {error['msg'].replace('Input should', 'it must')}."


def _is_choice(part: Any) -> bool:
    """Whether pydantic's location names one of several types that a value may have."""
    known = ("MultiStepLR", "MultiStepRestartLR", "CosineAnnealingRestartLR", "str", "int")
    return isinstance(part, str) and (part in known or "[" in part or "-" in part)


def _as_yaml_number(text: str) -> str:
    return text if re.fullmatch(r"[-+]?\d+", text) else f"!!float {text}"


def _unknown_choice(place: str, error: dict[str, Any]) -> str:
    context = error["ctx"]
    value = context.get("tag", error["input"])
    known = re.findall(r"'([^']*)'", context.get("expected_tags", context.get("expected", "")))
    if not known:
        return f"{place} is {value!r}; it must be {context.get('expected')}."
    return f"{place} is {value!r}; it can be {', '.join(known)}. {nearest(value, known)}"


def _fields_of(schema: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The keys of the section at ``location``, followed through the schema's fields."""
    found: Any = schema
    for part in location:
        choices = _models_in(found)
        tagged = [m for m in choices if str(part) in _tags_of(m)]
        inner = [m.model_fields[part].annotation for m in choices if part in m.model_fields]
        found = tagged[0] if tagged else (inner[0] if inner else found)
    return [name for model in _models_in(found) for name in model.model_fields]


def _tags_of(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("type")
    return getattr(field.annotation, "__args__", ()) if field else ()


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The schemas that an annotation such as ``dict[str, Metric] | None`` names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in getattr(annotation, "__args__", ()) for m in _models_in(part)]
