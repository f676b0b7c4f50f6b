"""Names out of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoproxy.errors import ConfigError, ErrorKind, NamingError
from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve.answer import Status, TargetType, Want
from prop279.hosts_file import HostsFile

KEY = Isolator().own_key("test")
TEXT = """
# my names
Blog.bit    x.onion        # the blog
four.bit.   192.0.2.1
six.bit     [2001:db8::1]
web.bit     www.example.com
"""


@pytest.fixture
def hosts(tmp_path: Path) -> HostsFile:
    (tmp_path / "hosts").write_text(TEXT)
    return HostsFile.read(tmp_path / "hosts")


@pytest.mark.parametrize(
    ("name", "target", "kind"),
    [
        ("blog.bit", "x.onion", TargetType.ONION),
        ("FOUR.bit.", "192.0.2.1", TargetType.IP4),
        ("six.bit", "2001:db8::1", TargetType.IP6),
        ("web.bit", "www.example.com", TargetType.ALIAS),
    ],
)
async def test_names(hosts: HostsFile, name: str, target: str, kind: TargetType) -> None:
    answer = await hosts.resolve(hosts.parse(name), KEY)
    assert (answer.status, answer.target, answer.type) == (Status.OK, target, kind)


async def test_what_it_does_not_have(hosts: HostsFile) -> None:
    assert (await hosts.resolve("blog.bit", KEY, Want.ADDRESS)).reason is ErrorKind.NAME_ABSENT
    with pytest.raises(NamingError) as caught:
        hosts.parse("other.bit")
    assert caught.value.kind is ErrorKind.NAME_NEVER_SENT_TO_TOR


@pytest.mark.parametrize("line", ["a.bit", "a.bit b c", "a/b.bit x.onion", "a.bit x/y"])
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "hosts").write_text(f"ok.bit x.onion\n{line}\n")
    with pytest.raises(ConfigError, match="hosts:2: expected"):
        HostsFile.read(tmp_path / "hosts")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        HostsFile.read(tmp_path / "none")
