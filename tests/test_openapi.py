"""/openapi.json: it describes every route, the service does what it says, and its snippets run."""

import os
import re
import shutil
import sys
from pathlib import Path

import aiohttp
import pytest

from portrait import __version__
from portrait.client import Client
from portrait.server.app import RunningService, run_service
from portrait.settings import Settings
from portrait.transports.http.changes import NAMES
from portrait.transports.http.stills import FIELDS
from tests.posts import http
from tests.snippets import GO, ROOT, blocks, ending, folder, go_environ, placed, run, run_shell

__all__ = ["folder", "http"]  # fixtures

HTTP_PAGE = ROOT / "docs" / "reference" / "http.md"
TRANSPORTS = ROOT / "service" / "portrait" / "transports"
SCHEMATHESIS = ROOT / ".venv-schemathesis" / "bin" / "schemathesis"
NODE = shutil.which("node", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")

PARTS_OF_THE_PAGE = {"/litert/{file}", "/web/{file}"}


async def test_it_describes_every_route(http: aiohttp.ClientSession) -> None:
    async with http.get("/openapi.json") as response:
        description = await response.json()
    assert (description["openapi"], description["info"]["version"]) == ("3.1.0", __version__)
    described = {
        (method, path) for path, item in description["paths"].items() for method in item if method != "parameters"
    }
    source = "\n".join(file.read_text() for file in TRANSPORTS.rglob("*.py"))
    posts = re.findall(r'"(/[^"]+)"', re.findall(r"^POSTS = (.+)$", source, re.MULTILINE)[0])
    routes = {(method, path) for method, path in re.findall(r'web\.(get|post|patch|delete|put)\(r?"(/[^"]*)"', source)}
    routes |= {(method, path) for path in posts for method in ("get", "options")}
    routes = {(method, re.sub(r"{(\w+):[^}]+}", r"{\1}", path)) for method, path in routes}
    assert len(routes) > 30
    assert described == {each for each in routes if each[1] not in PARTS_OF_THE_PAGE}


async def test_it_describes_every_option(http: aiohttp.ClientSession) -> None:
    async with http.get("/openapi.json") as response:
        description = await response.json()
    schemas, parameters = description["components"]["schemas"], description["components"]["parameters"]
    assert {*schemas["StillForm"]["properties"]} == {*FIELDS}
    assert {*schemas["Change"]["properties"]} == {*NAMES}
    asked = description["paths"]["/v1/segment"]["post"]["parameters"]
    assert {parameters[each["$ref"].rpartition("/")[2]]["name"] for each in asked} == {*FIELDS} - {"image"}


@pytest.mark.skipif(
    not SCHEMATHESIS.exists(), reason="schemathesis is not installed: run make .venv-schemathesis/ready"
)
async def test_the_service_does_what_it_says(service: RunningService, tmp_path: Path) -> None:
    """What schemathesis makes up, good and bad, gets an answer of a described status, type and form."""
    url = f"http://127.0.0.1:{service.http_port}/openapi.json"
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    bounds = ["--max-examples", "2", "--seed", "1", "--phases", "examples,coverage,fuzzing", "--no-shrink"]
    bounds += ["--exclude-path", "/v1/events"]  # never ends
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    status, said = await ending(
        {**environ, "SCHEMATHESIS_HOOKS": "tests.openapi_hooks"}, SCHEMATHESIS, "run", url, "--checks", checks, *bounds,
        folder=tmp_path,
    )  # fmt: skip
    assert status == 0, said


async def test_its_snippets_run(settings: Settings, folder: Path) -> None:
    """In the order of the page, beside an open session that no slow machine lets go idle."""
    patient = settings.model_copy(update={"idle_seconds": 600.0})
    async with (
        run_service(patient) as service,
        Client(f"127.0.0.1:{service.grpc_port}") as client,
        client.open_stream() as stream,
    ):
        session = stream.info.session_id

        def snippets(language: str) -> list[str]:
            return [placed(text, service.http_port, service.grpc_port) for text in blocks(HTTP_PAGE, language)]

        for text in snippets("sh"):
            await run_shell(folder, text, SESSION=session)
        said = list[str]()
        for text in snippets("python"):
            (folder / "snippet.py").write_text(text)
            said.append(await run(folder, sys.executable, "snippet.py", SESSION=session))
        assert said == ["", "portrait\n", "color\n"]
        if GO is not None:
            said = []
            for text in snippets("go"):
                (folder / "snippet.go").write_text(text)
                said.append(await run(folder, GO, "run", "snippet.go", SESSION=session, **go_environ(folder)))
            assert said == ["", "portrait\n", "200 OK\n"]
        if NODE is None:
            pytest.skip("Node.js is not installed")
        said = []
        for text in snippets("js"):
            (folder / "snippet.mjs").write_text(text)
            said.append(await run(folder, NODE, "snippet.mjs", SESSION=session))
        assert said == ["", "portrait\n", "grpc color\n"]
