package mutants

import "slices"

// mutants are the promises that a reader of the README would hold us to.
func mutants() []mutant {
	return slices.Concat(
		calls(),
		overload(),
		client(),
		events(),
		consumers(),
		operators(),
		crashes(),
		schemas(),
		simulations(),
		stores(),
		links(),
		surroundings(),
		secrets(),
		shop(),
		access(),
		inputs(),
		logins(),
		edge(),
		certificates(),
		principals(),
		rollouts(),
		comparisons(),
		versions(),
		clusters(),
		pipeline(),
		deployment(),
		sagas(),
		outboxes(),
		groups(),
	)
}

// calls: package transport.
func calls() []mutant {
	return []mutant{
		{
			"the fifth failure opens the breaker, not the sixth", "transport/breaker.go",
			"if b.failures >= b.threshold {", "if b.failures > b.threshold {", "./transport", "",
		},
		{
			"half-open lets one probe through", "transport/breaker.go",
			"case b.probing && now < b.probe+b.recovery:", "case false && b.probing && now < b.probe+b.recovery:", "./transport", "",
		},
		{
			"a POST without Idempotency-Key is not retried", "transport/http.go",
			"if len(req.Header[\"Idempotency-Key\"]) == 0 {\n\t\t\treturn false", "if len(req.Header[\"Idempotency-Key\"]) == 0 {\n\t\t\treturn true", "./transport", "",
		},
		{
			"a retry storm ends with the budget", "transport/budget.go",
			"return spent < budgetFloor*budgetSlots ||", "return spent < 1<<40 ||", "./transport", "TestSimRetryStorm/budget_alone",
		},
		{
			"the deadline travels", "transport/http.go",
			"Field{Name: deadline.Header,", "Field{Name: deadline.Header[:0],", "./transport", "",
		},
		{
			"weights are shares, whoever is faster", "transport/pool.go",
			"uint64(f * (1 << 64))", "uint64(f * (1 << 63))", "./transport", "TestWeightsAreExact",
		},
		{
			"a version gets no calls before it has a weight, if others have", "transport/pool.go",
			"if !known {", "if !known || len(rest) > 0 {", "./transport", "TestWeights",
		},
		{
			"half of an even share is enough of a zone", "transport/pool.go",
			"2*len(near)*len(zones) >= len(listed)", "len(near)*len(zones) >= len(listed)", "./transport", "TestZones",
		},
		{
			"a caller uses twenty instances of a large service", "transport/pool.go",
			"first = first[:min(len(first), s.subset)]", "first = first[:]", "./transport", "TestSubset",
		},
		{
			"a new instance does not get all calls at once", "transport/instance.go",
			"if age >= warmUp {", "if age >= 0 {", "./transport", "TestANewInstanceWarmsUp",
		},
		{
			"a target is not forgotten under a call", "transport/forget.go",
			"&& !tg.busy() {", "&& (tg.busy() || true) {", "./transport", "TestATargetIsNotForgottenUnderACall",
		},
		{
			"DNS is not asked while the registry may know", "transport/target.go",
			"if !unlisted {", "if !unlisted && false {", "./transport", "TestANameThatNobodyKnows",
		},
		{
			"a certificate is for the service, not for an address", "transport/dial.go",
			"	config.ServerName = service\n", "	config.InsecureSkipVerify = service != \"\"\n", "./transport", "TestTLSBetweenServices",
		},
		{
			"middleware stands outside of the attempts", "transport/transport.go",
			"slices.Backward(own.Client)", "slices.Backward(own.Client[:0])", "./transport", "TestMiddlewareSeesACallOnce",
		},
		{
			"faults that are not enabled strike nothing", "setup.go",
			"	if set.Faults.Enabled {", "	if true {", ".", "TestFaultsFollowTheStore",
		},
		{
			"the callee of an RPC has less time than its caller", "transport/grpc.go",
			"max(until-answerTime, now+time.Millisecond)", "max(until, now+time.Millisecond)", "./transport", "TestTheCalleeHasLessTime",
		},
		{
			"a fallback does not answer a caller that has gone", "transport/fallback.go",
			"if !c.cancelled() && (dependency.Of(err) != \"\" ||", "if c != nil && (dependency.Of(err) != \"\" || errors.Is(err, context.Canceled) ||", "./transport", "TestFallback",
		},
		{
			"a kept answer is for the same caller", "transport/fallback.go",
			"case lower == \"traceparent\",", "case lower == \"authorization\", lower == \"traceparent\",", "./transport", "TestLastGood",
		},
		{
			"a hedge goes to another instance", "transport/hedge.go",
			"if c.in == first {", "if c.in == first && c.t == nil {", "./transport", "TestHedge",
		},
		{
			"hedges come from the retry budget", "transport/hedge.go",
			" || !c.tg.budget.withdraw(now)", "", "./transport", "TestHedgesComeFromTheRetryBudget",
		},
		{
			"the loser of two attempts is cancelled", "transport/hedge.go",
			"			cancelFirst()\n", "", "./transport", "TestHedge",
		},
		{
			"a new instance is probed at once", "transport/target.go",
			"		t.breaker.probeNow()\n", "", "./transport", "",
		},
		{
			"work that nobody waits for any more is dropped", "server/http.go",
			"return now.Add(d), false", "return now.Add(d + time.Hour), false", "./transport", "TestSimRetryStorm/budget_alone",
		},
		{
			"what a dependency failed is held against nobody in front of it", "transport/http.go",
			`c.away = resp.Header.Get(dependency.Header); c.away != ""`, `c.away = resp.Header.Get(dependency.Header); c.away == "?"`, "./transport", "TestSimRecovery",
		},
		{
			"an error counts as a second, however fast it comes", "transport/instance.go",
			"int64(max(took, failurePenalty))", "int64(took)", "./transport", "TestSimBadServer/one_of_four",
		},
		{
			"calls in flight count against an instance", "transport/instance.go",
			"max(latency, float64(latencyFloor)) * float64(waiting+1)", "max(latency, float64(latencyFloor))", "./transport", "TestSimBadServer/black_hole",
		},
		{
			"a slow instance gets fewer calls", "transport/instance.go",
			"	latency := float64(in.peak.Load())\n", "	latency := min(1, float64(in.peak.Load())) * 1e9\n", "./transport", "TestSimSlowServer",
		},
		{
			"an instance that fails five times is left alone", "transport/instance.go",
			"return in.failures.Add(1) >= ejectAfter", "return in.failures.Add(1) >= ejectAfter<<20", "./transport", "TestSimEjection",
		},
		{
			"idle instances take turns, whoever was a bit faster", "transport/instance.go",
			"return worse > mine+float64(idleNoise) && worse > mine*idleRatio", "return worse > mine", "./transport", "TestSimIdleInstances",
		},
		{
			"a caller knows a few of ten thousand instances", "transport/pool.go",
			"if s.subset <= 0 ||", "if s.subset >= 0 ||", "./transport", "TestSimManyInstances",
		},
		{
			"only the caller just in front of a failure repeats", "transport/call.go",
			`c.attempts > set.Max || c.away != ""`, `c.attempts > set.Max || c.away == "?"`, "./transport", "TestSimChain",
		},
		{
			"a server does not take on more than it can do", "internal/limit/limit.go",
			"if n <= l.limit.Load() && l.waiting.Load() == 0 {", "if n <= l.limit.Load()+1<<40 {", "./transport", "TestSimOverload",
		},
		{
			"a server that refuses what is too much is not taken for broken", "transport/http.go",
			`c.full = resp.Header.Get(limit.Header) != ""`, `c.full = resp.Header.Get(limit.Header) == "?"`, "./transport", "TestOverload",
		},
		{
			"an open breaker asks for the health of its instances", "transport/probe.go",
			"if !tg.isService() || tg.probing.Swap(true) {", "if tg.isService() || tg.probing.Swap(true) {", "./transport", "TestSimRetryStorm/breaker",
		},
		{
			"a short deadline from outside opens no breaker", "transport/call.go",
			"return 4*(now-c.started) < 3*own && ", "return false && ", "./transport", "TestOnlyWhatTheTargetDidCounts",
		},
		{
			"a standstill of the caller fails no dial", "transport/dial.go",
			"late.Timeout() && ", "late.Timeout() && false && ", "./transport", "TestDialAgain",
		},
		{
			"a standstill of the caller opens no breaker", "transport/call.go",
			"return c.until > 0 && ", "return false && ", "./transport", "TestAStandstillIsNobodysFault",
		},
		{
			"a call whose time is over is not repeated", "transport/call.go",
			"c.alone || c.attempts == 0 ||", "c.alone ||", "./transport", "TestOverdue",
		},
		{
			"a handler that cannot write its answer has not panicked", "server/http.go",
			" && !x.gaveUp(p) {", " {", "./server", "TestPanics",
		},
		{
			"a request body that fails opens no breaker", "transport/http.go",
			"case c.cancelled(), c.upload.broken(),", "case c.cancelled(),", "./transport", "TestOnlyWhatTheTargetDidCounts",
		},
		{
			"a message that cannot be sent opens no breaker", "transport/rpc.go",
			"if !reached || c.ownFault(err) {", "if !reached {", "./transport", "TestOnlyWhatTheTargetDidCountsOverGRPC",
		},
		{
			"health is believed less each time", "transport/breaker.go",
			"if b.open && now >= b.tripped+growing(b.trips, b.recovery) {", "if b.open {", "./transport", "TestHealthIsBelievedLater",
		},
		{
			"with an open breaker the try goes to an instance that is ready", "transport/probe.go",
			"		if !ready[i] {\n", "		if false && !ready[i] {\n", "./transport", "TestTheTryGoesToAReadyInstance",
		},
		{
			"a deadline from outside has no effect at the edge", "server/http.go",
			"if s.opts.DeadlineFrom.Has(r.RemoteAddr) {", "if true {", "./server", "TestDeadlineFrom",
		},
		{
			"a body that does not come is answered at the deadline", "server/body.go",
			"!x.ownDeadline && limit.Before(at)", "!x.ownDeadline && limit.Before(now)", "./server", "TestABodyThatFailsIsTheClientsError",
		},
		{
			"a body that does not come is its client's fault, however early the handler answers", "server/room.go",
			"c.fault.Store(http.StatusRequestTimeout)", "_ = http.StatusRequestTimeout", "./server", "TestBodyFailsBeforeItsReadReturns",
		},
		{
			"a read that ended between two requests is no fault of the next body", "server/room.go",
			"if c.fault.Store(0); errors.Is", "if errors.Is", "./server", "TestFaultOfAnEarlierRequest",
		},
	}
}

