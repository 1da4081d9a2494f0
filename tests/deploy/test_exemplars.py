"""From a dashboard to a trace: a real Prometheus keeps the ids that a service with traces exposes."""

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from portrait.client import Client
from tests.boxes import ended, serving, wait_for
from tests.calls import jpeg
from tests.collector import collecting
from tests.deploy import DEPLOY
from tests.deploy.dashboards import BOARDS, plain
from tests.deploy.live.scraping import scraping
from tests.people import clip


def exemplar_expressions() -> list[str]:
    """The expressions whose panels ask for exemplars."""
    boards = [json.loads(path.read_text()) for path in BOARDS]
    targets = [target for board in boards for panel in board["panels"] for target in panel["targets"]]
    return [plain(target["expr"]) for target in targets if target.get("exemplar")]


def stored_exemplars(port: int, folder: Path) -> list[dict[str, Any]]:
    """What Grafana gets from a Prometheus that scrapes a service at `port`: the panel's exemplars."""
    (expression,) = exemplar_expressions()
    with scraping(port, folder, "1s") as prometheus:
        span = {"start": str(time.time() - 60), "end": str(time.time() + 60)}
        found = wait_for(lambda: prometheus.read("query_exemplars", query=expression, **span))
    return [exemplar for series in found for exemplar in series["exemplars"]]


async def test_the_latency_panel_leads_to_the_traces_that_were_sent(tmp_path: Path) -> None:
    async with collecting() as collector:
        with serving("--tracing", OTEL_EXPORTER_OTLP_ENDPOINT=collector.address) as (process, announced):
            async with Client(announced["grpc"]) as client:
                await client.segment(jpeg(clip(64, 48, 1).frames[0]))
            exemplars = await asyncio.to_thread(stored_exemplars, urlsplit(announced["page"]).port or 0, tmp_path)
            process.send_signal(signal.SIGTERM)
            status, log = await asyncio.to_thread(ended, process)
    assert status == 0, log
    resources = [resource for request in collector.traces for resource in request.resource_spans]
    (span,) = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    (link,) = source["jsonData"]["exemplarTraceIdDestinations"]
    assert [exemplar["labels"][link["name"]] for exemplar in exemplars] == [span.trace_id.hex()]
