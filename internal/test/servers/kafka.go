package servers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func kafka() description {
	return description{
		example: "kafka://127.0.0.1:9092",
		ports:   []port{{usual: 9092}, {name: "controller", inner: true}, {name: "sasl", usual: 9094, logins: true}},
		recipe: recipe{
			product: product{name: "kafka", from: "jars by Maven, " + kafkaPOM, sources: []string{kafkaPOM}, make: fetchKafka},
			minutes: 1, gigabytes: 0.5,
			needs: []string{"java"}, debian: []debianPackage{{"default-jre-headless", onPath("java")}, {"maven", onPath("mvn")}},
		},
		prepare: prepareKafka,
		command: func(s *Server) command {
			return command{args: s.jvm("384m", "kafka.Kafka", s.path("server.properties"))}
		},
		url:   func(s *Server) string { return "kafka://" + s.Addr("") },
		ready: kafkaReady,
	}
}

// kafkaPOM lists the server's files.
const kafkaPOM = "tools/kafka/pom.xml"

func fetchKafka(ctx context.Context, part string, progress func(line string)) error {
	pom, err := Repository(kafkaPOM)
	if err != nil {
		return err
	}
	if err := follow(exec.CommandContext(ctx, "mvn", "-B", "-f", pom,
		"dependency:copy-dependencies", "-DoutputDirectory="+part, "-DincludeScope=runtime"), progress); err != nil {
		return err
	}
	if found, _ := filepath.Glob(filepath.Join(part, "kafka_*.jar")); len(found) == 0 {
		return errors.New("mvn copied no kafka_*.jar")
	}
	return nil
}

const log4j = `log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d %p %c: %m%n
`

// prepareKafka writes settings of one node that is broker and controller, with short waits and
// little memory, and formats the storage.
func prepareKafka(ctx context.Context, s *Server) error {
	settings := fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:%[2]d
listeners=PLAINTEXT://127.0.0.1:%[1]d,CONTROLLER://127.0.0.1:%[2]d
advertised.listeners=PLAINTEXT://127.0.0.1:%[1]d
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=%[3]s
auto.create.topics.enable=false
offsets.topic.num.partitions=2
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
controller.quorum.election.timeout.ms=200
controller.quorum.fetch.timeout.ms=1000
broker.heartbeat.interval.ms=200
broker.session.timeout.ms=1000
log.cleaner.enable=false
log.index.size.max.bytes=65536
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
background.threads=2
%[4]s%[5]s
`, s.ports[""], s.ports["controller"], s.path("data"), kafkaLogins(s), s.opts.Config)
	for name, text := range map[string]string{"server.properties": settings, "log4j.properties": log4j} {
		if err := s.write(name, text); err != nil {
			return err
		}
	}
	if _, err := os.Stat(s.path("data/meta.properties")); err == nil {
		return nil
	}
	format := s.jvm("64m", "kafka.tools.StorageTool", "format", "-t", "a2FwdGFyLWthZmthLXRlc3", "-c", s.path("server.properties"))
	for name, password := range s.opts.Logins {
		for _, method := range scrams {
			format = append(format, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", method, name, password))
		}
	}
	return s.run(ctx, format[0], format[1:]...)
}

// scrams are the methods whose names and salted passwords are in the storage.
var scrams = []string{"SCRAM-SHA-256", "SCRAM-SHA-512"}

// kafkaLogins returns the settings of the listener for clients that log in. Of a setting that is
// there twice Kafka takes the last.
func kafkaLogins(s *Server) string {
	if len(s.opts.Logins) == 0 {
		return ""
	}
	const modules = "org.apache.kafka.common.security."
	var users, methods strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.opts.Logins)) {
		fmt.Fprintf(&users, " user_%s=%q", name, s.opts.Logins[name])
	}
	for _, method := range scrams {
		fmt.Fprintf(&methods, "listener.name.sasl.%s.sasl.jaas.config=%sscram.ScramLoginModule required;\n", strings.ToLower(method), modules)
	}
	protocol, files := "SASL_PLAINTEXT", ""
	if s.opts.TLS != "" {
		protocol = "SASL_SSL"
		files = fmt.Sprintf(`ssl.keystore.type=PEM
ssl.keystore.location=%s
ssl.truststore.type=PEM
ssl.truststore.location=%s
listener.name.sasl.ssl.client.auth=required
`, s.path("server.pem"), s.path("ca.pem"))
	}
	return fmt.Sprintf(`listeners=PLAINTEXT://127.0.0.1:%[1]d,CONTROLLER://127.0.0.1:%[2]d,SASL://127.0.0.1:%[3]d
advertised.listeners=PLAINTEXT://127.0.0.1:%[1]d,SASL://127.0.0.1:%[3]d
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:%[7]s
listener.name.sasl.sasl.enabled.mechanisms=PLAIN,%[4]s
listener.name.sasl.plain.sasl.jaas.config=%[5]splain.PlainLoginModule required%[6]s;
`, s.ports[""], s.ports["controller"], s.ports["sasl"], strings.Join(scrams, ","), modules, users.String(), protocol) + methods.String() + files
}

func (s *Server) jvm(heap string, mainAndArgs ...string) []string {
	return append([]string{
		"java", "-Xmx" + heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xshare:auto",
		"-Djava.io.tmpdir=" + s.dir, "-Djava.awt.headless=true", "-Dlog4j.configuration=file:" + s.path("log4j.properties"),
		"-cp", s.program + "/*",
	}, mainAndArgs...)
}

// kafkaReady asks for the metadata, which has to name a broker and a controller.
func kafkaReady(ctx context.Context, s *Server) error {
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports[""])))
	if err != nil {
		return err // a client would wait and try again
	}
	_ = conn.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Addr("")), kgo.DisableClientMetrics())
	if err != nil {
		return err
	}
	defer cl.Close()
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = []kmsg.MetadataRequestTopic{}
	answer, err := cl.SeedBrokers()[0].Request(ctx, request)
	if err != nil {
		return err
	}
	if m, ok := answer.(*kmsg.MetadataResponse); !ok || len(m.Brokers) == 0 || m.ControllerID < 0 {
		return errors.New("its metadata names no broker")
	}
	return takesTopics(ctx, cl)
}

// takesTopics asks whether a topic could be made: a broker that has just started may be known and
// not yet be trusted with data.
func takesTopics(ctx context.Context, cl *kgo.Client) error {
	request := kmsg.NewPtrCreateTopicsRequest()
	request.ValidateOnly = true
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "kaptar-ready", 1, 1
	request.Topics = append(request.Topics, topic)
	answer, err := request.RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	for _, t := range answer.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return fmt.Errorf("it takes no topic: %w", err)
		}
	}
	return nil
}