// client: package internal/h1.
func client() []mutant {
	return []mutant{
		{
			"bytes behind an answer are no answer to the next call", "internal/h1/conn.go",
			"!ok || !reuse || c.r < c.w {", "!ok || !reuse {\n\t\tc.r = c.w", "./internal/h1", "TestSameAsNetHTTP",
		},
		{
			"a connection that was idle is looked at", "internal/h1/transport.go",
			"|| c.alive() {", "|| c.alive() || true {", "./internal/h1", "TestSameAsNetHTTP|TestTLSUnasked",
		},
		{
			"a connection is looked at before a POST", "internal/h1/transport.go",
			"if replay && t.pool", "if t.pool", "./internal/h1", "TestLook",
		},
		{
			"two lengths are one too many", "internal/h1/head.go",
			"if err != nil || len(values) > 1 {", "if err != nil {", "./internal/h1", "TestSameAsNetHTTP",
		},
		{
			"a line ends with CRLF", "internal/h1/conn.go",
			"if end-off < 2 || c.buf[c.r+end-2] != '\\r' {", "if end-off < 2 {", "./internal/h1", "TestSameAsNetHTTP",
		},
		{
			"a POST is not sent twice", "internal/h1/conn.go",
			"(m.replay || c.socket.sent == sent)", "(m.replay || c.socket.sent >= sent)", "./internal/h1", "TestStale",
		},
		{
			"a call ends with its context", "internal/h1/socket.go",
			"s.unwind = context.AfterFunc(ctx, s.interrupt)", "s.unwind = context.AfterFunc(ctx, func() {})", "./internal/h1", "TestContextEnds",
		},
		{
			"a connection is for one certificate's name", "internal/h1/transport.go",
			"k.name = t.opts.ServerName(ctx)", "_ = t.opts.ServerName(ctx)", "./internal/h1", "TestTLS",
		},
		{
			"keys that look alike are not taken for one, nor one for two", "telemetry/record.go",
			"seen |= bit", "seen = bit", "./telemetry", "TestDedupe",
		},
		{
			"a field that is changed goes out once", "internal/h1/request.go",
			"if change.sets(name) {", "if change.sets(\"-\") {", "./internal/h1", "TestChange",
		},
		{
			"a late body is its caller's fault", "transport/http.go",
			"c.upload.broken(), errors.Is(err, h1.ErrBody),", "c.upload.broken(), errors.Is(nil, h1.ErrBody),", "./transport", "TestOnlyWhatTheTargetDidCounts",
		},
	}
}

