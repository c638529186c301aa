"""A config.json that somebody pasted, uploaded or put into a link: read as JSON only, and never trusted.

What goes into the address are the fields that the cache depends on: each other field is dropped, one at a time, as
long as the model stays the same.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from typing import Any

from bottleneck_core import memory, sizing
from bottleneck_core.errors import UserError

MOST_CHARACTERS = 256 * 1024  # the largest config.json of a public model is a tenth of that
_MOST_LAYERS = 1000
_MOST_LEVELS = 20
_MOST_FIELDS = 5000  # classifiers name their thousand labels twice
_MOST_NUMBER = 2**53


def read_config(text: str) -> str:
    """The fields that matter, as compact JSON. Raises UserError, one sentence."""
    config = parsed(text)
    meaning = _meaning(config)
    for name in list(config):
        less = {key: value for key, value in config.items() if key != name}
        if _same(less, meaning):
            config = less
        elif isinstance(config[name], dict):
            for inner in list(config[name]):
                less = config | {name: {key: value for key, value in config[name].items() if key != inner}}
                config = less if _same(less, meaning) else config
    return json.dumps(config, separators=(",", ":"))


def parsed(text: str) -> dict[str, Any]:
    """One JSON object of sizes that can be computed with. Raises UserError."""
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"{len(text):,} characters are no config.json: give at most {MOST_CHARACTERS:,}")
    try:
        config = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"this is no JSON: {reason}") from None
    if not isinstance(config, dict):
        raise UserError("this holds no configuration: a config.json is one JSON object")
    _check_shape(config)
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for name, value in part.items():
            if isinstance(value, int) and abs(value) > (_MOST_LAYERS if "layer" in name else _MOST_NUMBER):
                raise UserError(f"{name[:60]} of the configuration is too large: give the model's own config.json")
    return config


def pack_config(text: str) -> str:
    """Text in the alphabet of an address; empty text stays empty."""
    return text and base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


def unpack_config(packed: str) -> str:
    """The configuration in a link. Raises UserError."""
    if not packed:
        return ""
    try:
        data = base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True)
        text = zlib.decompressobj().decompress(data, MOST_CHARACTERS).decode()
    except (binascii.Error, zlib.error, ValueError):
        raise UserError("the configuration is damaged: copy the whole link, or paste the config.json again") from None
    return read_config(text)


def _meaning(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """All that the page reads of a configuration."""
    try:
        return memory.layers_of(config), memory.policy_of(config, None), sizing.parameters_of(config)
    except ValueError as error:
        raise UserError(str(error)) from None
    except (TypeError, KeyError, AttributeError, ArithmeticError):
        raise UserError("a field of the configuration has the wrong type: give the model's own config.json") from None


def _same(config: Mapping[str, Any], meaning: tuple[Any, ...]) -> bool:
    try:
        return _meaning(config) == meaning
    except UserError:
        return False


def _check_shape(config: dict[str, Any]) -> None:
    """Raises UserError for what no model's configuration looks like: each field costs time, each level a stack."""
    fields, level, depth = 0, [config], 0
    while level:
        depth += 1
        below: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                fields += len(part)
            below += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        level = [part for part in below if isinstance(part, (dict, list))]
    if depth > _MOST_LEVELS:
        raise UserError(f"this is nested {depth} levels deep: a config.json has at most {_MOST_LEVELS}")
    if fields > _MOST_FIELDS:
        raise UserError(f"{fields:,} fields are no config.json: give at most {_MOST_FIELDS:,}")
    try:
        json.dumps(config, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UserError("this holds half a character: give the model's own config.json") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
