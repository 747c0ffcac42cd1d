"""One table of settings: flags before variables before the file; what cannot be is refused by name; the README lists them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from vecraft.cli import main
from vecraft.roles import check_data_dir
from vecraft.settings import KAFKA_ONLY, Settings, SettingsError, load_settings

README = Path(__file__).parents[2] / "README.md"


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "vecraft.toml"
    file.write_text('node = "from-file"\nport = 1000\ntopic_prefix = "file"\n')
    monkeypatch.setenv("VECRAFT_NODE", "from-env")
    monkeypatch.setenv("VECRAFT_PORT", "2000")
    settings = load_settings({"port": 3000}, file)
    assert (settings.port, settings.node, settings.topic_prefix) == (3000, "from-env", "file")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"port": 70000}, "port"),
        ({"node": "a b"}, "node"),
        ({"journal": "paper"}, "journal"),
        ({"host": "0.0.0.0"}, "--insecure"),
        ({"host": "example.org"}, "--insecure"),
        ({"colour": "red"}, "colour"),
        ({"append_timeout_s": 0}, "append_timeout_s"),
    ],
)
def test_what_cannot_be_is_refused_by_name(flags: dict[str, object], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        load_settings(flags)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"port = ", "is not TOML"),
        (b'node = "\xff"', "is not TOML"),
        (b"prot = 1", "prot is no setting, did you mean port?"),
        (b"[serve]\nport = 1", "serve is no setting"),
        (b'port = "many"', "port"),
    ],
)
def test_a_file_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, text: str) -> None:
    """One sentence, and nothing is written."""
    file = tmp_path / "vecraft.toml"
    file.write_bytes(content)
    assert main(["serve", "--config", str(file), "--data-dir", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vecraft: ")
    assert text in error
    assert error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_a_variable_that_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECRAFT_MEMORY_BUDGET", "100")
    with pytest.raises(SettingsError, match="VECRAFT_MEMORY_BUDGET is no setting, did you mean VECRAFT_MEMORY_BUDGET_MB"):
        load_settings({})


@pytest.mark.parametrize("there", ["PG_VERSION", "raft_state.json", "notes.txt", "journal/system.journal"])
def test_a_folder_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text("18")
    before = sorted(tmp_path.rglob("*"))
    assert main(["serve", "--port", "0", "--data-dir", str(tmp_path)]) == 1
    assert f"data_dir {tmp_path} has files of something else" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_data_folder_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").write_text("")
    assert main(["serve", "--port", "0", "--data-dir", str(tmp_path / "data")]) == 1
    assert "cannot be read: Not a directory" in capsys.readouterr().err


def test_folders_of_a_node(tmp_path: Path) -> None:
    check_data_dir(tmp_path / "new")
    for there in ("lost+found", ".hidden", "state", "notes.txt"):
        (tmp_path / there).mkdir()
        check_data_dir(tmp_path)


@pytest.mark.parametrize("name", KAFKA_ONLY)
def test_a_setting_of_kafka_without_kafka_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From wherever it comes: it would be passed over in silence. Its default is no setting."""
    value = "dev" if name == "preset" else "x"
    text = f"{name} needs a journal on Kafka, and journal is embedded: say --journal kafka, or leave it out"
    file = tmp_path / "vecraft.toml"
    file.write_text(f'{name} = "{value}"\n')
    for flags, toml in (({name: value}, None), ({}, file)):
        with pytest.raises(SettingsError, match=f"^{text}$"):
            load_settings(flags, toml)
        assert load_settings(flags | {"journal": "kafka"}, toml).journal == "kafka"
    monkeypatch.setenv(f"VECRAFT_{name.upper()}", value)
    with pytest.raises(SettingsError, match=text):
        load_settings({})
    assert load_settings({"journal": "kafka"}).journal == "kafka"


def test_several_settings_of_kafka_without_kafka_are_one_sentence() -> None:
    with pytest.raises(SettingsError, match=r"^bootstrap_servers and preset need a journal on Kafka, .* or leave them out$"):
        load_settings({"preset": "prod", "bootstrap_servers": "x:1"})
    load_settings({"topic_prefix": "x"})


def test_another_address_when_it_is_meant() -> None:
    assert load_settings({"host": "0.0.0.0", "insecure": True}).host == "0.0.0.0"


def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "--insecure" in capsys.readouterr().err
    assert main(["serve", "--config", "/nowhere.toml"]) == 2
    assert "/nowhere.toml" in capsys.readouterr().err


def test_the_readme_lists_every_setting() -> None:
    text = README.read_text()
    missing = [name for name in Settings.model_fields if f"`--{name.replace('_', '-')}`" not in text]
    assert not missing
