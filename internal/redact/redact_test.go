package redact_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/redact"
)

// forms are how people write addresses with passwords, rightly and wrongly, and what is shown of them. Every secret has "pw" in it.
func forms() map[string]string {
	return map[string]string{
		// Without a secret.
		"":                         "",
		"nats://localhost:4222":    "nats://localhost:4222",
		"sqlite:users.db":          "sqlite:users.db",
		"kafka://h1:9092,h2:9092":  "kafka://h1:9092,h2:9092",
		"kafka://h1,h2?sasl=plain": "kafka://h1,h2?sasl=plain",
		"nats://[::1]:4222":        "nats://[::1]:4222",
		"nats://[::1]":             "nats://[::1]",
		"http://h:80/a/b?q=1#top":  "http://h:80/a/b?q=1#top",
		"static:a=http://h:1":      "static:a=http://h:1",
		"unix:/run/db.sock":        "unix:/run/db.sock",
		"dial tcp 127.0.0.1:1: connect: connection refused":   "dial tcp 127.0.0.1:1: connect: connection refused",
		`dial "nats://h:4222": refused`:                       `dial "nats://h:4222": refused`,
		"host=h user=u dbname=d":                              "host=h user=u dbname=d",
		"http://h?author=ada&design=x&passage":                "http://h?author=ada&design=x&passage",
		"postgres://h/db?sslmode=verify-full&sslrootcert=/ca": "postgres://h/db?sslmode=verify-full&sslrootcert=/ca",
		"http://127.0.0.1:4317/v1/traces":                     "http://127.0.0.1:4317/v1/traces",
		"consul://h:8500?ttl=10s":                             "consul://h:8500?ttl=10s",
		"kubernetes://namespace":                              "kubernetes://namespace",
		"https://h/path/with:colon":                           "https://h/path/with:colon",
		"user@host":                                           "xxxxx@host",
		"nats://ada:pw@h:4222":                                "nats://ada:xxxxx@h:4222",
		"nats://pwtoken@h:4222":                               "nats://xxxxx@h:4222",
		"nats://:pw@h":                                        "nats://:xxxxx@h",
		"nats://ada:@h":                                       "nats://ada:xxxxx@h",
		"ada:pw@h":                                            "ada:xxxxx@h",
		"//ada:pw@h":                                          "//ada:xxxxx@h",
		"postgres:/ada:pw@h":                                  "postgres:xxxxx@h",
		"postgres:ada:pw@h":                                   "postgres:xxxxx@h",
		"POSTGRES://ada:pw@h":                                 "POSTGRES://ada:xxxxx@h",
		"ada:pw@tcp(h:3306)/db?x=y":                           "ada:xxxxx@tcp(h:3306)/db?x=y",
		"ada:pw@/db":                                          "ada:xxxxx@/db",
		"jdbc:postgresql://ada:pw@h/db":                       "jdbc:postgresql://ada:xxxxx@h/db",
		"jdbc:postgresql://h/db?user=u&password=pw":           "jdbc:postgresql://h/db?user=u&password=xxxxx",
		"jdbc:sqlserver://h:1433;user=u;password=pw":          "jdbc:sqlserver://h:1433;user=u;password=xxxxx",
		"static:bank=http://ada:pw@h:1":                       "static:bank=http://ada:xxxxx@h:1",
		"nats://a:pw@h1,nats://b:pw2@h2":                      "nats://a:xxxxx@h1,nats://b:xxxxx@h2",
		"nats://a:pw@h1,h2":                                   "nats://a:xxxxx@h1,h2",
		"nats://a:pw@h1 nats://b:pw@h2":                       "nats://a:xxxxx@h2",
		"amqp://ada:pw@h1,h2/v":                               "amqp://ada:xxxxx@h1,h2/v",
		"nats://a:pw@[::1]:4222":                              "nats://a:xxxxx@[::1]:4222",
		"mongodb+srv://ada:pw@h/?authSource=admin":            "mongodb+srv://ada:xxxxx@h/?authSource=admin",
		"redis://:pw":                                         "redis://xxxxx",
		"redis://:pw/0":                                       "redis://xxxxx",
		"redis://:123pw":                                      "redis://xxxxx",
		"redis://ada:pw":                                      "redis://ada:xxxxx",
		"redis://ada:pw/0?x=y":                                "redis://ada:xxxxx",
		"redis://ada:pw%40h:6379":                             "redis://ada:xxxxx",
		"kafka://h1:9092,ada:pw,h2":                           "kafka://h1:9092,ada:xxxxx",
		"nats://ada%3Apw@h":                                   "nats://xxxxx@h",
		"nats://ada:%70%77@h":                                 "nats://ada:xxxxx@h",
		// A password with characters that ought to be encoded.
		"nats://ada:p@spw@h":           "nats://ada:xxxxx@h",
		"nats://ada:p@ss/pw%zz@h:4222": "nats://ada:xxxxx@h:4222",
		"nats://ada:/pw@h":             "nats://ada:xxxxx@h",
		"nats://ada:#pw@h":             "nats://ada:xxxxx@h",
		"nats://ada:?pw@h":             "nats://ada:xxxxx@h",
		"nats://ada:a=pw@h":            "nats://ada:xxxxx@h",
		"nats://ada:x&pw@h":            "nats://ada:xxxxx@h",
		"nats://ada:x;pw@h":            "nats://ada:xxxxx@h",
		"nats://ada:x:pw@h":            "nats://ada:xxxxx@h",
		"nats://ada:x pw@h":            "nats://ada:xxxxx@h",
		"nats://ada:x\npw@h":           "nats://ada:xxxxx@h",
		"nats://ada:a,pw@h1,h2":        "nats://ada:xxxxx@h1,h2",
		"nats://a:,pw@h1,nats://b:,@h": "nats://a:xxxxx@h1,nats://b:xxxxx@h",
		"nats://ada:pass=pw@h":         "nats://ada:xxxxx@h",
		"nats://ada:x?token=pw@h":      "nats://ada:xxxxx",
		"nats://ada:x?y@h?TOKEN=pw":    "nats://ada:xxxxx@h?TOKEN=xxxxx",
		"nats://ada:\xffpw@h":          "nats://ada:xxxxx@h",
		// Parameters.
		"postgres://h/db?user=u&password=p%40pw&sslmode=disable": "postgres://h/db?user=u&password=xxxxx&sslmode=disable",
		"postgres://h/db?password=p@spw":                         "postgres://h/db?password=xxxxx",
		"postgres://ada:pw@h/db?password=p@spw":                  "postgres://ada:xxxxx@h/db?password=xxxxx",
		"postgres://h/db?password=x;pw&a=b":                      "postgres://h/db?password=xxxxx&a=b",
		"postgres://h/db?password=x&pw&a=b":                      "postgres://h/db?password=xxxxx&a=b",
		"postgres://h/db?password=x#pw":                          "postgres://h/db?password=xxxxx",
		"postgres://h/db?a=b;password=pw":                        "postgres://h/db?a=b;password=xxxxx",
		"postgres://h/db?pass%77ord=pw":                          "postgres://h/db?pass%77ord=xxxxx",
		"postgres://h/db?sslpassword=pw&sslkey=/pw.key":          "postgres://h/db?sslpassword=xxxxx&sslkey=xxxxx",
		"postgres://h/db?PassWord=pw":                            "postgres://h/db?PassWord=xxxxx",
		"postgres://h/db?passfile=/var/pw":                       "postgres://h/db?passfile=xxxxx",
		"kafka://h?sasl.password=pw&sasl=plain":                  "kafka://h?sasl.password=xxxxx&sasl=plain",
		"kafka://h?sasl_jaas_token=pw":                           "kafka://h?sasl_jaas_token=xxxxx",
		"https://h/cb#access_token=pw":                           "https://h/cb#access_token=xxxxx",
		"https://h?X-Amz-Signature=pw&X-Amz-Date=1":              "https://h?X-Amz-Signature=xxxxx&X-Amz-Date=1",
		"https://h?sv=1&sig=pw":                                  "https://h?sv=1&sig=xxxxx",
		"https://h?auth=pw&api_key=pw&client_secret=pw":          "https://h?auth=xxxxx&api_key=xxxxx&client_secret=xxxxx",
		"https://h?session_id=pw;jwt=pw":                         "https://h?session_id=xxxxx",
		"/path?token=pw&q=1":                                     "/path?token=xxxxx",
		// Lists of names and values.
		"host=h user=u password=pw dbname=d":          "host=h user=u password=xxxxx dbname=d",
		"host=h password=p@spw user=u":                "host=h password=xxxxx user=u",
		"host=h password = pw user=u":                 "host=h password =xxxxx user=u",
		"host=h password='p w pw' user=u":             "host=h password=xxxxx user=u",
		`host=h password='it\'s pw' user=u`:           "host=h password=xxxxx user=u",
		`host=h password='it''s pw' user=u`:           "host=h password=xxxxx user=u",
		"host=h password='pw":                         "host=h password=xxxxx",
		"Server=h;User Id=u;Password=pw;":             "Server=h;User Id=u;Password=xxxxx",
		"Driver={x};Pwd={a;pw};Server=h":              "Driver={x};Pwd=xxxxx;Server=h",
		"AccountName=a;AccountKey=pw==":               "AccountName=a;AccountKey=xxxxx",
		`parse "nats://ada:pw%zz@h": invalid escape`:  `parse "nats://ada:xxxxx@h": invalid escape`,
		"cannot open host=h password=pw: refused":     "cannot open host=h password=xxxxx refused",
		"token=pw-http://h":                           "token=xxxxxh",
		"static:bank=http://h?password=pw,b=http://h": "static:bank=http://h?password=xxxxx,b=http://h",
	}
}