// events: packages outbox and messaging.
func events() []mutant {
	return []mutant{
		{
			"a test's calls leave the connections to services that have stopped", "kaptartest/as.go",
			"\t*http.Transport\n", "\tTransport http.RoundTripper\n", "./kaptartest", "TestCloseIdleConnections",
		},
		{
			"a test's system has a broker of its own", "kaptartest/kaptartest.go",
			"Backends:      map[string]drivers.Backend{brokerURL: s.broker},", "Backends:      map[string]drivers.Backend{brokerURL: newBroker()},", "./kaptartest", "",
		},
		{
			"middleware sees every try of an event's handler", "messaging/middleware.go",
			"b.middleware = append(b.middleware, mw...)", "", "./kaptartest", "TestFaultHandlers",
		},
		{
			"an event whose sending failed stays in the outbox", "messaging/outbox/relay.go",
			"		sent = 0\n", "", "./messaging/outbox", "",
		},
		{
			"events leave the outbox in order", "messaging/outbox/relay.go",
			"WHERE id > $1 ORDER BY id LIMIT", "WHERE id > $1 ORDER BY id DESC LIMIT", "./messaging/outbox", "",
		},
		{
			"the inbox lets an event have its effect once", "messaging/outbox/inbox.go",
			"return n == 1, nil", "return n >= 0, nil", "./messaging/outbox", "",
		},
		{
			"the inbox knows an event by source and id", "messaging/outbox/inbox.go",
			"mark, group, m.ID, source(m)", "mark, group, m.ID, \"\"", "./messaging/outbox", "TestMarkHandled",
		},
		{
			"a rolled-back transaction publishes nothing", "messaging/publish.go",
			"	add := outbox.Add\n", "	_ = p.broker.Publish(ctx, []driver.Message{m})\n	add := outbox.Add\n", "./messaging", "",
		},
		{
			"the broker is told after the effect", "messaging/consume.go",
			"if c.autoAck && !c.tell(", "if !c.tell(", "./messaging", "",
		},
		{
			"a permanent error is not tried again", "messaging/consume.go",
			"if err == nil || isPermanent(err) || errors", "if err == nil || errors", "./messaging", "",
		},
		{
			"a second subscription in one group is refused", "messaging/subscribe.go",
			"if b.subscribed[key] != nil {", "if b.subscribed[key] == nil && false {", "./messaging", "TestSecondSubscription",
		},
		{
			"raw bytes stay what they are", "messaging/envelope.go",
			"Body: d.Data}", "Body: []byte(string([]rune(string(d.Data))))}", "./messaging", "TestRawUnchanged",
		},
	}
}

