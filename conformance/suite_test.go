package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
)

// suiteName is the name under which both run. The suite excuses some snapshotters from some cases by their name
// (overlayfs from renaming a directory of a lower layer, for one); under a name it does not know, nobody is excused and
// the two results can be compared.
const suiteName = "soci"

// TestDaemon runs the suite against the program that commandVariable names.
func TestDaemon(t *testing.T) {
	command := os.Getenv(commandVariable)
	if command == "" {
		t.Skipf("%s is not set: run this by `go run .`", commandVariable)
	}
	testsuite.SnapshotterSuite(t, suiteName, func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		daemon, err := startDaemon(command, root)
		if err != nil {
			return nil, nil, err
		}
		end := func() error {
			// Emptied first, while somebody answers.
			return errors.Join(removeAll(ctx, daemon.snapshotter, filepath.Join(root, "snapshotter", "snapshots")), daemon.stop())
		}
		return daemon.snapshotter, end, nil
	})
}

// TestOverlayfs runs the suite against containerd's own overlayfs snapshotter in this process: what this kernel and this
// file system can do.
func TestOverlayfs(t *testing.T) {
	testsuite.SnapshotterSuite(t, suiteName, func(_ context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		snapshotter, err := overlay.NewSnapshotter(root)
		if err != nil {
			return nil, nil, err
		}
		return snapshotter, func() error { return errors.Join(snapshotter.Close(), detachBelow(filepath.Dir(root))) }, nil
	})
}
