"""Public checkpoints from a real server on this machine: whole and right, or not there at all."""

import http.server
import io
import threading

import pytest
import torch

from edgesmith.models import catalog, weights
from edgesmith.runtime.common.files import sha256
from edgesmith.runtime.errors import ModelError, NotAvailable

torch.set_num_threads(1)
NAME = "lenet5"


@pytest.fixture
def server():
    """Serve `files`, cut off after `cut` bytes where that is set; `asked` lists the requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            made.asked.append(self.path)
            content = made.files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write((content or b"")[: made.cut])

        def log_message(self, *words):
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.files, made.asked, made.cut = {}, [], None
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def published(server, tmp_path, monkeypatch):
    """Publish a checkpoint of LeNet-5 under a name that holds its digest, as the row of the table says."""
    torch.manual_seed(5)
    content = io.BytesIO()
    module = catalog.build_network(NAME, catalog.find_network(NAME).classes)
    torch.save(module.state_dict(), content)
    (tmp_path / "source").write_bytes(content.getvalue())
    name = f"lenet5-{sha256(tmp_path / 'source')[:8]}.pth"
    server.files[f"/{name}"] = content.getvalue()
    monkeypatch.setitem(catalog.find_network(NAME).row, "checkpoint", name)
    monkeypatch.setitem(catalog.find_network(NAME).row, "url", f"http://127.0.0.1:{server.server_port}/")
    return module, name


def load(folder):
    module = catalog.build_network(NAME, catalog.find_network(NAME).classes)
    return module, weights.load_into(module, catalog.network_spec(NAME), "imagenet", folder=folder)


def test_it_is_fetched_once(server, published, tmp_path):
    source, name = published
    for _ in range(2):
        module, spec = load(tmp_path / "weights")
        assert spec.weights == "imagenet"
        assert all(torch.equal(a, b) for a, b in zip(source.parameters(), module.parameters(), strict=True))
    assert server.asked == [f"/{name}"]


def changed(server, path):
    server.files[path] = server.files[path][:-1] + b"x"


def gone(server, path):
    del server.files[path]


def cut(server, path):
    server.cut = 1000


def offline(server, path):
    server.shutdown()
    server.socket.close()


BAD = {
    "another file under its name": (changed, ModelError, "is damaged; got SHA-256 .*; do: fetch it again"),
    "not there any more": (gone, NotAvailable, "HTTP Error 404: Not Found; do: fetch it elsewhere and put it at"),
    "cut off on the way": (cut, NotAvailable, r"it ended after 1000 of \d+ bytes; do: fetch it elsewhere"),
    "nobody answers": (
        offline,
        NotAvailable,
        "Connection refused; do: fetch it elsewhere and put it at .*/lenet5",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_whole_and_right_is_not_kept(case, server, published, tmp_path):
    spoil, kind, message = BAD[case]
    spoil(server, f"/{published[1]}")
    with pytest.raises(kind, match=message):
        load(tmp_path / "weights")
    assert not list((tmp_path / "weights").iterdir())
