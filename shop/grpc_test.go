package main

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// TestGRPC calls user-service the way grpcurl does: nothing is known of it but
// what its reflection service tells.
func TestGRPC(t *testing.T) {
	t.Parallel()
	s := open(t, "")
	id := s.signUp("ada")
	conn, err := grpc.NewClient(s.GRPC("user-service"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	health, err := healthpb.NewHealthClient(conn).Check(ctx, new(healthpb.HealthCheckRequest))
	if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: got %v, %v, want SERVING", health, err)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "x-api-key", s.operator())
	in, out := reflected(ctx, t, conn, "user.v1.UserService", "GetUser")
	idField := in.Descriptor().Fields().ByName("id")
	for _, c := range []struct {
		id   int64
		code codes.Code
	}{{id, codes.OK}, {999, codes.NotFound}, {0, codes.InvalidArgument}} {
		in.Set(idField, protoreflect.ValueOfInt64(c.id))
		err := conn.Invoke(ctx, "/user.v1.UserService/GetUser", in, out)
		if status.Code(err) != c.code {
			t.Errorf("GetUser %d: got %v, want %v", c.id, err, c.code)
		}
		if c.code != codes.OK {
			continue
		}
		user := out.Get(out.Descriptor().Fields().ByName("user")).Message()
		if got := user.Get(user.Descriptor().Fields().ByName("email")).String(); got != "ada@example.com" {
			t.Errorf("GetUser %d: got email %q, want ada@example.com", c.id, got)
		}
	}
}

// reflected asks the server for the method's types.
func reflected(ctx context.Context, t *testing.T, conn *grpc.ClientConn, service, method string) (in, out *dynamicpb.Message) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service}}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	files := new(descriptorpb.FileDescriptorSet)
	for _, raw := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
		file := new(descriptorpb.FileDescriptorProto)
		if err := proto.Unmarshal(raw, file); err != nil {
			t.Fatal(err)
		}
		files.File = append(files.File, file)
	}
	registry, err := protodesc.NewFiles(files)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files.GetFile() {
		desc, err := registry.FindFileByPath(file.GetName())
		if err != nil {
			t.Fatal(err)
		}
		if s := desc.Services().ByName("UserService"); s != nil {
			m := s.Methods().ByName("GetUser")
			return dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
		}
	}
	t.Fatalf("the reflection of %s does not describe %s", service, method)
	return nil, nil
}
