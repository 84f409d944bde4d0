"""What a person with redis-cli sees."""

from __future__ import annotations

import subprocess

from servers import RunningServer


def cli(server: RunningServer, *args: str, typed: str | None = None) -> str:
    done = subprocess.run(
        ["redis-cli", "-p", str(server.port), *args],
        input=typed,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout


def test_a_session_reads_as_the_readme_shows_it(server: RunningServer) -> None:
    typed = """\
VECTOR.CREATE films DIM 3
VECTOR.ADD films alien VALUES 3 0.9 0.1 0.2 SETATTR '{"year": 1979, "genre": "sf"}'
VECTOR.ADD films solaris VALUES 3 0.8 0.3 0.1 SETATTR '{"year": 1972, "genre": "sf"}'
VECTOR.ADD films heat VALUES 3 0.1 0.9 0.4 SETATTR '{"year": 1995, "genre": "noir"}'
VECTOR.SEARCH films VALUES 3 1 0 0 COUNT 2
VECTOR.SEARCH films ELE alien FILTER '.year < 1979 or .genre == "noir"'
VECTOR.GETATTR films heat
VECTOR.DEL films heat
VECTOR.CARD films
"""
    assert cli(server, "--no-raw", typed=typed) == (
        'OK\n(integer) 1\n(integer) 1\n(integer) 1\n1) "alien"\n2) "solaris"\n'
        '1) "solaris"\n2) "heat"\n"{\\"year\\": 1995, \\"genre\\": \\"noir\\"}"\n'
        "(integer) 1\n(integer) 2\n"
    )


def test_resp3_shows_maps_and_doubles(server: RunningServer) -> None:
    cli(server, typed="VECTOR.CREATE i DIM 2\nVECTOR.ADD i a VALUES 2 1 0\n")
    shown = cli(
        server, "-3", "--no-raw", "VECTOR.SEARCH", "i", "VALUES", "2", "1", "0", "WITHSCORES"
    )
    assert shown == '1# "a" => (double) 1\n'


def test_errors_and_nulls_are_shown_as_such(server: RunningServer) -> None:
    assert cli(server, "--no-raw", "NONSENSE").startswith("(error) ERR unknown command 'NONSENSE'")
    assert cli(server, "--no-raw", "VECTOR.CARD", "none").startswith("(error) NOINDEX")
    assert cli(server, "--no-raw", "CLIENT", "GETNAME") == "(nil)\n"


def test_info_and_help_are_readable(server: RunningServer) -> None:
    assert "# Server\r\n" in cli(server, "INFO").replace("\n", "\r\n").replace("\r\r", "\r")
    assert "connected_clients:1" in cli(server, "INFO", "clients")
    assert "VECTOR.CREATE" not in cli(server, "CLIENT", "HELP")


def test_a_pipe_of_commands_is_answered_in_full(server: RunningServer) -> None:
    cli(server, "VECTOR.CREATE", "i", "DIM", "2")
    commands = "".join(f"VECTOR.ADD i v{number} VALUES 2 1 {number}\r\n" for number in range(500))
    told = cli(server, "--pipe", typed=commands)
    assert "errors: 0, replies: 500" in told
    assert cli(server, "VECTOR.CARD", "i") == "500\n"


def test_the_latency_and_big_options_of_the_tool_find_what_they_ask_for(
    server: RunningServer,
) -> None:
    assert cli(server, "DBSIZE") == "0\n"
    assert cli(server, "CONFIG", "GET", "maxclients") == "maxclients\n10000\n"
    assert "vector.search" in cli(server, "COMMAND", "DOCS", "vector.search")
