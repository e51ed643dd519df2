"""What a page holds and asks for: by a parser, and in headless Chromium where there is one."""

import os
import re
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser
from urllib.parse import urlparse

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Outline(HTMLParser):
    """Texts of a page, what it would request, and its script elements."""

    def __init__(self, html):
        super().__init__()
        self.texts, self.requests, self.scripts, self.inside = [], [], 0, []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag in ("script", "style"):
            self.inside.append(tag)
        self.scripts += tag == "script"
        for name, value in attributes:
            if name in ("src", "href", "srcset", "data", "poster", "action") and not value.startswith(("data:", "#")):
                self.requests.append((tag, value[:80]))

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.inside.pop()

    def handle_data(self, data):
        if not self.inside:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def chromium(path, profile, *options):
    """Open a file in headless Chromium: (DOM after scripts, console lines, addresses requested over a network)."""
    log = profile.with_suffix(".json")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}",
             "--enable-logging=stderr", "--virtual-time-budget=8000", f"--log-net-log={log}"]  # fmt: skip
    done = subprocess.run([CHROMIUM, *flags, *options, "--dump-dom", path.as_uri()], capture_output=True, text=True,
                          timeout=120, env={**os.environ, "LANG": "C"})  # fmt: skip
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line and "setting log level" not in line]
    hosts = {urlparse(url).netloc for url in re.findall(r'"url":"(https?:[^"]+)"', log.read_text(errors="replace"))}
    own = [host for host in hosts if host.endswith("google.com") or host == "update.googleapis.com"]  # Chromium's
    return done.stdout, console, hosts - set(own)


def framed(html, width):
    """The page in a frame of `width` pixels, whose dataset the page around it takes: a window is never below 500."""
    return f"""<body><iframe style="width:{width}px;height:1200px;border:0" srcdoc="{escape(html)}"></iframe><script>
      addEventListener("load", () => setTimeout(() => Object.assign(document.body.dataset,
        document.querySelector("iframe").contentDocument.body.dataset), 3000));</script></body>"""
