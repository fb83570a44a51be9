package mdns

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
)

const (
	// DefaultService is the service that all libp2p peers share.
	// https://github.com/libp2p/specs/blob/master/discovery/mdns.md#definitions
	DefaultService = "_p2p._udp"

	port = 5353 // RFC 6762 §5

	// recordTTL is the lifetime that our records claim; the A and AAAA records of
	// any host claim the same (RFC 6762 §10).
	recordTTL = 120 * time.Second
	// plainTTL is the lifetime claimed to resolvers that do not know mDNS, at
	// most (RFC 6762 §6.7).
	plainTTL = 10 * time.Second

	// dnsaddr begins a TXT string that holds an address.
	// https://github.com/libp2p/specs/blob/master/discovery/mdns.md#response
	dnsaddr = "dnsaddr="
	// maxText is the longest TXT string that DNS can carry, in bytes (RFC 1035
	// §3.3): longer addresses are left out, as the other implementations do.
	maxText = 255
	// maxSent keeps our packets in one Ethernet frame, in bytes.
	maxSent = 1400

	// MaxPacket is the longest packet read, in bytes (RFC 6762 §17).
	MaxPacket = 9000
	// maxQuestions, maxRecords and maxTexts bound what is read of one packet:
	// rust-libp2p puts 29 TXT records into one, everybody else fewer.
	maxQuestions = 16
	maxRecords   = 128
	maxTexts     = 64

	classMask = 1<<15 - 1
	topBit    = 1 << 15 // of a class: "reply by unicast" in questions, "forget older records" in answers

	alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
)

// names are the domain names of one peer, in the form that packets carry them.
type names struct {
	service  dnsmessage.Name // _p2p._udp.local. → instance, for every peer
	instance dnsmessage.Name // <random>._p2p._udp.local.
	host     dnsmessage.Name // <random>.p2p.local.
	types    dnsmessage.Name // _services._dns-sd._udp.local. → service
}

// questions is a set of what can be asked of us.
type questions uint8

const (
	askService  questions = 1 << iota // who is there?
	askInstance                       // a record of ours, by its name
	askTypes                          // which services are there?
)

// A message is what a packet says, as far as it concerns us.
type message struct {
	response bool

	// of a question
	id        uint16
	asked     questions
	questions []dnsmessage.Question
	unicast   bool // replies are wanted by unicast, to all questions

	// of a response
	records []textRecord
}

// A textRecord is a TXT record of some peer's.
type textRecord struct {
	name    string
	texts   []string
	goodbye bool
}

// A reply says how a response differs from the usual one.
type reply struct {
	goodbye bool                  // all is over
	plain   bool                  // to a resolver that does not know mDNS
	id      uint16                // of the question, in unicast
	echo    []dnsmessage.Question // the question, for plain resolvers
}

// newNames checks the service, and draws a name of 32 to 63 letters and digits:
// the specification warns of using the peer ID, which may grow too long.
func newNames(service string, rng *rand.Rand) (n names, err error) {
	label, transport, _ := strings.Cut(service, ".")
	if len(label) < 2 || len(label) > 63 || label[0] != '_' || strings.Trim(label[1:], alphabet+"-") != "" ||
		transport != "_udp" && transport != "_tcp" {
		return n, fmt.Errorf("mdns: service %q is not of the form \"_name._udp\" (lower-case letters, digits and -; the domain .local is added)", service)
	}
	name := make([]byte, 32+rng.IntN(32))
	for i := range name {
		name[i] = alphabet[rng.IntN(len(alphabet))]
	}
	// A label has at most 63 bytes, so that every name is far below DNS's 255.
	return names{
		service:  dnsmessage.MustNewName(service + ".local."),
		instance: dnsmessage.MustNewName(string(name) + "." + service + ".local."),
		host:     dnsmessage.MustNewName(string(name) + ".p2p.local."),
		types:    dnsmessage.MustNewName("_services._dns-sd._udp.local."),
	}, nil
}

// query returns the packet that asks for all peers. It does not ask for unicast
// replies: several programs share port 5353, and only one would get them.
func (n *names) query() []byte {
	return pack(dnsmessage.Message{Questions: []dnsmessage.Question{
		{Name: n.service, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET},
	}})
}

