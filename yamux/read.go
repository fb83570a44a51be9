package yamux

// maxCopy is how much one Read takes out of the queue, since the read loop may
// have to wait for it.
const maxCopy = 256 << 10

// Read reads what the peer has written, and returns io.EOF after the end of
// it. It waits until there is something, at most until the read deadline.
func (st *Stream) Read(p []byte) (n int, err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if n, err = st.read(p); n > 0 && st.returnCredit() {
		go st.session.flushAll() // a reader does not wait for a peer to read
	}
	return n, err
}

func (st *Stream) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		switch {
		case st.expired(&st.canRead):
			return 0, errReadTimeout
		case st.received.size > 0:
			before := st.beyond(st.received.size)
			n := st.received.read(p[:min(len(p), maxCopy)])
			st.session.held.Add(int64(-n))
			st.session.reserve.sub(before - st.beyond(st.received.size))
			return n, nil
		case st.readErr != nil:
			return 0, st.readErr
		case st.id == 0:
			// The peer must know the stream before it can say something.
			if st.session.post(st, typeWindowUpdate, 0, 0) {
				go st.session.flushAll()
			}
			if st.id == 0 {
				return 0, st.session.Err()
			}
			continue
		case st.waiting != nil: // another Read is first
			st.wait(&st.canRead)
			continue
		}
		st.waiting, st.filled = p, 0
		st.wait(&st.canRead)
		n := st.filled
		st.waiting = nil
		if n > 0 {
			return n, nil
		}
	}
}

// receive takes a piece of the payload of a data frame, which was found to be
// within the credit.
func (st *Stream) receive(p []byte, fin bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.arriving -= uint32(len(p))
	switch {
	case st.readErr != nil:
		if st.returnCredit() {
			go st.session.flushAll()
		}
	case !st.deliver(p):
		st.session.refuse(st)
	}
	if fin {
		st.handleFIN()
	}
}

// deliver hands p to the Read that waits, or queues it. It returns false when
// the session holds too much already. st.mu is held.
func (st *Stream) deliver(p []byte) bool {
	if st.waiting != nil && st.filled < len(st.waiting) {
		n := copy(st.waiting[st.filled:], p)
		st.filled += n
		p = p[n:]
		st.session.in.wakeLater(st)
		if len(p) == 0 {
			return true
		}
	}
	budget := int64(st.session.cfg.Budget)
	if held := st.session.held.Add(int64(len(p))); held > budget && budget > 0 {
		st.session.held.Add(int64(-len(p)))
		return false
	}
	size := st.received.size
	if !st.session.reserve.add(st.beyond(size+len(p)) - st.beyond(size)) {
		st.session.held.Add(int64(-len(p)))
		return false
	}
	if st.received.size == 0 {
		st.session.in.wakeLater(st)
	}
	if b := st.session.in.hand(p); b != nil {
		st.received.push(b)
	} else {
		st.received.write(p)
	}
	return true
}

// discard drops what was received. st.mu is held.
func (st *Stream) discard() {
	st.session.held.Add(int64(-st.received.size))
	st.session.reserve.sub(st.beyond(st.received.size))
	st.received.clear()
}

// refuse resets a stream for which there is no memory. st.mu is held.
func (s *Session) refuse(st *Stream) {
	s.mu.Lock()
	if s.err == nil {
		s.reply(typeWindowUpdate, flagRST, st.id, codeResourceLimit)
	}
	s.mu.Unlock()
	st.abort(&StreamError{Code: codeResourceLimit})
}