func TestURL(t *testing.T) {
	t.Parallel()
	for in, want := range forms() {
		got := redact.URL(in)
		if got != want {
			t.Errorf("URL(%q) = %q, want %q", in, got, want)
		}
	}
	if n := len(forms()); n < 80 {
		t.Errorf("%d forms", n)
	}
}

// FuzzURL: no password comes out, whatever else is in it, unless it looks like the rest of a URL or has a quote that does not end.
func FuzzURL(f *testing.F) {
	for in := range forms() {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, junk string) {
		const canary = "c4nary"
		if strings.Contains(junk, "://") || strings.Contains(junk, "@") && strings.Contains(junk, "=") || junk != "" && junk[0] >= '0' && junk[0] <= '9' {
			return
		}
		all := []string{"nats://u:" + junk + canary + junk + "@h", "nats://h?password=" + canary + strings.ReplaceAll(junk, "&", "%26")}
		if !strings.ContainsAny(junk, "'\"`{\\") {
			all = append(all, junk+" password='"+canary)
		}
		if !strings.Contains(junk, "=") {
			all = append(all, "u:"+junk+canary+junk+"@h")
		}
		for _, in := range all {
			if got := redact.URL(in); strings.Contains(got, canary) {
				t.Errorf("URL(%q) = %q", in, got)
			}
		}
	})
}

// TestLongTexts: the time grows with the length alone; at its square this would take minutes.
func TestLongTexts(t *testing.T) {
	t.Parallel()
	for _, piece := range []string{",", "a,", "://,", "@", "&", "?a=b&", "password=&", "password=x&y", "a:b@", " = ", "'", ":", "[", "%"} {
		for _, head := range []string{"", "nats://", "nats://u:", "password="} {
			begun := time.Now()
			redact.URL(head + strings.Repeat(piece, 1<<18/len(piece)))
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("a quarter of a megabyte of %q after %q took %v", piece, head, took)
			}
		}
	}
}
