"""Shards elsewhere: whole, what the manifest says, or one line; asked again where that helps; shared and let go of."""

import functools
import http.server
import importlib.util
import json
import multiprocessing
import shutil
import threading
import time
from pathlib import Path

import pytest
from test_loader import folder, same, take  # noqa: F401

from t2i.data.loader import Loader
from t2i.data.samples import Samples
from t2i.errors import UserError


class Site:
    """A server of a folder that can be told to misbehave: path → what to do the first times it is asked for it."""

    def __init__(self, root: Path):
        self.root, self.asked, self.wrong = root, list[str](), dict[str, list]()

    def __enter__(self):
        site = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                name = self.path.partition("?")[0]
                site.asked.append(self.path)
                how = site.wrong.get(name, [])
                act = how.pop(0) if how else None
                if act is None:
                    return super().do_GET()
                if isinstance(act, int):
                    return self.send_error(act)
                data = (site.root / name[1:]).read_bytes()
                self.send_response(200)
                if act == "html":
                    data = b"<!DOCTYPE html><title>Sign in</title>" + b" " * 600
                if act == "chunked and broken":
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    self.wfile.write(b"400\r\n" + data[:500])
                    self.close_connection = True
                    return None
                if act == "another":
                    data = data[:-1] + b"x"
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[:700] if act == "cut" else data)
                self.close_connection = act == "cut"
                return None

            def log_message(self, *arguments):
                pass

        handler = functools.partial(Handler, directory=str(self.root))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def site(folder, tmp_path, monkeypatch):  # noqa: F811
    """A copy of the shards, served; waits between attempts cost nothing."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with Site(shutil.copytree(folder, tmp_path / "site")) as serving:
        yield serving


FIRST = "/shard-000000.tar"


@pytest.mark.parametrize("how", [408, 425, 429, 500, 503, "cut", "chunked and broken"])
def test_what_may_pass_is_asked_again(how, site, folder, tmp_path):  # noqa: F811
    site.wrong[FIRST] = [how, how]
    got = take(4, site.address, 5, cache=tmp_path / "cache")
    assert all(same(a, b) for a, b in zip(take(4, str(folder), 5), got, strict=True))
    assert site.asked.count(FIRST) == 3


@pytest.mark.parametrize("how", [401, 403, 404, 410, 418, "cut", "chunked and broken", "html", "another"])
@pytest.mark.parametrize("with_manifest", [True, False])
def test_what_stays_is_one_line_and_leaves_nothing(how, with_manifest, site, tmp_path):
    if how == "another" and not with_manifest:
        pytest.skip("nobody can know")
    site.wrong[FIRST] = [how] * 9
    source = site.address if with_manifest else f"{site.address}{FIRST}"
    if not with_manifest:
        (site.root / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"cannot fetch http.*/shard-000000\.tar") as error:
        Loader(source, 2, cache=tmp_path / "cache", workers=0)
    assert "\n" not in str(error.value)
    assert not [p for p in (tmp_path / "cache").iterdir() if not p.name.endswith(".lock")]
    del site.wrong[FIRST]
    assert Loader(source, 2, cache=tmp_path / "cache").count  # the same command goes on


def test_the_digest_of_the_manifest_is_checked(site, tmp_path):
    file = site.root / FIRST[1:]
    data = bytearray(file.read_bytes())
    data[600] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"SHA-256 .* the manifest says"):
        Loader(site.address, 2, cache=tmp_path / "cache")


@pytest.mark.parametrize("how", [500, 503, 429, 401, "cut"])
def test_a_manifest_that_cannot_be_had_is_not_none(how, site, tmp_path):
    site.wrong["/manifest.json"] = [how] * 9
    with pytest.raises(UserError, match=r"cannot fetch .*/manifest\.json"):
        Loader(f"{site.address}{FIRST}", 2, cache=tmp_path / "cache")


def test_a_page_in_place_of_a_manifest_is_told_of(site, tmp_path):
    site.wrong["/manifest.json"] = ["html"]
    samples = Samples(f"{site.address}{FIRST}", tmp_path / "cache")
    assert any("what came is no JSON" in line for line in samples.complaints)
    assert len(samples) == 7


def test_addresses_with_a_query(site, folder, tmp_path):  # noqa: F811
    source = f"{site.address}{FIRST}?token=secret&x=/y"
    loader = Loader(source, 5, cache=tmp_path / "cache")
    assert (loader.count, loader.samples.shards[0].name) == (7, "shard-000000.tar")
    assert f"{FIRST}?token=secret&x=/y" in site.asked
    assert loader.samples.shards[0].sha256 == json.loads((folder / "manifest.json").read_text())["shards"][0]["sha256"]
    with pytest.raises(UserError, match="404") as error:
        Loader(f"{site.address}/none.tar?token=secret", 5, cache=tmp_path / "cache")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(("kind", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("abfs", "adlfs")])
def test_a_file_system_that_is_not_installed_is_named(kind, package, tmp_path):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(UserError, match=package):
        Loader(f"{kind}://bucket/x.tar", 2, cache=tmp_path / "cache")


def test_any_file_system_of_fsspec_serves(folder, tmp_path):  # noqa: F811
    """The one that lies in memory stands for s3, gs and hf."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/t2i-shards", recursive=True)
    try:
        got = take(4, "memory://t2i-shards", 5, cache=tmp_path / "cache")
        assert all(same(a, b) for a, b in zip(take(4, str(folder), 5), got, strict=True))
    finally:
        memory.rm("/t2i-shards", recursive=True)


def count_all(source, cache, limit, out):
    loader = Loader(source, 3, cache=cache, workers=0, cache_gb=limit)
    taken = take(20, source, 3, cache=cache, cache_gb=limit)
    out.put((loader.count, [batch.image_id.tolist() for batch in taken]))


def test_two_processes_share_a_cache_that_is_smaller_than_the_set(site, folder, tmp_path):  # noqa: F811
    size = sum(p.stat().st_size for p in site.root.glob("*.tar"))
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    limit = 0.5 * size / 2**30
    both = [context.Process(target=count_all, args=(site.address, tmp_path / "cache", limit, out)) for _ in range(2)]
    for process in both:
        process.start()
    found = [out.get(timeout=60) for _ in both]
    for process in both:
        process.join()
    whole = [batch.image_id.tolist() for batch in take(20, str(folder), 3)]
    assert found == [(30, whole)] * 2
    assert sum(p.stat().st_size for p in (tmp_path / "cache").glob("*.tar")) <= limit * 2**30


def test_what_was_let_go_of_comes_again(site, folder, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr("t2i.data.samples.OPEN", 1)
    limit = 1 / 2**30  # a byte: one tar at a time
    got = take(6, site.address, 5, cache=tmp_path / "cache", cache_gb=limit)
    assert all(same(a, b) for a, b in zip(take(6, str(folder), 5), got, strict=True))
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 1
