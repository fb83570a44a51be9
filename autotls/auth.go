package autotls

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/kith-p2p/kith/internal/wire"
	"github.com/kith-p2p/kith/peer"
)

const (
	// authScheme is the scheme's name, and the prefix of what is signed.
	// https://github.com/libp2p/specs/blob/master/http/peer-id-auth.md#signing
	authScheme = "libp2p-PeerID"

	// maxAuthHeader is what the specification suggests, in bytes.
	// https://github.com/libp2p/specs/blob/master/http/peer-id-auth.md#considerations-for-implementations
	maxAuthHeader = 2048
	// minChallenge is the shortest challenge that is signed, in characters, so that
	// nobody collects signatures for all there are. go-libp2p wants as many.
	minChallenge = 32
)

// An authClient sends requests as a peer, to a server that proves to be one too.
// It is not safe for concurrent use.
type authClient struct {
	key    peer.PrivateKey
	http   *http.Client
	agent  string
	bearer string // what the server gave us in place of another handshake; or empty
}

// An answer is a response with its body.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// post sends body to u. Nothing but the proof of who we are is sent before the
// server has shown that it can sign. An answer that is not an error may have any
// status.
func (c *authClient) post(ctx context.Context, u *url.URL, body []byte) (answer, error) {
	if c.bearer != "" {
		a, err := c.send(ctx, u, authHeader("bearer", c.bearer), body)
		if err != nil || a.status != http.StatusUnauthorized {
			return a, err
		}
		// It has expired, and the answer may begin a handshake.
		c.bearer = ""
		if p, err := parseAuth(a.header.Values("WWW-Authenticate")); err == nil && p.challengeClient != "" {
			return c.answerServer(ctx, u, p, body)
		}
	}

	us := c.key.Public().Marshal()
	challenge := newChallenge()
	a, err := c.send(ctx, u, authHeader("challenge-server", challenge, "public-key", encode64(us)), nil)
	if err != nil {
		return answer{}, err
	}
	if a.status != http.StatusUnauthorized {
		return answer{}, fmt.Errorf("it does not ask who we are, but answers %d %.200q", a.status, a.body)
	}
	p, err := parseAuth(a.header.Values("WWW-Authenticate"))
	if err != nil {
		return answer{}, err
	}
	if p.sig == "" {
		return c.answerServer(ctx, u, p, body) // it would rather begin itself
	}
	if err := verifyServer(p, p.publicKey, us, challenge, u.Hostname()); err != nil {
		return answer{}, err
	}
	sig, err := c.sign(p, u.Hostname())
	if err != nil {
		return answer{}, err
	}
	a, err = c.send(ctx, u, authHeader("opaque", p.opaque, "sig", encode64(sig)), body)
	if err != nil {
		return answer{}, err
	}
	if info, err := parseAuth(a.header.Values("Authentication-Info")); err == nil {
		c.bearer = info.bearer
	}
	return a, nil
}

// answerServer goes on with a handshake that the server began with p.
func (c *authClient) answerServer(ctx context.Context, u *url.URL, p authParams, body []byte) (answer, error) {
	sig, err := c.sign(p, u.Hostname())
	if err != nil {
		return answer{}, err
	}
	us := c.key.Public().Marshal()
	challenge := newChallenge()
	a, err := c.send(ctx, u, authHeader("public-key", encode64(us), "opaque", p.opaque,
		"challenge-server", challenge, "sig", encode64(sig)), nil)
	if err != nil {
		return answer{}, err
	}
	info, err := parseAuth(a.header.Values("Authentication-Info"))
	if err != nil {
		return answer{}, fmt.Errorf("our proof of who we are was answered with %d %.200q: %w", a.status, a.body, err)
	}
	if err := verifyServer(info, p.publicKey, us, challenge, u.Hostname()); err != nil {
		return answer{}, err
	}
	if info.bearer == "" {
		return answer{}, errors.New("a handshake that ends without a token")
	}
	c.bearer = info.bearer
	return c.send(ctx, u, authHeader("bearer", c.bearer), body)
}

// sign answers the challenge in p.
func (c *authClient) sign(p authParams, hostname string) ([]byte, error) {
	if len(p.challengeClient) < minChallenge {
		return nil, fmt.Errorf("a challenge of %d characters: %d are the least that is signed", len(p.challengeClient), minChallenge)
	}
	server, err := decode64(p.publicKey)
	if err != nil || len(server) == 0 {
		return nil, errors.New("a challenge without the server's public key")
	}
	return c.key.Sign(signed("challenge-client", p.challengeClient, "hostname", hostname, "server-public-key", string(server)))
}

// verifyServer checks that the server, whose public key is given in base64, signed
// our challenge.
func verifyServer(p authParams, key string, us []byte, challenge, hostname string) error {
	raw, err := decode64(key)
	if err != nil {
		return fmt.Errorf("the server's public key: %w", err)
	}
	pub, err := peer.UnmarshalPublicKey(raw)
	if err != nil {
		return fmt.Errorf("the server's public key: %w", err)
	}
	sig, err := decode64(p.sig)
	if err != nil {
		return fmt.Errorf("the server's signature: %w", err)
	}
	if !pub.Verify(signed("challenge-server", challenge, "client-public-key", string(us), "hostname", hostname), sig) {
		return errors.New("the server does not prove that it has the key it shows: a proxy may be between, or the name is not its own")
	}
	return nil
}

