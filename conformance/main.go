// Command conformance judges a containerd snapshotter by containerd's own test suite, with containerd's overlayfs
// snapshotter as the measure: what overlayfs passes on this kernel, the daemon must pass.
//
//	go run . [-daemon "PATH --address {addr} --root {root}"] [-verbose]
//
// It runs the two tests of this directory and prints a table. The exit status is 1 when the daemon fails a case that
// overlayfs passes. Needs root.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// commandVariable names the variable that hands the command line of the daemon to TestDaemon.
const commandVariable = "CONFORMANCE_DAEMON"

// event is what `go test -json` says, as far as it matters here; see `go doc test2json`.
type event struct {
	Action string
	Test   string
	Output string
}

// outcome is how a case ended, and what it said.
type outcome struct {
	action string
	output strings.Builder
}

// results are the outcomes of the cases of one test, by name, and the names in the order of their beginning.
type results struct {
	cases map[string]*outcome
	order []string
}

func main() {
	command := flag.String("daemon", "../target/debug/soci-snapshotter-grpc --address {addr} --root {root}",
		"command line of the daemon; {addr} and {root} stand for its socket and its root directory")
	verbose := flag.Bool("verbose", false, "show what go test says while it runs")
	flag.Parse()
	if err := run(*command, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(command string, verbose bool) error {
	if os.Getuid() != 0 {
		return errors.New("this needs root")
	}
	command, err := absolute(command)
	if err != nil {
		return err
	}
	tests, rest, err := runTests(command, verbose)
	if err != nil {
		return err
	}
	daemon, overlayfs := tests["TestDaemon"], tests["TestOverlayfs"]
	if daemon == nil || overlayfs == nil || len(overlayfs.order) == 0 {
		return fmt.Errorf("the suite did not run:\n%s", rest)
	}
	return judge(os.Stdout, daemon, overlayfs)
}

// absolute makes the program of a command line independent of the working directory.
func absolute(command string) (string, error) {
	program, arguments, _ := strings.Cut(strings.TrimSpace(command), " ")
	path, err := exec.LookPath(program)
	if err != nil {
		return "", err
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", err
	}
	if strings.ContainsAny(path, " \t") {
		return "", fmt.Errorf("%s: a path with blanks cannot stand in a command line", path)
	}
	return path + " " + arguments, nil
}

// runTests runs both tests; the second value is what was said outside of any test, such as a compiler's complaint.
func runTests(command string, verbose bool) (map[string]*results, string, error) {
	run := exec.Command("go", "test", "-count=1", "-json", "-timeout=10m", "-run=^(TestDaemon|TestOverlayfs)$", ".")
	run.Env = append(os.Environ(), commandVariable+"="+command)
	var rest bytes.Buffer
	run.Stderr = &rest
	pipe, err := run.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := run.Start(); err != nil {
		return nil, "", err
	}
	tests := map[string]*results{}
	lines := bufio.NewReader(pipe)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			collect(tests, line, &rest, verbose)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, "", err
		}
	}
	// Its status only says that some case failed, which the events say better.
	var exit *exec.ExitError
	if err := run.Wait(); err != nil && !errors.As(err, &exit) {
		return nil, "", err
	}
	return tests, rest.String(), nil
}

// collect adds one line of `go test -json` to the results.
func collect(tests map[string]*results, line []byte, rest io.Writer, verbose bool) {
	var e event
	if json.Unmarshal(line, &e) != nil {
		rest.Write(line)
		return
	}
	if verbose {
		fmt.Fprint(os.Stderr, e.Output)
	}
	test, name, isCase := strings.Cut(e.Test, "/")
	if test == "" {
		io.WriteString(rest, e.Output)
		return
	}
	if tests[test] == nil {
		tests[test] = &results{cases: map[string]*outcome{}}
	}
	if !isCase {
		return
	}
	r := tests[test]
	if r.cases[name] == nil {
		r.cases[name] = &outcome{}
		r.order = append(r.order, name)
	}
	switch e.Action {
	case "output":
		r.cases[name].output.WriteString(e.Output)
	case "pass", "fail", "skip":
		r.cases[name].action = e.Action
	}
}

// word is what the table says of a case: also a case that never came to its end has an outcome.
func (r *results) word(name string) string {
	o := r.cases[name]
	switch {
	case o == nil:
		return "missing"
	case o.action == "":
		return "no end"
	default:
		return o.action
	}
}

// judge prints the table and what the daemon's failures said. The error says how many cases count against the daemon.
func judge(out io.Writer, daemon, overlayfs *results) error {
	fmt.Fprintf(out, "%-32s %-10s %-10s\n", "case", "overlayfs", "daemon")
	var against, shared []string
	passed := map[string]int{}
	for _, name := range overlayfs.order {
		measure, own, remark := overlayfs.word(name), daemon.word(name), ""
		if measure == "pass" {
			passed["overlayfs"]++
		}
		switch {
		case own == "pass":
			passed["daemon"]++
		case measure == "pass":
			against = append(against, name)
			remark = "<-- counts"
		default:
			shared = append(shared, name)
			remark = "not on this kernel"
		}
		fmt.Fprintf(out, "%-32s %-10s %-10s %s\n", name, measure, own, remark)
	}
	total := len(overlayfs.order)
	fmt.Fprintf(out, "\noverlayfs passes %d of %d, the daemon %d\n", passed["overlayfs"], total, passed["daemon"])
	if len(shared) > 0 {
		fmt.Fprintf(out, "neither passes: %s\n", strings.Join(shared, ", "))
	}
	for _, name := range against {
		if o := daemon.cases[name]; o != nil {
			fmt.Fprintf(out, "\n=== %s\n%s", name, readable(o.output.String()))
		}
	}
	switch {
	case passed["overlayfs"] == 0:
		return errors.New("overlayfs passes nothing, so there is nothing to measure by")
	case len(against) > 0:
		return fmt.Errorf("the daemon fails %d that overlayfs passes: %s", len(against), strings.Join(against, ", "))
	}
	return nil
}

// readable leaves out what containerd's packages log, and the middle of endless lines: mount options name every layer.
func readable(output string) string {
	const most = 600
	var kept strings.Builder
	for _, line := range strings.SplitAfter(output, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "log_hook.go:") || strings.HasPrefix(line, "=== ") {
			continue
		}
		if len(line) > most {
			line = line[:most/2] + " ... " + line[len(line)-most/2:]
		}
		kept.WriteString(line)
	}
	return kept.String()
}
