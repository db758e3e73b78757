package main

import "strings"

// edgeAttacks are what the real gateway refuses or removes; package gateway has the whole corpus, and
// what a service sees of each.
func edgeAttacks() (all []attack) {
	tea := "GET /v1/stock/tea"
	for _, path := range []string{
		"/v1/stock/../users/1", "/v1/stock/%2e%2e/users/1", "/v1/stock/%252e%252e/users/1", "/v1/stock/..;/users/1", `/v1/stock/..\users`, "//v1/stock/tea",
		"/v1/stock/%5ctea", "/v1/stock/tea#", "/v1/stock/%c0%ae%c0%ae/users",
	} {
		all = append(all, attack{name: "path " + path, request: form("GET "+path, ""), status: []int{400}})
	}
	for _, path := range []string{"/metrics", "/livez", "/readyz", "/%6detrics"} {
		all = append(all, attack{name: path + " by way of a proxy", request: form("GET "+path, "", "X-Forwarded-For: 127.0.0.1"), status: []int{404}})
	}
	for _, path := range []string{"/v1/metrics", "/v1/stock%2Ftea", "/debug/pprof/", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"} {
		all = append(all, attack{name: "route that there is not: " + path, request: form("GET "+path, ""), status: []int{404}})
	}
	for _, method := range []string{"TRACE", "get", "CONNECT", "PROPFIND"} {
		all = append(all, attack{name: method, request: form(method+" /v1/stock/tea", ""), status: []int{405}})
	}
	for _, header := range []string{
		"X-HTTP-Method-Override: DELETE", "X-Original-URL: /metrics", "X_Forwarded_For: 10.0.0.1", "Kaptar-Principal: x", "Kaptar-Overload: x", "X-Request-Timeout-Ms: 0",
		"Forwarded: for=10.0.0.1", "Baggage: a=b", "grpc-timeout: 1n", "Connection: Kaptar-Principal, X-Forwarded-For", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
	} {
		all = append(all, attack{name: header, request: form(tea, "", header), status: []int{200}})
	}
	return append(all,
		attack{name: "folded line", request: form(tea, "", "X-A: b\r\n Content-Length: 5"), status: []int{400}},
		attack{name: "LF alone", request: form(tea, "", "X-A: b\nX-B: c"), status: []int{400}},
		attack{name: "space before the colon", request: form(tea, "", "Transfer-Encoding : chunked"), status: []int{400}},
		attack{name: "list of lengths", request: form(anUpload, "hello", "Content-Length: 5, 5"), status: []int{400}},
		attack{name: "two content types", request: form(tea, "", "Content-Type: text/plain"), status: []int{400}},
		attack{name: "preflight of a stranger", request: form("OPTIONS /v1/orders", "", "Origin: https://evil.example", "Access-Control-Request-Method: POST"), status: []int{403}},
		attack{name: "order of a stranger's page", request: sized(anUpload, anOrder, "Origin: https://evil.example"), status: []int{403}},
		attack{name: "WebSocket of a stranger's page", request: strings.Replace(form(tea, "", "Upgrade: websocket", "Origin: https://evil.example"), "Connection: close", "Connection: Upgrade", 1), status: []int{403}},
	)
}
