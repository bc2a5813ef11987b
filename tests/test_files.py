"""Files appear whole or not at all, locks hold between processes and end with them, downloads come whole."""

import http.server
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest

from t2i import files
from t2i.errors import UserError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": "ä"})
    assert files.read_json(path) == {"a": "ä"}
    with pytest.raises(FileNotFoundError):
        write_half(path)
    assert files.read_json(path) == {"a": "ä"}
    with files.replacing(path) as temporary:
        temporary.write_text('{"a": "ä"}', encoding="utf-8")
        assert files.read_json(path) == {"a": "ä"}
    assert files.read_json(path) == {"a": "ä"}
    files.write_text(path, "{")
    assert files.read_json(path) is None
    assert files.read_json(tmp_path / "none") is None
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def write_half(path):
    with files.replacing(path) as temporary:
        temporary.write_text("half")
        raise FileNotFoundError


def test_sha256(tmp_path):
    files.write_bytes(tmp_path / "a", b"abc")
    assert files.sha256(tmp_path / "a").startswith("ba7816bf")


HOLD = """
import multiprocessing, sys, time
from pathlib import Path
from t2i import files

with files.lock(Path(sys.argv[1]), "taken"):
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    worker.start()
    print(worker.pid, flush=True)
    time.sleep(60)
"""


def test_a_lock_is_held_by_one_process_and_not_by_its_workers(tmp_path):
    path = tmp_path / ".lock"
    for _ in range(2):
        with files.lock(path, "taken"):
            pass
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    worker = int(other.stdout.readline())
    try:
        with pytest.raises(UserError, match=r"^x: another is there$"), files.lock(path, "x: another is there"):
            pass
        other.kill()  # its worker lives on
        other.wait()
        os.kill(worker, 0)
        time.sleep(0.5)  # it closes what it inherited as its first act, but may not have had its turn yet
        with files.lock(path, "x: another is there"):
            pass
    finally:
        os.kill(worker, 9)
        other.stdout.close()


def hold_and_note(lock, log):
    with files.lock(lock):
        log.write_text(log.read_text() + "in ")
        time.sleep(0.05)
        log.write_text(log.read_text() + "out ")


def test_without_a_complaint_a_lock_waits(tmp_path):
    log = tmp_path / "log"
    log.write_text("")
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=hold_and_note, args=(tmp_path / ".lock", log)) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert log.read_text() == "in out in out "


@pytest.fixture
def server(monkeypatch):
    """(address, what is asked there); /good is whole, /cut breaks off, /busy is well the second time."""
    monkeypatch.setenv("no_proxy", "*")
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/none" or (self.path == "/busy" and asked.count("/busy") == 1):
                self.send_error(404 if self.path == "/none" else 503)
                return
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * (500 if self.path == "/cut" else 1000))

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}", asked
        serving.shutdown()
        thread.join()


def test_downloads_come_whole_or_not_at_all(server, tmp_path, capsys):
    address, asked = server
    target = tmp_path / "cache" / "weights"
    for _ in range(2):
        files.download("vgg", f"{address}/good", target)
    assert target.read_bytes() == b"x" * 1000
    assert asked == ["/good"]
    assert capsys.readouterr().err == f"vgg: fetching {address}/good\n"
    for path in ("none", "cut"):
        with pytest.raises(UserError, match=rf"^vgg: .*/{path} is not on this machine .*curl -L .*/{path}$") as error:
            files.download("vgg", f"{address}/{path}", tmp_path / path)
        assert "\n" not in str(error.value)
        assert not (tmp_path / path).exists()
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]
    again = tmp_path / "busy"
    files.fetch(f"{address}/busy", again)
    assert again.read_bytes() == files.read(f"{address}/good")
    with pytest.raises(OSError, match="404"):
        files.read(f"{address}/none")
    with pytest.raises(OSError, match="nope"):
        files.read("nope://x")
