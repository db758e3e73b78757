package notification

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

func routes(api huma.API, mails store) {
	huma.Register(api, huma.Operation{
		OperationID: "list-mails", Summary: "List the mails to a user, newest first", Tags: []string{"mails"},
		Method: http.MethodGet, Path: "/mails/{user_id}",
	}, mails.get)
}

type mailsInput struct {
	UserID int64 `path:"user_id" minimum:"1" example:"1"`
	Limit  int   `query:"limit" minimum:"1" maximum:"100" default:"100"`
}

type mailBody struct {
	ID      int64     `json:"id" example:"1"`
	Subject string    `json:"subject" example:"Order 7 is confirmed"`
	Body    string    `json:"body"`
	SentAt  time.Time `json:"sent_at"`
}

type mailsOutput struct {
	Body struct {
		Mails []mailBody `json:"mails"`
	}
}

func (s store) get(ctx context.Context, in *mailsInput) (*mailsOutput, error) {
	mails, err := s.of(ctx, in.UserID, in.Limit)
	if err != nil {
		return nil, err
	}
	out := new(mailsOutput)
	out.Body.Mails = make([]mailBody, len(mails)) // [] rather than null when there are none
	for i, m := range mails {
		out.Body.Mails[i] = mailBody(m)
	}
	return out, nil
}
