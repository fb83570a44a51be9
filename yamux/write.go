package yamux

// Write queues p for the peer and returns when all of it is written to the
// connection or, if it is little or others write there, in the session's queue. It waits
// while the peer grants no credit or the queue is full, at most until the
// write deadline. When it returns an error, n bytes may or may not arrive.
func (st *Stream) Write(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.takeTurn(); err != nil {
		return 0, err
	}
	for n < len(p) && err == nil {
		var m int
		m, err = st.writeSome(p[n:])
		n += m
	}
	st.writing = false
	st.canWrite.wake() // the next Write
	return n, err
}

// takeTurn waits for other Writes to end, so that the bytes of each stay
// together. st.mu is held.
func (st *Stream) takeTurn() error {
	for {
		if err := st.cannotWrite(); err != nil {
			return err
		}
		if !st.writing {
			st.writing = true
			return nil
		}
		st.wait(&st.canWrite)
	}
}

func (st *Stream) cannotWrite() error {
	if st.writeErr != nil {
		return st.writeErr
	}
	if st.expired(&st.canWrite) {
		return errWriteTimeout
	}
	return nil
}

// writeSome writes as much of p as credit and queue allow now, and waits until
// that is something. st.mu is held, but not all the time.
func (st *Stream) writeSome(p []byte) (n int, err error) {
	s := st.session
	for {
		if err := st.cannotWrite(); err != nil {
			s.unbook(st, 0)
			return 0, err
		}
		if want := min(uint64(len(p)), uint64(st.sendCredit)); want > 0 {
			if n = s.book(st, int(want)); n > 0 {
				break
			}
		}
		st.wait(&st.canWrite)
	}
	p = p[:n]

	var frames *buffer
	if n > smallFrame {
		st.mu.Unlock()
		frames = makeFrames(p)
		st.mu.Lock()
		if st.writeErr != nil {
			frames.free()
			s.unbook(st, n)
			return 0, st.writeErr
		}
	}
	st.sendCredit -= uint32(n)
	role, err := s.postData(st, p, frames)
	if err != nil {
		return 0, err
	}
	switch {
	case role && n <= laterMax:
		go s.flushAll()
	case role:
		st.flushAndUnlock(true)
		st.mu.Lock()
		if st.writeErr != nil && st.writeErr != errWriteClosed {
			return n, st.writeErr // it may not have arrived
		}
	}
	return n, nil
}
