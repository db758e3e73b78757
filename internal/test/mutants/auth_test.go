package mutants

// principals: package auth.
func principals() []mutant {
	return []mutant{
		{
			"an issuer's algorithms are fixed", "auth/issuer.go",
			"if !slices.Contains(i.Algorithms, t.header.Alg) {", "if false {", "./auth", "TestHostileCredentials",
		},
		{
			"a token names its key where there are several", "auth/keys.go",
			`if kid == "" && len(s.keys) > 1 {`, `if kid == "" && len(s.keys) > 100 {`, "./auth", "TestHostileCredentials",
		},
		{
			"an extension of a token that we do not know is refused", "auth/token.go",
			"if t.header.Crit != nil || t.header.B64 != nil {", "if t.header.B64 != nil {", "./auth", "TestHostileCredentials",
		},
		{
			"a certificate alone does not say for whom a call is", "auth/auth.go",
			"who := Principal{outsider: true}", "who := Principal{}", "./auth", "TestPeerForNobody",
		},
		{
			"a redirect does not lead to a service from anywhere else", "transport/principal.go",
			"if strings.EqualFold(from, req.URL.Host) {", "if from != \"\" {", "./transport", "TestRedirectToService",
		},
		{
			"an API key follows no redirect to another host", "transport/principal.go",
			"		if away {", "		if false {", "./transport", "TestRedirectWithKey",
		},
		{
			"what was answered to one is given to nobody else", "transport/fallback.go",
			"b.WriteString(principal.Tag(ctx))", "_ = principal.Tag(ctx)", "./transport", "TestLastGoodIsForOne",
		},
		{
			"a token for one service is of no use at another", "auth/internal.go",
			"case len(c.Audience) != 1 || !c.isFor(i.name):", "case false:", "./auth", "TestReplay",
		},
		{
			"a route without a policy does not start", "auth/protect.go",
			"return fixed.check(routes, a.internal != nil || server.TLS != nil)", "_ = fixed.check(routes, a.internal != nil || server.TLS != nil); return nil",
			"./auth", "TestStart",
		},
		{
			"keys of an issuer that is away end", "auth/source.go",
			"> keepStale {", "> 100*keepStale {", "./auth", "TestIssuerAway",
		},
		{
			"what nobody asks of a service is not its own call", "auth/auth.go",
			"return a.nobody, nil", "return nil, nil", "./auth", "TestPrincipalTravels",
		},
		{
			"an issuer cannot give all scopes", "auth/issuer.go",
			"return s == allScopes })", "return false })", "./auth", "TestScopeStar",
		},
		{
			"the first keys are asked for every second", "auth/source.go",
			"within := askFirst", "within := askAgain", "./auth", "TestFirstKeysAreAskedFor",
		},
		{
			"the first keys are fetched before a call needs them", "auth/source.go",
			"pause = min(pause, askFirst)", "_ = min(pause, askFirst)", "./auth", "TestFirstKeys",
		},
		{
			"the token between services does not leave the system", "transport/principal.go",
			"c.req.Header.Del(PrincipalHeader)", "_ = PrincipalHeader", "./auth", "TestOutsideIsToldNothing",
		},
		{
			"a variable of API keys that is none is told", "config/layers.go",
			"case ok && f.dashed:", "case false:", "./config", "TestDashedNames",
		},
		{
			"DNS is not believed who a service is", "transport/principal.go",
			"if c.external {", "if false {", "./transport", "TestPrincipalGoesToServices",
		},
		{
			"all of no policies allow nobody", "auth/policy.go",
			"return len(p.of) > 0 && !slices", "return !slices", "./auth", "TestPrincipalTravels",
		},
	}
}
