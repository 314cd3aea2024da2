package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// A process that was started, until it has been reaped.
type process struct {
	pid   int
	grace time.Duration
	done  chan struct{}
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
