package unified

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// Bounds of what a Redis server can send us: the only values are multiaddrs, the largest reply is BLPOP's two.
const (
	maxReplyLine  = 512
	maxReplyBulk  = 4096
	maxReplyArray = 8
)

// redialInterval is how long to wait for a Redis server that does not answer yet.
const redialInterval = 500 * time.Millisecond

// redis is a client of the few commands of RESP 2 that the contracts use. It is not safe for concurrent use.
// https://redis.io/docs/latest/develop/reference/protocol-spec/
type redis struct {
	conn net.Conn
	r    *bufio.Reader
	stop func() bool // lets go of the context
}

// dialRedis connects, again and again until ctx ends: in a test the server may start after us. Whatever the client does
// afterwards ends with ctx, too.
func dialRedis(ctx context.Context, addr string) (*redis, error) {
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			return &redis{conn, bufio.NewReaderSize(conn, maxReplyLine), context.AfterFunc(ctx, func() { conn.Close() })}, nil
		}
		select {
		case <-time.After(redialInterval):
		case <-ctx.Done():
			return nil, fmt.Errorf("redis: %w (last: %w)", context.Cause(ctx), err)
		}
	}
}

func (c *redis) Close() error {
	c.stop()
	return c.conn.Close()
}

// do sends one command and returns its reply: the items of an array, one item for every other reply, none for nil.
func (c *redis) do(args ...string) ([]string, error) {
	command := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, a := range args {
		command = fmt.Appendf(command, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := c.conn.Write(command); err != nil {
		return nil, fmt.Errorf("redis: %s: %w", args[0], err)
	}
	reply, err := readReply(c.r)
	if err != nil {
		return nil, fmt.Errorf("redis: %s: %w", args[0], err)
	}
	return reply, nil
}

// readReply reads one reply. r's buffer holds the longest line.
func readReply(r *bufio.Reader) ([]string, error) {
	kind, text, err := readLine(r)
	if err != nil {
		return nil, err
	}
	if kind != '*' {
		return readItem(r, kind, text)
	}
	n, err := strconv.Atoi(text)
	switch {
	case err != nil || n > maxReplyArray:
		return nil, fmt.Errorf("array of %q items, want at most %d", text, maxReplyArray)
	case n < 0:
		return nil, nil
	}
	items := []string{}
	for range n {
		kind, text, err := readLine(r)
		if err != nil {
			return nil, err
		}
		item, err := readItem(r, kind, text)
		if err != nil {
			return nil, err
		}
		items = append(items, item...)
	}
	return items, nil
}

// readItem reads what is no array.
func readItem(r *bufio.Reader, kind byte, text string) ([]string, error) {
	switch kind {
	case '+', ':':
		return []string{text}, nil
	case '-':
		return nil, errors.New(text)
	case '$':
		n, err := strconv.Atoi(text)
		switch {
		case err != nil || n > maxReplyBulk:
			return nil, fmt.Errorf("string of %q bytes, want at most %d", text, maxReplyBulk)
		case n < 0:
			return nil, nil
		}
		value := make([]byte, n+len("\r\n"))
		if _, err := io.ReadFull(r, value); err != nil {
			return nil, err
		}
		if string(value[n:]) != "\r\n" {
			return nil, errors.New("a string that goes on after its end")
		}
		return []string{string(value[:n])}, nil
	}
	return nil, fmt.Errorf("reply of unknown type %q", kind)
}

func readLine(r *bufio.Reader) (kind byte, text string, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, "", err
	}
	if len(line) < len("+\r\n") || line[len(line)-2] != '\r' {
		return 0, "", fmt.Errorf("reply line %q", line)
	}
	return line[0], string(line[1 : len(line)-2]), nil
}
