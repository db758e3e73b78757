package user

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
)

// listPage is how many users ListUsers reads at once: slow readers keep no connection.
const listPage = 200

// rpc is UserService.
type rpc struct {
	userv1.UnimplementedUserServiceServer
	store store
	get   func(ctx context.Context, id int64) (user, error) // through the cache
}

func (r *rpc) GetUser(ctx context.Context, req *userv1.GetUserRequest) (*userv1.GetUserResponse, error) {
	if req.GetId() <= 0 {
		return nil, status.Errorf(codes.InvalidArgument, "id %d: expected a positive number", req.GetId())
	}
	u, err := r.get(ctx, req.GetId())
	if errors.Is(err, errNotFound) {
		return nil, status.Errorf(codes.NotFound, "there is no user %d", req.GetId())
	}
	if err != nil {
		return nil, err
	}
	return &userv1.GetUserResponse{User: message(u)}, nil
}

func (r *rpc) ListUsers(req *userv1.ListUsersRequest, stream grpc.ServerStreamingServer[userv1.ListUsersResponse]) error {
	for last := req.GetAfterId(); ; {
		users, err := r.store.after(stream.Context(), last, listPage)
		if err != nil {
			return err
		}
		for _, u := range users {
			if err := stream.Send(&userv1.ListUsersResponse{User: message(u)}); err != nil {
				return err
			}
			last = u.ID
		}
		if len(users) < listPage {
			return nil
		}
	}
}

func message(u user) *userv1.User {
	m := &userv1.User{Id: u.ID, Username: u.Username, Email: u.Email}
	u.fill(m)
	return m
}
