"""A bank in Flask that joins the shop: payment-service calls it by its name, http://flask-bank, as it would a service in Go."""

import threading

import consul
import flask
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from werkzeug.serving import make_server

NAME = "flask-bank"


class Bank:
    """Serves until close. charges are the bodies of POST /charges by their Idempotency-Key, traces the trace ids that came with them."""

    def __init__(self, consul_host: str, consul_port: int, otlp: str):
        self.charges: dict[str, dict] = {}
        self.traces: list[str] = []
        app = flask.Flask(NAME)
        app.add_url_rule("/charges", view_func=self._charge, methods=["POST"])
        app.add_url_rule("/health", view_func=lambda: "ok")
        self._provider = TracerProvider(resource=Resource.create({"service.name": NAME}))
        self._provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=otlp + "/v1/traces")))
        FlaskInstrumentor().instrument_app(app, tracer_provider=self._provider)
        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self._consul = consul.Consul(host=consul_host, port=consul_port)
        self._id = f"{NAME}-{self._server.port}"
        self._consul.agent.service.register(
            NAME,
            service_id=self._id,
            address="127.0.0.1",
            port=self._server.port,
            tags=["python"],
            check=consul.Check.http(f"http://127.0.0.1:{self._server.port}/health", interval="1s", timeout="1s"),
        )

    def _charge(self):
        body = flask.request.get_json()
        self.charges[flask.request.headers["Idempotency-Key"]] = body
        self.traces.append(trace.format_trace_id(trace.get_current_span().get_span_context().trace_id))
        return {"id": f"py-{body['order_id']}", "status": "approved"}

    def close(self):
        self._consul.agent.service.deregister(self._id)
        self._server.shutdown()
        self._thread.join()
        self._provider.shutdown()