// stores: package sqldb and the drivers.
func stores() []mutant {
	return []mutant{
		{
			"SQLite is durable", "drivers/sqlite/sqlite.go",
			"_synchronous=FULL", "_synchronous=NORMAL", "./sqldb", "",
		},
		{
			"a BEGIN that is cancelled leaves no transaction on SQLite", "drivers/sqlite/conn.go",
			`_ = c.exec(context.Background(), "ROLLBACK") // fails when there`, "// fails when there", "./drivers/sqlite", "TestBeginCancelled",
		},
		{
			"the password of Kafka's URL is in no error", "drivers/kafka/broker.go",
			"url: redact.URL(servers)", `url: servers + redact.URL("")`, "./drivers/kafka", "TestLoginReal",
		},
		{
			"connections in use again and again stay open", "drivers/postgres/postgres.go",
			"db.SetMaxIdleConns(conns)", "db.SetMaxIdleConns((conns + 1) / 2)", "./sqldb", "TestPostgresKeepsConnections",
		},
		{
			"a transaction of PostgreSQL begins with its first statement", "drivers/postgres/conn.go",
			"if opts != (driver.TxOptions{}) ||", "if true || opts != (driver.TxOptions{}) ||", "./drivers/postgres", "TestRoundTrips",
		},
		{
			"a first statement that cannot be prepared is one of its transaction", "drivers/postgres/conn.go",
			"if pg.PgConn().TxStatus() == 'I' &&", "if false && pg.PgConn().TxStatus() == 'I' &&", "./drivers/postgres", "TestTransaction",
		},
		{
			"a statement prepared before a transaction can be the first in it", "drivers/postgres/conn.go",
			"return &stmt{s.(*stdlib.Stmt), c, query}, nil", "return s, nil", "./drivers/postgres", "TestTransaction",
		},
		{
			"what pgx does on its own is part of the transaction", "drivers/postgres/conn.go",
			"_ = c.begin() // the connection is closed then", "", "./drivers/postgres", "TestRawBegins",
		},
		{
			"a database with tables is taken by nobody", "sqldb/owner.go",
			"from != Unowned {", "false {", "./sqldb", "TestOwnTables",
		},
		{
			"an edited migration is refused", "sqldb/migratelock.go",
			"f.sum != record.sum:", "f.sum < record.sum && false:", "./sqldb", "TestMigrateEdited",
		},
		{
			"a file that is not applied yet is reviewed", "sqldb/migratelock.go",
			"if err := pending[v].review(v, l.dialect); err != nil {", "if err := error(nil); err != nil {", "./sqldb", "TestMigrateBreaking",
		},
		{
			"a file that is applied and not recorded is reviewed", "sqldb/migratelock.go",
			"if err := f.review(v, l.dialect); err != nil {", "if err := error(nil); err != nil {", "./sqldb", "TestMigrateFreshBreaking",
		},
		{
			"a database that lacks a file gets it", "sqldb/migratelock.go",
			"l.pending = len(pending) > 0", "l.pending = len(pending) > 1", "./sqldb", "TestMigrate",
		},
		{
			"what RabbitMQ gave back is not sent, though a later message was refused", "drivers/rabbitmq/publish.go",
			"if back := c.firstReturned(list[:n]); back < n {", "if back := c.firstReturned(list[:n]); err == nil && back < n {",
			"./drivers/rabbitmq", "TestReturnedBeforeRefused",
		},
		{
			"what RabbitMQ's members held too long comes again in order", "drivers/rabbitmq/ack.go",
			"cmp.Compare(a.raw.DeliveryTag, b.raw.DeliveryTag)", "cmp.Compare(b.raw.DeliveryTag, a.raw.DeliveryTag)",
			"./drivers/rabbitmq", "TestConformance/order=key/OrderedComesAgain",
		},
		{
			"a deleted exchange is noticed", "drivers/rabbitmq/deleted.go",
			"if code(err) == amqp.NotFound {", "if false {", "./drivers/rabbitmq", "TestDeletedExchange",
		},
		{
			"a group gets all of a topic that was made again", "drivers/kafka/subscribe.go",
			"sub.From == driver.FromBeginning || b.remade(sub) {", "sub.From == driver.FromBeginning {", "./drivers/kafka", "TestDeletedTopic",
		},
		{
			"who waits for two things hears which of them has ended, and why", "internal/steady/steady.go",
			"cancel(context.Cause(other))", "cancel(nil)", "./internal/steady", "TestJoin",
		},
		{
			"a caller's deadline stays as it is", "internal/steady/steady.go",
			"if _, ok := ctx.Deadline(); ok {", "if _, ok := ctx.Deadline(); ok && d < 0 {", "./internal/steady", "TestBound",
		},
		{
			"a call does not outlast NATS's connection", "drivers/nats/conn.go",
			"steady.Join(ctx, c.currentLink())", "steady.Join(ctx)", "./drivers/nats", "TestCutWhileWaiting",
		},
		{
			"who must not see a group's lag is told at once which right is missing", "drivers/nats/group.go",
			"b.askAbout(ctx, escapeName(topic))", `b.askAbout(ctx, "")`, "./drivers/nats", "TestRights/lag",
		},
		{
			"NATS stores a message id once", "drivers/nats/wire.go",
			"	set(nats.MsgIdHdr, escapeValue(m.ID))\n", "", "./drivers/nats", "",
		},
	}
}

// overload: what a service does with more than it has room for.
func overload() []mutant {
	return []mutant{
		{
			"one client cannot fill a server's connections", "server/room.go",
			"held[nc.client] > c.limit/4", "held[nc.client] > c.limit*4", "./server", "TestOneClientCannotFillTheServer",
		},
		{
			"the queue has an end", "internal/limit/queue.go",
			"l.waiting.Load() >= max(2*l.limit.Load(), burst)", "false && burst > 0", "./internal/limit", "TestQueue",
		},
		{
			"expired work is dropped before a handler runs", "internal/limit/queue.go",
			"if r == \"\" && w.ctx.Err() != nil {", "if r == \"\" && false {", "./internal/limit", "TestQueue/expired",
		},
		{
			"a late queue serves the newest first", "internal/limit/queue.go",
			"i = len(l.queue[q]) - 1", "i = 0", "./internal/limit", "TestQueue/newest",
		},
		{
			"a half body takes no room", "server/body.go",
			"	x.slot.Pause() // the client may be slow\n", "", "./server", "TestHalfBodies",
		},
		{
			"descriptors are left for the process's own calls", "server/conns.go",
			"cmp.Or(limit, descriptors()/2)", "cmp.Or(limit, -1)", "./server", "TestAFewDescriptors",
		},
		{
			"a refusal for want of room opens no breaker", "transport/http.go",
			"c.away != \"\" || c.full {", "c.away != \"\" {", "./transport", "TestOverload",
		},
		{
			"orders are refused that would wait too long", "shop/order/backlog.go",
			"b.room.Add(-1) < 0", "false", "./shop/order", "TestBacklog|TestFull",
		},
	}
}

