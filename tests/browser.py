"""Chromium, driven over its debugging pipe: no driver and no library between it and a test."""

import base64
import contextlib
import json
import os
import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
FLAGS += ["--disable-dev-shm-usage", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--remote-debugging-pipe"]

KEYS = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39}
KEYS |= {"ArrowDown": 40, "Tab": 9, "End": 35, "Home": 36}


class Browser:
    """One page. Messages are JSON with a zero byte after each, on two pipes."""

    def __init__(self, to, out):
        self._to, self._out = to, out
        self._number = 0
        self.complaints = []
        """What the page's console and its policy said."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.addresses = []
        """What the page asked for."""

    _session = None

    def _call(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while (answer := self._read()).get("id") != self._number:
            self._notice(answer)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def send(self, method, **params):
        return self._call(method, **params)

    def _read(self):
        message = b""
        while not message.endswith(b"\0"):
            part = self._out.read1(1 << 20) if not self._rest else b""
            message, self._rest = self._rest + message + part, b""
            assert message, "the browser is gone"
            if b"\0" in message:
                head, _, self._rest = message.partition(b"\0")
                return json.loads(head)
        raise AssertionError

    _rest = b""

    def _notice(self, event):
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.addresses.append(params["request"]["url"])
        elif method in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(params)

    def open(self, url, width=1280, height=900, dark=False, touch=False):
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def do(self, script):
        """The value of a JavaScript expression; promises are waited for."""
        how = {"expression": script, "awaitPromise": True, "returnByValue": True}
        said = self.send("Runtime.evaluate", **how)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def until(self, condition, seconds=30):
        """Waits until an expression is true."""
        promise = f"""new Promise((done, failed) => {{
            const end = Date.now() + {seconds * 1000};
            const look = () => {{
                if ({condition}) done(true);
                else if (Date.now() > end) failed(new Error('it did not happen'));
                else setTimeout(look, 20);
            }};
            look();
        }})"""
        assert self.do(promise)

    def press(self, key, ctrl=False):
        """A key, as from a keyboard."""
        event = {"key": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": 2 if ctrl else 0}
        if key == "Enter" and not ctrl:
            event["text"] = "\r"
        self.send("Input.dispatchKeyEvent", type="keyDown", **event)
        self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    def write(self, text):
        """Text into what has the focus."""
        self.send("Input.insertText", text=text)

    def picture(self, path, whole=True):
        data = self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def browser(profile):
    """A headless browser that ends with the ``with``."""
    to_read, to_write = os.pipe()
    out_read, out_write = os.pipe()

    def pipes():  # Chromium reads descriptor 3 and writes 4
        first, second = os.dup(to_read), os.dup(out_write)
        os.dup2(first, 3)
        os.dup2(second, 4)

    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        preexec_fn=pipes,
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(out_write)
    with open(to_write, "wb") as to, open(out_read, "rb") as out:
        try:
            yield Browser(to, out)
        finally:
            process.kill()
            process.wait()
