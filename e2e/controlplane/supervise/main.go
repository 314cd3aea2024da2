// Command supervise keeps the processes of one test control plane, and leaves
// nothing behind whatever becomes of the test.
//
// A test cannot promise that itself: no code of it runs after SIGKILL,
// and a static is never dropped. So the test starts this program and holds the
// other end of its standard input. When that pipe closes, in whatever way the
// test ended, every process is stopped and the directory removed. Should this
// program be killed too, the kernel kills its children (PR_SET_PDEATHSIG).
//
// The protocol is in protocol.go. Standard library only, so that it builds in a second.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
)

// What is left when the test has ended.
const (
	keepNothing = "nothing"
	keepLogs    = "logs" // the log folder
	keepAll     = "all"  // everything goes on until SIGTERM
)

type supervisor struct {
	dir string

	out sync.Mutex // one line at a time

	mu      sync.Mutex
	running map[int]*process
}

func main() {
	keep := flag.String("keep", keepNothing, "what is left when the test has ended: nothing, logs or all")
	flag.Parse()

	// PR_SET_PDEATHSIG is about the thread that forked, so every child is started
	// by the main thread, which lives as long as this program.
	runtime.LockOSThread()

	// Notified rather than ignored: an ignored signal would be inherited by the
	// children. A terminal's Ctrl-C reaches the test, and us through the pipe.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)

	s := &supervisor{running: map[int]*process{}}
	dir, err := os.MkdirTemp("", "taskgate-e2e-")
	if err == nil {
		s.dir = dir
		err = errors.Join(os.Chdir(dir), s.openLog())
	}
	if err != nil {
		s.send(reply{Error: err.Error()})
		os.Exit(1)
	}
	s.send(reply{Dir: dir, PID: os.Getpid()})

	requests := readRequests(os.Stdin)
	for {
		select {
		case r, open := <-requests:
			if open {
				s.answer(r)
				continue
			}
			if *keep == keepAll {
				requests = nil
				continue
			}
		case sig := <-signals:
			// Only our own user ends a control plane that is kept.
			if sig != syscall.SIGTERM || requests != nil {
				continue
			}
		}
		s.stopAll()
		s.complain(s.remove(*keep))
		return
	}
}

// openLog gives this program's own complaints a place: it outlives the test and
// must not hold on to the test's terminal.
func (s *supervisor) openLog() error {
	if err := os.Mkdir(filepath.Join(s.dir, "log"), 0o700); err != nil {
		return err
	}
	log, err := openAppend(filepath.Join(s.dir, "log", "supervise.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	return syscall.Dup3(int(log.Fd()), int(os.Stderr.Fd()), 0)
}

func (s *supervisor) complain(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func (s *supervisor) remove(keep string) error {
	if keep != keepLogs {
		return os.RemoveAll(s.dir)
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var failed error
	for _, entry := range entries {
		if entry.Name() != "log" {
			failed = errors.Join(failed, os.RemoveAll(filepath.Join(s.dir, entry.Name())))
		}
	}
	return failed
}

func openAppend(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}
