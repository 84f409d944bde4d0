"""What is remembered survives kill -9: all that was acknowledged, and nothing by half."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import redis

from processes import PyropeProcess, pyrope_process
from pyrope.storage.backup_files import Work
from pyrope.storage.backup_restore import restore_backup

_DIM = 8
_DOCUMENTS = 8


def vector(number: int) -> bytes:
    return np.random.default_rng(number).standard_normal(_DIM).astype("<f4").tobytes()


class Writer(threading.Thread):
    """Remembers, forgets and changes documents until the connection breaks.

    Attributes:
        acknowledged: responses by prompt, None where there is none; of what is in doubt, nothing.
    """

    def __init__(self, process: PyropeProcess, number: int, enough: threading.Event) -> None:
        super().__init__()
        self.client = process.client(retry=None)
        self.number = number
        self.enough = enough
        self.acknowledged: dict[str, str | None] = {}
        self.made_from: dict[str, str] = {}
        self.in_doubt: set[str] = set()

    def run(self) -> None:
        step = 0
        try:
            while True:
                step += 1
                self.step(step)
                if step == 80:
                    self.enough.set()
        except redis.RedisError:
            pass

    def step(self, step: int) -> None:
        prompt = f"question {self.number} {step % 20}"
        if step % 7 == 0:
            self.in_doubt = {prompt}
            self.client.execute_command("VECTOR.FORGET", "i", "PROMPT", prompt)
            self.settle(prompt, None)
        elif step % 11 == 0:
            # Each writer has documents of its own.
            document = f"d{self.number}-{step % _DOCUMENTS}"
            self.in_doubt = {p for p, made_from in self.made_from.items() if made_from == document}
            self.client.execute_command("VECTOR.ADD", "docs", document, "FP32", vector(step))
            for one in list(self.in_doubt):
                self.settle(one, None)
        else:
            document = f"d{self.number}-{step % _DOCUMENTS}"
            words: tuple[Any, ...] = ("DEPENDS", "docs", 1, document) if step % 3 == 0 else ()
            self.in_doubt = {prompt}
            response = f"{prompt}: {step} " + "x" * (step % 5 * 400)
            self.client.execute_command(
                "VECTOR.REMEMBER", "i", prompt, response, "FP32", vector(step), *words
            )
            self.settle(prompt, response)
            if words:
                self.made_from[prompt] = document
        self.in_doubt = set()

    def settle(self, prompt: str, response: str | None) -> None:
        self.acknowledged[prompt] = response
        self.made_from.pop(prompt, None)


def check(client: redis.Redis, expected: dict[str, str | None]) -> None:
    for prompt, response in expected.items():
        # Exactly, and nothing that is only near.
        found = client.execute_command(
            "VECTOR.RECALL", "i", prompt, "FP32", vector(0), "MAXERROR", 0
        )
        assert found == (None if response is None else response.encode()), prompt


def test_every_acknowledged_response_survives_kill_9(tmp_path: Path) -> None:
    data = tmp_path / "data"
    expected: dict[str, str | None] = {}
    for round_ in range(2):
        with pyrope_process(data) as process:
            with process.client() as client:
                for index in ("i", "docs"):
                    client.execute_command("VECTOR.CREATE", index, "DIM", _DIM, "NX")
                check(client, expected)
                writers = []
                for number in range(round_ * 3, round_ * 3 + 3):
                    for document in range(_DOCUMENTS):
                        id_ = f"d{number}-{document}"
                        client.execute_command("VECTOR.ADD", "docs", id_, "FP32", vector(1))
                    writers.append(Writer(process, number, threading.Event()))
            for writer in writers:
                writer.start()
            for writer in writers:
                assert writer.enough.wait(60)
            process.kill()
            for writer in writers:
                writer.join()
                writer.client.close()
                settled = writer.acknowledged.items()
                expected |= {p: r for p, r in settled if p not in writer.in_doubt}
    with pyrope_process(data) as process, process.client() as client:
        check(client, expected)
        # What depends on a document still does.
        survivors = [p for p, r in expected.items() if r is not None]
        assert len(survivors) > 20
        assert process.terminate() == 0


def test_quarantine_and_verdicts_survive_kill_9(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pyrope_process(data) as process, process.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", _DIM)
        bad = client.execute_command("VECTOR.REMEMBER", "i", "one", "wrong", "FP32", vector(1))
        client.execute_command("VECTOR.FEEDBACK", "i", bad, "BAD", "PROMPT", "another one")
        process.kill()
    with pyrope_process(data) as process, process.client() as client:
        words = ("FP32", vector(1), "THRESHOLD", 0.5)
        assert client.execute_command("VECTOR.RECALL", "i", "one", *words) is None
        client.execute_command("VECTOR.REMEMBER", "i", "one", "right", "FP32", vector(1))
        assert client.execute_command("VECTOR.RECALL", "i", "one", *words) == b"right"
        assert client.execute_command("VECTOR.RECALL", "i", "another one", *words) is None
        assert process.terminate() == 0


def test_what_went_by_itself_does_not_come_back_after_what_was_acknowledged_since(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    with pyrope_process(data) as process, process.client() as client:
        call = client.execute_command
        for index in ("i", "docs"):
            call("VECTOR.CREATE", index, "DIM", _DIM)
        call("VECTOR.ADD", "docs", "d", "FP32", vector(1))
        call("VECTOR.REMEMBER", "i", "made", "old", "FP32", vector(1), "DEPENDS", "docs", 1, "d")
        for prompt in ("replaced", "forgotten"):
            call("VECTOR.REMEMBER", "i", prompt, "old", "FP32", vector(1))
        # Nothing fits in any more, and all of it is driven out.
        call("VECTOR.CACHE", "POLICY", "i", "SET", "REMEMBERBYTES", 1)
        call("VECTOR.CACHE", "POLICY", "i", "SET", "REMEMBERBYTES", 0)
        call("VECTOR.ADD", "docs", "d", "FP32", vector(2))
        call("VECTOR.REMEMBER", "i", "replaced", "new", "FP32", vector(1))
        assert call("VECTOR.FORGET", "i", "PROMPT", "forgotten") == 0
        process.kill()
    with pyrope_process(data) as process, process.client() as client:
        check(client, {"made": None, "replaced": "new", "forgotten": None})
        assert process.terminate() == 0


def test_a_backup_has_what_is_remembered_with_all_that_ends_it(tmp_path: Path) -> None:
    data, backup, restored = tmp_path / "data", tmp_path / "backup", tmp_path / "restored"
    with pyrope_process(data) as process, process.client() as client:
        call = client.execute_command
        call("VECTOR.CREATE", "i", "DIM", _DIM)
        call("VECTOR.ADD", "i", "d", "FP32", vector(1))
        call("VECTOR.REMEMBER", "i", "made", "one", "FP32", vector(1), "DEPENDS", "i", 1, "d")
        call("VECTOR.REMEMBER", "i", "kept", "two", "FP32", vector(2))
        bad = call("VECTOR.REMEMBER", "i", "bad", "three", "FP32", vector(3))
        call("VECTOR.FEEDBACK", "i", bad, "BAD")
        call("VECTOR.BACKUP", "TO", str(backup))
    restore_backup(backup, restored, Work())
    with pyrope_process(restored) as process, process.client() as client:
        check(client, {"made": "one", "kept": "two", "bad": None})
        client.execute_command("VECTOR.DEL", "i", "d")
        check(client, {"made": None, "kept": "two"})
        assert process.terminate() == 0
