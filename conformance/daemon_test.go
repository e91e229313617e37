package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Long enough for a loaded machine; neither is reached by a daemon that works.
const (
	startTimeout = 20 * time.Second
	stopTimeout  = 20 * time.Second
)

// daemon is one running snapshotter with a root of its own.
type daemon struct {
	process     *exec.Cmd
	ended       chan error
	connection  *grpc.ClientConn
	snapshotter snapshots.Snapshotter
	root        string
	directory   string
	logFile     string
}

// startDaemon runs a command line, in which {addr} and {root} stand for the socket and the root directory, and waits for
// the socket.
func startDaemon(command, root string) (*daemon, error) {
	// Not in TMPDIR: the path of a socket has 107 bytes at most.
	directory, err := os.MkdirTemp("/tmp", "conformance-")
	if err != nil {
		return nil, err
	}
	d := &daemon{root: root, directory: directory, logFile: filepath.Join(directory, "log"), ended: make(chan error, 1)}
	address := filepath.Join(directory, "snapshotter.sock")
	arguments := strings.Fields(command)
	for i, argument := range arguments {
		arguments[i] = strings.NewReplacer("{addr}", address, "{root}", root).Replace(argument)
	}
	log, err := os.Create(d.logFile)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	d.process = exec.Command(arguments[0], arguments[1:]...)
	d.process.Stdout, d.process.Stderr = log, log
	// Nothing that this machine's user has configured may matter, and whatever the daemon leaves running can be found by
	// its process group.
	d.process.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + directory, "RUST_BACKTRACE=1"}
	d.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.process.Start(); err != nil {
		return nil, err
	}
	go func() { d.ended <- d.process.Wait() }()

	started := false
	defer func() {
		if !started {
			os.RemoveAll(directory)
		}
	}()
	deadline := time.After(startTimeout)
	for {
		if c, err := net.Dial("unix", address); err == nil {
			c.Close()
			break
		}
		select {
		case err := <-d.ended:
			return nil, d.explain(fmt.Errorf("the daemon ended before it listened: %v", err))
		case <-deadline:
			d.process.Process.Kill()
			return nil, d.explain(fmt.Errorf("the daemon does not listen after %s", startTimeout))
		case <-time.After(10 * time.Millisecond):
		}
	}
	d.connection, err = grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		d.process.Process.Kill()
		return nil, err
	}
	started = true
	d.snapshotter = proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(d.connection), suiteName)
	return d, nil
}

// stop ends the daemon as systemd does and looks for what it left behind. The error has everything that was wrong, and
// the daemon's log.
func (d *daemon) stop() error {
	defer os.RemoveAll(d.directory)
	d.connection.Close()
	wrong := d.terminate()
	if group := -d.process.Process.Pid; syscall.Kill(group, 0) == nil {
		wrong = errors.Join(wrong, errors.New("the daemon left processes running"))
		syscall.Kill(group, syscall.SIGKILL)
	}
	if left := mountsBelow(d.root); len(left) > 0 {
		wrong = errors.Join(wrong, fmt.Errorf("left mounted: %s", strings.Join(left, ", ")))
	}
	// Mounts of a case that failed count as that failure, not as leftovers of the daemon.
	if err := detachBelow(filepath.Dir(d.root)); err != nil {
		wrong = errors.Join(wrong, err)
	}
	if log, _ := os.ReadFile(d.logFile); bytes.Contains(log, []byte("panicked at")) {
		wrong = errors.Join(wrong, errors.New("the daemon panicked"))
	}
	if wrong != nil {
		return d.explain(wrong)
	}
	return nil
}

// terminate sends SIGTERM; the daemon must still be there, and must end soon with status 0.
func (d *daemon) terminate() error {
	select {
	case err := <-d.ended:
		return fmt.Errorf("the daemon ended by itself: %v", err)
	default:
	}
	if err := d.process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-d.ended:
		if err != nil {
			return fmt.Errorf("the daemon ended on SIGTERM with %v", err)
		}
		return nil
	case <-time.After(stopTimeout):
		// A trace of where it hangs would be better; the signal at least ends it.
		d.process.Process.Kill()
		<-d.ended
		return fmt.Errorf("the daemon did not end within %s of SIGTERM", stopTimeout)
	}
}

// explain adds the end of the daemon's log to an error.
func (d *daemon) explain(err error) error {
	log, readError := os.ReadFile(d.logFile)
	if readError != nil {
		return errors.Join(err, readError)
	}
	const most = 16 << 10
	if len(log) > most {
		log = append([]byte("...\n"), log[len(log)-most:]...)
	}
	return fmt.Errorf("%w\n--- log of the daemon ---\n%s--- end of the log ---", err, log)
}
