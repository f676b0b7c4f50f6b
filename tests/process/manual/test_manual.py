"""Manual pages and completions: complete, and well-formed for the programs that read them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from isoproxy.config.build import all_keys
from manual.__main__ import commands, write_all
from manual.commands import _commands
from manual.roff import plain, title
from manual.settings import settings_page

PAGES = ("isoproxy.8", "isoproxy.toml.5", "stemns.8", "prop279-namecoin.1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    directory = tmp_path_factory.mktemp("manual")
    return {path.name: path for path in write_all(directory)}


def rendered(page: Path) -> str:
    """What a reader sees; groff says nothing of the page, all warnings on."""
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-P-cbou", page], capture_output=True, timeout=30
    )
    assert done.stderr == b""
    return done.stdout.decode()


@pytest.mark.parametrize("name", PAGES)
def test_groff_has_nothing_to_say_about_a_page(made: Mapping[str, Path], name: str) -> None:
    text = rendered(made[name])
    assert "NAME" in text
    assert name.rpartition(".")[0] in text


@pytest.mark.parametrize("name", PAGES)
def test_man_finds_the_page_by_its_head(made: Mapping[str, Path], name: str) -> None:
    """lexgrog(1) reads NAME as mandb(8) does, for apropos and whatis."""
    done = subprocess.run(["lexgrog", made[name]], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'"{name.rpartition(".")[0]} - ' in done.stdout


def test_groffs_silence_means_something(made: Mapping[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.8"
    broken.write_text(made["isoproxy.8"].read_text() + ".nonsense\n\\fQx\n")
    with pytest.raises(AssertionError):
        rendered(broken)


def test_every_setting_is_in_its_page(made: Mapping[str, Path]) -> None:
    text = rendered(made["isoproxy.toml.5"])
    for key in all_keys():
        assert key.rpartition(".")[2] in text, key
    assert "Default: 127.0.0.1:9250" not in text  # texts are shown in quotes, as they are written
    assert 'Default: "127.0.0.1:9250"' in text


def test_every_command_and_option_is_in_its_page(made: Mapping[str, Path]) -> None:
    text = " ".join(rendered(made["isoproxy.8"]).split())
    found = [command.prog for command, _ in _commands(commands()[0].parser)]
    assert {"isoproxy run", "isoproxy dns keygen", "isoproxy bitcoin redirect"} <= set(found)
    for prog in found:
        assert prog in text
    assert "--isolation ID" in text


@pytest.mark.parametrize("name", ["isoproxy", "stemns", "prop279-namecoin"])
def test_bash_takes_its_completions(made: Mapping[str, Path], name: str) -> None:
    path = made[f"{name}.bash"]
    subprocess.run(["bash", "-n", path], check=True, timeout=30)
    assert made[f"_{name}"].read_text().startswith(f"#compdef {name}\n")


def test_bash_completes_a_command(made: Mapping[str, Path]) -> None:
    script = (
        f"source {made['isoproxy.bash']}; COMP_WORDS=(isoproxy ne); COMP_CWORD=1; "
        "$(complete -p isoproxy | sed 's/.*-F \\([^ ]*\\) .*/\\1/'); echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["newnym"]


def test_text_stays_text() -> None:
    assert plain(".so /etc/passwd") == "\\&.so /etc/passwd"
    assert plain("a\\b -c 'd'") == "a\\eb \\-c \\(aqd\\(aq"


def test_two_builds_of_one_source_are_equal(tmp_path: Path) -> None:
    """The date is the source's, not the day of the build."""
    head = title("x", 1, "y", {"SOURCE_DATE_EPOCH": "86400"})[0]
    assert head.startswith('.TH X 1 "1970-01-02" ')
    assert title("x", 1, "y", {})[0].startswith('.TH X 1 "" ')
    assert settings_page() == settings_page()
    one, two = write_all(tmp_path / "1"), write_all(tmp_path / "2")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
