"""Any language may join: the shop seen, called and extended by a program that has nothing of kaptar.

It wants a running shop whose payment-service has BANK_URL=http://flask-bank, and these in the environment:

    CONSUL, KAFKA      host:port
    AMQP               amqp://user:password@host:port/
    OTLP, JAEGER       http://host:port where Jaeger takes OTLP and answers queries
    OPERATOR_KEY       the API key of a machine that may do everything
    PROTO              the folder shop/proto

`go test -run TestJoined/python ./shop` starts all of that.
"""

import importlib
import json
import os
import secrets
import sys
import tempfile
import time
import unittest
import uuid

import consul
import grpc
import grpc_tools.protoc
import kafka
import pika
import requests
from prometheus_client.parser import text_string_to_metric_families

from bank import NAME, Bank

PATIENCE = 60  # seconds; what is waited for takes far less


def eventually(what: str, check):
    """Returns the first true result of check."""
    deadline = time.monotonic() + PATIENCE
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {PATIENCE} s, last result {result!r}")
        time.sleep(0.05)


def split(address: str) -> tuple[str, int]:
    host, port = address.rsplit(":", 1)
    return host, int(port)


class Shop:
    """The shop as Consul tells of it."""

    def __init__(self):
        self.consul = consul.Consul(*split(os.environ["CONSUL"]))
        self.tokens: dict[int, str] = {}

    def instance(self, service: str) -> dict:
        """The first healthy instance of a service."""
        return eventually(f"a healthy {service}", lambda: self.consul.health.service(service, passing=True)[1])[0]["Service"]

    def url(self, service: str, path: str) -> str:
        found = self.instance(service)
        return f"http://{found['Address']}:{found['Port']}{path}"

    def call(self, method: str, service: str, path: str, status: int, user: int | None = None, headers=None, **kwargs):
        """Calls as a user that sign_up has made, or else as the operator."""
        credential = {"Authorization": "Bearer " + self.tokens[user]} if user else {"X-Api-Key": os.environ["OPERATOR_KEY"]}
        answer = requests.request(method, self.url(service, path), timeout=10, headers={**credential, **(headers or {})}, **kwargs)
        assert answer.status_code == status, f"{method} {service}{path}: {answer.status_code} {answer.text}, expected {status}"
        return answer.json()

    def sign_up(self) -> int:
        name = "py-" + secrets.token_hex(6)
        body = {"username": name, "email": f"{name}@example.com", "password": "correct horse"}
        user = self.call("POST", "user-service", "/users", 201, json=body)["id"]
        self.tokens[user] = self.call("POST", "user-service", "/login", 200, json={"username": name, "password": body["password"]})["token"]
        return user

    def order(self, user: int, headers=None) -> dict:
        body = {"user_id": user, "items": [{"sku": "tea", "quantity": 2}]}
        return self.call("POST", "order-service", "/orders", 201, user, headers, json=body)