// links: TLS to backends.
func links() []mutant {
	return []mutant{
		{
			"a backend's certificate is verified", "internal/tlsfiles/tlsfiles.go",
			"&tls.Config{MinVersion: tls.VersionTLS12}", "&tls.Config{InsecureSkipVerify: true}", "./internal/tlsfiles", "TestDial",
		},
		{
			"a backend's certificate is for its host", "internal/tlsfiles/tlsfiles.go",
			"config.ServerName, config.NextProtos = name, protocols", "config.ServerName, config.NextProtos = \"localhost\"+name[:0], protocols", "./drivers/redis", "TestTLS",
		},
		{
			"NATS verifies by the URL's authority, as of now", "drivers/nats/url.go",
			"if s.tls.CA != \"\" {", "if s.tls.CA == \"-\" {", "./drivers/nats", "TestTLS",
		},
		{
			"a refused certificate is told also when RabbitMQ's client lost it", "drivers/rabbitmq/link.go",
			"if over && raw != nil {", "if false && over && raw != nil {", "./drivers/rabbitmq", "TestReason",
		},
		{
			"RabbitMQ reads its files for each connection", "drivers/rabbitmq/link.go",
			"b.opts.tls.Handshake(bounded", "(&tlsfiles.Files{On: true}).Handshake(bounded", "./drivers/rabbitmq", "TestTLS",
		},
		{
			"PostgreSQL reads its files for each connection", "drivers/postgres/postgres.go",
			"cfg.TLSConfig, cfg.Fallbacks = again.TLSConfig, again.Fallbacks", "_ = again", "./drivers/postgres", "TestTLS",
		},
		{
			"the collector's certificate is verified", "telemetry/otlp/otlp.go",
			"conn, err := s.files.Handshake(ctx, raw, host, \"h2\")", "conn, err := s.files.Handshake(ctx, raw, \"localhost\"+host[:0], \"h2\")", "./telemetry", "TestExportTLS",
		},
		{
			"a stop counts what was under way to a collector", "telemetry/queue.go",
			"err != nil && q.stopping() {", "err != nil && false {", "./telemetry", "TestQueueIsCut",
		},
		{
			"a password in plain text is told of", "internal/tlsfiles/exposed.go",
			"return secret && !secure &&", "return secret && secure &&", "./drivers", "TestSetWarnsOfAPlainPassword",
		},
		{
			"Consul's token file is read for each call", "drivers/consul/client.go",
			"if c.set.tokenFile == \"\" {", "if c.set.tokenFile != \"-\" {", "./drivers/consul", "TestTLS",
		},
	}
}

// surroundings: what every service has around it.
func surroundings() []mutant {
	return []mutant{
		{
			"metrics count by route, not by path", "server/http.go",
			"m.route(x.method, x.route())", "m.route(x.method, x.req.URL.Path)", "./server", "",
		},
		{
			"middleware sees every route", "server/chain.go",
			"				s.inner = h\n", "", "./server", "TestMiddlewareSeesEveryRoute",
		},
		{
			"a service that leaves still answers for the drain delay", "lifecycle.go",
			"		steady.Sleep(s.base, delay)", "		_ = steady.Sleep", ".", "TestDrainDelay",
		},
		{
			"a service that stops leaves discovery before its ports close", "lifecycle.go",
			"	s.deregister(context.Background())\n", "	_ = s.deregister\n", "./shop", "TestRollingRestart/split",
		},
		{
			"a service that stops serves until a balancer has seen it leave", "lifecycle.go",
			"		steady.Sleep(s.base, delay)", "		_ = steady.Sleep", "./shop", "TestRollingRestart/split",
		},
		{
			"a start beside a registry that is away ends", "lifecycle.go",
			"const registerTimeout = 30 * time.Second", "const registerTimeout = 30 * time.Minute", "./shop", "TestServersRefused",
		},
		{
			"one process sends the outbox of an SQLite file", "sqldb/lockfile_unix.go",
			"syscall.LOCK_EX|", "syscall.LOCK_SH|", "./sqldb", "TestLeaseOfAFile",
		},
		{
			"a lease that is released does not stay with a child", "sqldb/lockfile_unix.go",
			"	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)\n", "", "./sqldb", "TestLeaseOfAFile",
		},
		{
			"a weight of 7.5 is refused, not taken as 7", "rollout/mistake.go",
			"if step.SetWeight != math.Trunc(step.SetWeight) {", "if false && math.Trunc(1) == 0 {", "./rollout", "TestPlans",
		},
		{
			"pool_max_conns bounds the connections to PostgreSQL", "drivers/postgres/postgres.go",
			"	return n, nil\n", "	return defaultConns, nil\n", "./drivers/postgres", "TestMaxConns",
		},
		{
			"a flushed answer is a stream, which no deadline cuts", "server/exchange.go",
			"		x.limit.Move(time.Time{})\n", "", "./server", "TestStream",
		},
		{
			"the end of a large answer takes no room", "server/exchange.go",
			"if x.bytes >= largeAnswer {", "if x.bytes < 0 {", "./server", "TestALargeAnswerTakesNoRoom",
		},
		{
			"the contexts of streams end when the service stops", "server/life.go",
			"	s.flights.stop()\n", "", "./server", "TestShutdownWaits",
		},
		{
			"a trace goes on over the caller's header", "server/http.go",
			`ParseTraceparent(first(r.Header["Traceparent"]), first(r.Header["Tracestate"]))`, `ParseTraceparent("", "")`, "./server", "",
		},
		{
			"a stop does not wait for a collector that is away", "telemetry/queue.go",
			"q.flush(ctx, batch, min(q.timeout, lastTry))", "q.flush(ctx, batch, q.timeout)", "./telemetry", "TestShutdownWithoutCollector",
		},
		{
			"one bad text does not cost the batch", "telemetry/export.go",
			"			r.tidy()\n", "", "./telemetry", "TestBadText",
		},
		{
			"an ended span is not written to", "telemetry/span.go",
			"r := s.rec.Swap(nil)", "r := s.rec.Load()", "./telemetry", "TestSpans",
		},
		{
			"a sampled span is used again", "telemetry/export.go",
			"			r.free()\n", "			_ = r\n", "./transport", "TestHotPath",
		},
		{
			"what was logged with a call is not what it points to later", "telemetry/exportlog.go",
			"if !isPlain(r) {", "if false {", "./telemetry", "TestLoggedValues",
		},
		{
			"a stop says once what telemetry is lost", "telemetry/collector.go",
			"c.stopping.Load() || ", "", ".", "TestStopWithoutACollector",
		},
		{
			"a client does not write long log lines", "telemetry/utf8.go",
			"maxOutside = 2 << 10", "maxOutside = 2 << 20", "./server", "TestLogLines",
		},
		{
			"the port of a killed process is waited for", "internal/listen/listen.go",
			"if stays || try == tries {", "if stays || try == 1 {", "./internal/listen", "TestPortOfAKilledProcess",
		},
		{
			"services of one trace sample alike", "telemetry/sampler.go",
			"binary.BigEndian.Uint64(id[8:])>>1 < bound", "binary.BigEndian.Uint64(id[:8])>>1 < bound", "./telemetry", "TestRatio",
		},
		{
			"the environment wins over the file", "config/config.go",
			"{node: env}, {node: dotEnv}, {node: set}, {node: file},", "{node: file}, {node: env}, {node: dotEnv}, {node: set},", "./config", "",
		},
		{
			"only live settings come from the store", "config/watch.go",
			"	c.refuseFixed(next, p)\n", "", "./config", "",
		},
		{
			"an unknown key is reported", "config/check.go",
			"			c.unknown(at, name, n.keyOrigin(name), fields)\n", "", "./config", "",
		},
		{
			"a key whose package is not linked names the import", "config/section.go",
			"	return pkg\n}", "	return \"\"\n}", ".", "TestMistakesInSections",
		},
		{
			"a password in a URL is not shown", "config/secret.go",
			"	shown := redact.URL(text)\n", "	shown := text\n", "./config", "TestShownSecrets",
		},
		{
			"a slip in a variable's name is told", "config/layers.go",
			"	b.typos()\n", "", "./config", "TestTypos",
		},
		{
			"a live setting reads its own service alone", "config/watch.go",
			"changed := c.changed(c.live.values, next.values)", "changed := part(everything)", ".", "TestSettingsOfManyServices",
		},
		{
			"of several writers of a key one wins", "kv/memory.go",
			"if e.Revision != revision {", "if false {", "./kv", "",
		},
		{
			"backends are closed at the end", "lifecycle.go",
			"append(errs, s.backends.Close(ctx))...", "errs...", ".", "TestRegistryIsOpenedOnceAndClosed",
		},
		{
			"one connection for each URL", "drivers/drivers.go",
			"	if e.backend != nil {\n", "	if false {\n", "./drivers", "TestSetOpensEachURLOnce",
		},
		{
			"one failed check takes nobody off Consul's list", "drivers/consul/wire.go",
			"\"1s\", 2", "\"1s\", 0", "./drivers/consul", "TestHTTPCheck",
		},
		{
			"a process that was killed and started again is listed once, by Consul", "drivers/consul/registry.go",
			"in.Replaces(o)", "o.ID == \"\"", "./drivers/consul", "TestGhosts",
		},
		{
			"a process that was killed and started again is listed once, by NATS", "drivers/nats/registry.go",
			"ok && in.Replaces(o.instance())", "!ok", "./drivers/nats", "TestGhosts",
		},
		{
			"no service outlives its supervisor", "local/child.go",
			"	go follow(ctx, cancel, lost, in.Timeout)\n", "	_, _ = follow, lost\n", "./local", "",
		},
		{
			"no process outlives the one that started it", "internal/proc/start_unix.go",
			"kill -KILL -$$\n", "", "./internal/proc", "TestParentKilled",
		},
		{
			"a stop is heard during Setup", "setup.go",
			"			s.cancel(nil)\n			told, over", "			told, over", ".", "TestSetupHangs",
		},
		{
			"the embedded broker starts for those who use it", "local/local.go",
			"		return broker.start(ctx)\n	}\n	o.Ready", "		return nil\n	}\n	o.Ready", "./local", "TestBrokerRunsOnlyWhenUsed",
		},
		{
			"Ctrl-C is for the supervisor, not for its services", "internal/proc/start_unix.go",
			"attr.Setpgid = true", "attr.Setpgid = false", "./internal/proc", "TestOwnGroup",
		},
		{
			"a secret is not shown", "config/secret.go",
			"	return redacted\n}", "	return string(s)\n}", "./config", "",
		},
		{
			"tasks stop after the requests", "lifecycle.go",
			"	errs := []error{s.drain(ctx)}\n", "	s.cancel(nil)\n\terrs := []error{s.drain(ctx)}\n", ".", "",
		},
		{
			"nothing listens when one port is taken", "lifecycle.go",
			"return a.server.Listen() }); err != nil {", "return a.server.Listen() }); false && err != nil {", ".", "",
		},
	}
}