func (c *authClient) send(ctx context.Context, u *url.URL, auth string, body []byte) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", auth)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", c.agent)
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body) // bounded by the client
	if err != nil {
		return answer{}, err
	}
	return answer{resp.StatusCode, resp.Header, text}, nil
}

// authParams are the parameters of the scheme, as they were sent.
// https://github.com/libp2p/specs/blob/master/http/peer-id-auth.md#parameters
type authParams struct {
	challengeClient, challengeServer, publicKey, sig, opaque, bearer string
}

// parseAuth finds the scheme among the challenges, or credentials, in the values of
// a header. RFC 9110 sections 5.6, 11.2 to 11.4.
func parseAuth(values []string) (authParams, error) {
	s := strings.Join(values, ", ")
	if len(s) > maxAuthHeader {
		return authParams{}, fmt.Errorf("a header of %d bytes for authentication: %d are allowed", len(s), maxAuthHeader)
	}
	var p authParams
	ours, found := false, false
	for {
		s = strings.TrimLeft(s, " \t,")
		if s == "" {
			break
		}
		name, rest := cutToken(s)
		if name == "" {
			return authParams{}, fmt.Errorf("%.40q where a header for authentication has a name", s)
		}
		after := strings.TrimLeft(rest, " \t")
		value, isParam := strings.CutPrefix(after, "=")
		if !isParam {
			// Another scheme begins, and so does its list.
			if ours = strings.EqualFold(name, authScheme); ours && found {
				return authParams{}, errors.New(authScheme + " occurs twice in a header")
			}
			found = found || ours
			s = rest
			if !ours {
				s = skipToken68(s)
			}
			continue
		}
		text, rest, err := cutValue(strings.TrimLeft(value, " \t"))
		if err != nil {
			return authParams{}, err
		}
		s = strings.TrimLeft(rest, " \t")
		if s != "" && s[0] != ',' {
			return authParams{}, fmt.Errorf("%.40q where a header for authentication has a comma", s)
		}
		if !ours {
			continue
		}
		if to := p.field(name); to != nil {
			if *to != "" {
				return authParams{}, fmt.Errorf("%s occurs twice in a header", name)
			}
			*to = text
		}
	}
	if !found {
		return authParams{}, errors.New("no header with " + authScheme)
	}
	return p, nil
}

// field returns where the parameter with that name belongs, nil for one that is
// not known.
func (p *authParams) field(name string) *string {
	switch strings.ToLower(name) {
	case "challenge-client":
		return &p.challengeClient
	case "challenge-server":
		return &p.challengeServer
	case "public-key":
		return &p.publicKey
	case "sig":
		return &p.sig
	case "opaque":
		return &p.opaque
	case "bearer":
		return &p.bearer
	}
	return nil
}

func cutToken(s string) (token, rest string) {
	n := strings.IndexFunc(s, func(r rune) bool { return !isTokenChar(r) })
	if n < 0 {
		n = len(s)
	}
	return s[:n], s[n:]
}

func isTokenChar(r rune) bool {
	return '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' ||
		r < 0x80 && strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// cutValue cuts a token or a quoted string off s.
func cutValue(s string) (value, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		if value, rest = cutToken(s); value == "" {
			return "", "", fmt.Errorf("%.40q where a header for authentication has a value", s)
		}
		return value, rest, nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		c := s[i]
		if c == '"' {
			return b.String(), s[i+1:], nil
		}
		if c == '\\' {
			if i++; i == len(s) {
				break
			}
			c = s[i]
		}
		if c < ' ' || c > '~' {
			return "", "", fmt.Errorf("the byte %#02x in a header for authentication", c)
		}
		b.WriteByte(c)
	}
	return "", "", errors.New("a header for authentication ends inside quotes")
}

// skipToken68 skips the other form that a scheme's credentials may have.
func skipToken68(s string) string {
	t := strings.TrimLeft(s, " \t")
	n := strings.IndexFunc(t, func(r rune) bool { return !isTokenChar(r) && r != '/' })
	if n < 0 {
		n = len(t)
	}
	for n < len(t) && t[n] == '=' {
		n++
	}
	if rest := strings.TrimLeft(t[n:], " \t"); n > 0 && (rest == "" || rest[0] == ',') {
		return rest
	}
	return s
}

// authHeader writes a header's value from names and their values.
func authHeader(pairs ...string) string {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	var b strings.Builder
	b.WriteString(authScheme)
	sep := " "
	for pair := range slices.Chunk(pairs, 2) {
		if pair[1] == "" {
			continue // such as an opaque value that the server does not have
		}
		fmt.Fprintf(&b, `%s%s="%s"`, sep, pair[0], quote.Replace(pair[1]))
		sep = ", "
	}
	return b.String()
}

// signed returns the bytes that are signed for names and their values, sorted by
// the names. https://github.com/libp2p/specs/blob/master/http/peer-id-auth.md#signing
func signed(sorted ...string) []byte {
	b := []byte(authScheme)
	for pair := range slices.Chunk(sorted, 2) {
		b = wire.AppendFrame(b, []byte(pair[0]+"="+pair[1]))
	}
	return b
}

// newChallenge returns 32 random bytes as text.
func newChallenge() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return encode64(b)
}

func encode64(b []byte) string { return base64.URLEncoding.EncodeToString(b) }

// decode64 reads base64 with or without padding, as the specification allows.
func decode64(s string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
}