// answerService returns the answer to a query for all peers, in as many packets as the
// addresses need. Each is complete, and has all its addresses in one TXT record:
// go-libp2p reads one record of one packet of a peer, and only if that packet
// has an SRV record and an A or AAAA record for its target.
func (n *names) answerService(addrs []multiaddr.Addr, id peer.ID, r reply) (packets [][]byte) {
	var texts []string
	size := len(n.packet(addrs, nil, r, false))
	room := maxSent - size
	for _, text := range texted(addrs, id) {
		if len(text)+1 > room {
			packets = append(packets, n.packet(addrs, texts, r, false))
			texts, room = nil, maxSent-size
		}
		texts = append(texts, text)
		room -= len(text) + 1
	}
	if len(texts) > 0 {
		packets = append(packets, n.packet(addrs, texts, r, false))
	}
	return packets
}

// answerInstance returns the answer to a question for one of our records.
func (n *names) answerInstance(addrs []multiaddr.Addr, id peer.ID, r reply) []byte {
	room := maxSent - len(n.packet(addrs, nil, r, true))
	var texts []string
	for _, text := range texted(addrs, id) {
		if room -= len(text) + 1; room < 0 {
			break
		}
		texts = append(texts, text)
	}
	return n.packet(addrs, texts, r, true)
}

// answerTypes returns the answer to a question for the services on this network.
func (n *names) answerTypes(r reply) []byte {
	return pack(r.message([]dnsmessage.Resource{
		{Header: r.header(n.types, false), Body: &dnsmessage.PTRResource{PTR: n.service}},
	}, nil))
}

// packet returns a response with our records, either as answers or, after the
// answer that names us, as additional records.
func (n *names) packet(addrs []multiaddr.Addr, texts []string, r reply, asAnswers bool) []byte {
	var ip4, ip6, first bool
	var records []dnsmessage.Resource
	for _, a := range addrs {
		ap, _, _ := a.AddrPort()
		if !first {
			first = true
			records = append(records,
				dnsmessage.Resource{Header: r.header(n.instance, true), Body: &dnsmessage.SRVResource{Port: ap.Port(), Target: n.host}},
				dnsmessage.Resource{Header: r.header(n.instance, true), Body: &dnsmessage.TXTResource{TXT: texts}})
		}
		switch ip := ap.Addr(); {
		case ip.Is4() && !ip4:
			ip4 = true
			records = append(records, dnsmessage.Resource{Header: r.header(n.host, true), Body: &dnsmessage.AResource{A: ip.As4()}})
		case ip.Is6() && !ip6:
			ip6 = true
			records = append(records, dnsmessage.Resource{Header: r.header(n.host, true), Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}})
		}
	}
	if asAnswers {
		return pack(r.message(records, nil))
	}
	return pack(r.message([]dnsmessage.Resource{
		{Header: r.header(n.service, false), Body: &dnsmessage.PTRResource{PTR: n.instance}},
	}, records))
}

// header returns the header of a record that is ours alone, or shared by all
// peers. The type is filled in by pack.
func (r *reply) header(name dnsmessage.Name, ours bool) dnsmessage.ResourceHeader {
	h := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: uint32(recordTTL / time.Second)}
	switch {
	case r.goodbye:
		h.TTL = 0
	case r.plain:
		h.TTL = uint32(plainTTL / time.Second)
	}
	if ours && !r.plain {
		h.Class |= topBit
	}
	return h
}

func (r *reply) message(answers, additionals []dnsmessage.Resource) dnsmessage.Message {
	m := dnsmessage.Message{
		Header:      dnsmessage.Header{ID: r.id, Response: true, Authoritative: true},
		Answers:     answers,
		Additionals: additionals,
	}
	if r.plain {
		m.Questions = r.echo
	}
	return m
}

// pack encodes a message of ours. Names and strings have been measured before,
// so it does not fail; if it did, nothing would be sent.
func pack(m dnsmessage.Message) []byte {
	packet, err := m.Pack()
	if err != nil {
		return nil
	}
	return packet
}

