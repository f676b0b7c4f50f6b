"""Drives the generators of `Domain` from a table of values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from isoproxy.namecoin.value.domain import Domain, Inquiry, Node

T = TypeVar("T")

NO_VALUES: Mapping[str, Any] = {}


def encode(value: Any) -> bytes:
    """A value as it stands on the chain: bytes as they are, anything else as JSON."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def drive(steps: Inquiry[T], values: Mapping[str, Any] = NO_VALUES) -> tuple[T, list[str]]:
    """The result of `steps` and the names it asked for, answered from `values`."""
    asked: list[str] = []
    try:
        wanted = next(steps)
        while True:
            asked.append(wanted.decode())
            known = values.get(wanted.decode())
            wanted = steps.send(None if known is None else encode(known))
    except StopIteration as stop:
        return stop.value, asked


def at(value: Any, labels: str = "", values: Mapping[str, Any] = NO_VALUES) -> Node:
    """What `value`, as that of d/example, says at `labels` left of example.bit."""
    domain = Domain("example", encode(value))
    return drive(domain.at(tuple(labels.split(".")) if labels else ()), values)[0]


def texts(node: Node) -> dict[str, list[str]]:
    """The DNS records of `node` as text, by type."""
    return {
        rdtype.name: [rdata.to_text() for rdata in rdatas]
        for rdtype, rdatas in node.records.rdatas.items()
    }
