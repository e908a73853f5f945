package shim

import (
	"context"
	"errors"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lucid-containers/lucid/internal/runtime"
)

// register offers the task service under both names. The messages of v2 and
// v3 are the same but for the name of their package, which does not travel, so one
// table does for both; the generated code for v3 would bring gRPC along (6 MB).
func register(server *ttrpc.Server, s task.TTRPCTaskService) {
	methods := map[string]ttrpc.Method{
		"State":      method(s.State),
		"Create":     method(s.Create),
		"Start":      method(s.Start),
		"Delete":     method(s.Delete),
		"Pids":       method(s.Pids),
		"Pause":      method(s.Pause),
		"Resume":     method(s.Resume),
		"Checkpoint": method(s.Checkpoint),
		"Kill":       method(s.Kill),
		"Exec":       method(s.Exec),
		"ResizePty":  method(s.ResizePty),
		"CloseIO":    method(s.CloseIO),
		"Update":     method(s.Update),
		"Wait":       method(s.Wait),
		"Stats":      method(s.Stats),
		"Connect":    method(s.Connect),
		"Shutdown":   method(s.Shutdown),
	}
	for _, name := range []string{"containerd.task.v2.Task", "containerd.task.v3.Task"} {
		server.RegisterService(name, &ttrpc.ServiceDesc{Methods: methods})
	}
}

// method decodes a request and gives errors the codes that containerd knows.
func method[Req, Resp any](call func(context.Context, *Req) (*Resp, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		req := new(Req)
		if err := unmarshal(req); err != nil {
			return nil, err
		}
		resp, err := call(ctx, req)
		if err != nil {
			return nil, coded(err)
		}
		return resp, nil
	}
}

// coded adds a gRPC code to an error that has none.
func coded(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	code := codes.Unknown
	switch {
	case errors.Is(err, runtime.ErrNotExist), errors.Is(err, runtime.ErrNotRunning):
		code = codes.NotFound
	case errors.Is(err, runtime.ErrExist):
		code = codes.AlreadyExists
	case errors.Is(err, runtime.ErrInvalidID):
		code = codes.InvalidArgument
	case errors.Is(err, runtime.ErrExecStopped), errors.Is(err, runtime.ErrExecPaused), errors.Is(err, runtime.ErrExecCreated),
		errors.Is(err, runtime.ErrNotPaused), errors.Is(err, runtime.ErrStartRunning), errors.Is(err, runtime.ErrStartStopped):
		code = codes.FailedPrecondition
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}
	return status.Error(code, err.Error())
}
