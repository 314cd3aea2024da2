// Command supervise keeps the processes of one test control plane, and leaves
// nothing behind whatever becomes of the test.
//
// A test cannot promise that itself: nobody runs its destructors after SIGKILL,
// and a static is never dropped. So the test starts this program and holds the
// other end of its standard input. When that pipe closes, in whatever way the
// test ended, every process is stopped and the directory removed. Should this
// program be killed too, the kernel kills its children (PR_SET_PDEATHSIG).
//
// The protocol is one JSON object per line, requests in, replies and exits out:
//
//	← {"dir":"/tmp/taskgate-e2e-123","pid":4711}
//	→ {"id":1,"op":"start","process":7,"argv":["etcd","--version"],"env":{"A":"b"},"log":"log/etcd.log","graceMillis":0}
//	← {"id":1,"pid":4712}
//	→ {"id":2,"op":"signal","process":7,"signal":15}
//	← {"id":2}
//	→ {"id":3,"op":"stop","process":7,"graceMillis":5000}
//	← {"id":3}
//	← {"exited":7,"code":0}            or {"exited":7,"signal":9}
//
// Standard library only, so that it builds in a second.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// What is left when the test has ended.
const (
	keepNothing = "nothing"
	keepLogs    = "logs" // the log folder
	keepAll     = "all"  // everything goes on until SIGTERM
)

type request struct {
	ID          int               `json:"id"`
	Op          string            `json:"op"`
	Process     int               `json:"process"`
	Argv        []string          `json:"argv"`
	Env         map[string]string `json:"env"`
	Log         string            `json:"log"`
	GraceMillis int               `json:"graceMillis"`
	Signal      int               `json:"signal"`
}

type reply struct {
	ID     int    `json:"id,omitempty"`
	Error  string `json:"error,omitempty"`
	Dir    string `json:"dir,omitempty"`
	PID    int    `json:"pid,omitempty"`
	Exited int    `json:"exited,omitempty"`
	Code   *int   `json:"code,omitempty"`
	Signal *int   `json:"signal,omitempty"`
}

// A process that was started, until it has been reaped.
type process struct {
	pid   int
	grace time.Duration
	done  chan struct{}
}

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

func readRequests(in io.Reader) <-chan request {
	requests := make(chan request)
	go func() {
		defer close(requests)
		lines := json.NewDecoder(bufio.NewReader(in))
		for {
			var r request
			if err := lines.Decode(&r); err != nil {
				if !errors.Is(err, io.EOF) {
					fmt.Fprintln(os.Stderr, "reading a request:", err)
				}
				return
			}
			requests <- r
		}
	}()
	return requests
}

func (s *supervisor) answer(r request) {
	answer := reply{ID: r.ID}
	var err error
	switch r.Op {
	case "start":
		answer.PID, err = s.start(r)
	case "stop":
		go s.stop(r.Process, time.Duration(r.GraceMillis)*time.Millisecond)
	case "signal":
		err = s.signal(r.Process, syscall.Signal(r.Signal))
	default:
		err = fmt.Errorf("unknown operation %q", r.Op)
	}
	if err != nil {
		answer.Error = err.Error()
	}
	s.send(answer)
}

func (s *supervisor) send(r reply) {
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	s.out.Lock()
	defer s.out.Unlock()
	// Nobody reads once the test is gone; the closed input tells us the same.
	_, _ = os.Stdout.Write(append(line, '\n'))
}

func (s *supervisor) start(r request) (int, error) {
	if len(r.Argv) == 0 {
		return 0, errors.New("nothing to start")
	}
	log, err := openAppend(filepath.Join(s.dir, r.Log))
	if err != nil {
		return 0, err
	}
	defer log.Close()

	cmd := exec.Command(r.Argv[0], r.Argv[1:]...)
	cmd.Dir = s.dir
	cmd.Env = os.Environ()
	for name, value := range r.Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	p := &process{
		pid:   cmd.Process.Pid,
		grace: time.Duration(r.GraceMillis) * time.Millisecond,
		done:  make(chan struct{}),
	}
	s.mu.Lock()
	s.running[r.Process] = p
	s.mu.Unlock()
	go s.reap(r.Process, p, cmd)
	return p.pid, nil
}

func (s *supervisor) reap(id int, p *process, cmd *exec.Cmd) {
	_ = cmd.Wait() // how it ended is in ProcessState

	s.mu.Lock()
	delete(s.running, id)
	s.mu.Unlock()
	// Whatever it started shares its group and must not outlive it.
	_ = syscall.Kill(-p.pid, syscall.SIGKILL)

	exit := reply{Exited: id}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		exit.Signal = new(int(status.Signal()))
	} else {
		exit.Code = new(status.ExitStatus())
	}
	s.send(exit)
	close(p.done)
}

// signal reaches the whole process group; a process that has ended is no error,
// as it may have done so while the request was on its way.
func (s *supervisor) signal(id int, sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.running[id]
	if !ok {
		return nil
	}
	if err := syscall.Kill(-p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %d to process group %d: %w", sig, p.pid, err)
	}
	return nil
}

// stop asks a process to end, waits for the grace at most, and kills it.
func (s *supervisor) stop(id int, grace time.Duration) {
	s.mu.Lock()
	p, ok := s.running[id]
	s.mu.Unlock()
	if !ok {
		return
	}
	if grace > 0 {
		s.complain(s.signal(id, syscall.SIGTERM))
		s.complain(s.signal(id, syscall.SIGCONT)) // a paused process cannot end
		select {
		case <-p.done:
			return
		case <-time.After(grace):
		}
	}
	s.complain(s.signal(id, syscall.SIGKILL))
	<-p.done
}

// stopAll stops first what was given time to end: it may need the others for that.
func (s *supervisor) stopAll() {
	for _, patient := range []bool{true, false} {
		var stopping sync.WaitGroup
		s.mu.Lock()
		for id, p := range s.running {
			if !patient || p.grace > 0 {
				stopping.Go(func() { s.stop(id, p.grace) })
			}
		}
		s.mu.Unlock()
		stopping.Wait()
	}
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
