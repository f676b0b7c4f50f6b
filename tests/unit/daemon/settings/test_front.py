"""What workers are told, whatever the configuration."""

from __future__ import annotations

import pytest

from isoproxy.config import load
from isoproxy.daemon.settings.front import dialer_settings, worker_settings
from isoproxy.isolation import Isolator
from isoproxy.net.endpoint import Endpoint
from isoproxy.workers.channel import MAX_MESSAGE, MAX_SOCKETS
from isoproxy.workers.messages import Begin, Settings, encode


def told(*settings: str) -> Settings:
    config = load(None, settings).config
    dialer = dialer_settings(config, Endpoint.unix("/socks"), 2)
    return worker_settings(config, dialer, frozenset(config.bitcoin.ports), 2)


@pytest.mark.parametrize(
    ("listeners", "names", "served"),
    [(2, 100, 2), (MAX_SOCKETS, 0, MAX_SOCKETS), (MAX_SOCKETS + 1, 0, MAX_SOCKETS), (2, 4000, 0)],
)
def test_an_order_fits_a_message_and_the_main_process_serves_the_rest(
    listeners: int, names: int, served: int
) -> None:
    table = ", ".join(f'"name{number}.example" = "refuse"' for number in range(names))
    settings = told(
        *(f"listener.{number}.address=127.0.0.1:{20000 + number}" for number in range(listeners)),
        f"names.top_levels={{ {table} }}",
    )
    assert len(settings.listeners) == served
    order = Begin(1, Isolator().export_state(), False, 64, settings)
    assert len(encode(order)) <= MAX_MESSAGE
