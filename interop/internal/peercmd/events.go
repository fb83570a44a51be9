package peercmd

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// An Event is one line of a peer's standard output: a JSON object whose key "event" holds EventName.
type Event interface{ EventName() string }

// Events writes events, one per line. It is safe for concurrent use.
type Events struct {
	mu sync.Mutex
	w  io.Writer
}

func NewEvents(w io.Writer) *Events { return &Events{w: w} }

// Emit writes one event. A reader that has gone away is not an error: the program ends by its timeout.
func (e *Events) Emit(v Event) {
	fields, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("peercmd: event %s: %v", v.EventName(), err)) // our own types always marshal
	}
	line := fmt.Appendf(nil, `{"event":%q`, v.EventName())
	if len(fields) > len("{}") {
		line = append(append(line, ','), fields[1:]...)
	} else {
		line = append(line, '}')
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.w.Write(append(line, '\n'))
}

// What a program can do.
type Capabilities struct {
	Transports []string `json:"transports"`
	Security   []string `json:"security"`
	Muxers     []string `json:"muxers"`
	KeyTypes   []string `json:"key_types"`
	Modes      []string `json:"modes"`
}

// Listening is the first event of every mode; the addresses end in /p2p/PEER.
type Listening struct {
	Peer  string   `json:"peer"`
	Addrs []string `json:"addrs"`
}

// A connection opened or closed.
type (
	Connected struct {
		Peer      string `json:"peer"`
		Addr      string `json:"addr"`
		Direction string `json:"direction"` // inbound or outbound
		Limited   bool   `json:"limited"`
	}
	Disconnected struct {
		Peer string `json:"peer"`
		Addr string `json:"addr"`
	}
)

// Dialed says what a dial ended in; Security and Muxer are protocol IDs.
type Dialed struct {
	Peer     string  `json:"peer"`
	Addr     string  `json:"addr"`
	Millis   float64 `json:"ms"`
	Limited  bool    `json:"limited"`
	Security string  `json:"security"`
	Muxer    string  `json:"muxer"`
}

// Identify is what the remote says of itself. A listener prints it too, for each peer that it has identified.
type Identify struct {
	Peer            string   `json:"peer"`
	Agent           string   `json:"agent"`
	ProtocolVersion string   `json:"protocol_version"`
	Protocols       []string `json:"protocols"`
	ListenAddrs     []string `json:"listen_addrs"`
	Observed        string   `json:"observed"`
	SignedRecord    bool     `json:"signed_record"`
	KeyType         string   `json:"key_type"`
}

// One event per exchange of a dial, printed when it has succeeded.
type (
	Ping struct {
		RTTMillis float64 `json:"rtt_ms"`
	}
	Perf struct {
		UploadBytes    int64   `json:"upload_bytes"`
		DownloadBytes  int64   `json:"download_bytes"`
		UploadMillis   float64 `json:"upload_ms"`
		DownloadMillis float64 `json:"download_ms"`
	}
	Echo struct {
		Bytes  int64   `json:"bytes"`
		Millis float64 `json:"ms"`
	}
	Streams struct {
		Streams int     `json:"streams"`
		Bytes   int64   `json:"bytes"` // of each stream
		Millis  float64 `json:"ms"`
	}
	HalfClose struct {
		Bytes  int64   `json:"bytes"`
		Millis float64 `json:"ms"`
	}
	// Reset: the remote reset the stream. Code is absent where the implementation does not tell it.
	Reset struct {
		Code *uint32 `json:"code,omitempty"`
	}
	// Abort: this side reset the stream, with Code where the implementation can send one.
	Abort struct {
		Code *uint32 `json:"code,omitempty"`
	}
	// Push: the remote learned of a new protocol by identify push, and opened a stream with it.
	Push struct {
		Protocol string  `json:"protocol"`
		Millis   float64 `json:"ms"`
	}
)

// Aborted is a listener's: a peer reset a stream that it served.
type Aborted struct {
	Protocol string  `json:"protocol"`
	Code     *uint32 `json:"code,omitempty"`
}

// Did answers an order; Error is empty when it was carried out.
type Did struct {
	Order string `json:"order"`
	Error string `json:"error,omitempty"`
}

// Released tells how a held stream ended. Code is the connection's, absent when the connection was not closed, or the
// implementation does not tell.
type Released struct {
	Code   *uint32 `json:"code,omitempty"`
	Remote bool    `json:"remote"`
	Error  string  `json:"error"`
}

// Moved is jspeer's: the remote has told of another address.
type Moved struct {
	ListenAddrs []string `json:"listen_addrs"`
}

// Discovered is printed once per peer.
type Discovered struct {
	Peer  string   `json:"peer"`
	Addrs []string `json:"addrs"`
}

// Done is the last event of a mode that is no server and has succeeded.
type Done struct{}

func (Capabilities) EventName() string { return "capabilities" }
func (Listening) EventName() string    { return "listening" }
func (Connected) EventName() string    { return "connected" }
func (Disconnected) EventName() string { return "disconnected" }
func (Dialed) EventName() string       { return "dialed" }
func (Identify) EventName() string     { return "identify" }
func (Ping) EventName() string         { return "ping" }
func (Perf) EventName() string         { return "perf" }
func (Echo) EventName() string         { return "echo" }
func (Streams) EventName() string      { return "streams" }
func (HalfClose) EventName() string    { return "halfclose" }
func (Reset) EventName() string        { return "reset" }
func (Abort) EventName() string        { return "abort" }
func (Push) EventName() string         { return "push" }
func (Aborted) EventName() string      { return "aborted" }
func (Discovered) EventName() string   { return "discovered" }
func (Did) EventName() string          { return "did" }
func (Released) EventName() string     { return "released" }
func (Moved) EventName() string        { return "moved" }
func (Done) EventName() string         { return "done" }
