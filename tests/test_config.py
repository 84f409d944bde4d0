"""Settings: their sources and precedence, their checks, and `CONFIG GET` and `SET`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pyrope.config import (
    HttpSettings,
    InvalidSettingsError,
    LimitSettings,
    Settings,
    TlsSettings,
    config_names,
    config_set,
    every_setting,
    load_settings,
)
from pyrope.config.fields import SIZE_SYNTAX, format_size, parse_size
from pyrope.config.render import default_toml, markdown, toml_in_force
from pyrope.errors import CommandError

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in every_setting():
        monkeypatch.delenv(setting.env, raising=False)
    monkeypatch.delenv("PYROPE_CONFIG", raising=False)


def write(folder: Path, text: str) -> Path:
    path = folder / "pyrope.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(*args: Any) -> str:
    with pytest.raises(InvalidSettingsError) as caught:
        load_settings(*args)
    return "\n".join(caught.value.problems)


# -- sources ------------------------------------------------------------------------------------


def test_without_any_source_every_setting_has_its_default() -> None:
    loaded = load_settings()
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}


def test_a_flag_wins_over_the_environment_and_the_environment_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, "port = 1\n[limits]\ndim = 1\ncount = 1\nef = 1\n")
    monkeypatch.setenv("PYROPE_LIMITS__DIM", "2")
    monkeypatch.setenv("PYROPE_LIMITS__COUNT", "2")
    loaded = load_settings(file, {"limits": {"dim": "3"}})
    limits = loaded.settings.limits
    assert (loaded.settings.port, limits.ef, limits.count, limits.dim) == (1, 1, 2, 3)
    assert loaded.origins["port",] == f"file {file}"
    assert loaded.origins["limits", "count"] == "environment PYROPE_LIMITS__COUNT"
    assert loaded.origins["limits", "dim"] == "flag --limits-dim"
    assert loaded.origins["limits", "m"] == "default"


def test_constructing_settings_in_code_reads_no_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYROPE_PORT", "1234")
    assert Settings().port == 7379
    assert load_settings().settings.port == 1234


def test_two_settings_objects_share_no_group() -> None:
    one, two = Settings(), Settings()
    one.limits.max_clients = 5
    assert two.limits.max_clients == 10_000


def test_an_empty_text_unsets_what_the_file_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, 'unixsocket = "/run/pyrope.sock"\nadmin_password = "secret"\n')
    monkeypatch.setenv("PYROPE_UNIXSOCKET", "")
    monkeypatch.setenv("PYROPE_ADMIN_PASSWORD", "")
    settings = load_settings(file).settings
    assert settings.unixsocket is None
    assert settings.admin_password is None


# -- bad input ----------------------------------------------------------------------------------


def test_an_unknown_key_in_the_file_is_an_error_that_suggests_the_right_one(
    tmp_path: Path,
) -> None:
    file = write(tmp_path, "prot = 1\n[limits]\nmax_client = 3\n[logs]\nlevel = 'info'\n")
    found = problems(file)
    assert f"prot: no such setting; did you mean port? (file {file})" in found
    assert "limits.max_client: no such setting; did you mean limits.max_clients?" in found
    assert "logs: no such setting" in found


def test_a_misspelt_environment_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYROPE_ADMIN_PASWORD", "secret")
    assert problems() == (
        "environment PYROPE_ADMIN_PASWORD: no such setting; did you mean PYROPE_ADMIN_PASSWORD?"
    )


def test_every_bad_value_is_reported_with_where_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, "port = 65536\nthreads = 'many'\nlimits = 3\n[log]\nlevel = 'loud'\n")
    monkeypatch.setenv("PYROPE_MAXMEMORY", "5 parsecs")
    found = problems(file, {"unixsocket_perm": "999"})
    assert f"less than or equal to 65535, not 65536 (file {file})" in found
    assert "threads: Input should be a valid integer" in found
    assert "limits: must be a table of settings" in found
    assert "log.level: Input should be 'debug', 'info', 'warning' or 'error', not 'loud'" in found
    assert "maxmemory: argument must be a memory value" in found
    assert "(environment PYROPE_MAXMEMORY)" in found
    assert "(flag --unixsocket-perm)" in found


def test_an_error_about_a_secret_does_not_show_it(tmp_path: Path) -> None:
    file = write(tmp_path, "admin_password = 31337\n")
    found = problems(file)
    assert "admin_password" in found
    assert "31337" not in found


@pytest.mark.parametrize("content", [b"port = ", b"\xff\xfe", b"port = 1\nport = 2\n"])
def test_a_file_that_is_not_toml_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    assert problems(path).startswith(f"{path}: not a TOML file: ")


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.toml").endswith("No such file or directory")
    assert problems(tmp_path).endswith("Is a directory")


def test_a_server_must_have_something_to_listen_on() -> None:
    assert problems(None, {"port": 0}) == "nothing to listen on: set port, tls.port or unixsocket"
    assert load_settings(None, {"port": 0, "unixsocket": "s"}).settings.unixsocket == Path("s")


def test_a_unix_socket_path_longer_than_the_system_takes_is_an_error() -> None:
    assert "107 bytes" in problems(None, {"unixsocket": "é" * 54})
    assert load_settings(None, {"unixsocket": "x" * 107}).settings.unixsocket


def test_limits_that_contradict_one_another_are_an_error() -> None:
    assert "max_arg_bytes exceeds" in problems(None, {"limits": {"max_arg_bytes": "2gb"}})
    assert "output_high_water_bytes exceeds" in problems(
        None, {"limits": {"output_buffer_bytes": "64kb"}}
    )


def test_tls_needs_its_files(tmp_path: Path) -> None:
    there = write(tmp_path, "")
    assert "needs tls.cert_file too" in problems(None, {"tls": {"port": 7390}})
    tls = {"port": 7390, "cert_file": there, "key_file": tmp_path / "none.pem"}
    assert "tls.key_file: there is no file" in problems(None, {"tls": tls})
    tls["key_file"] = there
    assert load_settings(None, {"tls": tls}).settings.tls.port == 7390
    tls["auth_clients"] = "optional"
    assert "needs tls.ca_file too" in problems(None, {"tls": tls})
    assert "both 7379" in problems(
        None, {"tls": {"port": 7379, "cert_file": there, "key_file": there}}
    )


def test_the_control_plane_has_a_port_of_its_own_and_files_for_tls(tmp_path: Path) -> None:
    assert "port and http_port are both 7380" in problems(None, {"port": 7380})
    assert load_settings(None, {"port": 7380, "http_port": 0}).settings.http_port == 0
    there = write(tmp_path, "")
    assert "needs tls.cert_file too" in problems(None, {"http": {"tls": True}})
    tls = {"cert_file": there, "key_file": tmp_path / "none.pem"}
    flags = {"http": {"tls": True}, "tls": tls}
    assert "tls.key_file: there is no file" in problems(None, flags)
    tls["key_file"] = there
    assert load_settings(None, flags).settings.http.tls
    # Without a port, nobody needs them.
    assert load_settings(None, {"http_port": 0, "http": {"tls": True}}).settings.http.tls


@pytest.mark.parametrize("origin", ["ops.example", "https://", "https://a/b", "*", "https://a,b"])
def test_what_is_no_origin_is_an_error(origin: str) -> None:
    assert "is no origin" in problems(None, {"http": {"cors_origins": origin}})


def test_origins_have_commas_between_them() -> None:
    settings = HttpSettings(cors_origins="https://a, http://b:80,")
    assert settings.origins == {"https://a", "http://b:80"}


# -- the classes --------------------------------------------------------------------------------


def test_only_settings_that_may_change_at_run_time_can_be_assigned() -> None:
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1
    with pytest.raises(ValidationError, match="frozen"):
        settings.limits = LimitSettings()
    with pytest.raises(ValidationError, match="greater than or equal"):
        settings.limits.max_clients = 0
    settings.limits.max_clients = 7
    assert settings.limits.max_clients == 7


def test_every_setting_is_described_and_every_number_has_bounds() -> None:
    for setting in every_setting():
        assert setting.description.endswith("."), setting.key
        if isinstance(setting.default, (int, float)) and not setting.is_bool:
            assert setting.bounds, setting.key
            assert setting.bounds[0] <= setting.default <= setting.bounds[1], setting.key


def test_every_setting_goes_by_names_of_its_own() -> None:
    for names in zip(*((s.key, s.env, s.flag, s.name) for s in every_setting()), strict=True):
        assert len(set(names)) == len(names)


def test_secrets_are_in_no_text_made_of_settings() -> None:
    settings = Settings(admin_password="hunter2", tls=TlsSettings(key_password="hunter2"))  # type: ignore[arg-type]
    origins = dict.fromkeys((setting.path for setting in every_setting()), "default")
    for text in (repr(settings), str(config_names(settings)), toml_in_force(settings, origins)):
        assert "hunter2" not in text


def test_zero_threads_means_one_for_each_core() -> None:
    assert Settings().thread_count >= 1
    assert Settings(threads=3).thread_count == 3


def test_the_permissions_of_the_unix_socket_are_octal() -> None:
    assert Settings(unixsocket_perm="770").unixsocket_mode == 0o770


# -- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("17", 17), ("1k", 1000), ("1kb", 1024), ("2MB", 2 * 1024**2), ("1 GiB", 1024**3)],
)
def test_sizes_are_written_as_in_redis_conf(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "mb", "-1", "1.5gb", "1tb", "1kb1", "١"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a memory value"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=2**60))
def test_a_formatted_size_reads_back_as_itself(size: int) -> None:
    assert parse_size(format_size(size)) == size


# -- generated files ----------------------------------------------------------------------------


def test_the_example_file_holds_exactly_the_settings_with_their_defaults() -> None:
    path = ROOT / "configs" / "pyrope.toml"
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    keys = set()
    for name, value in content.items():
        keys |= {f"{name}.{inner}" for inner in value} if isinstance(value, dict) else {name}
    assert keys == {setting.key for setting in every_setting()}
    assert load_settings(path).settings == Settings()


def test_the_generated_files_are_up_to_date() -> None:
    for name, text in (("configs/pyrope.toml", default_toml()), ("docs/settings.md", markdown())):
        assert (ROOT / name).read_text(encoding="utf-8") == text, f"run `make docs` for {name}"


def test_what_is_in_force_is_a_file_that_gives_the_same_settings(tmp_path: Path) -> None:
    flags = {"port": 1, "data_dir": 'a "b"\\c\x7fé', "limits": {"idle_timeout_s": 1.5, "ef": 7}}
    loaded = load_settings(None, flags)
    file = write(tmp_path, toml_in_force(loaded.settings, loaded.origins))
    assert load_settings(file).settings == loaded.settings


# -- CONFIG GET and SET -------------------------------------------------------------------------


def test_config_names_are_those_of_redis_where_redis_has_the_setting() -> None:
    names = config_names(Settings(data_dir=Path("somewhere")))
    assert names["bind"] == "127.0.0.1"
    assert names["port"] == "7379"
    assert names["maxclients"] == "10000"
    assert names["timeout"] == "0"
    assert names["proto-max-bulk-len"] == str(512 * 1024**2)
    assert names["protected-mode"] == "yes"
    assert names["unixsocket"] == ""
    assert names["dir"] == str(Path.cwd() / "somewhere")
    assert names["limits-id-bytes"] == "4096"
    assert "requirepass" not in names
    assert "tls-key-file-pass" not in names


def test_config_set_changes_what_may_change() -> None:
    settings = Settings()
    limits = settings.limits
    config_set(
        settings,
        {"MaxClients": "5", "maxmemory": "2mb", "protected-mode": "no", "log-level": "debug"},
    )
    assert limits.max_clients == 5
    assert settings.maxmemory == 2 * 1024**2
    assert settings.protected_mode is False
    assert settings.log.level == "debug"


def test_config_set_keeps_the_secrets() -> None:
    settings = Settings(admin_password="hunter2")  # type: ignore[arg-type]
    config_set(settings, {"timeout": "3"})
    assert settings.admin_password is not None
    assert settings.admin_password.get_secret_value() == "hunter2"


def test_config_set_allows_values_that_only_fit_together() -> None:
    settings = Settings()
    changes = {"proto-max-bulk-len": "2gb", "client-query-buffer-limit": "3gb", "maxmemory": "1gb"}
    config_set(settings, changes)
    assert settings.limits.max_arg_bytes == 2 * 1024**3
    assert settings.limits.max_command_bytes == 3 * 1024**3


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("maxclients", "0", "argument must be between 1 and 1000000 inclusive"),
        ("maxclients", "x", "argument couldn't be parsed into an integer"),
        ("maxclients", "1.5", "argument couldn't be parsed into an integer"),
        ("timeout", "x", "argument couldn't be parsed into a number"),
        ("timeout", "nan", "argument must be between 0 and 31536000 inclusive"),
        ("timeout", "inf", "argument must be between 0 and 31536000 inclusive"),
        ("protected-mode", "maybe", "argument must be 'yes' or 'no'"),
        (
            "log-level",
            "loud",
            "argument(s) must be one of the following: debug, info, warning, error",
        ),
        (
            "maxmemory",
            "much",
            f"argument must be a memory value: {SIZE_SYNTAX}",
        ),
        ("port", "1", "can't set immutable config"),
        ("requirepass", "x", "can't set immutable config"),
        (
            "proto-max-bulk-len",
            "2gb",
            "limits.max_arg_bytes exceeds limits.max_command_bytes",
        ),
    ],
)
def test_a_refused_config_set_words_it_as_redis_does_and_changes_nothing(
    name: str, value: str, message: str
) -> None:
    settings = Settings()
    with pytest.raises(CommandError) as caught:
        config_set(settings, {"slowlog-max-len": "1", name: value})
    assert caught.value.message == (
        f"CONFIG SET failed (possibly related to argument '{name}') - {message}"
    )
    assert settings == Settings()


def test_config_set_of_an_unknown_name_changes_nothing() -> None:
    settings = Settings()
    with pytest.raises(CommandError) as caught:
        config_set(settings, {"timeout": "1", "tiemout": "1"})
    assert caught.value.message == (
        "Unknown option or number of arguments for CONFIG SET - 'tiemout'"
    )
    assert settings == Settings()


def test_config_set_refuses_a_name_given_twice() -> None:
    with pytest.raises(CommandError, match="duplicate parameter"):
        config_set(Settings(), {"timeout": "1", "TIMEOUT": "2"})
