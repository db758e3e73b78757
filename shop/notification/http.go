package notification

import (
	"context"
)

type mailsInput struct {
	UserID int64 `path:"user_id" minimum:"1" example:"1"`
	Limit  int   `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

type mailsOutput struct {
	Body struct {
		Mails []mail `json:"mails"`
	}
}

func (s store) get(ctx context.Context, in *mailsInput) (*mailsOutput, error) {
	mails, err := s.of(ctx, in.UserID, in.Limit)
	if err != nil {
		return nil, err
	}
	out := new(mailsOutput)
	out.Body.Mails = mails
	return out, nil
}
