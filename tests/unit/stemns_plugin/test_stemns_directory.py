"""StemNS's configuration read as data: what people have, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from isoproxy.errors import ConfigError, OperationError
from isoproxy.net.endpoint import Endpoint
from stemns_plugin.stemns_directory import ControlPortFile, read_directory


def write(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        (directory / f"{name}.py").write_text(text)
    return directory


def test_services_and_port_of_all_the_files(tmp_path: Path) -> None:
    directory = write(
        tmp_path,
        a_port="def tor_control_port():\n    return port\n\nport = 9151\n",
        b_services=(
            "import sys\nfrom os.path import join, split\n"
            "service_to_command = {\n"
            "    'pet.onion': [sys.executable, join(split(__file__)[0], 'ns_petname.py')],\n"
            "    'bit': ['old'],\n}\n"
        ),
        c_services='_service_to_command = {"bit": ["ncprop279", "-conf=x"]}\n',
        d_callbacks="import os\ndef exit_callback():\n    os._exit(0)\n",
    )
    result = read_directory(directory)
    assert result.control_port == 9151
    assert result.services == {
        "pet.onion": [sys.executable, str(directory / "ns_petname.py")],
        "bit": ["ncprop279", "-conf=x"],
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("service_to_command = open('/etc/passwd')\n", 1),
        ("\nservice_to_command = {'bit': __import__('os').listdir('/')}\n", 2),
        ("service_to_command = {'bit': 'ncprop279'}\n", 1),
        ("service_to_command = {'bit': []}\n", 1),
        ("service_to_command = {1: ['a']}\n", 1),
        ("service_to_command = {'bit': ['a', 1]}\n", 1),
        ("service_to_command = {**other}\n", 1),
        ("service_to_command = ['bit']\n", 1),
        ("service_to_command: dict = {'eth': ['a']}\n", 1),
        ("service_to_command = {}\nservice_to_command['eth'] = ['a']\n", 2),
        ("service_to_command = {}\nservice_to_command.update({'eth': ['a']})\n", 2),
        ("if True:\n    service_to_command = {'eth': ['a']}\n", 2),
        ("a = a\nservice_to_command = a\n", 1),
        ("service_to_command = {'bit': [join('a', 1)]}\n", 1),
        ("service_to_command = {'bit': [split('a/b')[7]]}\n", 1),
        ("def tor_control_port():\n    return 'x'\n", 2),
        ("tor_control_port = None\n", 1),
        ("def tor_control_port():\n    import os\n    return 5\n", 1),
        ("def tor_control_port():\n    return 70000\n", 2),
    ],
)
def test_what_is_not_data_is_an_error_with_its_place(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(ConfigError, match=rf"x\.py:{line}: .*\[services\]"):
        read_directory(write(tmp_path, x=text))


def test_the_port_as_a_name(tmp_path: Path) -> None:
    assert read_directory(write(tmp_path, x="tor_control_port = 9051\n")).control_port == 9051


def test_nothing_is_executed(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = f"open({str(marker)!r}, 'w')\nservice_to_command = {{'bit': ['a']}}\n"
    assert read_directory(write(tmp_path, x=code)).services == {"bit": ["a"]}
    assert not marker.exists()


def test_directories_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \.py file"):
        read_directory(tmp_path)
    with pytest.raises(ConfigError, match="not a Python file"):
        read_directory(write(tmp_path, x="def ("))
    (tmp_path / "x.py").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError):
        read_directory(tmp_path)


AUTO = """
from urllib.parse import urlparse

def tor_control_port():
    with open(filename) as lines:
        for line in lines:
            if line.startswith("PORT="):
                return urlparse("//" + line[5:]).port
    return None

filename = {path!r}
"""


@pytest.mark.parametrize(
    ("written", "endpoint"),
    [
        ("PORT=127.0.0.1:9051\n", Endpoint.tcp("127.0.0.1", 9051)),
        ("UNIX_PORT=/run/tor/control\nPORT=127.0.0.1:9\n", Endpoint.unix("/run/tor/control")),
        ("", None),
        ("PORT=nonsense\n", None),
        ("PORT=\xff\n", None),
        (None, None),
    ],
)
def test_the_port_that_tor_wrote_into_a_file(
    tmp_path: Path, written: str | None, endpoint: Endpoint | None
) -> None:
    file = tmp_path / "controlport"
    found = read_directory(write(tmp_path, port=AUTO.format(path=str(file)))).control_port
    assert found == ControlPortFile(file)
    if written is not None:
        file.write_bytes(written.encode("latin-1"))
    if endpoint is not None:
        assert found.read() == endpoint
    else:
        with pytest.raises(OperationError, match="has not written"):
            found.read()


def test_a_port_file_whose_name_is_no_plain_text_is_refused(tmp_path: Path) -> None:
    text = AUTO.format(path="x").replace("filename = 'x'", "filename = input()")
    with pytest.raises(ConfigError):
        read_directory(write(tmp_path, port=text))
