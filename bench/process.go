package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/kith-p2p/kith/bench/internal/worker"
)

// callTimeout is how long a worker may take for one command; ten thousand dials
// take half a minute.
const callTimeout = 5 * time.Minute

// A process is a worker; see package worker.
type process struct {
	name    string
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	replies *json.Decoder
	stderr  *bytes.Buffer
}

// startProcess starts the worker in the file path. env is added to the environment.
func startProcess(name, path string, env ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(path), stderr: new(bytes.Buffer)}
	p.cmd.Stderr = p.stderr
	p.cmd.Env = append(os.Environ(), env...)
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	p.replies = json.NewDecoder(stdout)
	return p, p.cmd.Start()
}

// call gives a command and waits for the reply.
func (p *process) call(cmd worker.Command) (worker.Reply, error) {
	var reply worker.Reply
	line, err := json.Marshal(cmd)
	if err != nil {
		return reply, err
	}
	timer := time.AfterFunc(callTimeout, func() { p.cmd.Process.Kill() })
	defer timer.Stop()
	if _, err = p.stdin.Write(line); err == nil {
		err = p.replies.Decode(&reply)
	}
	if err == nil && reply.Error != "" {
		err = errors.New(reply.Error)
	}
	if err != nil {
		return reply, fmt.Errorf("%s: %s: %w\n%s", p.name, cmd.Do, err, p.stderr)
	}
	return reply, nil
}

// stop ends the process.
func (p *process) stop() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// server starts a worker with a node that listens.
func (b *bench) server(impl string, node worker.NodeConfig) (p *process, addr string, err error) {
	if p, err = b.process(impl, "server"); err != nil {
		return nil, "", err
	}
	node.Listen = true
	reply, err := p.call(worker.Command{Do: worker.Start, Node: &node})
	if err != nil {
		p.stop()
		return nil, "", err
	}
	return p, reply.Addr, nil
}

// client starts a worker and gets a load ready.
func (b *bench) client(impl string, load worker.Load) (*process, error) {
	p, err := b.process(impl, "client")
	if err != nil {
		return nil, err
	}
	if _, err := p.call(worker.Command{Do: worker.Prepare, Load: &load}); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (b *bench) process(impl, side string) (*process, error) {
	var env []string
	if b.MemProfile != "" {
		env = append(env, "GODEBUG=memprofilerate=512")
	}
	return startProcess(impl+" "+side, b.binary(impl), env...)
}
