package mutants

// edge: what comes from outside, in packages gateway and server.
func edge() []mutant {
	return []mutant{
		{
			"an internal token from outside counts for nothing, good as it may be", "gateway/check.go",
			"if trusted && key == transport.PrincipalHeader {", "if trusted || key == transport.PrincipalHeader {", "./gateway", "TestStolenToken",
		},
		{
			"a problem whose body the deadline cuts becomes the gateway's", "gateway/proxy.go",
			"return complete(r)", "return nil", "./gateway", "TestProblemWithoutEnd",
		},
		{
			"a socket whose service has gone does not keep the gateway from stopping", "gateway/answer.go",
			"_ = conn.SetReadDeadline(time.Unix(1, 0))", "_ = conn.SetWriteDeadline(time.Unix(1, 0))", "./gateway", "TestSocketWithOneEnd",
		},
		{
			"X_Forwarded_For does not get through as another name", "gateway/check.go",
			"case !isPlain(name), slices", "case false, slices", "./gateway", "TestHeadersFromOutside",
		},
		{
			"a path that leads up is refused", "gateway/check.go",
			`if part == "." || part == ".." ||`, `if part == "." ||`, "./gateway", "TestSpellings",
		},
		{
			"a path that leads up once it is decoded twice is refused", "gateway/check.go",
			"for range 2 {", "for range 1 {", "./gateway", "TestSpellings",
		},
		{
			"what a caller has shown is not passed on", "gateway/proxy.go",
			"for _, name := range credentials {", "for _, name := range credentials[:0] {", "./gateway", "TestHeadersFromOutside",
		},
		{
			"a page of another origin opens no WebSocket", "gateway/answer.go",
			"if asker = &as; upgrade {", "if asker = &as; false {", "./gateway", "TestOtherOrigins",
		},
		{
			"the marks of services do not leave the system", "gateway/proxy.go",
			`case hasPrefix(name, "Kaptar-", "Access-Control-")`, `case hasPrefix(name, "Access-Control-")`, "./gateway", "TestAnswers",
		},
		{
			"no proxy can ask for /metrics", "server/server.go",
			"s.opts.AdminFrom == nil || direct &&", "s.opts.AdminFrom == nil || (direct || true) &&", "./server", "TestAdminFrom",
		},
		{
			"a stranger's trace is not ours", "server/http.go",
			"if trusted || !caller.IsValid() {", "if true || trusted {", "./server", "TestTraceFrom",
		},
		{
			"a folded line is refused", "server/room.go",
			"case !wholeLines(head):", "case false && !wholeLines(head):", "./server", "TestALengthToldTwiceIsRefused",
		},
	}
}
