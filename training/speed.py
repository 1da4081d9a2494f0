"""Frames per second of TFLite files on one thread: in the interpreter, and in a browser.

    python -m training.speed paper.tflite portrait.tflite --json speed.json [--web]

In the interpreter the CPU time of a call counts, which a busy neighbour hardly changes; the files take turns all the
same. The median of each one's times counts, and the ratio to the first file. `--web` runs the same files in headless
Chromium, WebAssembly with SIMD, one thread: through LiteRT.js and through the TensorFlow.js TFLite API the paper used.
It needs npm for the two, playwright for the browser.
"""

import argparse
import contextlib
import functools
import http.server
import json
import os
import platform
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from training import evaluate

WEB = Path(__file__).parent / "web"


def measure(files, rounds=300):
    """{name: [milliseconds of CPU]} of `rounds` invocations of each file on this thread alone, taking turns."""
    loaded = {name: evaluate.File(path) for name, path in files.items()}
    noise = np.random.default_rng(1)
    for file in loaded.values():
        file(noise.integers(0, 256, (file.height, file.width, 3), np.uint8))
    times = {name: [] for name in loaded}
    for _ in range(rounds):
        for name, file in loaded.items():
            started = time.thread_time()
            file.invoke()
            times[name].append(1e3 * (time.thread_time() - started))
    return times


def measure_web(files, rounds=100):
    """{runtime: {name: [milliseconds] or why it does not run}} in headless Chromium."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(WEB, folder, dirs_exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True)
        listed = []
        for name, path in files.items():
            shutil.copy(path, f"{folder}/{name}.tflite")
            listed.append({"name": name, "url": f"/{name}.tflite", "inputs": evaluate.File(path).shapes})
        with serve(folder) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(f"{address}/speed.html")
            page.wait_for_function("window.ready")
            page.set_default_timeout(0)
            return page.evaluate("([files, rounds]) => measureAll(files, rounds)", [listed, rounds])


class _Isolated(http.server.SimpleHTTPRequestHandler):
    # Without these a page's clock ticks in steps of 0.1 ms.
    def end_headers(self):
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve(folder):
    """The address of a server of `folder`."""
    handler = functools.partial(_Isolated, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def summary(times):
    """{name: {ms, fps, ratio}}: the median time, what it makes in frames per second, times the first file's rate."""
    rows, first = {}, None
    for name, values in times.items():
        if isinstance(values, str):
            rows[name] = {"refused": values}
            continue
        median = float(np.median(values))
        first = first or median
        rows[name] = {"ms": round(median, 3), "fps": round(1e3 / median, 1), "ratio": round(first / median, 3)}
    return rows


def machine():
    """What the figures were taken on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cpu = names[0] if names else platform.processor()
    return {"cpu": cpu, "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d")}


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--web", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    files = {path.stem: path for path in arguments.files}
    if len(files) < len(arguments.files):
        parser.error("two files of one name came; they are told apart by it")
    found = {"native": summary(measure(files))}
    if arguments.web:
        found |= {runtime: summary(times) for runtime, times in measure_web(files).items()}
    for runtime, rows in found.items():
        print(runtime)
        for name, row in rows.items():
            figures = row.get("refused") or f"{row['ms']:>8.3f} ms {row['fps']:>8.1f} fps {row['ratio']:>7.3f} x"
            print(f"  {name:<28}{figures}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