// shop: the reference application, and what tests it.
// logins: the shop's user-service.
func logins() []mutant {
	return []mutant{
		{
			"a refresh token that was used ends its session", "shop/user/session.go",
			"`DELETE FROM sessions WHERE id = $1 AND expires_at > $2 RETURNING user_id`", "`SELECT user_id FROM sessions WHERE id = $1 AND expires_at > $2`", "./shop/user", "TestRefresh",
		},
		{
			"a key is published before it signs", "shop/user/keys.go",
			"if !now.Before(from.Add(-k.lead())) {", "if !now.Before(from) {", "./shop/user", "TestOverlap",
		},
		{
			"a key is published until its last token has ended", "shop/user/keys.go",
			"keys[1].from.Add(k.life+leeway)", "keys[1].from", "./shop/user", "TestOverlap",
		},
		{
			"who is no user costs a hash too", "shop/user/service.go",
			"		hash = s.passwords.nobodys\n", "		return user{}, errWrongLogin\n", "./shop/user", "TestSameWork",
		},
		{
			"the sixth wrong password waits", "shop/user/throttle.go",
			"if over := y.failed - b.free; over >= 0 {", "if over := y.failed - b.free; over >= 0 && b.free > 5 {", "./shop/user", "TestSixtyWrongPasswords",
		},
		{
			"strangers do not lock a user out", "shop/user/throttle.go",
			"if !known {", "if known || true {", "./shop/user", "TestManyStrangers",
		},
		{
			"an address that anybody can write is not believed", "server/rate.go",
			"(inProcess || len(proxies) > 0 && ", "(inProcess || len(proxies) == 0 || ", "./shop/user", "TestForgedAddress",
		},
		{
			"a body without a type from another site is refused", "shop/internal/rest/rest.go",
			"if kind != \"application/json\" && origins", "if kind != \"application/json\" && kind != \"\" && origins", "./shop/internal/rest", "TestContentTypes",
		},
	}
}

