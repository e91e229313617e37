package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"
)

// removeAll removes every snapshot, children before parents, and looks whether the space is given back. A case may leave
// any snapshots behind; none may be impossible to remove.
func removeAll(ctx context.Context, snapshotter snapshots.Snapshotter, directory string) error {
	parents := map[string]string{}
	if err := snapshotter.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		parents[info.Name] = info.Parent
		return nil
	}); err != nil {
		return fmt.Errorf("listing what the case left: %w", err)
	}
	for len(parents) > 0 {
		children := map[string]int{}
		for _, parent := range parents {
			children[parent]++
		}
		removed := 0
		for name := range parents {
			if children[name] > 0 {
				continue
			}
			if err := snapshotter.Remove(ctx, name); err != nil {
				return fmt.Errorf("removing %s: %w", name, err)
			}
			delete(parents, name)
			removed++
		}
		if removed == 0 {
			return fmt.Errorf("snapshots that are each other's parents: %v", parents)
		}
	}
	if cleaner, ok := snapshotter.(snapshots.Cleaner); ok {
		if err := cleaner.Cleanup(ctx); err != nil {
			return fmt.Errorf("cleaning up: %w", err)
		}
	}
	left, err := os.ReadDir(directory)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(left) > 0 {
		names := make([]string, len(left))
		for i, entry := range left {
			names[i] = entry.Name()
		}
		return fmt.Errorf("directories of removed snapshots are left: %s", strings.Join(names, ", "))
	}
	return nil
}

// mountsBelow lists the mount points of this mount namespace at and below a directory, the deepest last.
func mountsBelow(directory string) []string {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for _, line := range strings.Split(string(table), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		if at := fields[4]; at == directory || strings.HasPrefix(at, directory+"/") {
			found = append(found, at)
		}
	}
	sort.Strings(found)
	return found
}

// detachBelow takes away every mount below a directory, so that it can be removed.
func detachBelow(directory string) error {
	found := mountsBelow(directory)
	var wrong error
	for i := len(found) - 1; i >= 0; i-- {
		if err := unix.Unmount(found[i], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			wrong = errors.Join(wrong, fmt.Errorf("unmounting %s: %w", found[i], err))
		}
	}
	return wrong
}
