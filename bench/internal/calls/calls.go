// Package calls measures one and the same call through several stacks, side by side in one process:
// GET /users/{id} with 78 bytes of JSON in its answer, or the unary RPC GetUser. Client and server
// share the process and talk over loopback, except in the stacks that stay within the process.
//
// The stacks take turns, slice by slice, in an order that rotates with the round, so that whatever
// else the machine does meets all of them. A slice during which others used the CPU is measured
// again. What counts is the median of the ratios of single rounds. Before and after its slices each
// stack proves that what it is said to do is on: spans, metrics and log lines are counted and must
// equal the calls.
package calls

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
)

// Protocols of a Stack, which are also the groups of the table.
const (
	HTTP      = "HTTP"
	GRPC      = "gRPC"
	InProcess = "in process"
	Guarded   = "protected"
)

// A Stack is one way to make the call.
type Stack struct {
	Name     string
	Protocol string
	Base     string // name of the stack that it is compared with; its own for a base
	On       string // what is on, for people
	Features Features
	// Start starts server and client. What it opens is closed by Running.Stop.
	Start func(ctx context.Context, env *Env) (*Running, error)
}

// Features are what one call leaves behind when it is sampled. The zero value is a bare stack.
type Features struct {
	ServerSpans, ClientSpans     int // of these kinds; the former are children of the latter
	ServerMetrics, ClientMetrics int // added to the counters that Running.Metrics returns
	Lines                        int // of log
}

// Running is a stack that was started.
type Running struct {
	Call func(ctx context.Context) error // makes one call and checks the answer; called concurrently
	Stop func() error
	// Use, if set, is called before each slice: stacks with global state put theirs in force.
	Use func()
	// Flush sends the spans that are queued to Env.Spans, which is to have n of them if none was
	// lost; nil for a stack without.
	Flush func(ctx context.Context, n int64) error
	// Metrics returns how many calls the metrics of both sides have counted; nil for a stack without.
	Metrics func() (server, client float64, err error)
}

// Env is what a stack gets to start with.
type Env struct {
	Sampling float64 // share of the traces that are recorded, from 0 to 1
	Spans    *Spans  // where recorded spans go
	Lines    *Lines  // where the log goes
}

// A User is the answer of the call.
type User struct {
	ID       int64  `json:"id"`
	Username string `json:"username"`
	Email    string `json:"email"`
}

// UserID is the user that all calls ask for, over HTTP with Path.
const (
	UserID = 1234567890
	Path   = "/users/1234567890"
)

var errAnswer = errors.New("not the answer that was expected")

// FindUser is the server's work: it answers 78 bytes as JSON.
func FindUser(id int64) User {
	return User{ID: id, Username: "ada.lovelace", Email: "ada.lovelace@example.com"}
}

// Check returns an error if u is not the answer for UserID.
func Check(u User) error {
	if u != FindUser(UserID) {
		return fmt.Errorf("%w: %+v", errAnswer, u)
	}
	return nil
}

// GetUser is FindUser as a handler for "GET /users/{id}" of a http.ServeMux.
func GetUser(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	body, err := json.Marshal(FindUser(id))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // the client notices
}

// Get makes the call with a http.Client. header is a name and a value, or nothing.
func Get(ctx context.Context, c *http.Client, url string, header ...string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if len(header) == 2 {
		req.Header.Set(header[0], header[1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	return Answer(resp)
}

// Answer reads a response and checks it.
func Answer(resp *http.Response) error {
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // it was read
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: %s: %s", errAnswer, resp.Status, body)
	}
	var u User
	if err := json.Unmarshal(body, &u); err != nil {
		return err
	}
	return Check(u)
}

// Users serves the RPC.
type Users struct {
	userv1.UnimplementedUserServiceServer
}

// GetUser answers what FindUser finds.
func (Users) GetUser(_ context.Context, in *userv1.GetUserRequest) (*userv1.GetUserResponse, error) {
	u := FindUser(in.GetId())
	return &userv1.GetUserResponse{User: &userv1.User{Id: u.ID, Username: u.Username, Email: u.Email}}, nil
}

// GetUserRPC makes the call over gRPC.
func GetUserRPC(ctx context.Context, c userv1.UserServiceClient) error {
	out, err := c.GetUser(ctx, &userv1.GetUserRequest{Id: UserID})
	if err != nil {
		return err
	}
	u := out.GetUser()
	return Check(User{u.GetId(), u.GetUsername(), u.GetEmail()})
}