func shop() []mutant {
	return []mutant{
		{
			"go test -short starts no server", "internal/test/servertest/servertest.go",
			"	if testing.Short() {", "	if false {", "./internal/test/servertest", "TestShort",
		},
		{
			"a server starts again after a crash", "internal/test/servers/start.go",
			"endAll(belonging(s.dir))", "endAll(nil)", "./internal/test/servers", "TestStartAfterACrash",
		},
		{
			"the bank charges an order once", "shop/payment/bank.go",
			"\"order-\" + strconv.FormatInt(p.OrderID, 10)", "strconv.FormatInt(time.Now().UnixNano(), 10)", "./shop/payment", "",
		},
		{
			"payments of one order are of one amount", "shop/payment/domain.go",
			"if p.AmountCents != want.AmountCents ||", "if p.Status == pending && p.AmountCents != want.AmountCents ||", "./shop/payment", "TestServiceREST",
		},
		{
			"a handler in the process shares no header values with its caller", "internal/inproc/request.go",
			"out[k] = values[first:len(values):len(values)]", "out[k], _ = v, first", "./internal/inproc", "TestDoSharesNoValues",
		},
		{
			"the trace of an RPC goes on within the process", "internal/inproc/options.go",
			"	if o.trace != nil {", "	if false {", "./transport", "TestAnRPCWithinTheProcessSendsTheTrace",
		},
		{
			"a call in the process ends with its caller's context", "internal/inproc/channel.go",
			"above := deadline.Follow(ctx, call)", "var above deadline.Following", "./internal/inproc", "",
		},
		{
			"the span of a request in the process is in its context", "server/http.go",
			"x.limit.Carry(wants.Context(x.span.Context(context.Background())))", "_ = ctx", "./server", "",
		},
		{
			"a reservation costs the same beside many", "shop/inventory/reserve.go",
			"SET available = available WHERE", "SET sku = sku WHERE", "./shop/inventory", "TestReserveCostsTheSame",
		},
	}
}

// inputs: what comes from outside.
func inputs() []mutant {
	return []mutant{
		{
			"JSON with a key twice is refused", "internal/strictjson/strictjson.go",
			"twice && err == nil {", "twice && err == nil && false {", "./internal/strictjson", "TestUnmarshal",
		},
		{
			"JSON has at most 64 levels", "internal/strictjson/strictjson.go",
			"c.depth > MaxDepth {", "c.depth > MaxDepth<<10 {", "./internal/strictjson", "TestUnmarshal",
		},
		{
			"a field's name in other capitals is refused", "internal/strictjson/fields.go",
			"strings.EqualFold(one.name, name)", "false && strings.EqualFold(one.name, name)", "./internal/strictjson", "TestUnknownKeysAllowed",
		},
		{
			"a body with Content-Encoding is refused", "server/json.go",
			"!strings.EqualFold(e, \"identity\")", "e == \"identity\"", "./server", "TestReadJSON",
		},
		{
			"files of a multipart form are removed", "server/chain.go",
			"_ = r.MultipartForm.RemoveAll()", "_ = r.MultipartForm.RemoveAll", "./server", "TestMaxBodyBoundsForms",
		},
		{
			"every address of a user's URL is public, not only the first", "transport/untrusted.go",
			"for i := range addrs { // all", "for i := range addrs[:1] { // all", "./transport", "TestUntrusted",
		},
		{
			"a redirect leads nowhere that a URL may not", "transport/untrusted.go",
			"err := u.check(r.URL)", "var err error", "./transport", "TestUntrustedRedirects",
		},
		{
			"the event of another topic is a dead letter", "messaging/envelope.go",
			"v != d.Topic {", "v == \"\" {", "./messaging", "TestHostileEnvelopes",
		},
		{
			"a gRPC connection has at most 100 streams", "server/rpc.go",
			"grpc.MaxConcurrentStreams(100)", "grpc.MaxConcurrentStreams(1000)", "./server", "TestStreamLimit",
		},
		{
			"no credentials to another host", "transport/untrusted.go",
			"via[0].URL.Host != r.URL.Host {", "via[0].URL.Host == \"\" {", "./transport", "TestUntrustedHeaders",
		},
		{
			"a trace's digits are in lower case", "telemetry/traceparent.go",
			" || strings.ToLower(h[:55]) != h[:55] {", " || strings.ToLower(h[:55]) == \"\" {", "./telemetry", "TestTraceparentAsOpenTelemetry",
		},
		{
			"a call that is dropped has no answer before its deadline", "internal/faults/faults.go",
			"if f.Drop {\n\t\t<-", "if false {\n\t\t<-", "./internal/faults", "TestWait",
		},
	}
}

// certificates: package internal/identity and what stands on it.
func certificates() []mutant {
	return []mutant{
		{
			"a caller takes the certificate of no other service", "internal/identity/tls.go",
			"err != nil || id.Service != state.ServerName {", "err != nil {", "./internal/identity", "TestCertificates",
		},
		{
			"a service of another trust domain is no peer", "internal/identity/identity.go",
			"if id.Prefix != m.id.Prefix {", "if id.Prefix == \"\" {", "./internal/identity", "TestCertificates",
		},
		{
			"a connection is never resumed", "internal/identity/tls.go",
			"SessionTicketsDisabled: true,", "SessionTicketsDisabled: false,", "./internal/identity", "TestNoTickets",
		},
		{
			"a CA that is taken out is out for open connections", "internal/identity/tls.go",
			"slices.Contains(cas, chain[len(chain)-1])", "slices.Contains(cas, chain[len(chain)-1]) || true", "./internal/identity", "TestCheckPeerMindsTheCA",
		},
		{
			"a half-written certificate is not read", "internal/identity/identity.go",
			"if moving || now == i.done {", "if moving && false || now == i.done {", "./internal/identity", "TestWatchWaitsForTheWriter",
		},
		{
			"routes are for callers with a certificate", "server/http.go",
			"case !s.knows(ctx, r.TLS, connOf(r) != nil):", "case !s.knows(ctx, r.TLS, false):", ".", "TestCallersNeedACertificate",
		},
		{
			"a long call has no old connection after Renew", "transport/dial.go",
			"t.inside.Store(old.Clone())", "t.inside.Store(old)", "./transport", "TestRenew",
		},
		{
			"DNS does not turn a call with TLS into plain text", "transport/target.go",
			" && (!t.bare || t.tr.opts.TLS == nil)", "", "./transport", "TestDNSDoesNotTurnTLSOff",
		},
		{
			"an address for others, which somebody has set, is refused without TLS", "secure.go",
			"(values[i].Origin == \"default\" || ", "(values[i].Origin != \"\" || ", ".", "TestPlaintext",
		},
	}
}

