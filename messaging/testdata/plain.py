"""Plain programs as people write them: what they send to a topic, and what they read there.

    plain.py send|read kafka://host:port|amqp://… NAME COUNT

send sends COUNT messages; read reads COUNT and prints for each a line of JSON with body (hexadecimal), headers and key.
"""

import json
import sys

import kafka
import kafka.admin
import pika

WAIT = 60  # seconds
what, url, name, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])


def body(n):
    return bytes([n]) + bytes(range(256))


def show(value, headers, key=None):
    print(json.dumps({"body": value.hex(), "headers": headers, "key": key}), flush=True)


def send_kafka(servers):
    admin = kafka.admin.KafkaAdminClient(bootstrap_servers=servers)
    admin.create_topics([kafka.admin.NewTopic(name, 2, 1)])
    admin.close()
    producer = kafka.KafkaProducer(bootstrap_servers=servers, acks="all")
    for n in range(count):
        producer.send(name, body(n), headers=[("X-Mark", b"py")]).get(timeout=WAIT)
    producer.close()


def read_kafka(servers):
    consumer = kafka.KafkaConsumer(
        name, bootstrap_servers=servers, auto_offset_reset="earliest", enable_auto_commit=False, consumer_timeout_ms=WAIT * 1000
    )
    for n, record in enumerate(consumer, 1):
        show(record.value, {k: v.decode() for k, v in record.headers}, record.key and record.key.decode())
        if n == count:
            break
    consumer.close()


def send_rabbitmq():
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.queue_declare(queue=name)
    for n in range(count):
        properties = pika.BasicProperties(message_id=f"py-{n}", headers={"X-Mark": "py"}, reply_to="answers", correlation_id=str(n))
        channel.basic_publish(exchange="", routing_key=name, body=body(n), properties=properties)
    connection.close()


def read_rabbitmq():
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.queue_declare(queue=name)
    left = count

    def on_message(ch, method, properties, value):
        nonlocal left
        show(value, properties.headers, properties.correlation_id)
        ch.basic_ack(method.delivery_tag)
        left -= 1
        if left == 0:
            ch.stop_consuming()

    connection.call_later(WAIT, channel.stop_consuming)
    channel.basic_consume(queue=name, on_message_callback=on_message)
    channel.start_consuming()
    connection.close()


if url.startswith("kafka://"):
    {"send": send_kafka, "read": read_kafka}[what](url.removeprefix("kafka://"))
else:
    {"send": send_rabbitmq, "read": read_rabbitmq}[what]()
