package mutants

// access: who may do what in the shop, and what a stranger can cost it.
func access() []mutant {
	return []mutant{
		{
			"orders are listed for their user", "shop/order/service.go",
			"\"GET /orders/{user_id}\":                        readers,", "\"GET /orders/{user_id}\": auth.Authenticated(),", "./shop", "TestAccess",
		},
		{
			"nobody orders in another's name", "shop/order/http.go",
			"auth.Any(ownerOf(in.Body.UserID), auth.Scope(\"orders:write\"))", "auth.Authenticated()", "./shop", "TestAccess",
		},
		{
			"an order is read by its user over gRPC too", "shop/order/rpc.go",
			"auth.Any(ownerOf(o.UserID), auth.Scope(\"orders:read\"))", "auth.Authenticated()", "./shop", "TestAccess",
		},
		{
			"stock is set with a scope", "shop/inventory/service.go",
			"auth.Any(auth.Scope(\"stock:write\"), auth.Service(\"customers\"))", "auth.Authenticated()", "./shop", "TestAccess",
		},
		{
			"order-service alone charges", "shop/payment/service.go",
			"auth.Service(\"order-service\")", "auth.Authenticated()", "./shop", "TestAccess",
		},
		{
			"a payment is shown to its user", "shop/payment/http.go",
			"auth.Scope(\"payments:read\"))) != nil {", "auth.Scope(\"payments:read\"))) != nil && false {", "./shop", "TestAccess",
		},
		{
			"private answers are not stored", "shop/internal/rest/rest.go",
			"ctx.SetHeader(\"Cache-Control\", \"no-store\")", "_ = ctx", "./shop/internal/rest", "TestPolicies",
		},
		{
			"a problem tells some mistakes, not all", "shop/internal/rest/problem.go",
			"if i == maxErrors {", "if i == 1<<30 {", "./shop/internal/rest", "TestManyMistakes",
		},
		{
			"the answer to a large body can be read", "server/body.go",
			"_, _ = io.CopyN(io.Discard, b.raw, lingerMost)", "_ = b.raw", "./server", "TestAnswerToALargeBody",
		},
		{
			"an event that refuses itself is a dead letter", "messaging/upcast.go",
			"err := v.Validate(); err", "err := v.Validate(); false && err", "./messaging", "TestValidate",
		},
		{
			"sums of sales end at the largest integer", "shop/analytics/store.go",
			"WHEN totals.value > 9223372036854775807 - excluded.value THEN", "WHEN totals.value < 0 THEN", "./shop/analytics", "TestStore",
		},
	}
}