// texted returns the addresses as TXT strings, without those that are too long.
func texted(addrs []multiaddr.Addr, id peer.ID) (texts []string) {
	for _, a := range (peer.AddrInfo{ID: id, Addrs: addrs}).P2PAddrs() {
		if text := dnsaddr + a.String(); len(text) <= maxText {
			texts = append(texts, text)
		}
	}
	return texts
}

// parse reads a packet. It is false when the packet is not DNS at all; what
// cannot be read in a packet is skipped with all that follows.
func parse(packet []byte, own *names) (m message, ok bool) {
	var p dnsmessage.Parser
	if len(packet) > MaxPacket {
		return m, false
	}
	h, err := p.Start(packet)
	if err != nil || h.OpCode != 0 || h.RCode != 0 { // RFC 6762 §18.3, §18.11
		return m, false
	}
	m.response, m.id = h.Response, h.ID
	if m.response {
		m.parseRecords(&p, own)
	} else {
		m.parseQuestions(&p, own)
	}
	return m, true
}

func (m *message) parseQuestions(p *dnsmessage.Parser, own *names) {
	m.unicast = true
	for range maxQuestions {
		q, err := p.Question()
		if err != nil {
			return
		}
		class := q.Class & classMask
		if class != dnsmessage.ClassINET && class != dnsmessage.ClassANY {
			continue
		}
		asks := func(name dnsmessage.Name, types ...dnsmessage.Type) bool {
			return strings.EqualFold(q.Name.String(), name.String()) && (q.Type == dnsmessage.TypeALL || slices.Contains(types, q.Type))
		}
		var asked questions
		switch {
		case asks(own.service, dnsmessage.TypePTR):
			asked = askService
		case asks(own.instance, dnsmessage.TypeSRV, dnsmessage.TypeTXT), asks(own.host, dnsmessage.TypeA, dnsmessage.TypeAAAA):
			asked = askInstance
		case asks(own.types, dnsmessage.TypePTR):
			asked = askTypes
		default:
			continue
		}
		m.asked |= asked
		m.unicast = m.unicast && q.Class&topBit != 0
		q.Class = class
		m.questions = append(m.questions, q)
	}
}

// parseRecords keeps the TXT records that belong to the service: whose name is
// below it, or is what it points to. (rust-libp2p's names are not below it.)
// They count wherever they stand: js-libp2p puts them among the answers. Our own
// are left out.
func (m *message) parseRecords(p *dnsmessage.Parser, own *names) {
	if p.SkipAllQuestions() != nil {
		return
	}
	var records []textRecord
	targets := make(map[string]bool)
	left, texts := maxRecords, maxTexts
	section := func(header func() (dnsmessage.ResourceHeader, error), skip func() error) {
		for ; left > 0 && texts > 0; left-- {
			h, err := header()
			if err != nil {
				return
			}
			switch {
			case h.Class&classMask != dnsmessage.ClassINET:
				err = skip()
			case h.Type == dnsmessage.TypePTR && strings.EqualFold(h.Name.String(), own.service.String()):
				var ptr dnsmessage.PTRResource
				if ptr, err = p.PTRResource(); err == nil {
					targets[strings.ToLower(ptr.PTR.String())] = true
				}
			case h.Type == dnsmessage.TypeTXT:
				var txt dnsmessage.TXTResource
				if txt, err = p.TXTResource(); err == nil {
					txt.TXT = txt.TXT[:min(len(txt.TXT), texts)]
					texts -= len(txt.TXT)
					records = append(records, textRecord{strings.ToLower(h.Name.String()), txt.TXT, h.TTL == 0})
				}
			default:
				err = skip()
			}
			if err != nil {
				left = 0
			}
		}
	}
	section(p.AnswerHeader, p.SkipAnswer)
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		left = 0
	}
	section(p.AdditionalHeader, p.SkipAdditional)

	below := "." + own.service.String()
	m.records = slices.DeleteFunc(records, func(r textRecord) bool {
		return r.name == own.instance.String() || !targets[r.name] && !strings.HasSuffix(r.name, below)
	})
}
