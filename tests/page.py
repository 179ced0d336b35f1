# Drives the page in headless Chromium, as a reader would, and compares it with the native program:
#   python3 tests/page.py g2rl.html ./g2rl [BASE_STEPS RL_STEPS [DIRECTORY]]
# It presses Start and Stop, trains, changes a group, downloads; expects the weights of the terminal
# from both builds, no error on the console, and a main thread that always answers. With DIRECTORY
# it leaves screenshots there. Chromium is spoken to over a pipe, in the DevTools protocol: no
# package is needed.
import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

page, program = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
base_steps, rl_steps = (int(n) for n in sys.argv[3:5] or (20, 2))
pictures = sys.argv[5] if len(sys.argv) > 5 else None
scratch = tempfile.mkdtemp()
failures = []


def check(good, text):
    print("ok   " if good else "FAIL ", text, flush=True)
    if not good:
        failures.append(text)


class Browser:
    """One tab. send() waits for its answer; events that come meanwhile are looked at for errors."""

    def __init__(self):
        command_in, self.commands = os.pipe()
        self.answers, answer_out = os.pipe()
        # Chromium reads descriptor 3 and writes descriptor 4.
        shell = f'exec "$@" 3<&{command_in} 4>&{answer_out}'
        name = shutil.which("chromium") or shutil.which("chromium-browser") or "google-chrome"
        self.process = subprocess.Popen(
            ["sh", "-c", shell, "sh", name, "--headless=new", "--no-sandbox", "--disable-gpu",
             "--remote-debugging-pipe", f"--user-data-dir={scratch}/profile", "about:blank"],
            pass_fds=(command_in, answer_out), stderr=subprocess.DEVNULL)
        os.close(command_in)
        os.close(answer_out)
        self.number, self.unread, self.errors, self.session = 0, b"", [], None
        tabs = self.send("Target.getTargets")["targetInfos"]
        tab = next(t for t in tabs if t["type"] == "page")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(domain + ".enable")

    def receive(self):
        while b"\0" not in self.unread:
            part = os.read(self.answers, 1 << 20)
            if not part:
                sys.exit("Chromium ended")
            self.unread += part
        text, self.unread = self.unread.split(b"\0", 1)
        message = json.loads(text)
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"].get("exception", {}).get("description"))
        if method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(str(params["args"]))
        return message

    def send(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']}")
                return answer["result"]

    def js(self, code):
        answer = self.send("Runtime.evaluate", expression=code, awaitPromise=True,
                           returnByValue=True)
        if "exceptionDetails" in answer:
            sys.exit(f"{code}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, code, seconds):
        end = time.monotonic() + seconds
        while not self.js(code):
            if time.monotonic() > end:
                sys.exit(f"after {seconds} s not yet: {code}; {self.js('document.body.innerText')}")
            time.sleep(0.2)

    def memory(self):
        """MiB resident of this browser's processes that run pages."""
        total = 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                command = open(f"/proc/{pid}/cmdline").read()
                if "--type=renderer" in command and scratch in command:
                    pages = int(open(f"/proc/{pid}/statm").read().split()[1])
                    total += pages * os.sysconf("SC_PAGESIZE")
            except OSError:
                pass
        return total >> 20

    def picture(self, name, width, dark):
        self.send("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=900,
                  deviceScaleFactor=1, mobile=width < 600)
        time.sleep(0.3)
        wide = self.js("document.documentElement.scrollWidth")
        check(wide <= width, f"{name}: {wide} pixels wide; expected at most {width}")
        if pictures:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            shot = self.send("Page.captureScreenshot", captureBeyondViewport=True,
                             clip={"x": 0, "y": 0, "width": width, "height": size["height"],
                                   "scale": 1})
            with open(f"{pictures}/{name}.png", "wb") as f:
                f.write(base64.b64decode(shot["data"]))

    def key(self, name, code, text=""):
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=name, code=name,
                      windowsVirtualKeyCode=code, text=text if kind == "keyDown" else "")

    def goto(self):
        self.send("Page.navigate", url="file://" + page)
        self.wait("document.readyState === 'complete' && !get('start').disabled", 60)

    def set(self, **fields):
        for name, value in fields.items():
            self.js(f"get('{name}'.replace('_', '-')).value = {value}")

    def train(self, seconds):
        """Presses Start by keyboard; returns the most memory, in MiB, and the time, in seconds."""
        self.js("get('start').focus()")
        self.key(" ", 32, " ")
        began, most = time.monotonic(), 0
        while not self.js("get('stop').disabled"):
            most = max(most, self.memory())
            time.sleep(0.5)
            if time.monotonic() - began > seconds:
                sys.exit(f"after {seconds} s: {self.js('get(`status`).textContent')}")
        took = time.monotonic() - began
        said = self.js("get('status').textContent")
        check(said.startswith("Done"), f"status: {said} ({took:.0f} s)")
        return most, took


def native(*words):
    """The program's stdout, in the scratch directory."""
    return subprocess.run([program, *words], cwd=scratch, check=True, capture_output=True,
                          text=True).stdout


def compare(browser, name):
    """The commands that the page shows, in the terminal: the same hashes."""
    for command in browser.js("get('commands').textContent").splitlines():
        native(*command.split()[1:], "--force")
    for run in ("base", "grpo", "g2rl"):
        last = open(f"{scratch}/runs/{run}/metrics.jsonl").read().splitlines()[-1]
        there, here = json.loads(last)["weights_hash"], browser.js(f"get('hash-{run}').textContent")
        check(there == here, f"{name}, {run}: weights_hash {here}, the terminal's is {there}")


def numbers(browser):
    """The advantages of the page's table."""
    cells = browser.js("[...document.querySelectorAll('#tries td:last-child')]"
                       ".map(cell => cell.textContent)")
    return [round(float(cell.replace("\u2212", "-")), 2) for cell in cells]


def test_group(browser):
    browser.wait("get('sentences').children.length === GROUP && !explaining", 20)
    ledger = browser.js("groups[chosen].tries.map(one => one.advantage)")
    check(numbers(browser) == [round(x, 2) for x in ledger], "the group's A are the ledger's")
    before = numbers(browser)
    browser.js("get('reward-0').click()")
    browser.set(**{"lambda": 1.5})
    browser.js("get('lambda').oninput()")
    browser.wait("!explaining", 20)
    with open(scratch + "/group.jsonl", "w") as f:
        f.write(browser.js("new TextDecoder().decode(fileBytes('group.jsonl'))"))
    given = json.loads(native("explain", "--model", "runs/base", "--data", "group.jsonl",
                              "--lambda", "1.5", "--json"))
    check(numbers(browser) == [round(x, 2) for x in given["A"]] != before,
          "a changed reward and lambda: A as `explain` has it")
    browser.js("get('all-right').click()")
    browser.wait("!explaining && get('whole').textContent.includes('All rewards are equal')", 20)
    browser.js("get('dead-groups').value = 'zero'; get('dead-groups').oninput()")
    browser.wait("!explaining && get('whole').textContent.includes('teaches nothing')", 20)
    check(set(numbers(browser)) == {0.0}, "a dead group teaches nothing with --dead-groups zero")
    browser.js("get('dead-groups').value = 'full'; get('reset').click()")
    browser.js("get('lambda').value = 0.5; get('lambda').oninput()")
    browser.wait("!explaining && !again", 20)
    check(numbers(browser) == before, "as it was: the same A again")
    browser.js("""showGroup({prompt: '3:', tries: [{response: '<img src=x id=evil>', reward: 1,
        reason: '<img src=x id=evil>'}]}, {A: [1], nu: [1], rtilde: [1], S: [[1]]},
        'a\\n\\nb\\n\\nc\\n\\n0: <img src=x id=evil>')""")
    check(browser.js("!get('evil') && get('tries').textContent.includes('<img')"),
          "text of a model stays text")
    browser.js("explain()")
    browser.wait("!explaining", 20)


def test_download(browser):
    packed = browser.js("""new Promise(done => { const reader = new FileReader()
        reader.onload = () => done(reader.result.split(',')[1])
        reader.readAsDataURL(archive()) })""")
    files = tarfile.open(fileobj=io.BytesIO(base64.b64decode(packed)))
    path = f"runs/g2rl/checkpoint-{rl_steps}/model.safetensors"
    same = files.extractfile(path).read() == open(f"{scratch}/{path}", "rb").read()
    check(same, f"{path} in the download is the terminal's, byte for byte")
    report = files.extractfile("runs/report.html").read()
    check(b"</html>" in report, f"runs/report.html, {len(report)} bytes")


def main(browser):
    browser.goto()
    paint = browser.js("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    check(paint < 2000, f"first screen after {paint:.0f} ms; {browser.js('engine.name')}")
    browser.key("Tab", 9)
    check(browser.js("document.activeElement.id") == "start", "Tab goes to Start")
    if pictures:
        browser.picture("first-1280", 1280, False)

    browser.set(base_steps=5000, rl_steps=rl_steps)
    browser.js("get('start').click()")
    browser.wait("(rows['runs/base/metrics.jsonl'] || []).length > 2", 60)
    browser.js("get('stop').click()")
    done = browser.js("rows['runs/base/metrics.jsonl'].length")
    time.sleep(2)
    check(browser.js("rows['runs/base/metrics.jsonl'].length") == done and
          browser.js("running.size === 0 && get('status').textContent.startsWith('Stopped')"),
          f"Stop stops, at step {done}")

    browser.set(base_steps=base_steps, rl_steps=rl_steps)
    browser.js("""window.gap = 0; let last = performance.now(); setInterval(() => {
        const now = performance.now(); gap = Math.max(gap, now - last); last = now }, 10)""")
    most, took = browser.train(1200)
    gap = browser.js("gap")  # a tenth of a second, but where other work has the cores
    check(gap < 5000, f"the main thread always answers: within {gap:.0f} ms")
    check(most < 1024, f"at most {most} MiB of memory")
    if base_steps >= 400 and rl_steps >= 15:
        check(took < 360, f"the quick base and {rl_steps} steps of two methods: {took:.0f} s")
    compare(browser, "relaxed" if browser.js("!engine.exact") else "exact")
    test_group(browser)
    test_download(browser)
    for width in (1280, 390):
        for dark in (False, True):
            browser.picture(f"{width}-{'dark' if dark else 'light'}", width, dark)
    check(not browser.errors, f"no error on the console {browser.errors}")

    # A browser without relaxed SIMD takes the other module.
    browser.send("Page.addScriptToEvaluateOnNewDocument", source="""{
        const validate = WebAssembly.validate; let n = 0
        WebAssembly.validate = bytes => n++ > 0 && validate(bytes) }""")
    browser.goto()
    check(browser.js("engine.exact"), f"without relaxed SIMD: {browser.js('engine.name')}")
    browser.set(base_steps=2, rl_steps=1)
    browser.train(600)
    compare(browser, "exact")
    check(not browser.errors, f"no error on the console {browser.errors}")


signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
tab = Browser()
try:
    main(tab)
finally:
    tab.process.terminate()
    tab.process.wait()
    shutil.rmtree(scratch, ignore_errors=True)
print(f"page: {len(failures)} failed")
sys.exit(bool(failures))
