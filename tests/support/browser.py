"""A headless Chromium, driven over its debugging pipe (Chrome DevTools Protocol); only the browser is installed."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
from pathlib import Path

from support.patience import PATIENCE_S, until

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find():
    """Return the path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab. `errors` collects what the console complained about and every exception."""

    def __init__(self, ask, session):
        self._ask, self._session, self.errors = ask, session, []

    def ask(self, method, **parameters):
        return self._ask(method, parameters, self._session, self)

    def heard(self, event):
        kind, what = event.get("method"), event.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.errors.append(what["exceptionDetails"].get("exception", {}).get("description", "exception"))
        if kind == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning"):
            self.errors.append(" ".join(str(item.get("value")) for item in what["args"]))
        if kind == "Log.entryAdded" and what["entry"]["level"] == "error":
            self.errors.append(what["entry"]["text"])

    def js(self, expression):
        """Evaluate an expression and return its value."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"]["exception"].get("description"))
        return found["result"].get("value")

    def goto(self, url, ready="document.documentElement?.dataset.ready === '1'"):
        self.ask("Page.navigate", url=url)
        there = "location.href" if url == "about:blank" else "!['', 'about:blank'].includes(location.href)"
        assert until(lambda: self.js(there) and self.js(ready)), f"{url} is not ready; {self.errors}"

    def size(self, width, height, mobile=False):
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def scheme(self, name):
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def mouse(self, kind, x, y, **more):
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def press(self, key):
        codes = {"Enter": (13, "\r"), "Tab": (9, "")}
        code, text = codes[key]
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, text=text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, path):
        height = self.js("document.documentElement.scrollHeight")
        width = self.js("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def open_page(width=1280, height=900):
    """Yield a Page of a fresh browser without network."""
    to_child, from_child = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # High first, so that neither 3 nor 4 is still in use when it is needed.
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (to_child[0], from_child[1])]

        def wire():
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        command = [find(), "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
                   "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
                   "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
        child = subprocess.Popen(command, preexec_fn=wire, close_fds=False,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        for end in (to_child[0], from_child[1], *high):
            os.close(end)
        pipe = _Pipe(to_child[1], from_child[0])
        try:
            target = pipe.ask("Target.createTarget", {"url": "about:blank"})["targetId"]
            session = pipe.ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
            page = Page(pipe.ask, session)
            for domain in ("Page", "Runtime", "Log"):
                page.ask(f"{domain}.enable")
            page.size(width, height)
            yield page
        finally:
            child.terminate()
            child.wait(timeout=PATIENCE_S)
            os.close(to_child[1])
            os.close(from_child[0])


class _Pipe:
    def __init__(self, write, read):
        self._write, self._read, self._rest, self._last = write, read, b"", 0

    def ask(self, method, parameters, session=None, page=None):
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            if page is not None:
                page.heard(answer)

    def _next(self):
        while b"\0" not in self._rest:
            assert select.select([self._read], [], [], 60)[0], "the browser does not answer"
            block = os.read(self._read, 1 << 20)
            assert block, "the browser is gone"
            self._rest += block
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)
