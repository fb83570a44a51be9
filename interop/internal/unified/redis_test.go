package unified

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

func TestReply(t *testing.T) {
	for _, test := range []struct {
		in   string
		want []string
		bad  string // the error's text; "": none
	}{
		{"+OK\r\n", []string{"OK"}, ""},
		{":1\r\n", []string{"1"}, ""},
		{"$5\r\na\r\nbc\r\n", []string{"a\r\nbc"}, ""},
		{"$0\r\n\r\n", []string{""}, ""},
		{"$-1\r\n", nil, ""},
		{"*2\r\n$3\r\nkey\r\n$4\r\naddr\r\n", []string{"key", "addr"}, ""},
		{"*0\r\n", []string{}, ""},
		{"*-1\r\n", nil, ""},

		{"-WRONGTYPE Operation against a key\r\n", nil, "WRONGTYPE"},
		{"", nil, "EOF"},
		{"+OK", nil, "EOF"},
		{"+OK\n", nil, "reply line"},
		{"\r\n", nil, "reply line"},
		{"$5\r\nabc", nil, "EOF"},
		{"$3\r\nabcde", nil, "goes on"},
		{"$4097\r\n", nil, "at most 4096"},
		{"$99999999999999999999\r\n", nil, "at most 4096"},
		{"$x\r\n", nil, "at most 4096"},
		{"*9\r\n", nil, "at most 8"},
		{"*1\r\n*1\r\n$1\r\na\r\n", nil, "unknown type"},
		{"%1\r\n", nil, "unknown type"},
		{"+" + strings.Repeat("a", maxReplyLine) + "\r\n", nil, "buffer full"},
	} {
		got, err := readReply(bufio.NewReaderSize(strings.NewReader(test.in), maxReplyLine))
		if test.bad == "" && (err != nil || !slices.Equal(got, test.want) || (got == nil) != (test.want == nil)) {
			t.Errorf("%.40q: got %q, %v; want %q", test.in, got, err, test.want)
		}
		if test.bad != "" && (err == nil || !strings.Contains(err.Error(), test.bad)) {
			t.Errorf("%.40q: got %q, %v; want an error with %q", test.in, got, err, test.bad)
		}
	}
}

func FuzzReply(f *testing.F) {
	for _, seed := range []string{"+OK\r\n", ":12\r\n", "-ERR x\r\n", "$3\r\nabc\r\n", "$-1\r\n", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		items, err := readReply(bufio.NewReaderSize(strings.NewReader(in), maxReplyLine))
		if err != nil {
			return
		}
		if len(items) > maxReplyArray {
			t.Fatalf("%d items", len(items))
		}
		for _, item := range items {
			if len(item) > maxReplyBulk || !strings.Contains(in, item) {
				t.Fatalf("item %q", item)
			}
		}
	})
}

// TestRedisCommand checks the bytes of a command, and that everything ends with the context.
func TestRedisCommand(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := dialRedis(ctx, server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	remote, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()

	if _, err := io.WriteString(remote, "+OK\r\n"); err != nil { // the reply is there before the question
		t.Fatal(err)
	}
	reply, err := r.do("SET", "key", "/ip4/127.0.0.1/tcp/1")
	if err != nil || !slices.Equal(reply, []string{"OK"}) {
		t.Fatalf("reply %q, %v", reply, err)
	}
	const want = "*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$20\r\n/ip4/127.0.0.1/tcp/1\r\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(remote, got); err != nil || string(got) != want {
		t.Errorf("sent %q, %v; want %q", got, err, want)
	}

	waiting := make(chan error)
	go func() {
		_, err := r.do("BLPOP", "key", "0")
		waiting <- err
	}()
	if _, err := io.ReadFull(remote, make([]byte, len("*3\r\n$5\r\nBLPOP\r\n$3\r\nkey\r\n$1\r\n0\r\n"))); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a command under way when the context ended: %v", err)
	}
}
