package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// The protocol with the test is one JSON object per line, requests in, replies and exits out:
//
//	← {"dir":"/tmp/taskgate-e2e-123","pid":4711}
//	→ {"id":1,"op":"start","process":7,"argv":["etcd","--version"],"env":{"A":"b"},"log":"log/etcd.log","graceMillis":0}
//	← {"id":1,"pid":4712}
//	→ {"id":2,"op":"signal","process":7,"signal":15}
//	← {"id":2}
//	→ {"id":3,"op":"stop","process":7,"graceMillis":5000}
//	← {"id":3}
//	← {"exited":7,"code":0}            or {"exited":7,"signal":9}

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
	// There is no reader once the test is gone; the closed input tells us the same.
	_, _ = os.Stdout.Write(append(line, '\n'))
}
