package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/lucid-containers/lucid/internal/oci"
)

func (a *app) specCommand() *cli.Command {
	return &cli.Command{
		Name:  "spec",
		Usage: "write a new config.json to start from",
		Flags: []cli.Flag{
			bundleFlag(),
			&cli.BoolFlag{Name: "rootless", Usage: "for a user who is not root"},
		},
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := checkArgs(cmd, 0, exactly); err != nil {
				return err
			}
			spec := oci.Example()
			if cmd.Bool("rootless") {
				oci.Rootless(spec, uint32(os.Geteuid()), uint32(os.Getegid()))
			}
			data, err := json.MarshalIndent(spec, "", "\t")
			if err != nil {
				return err
			}
			return writeNew(filepath.Join(cmd.String("bundle"), oci.ConfigFile), data)
		},
	}
}

// writeNew refuses to replace a file.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, os.ErrExist) {
		//lint:ignore ST1005 runc's words
		return fmt.Errorf("File %s exists. Remove it first", oci.ConfigFile)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
