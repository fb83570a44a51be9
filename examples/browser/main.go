// The command browser shows Kith inside a web page. It builds the node in ./node for WebAssembly, serves it with a page, and
// is itself a node that the page can ping.
//
//	go run ./examples/browser
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/multiaddr"
)

//go:embed index.html
var page []byte

func main() {
	listen := flag.String("http", "127.0.0.1:8080", "where to serve the page")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, listen string) error {
	wasm, err := build(ctx)
	if err != nil {
		return err
	}
	goroot, err := output(ctx, "go", "env", "GOROOT")
	if err != nil {
		return err
	}
	node, err := kith.Start(ctx, kith.Config{
		Listen: []multiaddr.Addr{multiaddr.MustParse("/ip4/127.0.0.1/tcp/0/ws")},
		MDNS:   kith.MDNS{Off: true},
	})
	if err != nil {
		return err
	}
	defer node.Close()

	site := http.NewServeMux()
	site.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { w.Write(page) })
	site.HandleFunc("GET /peer", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, node.P2PAddrs()[0]) })
	site.HandleFunc("GET /wasm_exec.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(strings.TrimSpace(string(goroot)), "lib/wasm/wasm_exec.js"))
	})
	site.HandleFunc("GET /node.wasm", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/wasm")
		w.Header().Set("Content-Encoding", "gzip") // no browser does without
		w.Write(wasm)
	})
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("%w: choose another address with -http", err)
	}
	fmt.Printf("http://%s\n", l.Addr())
	server := &http.Server{Handler: site, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// build makes the page's node, as small as it gets, and compresses it.
func build(ctx context.Context) ([]byte, error) {
	dir, err := os.MkdirTemp("", "kith-browser")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "node.wasm")
	if _, err := output(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, "github.com/kith-p2p/kith/examples/browser/node"); err != nil {
		return nil, err
	}
	wasm, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer wasm.Close()
	var compressed bytes.Buffer
	w, err := gzip.NewWriterLevel(&compressed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(w, wasm)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	fmt.Printf("the node has %.1f MB, compressed %.1f MB\n", float64(n)/1e6, float64(compressed.Len())/1e6)
	return compressed.Bytes(), nil
}

// output runs a program for the system that browsers have.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, fmt.Errorf("%s: %w\n%s", cmd, err, exit.Stderr)
	}
	return out, err
}
