package server_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/server"
)

type jsonOrder struct {
	ID    int `json:"id"`
	Items []struct {
		SKU string `json:"sku"`
	} `json:"items"`
}

// readsJSON answers with the problem of ReadJSON, or 200.
func readsJSON(w http.ResponseWriter, r *http.Request) {
	var v jsonOrder
	if p := server.ReadJSON(r, &v); p != nil {
		server.WriteProblem(w, r, *p)
		return
	}
	if v.ID != 7 {
		http.Error(w, "not read", http.StatusInternalServerError)
	}
}

func zipped(t *testing.T, n int) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.CopyN(z, zeros{}, int64(n))
	if err != nil || z.Close() != nil {
		t.Fatal("gzip:", err)
	}
	return b.String()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestReadJSON(t *testing.T) {
	t.Parallel()
	s := setup(t, server.Options{MaxBody: 2000})
	s.HandleFunc("POST /orders", readsJSON)
	served := httptest.NewServer(s.Handler())
	t.Cleanup(served.Close)
	bare := httptest.NewServer(http.HandlerFunc(readsJSON))
	t.Cleanup(bare.Close)
	const good = `{"id":7,"items":[{"sku":"tea"}]}`
	for name, tc := range map[string]struct {
		url, contentType, encoding, body string
		status                           int
		location                         string
	}{
		"good":                      {served.URL, "application/json", "", good, 200, ""},
		"good, with a charset":      {served.URL, "application/json; charset=utf-8", "identity", good, 200, ""},
		"good, another JSON":        {served.URL, "application/merge-patch+json", "", good, 200, ""},
		"good, without a Server":    {bare.URL, "application/json", "", good, 200, ""},
		"no content type":           {served.URL, "", "", good, 415, "header.Content-Type"},
		"a form":                    {served.URL, "application/x-www-form-urlencoded", "", good, 415, "header.Content-Type"},
		"text":                      {served.URL, "text/plain", "", good, 415, "header.Content-Type"},
		"a type that is none":       {served.URL, "application/json; =", "", good, 415, "header.Content-Type"},
		"gzip":                      {served.URL, "application/json", "gzip", zipped(t, 1000), 415, "header.Content-Encoding"},
		"a bomb of gzip":            {served.URL, "application/json", "gzip", zipped(t, 1<<20), 415, "header.Content-Encoding"},
		"another compression":       {served.URL, "application/json", "br", good, 415, "header.Content-Encoding"},
		"too large":                 {served.URL, "application/json", "", good + strings.Repeat(" ", 2000), 413, ""},
		"too large, no Server":      {bare.URL, "application/json", "", good + strings.Repeat(" ", 1<<20), 413, "body"},
		"another type, deep inside": {served.URL, "application/json", "", `{"items":[{},{"sku":1}]}`, 400, "body.items.sku"},
		"twice":                     {served.URL, "application/json", "", `{"id":6,"id":7}`, 400, "body.id"},
		"twice, deep inside":        {served.URL, "application/json", "", `{"items":[{},{"sku":"a","sku":"b"}]}`, 400, "body.items[1].sku"},
		"capitals":                  {served.URL, "application/json", "", `{"Id":7}`, 400, "body.Id"},
		"unknown":                   {served.URL, "application/json", "", `{"id":7,"admin":true}`, 400, "body.admin"},
		"array":                     {served.URL, "application/json", "", `[]`, 400, "body"},
		"deep":                      {served.URL, "application/json", "", strings.Repeat("[", 900), 400, "body[0]"},
		"not UTF-8":                 {served.URL, "application/json", "", "\"\xff\"", 400, "body"},
		"cut":                       {served.URL, "application/json", "", `{"id":7`, 400, "body"},
		"empty":                     {served.URL, "application/json", "", ``, 400, "body"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			post := func(body, contentType, encoding string) (int, string) {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, tc.url+"/orders", strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				r.Header = http.Header{"Content-Type": {contentType}, "Content-Encoding": {encoding}}
				resp, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				return resp.StatusCode, string(text)
			}
			status, text := post(tc.body, tc.contentType, tc.encoding)
			if status != tc.status || tc.location != "" && !strings.Contains(text, `"location":"`+tc.location) {
				t.Errorf("status %d with %s, want %d at %q", status, text, tc.status, tc.location)
			}
			if status, text := post(good, "application/json", ""); status != 200 {
				t.Errorf("a good request after it: %d %s", status, text)
			}
		})
	}
}

// TestMaxBodyBoundsForms: what ParseMultipartForm keeps, in memory and in files, is no more than
// MaxBody, however the form is cut into parts.
func TestMaxBodyBoundsForms(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	const limit = 100_000
	form := func(parts, size int) (contentType, body string) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		for range parts {
			part, err := w.CreateFormFile("f", "a.bin")
			if err == nil {
				_, err = io.CopyN(part, zeros{}, int64(size))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return w.FormDataContentType(), b.String()
	}
	files := func() (n int, bytes int64) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			n, bytes = n+1, bytes+info.Size()
		}
		return n, bytes
	}
	// A copy at each level, as authentication makes one.
	copies := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(context.WithoutCancel(r.Context())))
		})
	}
	around := []func(http.Handler) http.Handler{copies}
	s := setup(t, server.Options{MaxBody: limit, Middleware: around, RouteMiddleware: around})
	s.HandleFunc("POST /upload", func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(0); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
		if _, n := files(); n > limit {
			t.Errorf("%d bytes in files, want at most %d", n, limit)
		}
	})
	up := httptest.NewServer(s.Handler())
	defer up.Close()
	for name, tc := range map[string]struct{ parts, size, status int }{
		"one part":         {1, 90_000, 200},
		"one large part":   {1, 1 << 20, 413},
		"many parts":       {20, 10_000, 413},
		"thousands":        {5_000, 1, 413},
		"more than 1,000":  {1_001, 0, 413},
		"hundreds, in all": {500, 1, 200},
	} {
		contentType, body := form(tc.parts, tc.size)
		resp, err := http.Post(up.URL+"/upload", contentType, strings.NewReader(body))
		if err != nil {
			t.Fatal(name, err)
		}
		resp.Body.Close()
		if resp.StatusCode != tc.status {
			t.Errorf("%s: status %d, want %d", name, resp.StatusCode, tc.status)
		}
	}
	up.Close()
	if n, bytes := files(); n != 0 {
		t.Errorf("%d temporary files of %d bytes are left, want none", n, bytes)
	}
}