class Interop(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.shop = Shop()
        cls.bank = Bank(*split(os.environ["CONSUL"]), os.environ["OTLP"])
        cls.addClassCleanup(cls.bank.close)
        cls.shop.instance(NAME)
        cls.shop.call("PUT", "inventory-service", "/stock/tea", 200, json={"available": 100, "price_cents": 900})
        cls.user = cls.shop.sign_up()
        cls.trace = secrets.token_hex(16)
        cls.placed = cls.shop.order(cls.user, {"traceparent": f"00-{cls.trace}-{secrets.token_hex(8)}-01"})

    def test_consul_lists_the_shop(self):
        _, services = self.shop.consul.catalog.services()
        for service in ["gateway", "user-service", "order-service", "inventory-service", "payment-service", "notification-service", "analytics-service"]:
            self.assertIn(service, services)
        found = self.shop.instance("user-service")
        self.assertTrue(found["ID"].startswith("user-service-"), found)
        self.assertIn("v1", found["Tags"])
        self.assertGreater(found["Port"], 0)

    def test_requests_orders_and_flask_is_paid(self):
        def confirmed():
            mine = self.shop.call("GET", "order-service", f"/orders/{self.user}", 200, self.user)["orders"]
            return [o for o in mine if o["id"] == self.placed["id"] and o["status"] == "confirmed"]

        order = eventually("the order to be confirmed", confirmed)[0]
        self.assertEqual(order["total_cents"], 1800)
        charge = self.bank.charges[f"order-{order['id']}"]
        self.assertEqual((charge["order_id"], charge["amount_cents"]), (order["id"], 1800))
        self.shop.call("GET", "user-service", "/users/999999", 404)
        self.shop.call("GET", "user-service", "/users/999999", 403, self.user)

    def test_flask_continues_the_trace(self):
        eventually("the charge", lambda: self.trace in self.bank.traces)

        def services():
            answer = requests.get(f"{os.environ['JAEGER']}/api/traces/{self.trace}", timeout=10)
            if answer.status_code != 200:
                return None
            found = answer.json()["data"][0]
            names = {p["serviceName"] for p in found["processes"].values()}
            return {"order-service", "payment-service", NAME} <= names and found

        found = eventually("one trace of order-service, payment-service and Flask in Jaeger", services)
        by_id = {s["spanID"]: s for s in found["spans"]}
        name = lambda span: found["processes"][span["processID"]]["serviceName"]
        parents = {name(by_id[r["spanID"]]) for s in found["spans"] if name(s) == NAME for r in s["references"] if r["spanID"] in by_id}
        self.assertEqual(parents, {"payment-service"}, "whose span is the parent of Flask's")

    def test_kafka_reads_from_the_earliest(self):
        consumer = kafka.KafkaConsumer(
            "order.placed.v1",
            bootstrap_servers=os.environ["KAFKA"],
            group_id="python-" + secrets.token_hex(4),
            auto_offset_reset="earliest",
            consumer_timeout_ms=PATIENCE * 1000,
        )
        try:
            for record in consumer:
                data = json.loads(record.value)
                if data["order_id"] == self.placed["id"]:
                    break
            else:
                self.fail("the order that was placed before this consumer came is not there")
        finally:
            consumer.close()
        headers = {k: v.decode() for k, v in record.headers}
        self.assertEqual(headers["ce_specversion"], "1.0")
        self.assertEqual(headers["ce_type"], "order.placed.v1")
        self.assertEqual(headers["ce_source"], "order-service")
        self.assertEqual(record.key.decode(), str(self.placed["id"]))
        self.assertEqual(data["items"], [{"sku": "tea", "quantity": 2, "price_cents": 900}])
        self.assertIn(self.trace, headers["traceparent"])

    def test_kafka_event_of_python_is_handled_once(self):
        """A user.registered.v1 published here twice with one id gives the user one mail."""
        user = 10**9 + secrets.randbelow(10**9)
        producer = kafka.KafkaProducer(bootstrap_servers=os.environ["KAFKA"], acks="all")
        event = str(uuid.uuid4())
        headers = {"ce_specversion": "1.0", "ce_id": event, "ce_type": "user.registered.v1", "ce_source": "python", "content-type": "application/json"}
        for _ in range(2):
            producer.send(
                "user.registered.v1",
                key=str(user).encode(),
                value=json.dumps({"user_id": user, "username": "py", "email": "py@example.com"}).encode(),
                headers=[(k, v.encode()) for k, v in headers.items()],
            ).get(timeout=PATIENCE)
        producer.close()
        mails = lambda: self.shop.call("GET", "notification-service", f"/mails/{user}", 200)["mails"]
        eventually("the mail", mails)
        # What is published to the same partition now is handled after the second copy.
        marker = str(uuid.uuid4())
        producer = kafka.KafkaProducer(bootstrap_servers=os.environ["KAFKA"], acks="all")
        headers["ce_id"] = marker
        producer.send(
            "user.registered.v1",
            key=str(user).encode(),
            value=json.dumps({"user_id": user, "username": "py2", "email": "py@example.com"}).encode(),
            headers=[(k, v.encode()) for k, v in headers.items()],
        ).get(timeout=PATIENCE)
        producer.close()
        eventually("the second mail", lambda: len(mails()) >= 2)
        self.assertEqual(len(mails()), 2)

    def test_pika_publishes_to_and_consumes_from_the_work_queue(self):
        user = 10**9 + secrets.randbelow(10**9)
        connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP"]))
        self.addCleanup(connection.close)
        channel = connection.channel()
        channel.confirm_delivery()
        mine = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(mine, "email.send.v1")
        event = str(uuid.uuid4())
        channel.basic_publish(
            "email.send.v1",
            str(user),
            json.dumps({"user_id": user, "subject": "From Python", "body": "Hello"}).encode(),
            pika.BasicProperties(
                message_id=event,
                content_type="application/json",
                delivery_mode=pika.DeliveryMode.Persistent,
                headers={"cloudEvents_specversion": "1.0", "cloudEvents_id": event, "cloudEvents_type": "email.send.v1", "cloudEvents_source": "python"},
            ),
        )
        mails = lambda: self.shop.call("GET", "notification-service", f"/mails/{user}", 200)["mails"]
        self.assertEqual([m["subject"] for m in eventually("the mail from Python", mails)], ["From Python"])
        other = self.shop.sign_up()  # for which notification-service puts a mail into the queue
        for method, properties, body in channel.consume(mine, inactivity_timeout=PATIENCE):
            self.assertIsNotNone(method, "no mail of notification-service in the queue")
            channel.basic_ack(method.delivery_tag)
            if json.loads(body)["user_id"] == other:
                break
        self.assertEqual(properties.headers["cloudEvents_type"], "email.send.v1")
        self.assertEqual(properties.headers["cloudEvents_source"], "notification-service")
        self.assertEqual(properties.message_id, properties.headers["cloudEvents_id"])

    def test_grpc_gets_the_user(self):
        with tempfile.TemporaryDirectory() as out:
            proto = os.environ["PROTO"]
            status = grpc_tools.protoc.main(["protoc", f"-I{proto}", f"--python_out={out}", f"--grpc_python_out={out}", f"{proto}/user/v1/user.proto"])
            self.assertEqual(status, 0)
            sys.path.insert(0, out)
            self.addCleanup(sys.path.remove, out)
            messages, stubs = importlib.import_module("user.v1.user_pb2"), importlib.import_module("user.v1.user_pb2_grpc")
        address = self.shop.instance("user-service")["Meta"]["grpc"]
        with grpc.insecure_channel(address) as channel:
            users = stubs.UserServiceStub(channel)
            mine = [("authorization", "Bearer " + self.shop.tokens[self.user])]
            answer = users.GetUser(messages.GetUserRequest(id=self.user), timeout=10, metadata=mine)
            self.assertEqual(answer.user.id, self.user)
            for user, metadata, code in [
                (self.user, None, grpc.StatusCode.UNAUTHENTICATED),
                (999_999, mine, grpc.StatusCode.PERMISSION_DENIED),
                (999_999, [("x-api-key", os.environ["OPERATOR_KEY"])], grpc.StatusCode.NOT_FOUND),
            ]:
                with self.assertRaises(grpc.RpcError) as refused:
                    users.GetUser(messages.GetUserRequest(id=user), timeout=10, metadata=metadata)
                self.assertEqual(refused.exception.code(), code)

    def test_prometheus_text_parses(self):
        text = requests.get(self.shop.url("user-service", "/metrics"), timeout=10).text
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        counted = [s for s in samples if s.name == "http_requests_total" and s.labels["endpoint"] == "/users"]
        self.assertTrue(counted, "no http_requests_total for POST /users")
        self.assertEqual(counted[0].labels["service"], "user-service")
        self.assertTrue([s for s in samples if s.name == "http_request_duration_seconds_bucket"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