// secrets: who may read what, and what comes out.
func secrets() []mutant {
	return []mutant{
		{
			"the embedded broker's URL may have parameters", "local/nats.go",
			"strings.Cut(url, \"?\")", "strings.Cut(url, \"#\")", "./local", "TestBrokerAsksForItsPassword",
		},
		{
			"the embedded broker asks for a password", "local/nats.go",
			"Username: brokerUser, Password: password,", "", "./local", "TestBrokerAsksForItsPassword",
		},
		{
			"the data directory is made private", "local/private_unix.go",
			"return ignoreMissing(root.Chmod(name, mode))", "return ignoreMissing(root.Chmod(name, mode|0o077))", "./local", "TestDirectoryIsPrivate",
		},
		{
			"somebody's other directory is left alone", "local/private_unix.go",
			"!isOurs(e.Name()) }); i >= 0 {", "!isOurs(e.Name()) }); i >= 1<<30 {", "./local", "TestDirectoryOfOthers",
		},
		{
			"a variable and its file contradict each other", "config/secretfile.go",
			"if given {\n\t\tb.problems.add", "if given && false {\n\t\tb.problems.add", "./config", "TestSecretTwice",
		},
		{
			"a password behind which the host was forgotten is hidden", "internal/redact/redact.go",
			"if n := noPort(rest); n >= 0 {", "if n := noPort(rest); n >= 1<<30 {", "./internal/redact", "TestURL",
		},
		{
			"JSON logs have no line separator of Unicode", "telemetry/json.go",
			"case !unicode.IsPrint(r):", "case r < 0xa0:", "./telemetry", "FuzzRecord",
		},
		{
			"a split service cannot overwrite its name", "internal/proc/lines.go",
			"if l.Prefix != \"\" {", "if l.Prefix == \"x\" {", "./internal/proc", "TestLines",
		},
		{
			"targets make up no codes", "internal/label/label.go",
			"if code > codes.Unauthenticated {", "if code > 1<<30 {", "./transport", "TestTargetsMakeUpNoSeries",
		},
		{
			"series are of routes, not of paths", "server/http.go",
			"m.route(x.method, x.route())", "m.route(x.method, x.req.URL.Path)", "./shop", "TestOutsidersMakeUpNoSeries",
		},
		{
			"the access log has no query", "server/http.go",
			"name: telemetry.Cut(r.URL.Path)}", "name: telemetry.Cut(r.RequestURI)}", "./shop", "TestNoSecretOfTheShopComesOut",
		},
		{
			"the span of a call has no query", "transport/trace.go",
			"telemetry.URLFull.String(shown(c.req.URL))", "telemetry.URLFull.String(c.req.URL.String())", "./shop", "TestNoSecretOfTheShopComesOut",
		},
		{
			"a problem does not show tokens", "shop/internal/rest/problem.go",
			"strings.HasSuffix(d.Location, \"token\")", "false", "./shop", "TestNoSecretOfTheShopComesOut",
		},
	}
}

// comparisons: package rollout/analysis.
func comparisons() []mutant {
	const file, pkg = "rollout/analysis/result.go", "./rollout/analysis"
	return []mutant{
		{
			"a bad version is taken back within two intervals", file,
			"float64(len(t.metrics)) / t.options.Alpha, m.Within", "1e30, m.Within", "./shop", "TestReleases/bad_by_errors",
		},
		{
			"evidence stays valid however often one looks, a p-value does not", file,
			"	worse, worseLimit, within, withinLimit := t.evidence(m)\n", `	worse, worseLimit, within, withinLimit := t.evidence(m)
	z := (share(m.Canary) - share(m.Stable)) / math.Sqrt(share(m.Stable)*(1/float64(m.Canary.Calls)+1/float64(m.Stable.Calls))+1e-9)
	worse = 2 / math.Erfc(z/math.Sqrt2)
`, pkg, "TestSimulations/all/equal,_1_%",
		},
		{
			"each metric is given its part of alpha", file,
			"float64(len(t.metrics)) / t.options.Alpha, ", "1 / t.options.Alpha, ", pkg, "TestCorrection",
		},
		{
			"the first calls of a process conclude nothing", file,
			"m.Kind != Level && min(m.Canary.Calls, m.Stable.Calls) < t.options.MinSamples:", "false:", pkg, "TestMinimumOfSamples",
		},
		{
			"a version that becomes worse after an hour is caught", "rollout/analysis/evidence.go",
			"	return 0.25 / (float64(t) * float64(t-1)), ", "	return 0, ", pkg, "TestLateRegression",
		},
		{
			"the tolerance is not promoted", "rollout/analysis/kinds.go",
			"m.Within.better(n, m.Tolerance, ts,", "m.Within.better(n, 1.5*m.Tolerance, ts,", pkg, "TestSimulations/all/1_%_errors_and_1_point",
		},
		{
			"samples that may be above the limit count as above it", "rollout/analysis/kinds.go",
			"		if w.Upper > v {", "		if w.Lower >= v {", pkg, "TestCoarseBounds",
		},
		{
			"latencies are measured finely enough for a release", "server/metrics.go",
			"NativeHistogramBucketFactor: telemetry.NativeFactor,", "NativeHistogramBucketFactor: 0 * telemetry.NativeFactor,", "./server", "TestLatenciesAreFine",
		},
		{
			"evidence against the canary survives a step", "rollout/analysis/analysis.go",
			"			m.Within = newEvidence()\n		}\n	}", "			m.Within, m.Worse = newEvidence(), newEvidence()\n		}\n	}", pkg, "TestNextStep",
		},
	}
}
