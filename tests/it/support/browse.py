# Opens a page in headless Chromium in light, dark and narrow, and prints as JSON what is wrong with it: messages on
# the console, overflow, text with too little contrast. Writes a picture of each next to the page.
# Speaks the DevTools protocol over a pipe, so it needs no packages.
import base64
import json
import os
import subprocess
import sys
import tempfile

chromium, page = sys.argv[1:3]

LOOK = """
(() => {
  const channel = v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const parse = text => (text.match(/[0-9.]+/g) || []).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  document.querySelectorAll('details').forEach(d => { d.open = true; });
  const weak = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  for (let node; (node = texts.nextNode());) {
    const e = node.parentElement;
    if (!node.data.trim() || e.closest('title')) continue;
    seen += 1;
    const style = getComputedStyle(e);
    const front = parse(e.ownerSVGElement ? style.fill : style.color);
    const [a, b] = [light(front), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) weak.push(`${ratio.toFixed(2)} ${e.tagName}.${e.className} ${node.data.trim().slice(0, 40)}`);
  }
  const width = document.documentElement.clientWidth;
  const wide = [...document.querySelectorAll('body *')]
    .filter(e => e.getBoundingClientRect().right > width + 1 && !e.closest('.scroll'))
    .map(e => `${e.tagName}.${e.className.baseVal ?? e.className}`);
  return { texts: seen, weak, wide, width, scrolls: document.documentElement.scrollWidth > width };
})()
"""

to_browser, our_end = os.pipe()
from_browser_read, from_browser_write = os.pipe()
profile = tempfile.TemporaryDirectory()


def give_pipes():
    os.dup2(to_browser, 3)
    os.dup2(from_browser_write, 4)


os.set_inheritable(to_browser, True)
os.set_inheritable(from_browser_write, True)
browser = subprocess.Popen(
    [
        chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={profile.name}",
    ],
    preexec_fn=give_pipes, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
)
os.close(to_browser)
os.close(from_browser_write)
answers = os.fdopen(from_browser_read, "rb")
buffered, number, events = b"", 0, []


def receive():
    global buffered
    while b"\0" not in buffered:
        part = answers.read1(1 << 20)
        if not part:
            raise SystemExit("the browser ended")
        buffered += part
    message, buffered = buffered.split(b"\0", 1)
    return json.loads(message)


def call(method, session=None, **params):
    global number
    number += 1
    message = {"id": number, "method": method, "params": params}
    if session:
        message["sessionId"] = session
    os.write(our_end, json.dumps(message).encode() + b"\0")
    while True:
        answer = receive()
        if answer.get("id") == number:
            if "error" in answer:
                raise SystemExit(f"{method}: {answer['error']}")
            return answer["result"]
        events.append(answer)


def wait_for(method):
    while not any(event.get("method") == method for event in events):
        events.append(receive())


found = {}
target = call("Target.createTarget", url="about:blank")["targetId"]
session = call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
for domain in ("Page", "Runtime", "Log"):
    call(f"{domain}.enable", session)
for look, width, height, scheme in (
    ("light", 1200, 1600, "light"),
    ("dark", 1200, 1600, "dark"),
    ("narrow", 360, 1600, "light"),
):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    call("Emulation.setDeviceMetricsOverride", session, width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
    call("Emulation.setEmulatedMedia", session, features=features)
    events.clear()
    call("Page.navigate", session, url=f"file://{page}")
    wait_for("Page.loadEventFired")
    picture = call("Page.captureScreenshot", session, format="png")["data"]
    with open(f"{page}.{look}.png", "wb") as file:
        file.write(base64.b64decode(picture))
    result = call("Runtime.evaluate", session, expression=LOOK, returnByValue=True)
    found[look] = result["result"]["value"]
    said = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    found[look]["console"] = [event["params"] for event in events if event.get("method") in said]

call("Browser.close")
browser.wait()
json.dump(found, sys.stdout)
